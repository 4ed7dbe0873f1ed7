"""Which frames and how large: hand-worked values, then properties."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from videop2r_data.errors import MediaError
from videop2r_data.media import smart_resize, uniform_indices

sides = st.integers(1, 6000)


@pytest.mark.parametrize(
    ("total", "n", "expected"),
    [
        (1, 1, [0]),
        (1, 16, [0]),
        (3, 16, [0, 1, 2]),
        (16, 16, list(range(16))),
        (10, 4, [0, 3, 6, 9]),
        (5, 1, [2]),
        (6, 1, [2]),
        (100, 2, [0, 99]),
        # 0, 2.5, 5: the half goes to the even neighbour.
        (6, 3, [0, 2, 5]),
        # 0, 3.5, 7
        (8, 3, [0, 4, 7]),
        (491, 16, [0, 33, 65, 98, 131, 163, 196, 229, 261, 294, 327, 359, 392, 425, 457, 490]),
    ],
)
def test_indices_by_hand(total: int, n: int, expected: list[int]) -> None:
    assert uniform_indices(total, n) == expected


@given(total=st.integers(1, 3_000_000), n=st.integers(1, 300))
@settings(deadline=None)
def test_indices_rise_and_reach_both_ends(total: int, n: int) -> None:
    indices = uniform_indices(total, n)
    assert len(indices) == min(total, n)
    assert all(a < b for a, b in pairwise(indices))
    assert indices[0] >= 0
    assert indices[-1] < total
    if n > 1:
        assert (indices[0], indices[-1]) == (0, total - 1)
        steps = np.diff(indices)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1


@given(total=st.integers(2, 5000), n=st.integers(2, 128))
@settings(deadline=None)
def test_indices_equal_rounded_linspace(total: int, n: int) -> None:
    assume(total > n)
    exact = np.linspace(0, total - 1, n)
    # Where the float stands next to a half, its own error decides; the integers are right there.
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-6
    ours = np.array(uniform_indices(total, n))
    assert (ours[clear] == np.round(exact)[clear]).all()


@pytest.mark.parametrize(("total", "n"), [(0, 4), (4, 0), (-1, 1)])
def test_indices_refuse_nothing(total: int, n: int) -> None:
    with pytest.raises(ValueError, match="needs total"):
        uniform_indices(total, n)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (224, 224, (224, 224)),
        # 640x360 is 2.2960 times the budget (ratio 1.5153): 237.6 -> 224, 422.4 -> 420.
        (360, 640, (224, 420)),
        (640, 360, (420, 224)),
        # Below the minimum: ratio sqrt(4*784/1) = 56.
        (1, 1, (56, 56)),
        (60, 100, (56, 112)),
        # Half to even: 42/28 = 1.5 -> 2, 70/28 = 2.5 -> 2.
        (42, 70, (56, 56)),
        # A strip: the original rule would give 28 x 4480 (125,440 pixels, budget 100,352).
        (25, 5000, (28, 3584)),
    ],
)
def test_sizes_by_hand(height: int, width: int, expected: tuple[int, int]) -> None:
    assert smart_resize(height, width, min_pixels=4 * 784, max_pixels=128 * 784) == expected


@given(
    height=sides,
    width=sides,
    factor=st.sampled_from([14, 28, 32]),
    low=st.integers(1, 400),
    high=st.integers(1, 1000),
)
@settings(deadline=None, max_examples=500)
def test_sizes_fit_factor_and_budget(height: int, width: int, factor: int, low: int, high: int) -> None:
    assume(max(height, width) <= 200 * min(height, width))
    area = factor * factor
    tall, wide = smart_resize(height, width, factor=factor, min_pixels=low * area, max_pixels=high * area)
    assert (tall % factor, wide % factor) == (0, 0)
    assert max(tall, wide) <= 200 * min(tall, wide)
    assert min(tall, wide) >= factor
    assert tall * wide <= high * area
    # Turning the picture turns the result.
    assert smart_resize(width, height, factor=factor, min_pixels=low * area, max_pixels=high * area) == (
        wide,
        tall,
    )
    # The result is stable: scaling what has been scaled changes nothing, unless it is below the minimum.
    if low <= high and tall * wide >= low * area:
        again = smart_resize(tall, wide, factor=factor, min_pixels=low * area, max_pixels=high * area)
        assert again == (tall, wide)


def test_a_line_is_refused() -> None:
    assert smart_resize(1, 200, min_pixels=1, max_pixels=784 * 400) == (28, 196)
    with pytest.raises(MediaError, match="more than 200 times") as caught:
        smart_resize(1, 201, min_pixels=1, max_pixels=784)
    assert caught.value.reason == "media_too_large"


@pytest.mark.parametrize("bad", [(0, 10, 28, 784), (10, 0, 28, 784), (10, 10, 0, 784), (10, 10, 28, 783)])
def test_impossible_sizes(bad: tuple[int, int, int, int]) -> None:
    height, width, factor, most = bad
    with pytest.raises(ValueError, match="no size fits"):
        smart_resize(height, width, factor=factor, min_pixels=1, max_pixels=most)
