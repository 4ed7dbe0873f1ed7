"""A released data set against itself, its lock, its card and the scorers: `verify_release`.

Every row is parsed and scored again and every column compared with the others; the result is a `VerifyReport`
of findings by `Code`. The command line and the push to the Hub call it; it needs no recipe and no journal.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
