"""Where the text behind a picture or a clip goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from videop2r_data.backends.chat_input import number_behind_clips

torch = pytest.importorskip("torch")
TEXT, IMAGE, VIDEO = 0, 1, 2


def net(positions: list[list[int]], family: str = "qwen2_5_vl") -> SimpleNamespace:
    """A model that numbers its one prompt like this."""

    def get_rope_index(input_ids: Any, **_: Any) -> tuple[Any, Any]:
        numbers = torch.tensor(positions)[:, None]
        return numbers, torch.tensor([[int(numbers.max()) + 1 - input_ids.shape[1]]])

    inner = SimpleNamespace(get_rope_index=get_rope_index)
    return SimpleNamespace(config=SimpleNamespace(model_type=family), model=inner)


def numbered(model: SimpleNamespace, kinds: list[int]) -> tuple[list[list[int]], int]:
    number_behind_clips(model)
    row = torch.tensor([kinds])
    positions, delta = model.model.get_rope_index(torch.zeros_like(row), mm_token_type_ids=row)
    return positions[:, 0].tolist(), int(delta)


def test_text_goes_on_behind_the_last_time_of_a_long_clip() -> None:
    kinds = [TEXT, TEXT, VIDEO, VIDEO, VIDEO, TEXT, TEXT]
    # Three frames of one token, 10 positions apart; the library goes on at 2 + 1.
    given = [[0, 1, 2, 12, 22, 3, 4], [0, 1, 2, 2, 2, 3, 4], [0, 1, 2, 2, 2, 3, 4]]
    right = [[0, 1, 2, 12, 22, 23, 24], [0, 1, 2, 2, 2, 23, 24], [0, 1, 2, 2, 2, 23, 24]]
    assert numbered(net(given), kinds) == (right, 25 - 7)


def test_a_second_clip_moves_with_the_text_before_it() -> None:
    kinds = [VIDEO, VIDEO, TEXT, VIDEO, VIDEO, TEXT]
    given = [[0, 8, 1, 2, 10, 3], [0, 0, 1, 2, 2, 3], [0, 0, 1, 2, 2, 3]]
    right = [[0, 8, 9, 10, 18, 19], [0, 0, 9, 10, 10, 19], [0, 0, 9, 10, 10, 19]]
    assert numbered(net(given), kinds) == (right, 20 - 6)


def test_what_is_right_stays() -> None:
    kinds = [TEXT, IMAGE, IMAGE, TEXT]  # 1 x 2 tokens
    given = [[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]]
    assert numbered(net(given), kinds) == (given, 0)
    clip = [[0, 5, 1]] * 3
    assert numbered(net(clip, family="other"), [VIDEO, VIDEO, TEXT]) == (clip, 6 - 3)
