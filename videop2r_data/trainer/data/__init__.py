"""Questions of a data set as model inputs: reading, order, decoding ahead, and one collator for all uses."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
