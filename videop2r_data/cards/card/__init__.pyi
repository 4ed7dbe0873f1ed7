from .dataset import as_written as as_written
from .dataset import write_dataset_card as write_dataset_card
from .facts import mark_figures as mark_figures
from .facts import read_facts as read_facts
from .model import CURVES as CURVES
from .model import write_model_card as write_model_card
