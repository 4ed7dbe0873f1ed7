from .questions import RowStore as RowStore
from .questions import evaluate as evaluate
from .report import EvalReport as EvalReport
from .report import EvalRow as EvalRow
from .report import named_estimates as named_estimates
from .run import eval_recipe as eval_recipe
from .run import find_target as find_target
from .run import run_eval as run_eval
