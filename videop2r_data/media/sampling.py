"""One file in this process: its sampled frames and their record, or what it is without its pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from videop2r_data.errors import MediaError
from videop2r_data.files import file_digest, file_size
from videop2r_data.media.container import layout_of
from videop2r_data.media.geometry import Scaler, frames_digest, media_error
from videop2r_data.media.image import (
    Want,
    encode_frames,
    load_image,
    open_image,
    own_bytes,
    sample_image,
    told_of,
)
from videop2r_data.media.timing import timing
from videop2r_data.schemas import (
    WHOLE,
    Focus,
    Frames,
    MediaLimits,
    MediaRecord,
    MediaSpec,
    Model,
    RejectReason,
    TimesKind,
)

if TYPE_CHECKING:
    from videop2r_data.media.geometry import Sampled
    from videop2r_data.media.packets import PacketIndex


# Sampling. `DecodePool` does the same in guarded processes.


LARGE_FILE = 64 * 2**20
"""Bytes from which on a file is hashed in a thread of its own: a second per GB, off the way of its frames."""

MediaKind = Literal["image", "video"]


def sample_media(
    path: Path, data_type: MediaKind, spec: MediaSpec, *, want: Want, focus: Focus = WHOLE
) -> Frames:
    """Sample one file: `spec.frames` uniformly spaced frames of a clip or of a part of it, or one picture.

    The result depends on the file, the settings and the library versions only.

    Args:
        path: the file, from `resolve_media`.
        data_type: `video` for clips (an animated GIF is one), `image` for pictures.
        spec: sampling settings; `workers`, `limits.wall_s` and `limits.memory_mb` count in `DecodePool` only.
        want: `array` for uint8 [T, H, W, 3] RGB, `encoded` for T JPEG or PNG pictures (see `encode_frames`;
            with `spec.passthrough` the file itself where `own_bytes` allows it).
        focus: the part of a clip, and the question where frames are selected by it.

    Returns:
        The frames; sides are multiples of `spec.factor`, within the pixel budget, upright.

    Raises:
        MediaError: its `reason` is one of `media_missing`, `media_empty`, `media_unreadable`,
            `media_truncated`, `media_no_video`, `media_encrypted`, `media_too_large`, `media_bad_packets`,
            `media_outside`, `decode_memory`.
        MissingExtraError: `spec.decoder` is decord and it is not installed.
    """
    if spec.look is not None:
        from videop2r_data.media.look import looked

        base = sample_media(path, data_type, spec.candidates, want="array", focus=focus)
        return looked(base, spec, want, question=focus.question)
    size = file_size(path, spec.limits)
    mime, own = spec.mime, None
    with _named_errors(path):
        with _digest_of(path, size) as digest:
            sampled = _sample(path, data_type, spec, focus)
            file_sha256 = digest()
        if want == "encoded" and spec.passthrough and data_type == "image":
            own = own_bytes(path, sampled, file_sha256)
        encoded: tuple[bytes, ...] = ()
        if own is not None:
            encoded, mime = (own[0],), own[1]
        elif want == "encoded":
            encoded = encode_frames(sampled.array, spec)
    made = sampled.timing
    record = MediaRecord(
        data_type=data_type,
        frames_sha256=frames_digest(sampled.array),
        count=sampled.array.shape[0],
        width=sampled.array.shape[2],
        height=sampled.array.shape[1],
        indices=sampled.indices,
        times_s=made.times_s,
        source_fps=made.fps,
        source_frames=sampled.total,
        duration_s=made.duration_s,
        source_width=sampled.source[1],
        source_height=sampled.source[0],
        file_sha256=file_sha256,
        file_bytes=size,
        sampler=sampled.sampler,
        passthrough=own is not None if spec.passthrough else None,
        times=made.kind,
        missing=sampled.missing,
        part=sampled.part,
    )
    array = sampled.array if want == "array" else None
    return Frames(record=record, array=array, encoded=encoded, mime=mime)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """What goes wrong with a file in here becomes a `MediaError` that names it."""
    try:
        yield
    except MemoryError as error:
        message = f"needs more memory than there is ({error or 'allocation failed'})"
        raise media_error(RejectReason.DECODE_MEMORY, message, path) from None
    except MediaError as error:
        error.where = error.where or str(path)
        raise
    except OSError as error:
        raise media_error(RejectReason.MEDIA_UNREADABLE, f"cannot be read: {error}", path) from None


@contextmanager
def _digest_of(path: Path, size: int) -> Iterator[Callable[[], str]]:
    """sha256 of a file; that of a large one is worked out beside the decoding."""
    if size < LARGE_FILE:
        found = file_digest(path)
        yield lambda: found
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(file_digest, path).result


def _sample(path: Path, data_type: MediaKind, spec: MediaSpec, focus: Focus) -> Sampled:
    from videop2r_data.media.video import sample_decord, sample_video

    if data_type == "image":
        return sample_image(path, spec)
    if spec.decoder == "decord":
        return sample_decord(path, spec, focus)
    return sample_video(path, spec, focus)


# Probing: what `check` looks at before a build spends anything.


_TIMES_WORDS = {
    "repaired": "its timestamps jump, repeat or are missing in places: frame times are repaired",
    "assumed": "it has no timestamps that can be used: frame times are counted from a frame rate",
}


class MediaProbe(Model):
    """What a media file is, without its pixels."""

    container: str
    """Demuxer or picture format, e.g. `mov,mp4,m4a,3gp,3g2,mj2` or `JPEG`."""
    codec: str
    """Video codec, or the picture's pixel mode."""
    width: int = Field(ge=1)
    """Pixels, upright (rotation and EXIF applied)."""
    height: int = Field(ge=1)
    fps: float | None = None
    """Average over the timestamps; None for pictures."""
    frames: int = Field(ge=1)
    """Frames that are shown; 1 for a picture."""
    frames_counted: bool
    """True: decoded or certain; False: counted from packets, which can differ in damaged or unusual files."""
    duration_s: float | None = None
    file_bytes: int = Field(ge=1)
    rotation: int = 0
    """Degrees counter-clockwise that make the stored picture upright: 0, 90, 180 or 270."""
    times: TimesKind | None = None
    """Where frame times come from; None for pictures."""
    missing: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the clip that its container promises and lacks; with `deep`: or that does not decode."""
    warnings: list[str] = Field(default_factory=list)


def probe_media(path: Path, data_type: MediaKind, limits: MediaLimits, *, deep: bool = False) -> MediaProbe:
    """Look at one file: header, every packet, and the first frame; with `deep` every frame.

    Args:
        path: the file, from `resolve_media`.
        data_type: `video` or `image`.
        limits: what a file may cost.
        deep: decode everything. Finds damage inside a complete file, at about 100 times the work.

    Raises:
        MediaError: as `sample_media`. Without `deep` a clip whose damage lies inside packets passes.
    """
    size = file_size(path, limits)
    with _named_errors(path):
        if data_type == "image":
            return _probe_image(path, limits, size)
        return _probe_video(path, limits, size, deep=deep)


def _probe_image(path: Path, limits: MediaLimits, size: int) -> MediaProbe:
    # A picture is always decoded: a truncated one looks whole until then.
    height, width = load_image(path, limits).shape[:2]
    with open_image(path, limits) as picture:
        frames, turned = told_of(picture)
        warnings = [f"animated: only the first of {frames} frames is used"] if frames > 1 else []
        return MediaProbe(
            container=picture.format or "?",
            codec=picture.mode,
            width=width,
            height=height,
            frames=1,
            frames_counted=True,
            file_bytes=size,
            rotation=turned,
            warnings=warnings,
        )


def _probe_video(path: Path, limits: MediaLimits, size: int, *, deep: bool) -> MediaProbe:
    from videop2r_data.media import decode
    from videop2r_data.media.container import open_video
    from videop2r_data.media.video import checked_index

    spec = MediaSpec(limits=limits)
    with open_video(path, limits) as (container, stream):
        index, missing = checked_index(container, stream, path, limits)
        name, codec = container.format.name, stream.codec_context.codec.name
        trusted = decode.shown_order(index, codec) is not None
        promised, found = stream.frames, len(index.pts)
        # Opening a file costs as much as all the rest: its packets are decoded while it is open.
        first = decode.first_frame_of(
            [*(index.packets or ()), None], stream.codec_context, decode.Scan(Scaler(spec, 0, path), {})
        )
    odd = []
    if promised not in (0, found):
        odd.append(f"its header promises {promised} frames, {found} packets are there")
    shown = index.shown_pts()
    if deep:
        scan = decode.decode_in_order(path, spec, [])
        decode.check_damage(scan, path, limits)
        if scan.bad:
            odd.append(f"{scan.bad} of {scan.packets} packets are damaged")
        shown, missing = [scan.pts[at] for at in scan.order()], max(missing, scan.damaged)
    height, width, upright = first or decode.first_frame(path, spec)
    made = timing(shown, (), index.clock, index.last_duration)
    odd += _warnings(index, path, trusted=trusted, missing=missing, kind=made.kind)
    if upright.mirrored:
        odd.append("its display matrix mirrors the picture: it is shown so")
    return MediaProbe(
        container=name,
        codec=codec,
        width=width,
        height=height,
        fps=made.fps,
        frames=max(1, len(shown)),
        frames_counted=deep or trusted,
        duration_s=made.duration_s,
        file_bytes=size,
        rotation=90 * upright.turns,
        times=made.kind,
        missing=missing,
        warnings=odd,
    )


def _warnings(
    index: PacketIndex, path: Path, *, trusted: bool, missing: float, kind: TimesKind | None
) -> list[str]:
    told = {
        "its packet list cannot be trusted for seeking: it is decoded in order": not trusted,
        "its parameter sets change in mid-stream": index.changed,
        f"reading breaks off: {index.error}": bool(index.error),
        "the file ends before its container does": layout_of(path).cut,
        f"{100 * missing:.2g} % of it are missing or damaged": missing > 0,
        _TIMES_WORDS.get(kind or "", ""): kind != "exact",
    }
    return [words for words, true in told.items() if true]
