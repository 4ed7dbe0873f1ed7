"""Differences: published values, values by hand, and that chance is called chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.schemas import Aggregate
from videop2r_data.validators import ScoredRow, aggregate, compare_pair, holm, mcnemar

MEAN = Aggregate(id="mean")
MACRO = Aggregate(id="macro", how="macro", by="task")


def _rows(scores: Sequence[float], per_clip: int = 1) -> list[ScoredRow]:
    return [
        ScoredRow(float(s), {"task": "ab"[i % 2]}, "multiple choice", f"c{i // per_clip}", i)
        for i, s in enumerate(scores)
    ]


# --- McNemar


def test_published_examples() -> None:
    # Fagerland, Lydersen and Laake, BMC Medical Research Methodology 2013: hyperresponsiveness before and after
    # (1 against 7), complete response (6 against 16).
    assert (round(mcnemar(1, 7), 3), round(mcnemar(6, 16), 3)) == (0.070, 0.052)


@given(st.integers(0, 400), st.integers(0, 400))
def test_exact_p_is_the_binomial_tail(better: int, worse: int) -> None:
    n, k = better + worse, min(better, worse)
    tail = sum(comb(n, i) for i in range(k + 1))
    assert mcnemar(better, worse) == mcnemar(worse, better) == min(1.0, 2 * tail / 2**n)


def test_many_flips_are_no_trouble() -> None:
    assert mcnemar(8000, 8000) == 1.0
    assert mcnemar(7500, 8500) < 1e-12


# --- Holm


def test_holm_by_hand() -> None:
    # 4 comparisons: 4 · 0.005, 3 · 0.011, 2 · 0.02, 1 · 0.04, and none below the one before it
    assert holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_order_and_never_makes_a_p_smaller(ps: list[float]) -> None:
    found = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, found, strict=True))
    ranked = [found[i] for i in sorted(range(len(ps)), key=lambda i: ps[i])]
    assert ranked == sorted(ranked)


# --- differences of a protocol


def test_a_difference_by_hand() -> None:
    a, b = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    found = compare_pair(MEAN, _rows(a), _rows(b))
    assert found is not None
    assert (found.a, found.b, found.difference) == pytest.approx((0.2, 0.8, 0.6))
    assert (found.better, found.worse, found.n, found.clips) == (7, 1, 10, 10)
    assert found.mcnemar_p == pytest.approx(18 / 256)
    # of 2^8 ways to swap eight flips, 18 give six of ten or more
    assert found.p == pytest.approx(18 / 256, abs=0.02) and found.verdict == "not shown"
    assert found.low <= 0.6 <= found.high


def test_values_are_those_of_the_protocol() -> None:
    rng = random.Random(2)
    a, b = ([rng.choice([0, 0.3, 1]) for _ in range(60)] for _ in range(2))
    found = compare_pair(MACRO, _rows(a, 5), _rows(b, 5))
    alone = [aggregate(MACRO, _rows(scores, 5)) for scores in (a, b)]
    assert found is not None and alone[0] is not None and alone[1] is not None
    assert (found.a, found.b) == pytest.approx((alone[0].value, alone[1].value))


def test_the_other_way_round_is_the_same_difference_with_another_sign() -> None:
    rng = random.Random(4)
    a, b = ([float(rng.random() < 0.5) for _ in range(200)] for _ in range(2))
    there, back = compare_pair(MEAN, _rows(a, 4), _rows(b, 4)), compare_pair(MEAN, _rows(b, 4), _rows(a, 4))
    assert there is not None and back is not None
    assert there.difference == -back.difference and (there.better, there.worse) == (back.worse, back.better)
    assert there.p == back.p
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_both_are_drawn_with_the_same_clips() -> None:
    rng = random.Random(6)
    base = [rng.choice([0.0, 0.75]) for _ in range(20) for _ in range(3)]
    found = compare_pair(MEAN, _rows(base, 3), _rows([one + 0.25 for one in base], 3))
    assert found is not None and found.low == pytest.approx(0.25) == found.high, "whatever clips are drawn"
    # and a clip with all of its questions: two clips, of which the second wins one, so a draw has none, one or both
    two = compare_pair(MEAN, _rows([0.0] * 6, 3), _rows([0.0] * 3 + [1.0] * 3, 3))
    assert two is not None and (two.low, two.high, two.clips) == (0.0, 1.0, 2) and two.p > 0.3


def test_equal_answers_show_nothing() -> None:
    rows = _rows([1, 0, 1, 1])
    found = compare_pair(MEAN, rows, rows)
    assert found is not None
    assert (found.difference, found.low, found.high, found.p, found.verdict) == (0, 0, 0, 1.0, "not shown")
    assert compare_pair(MEAN, [], []) is None


def test_rows_are_paired_by_their_place_and_must_be_the_same_questions() -> None:
    rows = _rows([1, 0, 1, 1, 0])
    shuffled = random.Random(1).sample(rows, 5)
    found = compare_pair(MEAN, rows, shuffled)
    assert found is not None and (found.better, found.worse) == (0, 0)
    with pytest.raises(ValueError, match="5 and 4 questions"):
        compare_pair(MEAN, rows, rows[:4])
    other = [row._replace(clip="elsewhere") for row in rows]
    with pytest.raises(ValueError, match="not the same"):
        compare_pair(MEAN, rows, other)


def test_groups_are_compared_by_group() -> None:
    spec = Aggregate(id="g", how="groups", by="g", curve="relevance")
    rows = [ScoredRow(1.0, {"g": str(i // 4)}, "multiple choice", str(i // 4), i) for i in range(40)]
    worse = [row._replace(score=float(row.order % 4 > 0)) for row in rows]
    found = compare_pair(spec, rows, worse)
    assert found is not None and found.difference == pytest.approx(9 / 16 - 1)
    assert (found.better, found.worse, found.n) == (0, 10, 40) and found.verdict == "real"


def test_five_changes_the_same_way_are_too_few_and_eight_are_not() -> None:
    base = [0.0] * 40
    few, many = ([1.0] * k + [0.0] * (40 - k) for k in (5, 8))
    shown = [compare_pair(MEAN, _rows(base), _rows(other)) for other in (few, many)]
    assert [one and one.verdict for one in shown] == ["not shown", "real"]


def _two_equal_models(rng: np.random.Generator, clips: int, each: int) -> tuple[list[float], list[float]]:
    """Answers of two models that are equally good, on clips that each finds easy or hard in its own way."""
    shared = rng.normal(size=clips)
    found = []
    for _ in range(2):
        ease = 1 / (1 + np.exp(-(shared + 1.2 * rng.normal(size=clips))))
        found.append((rng.random((clips, each)) < ease[:, None]).astype(float).ravel().tolist())
    return found[0], found[1]


@pytest.mark.parametrize("spec", [MEAN, MACRO], ids=["mean", "macro"])
@pytest.mark.parametrize("clips", [12, 60])
def test_chance_is_called_real_once_in_twenty_times(spec: Aggregate, clips: int) -> None:
    rng = np.random.default_rng(7)
    found = [
        compare_pair(spec, _rows(a, 6), _rows(b, 6), resamples=199)
        for a, b in (_two_equal_models(rng, clips, 6) for _ in range(500))
    ]
    real = sum(one is not None and one.verdict == "real" for one in found) / 500
    assert 0.025 <= real <= 0.08
    # who forgets the clips finds twice as many
    naive = sum(one is not None and one.mcnemar_p < 0.05 for one in found) / 500
    assert naive > 1.6 * real
    held = sum(one is not None and one.low <= 0 <= one.high for one in found) / 500
    assert held >= (0.85 if clips == 12 else 0.91)


def test_a_family_of_comparisons_is_judged_together() -> None:
    rng = np.random.default_rng(12)
    false = 0
    for _ in range(60):
        family = []
        for _ in range(8):
            a, b = (rng.random(60) < 0.5 for _ in range(2))
            one = compare_pair(MEAN, _rows(a.tolist()), _rows(b.tolist()), resamples=399)
            assert one is not None
            family.append(one)
        judged = [
            one.model_copy(update={"p_holm": p})
            for one, p in zip(family, holm([one.p for one in family]), strict=True)
        ]
        false += any(one.verdict == "real" for one in judged)
    assert false <= 9  # 5 % of 60 are 3


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=30))
def test_every_difference_lies_in_its_range(rows: list[tuple[float, float, int]]) -> None:
    a, b = (
        [
            ScoredRow(row[k], {"task": "ab"[row[2] % 2]}, "numerical", f"c{row[2]}", i)
            for i, row in enumerate(rows)
        ]
        for k in (0, 1)
    )
    for spec in (MEAN, MACRO):
        found = compare_pair(spec, a, b, resamples=99)
        assert found is not None and found.n == len(rows) >= found.clips
        assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
        assert found.p >= 1 / 100
