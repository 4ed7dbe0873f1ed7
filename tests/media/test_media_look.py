"""Which frames and how they are shown: functions of pixels, settings and file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from tests.media.clips import write_clip
from videop2r_data.media import frames_digest, sample_media
from videop2r_data.media.look import changed, scene_starts, spread
from videop2r_data.schemas import Focus, Frames, LookSpec, MediaSpec, Message, Request

SMALL: dict[str, Any] = {"frames": 8, "max_pixels": 16 * 784, "min_pixels": 784}
PLAIN = MediaSpec(**SMALL)


def look(path: Path, focus: Focus = Focus(), **settings: Any) -> Frames:  # noqa: B008
    spec = MediaSpec(**SMALL, look=LookSpec(**settings))
    return sample_media(path, "video", spec, want="array", focus=focus)


def write_scenes(path: Path, scenes: list[tuple[int, int]], rate: int = 10) -> Path:
    """A clip of still scenes: (brightness, frames) each, with a square that moves by a pixel a frame."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 112, 84, "yuv420p"
        at = 0
        for grey, count in scenes:
            for _ in range(count):
                picture = np.full((84, 112, 3), grey, np.uint8)
                picture[20:30, at % 90 : at % 90 + 12] = 255 - grey
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                at += 1
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("look") / "a.mp4")


def pixels(frames: Frames) -> NDArray[np.uint8]:
    assert frames.array is not None
    assert frames.record.frames_sha256 == frames_digest(frames.array)
    assert (
        frames.array.shape[0]
        == frames.record.count
        == len(frames.record.indices)
        == len(frames.record.times_s)
    )
    return frames.array


# --- nothing changes where nothing is asked for ---


