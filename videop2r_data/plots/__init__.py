"""Colours and helpers that every figure shares, whether it shows a data set or a training run.

`Look` is one style (light or dark), `png_bytes` gives the same bytes for the same figure on any machine.
matplotlib is loaded by the functions that draw, so that importing a colour costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
