"""A Qwen2.5-VL or Qwen3-VL checkpoint as policy or reference: loading, the forward pass, saving."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
