"""What a run looks like: curves of its metrics as a PNG, and sampled completions in the terminal."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
