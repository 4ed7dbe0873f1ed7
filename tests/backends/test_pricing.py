from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.backends.calls import clip_frames, image_frames, request
from videop2r_data.backends.money import (
    cost_usd,
    likely_tokens,
    max_input_tokens,
    media_tokens,
    reserve_usd,
)
from videop2r_data.schemas.calls import Usage
from videop2r_data.schemas.judges import Price

SONNET = Price(input=3.0, output=15.0, cache_read=0.3, cache_write=3.75)


def test_a_call_is_priced_by_kind_of_token() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=200, cache_read_tokens=10_000, cache_write_tokens=400)
    # 0.003 + 0.003 + 0.003 + 0.0015
    assert cost_usd(usage, SONNET, batched=False) == 0.0105
    assert cost_usd(usage, SONNET, batched=True) == 0.00525
    assert cost_usd(usage, None, batched=False) == 0.0


def test_without_a_price_a_cache_is_read_as_input_and_written_for_a_quarter_more() -> None:
    price, asked = Price(input=2.0, output=0.0), request("", max_tokens=1)
    assert cost_usd(Usage(cache_read_tokens=1_000_000), price, batched=False) == 2.0
    assert cost_usd(Usage(cache_write_tokens=1_000_000), price, batched=False) == 2.5
    written = Usage(cache_write_tokens=max_input_tokens(asked))
    assert cost_usd(written, price, batched=False) <= reserve_usd(asked, price)
    free = Price(input=2.0, output=0.0, cache_write=0.0)
    assert cost_usd(Usage(cache_write_tokens=1_000_000), free, batched=False) == 0.0


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [  # what OpenAI's guide to images and vision says of each, and bills of its users
        ("gpt-4o-2024-11-20", 128, 64, 255),
        ("openai/gpt-4o-mini", 128, 64, 8500),
        ("gpt-4o-mini", 1024, 512, 14_167),
        ("gpt-4.1-mini", 448, 224, 160),
        ("gpt-4.1-nano", 448, 224, 242),
        ("gpt-4.1-nano", 1024, 1024, 2520),
        ("o3-2025-04-16", 128, 64, 225),
        ("gpt-5", 448, 224, 210),
    ],
)
def test_a_picture_costs_no_model_of_openai_more_than_its_bound(
    model: str, width: int, height: int, tokens: int
) -> None:
    asked = request("", frames=clip_frames(16, height=height, width=width))
    assert max_input_tokens(replace(asked, model=model)) >= 16 * tokens > 16 * width * height / 750


def test_decimal_prices_are_exact() -> None:
    usage = Usage(input_tokens=3, output_tokens=0)
    assert cost_usd(usage, Price(input=0.1, output=0), batched=False) == 3e-7


def test_media_tokens_follow_the_patch_rule() -> None:
    assert media_tokens(clip_frames(16, height=224, width=448).record) == 8 * 16 * 8
    assert media_tokens(clip_frames(5, height=56, width=56).record) == 3 * 4
    assert media_tokens(clip_frames(5, height=56, width=56).record, paired=False) == 5 * 4
    assert media_tokens(image_frames(height=60, width=56).record) == 3 * 2  # a partial patch counts


def test_bounds_by_hand() -> None:
    frames = image_frames(height=280, width=280)
    asked = request("é" * 10, system="abc", frames=frames, max_tokens=100)
    # 20 + 64 bytes, 3 + 64 bytes, 78400 pixels / 750 = 104.5 -> 105, + 32
    assert max_input_tokens(asked) == 84 + 67 + 137
    # dearest prompt price 3.75: 288 * 3.75 + 100 * 15 = 2580 per million
    assert reserve_usd(asked, SONNET) == 0.00258
    assert reserve_usd(asked, SONNET, batched=True) == 0.00129
    assert reserve_usd(asked, None) == 0.0
    assert likely_tokens(asked) == 13 // 4 + 100 + 100


@settings(deadline=None)
@given(
    text=st.text(max_size=200),
    tokens=st.integers(1, 4000),
    price=st.builds(Price, input=st.floats(0, 100), output=st.floats(0, 100)),
    share=st.floats(0, 1),
)
@example(text="", tokens=1, price=Price(input=0, output=1e-7), share=1.0)  # less than the last place
def test_a_reserve_is_never_below_the_cost(text: str, tokens: int, price: Price, share: float) -> None:
    asked = request(text, max_tokens=tokens)
    used = Usage(input_tokens=int(len(text.encode()) * share), output_tokens=int(tokens * share))
    assert cost_usd(used, price, batched=False) <= reserve_usd(asked, price)
