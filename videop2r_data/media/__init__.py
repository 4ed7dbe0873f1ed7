"""Frames out of clips and pictures: sampled uniformly, within a pixel budget, in guarded processes.

`DecodePool` is the way in for a build; `sample_media` and `probe_media` do one file in this process.
Importing this room loads neither PyAV nor Pillow nor decord.
"""

from __future__ import annotations

from videop2r_data.files.media_roots import resolve_media
from videop2r_data.media.geometry import smart_resize, uniform_indices
from videop2r_data.media.pool import DecodePool
from videop2r_data.media.probe import MediaProbe, probe_media
from videop2r_data.media.sampling import frames_digest, sample_media

__all__ = [
    "DecodePool",
    "MediaProbe",
    "frames_digest",
    "probe_media",
    "resolve_media",
    "sample_media",
    "smart_resize",
    "uniform_indices",
]
