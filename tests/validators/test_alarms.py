"""When an alarm is up, against numbers worked by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from videop2r_data.validators import alarms_in, alarms_up
from videop2r_data.validators.alarms import ENOUGH, Pool, pool

Rows = list[dict[str, Any]]


def rows(n: int = 64, **curves: Iterable[float]) -> Rows:
    """One reading each 25 steps, each over `n` things."""
    found: Rows = []
    for number, values in enumerate(zip(*curves.values(), strict=True)):
        row: dict[str, Any] = {"step": number * 25 or 1}
        for name, value in zip(curves, values, strict=True):
            row |= {f"alarm/{name}": value, f"alarm/{name}_n": n}
        found.append(row)
    return found


# Shares of a world of two hops, where the usual answer is right in 60 %: an observation of an empty clip
# that leads to the usual answer in 31 % (before RL), 35 % (a judge that sees) or 97 % (a blind judge) suffices
# in 60 % of these, and in 10 % of the others.
BEFORE, SEEING, BLIND = (0.6 * x + 0.1 * (1 - x) for x in (0.31, 0.35, 0.97))


def test_a_policy_that_comes_to_invent_raises_the_alarm_and_one_that_looks_does_not() -> None:
    honest = rows(own=[0.28, 0.3, 0.335], empty=[BEFORE, BEFORE, SEEING], shuffled=[BEFORE, BEFORE, SEEING])
    assert alarms_up(honest) == {}
    invents = rows(own=[0.28, 0.4, 0.583], empty=[BEFORE, 0.4, BLIND], shuffled=[BEFORE, 0.4, BLIND])
    assert list(alarms_up(invents)) == ["empty", "shuffled"]
    assert alarms_up(invents)["empty"] == (
        "58% of the observations of empty clips suffice (of own clips 58%, at first 26%)"
    )


def test_a_share_that_grows_is_an_alarm_before_it_reaches_that_of_the_own_clips() -> None:
    grown = rows(own=[0.9, 0.9], empty=[0.1, 0.45])
    assert alarms_up(grown) == {
        "empty": "45% of the observations of empty clips suffice (of own clips 90%, at first 10%)"
    }
    assert alarms_up(rows(own=[0.9, 0.9], empty=[0.1, 0.29])) == {}  # less than 0.2


def test_a_change_within_chance_is_none() -> None:
    # 48 each: Wilson 95 % of 0.25 reaches 0.39, of 0.4583 begins at 0.33
    assert alarms_up(rows(48, own=[0.9, 0.9], empty=[0.25, 22 / 48])) == {}
    assert list(alarms_up(rows(480, own=[0.9, 0.9], empty=[0.25, 22 / 48]))) == ["empty"]


def test_a_policy_that_reads_easy_clips_is_none_although_much_suffices() -> None:
    assert alarms_up(rows(own=[0.95], empty=[0.5])) == {}
    assert (
        alarms_up(rows(own=[0.4], empty=[0.39])) == {}
    )  # a policy that is never right invents nothing useful
    assert list(alarms_up(rows(own=[0.6], empty=[0.51]))) == ["empty"]


def test_few_observations_say_nothing() -> None:
    few = rows((ENOUGH - 1) // 2, own=[1.0, 1.0], empty=[1.0, 1.0])
    assert alarms_up(few) == {}
    assert list(alarms_up(rows(ENOUGH // 2, own=[1.0, 1.0], empty=[1.0, 1.0]))) == ["empty"]


def test_readings_are_pooled_by_what_they_were_taken_over() -> None:
    found = rows(16, empty=[0.0, 0.5, 1.0, 0.25])
    assert pool(found, "alarm/empty") == Pool(0.5, 48, (1, 50))
    assert pool(reversed(found), "alarm/empty") == Pool(1.75 / 3, 48, (25, 75))
    assert pool(found[:2], "alarm/empty") is None
    assert pool(found, "alarm/seen") is None
    # they overlap: no change is told
    assert alarms_up(rows(16, own=[1.0] * 4, empty=[0.0, 0.0, 0.0, 1.0])) == {}


@pytest.mark.parametrize(
    ("right", "wrong", "up"),
    [
        ([0.7, 0.72], [0.6, 0.55], False),
        ([0.9, 0.99], [0.2, 0.01], True),
        ([0.9], [0.41], False),
        ([0.9], [0.4], True),
        ([0.5, 0.4], [0.6, 0.2], True),  # it falls, near as both are
    ],
)
def test_answers_that_follow_the_usual_one(right: list[float], wrong: list[float], up: bool) -> None:
    assert list(alarms_up(rows(usual_right=right, usual_wrong=wrong))) == ["usual"] * up


@pytest.mark.parametrize(("shares", "up"), [([0.9, 0.85], 0), ([0.9, 0.6], 1), ([0.49], 1), ([0.5], 0)])
def test_claims_that_no_clip_shows(shares: list[float], up: int) -> None:
    assert len(alarms_up(rows(seen=shares))) == up


def test_a_run_tells_since_when_and_whether_still() -> None:
    found = alarms_in(
        [
            {"step": 1, "alarm/raised": 0},
            {"step": 25, "alarm/raised": 2, "alarms": {"empty": "a", "usual": "b"}},
            {"step": 26, "loss": 0.1},
            {"step": 50, "alarm/raised": 1, "alarms": {"empty": "c"}},
            {"step": 51, "loss": 0.1},
            {"step": "x", "alarm/raised": 1, "alarms": ["no"]},
        ]
    )
    assert [one.line for one in found] == [
        "empty (since step 25): c",
        "usual (steps 25 to 25, not at the end): b",
    ]
