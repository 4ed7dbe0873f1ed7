"""The file's own index in place of its packets: the same list, or none."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import pytest

from tests.media.clips import cut, write_clip
from tests.media.odd import make
from tests.media.odd_check import check
from tests.shared import media_dir
from videop2r_data.errors import MediaError
from videop2r_data.media import packets as sample_table
from videop2r_data.media import sample_media, sampling
from videop2r_data.media.container import open_video
from videop2r_data.media.packets import PacketIndex, read_index, read_table
from videop2r_data.schemas.media import MediaLimits, MediaSpec

SPEC = MediaSpec(frames=8, max_pixels=1024, min_pixels=784)


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_table, "LARGE", 0)


def both(path: Path) -> tuple[PacketIndex | None, PacketIndex]:
    """By the index, and by the packets."""
    with open_video(path, MediaLimits()) as (container, stream):
        table = read_table(container, stream, path, MediaLimits())
        return table, read_index(container, stream, path, MediaLimits())


def same(table: PacketIndex, packets: PacketIndex) -> bool:
    """Equal in everything but the point from which times count."""
    starts = [min(p for p in index.pts if p is not None) for index in (table, packets)]
    stamps = [
        [p - start for p in index.pts if p is not None]
        for index, start in zip((table, packets), starts, strict=True)
    ]
    return stamps[0] == stamps[1] and all(
        getattr(table, name) == getattr(packets, name)
        for name in ("keys", "shown", "last_duration", "changed", "false_keys", "corrupt")
    )


CLIPS: dict[str, dict[str, Any]] = {
    "no reordering": {"b_frames": 0},
    "reordering": {"b_frames": 3},
    "index first": {"container_options": {"movflags": "faststart"}},
    "variable rate": {"pts": [i * i * 10 for i in range(48)]},
    "turned": {"rotation": 90},
    "hevc": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
    "vp9": {"codec": "libvpx-vp9"},
}


@pytest.mark.parametrize("name", CLIPS)
def test_the_index_and_the_packets_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write_clip(tmp_path / "a.mp4", **CLIPS[name])
    table, packets = both(path)
    assert table is not None and same(table, packets)
    got = [sample_media(path, "video", SPEC.model_copy(update={"frames": n}), want="array").record
           for n in range(1, 20)]  # fmt: skip
    monkeypatch.setattr(sample_table, "LARGE", 2**60)
    monkeypatch.setattr(sampling, "LARGE_FILE", 0)  # the digest in a thread is the same digest
    assert got == [
        sample_media(path, "video", SPEC.model_copy(update={"frames": n}), want="array").record
        for n in range(1, 20)
    ]
    assert {record.sampler for record in got} == {"pyav-gop/1"}


def test_where_the_index_is_not_the_whole_truth_the_packets_are_read(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    files = {
        "fragments": write_clip(tmp_path / "b.mp4", container_options={"movflags": "frag_keyframe"}),
        "another container": write_clip(tmp_path / "c.mkv"),
        "cut": cut(plain, tmp_path / "d.mp4", 0.6),
        "another codec": write_clip(tmp_path / "e.mp4", codec="mpeg4"),
    }
    for table, old, new in (
        # One sample more in the table of durations; another sample description; a size that is not.
        (b"stts", struct.pack(">II", 48, 512), struct.pack(">II", 49, 512)),
        (b"stsc", struct.pack(">II", 48, 1), struct.pack(">II", 48, 2)),
    ):
        data = bytearray(plain.read_bytes())
        at = data.index(old, data.index(table))
        data[at : at + 8] = new
        files[f"{table!r} lies"] = tmp_path / f"{table.decode()}.mp4"
        files[f"{table!r} lies"].write_bytes(data)
    for name, path in files.items():
        with open_video(path, MediaLimits()) as (container, stream):
            assert read_table(container, stream, path, MediaLimits()) is None, name


def test_zeros_in_a_packet_are_seen(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        place = [p.pos for p in container.demux(video=0) if p.size][20]
    data = bytearray(path.read_bytes())
    assert place is not None
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    table, packets = both(path)
    assert table is None and packets.corrupt == [20]


def test_random_files(tmp_path: Path) -> None:
    av.logging.set_level(None)
    faults = {}
    for seed in range(300, 400):
        try:
            odd = make(seed, tmp_path)
        except (av.FFmpegError, ValueError):
            continue
        if odd.path.suffix in {".mp4", ".mov", ".3gp"}:
            verdict = check(odd, (1, 2, 5, 11, 30))
            if verdict.faults:
                faults[seed, *odd.what] = verdict.faults
    assert faults == {}


@pytest.mark.skipif(media_dir() is None, reason="no folder of real clips (P2R_SHARED)")
def test_real_clips() -> None:
    folder = media_dir()
    assert folder is not None
    listed = 0
    for path in sorted(folder.glob("*.m[po][4v]")):
        try:
            table, packets = both(path)
        except MediaError:
            continue  # broken ones are another test's
        if table is not None:
            listed += 1
            assert same(table, packets), path.name
    assert listed >= 14
