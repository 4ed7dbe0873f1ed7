from .make import FramesOf as FramesOf
from .make import Gallery as Gallery
from .make import GalleryReport as GalleryReport
from .make import make_gallery as make_gallery
from .make import write_gallery as write_gallery
from .page import GalleryServer as GalleryServer
from .rows import read_verdicts as read_verdicts
