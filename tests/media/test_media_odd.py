"""Odd containers: the frames and times of an in-order decode at every N, or a named error."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.media.clips import cut, damage_slices, picture, write_clip
from tests.media.odd import Odd, _Clip, _join, _splice, make
from tests.media.odd_check import EVERY_N, check, truth_of
from videop2r_data.errors import MediaError
from videop2r_data.media import probe_media, sample_media
from videop2r_data.media.container import layout_of
from videop2r_data.media.timing import Clock, timing
from videop2r_data.schemas.calls import MediaRecord
from videop2r_data.schemas.media import MediaLimits, MediaSpec

SPEC = MediaSpec(frames=8, max_pixels=1024, min_pixels=784)
SOME_N = (1, 2, 3, 5, 8, 13, 16, 21, 32, 40)


def record_of(path: Path, spec: MediaSpec = SPEC) -> MediaRecord:
    return sample_media(path, "video", spec, want="array").record


def reason_of(path: Path, spec: MediaSpec = SPEC) -> str:
    with pytest.raises(MediaError) as caught:
        sample_media(path, "video", spec, want="array")
    return caught.value.reason


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_random_files(tmp_path: Path, first: int) -> None:
    av.logging.set_level(None)
    faults = {}
    for seed in range(first, first + 25):
        try:
            odd = make(seed, tmp_path)
        except (av.FFmpegError, ValueError):
            continue  # what was drawn is nothing that a muxer writes
        verdict = check(odd, SOME_N)
        if verdict.faults:
            faults[seed, *odd.what] = verdict.faults
    assert faults == {}


def clip(codec: str = "libx264", frames: int = 24, **options: str) -> _Clip:
    return _Clip(codec, (64, 48), 12, 0, [i * 40 for i in range(frames)], 0, options)


class _Fixed(random.Random):
    """Draws what a test wants."""

    def __init__(self, *drawn: object) -> None:
        super().__init__(1)
        self.drawn = list(drawn)

    def choice(self, seq: object) -> object:  # type: ignore[override]
        for want in self.drawn:
            if want in seq:  # type: ignore[operator]
                return want
        return super().choice(seq)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.flv", "a.frag.mp4", "a.mkv"])
@pytest.mark.parametrize("how", ["announced", "in band once", "in band always"])
def test_parameter_sets_that_change_in_mid_stream(tmp_path: Path, name: str, how: str) -> None:
    """Two sample descriptions (mp4), a second sequence header (flv), new sets between the pictures.

    With the first sets the second part decodes without an error, into other colours.
    """
    if name in {"a.mkv", "a.frag.mp4"} and how == "announced":
        pytest.skip("the muxer has no way to announce them")
    odd = Odd(tmp_path / name)
    options = {"movflags": "frag_keyframe+empty_moov"} if "frag" in name else {}
    _splice(_Fixed(how, "chroma-qp-offset=12", 4, (64, 48)), clip(), odd.path, options, odd)
    verdict = check(odd, EVERY_N)
    assert (verdict.faults, set(verdict.answers)) == ([], {"pyav-scan/1 exact"})
    assert probe_media(odd.path, "video", MediaLimits()).warnings[:2] == [
        "its packet list cannot be trusted for seeking: it is decoded in order",
        "its parameter sets change in mid-stream",
    ]


@pytest.mark.parametrize("name", ["a.ts", "a.h264"])
def test_files_joined_end_to_end(tmp_path: Path, name: str) -> None:
    odd = Odd(tmp_path / name)
    _join(_Fixed("cabac=0"), clip(), odd.path, {}, odd)
    verdict = check(odd, EVERY_N)
    assert verdict.faults == []
    assert all(answer.startswith("pyav-scan/1") for answer in verdict.answers)


def test_another_flv_file_behind_the_first_is_refused(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "a.flv", frames=12)
    (tmp_path / "b.flv").write_bytes(one.read_bytes() * 2)
    assert reason_of(tmp_path / "b.flv") == "media_unreadable"


def test_another_matroska_file_behind_the_first_is_refused(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "a.mkv", frames=12)
    same, other = tmp_path / "same.mkv", tmp_path / "other.mkv"
    same.write_bytes(one.read_bytes() * 2)
    small = write_clip(tmp_path / "b.mkv", frames=12, size=(320, 240))
    other.write_bytes(one.read_bytes() + small.read_bytes())
    assert reason_of(other) == "media_unreadable"
    record = record_of(same)
    assert (record.source_frames, record.times) == (24, "repaired")
    assert record.duration_s == pytest.approx(1.0, abs=0.05)


def test_damage_in_a_frame_that_others_need_is_seen_at_every_n(tmp_path: Path) -> None:
    """A key frame with a damaged slice: what refers to it is grey, and nothing marks that."""
    path = write_clip(tmp_path / "a.mp4", size=(320, 240), gop=12, b_frames=0)
    damage_slices(path, range(0, 48, 12))
    reasons = {n: reason_of(path, SPEC.model_copy(update={"frames": n})) for n in range(2, 41)}
    assert set(reasons.values()) == {"media_bad_packets"}


def test_a_stream_that_is_damaged_a_little_says_how_much(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", size=(320, 240), gop=12, b_frames=0, frames=96)
    damage_slices(path, range(90, 91))
    record = record_of(path, SPEC.model_copy(update={"frames": 96}))
    assert (record.sampler, record.missing) == ("pyav-scan/1", round(1 / 96, 6))


MS, TS = Clock(Fraction(1, 1000), Fraction(25)), Clock(Fraction(1, 90_000), Fraction(25), may_jump=True)


@pytest.mark.parametrize(
    ("pts", "kind", "times"),
    [
        ([0, 40, 80, 120], "exact", (0.0, 0.04, 0.08, 0.12)),
        ([7, 47, 3000, 3040], "exact", (0.0, 0.04, 2.993, 3.033)),
        # one stamp twice, one out of line, one absent
        ([0, 40, 80, 80, 160], "repaired", (0.0, 0.04, 0.08, 0.12, 0.16)),
        ([0, 40, 99999, 120, 160], "repaired", (0.0, 0.04, 0.08, 0.12, 0.16)),
        ([0, 40, 20, 120, 160], "repaired", (0.0, 0.04, 0.08, 0.12, 0.16)),
        ([0, None, 80, 120], "repaired", (0.0, 0.04, 0.08, 0.12)),
        ([None, 40, 80, None], "repaired", (0.0, 0.04, 0.08, 0.12)),
        # the clock starts anew
        ([0, 40, 80, 0, 40, 80], "repaired", (0.0, 0.04, 0.08, 0.12, 0.16, 0.2)),
        # nothing to go by
        ([None, None, None], "assumed", (0.0, 0.04, 0.08)),
        ([5, 5, 5], "assumed", (0.0, 0.04, 0.08)),
    ],
)
def test_stamps(pts: list[int | None], kind: str, times: tuple[float, ...]) -> None:
    made = timing(pts, range(len(pts)), MS, 40)
    assert (made.kind, made.times_s) == (kind, times)


def test_stamps_of_a_transport_stream() -> None:
    """A jump of an hour, on and back, is no pause; a gap of nine seconds is one."""
    hour = 3600 * 90_000
    there = [0, 3600, 7200, hour, hour + 3600]
    for pts in (there, [p - hour for p in there[3:]] + [p + hour for p in there[:3]], there[3:] + there[:3]):
        made = timing(pts, range(5), TS, 3600)
        assert (made.kind, made.times_s, made.duration_s) == ("repaired", (0.0, 0.04, 0.08, 0.12, 0.16), 0.2)
    assert timing([0, 3600, 813_600], range(3), TS).kind == "exact"
    # In a file with an index of its own the pause is what the file says.
    assert timing(there, range(5), Clock(Fraction(1, 90_000), None)).times_s[-1] == 3600.04


def one_group(path: Path, stamp: Callable[[int], int], frames: range) -> bytes:
    """Part of a transport stream of one key frame; frame `i` is grey of brightness `10 + 2 i`."""
    grey = [np.full((64, 64, 3), 10 + 2 * i, np.uint8) for i in range(100)]
    rate = Fraction(1, 25)
    coder: Any = av.CodecContext.create("libx264", "w")
    coder.width, coder.height, coder.pix_fmt, coder.time_base = 64, 64, "yuv420p", rate
    coder.options = {"bf": "0", "g": "999", "sc_threshold": "0", "preset": "ultrafast", "threads": "1"}
    packets: list[Any] = []
    for i, pixels in enumerate(grey):
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts, frame.time_base = i, rate
        packets += coder.encode(frame)
    packets += coder.encode(None)
    with av.open(str(path), "w", format="mpegts") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in frames:
            packet: Any = av.Packet(bytes(packets[i]))
            packet.pts, packet.dts, packet.time_base = stamp(i), min(stamp(i), i + 1000), rate
            packet.stream, packet.is_keyframe = stream, packets[i].is_keyframe
            out.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("how", ["set back", "one wild stamp"])
def test_stamps_that_would_turn_the_order_of_frames_around(tmp_path: Path, how: str) -> None:
    """Between two key frames: the decoder's order is the right one, and the times are called repaired."""
    path = tmp_path / "a.ts"
    if how == "set back":
        first = one_group(tmp_path / "1.ts", lambda i: i + 1000, range(60))
        path.write_bytes(first + one_group(tmp_path / "2.ts", lambda i: i, range(60, 100)))
    else:
        one_group(path, lambda i: i + (1500 if i == 30 else 1000), range(100))
    for n in SOME_N:
        spec = SPEC.model_copy(update={"frames": n})
        made = sample_media(path, "video", spec, want="array")
        assert made.array is not None
        shown = [round((float(frame.mean()) - 10) / 2) for frame in made.array]
        assert all(abs(a - b) <= 1 for a, b in zip(shown, made.record.indices, strict=True)), (n, shown)
        assert made.record.times == "repaired"
        assert made.record.times_s == pytest.approx([i / 25 for i in made.record.indices], abs=1e-6)


MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[Any], Any]]] = {
    "as it is": ((1, 0, 0, 1), lambda p: p),
    "clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "counter-clockwise": ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    "upside down": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "left to right": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "top to bottom": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transposed, other corner": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).swapaxes(0, 1)),
    "no matrix at all": ((0, 0, 0, 0), lambda p: p),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices(tmp_path: Path, name: str) -> None:
    (a, b, c, d), shown = MATRICES[name]
    path = write_clip(tmp_path / "a.mp4", size=(112, 84), frames=2, codec_options={"crf": "4"})
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    got = sample_media(path, "video", MediaSpec(frames=1), want="array").array
    assert got is not None
    wanted = shown(picture(0, 112, 84)).astype(int)
    assert got[0].shape == wanted.shape
    assert np.abs(got[0].astype(int) - wanted).mean() < 12
    mirrored = (a * d - b * c) < 0
    assert any("mirrors" in w for w in probe_media(path, "video", MediaLimits()).warnings) == mirrored


ANY = SPEC.model_copy(update={"limits": MediaLimits(max_missing=1.0, max_bad_packets=1.0)})


def test_a_fragmented_file_that_breaks_off(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = cut(write_clip(tmp_path / "a.mp4", container_options=options), tmp_path / "b.mp4", 0.6)
    assert reason_of(path) == "media_truncated"
    record = record_of(path, ANY)
    assert record.source_frames < 48
    assert record.missing is not None and 0 < record.missing < 1
    assert any("ends before" in w for w in probe_media(path, "video", ANY.limits).warnings)


def test_a_matroska_file_with_a_hole(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", gop=4, container_options={"cluster_time_limit": "200"})
    whole = record_of(path)
    assert (whole.missing, whole.times) == (0.0, "exact")
    data = path.read_bytes()
    start, size = len(data) // 3, len(data) // 4
    (tmp_path / "zeros.mkv").write_bytes(data[:start] + bytes(size) + data[start + size :])
    for name in ("zeros.mkv",):
        assert layout_of(tmp_path / name).share > 0.05
        assert reason_of(tmp_path / name) in {"media_bad_packets", "media_truncated"}
        record = record_of(tmp_path / name, ANY)
        assert record.missing is not None and record.missing > 0.05


def test_an_ivf_file_whose_header_lies(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ivf", codec="libvpx", frames=20)
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", 500)
    path.write_bytes(data)
    record = record_of(path)
    assert (record.source_frames, record.times, record.missing) == (20, "exact", 0.0)
    assert reason_of(cut(path, tmp_path / "b.ivf", 0.6)) == "media_truncated"


def test_a_gif_that_breaks_off(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.gif", codec="gif", pix_fmt="rgb8", rate=25)
    assert layout_of(path).cut is False and record_of(path).missing == 0.0
    assert reason_of(cut(path, tmp_path / "b.gif", 0.6)) == "media_truncated"
    # Many writers leave the end mark out: nothing is lost.
    (tmp_path / "c.gif").write_bytes(path.read_bytes()[:-1])
    assert record_of(tmp_path / "c.gif").frames_sha256 == record_of(path).frames_sha256


def test_everything_is_decoded_where_the_verdict_must_not_depend_on_n(tmp_path: Path) -> None:
    """Damage in a group of pictures that one frame does not need."""
    path = write_clip(tmp_path / "a.mp4", size=(320, 240), gop=12, b_frames=0)
    damage_slices(path, range(36, 48))
    one = SPEC.model_copy(update={"frames": 1})
    assert record_of(path, one).sampler == "pyav-gop/1"
    whole = MediaLimits(decode_all=True)
    for n in (1, 2, 16):
        assert reason_of(path, SPEC.model_copy(update={"frames": n, "limits": whole})) == "media_bad_packets"


def test_a_raw_stream_has_the_rate_that_players_take(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.obu", codec="libsvtav1", frames=20, codec_options={"preset": "12"})
    record = record_of(path)
    assert (record.source_frames, record.times, record.source_fps) == (20, "assumed", 25.0)
    truth = truth_of(path)
    assert truth is not None and len(truth.frames) == 20


def test_a_fragment_of_no_size_does_not_hold_up_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def box(kind: bytes, content: bytes = b"") -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    start = box(b"ftyp", b"isom0000") + box(b"moov") + box(b"moof")
    path = tmp_path / "a.mp4"
    path.write_bytes(start + struct.pack(">I4s", 5, b"moof") + bytes(100) + box(b"moof") + box(b"mdat", b"x"))
    reads: list[int] = []
    real = os.pread

    def counted(descriptor: int, count: int, at: int) -> bytes:
        assert len(reads) < 1000, "it goes round in a circle"
        reads.append(at)
        return real(descriptor, count, at)

    monkeypatch.setattr(os, "pread", counted)
    assert layout_of(path).lost == 108


def test_matroska_tracks_that_lie_in_each_other_without_end(tmp_path: Path) -> None:
    def element(kind: bytes, content: bytes) -> bytes:
        return kind + (1 << 56 | len(content)).to_bytes(8, "big") + content

    tracks = b""
    for _ in range(3000):
        tracks = element(b"\xae", tracks)
    head = element(b"\x1a\x45\xdf\xa3", b"")
    segment = element(b"\x18\x53\x80\x67", element(b"\x16\x54\xae\x6b", tracks))
    path = tmp_path / "a.mkv"
    path.write_bytes((head + segment) * 2)
    assert not layout_of(path).foreign
