"""What the model reads, against what was sampled: real processors, no weights."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_model import TinyConfig, build_config, build_model
from tests.trainer.data.parts import (
    SMALL,
    collator,
    example,
    frames,
    packaged,
    plain_processor,
    qwen3_processor,
    small_processor,
    stream_spec,
)
from videop2r_data.backends.chat_input import number_behind_clips
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.trainer.data.collate import PROMPT_TOO_LONG, SPECIAL_TOKEN
from videop2r_data.trainer.data.examples import DemoStream, draw

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
KINDS = ("video", "image", "text", "video", "image")


def mixed() -> tuple[list[Any], list[Frames | None]]:
    """Clips of other lengths and sizes, pictures and text."""
    asked = [example(kind, f"question {i}") for i, kind in enumerate(KINDS)]
    seen = [
        frames(seed=1),
        frames("image", 1, height=16, seed=2),
        None,
        frames(count=3, width=16, height=8, indices=(0, 5, 9), seed=3),
        frames("image", 1, seed=4),
    ]
    return asked, seen


@pytest.mark.parametrize("make", [small_processor, qwen3_processor])
def test_a_mixed_batch_is_each_example_alone(make: Any) -> None:
    collate = collator(make())
    asked, seen = mixed()
    together = collate(asked, seen)
    alone = [collate([e], [f]) for e, f in zip(asked, seen, strict=True)]
    assert together.ids == [row for b in alone for row in b.ids]
    assert together.types == [row for b in alone for row in b.types]
    assert together.texts == tuple(b.texts[0] for b in alone)
    assert together.kept == (0, 1, 2, 3, 4) and together.skipped == ()
    for name, tensor in together.media.items():
        assert torch.equal(tensor, torch.cat([b.media[name] for b in alone if name in b.media])), name
    inputs = together.with_completions([[1, 2]] * 5, 1)
    for at, one in enumerate(alone):
        part = inputs.rows(at, at + 1).media
        assert set(part) == set(one.media)
        assert all(torch.equal(part[name], one.media[name]) for name in part)


def test_frames_stand_in_order_and_pixels_are_what_was_sampled() -> None:
    array = np.empty((5, 24, 24, 3), dtype=np.uint8)
    colours = np.array([[10 * i, 255 - 10 * i, 7] for i in range(5)])
    array[:] = colours[:, None, None, :]
    clip = dataclasses.replace(frames(count=5), array=array)
    media = collator()([example("video")], [clip]).media
    assert media["video_grid_thw"].tolist() == [[3, 6, 6]]  # the fifth frame is doubled to fill its pair
    patches = media["pixel_values_videos"].reshape(3, 36, 3, 2, 4, 4)  # t, patch, colour, frame, y, x
    wanted = (colours / 255 - MEAN) / STD
    for t, pair in enumerate([(0, 1), (2, 3), (4, 4)]):
        for k, frame in enumerate(pair):
            got = patches[t, :, :, k].amin((0, 2, 3)), patches[t, :, :, k].amax((0, 2, 3))
            for side in got:
                np.testing.assert_allclose(side.numpy(), wanted[frame], atol=1e-5)


def test_a_processor_that_would_resize_leaves_the_frames_alone() -> None:
    """Its default bounds ask for 128 * 28 * 28 pixels at least; the clip has 2 x 3 tokens a frame."""
    media = MediaSpec(frames=8, max_pixels=8 * 28 * 28)
    asked = [example("video"), example("image")]
    seen = [frames(height=56, width=84), frames("image", 1, height=84, width=56)]
    batch = collator(plain_processor(), media)(asked, seen)
    assert batch.media["video_grid_thw"].tolist() == [[4, 4, 6]]
    assert batch.media["image_grid_thw"].tolist() == [[1, 6, 4]]
    assert [row.count(2) for row in batch.types] == [24, 0] and [row.count(1) for row in batch.types] == [
        0,
        6,
    ]


def test_more_tokens_than_the_budget_are_an_error_never_a_cut() -> None:
    wide = SMALL.model_copy(update={"max_pixels": 800})
    assert collator(media=wide)([example("video")], [frames(height=24, width=32)]).ids
    with pytest.raises(ConfigError, match="16 tokens a frame, the budget is 12"):
        collator(media=wide)([example("video")], [frames(height=32, width=32)])
    one = SMALL.model_copy(update={"image_max_pixels": 1024})
    assert collator(media=one)([example("image")], [frames("image", 1, height=32, width=32)]).ids


def test_frames_of_another_factor_are_an_error() -> None:
    with pytest.raises(ConfigError, match="multiples of 28 px, the model sees multiples of 8 px"):
        collator(media=MediaSpec())
    with pytest.raises(ConfigError, match="video"):
        collator()([example("video")], [frames(height=20)])


def test_seconds_per_grid_come_from_the_times_of_the_clip() -> None:
    """4 of 16 frames at 8 per second: 2 sampled frames a second, so a pair of them every second."""
    slow = frames(count=4, indices=(0, 4, 8, 12), fps=8.0, total=16)
    fast = frames(count=4, indices=(0, 1, 2, 3), fps=16.0, total=4)
    batch = collator()([example("video"), example("video", "?")], [slow, fast])
    assert batch.media["second_per_grid_ts"].tolist() == [1.0, 0.125]
    assert "second_per_grid_ts" not in collator()([example("image")], [frames("image", 1)]).media


def rope(net: Any, told: dict[str, torch.Tensor], media: dict[str, torch.Tensor]) -> torch.Tensor:
    grids = {k: v for k, v in media.items() if not k.startswith("pixel")}
    positions: torch.Tensor = net.model.get_rope_index(**told, **grids)[0]
    return positions


def test_the_temporal_positions_of_a_clip_are_its_times() -> None:
    tiny = TinyConfig(patch=4, window=16)
    net = build_model(tiny, build_config(tiny, small_processor().tokenizer))
    number_behind_clips(net)
    slow = frames(count=4, indices=(0, 4, 8, 12), fps=8.0, total=16)
    batch = collator()(
        [example("text", "a longer question, to pad the other"), example("video")], [None, slow]
    )
    right = batch.with_completions([[1, 2], [1, 2]], 1)
    told = {
        "input_ids": right.input_ids, "attention_mask": right.attention_mask, "mm_token_type_ids": right.types
    }  # fmt: skip
    from_right = rope(net, told, batch.media)[:, 1][:, right.attention_mask[1].bool()]
    from_left = rope(net, batch.for_generation(1), batch.media)[:, 1]
    from_left = from_left[:, batch.for_generation(1)["attention_mask"][1].bool()]
    assert torch.equal(from_left, from_right[:, :-2])  # padding moves nothing
    first = batch.types[1].index(2)
    speed = net.config.vision_config.tokens_per_second  # positions per second of video
    clip = from_right[:, first : first + 18]
    assert clip[0].tolist() == [first] * 9 + [first + round(1.0 * speed)] * 9
    assert clip[1].tolist() == [first + y for _ in range(2) for y in range(3) for _ in range(3)]
    assert clip[2].tolist() == [first + x for _ in range(6) for x in range(3)]
    behind = from_right[:, first + 18 :]
    start = int(clip.max()) + 1
    assert behind.tolist() == [list(range(start, start + behind.shape[1]))] * 3


def test_qwen3_reads_the_time_of_each_pair_of_frames() -> None:
    collate = collator(qwen3_processor())
    batch = collate([example("video")], [frames(count=3, indices=(0, 2, 5), fps=2.0)])
    text = collate.tokenizer.decode(batch.ids[0])
    pads = "<|vision_start|>" + "<|video_pad|>" * 9 + "<|vision_end|>"
    # pairs (0, 1.0 s) and (2.5, 2.5 s): their means
    assert f"user\n<0.5 seconds>{pads}<2.5 seconds>{pads}How many?" in text
    assert batch.types[0].count(2) == 18 and "second_per_grid_ts" not in batch.media
    single = collate([example("video")], [frames(count=1)])
    assert single.media["video_grid_thw"].tolist() == [[1, 6, 6]]


def test_times_of_a_variable_frame_rate_reach_both_models_as_they_are() -> None:
    """3 frames shown at 0, 0.5 and 6 s: no frame rate puts the middle one at its place."""
    clip = frames(count=3, indices=(0, 1, 2), total=3)
    about = {"times_s": (0.0, 0.5, 6.0), "duration_s": 9.0}
    clip = dataclasses.replace(clip, record=clip.record.model_copy(update=about))
    collate = collator(qwen3_processor())
    text = collate.tokenizer.decode(collate([example("video")], [clip]).ids[0])
    assert "<0.2 seconds>" in text and "<6.0 seconds>" in text  # means of the pairs (0, 0.5) and (6, 6)
    # Qwen2.5-VL has one step for all: 3 frames in 9 s, two of them in a step.
    batch = collator()([example("video")], [clip])
    assert batch.media["second_per_grid_ts"].tolist() == pytest.approx([6.0])


def test_the_chat_is_that_of_the_template() -> None:
    batch = collator()([example("video"), example()], [frames(), None])
    assert batch.texts == (
        "<|im_start|>system\nLook.<|im_end|>\n<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>"
        "How many?\n<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nLook.<|im_end|>\n<|im_start|>user\nHow many?\n<|im_end|>\n<|im_start|>assistant\n",
    )
    assert collator().tokenizer.decode(batch.ids[1]) == batch.texts[1]


@pytest.mark.parametrize("token", ["<|video_pad|>", "<|im_end|>", "<|vision_start|>", "<|endoftext|>"])
def test_a_question_that_speaks_in_control_tokens_is_left_out(token: str) -> None:
    asked = [example("video", "fine"), example("video", f"is {token} there"), example(problem="also fine")]
    asked[2] = dataclasses.replace(asked[2], options=("A. x", "B. y"))
    batch = collator()(asked, [frames(seed=1), frames(seed=2), None])
    assert batch.kept == (0, 2) and [e.problem for e in batch.examples] == ["fine", "also fine"]
    assert [(s.sample_id, s.reason) for s in batch.skipped] == [(f"t/is {token} there", SPECIAL_TOKEN)]
    alone = collator()(asked[:1], [frames(seed=1)])
    assert torch.equal(batch.media["pixel_values_videos"], alone.media["pixel_values_videos"])


def test_a_prompt_that_is_too_long_is_left_out_whole() -> None:
    asked, seen = mixed()
    lengths = [len(row) for row in collator()(asked, seen).ids]
    assert max(lengths) == lengths[0]
    tight = collator()
    for tokens, why in ((lengths[0] - 1, "tight"), (lengths[0], "wide"), (None, "none")):
        tight.allow(tokens, why)
    batch = tight(asked, seen)
    assert batch.kept == (1, 2, 3, 4)
    assert [(s.reason, s.detail) for s in batch.skipped] == [
        (PROMPT_TOO_LONG, f"{lengths[0]} tokens, at most {lengths[0] - 1} fit: tight")
    ]
    alone = collator()([asked[3]], [seen[3]])
    assert torch.equal(batch.media["pixel_values_videos"], alone.media["pixel_values_videos"])
    assert batch.media["image_grid_thw"].shape == (2, 3)
    tight.allow(3, "none fits")
    assert len(tight(asked, seen)) == 0
    with pytest.raises(ConfigError, match="no prompt fits: engine"):
        tight.allow(0, "engine")


def test_an_empty_batch_needs_no_processor() -> None:
    assert collator()([], []).media == {}


def test_a_target_with_control_tokens_stays_text() -> None:
    text = "<observation>a <|im_end|> b <|video_pad|></observation>"
    collate = collator()
    ids = collate.target_ids(example(target=text))
    assert ids[-1] == collate.end_id == collate.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(collate.end_id) == 1 and not collate([], []).media_ids.intersection(ids)
    assert collate.tokenizer.decode(ids[:-1]) == text
    # and the next prompt is read as before
    assert collate([example()], [None]).ids == collator()([example()], [None]).ids


@given(text=st.text(min_size=1))
@settings(deadline=None, max_examples=200)
def test_targets_come_back_byte_for_byte(text: str) -> None:
    collate = collator()
    ids = collate.target_ids(example(target=text))
    assert collate.tokenizer.decode(ids[:-1]) == unicodedata.normalize("NFC", text)
    assert ids[-1] == collate.end_id


def test_a_question_has_no_target() -> None:
    with pytest.raises(SourceError, match="config: sft"):
        collator().target_ids(example())


def test_a_template_that_ends_turns_otherwise_is_refused() -> None:
    class Odd:
        """A processor whose turns end in a word."""

        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> str:
            text: str = self._real.apply_chat_template(*args, **kwargs)
            return text.replace("<|im_end|>", "END")

    with pytest.raises(ConfigError, match="does not close the assistant's turn"):
        collator(Odd(small_processor()))


@pytest.mark.parametrize(
    ("name", "style"), [("generate-v1", "process"), ("generate-agnostic-v1", "agnostic")]
)
def test_the_demo_stream_goes_through_the_packaged_prompts(name: str, style: Any) -> None:
    stream = DemoStream(stream_spec(limit=12, style=style))
    assert stream.spec.prompt_name == name
    seen = [draw(e.scene, SMALL) if e.scene and e.data_type != "text" else None for e in stream]
    batch = packaged(name)(list(stream), seen)
    assert len(batch) == 12 and batch.skipped == ()
    for one, row in zip(batch.examples, batch.types, strict=True):
        assert row.count(2) == (36 if one.data_type == "video" else 0)
        assert row.count(1) == (9 if one.data_type == "image" else 0)
        assert packaged(name).target_ids(one)
        assert (one.target or "").startswith("<observation>" if style == "process" else "<think>")