def test_settings_without_a_look_are_written_as_ever(clip: Path) -> None:
    assert "look" not in MediaSpec().model_dump()
    record = sample_media(clip, "video", PLAIN, want="array").record
    assert record.look is None and "look" not in record.model_dump()
    plain, idle = sample_media(clip, "video", PLAIN, want="array"), look(clip, seed=7)
    assert (pixels(idle) == pixels(plain)).all() and idle.record.indices == plain.record.indices


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"look": {"select": "question"}}, "embedder go together"),
        ({"look": {"embedder": "x"}}, "embedder go together"),
        (
            {"look": {"select": "scenes", "candidates": 8}, "frames": 16},
            "candidates 8 is less than frames 16",
        ),
        ({"look": {"noise": 1}, "passthrough": True}, "cannot go with passthrough"),
        ({"look": {"drop": 1.0}}, "less than 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        MediaSpec.model_validate(more)


# --- drop, blur, noise, occlude ---


def test_dropped_frames_are_a_share_by_seed_and_never_all(clip: Path) -> None:
    whole = sample_media(clip, "video", PLAIN, want="array")
    for share, left in ((0.25, 6), (0.5, 4), (0.99, 1)):
        got = look(clip, drop=share)
        assert got.record.count == left and got.record.look is not None
        assert sorted((*got.record.indices, *got.record.look.dropped)) == list(whole.record.indices)
        kept = [whole.record.indices.index(at) for at in got.record.indices]
        assert (pixels(got) == pixels(whole)[kept]).all()
        assert look(clip, drop=share).record == got.record
    seeds = {look(clip, drop=0.5, seed=seed).record.indices for seed in range(8)}
    assert len(seeds) > 3
    ends = look(clip, drop=0.9).record
    assert ends.shown.seconds == 2.0, "the clip is as long as it was"


def test_noise_has_its_deviation_and_belongs_to_the_frame(clip: Path) -> None:
    grey = np.full((3, 84, 112, 3), 128, np.uint8)
    spec = LookSpec(noise=10.0, seed=3)
    got, _ = changed(grey, (0, 5, 9), spec, "file")
    assert abs(float(np.std(got.astype(int))) - 10.0) < 0.2 and abs(float(got.mean()) - 128) < 0.2
    assert not (got[0] == got[1]).all()
    one, _ = changed(grey[:1], (5,), spec, "file")
    assert (one[0] == got[1]).all(), "whichever frames are sampled beside it"
    for other in (
        changed(grey, (0, 5, 9), spec, "other file"),
        changed(grey, (0, 5, 9), LookSpec(noise=10.0), "file"),
    ):
        assert not (other[0] == got).all()
    few, many = (look(clip, noise=5.0) for _ in range(2))
    assert few.record == many.record


def test_blur_is_the_gaussian_of_its_definition() -> None:
    dot = np.zeros((1, 41, 41, 3), np.uint8)
    dot[0, 18:23, 18:23] = 250
    got, _ = changed(dot, (0,), LookSpec(blur=2.0), "f")
    k = np.arange(-6, 7)
    weights = np.exp(-0.5 * (k / 2.0) ** 2)
    weights /= weights.sum()
    exact = dot[0, :, :, 0].astype(float)
    for axis in (0, 1):
        exact = np.apply_along_axis(lambda line: np.convolve(line, weights, "same"), axis, exact)
    assert np.abs(got[0, :, :, 0] - exact).max() <= 1.1
    flat = np.full((1, 28, 28, 3), 200, np.uint8)
    assert (changed(flat, (0,), LookSpec(blur=9.0), "f")[0] == flat).all(), "edges are continued"


@given(share=st.floats(0.01, 1.0), tall=st.integers(1, 6), wide=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_box_covers_its_share_at_one_place(share: float, tall: int, wide: int, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 100, (3, 28 * tall, 28 * wide, 3), np.uint8)
    got, box = changed(array, (0, 1, 2), LookSpec(occlude=share, seed=seed), "f")
    assert box is not None
    left, top, right, bottom = box
    assert 0 <= left < right <= 28 * wide and 0 <= top < bottom <= 28 * tall
    assert (got[:, top:bottom, left:right] == 128).all()
    outside = np.ones(array.shape[:3], bool)
    outside[:, top:bottom, left:right] = False
    assert (got[outside] == array[outside]).all()
    area = (right - left) * (bottom - top) / (28 * tall * 28 * wide)
    assert abs(area - share) <= 1 / (28 * min(tall, wide))


def test_a_picture_is_changed_and_not_dropped(tmp_path: Path) -> None:
    Image.new("RGB", (84, 84), (90, 90, 90)).save(tmp_path / "a.png")
    spec = MediaSpec(look=LookSpec(select="scenes", drop=0.9, noise=8.0, occlude=0.25))
    got = sample_media(tmp_path / "a.png", "image", spec, want="encoded")
    plain = sample_media(tmp_path / "a.png", "image", MediaSpec(), want="encoded")
    assert got.record.count == 1 and got.encoded != plain.encoded
    assert got.record.look is not None and got.record.look.box is not None and not got.record.look.candidates
    assert got.record.look.settings == {"select": "scenes", "drop": 0.9, "noise": 8.0, "occlude": 0.25}


def test_every_look_has_a_key_of_its_own(clip: Path) -> None:
    def key(frames: Frames) -> str:
        return Request("generate", "m", (Message("user", "?", True),), media=frames.record).key

    looks: list[dict[str, Any]] = [
        {"noise": 4.0},
        {"noise": 4.0, "seed": 1},
        {"blur": 1.0},
        {"occlude": 0.1},
        {"drop": 0.3},
    ]
    keys = {key(look(clip, **one)) for one in looks} | {key(sample_media(clip, "video", PLAIN, want="array"))}
    assert len(keys) == len(looks) + 1


# --- scenes ---


def test_scenes_begin_where_the_picture_changes_at_once(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "a.mp4", [(40, 12), (200, 3), (90, 25)])
    got = look(path, select="scenes")
    assert got.record.look is not None
    assert (got.record.look.scenes, got.record.look.candidates) == (3, 40)
    scenes = [sum(at >= start for start in (0, 12, 15)) for at in got.record.indices]
    assert scenes == sorted(scenes) and [scenes.count(n) for n in (1, 2, 3)] == [2, 1, 5]
    assert 13 in got.record.indices, "the short scene that 8 uniform frames may miss is seen in its middle"
    assert look(path, select="scenes").record == got.record
    part = look(path, Focus(1.4, None), select="scenes").record
    assert part.part is not None and part.indices[0] >= 14 and part.look is not None and part.look.scenes == 2


def test_a_moving_picture_has_no_cuts_and_keeps_an_even_spread(clip: Path) -> None:
    record = look(clip, select="scenes").record
    assert record.look is not None and record.look.scenes == 1
    assert record.indices == (3, 9, 15, 21, 27, 33, 39, 45)


def test_more_scenes_than_frames_give_one_frame_to_the_longest(tmp_path: Path) -> None:
    lengths = [(20 + 60 * (n % 4), 2 + n) for n in range(12)]
    record = look(write_scenes(tmp_path / "a.mp4", lengths), select="scenes", candidates=200).record
    assert record.look is not None and record.look.scenes == 12 and record.count == 8
    starts = np.cumsum([0, *(n for _, n in lengths)])
    assert [int(np.searchsorted(starts, at, "right")) - 1 for at in record.indices] == list(range(4, 12))


def test_a_clip_by_rate_takes_its_number_over_scenes(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "a.mp4", [(40, 20), (200, 20)])
    spec = MediaSpec(**SMALL, fps=1.0, min_frames=2, look=LookSpec(select="scenes"))
    record = sample_media(path, "video", spec, want="array").record
    assert record.count == 4 and record.indices == (5, 15, 25, 35)


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    count=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_a_spread_is_rising_and_reaches_every_scene_that_it_can(
    lengths: list[int], count: int, seed: int
) -> None:
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    found = spread(starts, sum(lengths), count)
    assert len(found) == min(count, sum(lengths)) and found == sorted(set(found))
    assert found[0] >= 0 and found[-1] < sum(lengths)
    reached = {sum(at >= start for start in starts) for at in found}
    assert len(reached) == min(count, len(lengths))


def test_a_still_clip_is_one_scene() -> None:
    assert scene_starts(np.full((20, 56, 56, 3), 90, np.uint8)) == [0]
    assert scene_starts(np.zeros((1, 28, 28, 3), np.uint8)) == [0]
    two = np.concatenate([np.zeros((1, 28, 28, 3), np.uint8), np.full((1, 28, 28, 3), 99, np.uint8)])
    assert scene_starts(two) == [0, 1]
