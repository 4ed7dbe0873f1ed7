"""Every real clip: equal to an in-order decode, or a named error with its reason below."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from tests.media.clips import decode_in_order, to_array
from tests.shared import media_dir
from videop2r_data.errors import MediaError
from videop2r_data.media import DecodePool, probe_media, sample_media, uniform_indices
from videop2r_data.schemas import Focus
from videop2r_data.schemas.media import MediaLimits, MediaSpec

pytestmark = pytest.mark.integration

BROKEN = {
    # Not one byte; a page of an error; cut before its index.
    "empty.mp4": "media_empty",
    "not_a_video.mp4": "media_unreadable",
    "broken_trunc_nomoov.mp4": "media_truncated",
    # Sound only.
    "audio_only_ac3.mp4": "media_no_video",
    "audio_only_opus.mkv": "media_no_video",
    # Cut short: 79 of 240, 180 of 310, 2 of 1040 and 3 of 10 frames are there. What is there decodes (the
    # first two), but "uniformly spaced" over it would show other moments than those that the question is
    # about.
    "broken_trunc_faststart.mp4": "media_truncated",
    "broken_trunc60_pancake.mkv": "media_truncated",
    "zero_empty_stsc.mp4": "media_truncated",
    "test_case_1185230.mp4": "media_truncated",
    # All its bytes are there, but 29 of 164 packets can still be found.
    "broken_flip200.avi": "media_bad_packets",
    # 12 of 48 packets are zeros; none of 51 decodes.
    "broken_zeroed.mp4": "media_bad_packets",
    "invalid-bitstream.webm": "media_bad_packets",
}
DEEP_ONLY = {"broken_zeroed.mp4"}
"""Damage inside packets of a complete file: only decoding shows it."""
HURT = {"corrupted.mp4"}
"""One of 50 packets fails and one frame is damaged: 4 %, below the limit of 5 %. 49 frames are sampled."""
IN_ORDER = {"MOV00006.3gp", "video_desks.3gp", "test.avi", "newtonscradle.gif", "corrupted.mp4"}


def clips() -> list[Path]:
    folder = media_dir()
    return sorted(p for p in folder.iterdir() if p.suffix != ".md") if folder else []


def ids(path: Path) -> str:
    return path.name


@pytest.mark.skipif(media_dir() is None, reason="no folder of real clips (P2R_SHARED)")
def test_the_tables_name_real_clips() -> None:
    names = {p.name for p in clips()}
    assert set(BROKEN) | IN_ORDER <= names
    assert len(names) - len(BROKEN) >= 30


@pytest.mark.parametrize("path", [p for p in clips() if p.name in BROKEN], ids=ids)
def test_broken_clips_have_a_named_error(path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        sample_media(path, "video", MediaSpec(), want="array")
    assert caught.value.reason == BROKEN[path.name]
    assert path.name in str(caught.value)
    with pytest.raises(MediaError) as caught:
        probe_media(path, "video", MediaLimits(), deep=path.name in DEEP_ONLY)
    assert caught.value.reason == BROKEN[path.name]


@pytest.mark.parametrize("path", [p for p in clips() if p.name not in BROKEN], ids=ids)
def test_frames_equal_an_in_order_decode(path: Path) -> None:
    frames, bad = decode_in_order(path)
    assert (bad > 0) == (path.name in HURT)
    for n in (16, 32):
        spec = MediaSpec(frames=n)
        got = sample_media(path, "video", spec, want="array")
        record = got.record
        assert got.array is not None
        assert record.source_frames == len(frames)
        assert list(record.indices) == uniform_indices(len(frames), n)
        assert record.count == min(n, len(frames))
        for at, pixels in zip(record.indices, got.array, strict=True):
            assert np.array_equal(pixels, to_array(frames[at], spec)), at
        assert record.width % 28 == 0 == record.height % 28
        assert record.width * record.height <= spec.max_pixels
        assert record.sampler == ("pyav-scan/1" if path.name in IN_ORDER else "pyav-gop/1")
        # Timestamps, not index / fps. AVI numbers its packets in decode order: there the frame rate is
        # constant.
        stamps = sorted(f.pts for f in frames if f.pts is not None)
        base = frames[0].time_base
        assert base is not None
        expected = [round(float((stamps[i] - stamps[0]) * base), 6) for i in record.indices]
        assert list(record.times_s) == expected


@pytest.mark.parametrize("path", [p for p in clips() if p.name not in BROKEN], ids=ids)
def test_parts_equal_an_in_order_decode(path: Path) -> None:
    frames, _ = decode_in_order(path)
    stamps = sorted(f.pts for f in frames if f.pts is not None)
    base = frames[0].time_base
    assert base is not None
    times = [round(float((stamp - stamps[0]) * base), 6) for stamp in stamps]
    rng, spec = random.Random(path.name), MediaSpec(frames=6, max_pixels=16 * 784)
    for _ in range(4):
        start, end = sorted(rng.uniform(0, times[-1]) for _ in range(2))
        inside = [at for at, time_s in enumerate(times) if round(start, 6) <= time_s <= round(end, 6)]
        inside = inside or [max(at for at, time_s in enumerate(times) if time_s <= round(start, 6))]
        if start == end == 0.0:
            continue  # a clip of one frame has no part but itself
        got = sample_media(path, "video", spec, want="array", focus=Focus(start, end))
        assert list(got.record.indices) == [inside[at] for at in uniform_indices(len(inside), 6)]
        assert list(got.record.times_s) == [times[at] for at in got.record.indices]
        assert got.array is not None
        for at, pixels in zip(got.record.indices, got.array, strict=True):
            assert np.array_equal(pixels, to_array(frames[at], spec)), at
    with pytest.raises(MediaError) as caught:
        sample_media(path, "video", spec, want="array", focus=Focus(times[-1] + 3600.0, None))
    assert caught.value.reason == "media_outside"


@pytest.mark.parametrize("path", [p for p in clips() if p.name not in BROKEN], ids=ids)
def test_looking_agrees_with_sampling(path: Path) -> None:
    record = sample_media(path, "video", MediaSpec(), want="array").record
    for deep in (False, True):
        probe = probe_media(path, "video", MediaLimits(), deep=deep)
        assert (probe.width, probe.height) == (record.source_width, record.source_height)
        if deep or path.name not in HURT:
            assert probe.frames == record.source_frames
            assert probe.duration_s == pytest.approx(record.duration_s, rel=0.05)


@pytest.mark.skipif(media_dir() is None, reason="no folder of real clips (P2R_SHARED)")
def test_the_whole_folder_through_the_pool() -> None:
    """Broken ones in between change nothing for the others, and the number of processes changes no digest."""

    async def digests(workers: int) -> dict[str, str]:
        found: dict[str, str] = {}
        async with DecodePool(MediaSpec(frames=4), want="encoded", workers=workers) as pool:

            async def one(path: Path) -> None:
                try:
                    found[path.name] = (await pool.sample(path, "video")).record.frames_sha256
                except MediaError as error:
                    found[path.name] = error.reason

            await asyncio.gather(*(one(p) for p in clips()))
        return found

    first, second = asyncio.run(digests(1)), asyncio.run(digests(3))
    assert first == second
    # Four frames may all lie outside the damage of a broken clip; everything else is refused at any number.
    assert {n for n, d in first.items() if d.startswith("media_")} >= set(BROKEN) - DEEP_ONLY


@pytest.mark.skipif(media_dir() is None, reason="no folder of real clips (P2R_SHARED)")
def test_decord_behind_the_same_function() -> None:
    pytest.importorskip("decord")
    folder = media_dir()
    assert folder is not None
    spec = MediaSpec(decoder="decord", frames=8)
    for name in ("video1.mp4", "sample_demo_3.mp4", "fire2.mp4", "video_90.mov"):
        ours = sample_media(folder / name, "video", MediaSpec(frames=8), want="array")
        theirs = sample_media(folder / name, "video", spec, want="array")
        assert theirs.record.sampler == "decord/1"
        assert theirs.record.indices == ours.record.indices
        assert (theirs.record.source_width, theirs.record.source_height) == (
            ours.record.source_width,
            ours.record.source_height,
        )
        assert theirs.record.times_s == pytest.approx(ours.record.times_s, abs=2e-3)
        assert ours.array is not None and theirs.array is not None
        assert ours.array.shape == theirs.array.shape
        # Another scaler, the same picture.
        assert np.abs(ours.array.astype(int) - theirs.array.astype(int)).mean() < 12
    for name in ("av1_video.mkv", "newtonscradle.gif", "broken_trunc_faststart.mp4"):
        with pytest.raises(MediaError):
            sample_media(folder / name, "video", spec, want="array")
