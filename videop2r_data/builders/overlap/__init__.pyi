from .run import OverlapSettings as OverlapSettings
from .run import find_overlap as find_overlap
