"""The endless stream: any index, any time, the same example; true records."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.data.parts import SMALL, WORLD, stream_spec
from videop2r_data.demo import iter_scenes, observation_is_sufficient, render_frames
from videop2r_data.errors import ConfigError
from videop2r_data.media import frames_digest
from videop2r_data.schemas import DataType, LookSpec, parse_trace
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.trainer.data.examples import DemoStream, draw
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.settings.parts import DataSpec
from videop2r_data.validators import check_reference, score


def test_an_index_is_an_example_wherever_one_starts() -> None:
    stream, later = DemoStream(stream_spec()), DemoStream(stream_spec(start=1000, limit=50))
    assert [stream[i] for i in (7, 3, 7)] == [stream[7], stream[3], stream[7]]
    assert stream[1003] == later[3] and len(later) == 50 and later[-1] == later[49]
    assert stream[5:7] == [stream[5], stream[6]]
    with pytest.raises(IndexError):
        later[50]
    assert len({stream[i].sample_id for i in range(50)}) == 50


def test_the_stream_asks_the_first_question_of_each_scene_of_the_world() -> None:
    one = WORLD.model_copy(update={"questions": 1})
    stream = read_examples(stream_spec(config="rl"))
    for i, sample in zip(range(20), iter_scenes(one), strict=False):
        example = stream[i]
        assert example.problem == sample.question.problem and example.target is None
        assert example.scene is not None and example.scene.scene == sample.scene
        assert example.reference == sample.question.answer


def test_what_is_learnt_is_right_and_sufficient() -> None:
    stream = DemoStream(stream_spec(limit=60))
    bare = DemoStream(stream_spec(limit=60, style="agnostic"))
    for example, other in zip(stream, bare, strict=True):
        assert example.target is not None and example.scene is not None
        trace = parse_trace(example.target)
        assert other.target == trace.process
        assert check_reference(example.problem_type, example.reference, example.options) is None
        told = score(
            example.problem_type,
            prediction=trace.answer,
            reference=example.reference,
            options=example.options,
        )
        assert told.value == 1.0
        scene, question = example.scene.scene, example.scene.question
        assert observation_is_sufficient(scene, question, trace.observation)
    assert len({e.target for e in stream}) == 60


def test_a_drawn_clip_says_the_truth_about_itself() -> None:
    stream = DemoStream(stream_spec(limit=60))
    sample = next(e.scene for e in stream if e.data_type is DataType.VIDEO)
    assert sample is not None
    few = MediaSpec(frames=3, factor=8, min_pixels=64, max_pixels=784)
    seen = draw(sample, few)
    record = seen.record
    assert seen.array is not None
    assert record.indices == (0, 4, 7) and record.times_s == (0.0, 1.0, 1.75)  # 8 frames at 4 a second
    assert (record.source_frames, record.source_fps, record.duration_s) == (8, 4.0, 2.0)
    assert (record.width, record.height, record.source_width, record.count) == (24, 24, 24, 3)
    assert record.frames_sha256 == frames_digest(seen.array)
    np.testing.assert_array_equal(seen.array, render_frames(sample.scene, [0, 4, 7]))


def test_frames_by_rate_are_drawn_as_they_would_be_sampled() -> None:
    sample = next(e.scene for e in DemoStream(stream_spec(limit=60)) if e.data_type is DataType.VIDEO)
    assert sample is not None
    by_rate = MediaSpec(frames=8, fps=3.0, factor=8, min_pixels=64, max_pixels=784)
    assert draw(sample, by_rate).record.indices == (0, 1, 3, 4, 6, 7)  # 2 s, 3 a second, of 8 frames


def test_a_look_is_laid_on_what_is_drawn() -> None:
    sample = next(e.scene for e in DemoStream(stream_spec(limit=60)) if e.data_type is DataType.VIDEO)
    assert sample is not None
    plain = MediaSpec(frames=4, factor=8, min_pixels=64, max_pixels=784)
    noisy = plain.model_copy(update={"look": LookSpec(select="scenes", candidates=8, drop=0.5, noise=9.0)})
    seen = draw(sample, noisy)
    assert seen.record.count == 2 and seen.record.look is not None and seen.record.look.candidates == 8
    clean = render_frames(sample.scene, list(seen.record.indices)).astype(int)
    assert seen.array is not None and 1 < np.abs(seen.array.astype(int) - clean).mean() < 9
    assert draw(sample, noisy).record == seen.record


def test_a_drawn_picture_is_one_frame() -> None:
    stream = DemoStream(stream_spec(limit=60))
    sample = next(e.scene for e in stream if e.data_type is DataType.IMAGE)
    assert sample is not None
    record = draw(sample, SMALL).record
    assert (record.data_type, record.count, record.indices, record.source_fps) == ("image", 1, (0,), None)


@pytest.mark.parametrize(("side", "factor", "pixels"), [(20, 8, 784), (32, 8, 784), (24, 28, 784)])
def test_frames_that_would_be_resized_are_refused(side: int, factor: int, pixels: int) -> None:
    demo = WORLD.model_copy(update={"side": side})
    media = MediaSpec(factor=factor, min_pixels=64, max_pixels=pixels)
    with pytest.raises(ConfigError, match="would be resized"):
        DemoStream(DataSpec(source="demo", demo=demo, media=media))


def test_impossible_tasks_are_told_before_training() -> None:
    demo = WORLD.model_copy(update={"tasks": ("sum",), "mediums": ("video",)})
    with pytest.raises(ConfigError, match=r"demo\.tasks"):
        DemoStream(DataSpec(source="demo", demo=demo, media=SMALL))


def test_the_digest_is_that_of_what_is_asked() -> None:
    same = [DemoStream(stream_spec(limit=9)).sha256, DemoStream(stream_spec(limit=9, ahead=7)).sha256]
    others = [
        DemoStream(stream_spec(limit=9, **{k: v})).sha256 for k, v in (("start", 1), ("style", "agnostic"))
    ]
    assert len(set(same)) == 1 and len({*same, *others}) == 3
