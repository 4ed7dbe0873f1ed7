from .compare import Comparison as Comparison
from .leave import read_left_out as read_left_out
from .run import OverlapSettings as OverlapSettings
from .run import find_overlap as find_overlap
