"""Frames of our own clips against a plain in-order decode, and the way that was taken."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media.clips import cut, decode_in_order, picture, to_array, write_audio, write_clip
from videop2r_data.errors import MediaError
from videop2r_data.media import frames_digest, packets, sample_media, uniform_indices
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.media import MediaLimits, MediaSpec

SPEC = MediaSpec(frames=8, max_pixels=16 * 784, min_pixels=784)


def sample(path: Path, spec: MediaSpec = SPEC) -> Frames:
    return sample_media(path, "video", spec, want="array")


def check_equal(path: Path, spec: MediaSpec = SPEC) -> Frames:
    """The sampled frames are those of an in-order decode, bit for bit, at the right times."""
    frames, bad = decode_in_order(path)
    assert bad == 0
    got = sample(path, spec)
    record, array = got.record, got.array
    assert array is not None
    assert record.source_frames == len(frames)
    assert list(record.indices) == uniform_indices(len(frames), spec.frames)
    for at, pixels in zip(record.indices, array, strict=True):
        assert (pixels == to_array(frames[at], spec)).all(), at
    assert record.frames_sha256 == frames_digest(array)
    first = frames[0]
    assert first.pts is not None and first.time_base is not None
    for at, time_s in zip(record.indices, record.times_s, strict=True):
        pts = frames[at].pts
        assert pts is not None
        assert time_s == round(float((pts - first.pts) * first.time_base), 6)
    return got


def failure(path: Path, spec: MediaSpec = SPEC) -> str:
    with pytest.raises(MediaError) as caught:
        sample(path, spec)
    assert str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("n", [1, 2, 7, 16, 47, 48, 64])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_h264(tmp_path: Path, n: int, b_frames: int) -> None:
    path = write_clip(tmp_path / "a.mp4", b_frames=b_frames)
    got = check_equal(path, SPEC.model_copy(update={"frames": n}))
    assert got.record.sampler == "pyav-gop/1"
    assert got.record.count == min(n, 48)
    assert (got.record.source_fps, got.record.duration_s) == (24.0, 2.0)


def test_the_record_is_full(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=10)
    record = sample(path).record
    assert record.indices == (0, 1, 3, 4, 5, 6, 8, 9)
    assert record.times_s == tuple(round(i / 24, 6) for i in record.indices)
    assert (record.source_width, record.source_height, record.source_frames) == (160, 120, 10)
    # 160x120 is 6x4 patches after rounding: 168 x 112, and 24 patches are above the budget of 16.
    assert (record.width, record.height) == (112, 84)
    assert record.file_bytes == path.stat().st_size
    assert len(record.file_sha256) == 64
    assert sample(path).record == record


def test_the_pixels_are_the_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", size=(112, 84), codec_options={"crf": "4"})
    got = sample(path)
    assert got.array is not None
    for at, pixels in zip(got.record.indices, got.array, strict=True):
        off = np.abs(pixels.astype(int) - picture(at, 112, 84).astype(int)).mean()
        others = [
            np.abs(pixels.astype(int) - picture(k, 112, 84).astype(int)).mean() for k in range(at + 3, 48)
        ]
        # 4:2:0 smears colour a little; every other frame is much further away.
        assert off < 12 and all(off < other / 1.5 for other in others)


def test_open_groups_of_pictures(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3:b-adapt=0"}
    path = write_clip(tmp_path / "a.mkv", codec_options=options, frames=60)
    assert check_equal(path, SPEC.model_copy(update={"frames": 32})).record.sampler == "pyav-gop/1"


def test_variable_frame_rate(tmp_path: Path) -> None:
    pts = [i * i * 10 for i in range(30)]
    got = check_equal(write_clip(tmp_path / "a.mkv", frames=30, pts=pts))
    assert got.record.times_s[:3] == (0.0, 0.16, 0.64)
    # 29 intervals in 8.41 s.
    assert got.record.source_fps == round(29 / 8.41, 6)


@pytest.mark.parametrize(
    ("name", "codec", "sampler"),
    [
        ("a.webm", "libvpx", "pyav-gop/1"),
        ("a.webm", "libvpx-vp9", "pyav-gop/1"),
        ("a.mkv", "mjpeg", "pyav-gop/1"),
        ("a.avi", "mjpeg", "pyav-scan/1"),
        ("a.avi", "mpeg4", "pyav-scan/1"),
        ("a.mp4", "mpeg4", "pyav-scan/1"),
        ("a.ts", "libx264", "pyav-gop/1"),
        ("a.flv", "libx264", "pyav-gop/1"),
        ("a.mov", "libx264", "pyav-gop/1"),
    ],
)
def test_containers_and_codecs(tmp_path: Path, name: str, codec: str, sampler: str) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, rate=25)
    frames, _ = decode_in_order(path)
    got = sample(path)
    assert got.array is not None
    assert got.record.sampler == sampler
    assert got.record.source_frames == len(frames) == 48
    for at, pixels in zip(got.record.indices, got.array, strict=True):
        assert (pixels == to_array(frames[at], SPEC)).all()
    assert got.record.source_fps == pytest.approx(25, rel=2e-3)


def test_hidden_vp8_frames_are_not_counted(tmp_path: Path) -> None:
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "4"}
    path = write_clip(tmp_path / "a.webm", codec="libvpx", gop=128, frames=60, codec_options=options)
    assert check_equal(path).record.source_frames == 60


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_rotation(tmp_path: Path, degrees: int) -> None:
    path = write_clip(tmp_path / "a.mp4", rotation=degrees, frames=6)
    got = check_equal(path)
    size = (got.record.source_width, got.record.source_height)
    assert size == ((160, 120) if degrees == 180 else (120, 160))
    plain = sample(write_clip(tmp_path / "b.mp4", frames=6)).array
    assert plain is not None and got.array is not None
    # Two encodings of the same pictures: near, not equal.
    turned = np.rot90(plain, degrees // 90, axes=(1, 2)).astype(int)
    assert np.abs(got.array.astype(int) - turned).mean() < 2


def test_a_large_clip_is_read_twice_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", b_frames=3)
    whole = sample(path)
    monkeypatch.setattr(packets, "KEEP_BYTES", 1000)
    again = sample(path)
    assert again.record == whole.record
    # One group of pictures alone is too large here: in order.
    monkeypatch.setattr("videop2r_data.media.decode.KEEP_BYTES", 1000)
    slow = sample(path)
    assert slow.record.sampler == "pyav-scan/1"
    assert slow.record.frames_sha256 == whole.record.frames_sha256


def test_key_frame_flags_that_lie(tmp_path: Path) -> None:
    """A sample table that calls the wrong frames key frames: what is decoded from there is garbage."""
    path = write_clip(tmp_path / "a.mp4", b_frames=0, codec_options={"x264-params": "scenecut=0"})
    data = path.read_bytes()
    at = data.index(b"stss") + 8
    # Version and flags, count, sample numbers from 1.
    assert struct.unpack(">5I", data[at : at + 20]) == (4, 1, 13, 25, 37)
    path.write_bytes(data[:at] + struct.pack(">5I", 4, 1, 10, 20, 40) + data[at + 20 :])
    check_equal(path)


@pytest.mark.parametrize("lie", ["key", "pts", "same", "none", "late", "corrupt"])
def test_an_index_that_lies_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    path = write_clip(tmp_path / "a.mp4", b_frames=0, gop=48)
    truth = sample(path).record

    def lying(*args: Any) -> packets.PacketIndex:
        index = packets.read_index(*args)
        if lie == "key":
            index.keys[20] = True
        elif lie == "pts":
            index.pts[index.shown_count - 1] = 10**6
        elif lie == "same":
            index.pts[7] = index.pts[8]
        elif lie == "none":
            index.pts[7] = None
        elif lie == "late":
            index.keys[0] = False
        else:
            index.corrupt = [7]
        return index

    monkeypatch.setattr("videop2r_data.media.video.read_index", lying)
    got = sample(path).record
    assert got.sampler == "pyav-scan/1"
    missing = round(1 / 48, 6) if lie == "corrupt" else 0.0
    assert got == truth.model_copy(update={"sampler": "pyav-scan/1", "missing": missing})


def test_truncated_files(tmp_path: Path) -> None:
    fast = write_clip(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    assert failure(cut(fast, tmp_path / "b.mp4", 0.6)) == "media_truncated"
    assert failure(cut(write_clip(tmp_path / "c.mp4"), tmp_path / "d.mp4", 0.6)) == "media_truncated"
    assert failure(cut(write_clip(tmp_path / "e.mkv"), tmp_path / "f.mkv", 0.6)) == "media_truncated"
    avi = write_clip(tmp_path / "g.avi", codec="mjpeg", pix_fmt="yuvj420p")
    assert failure(cut(avi, tmp_path / "h.avi", 0.6)) == "media_truncated"


def test_no_usable_video(tmp_path: Path) -> None:
    (tmp_path / "page.mp4").write_text("<html>404</html>")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/page.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile page.mp4\n")
    assert failure(write_audio(tmp_path / "sound.mp4")) == "media_no_video"
    assert failure(tmp_path / "none.mp4") == "media_missing"
    for name in ("page.mp4", "noise.mp4", "list.mp4", "concat.mp4"):
        assert failure(tmp_path / name) == "media_unreadable", name


def test_encrypted(tmp_path: Path) -> None:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    assert failure(write_clip(tmp_path / "a.mp4", container_options=options)) == "media_encrypted"


def test_damage_inside(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", size=(320, 240))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    size = data.index(b"moov") - start
    data[start + size // 4 : start + 3 * size // 4] = bytes(3 * size // 4 - size // 4)
    path.write_bytes(data)
    assert failure(path) == "media_bad_packets"


@pytest.mark.parametrize(
    "limits",
    [
        MediaLimits(max_side=100),
        MediaLimits(max_bytes=1000),
        MediaLimits(max_duration_s=1.0),
        MediaLimits(max_packets=10),
    ],
)
def test_limits(tmp_path: Path, limits: MediaLimits) -> None:
    path = write_clip(tmp_path / "a.mp4")
    assert failure(path, SPEC.model_copy(update={"limits": limits})) == "media_too_large"


def test_encoded_frames_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    jpeg = sample_media(path, "video", SPEC, want="encoded")
    assert jpeg.array is None and jpeg.mime == "image/jpeg"
    assert jpeg.encoded == sample_media(path, "video", SPEC, want="encoded").encoded
    assert all(e.startswith(b"\xff\xd8\xff") for e in jpeg.encoded)
    spec = SPEC.model_copy(update={"encoding": "png"})
    png = sample_media(path, "video", spec, want="encoded")
    assert png.mime == "image/png"
    assert png.record == jpeg.record

    import io

    from PIL import Image

    pixels = sample(path).array
    assert pixels is not None
    back = np.stack([np.asarray(Image.open(io.BytesIO(e))) for e in png.encoded])
    assert (back == pixels).all()
    lossy = np.stack([np.asarray(Image.open(io.BytesIO(e))) for e in jpeg.encoded])
    assert np.abs(lossy.astype(int) - pixels.astype(int)).mean() < 3


def test_the_clock_and_the_name_do_not_count(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "a.mp4")
    other = tmp_path / "sub: with, odd; name 日本.bin"
    other.write_bytes(one.read_bytes())
    assert sample(one).record == sample(other).record
