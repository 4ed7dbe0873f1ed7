"""Scenes, pixels and the stream."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from videop2r_data.demo import EXACT_MEAN, SceneSample, iter_scenes, render_frames
from videop2r_data.demo.imagine import LETTERS, fill_at, word_mask
from videop2r_data.demo.scene import CLIP_MEAN, COLOURS, WORDS, ZERO, Scene, SceneObject, truth
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.schemas.sample import ProblemType


def take(n: int, **settings: object) -> list[SceneSample]:
    return list(islice(iter_scenes(DemoSpec.model_validate(settings)), n))


def one_object(**changes: object) -> Scene:
    base: dict[str, object] = {
        "colour": "red",
        "shape": "square",
        "size": "small",
        "half": 3,
        "x": 10,
        "y": 20,
        "motion": "right",
        "pace": "slow",
        "step": 1.5,
        "appear": 2,
        "vanish": 6,
    }
    found = SceneObject.model_validate(base | changes)
    return Scene(
        index=5,
        medium="video",
        theme="shapes",
        side=64,
        frames=8,
        fps=4,
        background=ZERO,
        objects=(found,),
    )


def test_background_is_the_nearest_colour_to_zero_after_normalisation() -> None:
    assert ZERO == tuple(round(255 * m) for m in CLIP_MEAN) == (123, 117, 104)
    std = (0.26862954, 0.26130258, 0.27577711)
    residual = [abs(z / 255 - m) / s for z, m, s in zip(ZERO, CLIP_MEAN, std, strict=True)]
    assert max(residual) < 0.004
    assert [z / 255 - m for z, m in zip(ZERO, EXACT_MEAN, strict=True)] == [0, 0, 0]


def test_an_object_is_drawn_where_and_when_the_truth_says() -> None:
    scene = one_object()
    frames = render_frames(scene)
    assert frames.shape == (8, 64, 64, 3)
    assert frames.dtype == np.uint8
    shown = [bool((f != np.array(ZERO, np.uint8)).any()) for f in frames]
    assert shown == [False, False, True, True, True, True, False, False]
    # frame 4: centre x = 10 + 4 * 1.5 = 16, y = 20, half 3 -> columns 13..19, rows 17..23
    assert scene.objects[0].box(4) == (13, 17, 20, 24)
    ink = (frames[4] == np.array(COLOURS["red"], np.uint8)).all(-1)
    rows, columns = np.nonzero(ink)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (13, 17, 20, 24)
    assert ink.sum() == 49


def test_truth_of_one_object() -> None:
    scene = one_object()
    assert truth(scene, ("motion", "red square")) == "right"
    assert truth(scene, ("appear", "red square")) == 0.5
    assert truth(scene, ("vanish", "red square")) == 1.5
    assert truth(scene, ("count", "all")) == 1
    assert truth(scene, ("count", "blue")) == 0
    assert truth(scene, ("count", "moving")) == 1
    assert truth(scene, ("exists", "blue square")) is False
    assert truth(scene, ("box", "red square")) is None  # it moves: it has no one box
    assert truth(scene, ("motion", "blue square")) is None
    assert truth(scene, ("text", "")) is None


def test_frames_by_index_and_by_time() -> None:
    scene = one_object()
    some = render_frames(scene, [4, 2])
    assert (some == render_frames(scene)[[4, 2]]).all()
    assert (render_frames(scene, times_s=[1.0, 0.6, 99.0]) == render_frames(scene, [4, 2, 7])).all()
    with pytest.raises(ValueError, match="frame 8 of 8"):
        render_frames(scene, [8])
    with pytest.raises(ValueError, match="not both"):
        render_frames(scene, [1], times_s=[0.0])


@pytest.mark.parametrize("side", [16, 24, 32, 112, 224])
def test_every_picture_is_inside_the_frame_and_shows_something(side: int) -> None:
    for sample in take(150, side=side, frames=6):
        scene = sample.scene
        if scene.medium == "text":
            continue
        frames = render_frames(scene)
        assert frames.shape == (scene.frames, side, side, 3)
        assert (frames != np.array(ZERO, np.uint8)).any()
        for found in scene.objects:
            for frame in range(found.appear, found.vanish):
                x1, y1, x2, y2 = found.box(frame)
                assert 0 <= x1 < x2 <= side
                assert 0 <= y1 < y2 <= side
                colour = np.array(COLOURS[found.colour], np.uint8)
                ink = (frames[frame, y1:y2, x1:x2] == colour).all(-1)
                assert ink.any(0).all() or found.shape in ("cross", "diamond", "circle", "ring", "triangle")
                assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()


def test_noise_leaves_the_shapes_alone() -> None:
    scene = one_object().model_copy(update={"noise_seed": 7})
    plain, noisy = render_frames(one_object()), render_frames(scene)
    ink = (plain != np.array(ZERO, np.uint8)).any(-1)
    assert (noisy[ink] == plain[ink]).all()
    spread = np.abs(noisy.astype(int) - plain.astype(int))
    assert 5 <= spread.max() <= 10
    assert (noisy[0] != noisy[1]).any()
    assert (noisy == render_frames(scene)).all()


def test_gauge_fills_linearly() -> None:
    sample = next(
        s for s in iter_scenes(DemoSpec(tasks=("level",), mediums=("video",))) if s.scene.gauge is not None
    )
    gauge = sample.scene.gauge
    assert gauge is not None
    last = sample.scene.frames - 1
    assert fill_at(gauge, 0, last + 1) == gauge.start
    assert fill_at(gauge, last, last + 1) == gauge.end
    inner = render_frames(sample.scene, [last])[0, gauge.y, gauge.x : gauge.x + gauge.width]
    filled = (inner == np.array(COLOURS[gauge.colour], np.uint8)).all(-1)
    assert filled.sum() == round(gauge.width * gauge.end / 100)
    assert sample.question.answer == str(gauge.end)


def test_font_draws_every_letter_differently() -> None:
    assert len({word_mask(letter, 1).tobytes() for letter in LETTERS}) == 36
    assert word_mask("IT", 2).shape == (14, 22)
    assert all(set(word) <= LETTERS for word in WORDS)


def test_a_scene_does_not_depend_on_rows_or_on_where_the_stream_starts() -> None:
    whole, small = take(90, rows=1), take(90, rows=5000)
    assert whole == small
    later = list(islice(iter_scenes(DemoSpec(), start=whole[40].scene.index), 5))
    same = [s for s in whole if s.scene.index >= whole[40].scene.index][:5]
    assert [(s.scene, s.question, s.defect) for s in later] == [(s.scene, s.question, s.defect) for s in same]


def test_all_types_and_media_and_unique_problems() -> None:
    samples = take(2400)
    pairs = {(s.scene.medium, s.question.problem_type) for s in samples}
    assert {t for _, t in pairs} == set(ProblemType)
    assert {m for m, _ in pairs} == {"video", "image", "text"}
    assert len({s.question.problem for s in samples}) == len(samples)
    assert [s.problem_id for s in samples] == list(range(2400))
    for s in samples:
        options = s.question.options
        assert len(set(options)) == len(options)
        assert not options or 2 <= len(options) <= 6
        assert [o[:3] for o in options] == [f"{c}. " for c in "ABCDEF"[: len(options)]]


def test_settings_narrow_the_world() -> None:
    direction = take(40, tasks=("direction",), max_objects=1, mediums=("video",), numbered=False)
    assert {s.question.kind for s in direction} == {"direction"}
    assert {len(s.scene.objects) for s in direction} == {1}
    assert any("the clip" in s.question.problem.lower() for s in direction)
    assert not any(c.isdigit() for s in direction for c in s.question.problem)
    ocr = take(40, tasks=("OCR",))
    assert {s.question.problem_type for s in ocr} == {ProblemType.OCR}
    assert {s.scene.background for s in take(60, background="varied")} != {ZERO}


@pytest.mark.parametrize(
    ("tasks", "mediums", "said"),
    [(("dance",), ("video",), "unknown demo task 'dance'"), (("OCR",), ("text",), "can be asked about")],
)
def test_impossible_settings_are_named(tasks: tuple[str, ...], mediums: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        take(1, tasks=tasks, mediums=mediums)
