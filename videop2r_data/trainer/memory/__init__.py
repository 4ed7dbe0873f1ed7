"""How much memory a run takes, counted before it starts; and what to say when it was too much."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
