"""What `MediaSpec.look` makes of sampled frames: some of them, blurred, noisy or partly covered.

Everything here is a function of pixels, settings and the digest of the file: the same frames on every run.
Integers count where they can, and random numbers come from NumPy's frozen generator.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from videop2r_data.media.geometry import frame_count, frames_digest
from videop2r_data.media.image import Want, encode_frames
from videop2r_data.schemas import Frames, LookRecord, LookSpec, MediaSpec, digest_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CUT = 12
"""Mean change of brightness, of 255, below which nothing is a scene cut."""
CUT_RATIO = 3
"""How many times the change at a cut is that around it: in a moving picture everything changes."""
_AROUND = 2
_BLOCKS = 32
_GREY = 128


def looked(
    base: Frames, spec: MediaSpec, want: Want, *, question: str = "", scores: Sequence[float] | None = None
) -> Frames:
    """Select, drop and change frames; their record says what was done.

    Args:
        base: as `spec.candidates` samples them, with their array.
        spec: whose `look` is set.
        question: the text that frames are selected by.
        scores: `relevance` of each frame to it; None: it is worked out here, where it is needed.

    Raises:
        MissingExtraError, ConfigError: as `relevance`.
    """
    look, record, array = spec.look, base.record, base.array
    assert look is not None and array is not None
    name = record.file_sha256 or record.frames_sha256  # a drawn scene has no file
    told: dict[str, object] = {"settings": look.model_dump(mode="json", exclude_defaults=True)}
    chosen = list(range(record.count))
    if record.data_type == "video":
        if look.select != "uniform":
            count = frame_count(spec, record.seen.source_frames, record.seen.duration_s)
            told["candidates"] = record.count
            if look.select == "scenes":
                cuts = scene_starts(array)
                chosen, told["scenes"] = spread(cuts, record.count, count), len(cuts)
            else:
                from videop2r_data.media.embed import embedder_key, relevance

                scores = relevance(array, question, look) if scores is None else scores
                chosen = sorted(sorted(chosen, key=lambda at: (-scores[at], at))[:count])
                told |= {"question_sha256": digest_bytes(question.encode()), "embedder": embedder_key(look)}
        kept = _kept(len(chosen), look, name)
        told["dropped"] = [record.indices[at] for n, at in enumerate(chosen) if n not in kept]
        chosen = [chosen[n] for n in kept]
    indices = tuple(record.indices[at] for at in chosen)
    array, told["box"] = changed(array[chosen], indices, look, name)
    update = {
        "frames_sha256": frames_digest(array),
        "count": len(chosen),
        "indices": indices,
        "times_s": tuple(record.times_s[at] for at in chosen),
        "look": LookRecord.model_validate(told),
    }
    record = record.model_copy(update=update)
    if want == "array":
        return Frames(record=record, array=array, mime=spec.mime)
    return Frames(record=record, encoded=encode_frames(array, spec), mime=spec.mime)


# Scenes: where the picture changes at once, and by more than it changes around.


def scene_starts(array: NDArray[np.uint8]) -> list[int]:
    """Positions in uint8 [T, H, W, 3] at which scenes begin, the first one at 0.

    Compared are mean brightnesses of at most 32 x 32 blocks: PySceneDetect does the same with OpenCV, which
    is another decoder and 60 MB for it.
    """
    import numpy as np

    count, tall, wide = array.shape[:3]
    high, across = max(1, tall // _BLOCKS), max(1, wide // _BLOCKS)
    cut = array[:, : tall // high * high, : wide // across * across].astype(np.int64)
    luma = cut @ np.array([77, 150, 29], dtype=np.int64)
    blocks = luma.reshape(count, tall // high, high, wide // across, across).sum((2, 4)) // (
        256 * high * across
    )
    change = [int(np.abs(b - a).sum()) / b.size for a, b in pairwise(blocks)]
    starts = [0]
    for at, here in enumerate(change):
        near = [*change[max(0, at - _AROUND) : at], *change[at + 1 : at + 1 + _AROUND]]
        if here >= CUT and here * len(near) >= CUT_RATIO * sum(near):
            starts.append(at + 1)
    return starts


def spread(starts: Sequence[int], total: int, count: int) -> list[int]:
    """Positions of `count` frames, of `total`, over the scenes that begin at `starts`: one for each as far as
    they go, longest first, the rest by length; evenly spaced within a scene.

    >>> spread([0, 8, 10], 20, 4)
    [4, 9, 12, 17]
    """
    lengths = [end - start for start, end in pairwise([*starts, total])]
    count = min(count, total)
    shares = [0] * len(lengths)
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))[:count]:
        shares[at] = 1
    while sum(shares) < count:
        free = (at for at in range(len(lengths)) if shares[at] < lengths[at])
        shares[max(free, key=lambda at: (lengths[at] / (shares[at] + 1), -at))] += 1
    return [
        start + (2 * k + 1) * length // (2 * share)
        for start, length, share in zip(starts, lengths, shares, strict=True)
        for k in range(share)
    ]


# What happens to pixels.


def changed(
    array: NDArray[np.uint8], indices: Sequence[int], look: LookSpec, name: str
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int] | None]:
    """Frames blurred, with noise, and partly covered, and the box that covers them.

    Args:
        array: uint8 [T, H, W, 3].
        indices: T, of the frames in their clip: the noise of a frame does not depend on the others.
        look: how much.
        name: digest of the clip's file.
    """
    import numpy as np

    array = array.copy()
    for slot, index in enumerate(indices):
        if look.blur:
            array[slot] = _blurred(array[slot], look.blur)
        if look.noise:
            added = _random(look, name, f"noise {index}").standard_normal(array[slot].shape)
            array[slot] = np.clip(array[slot] + np.rint(look.noise * added), 0, 255).astype(np.uint8)
    if not look.occlude:
        return array, None
    tall, wide = array.shape[1:3]
    high, across = (max(1, round(side * math.sqrt(look.occlude))) for side in (tall, wide))
    rng = _random(look, name, "box")
    top, left = rng.randint(0, tall - high + 1), rng.randint(0, wide - across + 1)
    array[:, top : top + high, left : left + across] = _GREY
    return array, (left, top, left + across, top + high)


def _kept(count: int, look: LookSpec, name: str) -> list[int]:
    """Which of so many frames stay."""
    gone = min(count - 1, round(look.drop * count))
    order = _random(look, name, "drop").permutation(count) if gone else range(count)
    return sorted(int(at) for at in order[gone:])


def _random(look: LookSpec, name: str, use: str) -> np.random.RandomState:
    import numpy as np

    state = hashlib.sha256(f"{look.seed}/{name}/{use}".encode()).digest()
    return np.random.RandomState(np.frombuffer(state, dtype="<u4"))


def _blurred(frame: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Gaussian blur with whole-number weights, cut at 3 sigma; edges are continued."""
    import numpy as np

    reach = max(1, math.ceil(3 * sigma))
    weights = [round(2**16 * math.exp(-0.5 * (k / sigma) ** 2)) for k in range(-reach, reach + 1)]
    whole = sum(weights)
    out = frame.astype(np.int64)
    for axis in (0, 1):
        padded = np.pad(out, [(reach, reach) if at == axis else (0, 0) for at in range(3)], mode="edge")
        taps = (
            weight * np.take(padded, range(k, k + out.shape[axis]), axis) for k, weight in enumerate(weights)
        )
        out = (sum(taps, np.zeros_like(out)) + whole // 2) // whole
    return out.astype(np.uint8)
