from __future__ import annotations

from collections import Counter
from math import isclose

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.validators.agreement import count_confusion, kappa_of_clips, measure_agreement
from videop2r_data.validators.estimate import Confusion, wilson


def confusion(tp: int, fp: int, fn: int, tn: int) -> Confusion:
    return Confusion(true_positive=tp, false_positive=fp, false_negative=fn, true_negative=tn)


def test_two_hundred_labels_by_hand() -> None:
    # 87 + 103 of 200 agree. Labels: 91 yes, 109 no; judge: 93 yes, 107 no.
    # By chance (91 * 93 + 109 * 107) / 200^2 = 20126 / 40000, so kappa = (38000 - 20126) / (40000 - 20126).
    found = measure_agreement(confusion(87, 6, 4, 103))
    assert found.agreement.value == 0.95
    assert found.kappa.value is not None and isclose(found.kappa.value, 17874 / 19874)
    assert (found.precision.value, found.recall.value, found.specificity.value) == (
        87 / 93,
        87 / 91,
        103 / 109,
    )


def test_the_interval_of_kappa_with_many_items_is_that_of_its_standard_error() -> None:
    # Both sides say yes half of the time and agree in 90 %: chance is exactly 1/2, kappa = 2 * 0.9 - 1, and
    # its standard error that of the agreement over (1 - 1/2): 2 * sqrt(0.9 * 0.1 / n), for n = 10,000: 0.006.
    kappa = measure_agreement(confusion(4500, 500, 500, 4500)).kappa
    assert kappa.value is not None and kappa.low is not None and kappa.high is not None
    assert isclose(kappa.value, 0.8)
    assert isclose(kappa.low, 0.8 - 1.96 * 0.006, abs_tol=0.001)
    assert isclose(kappa.high, 0.8 + 1.96 * 0.006, abs_tol=0.001)


@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize(
    ("agree", "yes_of_equal", "yes_of_unequal"),
    [(0.9, 0.5, 0.5), (0.8, 0.8, 0.5), (0.95, 0.2, 0.8)],
)
def test_the_interval_of_kappa_holds_for_few_items(
    n: int, agree: float, yes_of_equal: float, yes_of_unequal: float
) -> None:
    """Simulated: the interval of the large-sample standard error covers 22 % at 10 items, 46 % at 20."""
    rng = np.random.default_rng(n)
    unequal = 1 - agree
    p = [
        agree * yes_of_equal,
        unequal * (1 - yes_of_unequal),
        unequal * yes_of_unequal,
        agree * (1 - yes_of_equal),
    ]
    label, judge = p[0] + p[2], p[0] + p[1]
    chance = label * judge + (1 - label) * (1 - judge)
    truth = (agree - chance) / (1 - chance)
    draws = Counter(map(tuple, rng.multinomial(n, p, size=150).tolist()))
    covered = total = 0
    for (tp, fp, fn, tn), times in draws.items():
        figures = measure_agreement(confusion(tp, fp, fn, tn))
        found = figures.kappa
        if found.low is not None and found.high is not None and not figures.too_few:
            covered += times * (found.low <= truth <= found.high)
            total += times
    assert covered / total >= 0.85


@pytest.mark.parametrize("each", [1, 6])
def test_the_interval_of_kappa_counts_clips_and_not_their_questions(each: int) -> None:
    """Whether two raters agree depends on the clip: of six questions about one, five tell little more."""
    rng = np.random.default_rng(5)
    covered = forgotten = 0
    for _ in range(200):
        agrees = rng.beta(0.4, 0.1, size=40).repeat(each)  # 0.8 on average, so kappa is 0.6
        yes = rng.random(40 * each) < 0.5
        other = yes == (rng.random(40 * each) < agrees)
        pairs = list(zip(yes.tolist(), other.tolist(), strict=True))
        plain = measure_agreement(count_confusion(pairs)).kappa
        found = kappa_of_clips(pairs, [str(i // each) for i in range(40 * each)])
        assert found.low is not None and found.high is not None and found.value == plain.value
        assert plain.low is not None and plain.high is not None and (each > 1 or found == plain)
        covered += found.low <= 0.6 <= found.high
        forgotten += plain.low <= 0.6 <= plain.high
    assert covered / 200 >= 0.91
    assert each == 1 or forgotten / 200 < 0.8


def test_copies_of_a_clip_tell_nothing_of_kappa() -> None:
    once = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 3 + [(False, False)] * 22
    alone = measure_agreement(count_confusion(once)).kappa
    copied = kappa_of_clips([pair for pair in once for _ in range(4)], [str(i // 4) for i in range(200)])
    assert alone.low is not None and alone.high is not None and copied.value == alone.value
    assert copied.low is not None and copied.high is not None
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.03)
    perfect = kappa_of_clips([(True, True), (False, False)] * 50, [str(i // 20) for i in range(100)])
    assert perfect.high == 1.0 and perfect.low is not None and perfect.low < 0.7, "five clips, not a hundred"


def test_two_labels_are_too_few_and_their_interval_says_so() -> None:
    found = measure_agreement(confusion(1, 0, 0, 1))
    assert found.too_few and found.kappa.low is not None and found.kappa.high == 1.0
    assert found.kappa.low < 0.0
    apart = measure_agreement(confusion(0, 1, 1, 0)).kappa
    assert apart.low is not None and apart.high is not None and apart.high - apart.low > 1.0
    assert measure_agreement(confusion(30, 0, 0, 0)).too_few, "one side says only one thing"
    assert not measure_agreement(confusion(30, 2, 3, 30)).too_few


def test_wilson_at_the_edges() -> None:
    # 0 of n: the upper end is z^2 / (n + z^2)
    z2 = 1.959963984540054**2
    none, every = wilson(0, 10), wilson(10, 10)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high is not None and isclose(none.high, z2 / (10 + z2))
    assert every.high == 1.0 and every.low is not None and isclose(every.low, 10 / (10 + z2))


@pytest.mark.parametrize("one_sided", [(5, 0, 0, 0), (0, 0, 0, 5), (0, 0, 0, 0)])
def test_what_is_not_defined_is_none(one_sided: tuple[int, int, int, int]) -> None:
    found = measure_agreement(confusion(*one_sided))
    assert found.kappa.value is None
    assert (found.agreement.value is None) == (sum(one_sided) == 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_counts_and_intervals_hold(pairs: list[tuple[bool, bool]]) -> None:
    counted = count_confusion(pairs)
    assert counted.total == len(pairs)
    found = measure_agreement(counted)
    for figure in (found.agreement, found.kappa, found.precision, found.recall, found.specificity):
        if figure.value is not None:
            assert figure.low is not None and figure.high is not None
            assert figure.low <= figure.value <= figure.high
    if pairs:
        assert found.agreement.value == sum(a == b for a, b in pairs) / len(pairs)
