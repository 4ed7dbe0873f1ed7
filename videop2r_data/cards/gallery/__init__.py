"""The gallery: every row of a release on one HTML page, its clip beside its question, to look at and to mark.

`make_gallery` reads the rows, `write_gallery` writes the page; `GalleryServer` shows it on the loopback
address where a browser refuses local clips. The page's own scripts and style lie beside these modules. Used
by the command `gallery`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
