"""Odd containers, made at random from a seed: what muxers, recorders and broken downloads leave behind.

Each file is written with PyAV in one of some forty pairs of container and codec, and then made odd: parameter
sets that change in mid-stream, files joined end to end, timestamps that vary, repeat, jump or start below zero,
edit lists, display matrices, cuts, holes and flipped bits. `Odd.times` holds the true times where the
generator knows them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import PacketSideData

from tests.media.clips import ordinary_priority, picture

NEW_EXTRADATA = 1
"""Its place among the kinds of side data."""
QUICK = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12"},
}
KINDS: tuple[tuple[str, str], ...] = (
    *(
        (ext, "libx264")
        for ext in ("mp4", "frag.mp4", "mkv", "flv", "ts", "mov", "avi", "h264", "nut", "asf", "3gp")
    ),
    *((ext, "libx265") for ext in ("mp4", "mkv", "ts", "hevc")),
    *((ext, "libvpx") for ext in ("webm", "mkv", "ivf")),
    *((ext, "libvpx-vp9") for ext in ("webm", "mp4", "ivf")),
    *((ext, "libsvtav1") for ext in ("mp4", "webm", "ivf", "obu")),
    *((ext, "mpeg4") for ext in ("avi", "mp4", "mkv")),
    *((ext, "mpeg2video") for ext in ("mpg", "ts")),
    *((ext, "mjpeg") for ext in ("avi", "mov", "mkv")),
    ("gif", "gif"),
    ("flv", "flv"),
    ("mkv", "ffv1"),
    ("ogg", "libvpx"),
    ("apng", "apng"),
)
STAMPED = ("mp4", "mkv", "mov", "webm", "flv", "nut", "ts", "frag.mp4")
SPLICED = ("mp4", "mov", "flv", "mkv", "frag.mp4")
JOINED = ("ts", "h264", "hevc", "mpg", "obu", "mkv", "webm", "flv", "ogg", "gif")
TIME_BASE = Fraction(1, 1000)


@dataclass
class Odd:
    """One made file.

    Attributes:
        path: where it lies.
        what: container, codec and what was done, for messages.
        damaged: bytes were lost or changed after the muxer.
        times: true time of each frame in seconds, where it is known and nothing was lost.
        clean: the file before it was damaged.
    """

    path: Path
    what: list[str] = field(default_factory=list)
    damaged: bool = False
    times: list[float] | None = None
    clean: Path | None = None


@dataclass
class _Clip:
    """One encoding: settings and the true time of each frame in milliseconds."""

    codec: str
    size: tuple[int, int]
    gop: int
    b_frames: int
    times: list[int]
    seed: int
    options: dict[str, str]


@ordinary_priority()
def make(seed: int, folder: Path) -> Odd:
    """The file of this seed; equal seeds give equal recipes."""
    rng = random.Random(seed)
    ext, codec = rng.choice(KINDS)
    path = folder / f"{seed}.{ext}"
    odd = Odd(path, [ext, codec])
    clip = _clip(rng, codec, odd, vary=ext in STAMPED)
    options = _muxing(rng, ext, odd)
    change = _change_of(rng, ext, codec)
    if change == "splice":
        _splice(rng, clip, path, options, odd)
    elif change == "join":
        _join(rng, clip, path, options, odd)
    else:
        _write(clip, path, options, _matrix(rng, ext, odd))
        odd.times = [t / 1000 for t in clip.times]
        if change == "stamps":
            _restamp(rng, path, odd)
    if rng.random() < 0.35:
        _damage(rng, path, odd)
    return odd


def _clip(rng: random.Random, codec: str, odd: Odd, *, vary: bool) -> _Clip:
    count = rng.choice((1, 2, rng.randint(3, 16), rng.randint(17, 60)))
    step = rng.choice((20, 40, 100))
    times = [i * step for i in range(count)]
    if vary and rng.random() < 0.3:
        odd.what.append("variable rate")
        at = 0
        times = [0]
        for _ in range(count - 1):
            at += rng.choice((10, 40, 90, 400, 3000))
            times.append(at)
    size = rng.choice(((64, 48), (96, 64), (34, 50), (128, 72)))
    if codec in {"libsvtav1", "libx265"}:
        size = (128, 72)
    options = dict(QUICK.get(codec, {}))
    if codec == "libx264" and rng.random() < 0.3:
        odd.what.append("open gop")
        options = {"x264-params": "open-gop=1:scenecut=0:b-adapt=0:bframes=3", "preset": "veryfast"}
    if codec == "libvpx" and rng.random() < 0.5:
        odd.what.append("hidden frames")
        options = {"auto-alt-ref": "1", "lag-in-frames": "8", "deadline": "good", "cpu-used": "5"}
    b_frames = rng.choice((0, 2)) if codec in {"libx264", "mpeg4"} else 0
    return _Clip(codec, size, rng.choice((1, 5, 12, 60)), b_frames, times, rng.randrange(1000), options)


def _muxing(rng: random.Random, ext: str, odd: Odd) -> dict[str, str]:
    if ext == "frag.mp4":
        return {"movflags": rng.choice(("frag_keyframe+empty_moov", "frag_keyframe+default_base_moof"))}
    if ext in {"mp4", "mov"} and rng.random() < 0.3:
        odd.what.append("index first")
        return {"movflags": "faststart"}
    if ext in {"mkv", "webm"} and rng.random() < 0.3:
        odd.what.append("small clusters")
        return {"cluster_time_limit": "200"}
    return {}


def _matrix(rng: random.Random, ext: str, odd: Odd) -> list[int] | None:
    if ext not in {"mp4", "mov"} or rng.random() > 0.3:
        return None
    a, b, c, d = rng.choice(
        (
            (0, 1, -1, 0),
            (0, -1, 1, 0),
            (-1, 0, 0, -1),
            (-1, 0, 0, 1),
            (1, 0, 0, -1),
            (0, 1, 1, 0),
            (0, 0, 0, 0),
        )
    )
    odd.what.append(f"matrix {a} {b} {c} {d}")
    return [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]


def _change_of(rng: random.Random, ext: str, codec: str) -> str:
    kinds = ["plain", "plain"]
    if ext in SPLICED and codec in {"libx264", "libx265", "libvpx-vp9", "libsvtav1"}:
        kinds += ["splice"]
    if ext in JOINED:
        kinds += ["join"]
    if ext in STAMPED and codec not in {"mpeg2video"}:
        kinds += ["stamps"]
    return rng.choice(kinds)


def _write(clip: _Clip, path: Path, options: dict[str, str], matrix: list[int] | None = None) -> None:
    formats = {"frag.mp4": "mp4", "obu": "obu"}
    kind = path.name.split(".", 1)[1]
    with av.open(str(path), "w", format=formats.get(kind), options=options) as container:
        rate = Fraction(1000, clip.times[1] - clip.times[0]) if len(clip.times) > 1 else Fraction(25)
        stream: Any = container.add_stream(clip.codec, rate=rate, options=clip.options)
        stream.width, stream.height = clip.size
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p", "apng": "rgb24"}.get(clip.codec, "yuv420p")
        stream.gop_size = clip.gop
        stream.codec_context.thread_count = 1
        if clip.codec in {"libx264", "mpeg4"}:
            stream.codec_context.max_b_frames = clip.b_frames
        if kind in STAMPED and clip.codec not in {"mpeg2video", "mpeg4", "flv"}:
            stream.codec_context.time_base = TIME_BASE
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for i, time in enumerate(clip.times):
            frame = av.VideoFrame.from_ndarray(picture(i + clip.seed, *clip.size), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = time, TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _sibling(rng: random.Random, clip: _Clip) -> _Clip:
    """The same codec with other parameter sets: another size, or other coding tools."""
    size = clip.size if rng.random() < 0.4 or clip.codec == "gif" else (96, 96)
    options = dict(clip.options)
    if clip.codec == "libx264" and "x264-params" not in options:
        options["x264-params"] = rng.choice(("chroma-qp-offset=12", "cabac=0", "8x8dct=0:ref=4", "level=4.1"))
    step = clip.times[1] - clip.times[0] if len(clip.times) > 1 else 40
    times = [i * step for i in range(rng.randint(1, 30))]
    return _Clip(clip.codec, size, rng.choice((4, 60)), clip.b_frames, times, clip.seed + 300, options)


def _splice(rng: random.Random, clip: _Clip, path: Path, options: dict[str, str], odd: Odd) -> None:
    """Two encodings in one stream, the second one's parameter sets announced, hidden in band, or repeated."""
    how = rng.choice(("announced", "in band once", "in band always"))
    other = _sibling(rng, clip)
    if clip.codec not in {"libx264", "libx265"}:
        how = "announced"
    odd.what.append(f"spliced, parameter sets {how}")
    # Matroska and fragments cannot announce them: what the muxer writes then lacks them.
    odd.damaged = how == "announced" and path.name.endswith((".mkv", ".frag.mp4"))
    parts = [path.with_suffix(f".{i}.mp4") for i in range(2)]
    for one, part in zip((clip, other), parts, strict=True):
        _write(one, part, {})
    end = clip.times[-1] + 40
    formats = {"frag.mp4": "mp4"}
    with ExitStack() as stack:
        sources = [stack.enter_context(av.open(str(part))) for part in parts]
        kind = path.name.split(".", 1)[1]
        out = stack.enter_context(av.open(str(path), "w", format=formats.get(kind), options=options))
        made: Any = out.add_stream_from_template(sources[0].streams.video[0])
        last = -(10**9)
        for number, source in enumerate(sources):
            stream = source.streams.video[0]
            sets = stream.codec_context.extradata or b""
            found: list[Any] = [p for p in source.demux(stream) if p.size]
            for at, read in enumerate(found):
                packet = _with_sets(read, sets, how, first=at == 0, clip=clip) if number else read
                base = packet.time_base
                shift = round(end / 1000 / base) if number else 0
                packet.pts, packet.dts = packet.pts + shift, max(packet.dts + shift, last + 1)
                last = packet.dts
                packet.stream = made
                out.mux(packet)
    odd.times = [t / 1000 for t in (*clip.times, *(end + t for t in other.times))]


