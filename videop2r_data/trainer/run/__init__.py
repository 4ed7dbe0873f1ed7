"""The training loops: a session from a recipe, SFT and RL steps, checkpoints, logs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
