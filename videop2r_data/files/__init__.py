"""The floor for rows on disk: how a data set's files are named, found, opened and read in constant memory.

`open_release` finds what a folder, a file or a Hub id holds, `open_rows` streams the rows of one config,
`read_lock` tells what a build was made of, and `resolve_media` leads from a row to its clip. Builders, cards
and trainer never import each other: they meet through these files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
