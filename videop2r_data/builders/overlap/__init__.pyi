from .leave import read_left_out as read_left_out
from .looks import MOST_FRAMES as MOST_FRAMES
from .run import OverlapSettings as OverlapSettings
from .run import find_overlap as find_overlap
