"""A tiny Qwen2.5-VL of the demo world, to try training, rollouts and servers on a CPU."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
