"""Frames by rate: how many of a clip, held against the rule that Qwen's own tools state."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.media.clips import write_clip
from videop2r_data.media import frame_count, sample_media, uniform_indices
from videop2r_data.schemas import Focus, MediaSpec

AT_2 = MediaSpec(frames=16, fps=2.0, max_pixels=16 * 784, min_pixels=784)


def qwen_frames(total: int, rate: float, *, fps: float, least: int, most: int) -> int:
    """The documented rule of qwen-vl-utils 0.0.14 for `fps`, `min_frames` and `max_frames`.

    Seconds (frames over average rate) times fps, not below the minimum (made even upwards), not above the maximum
    (made even downwards) and the clip's own frames, made even downwards.
    """
    count = max(total / rate * fps, 2 * math.ceil(least / 2))
    count = 2 * math.floor(min(count, 2 * math.floor(most / 2), total) / 2)
    if not 2 <= count <= total:
        raise ValueError(count)
    return count


RATES = [5.0, 12.0, 15.0, 24.0, 25.0, 30.0, 50.0, 60.0, 30000 / 1001, 24000 / 1001]


def test_every_length_gives_the_count_of_qwens_tools() -> None:
    for rate in RATES:
        for total in range(2, 20_001, 7):
            wanted = qwen_frames(total, rate, fps=2.0, least=4, most=768)
            assert frame_count(MediaSpec(frames=768, fps=2.0), total, round(total / rate, 6)) == wanted


@given(
    total=st.integers(2, 20_000),
    rate=st.sampled_from(RATES),
    fps=st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 4.0]),
    least=st.integers(1, 16),
    most=st.integers(16, 768),
)
def test_the_count_is_that_of_qwens_tools(total: int, rate: float, fps: float, least: int, most: int) -> None:
    spec = MediaSpec(frames=most, fps=fps, min_frames=least)
    assert frame_count(spec, total, round(total / rate, 6)) == qwen_frames(
        total, rate, fps=fps, least=least, most=most
    )


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(0.5, 4), (2.0, 4), (3.0, 6), (3.9, 6), (4.0, 8), (7.99, 14), (8.0, 16), (3600.0, 16)],
)
def test_at_most_16_at_2_fps(seconds: float, count: int) -> None:
    assert frame_count(AT_2, 10_000, seconds) == count


def test_where_the_rule_differs_it_gives_frames_instead_of_an_error() -> None:
    with pytest.raises(ValueError, match="0"):
        qwen_frames(1, 25.0, fps=2.0, least=4, most=16)
    assert frame_count(AT_2, 1, 0.04) == 1
    assert frame_count(AT_2, 3, 0.12) == 2
    assert frame_count(AT_2, 500, None) == 16, "no duration: the most"
    assert frame_count(MediaSpec(), 500, 10.0) == 16


def test_a_clip_is_sampled_at_its_rate(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=125, rate=25)
    record = sample_media(path, "video", AT_2, want="array").record
    assert record.indices == tuple(uniform_indices(125, 10))
    part = sample_media(path, "video", AT_2, want="array", focus=Focus(1.0, 4.2)).record
    assert part.part is not None and part.part.frames == 81
    assert part.indices == tuple(25 + at for at in uniform_indices(81, 6))


def test_a_varied_rate_counts_seconds_and_not_frames(tmp_path: Path) -> None:
    pts = [i * 20 for i in range(50)] + [5000]  # 50 frames in the first second, then 4 s of one
    path = write_clip(tmp_path / "a.mkv", frames=51, pts=pts)
    assert sample_media(path, "video", AT_2, want="array").record.count == 10


def test_settings_are_written_only_where_they_are_set() -> None:
    assert not {"fps", "min_frames"} & MediaSpec().model_dump().keys()
    assert AT_2.model_dump()["fps"] == 2.0
    assert AT_2.uniform(16) is AT_2 and AT_2.uniform(32).fps is None
    with pytest.raises(ValidationError, match="min_frames 8 is more than frames 4"):
        MediaSpec(frames=4, min_frames=8, fps=1.0)
