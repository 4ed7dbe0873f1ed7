"""What a training pool and evaluation sets have in common, by five signals that are counted apart.

`find_overlap` reads both sides, compares ids in file names, files, frames and wordings, and writes a report
and the list of rows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
