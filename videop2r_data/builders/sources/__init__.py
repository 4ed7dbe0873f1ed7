"""Pools of questions in any layout, as rows: `Sample`, or `BadRow` with the reason.

`open_source` opens one source of a recipe and `open_sources` all of them in order; memory stays constant
however large the pool is. The build, `check`, `estimate` and the gallery read pools here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
