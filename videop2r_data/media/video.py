"""N frames out of a clip with PyAV: the fast way where it is sure, else in order."""

from __future__ import annotations

from pathlib import Path

from videop2r_data.media.completeness import check_complete
from videop2r_data.media.container import open_video
from videop2r_data.media.gop import NotAsPlannedError, sample_runs, shown_order
from videop2r_data.media.inorder import sample_in_order
from videop2r_data.media.packets import read_index
from videop2r_data.media.sample_table import read_table
from videop2r_data.media.sampled import Sampled
from videop2r_data.schemas.recipe import MediaSpec


def sample_video(path: Path, spec: MediaSpec) -> Sampled:
    """Take `spec.frames` uniformly spaced frames.

    Which way is taken depends on the file and the settings alone, and both give the same frames wherever
    every packet decodes.

    Raises:
        MediaError: see `container.open_video`, `completeness.check_complete` and `inorder.sample_in_order`.
    """
    with open_video(path, spec.limits) as (container, stream):
        index = read_table(container, stream, path, spec.limits) or read_index(
            container, stream, path, spec.limits
        )
        missing = check_complete(container, stream, index, path, spec.limits)
        order = shown_order(index, stream.codec_context.codec.name)
        if order is not None and not spec.limits.decode_all:
            try:
                return sample_runs(path, spec, stream, index, order, missing=missing)
            except NotAsPlannedError:
                pass
    return sample_in_order(path, spec, expected=index.shown_count, missing=missing)
