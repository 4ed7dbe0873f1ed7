"""Metrics at their edges, by hand."""

from __future__ import annotations

import pytest

from videop2r_data.validators.metrics import mean_relative_accuracy
from videop2r_data.validators.scorer import extract_answer


@pytest.mark.parametrize(
    ("prediction", "value"),
    [
        (1.5, 0.1),  # an error of exactly 1 - 0.5 counts at the threshold 0.5, and at no other
        (0.5, 0.1),
        (1.475, 0.1),  # between the first two of the thresholds 0.5, 0.55 ... 0.95
        (1.42, 0.2),
        (1.06, 0.9),
        (1.01, 1.0),
        (1.51, 0.0),
    ],
)
def test_mean_relative_accuracy_by_hand(prediction: float, value: float) -> None:
    assert mean_relative_accuracy(prediction, 1.0) == pytest.approx(value)


def test_what_comes_before_the_last_think_is_no_answer() -> None:
    found = extract_answer("It may be <answer>B</answer>, no. </think> <answer>A</answer>")
    assert (found.answer, found.reason) == ("A", None)
