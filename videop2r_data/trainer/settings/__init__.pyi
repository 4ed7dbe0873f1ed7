from .parts import DataSpec as DataSpec
from .parts import EvalSpec as EvalSpec
from .parts import PolicySpec as PolicySpec
from .rl import LossSpec as LossSpec
from .rl import ObjectiveName as ObjectiveName
from .rl import ObjectiveSpec as ObjectiveSpec
from .rl import RewardSpec as RewardSpec
from .rl import SamplingSpec as SamplingSpec
