"""Every setting of training and evaluation as typed records; a recipe loads neither torch nor vLLM."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
