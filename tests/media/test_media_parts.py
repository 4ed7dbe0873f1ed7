"""Parts of clips: the frames between two times, held against an in-order decode of the whole clip."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest

from tests.media.clips import decode_in_order, to_array, write_clip
from videop2r_data.backends.chat_input import video_metadata
from videop2r_data.errors import MediaError
from videop2r_data.media import DecodePool, decode, sample_media, uniform_indices
from videop2r_data.schemas import Focus, Frames, MediaLimits, MediaSpec, Message, Request

SPEC = MediaSpec(frames=8, max_pixels=16 * 784, min_pixels=784)


def sample(path: Path, start: float | None, end: float | None, spec: MediaSpec = SPEC) -> Frames:
    return sample_media(path, "video", spec, want="array", focus=Focus(start, end))


def times_of(path: Path) -> tuple[list[Any], list[float]]:
    """Every frame of a clip and its time, decoded in order by another decoder loop."""
    frames, bad = decode_in_order(path)
    assert bad == 0
    first, base = frames[0].pts, frames[0].time_base
    assert first is not None and base is not None
    return frames, [round(float(((f.pts or 0) - first) * base), 6) for f in frames]


def check_part(path: Path, start: float, end: float, spec: MediaSpec = SPEC) -> Frames:
    """Decode everything, keep what lies in the part, spread: the same frames, bit for bit."""
    frames, times = times_of(path)
    inside = [at for at, time_s in enumerate(times) if round(start, 6) <= time_s <= round(end, 6)]
    if not inside:
        inside = [max((at for at, time_s in enumerate(times) if time_s <= start), default=0)]
    wanted = [inside[at] for at in uniform_indices(len(inside), spec.frames)]
    got = sample(path, start, end, spec)
    record, part = got.record, got.record.part
    assert part is not None and got.array is not None
    assert (part.first, part.frames) == (inside[0], len(inside))
    assert list(record.indices) == wanted
    assert list(record.times_s) == [times[at] for at in wanted]
    assert record.source_frames == len(frames)
    for at, pixels in zip(wanted, got.array, strict=True):
        assert (pixels == to_array(frames[at], spec)).all(), at
    return got


CLIPS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"b_frames": 3},
    "open.mkv": {
        "frames": 60,
        "codec_options": {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3:b-adapt=0"},
    },
    "varied.mkv": {"frames": 30, "pts": [i * i * 10 for i in range(30)]},
    "hidden.webm": {"codec": "libvpx"},
    "stream.ts": {"rate": 25},
    "inorder.mp4": {"codec": "mpeg4"},
    "turned.mp4": {"rotation": 90, "size": (160, 112)},
}


@pytest.mark.parametrize("name", CLIPS)
def test_a_part_has_the_frames_that_decoding_everything_gives(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, **CLIPS[name])
    _, times = times_of(path)
    rng = random.Random(name)
    for n in (1, 3, 8, 64):
        for _ in range(4):
            a, b = sorted((rng.uniform(0, times[-1]), rng.uniform(0, times[-1])))
            check_part(path, a, b, SPEC.model_copy(update={"frames": n}))
    at, to = sorted(rng.sample(range(len(times)), 2))
    got = check_part(path, times[at], times[to], SPEC.model_copy(update={"frames": 64}))
    assert got.record.indices == tuple(range(at, to + 1)), "both bounds belong to the part"
    assert check_part(path, 0.0, times[-1]).record.indices == sample(path, None, None).record.indices


@pytest.mark.parametrize("name", ["plain.mp4", "varied.mkv"])
def test_decoding_everything_gives_the_same_part(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, **CLIPS[name])
    whole = SPEC.model_copy(update={"limits": MediaLimits(decode_all=True)})
    got = check_part(path, 0.4, 1.3, whole)
    assert got.record.sampler == decode.SAMPLER_IN_ORDER
    assert got.record.frames_sha256 == sample(path, 0.4, 1.3).record.frames_sha256


def test_a_part_shorter_than_a_frame_is_the_frame_on_screen(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", rate=4)
    got = check_part(path, 1.3, 1.4)
    assert got.record.indices == (5,) and got.record.times_s == (1.25,)
    assert got.record.seen.times_s == (0.0,), "on screen since before the part began"


def test_only_the_groups_of_pictures_of_the_part_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=240, gop=24, rate=24)
    decoded: list[int] = []
    real = decode.plan_runs

    def noted(index: Any, targets: list[int]) -> list[decode.Run]:
        runs = real(index, targets)
        decoded.extend(at for run in runs for at in range(run.start, run.end + 1))
        return runs

    monkeypatch.setattr(decode, "plan_runs", noted)
    sample(path, 7.0, 8.0)
    assert min(decoded) >= 168 - 3 and max(decoded) <= 195


def test_an_open_part_goes_to_the_end_of_the_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")  # 48 frames in 2 s
    tail, head = sample(path, 1.5, None).record, sample(path, None, 0.5).record
    assert tail.part is not None and head.part is not None
    assert (tail.part.first, tail.part.frames, tail.part.end_s) == (36, 12, 2.0)
    assert (head.part.first, head.part.frames, head.part.start_s) == (0, 13, 0.0)
    assert tail.part.beyond_s == 0 and "beyond_s" not in tail.part.model_dump()


def test_a_part_that_overhangs_is_clipped_and_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    record = sample(path, 1.5, 9.25).record
    assert record.part is not None
    assert (record.part.end_s, record.part.beyond_s, record.part.frames) == (2.0, 7.25, 12)
    assert record.seen.duration_s == 0.5


@pytest.mark.parametrize(("start", "end"), [(2.0, None), (2.0, 3.0), (77.0, 78.0)])
def test_a_part_outside_of_the_clip_is_an_error(tmp_path: Path, start: float, end: float | None) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(MediaError) as caught:
        sample(path, start, end)
    assert caught.value.reason == "media_outside"
    assert f"from {start:g} s" in str(caught.value) and "ends at 2 s" in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_end_of_the_last_frame_still_belongs_to_the_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", rate=4, frames=8)
    assert sample(path, 1.9, None).record.indices == (7,)


def test_a_model_is_told_a_clip_of_its_own(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", rate=25, frames=100)
    record = sample(path, 1.0, 3.0, SPEC.model_copy(update={"frames": 3})).record
    assert (record.indices, record.times_s) == ((25, 50, 75), (1.0, 2.0, 3.0))
    seen = record.seen
    assert (seen.indices, seen.times_s, seen.source_frames) == ((0, 25, 50), (0.0, 1.0, 2.0), 51)
    assert seen.seen == seen
    assert video_metadata(record) == {
        "fps": 25.0,
        "duration": 2.0,
        "total_num_frames": 51,
        "frames_indices": [0, 25, 50],
    }
    assert record.shown.seconds == pytest.approx(2.04) and record.shown.frames == 51
    between = sample(path, 1.01, 3.0).record  # its first frame comes 30 ms after the part begins
    told = video_metadata(between)
    assert told["frames_indices"][0] / told["fps"] == pytest.approx(0.03, abs=1e-3)
    assert told["total_num_frames"] / told["fps"] == pytest.approx(1.99, abs=2e-3)


def key(frames: Frames) -> str:
    return Request("generate", "m", (Message("user", "?", True),), media=frames.record).key


def test_keys_tell_parts_apart(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", rate=4)
    parts = [(None, None), (0.0, None), (1.0, None), (1.1, 1.6), (1.12, 1.6), (1.1, 1.61), (1.1, 2.0)]
    found = [key(sample(path, *part)) for part in parts]
    assert len(set(found)) == len(parts)
    whole = sample(path, None, None).record
    assert whole.part is None and "part" not in whole.model_dump()


def test_the_pool_gives_the_same_and_one_frame_is_the_middle_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    spec = SPEC.model_copy(update={"frames": 1})

    async def main() -> Frames:
        async with DecodePool(spec, want="array", workers=1) as pool:
            with pytest.raises(MediaError) as caught:
                await pool.sample(path, "video", Focus(5.0, 6.0))
            assert caught.value.reason == "media_outside"
            return await pool.sample(path, "video", Focus(0.5, 1.5))

    got = asyncio.run(main())
    assert got.record == sample(path, 0.5, 1.5, spec).record
    assert got.record.indices == (24,)


def test_a_stream_without_times_or_rate_has_no_parts(tmp_path: Path) -> None:
    from videop2r_data.media.geometry import part_of
    from videop2r_data.media.timing import Timing

    with pytest.raises(MediaError) as caught:
        part_of(Focus(1.0, 2.0), Timing((0.0, 1.0, 2.0), None, None, "assumed"), tmp_path / "a")
    assert caught.value.reason == "media_outside" and "neither timestamps" in str(caught.value)
    raw = write_clip(tmp_path / "a.h264", rate=25, frames=50)  # counted from its rate
    record = sample(raw, 0.5, 1.0).record
    assert record.times == "assumed" and record.part is not None
    assert math.isclose(record.times_s[0], 0.52) and record.part.frames == 13
