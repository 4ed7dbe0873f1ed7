from .base import DemoJudge as DemoJudge
from .base import JudgeItem as JudgeItem
