from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.validators import estimate_mean as mean
from videop2r_data.validators import estimate_share as share


def test_wilson_by_hand() -> None:
    # p = 0.3, n = 10, z = 1.959964: (0.3 + 0.192073 +- 1.959964 sqrt(0.021 + 0.00960365)) / 1.384146
    found = share(3, 10)
    assert found is not None
    assert found.low == pytest.approx(0.10779, abs=1e-5)
    assert found.high == pytest.approx(0.60322, abs=1e-5)
    assert (found.value, found.n, found.method) == (0.3, 10, "wilson")


def test_nothing_and_everything() -> None:
    none, every = share(0, 20), share(20, 20)
    assert none is not None and every is not None
    assert none.low == 0.0 and none.high == pytest.approx(0.16113, abs=1e-5)
    assert every.high == 1.0 and every.low == pytest.approx(1 - 0.16113, abs=1e-5)
    assert share(0, 0) is None and mean([]) is None


def test_a_mean_of_zeros_and_ones_is_a_share() -> None:
    assert mean([1.0, 0.0, 1.0, 1.0]) == share(3, 4)


def test_the_bootstrap_is_that_of_its_seed_and_covers_the_mean() -> None:
    values = [0.1, 0.5, 0.9, 0.4]
    found = mean(values, seed=1)
    assert found is not None and found.method == "bootstrap"
    assert found == mean(values, seed=1)
    assert found.value == pytest.approx(0.475)
    assert 0.1 <= found.low < 0.475 < found.high <= 0.9


def test_the_bootstrap_of_many_values_is_the_normal_interval() -> None:
    # 10,000 values 0.25 and 0.75 in equal parts: standard error 0.25 / 100, so 1.96 of it is 0.0049
    found = mean([0.25, 0.75] * 5000)
    assert found is not None
    assert found.low == pytest.approx(0.5 - 0.0049, abs=5e-4)
    assert found.high == pytest.approx(0.5 + 0.0049, abs=5e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 500), st.floats(0, 1), st.floats(0.6, 0.999))
def test_an_interval_holds_its_value_and_grows_with_its_level(n: int, p: float, level: float) -> None:
    hits = round(p * n)
    found, wide = share(hits, n, level=level), share(hits, n, level=0.9995)
    assert found is not None and wide is not None
    assert 0 <= wide.low <= found.low <= found.value <= found.high <= wide.high <= 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_a_bootstrap_interval_lies_within_the_values(values: list[float]) -> None:
    found = mean(values, resamples=100)
    assert found is not None
    if found.method == "bootstrap":
        assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
