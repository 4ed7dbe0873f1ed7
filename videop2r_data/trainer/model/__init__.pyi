from .forward import TrainModel as TrainModel
from .load import load_policy as load_policy
