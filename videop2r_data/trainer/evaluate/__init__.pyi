from .questions import evaluate as evaluate
from .report import EvalReport as EvalReport
from .report import EvalRow as EvalRow
