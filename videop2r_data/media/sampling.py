"""One file in, sampled frames and their record out; in this process. `DecodePool` does it in guarded ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from videop2r_data.errors import MediaError
from videop2r_data.files.media_roots import file_size
from videop2r_data.media.encode import encode_frames, mime_of
from videop2r_data.media.passthrough import own_bytes
from videop2r_data.schemas.calls import Frames, MediaRecord
from videop2r_data.schemas.recipe import MediaSpec
from videop2r_data.schemas.verdict import RejectReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from videop2r_data.media.sampled import Sampled

LARGE_FILE = 64 * 2**20
"""Bytes from which on a file is hashed in a thread of its own: a second per GB, off the way of its frames."""

MediaKind = Literal["image", "video"]
Want = Literal["encoded", "array"]


def frames_digest(array: NDArray[np.uint8]) -> str:
    """sha256 of `T,H,W,3;` followed by the pixels in C order: 64 hexadecimal digits.

    Args:
        array: uint8 [T, H, W, 3], RGB.
    """
    import numpy as np

    shape = ",".join(str(n) for n in array.shape) + ";"
    state = hashlib.sha256(shape.encode())
    state.update(np.ascontiguousarray(array, dtype=np.uint8).data)
    return state.hexdigest()


def sample_media(path: Path, data_type: MediaKind, spec: MediaSpec, *, want: Want) -> Frames:
    """Sample one file: `spec.frames` uniformly spaced frames of a clip, or one picture.

    The result depends on the file, the settings and the library versions only.

    Args:
        path: the file, from `resolve_media`.
        data_type: `video` for clips (an animated GIF is one), `image` for pictures.
        spec: sampling settings; `workers`, `limits.wall_s` and `limits.memory_mb` count in `DecodePool` only.
        want: `array` for uint8 [T, H, W, 3] RGB, `encoded` for T JPEG or PNG pictures (see `encode_frames`;
            with `spec.passthrough` the file itself where `own_bytes` allows it).

    Returns:
        The frames; sides are multiples of `spec.factor`, within the pixel budget, upright.

    Raises:
        MediaError: its `reason` is one of `media_missing`, `media_empty`, `media_unreadable`,
            `media_truncated`, `media_no_video`, `media_encrypted`, `media_too_large`, `media_bad_packets`,
            `decode_memory`.
        MissingExtraError: `spec.decoder` is decord and it is not installed.
    """
    size = file_size(path, spec.limits)
    try:
        with _digest_of(path, size) as digest:
            sampled = _sample(path, data_type, spec)
            file_sha256 = digest()
        own = None
        if want == "encoded" and spec.passthrough and data_type == "image":
            own = own_bytes(path, sampled, file_sha256)
        encoded: tuple[bytes, ...] = ()
        if want == "encoded":
            encoded = encode_frames(sampled.array, spec) if own is None else (own[0],)
    except MemoryError as error:
        raise MediaError(
            f"needs more memory than there is ({error or 'allocation failed'})",
            reason=RejectReason.DECODE_MEMORY,
            where=str(path),
        ) from None
    except MediaError as error:
        error.where = error.where or str(path)
        raise
    except OSError as error:
        raise MediaError(
            f"cannot be read: {error}", reason=RejectReason.MEDIA_UNREADABLE, where=str(path)
        ) from None
    record = MediaRecord(
        data_type=data_type,
        frames_sha256=frames_digest(sampled.array),
        count=sampled.array.shape[0],
        width=sampled.array.shape[2],
        height=sampled.array.shape[1],
        indices=sampled.indices,
        times_s=sampled.times_s,
        source_fps=sampled.fps,
        source_frames=sampled.total,
        duration_s=sampled.duration_s,
        source_width=sampled.width,
        source_height=sampled.height,
        file_sha256=file_sha256,
        file_bytes=size,
        sampler=sampled.sampler,
        passthrough=own is not None if spec.passthrough else None,
        times=sampled.times,
        missing=sampled.missing,
    )
    array = sampled.array if want == "array" else None
    return Frames(record=record, array=array, encoded=encoded, mime=mime_of(spec) if own is None else own[1])


@contextmanager
def _digest_of(path: Path, size: int) -> Iterator[Callable[[], str]]:
    """sha256 of a file; that of a large one is worked out beside the decoding."""

    def work() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    if size < LARGE_FILE:
        found = work()
        yield lambda: found
        return
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield future.result


def _sample(path: Path, data_type: MediaKind, spec: MediaSpec) -> Sampled:
    if data_type == "image":
        from videop2r_data.media.image import sample_image

        return sample_image(path, spec)
    if spec.decoder == "decord":
        from videop2r_data.media.decord_video import sample_decord

        return sample_decord(path, spec)
    from videop2r_data.media.video import sample_video

    return sample_video(path, spec)
