"""What must hold for every file, whatever was done to it: the frames and times of an in-order decode, or a
named error; never a silently wrong frame or time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.media.clips import to_array
from tests.media.odd import Odd
from videop2r_data.errors import MediaError
from videop2r_data.media import sample_media, uniform_indices
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.media import MediaSpec

EVERY_N = tuple(range(1, 41))
SMALL: dict[str, Any] = {"max_pixels": 1024, "min_pixels": 784}
NO_STAMPS, MAY_JUMP = 0x80, 0x200


@dataclass
class Truth:
    """A plain decode from start to end, surviving bad packets."""

    frames: list[Any] = field(default_factory=list)
    """In display order: by their stamps where each has its own and key frames follow each other."""
    stamps: list[int] | None = None
    """Of those frames, strictly rising; None: they do not rise, or mean nothing."""
    base: Fraction = Fraction(1)
    first: int | None = None
    """Stamp of the first shown packet, whether it decodes or not."""
    bad: int = 0


def truth_of(path: Path) -> Truth | None:
    """None: no container that can be opened, or no video in it."""
    truth = Truth()
    raw: list[Any] = []
    try:
        with av.open(str(path), metadata_errors="replace", options={"fpsprobesize": "0"}) as container:
            streams = [s for s in container.streams.video if s.codec_context is not None]
            stream = max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.flags |= int(av.codec.context.Flags.bitexact)
            if stream.codec_context.codec.name == "mjpeg":
                stream.codec_context.options = {"err_detect": "explode"}
            flags, name = int(container.format.flags), container.format.name
            truth.base = stream.time_base or truth.base
            try:
                for packet in container.demux(stream):
                    if not packet.size:
                        break
                    if packet.pts is not None and not packet.is_discard:
                        truth.first = min(packet.pts, packet.pts if truth.first is None else truth.first)
                    try:
                        raw += stream.codec_context.decode(packet)
                    except (av.FFmpegError, ValueError):
                        truth.bad += 1
            except (av.FFmpegError, ValueError):
                truth.bad += 1
            raw += stream.codec_context.decode(None)
    except (av.FFmpegError, ValueError):
        return None
    stamps = [f.pts for f in raw]
    known = [p for p in stamps if p is not None]
    truth.frames = raw
    if flags & NO_STAMPS or len(known) < len(stamps):
        return truth
    if name == "avi":
        truth.stamps = sorted(known) if len(set(known)) == len(known) else None
        return truth
    keys = [f.pts for f in raw if f.key_frame and f.pts is not None]
    if len(set(known)) == len(known) and keys == sorted(keys):
        truth.frames = sorted(raw, key=lambda f: f.pts or 0)
        known.sort()
        far = 10 / truth.base
        if not (flags & MAY_JUMP and any(b - a > far for a, b in pairwise(known))):
            truth.stamps = known
    return truth


@dataclass
class Verdict:
    """What came of one file at every N."""

    answers: list[str] = field(default_factory=list)
    """Per N: the sampler and the kind of its times, or the reason of the error."""
    faults: list[str] = field(default_factory=list)
    """What no file may show."""
    unmarked: int = 0
    """Answers with a frame that flipped bits changed in the plain decode too, and no decoder marks."""


def check(odd: Odd, counts: Sequence[int] = EVERY_N) -> Verdict:
    """Sample a file at every N and hold it against a plain decode."""
    verdict = Verdict()
    truth = truth_of(odd.path)
    known: dict[int, NDArray[np.uint8]] = {}
    for n in counts:
        spec = MediaSpec(frames=n, **SMALL)
        try:
            got = sample_media(odd.path, "video", spec, want="array")
        except MediaError as error:
            verdict.answers.append(error.reason)
            continue
        verdict.answers.append(f"{got.record.sampler} {got.record.times}")
        fault = _fault(odd, truth, got, spec, known)
        if fault.startswith("other pixels") and _is_unmarked(odd, truth, got, spec):
            verdict.unmarked += 1
        elif fault:
            verdict.faults.append(f"N = {n}: {fault} ({got.record.sampler})")
    if not odd.damaged and len({a for a in verdict.answers if a.startswith("media")}) > 0:
        refused = [a for a in verdict.answers if a.startswith("media")]
        if len(refused) != len(verdict.answers):
            verdict.faults.append(f"refused at some N only: {verdict.answers}")
    return verdict


def _fault(
    odd: Odd, truth: Truth | None, got: Frames, spec: MediaSpec, known: dict[int, NDArray[np.uint8]]
) -> str:
    record = got.record
    if truth is None or not truth.frames:
        return "a plain decode gives nothing"
    assert got.array is not None
    total = record.source_frames
    if list(record.indices) != uniform_indices(total, spec.frames):
        return f"indices {record.indices} of {total}"
    places = list(record.indices)
    if total != len(truth.frames):
        if not (odd.damaged and truth.stamps):
            return f"{total} frames, a plain decode gives {len(truth.frames)}"
        # A packet that does not decode lies where the fast way did not look: frames are known by their time.
        first = truth.first or 0
        times = {round(float((p - first) * truth.base), 6): at for at, p in enumerate(truth.stamps)}
        if not all(t in times for t in record.times_s):
            return f"times {record.times_s} of no decoded frame"
        places = [times[t] for t in record.times_s]
    upright = truth.frames[places[0]]
    for place, pixels in zip(places, got.array, strict=True):
        frame = truth.frames[place]
        if place not in known:
            known[place] = to_array(frame, spec)
        wanted = known[place]
        same_size = (frame.width, frame.height) == (upright.width, upright.height)
        # What a decoder makes of damage depends on what its memory held: the record says that there is some.
        told = bool(record.missing) and record.sampler.startswith("pyav-scan")
        if same_size and not told and (wanted.shape != pixels.shape or not (wanted == pixels).all()):
            return f"other pixels at frame {place}"
        if frame.is_corrupt and not record.missing:
            return f"frame {place} is damaged, and the record does not say so"
    return _wrong_times(odd, truth, got)


def _is_unmarked(odd: Odd, truth: Truth | None, got: Frames, spec: MediaSpec) -> bool:
    """Whether the plain decode itself shows other pictures than the file before it was damaged."""
    clean = truth_of(odd.clean) if odd.clean is not None else None
    if clean is None or truth is None or got.array is None:
        return False
    before = {f.pts: to_array(f, spec) for f in clean.frames if f.pts is not None}
    after = {f.pts: to_array(f, spec) for f in truth.frames if f.pts is not None}
    return any(p in before and not np.array_equal(before[p], pixels) for p, pixels in after.items())


def _wrong_times(odd: Odd, truth: Truth, got: Frames) -> str:
    record = got.record
    times = record.times_s
    if any(b <= a for a, b in pairwise(times)) or times[0] < 0:
        return f"times that do not rise: {times}"
    if truth.stamps is not None and len(truth.stamps) == record.source_frames:
        first = truth.stamps[0]
        wanted = tuple(round(float((truth.stamps[i] - first) * truth.base), 6) for i in record.indices)
        if times != wanted or record.times != "exact":
            return f"times {record.times} {times[:6]}, by its stamps {wanted[:6]}"
    elif record.times == "exact" and not odd.damaged:
        return f"exact times without rising stamps: {times[:6]}"
    if odd.times is not None and record.times != "assumed" and len(odd.times) == record.source_frames:
        slack = max((b - a for a, b in pairwise(odd.times)), default=1.0) * 1.5 + 0.02
        meant = [odd.times[i] - odd.times[0] for i in record.indices]
        if any(abs(a - b) > slack for a, b in zip(times, meant, strict=True)):
            return f"times {record.times} {times[:8]}, true ones {meant[:8]}"
    return ""