def _with_sets(packet: Any, sets: bytes, how: str, *, first: bool, clip: _Clip) -> Any:
    if how == "announced":
        if first and sets:
            make_side: Any = PacketSideData
            side = make_side(NEW_EXTRADATA, len(sets))
            side.update(sets)
            packet.set_sidedata(side)
        return packet
    if not first and not (how == "in band always" and packet.is_keyframe):
        return packet
    units = list(_units(sets, clip.codec))
    made = av.Packet(b"".join(len(u).to_bytes(4, "big") + u for u in units) + bytes(packet))
    made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
    made.is_keyframe, made.duration = packet.is_keyframe, packet.duration
    return made


def _units(sets: bytes, codec: str) -> Iterator[bytes]:
    at = 5 if codec == "libx264" else 23
    if codec == "libx264":
        for mask in (31, 255):
            count, at = sets[at] & mask, at + 1
            for _ in range(count):
                length = int.from_bytes(sets[at : at + 2], "big")
                yield sets[at + 2 : at + 2 + length]
                at += 2 + length
        return
    for _ in range(sets[22]):
        count, at = int.from_bytes(sets[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            length = int.from_bytes(sets[at : at + 2], "big")
            yield sets[at + 2 : at + 2 + length]
            at += 2 + length


def _join(rng: random.Random, clip: _Clip, path: Path, options: dict[str, str], odd: Odd) -> None:
    """Two files, end to end."""
    other = _sibling(rng, clip) if rng.random() < 0.6 else clip
    odd.what.append("joined" if other is clip else "joined, other parameter sets")
    data = b""
    for one in (clip, other):
        _write(one, path, options)
        data += path.read_bytes()
    path.write_bytes(data)


def _restamp(rng: random.Random, path: Path, odd: Odd) -> None:
    """The same packets with other timestamps."""
    kind = path.name.split(".", 1)[1]
    how = rng.choice(("double", "jump", "late start", "no first key", "below zero"))
    odd.what.append(f"stamps: {how}")
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        packets: list[Any] = [p for p in source.demux(stream) if p.size]
        place = rng.randrange(len(packets))
        target = path.with_name(f"restamped-{path.name}")
        with av.open(str(target), "w", format="mp4" if kind == "frag.mp4" else None) as out:
            made: Any = out.add_stream_from_template(stream)
            for at, packet in enumerate(packets):
                if how == "no first key" and at == 0 and len(packets) > 1:
                    continue
                _shift(packet, at, place, how, packets)
                packet.stream = made
                out.mux(packet)
    target.replace(path)
    if how in {"no first key", "late start", "below zero", "jump", "double"}:
        odd.times = (
            None if how in {"no first key", "below zero"} or (how == "jump" and kind != "ts") else odd.times
        )


def _shift(packet: Any, at: int, place: int, how: str, packets: list[Any]) -> None:
    second = round(1 / packet.time_base)
    if how == "double":
        after = packets[at + 1].pts if at == place and at + 1 < len(packets) else None
        if after is not None and after >= (packet.dts or 0):
            packet.pts = after
        return
    late = {
        "jump": 3600 * second if at >= place else 0,
        "late start": 5 * second,
        "below zero": -(second // 4),
    }
    shift = late.get(how, 0)
    packet.pts = None if packet.pts is None else packet.pts + shift
    packet.dts = None if packet.dts is None else packet.dts + shift


def _damage(rng: random.Random, path: Path, odd: Odd) -> None:
    odd.damaged, odd.times = True, None
    data = bytearray(path.read_bytes())
    odd.clean = path.with_name(f"clean-{path.name}")
    odd.clean.write_bytes(data)
    size = len(data)
    low = rng.randrange(size)
    high = min(size, low + rng.randint(1, max(2, size // 3)))
    actions: dict[str, Callable[[], bytes]] = {
        "cut": lambda: bytes(data[: max(1, low)]),
        "hole of zeros": lambda: bytes(data[:low] + bytes(high - low) + data[high:]),
        "bytes left out": lambda: bytes(data[:low] + data[high:]),
        "flipped bits": lambda: _flipped(rng, data),
        "junk behind": lambda: bytes(data) + rng.randbytes(rng.choice((1, 100, 5000))),
        "zeros behind": lambda: bytes(data) + bytes(rng.choice((1, 512))),
    }
    how = rng.choice(sorted(actions))
    odd.what.append(how)
    path.write_bytes(actions[how]())


def _flipped(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.choice((1, 5, 40))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)
