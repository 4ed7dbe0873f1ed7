"""Counts of a data set in one pass and constant memory, and figures drawn from them.

Every figure is first a record (JSON), then a light and a dark PNG: `redraw` needs the JSON alone. The counts
need no extra; figures need `videop2r-data[report]`. Used by the commands `stats` and `card`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
