"""Frames out of clips and pictures: sampled uniformly, within a pixel budget, in guarded processes.

Builds, the gallery and the trainer read media here. `DecodePool` samples many files in processes of their
own; `sample_media` and `probe_media` do one file in the calling process. Nothing is loaded before its first
use: neither PyAV nor Pillow nor decord.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
