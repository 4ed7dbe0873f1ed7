"""Padding, completions and slices: small batches by hand."""

from __future__ import annotations

import pytest
import torch

from tests.trainer.data.parts import example
from videop2r_data.trainer.data.batch import PromptBatch, owners, select_media

PAD, IMG, VID = 0, 8, 9


def batch() -> PromptBatch:
    """Text, a picture of 2 tokens, a clip of 2 frames with 1 token each; 4 patches to a token."""
    return PromptBatch(
        examples=tuple(example(problem=name) for name in "abc"),
        frames=(None, None, None),
        texts=("a", "b", "c"),
        ids=[[1], [2, IMG, IMG, 3], [VID, 4, VID]],
        types=[[0], [0, 1, 1, 0], [2, 0, 2]],
        media={
            "image_grid_thw": torch.tensor([[1, 2, 4]]),
            "pixel_values": torch.arange(16.0).reshape(8, 2),
            "video_grid_thw": torch.tensor([[2, 2, 2]]),
            "pixel_values_videos": torch.arange(8.0).reshape(8, 1),
            "second_per_grid_ts": torch.tensor([0.5]),
        },
        kept=(0, 1, 2),
        pad_id=PAD,
        media_ids=frozenset({IMG, VID}),
    )


def test_prompts_for_generation_are_padded_on_the_left_and_repeated_in_a_row() -> None:
    out = batch().for_generation(2)
    assert out["input_ids"].tolist() == [
        [0, 0, 0, 1], [0, 0, 0, 1], [2, 8, 8, 3], [2, 8, 8, 3], [0, 9, 4, 9], [0, 9, 4, 9]
    ]  # fmt: skip
    assert out["attention_mask"].tolist()[::2] == [[0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]]
    assert out["mm_token_type_ids"].tolist()[::2] == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 2, 0, 2]]


def test_completions_follow_their_prompt_and_are_padded_on_the_right() -> None:
    inputs = batch().with_completions([[5], [6, 7], [], [5], [6], [7, 7]], 2)
    assert inputs.input_ids.tolist() == [
        [1, 5, 0, 0, 0], [1, 6, 7, 0, 0], [2, 8, 8, 3, 0], [2, 8, 8, 3, 5], [9, 4, 9, 6, 0], [9, 4, 9, 7, 7]
    ]  # fmt: skip
    assert inputs.attention_mask.sum(-1).tolist() == [2, 3, 4, 5, 4, 5]
    assert inputs.starts.tolist() == [1, 1, 4, 4, 3, 3]
    assert inputs.lengths.tolist() == [1, 2, 0, 1, 1, 2]
    assert inputs.types.tolist()[3] == [0, 1, 1, 0, 0]
    assert inputs.repeat == 2 and set(inputs.media) == set(batch().media)


def test_a_slice_has_the_media_of_its_prompts_and_no_more_padding_than_it_needs() -> None:
    inputs = batch().with_completions([[5], [6, 7], [], [5], [6], [7, 7]], 2)
    text, picture, clip = (inputs.rows(lo, lo + 2) for lo in (0, 2, 4))
    assert text.input_ids.tolist() == [[1, 5, 0], [1, 6, 7]] and text.media == {}
    assert set(picture.media) == {"image_grid_thw", "pixel_values"}
    assert picture.media["pixel_values"].shape == (8, 2)
    assert clip.media["second_per_grid_ts"].tolist() == [0.5]
    assert clip.media["pixel_values_videos"].shape == (8, 1)
    both = inputs.rows(2, 6)
    assert set(both.media) == set(inputs.media) and both.starts.tolist() == [4, 4, 3, 3]
    assert inputs.rows(0, 6).input_ids.tolist() == inputs.input_ids.tolist()


@pytest.mark.parametrize(("lo", "hi"), [(0, 1), (1, 3), (0, 8), (2, 2), (-2, 2)])
def test_a_slice_never_cuts_a_group(lo: int, hi: int) -> None:
    with pytest.raises(ValueError, match="whole groups of 2"):
        batch().with_completions([[5]] * 6, 2).rows(lo, hi)


def test_a_completion_that_claims_to_be_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"completion 1 holds media tokens \[9\]"):
        batch().with_completions([[5], [VID], [5]], 1)


@pytest.mark.parametrize(("count", "repeat"), [(2, 1), (3, 2), (0, 1), (3, 0)])
def test_completions_and_prompts_must_fit(count: int, repeat: int) -> None:
    with pytest.raises(ValueError, match="for 3 prompts"):
        batch().with_completions([[5]] * count, repeat)


def test_a_prompt_may_have_several_pictures() -> None:
    grids = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 4, 2]])
    assert owners(grids, [3, 0, 2]) == [0, 0, 2]
    media = {"image_grid_thw": grids, "pixel_values": torch.arange(20.0)[:, None]}
    picked = select_media(media, {1: [3, 0, 2], 2: [0, 0, 0]}, [2])
    assert picked["image_grid_thw"].tolist() == [[1, 4, 2]]
    assert picked["pixel_values"][:, 0].tolist() == [12.0, 13, 14, 15, 16, 17, 18, 19]


@pytest.mark.parametrize("tokens", [[2, 3], [2, 2], [5, 1], [0, 0]])
def test_tokens_that_do_not_fit_the_grids_are_an_error(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="media tokens"):
        owners(torch.tensor([[1, 2, 2], [1, 2, 8]]), tokens)


def test_an_empty_batch_is_a_batch() -> None:
    none = PromptBatch((), (), (), [], [], {})
    assert len(none) == 0 and none.for_generation(4)["input_ids"].shape == (0, 0)
    inputs = none.with_completions([], 4)
    assert inputs.input_ids.shape == (0, 0) and inputs.to("cpu").starts.shape == (0,)
