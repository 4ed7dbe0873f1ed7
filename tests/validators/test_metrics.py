"""Metrics at their edges, by hand."""

from __future__ import annotations

import subprocess
import sys

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


def test_rouge_brings_no_scipy_along_and_leaves_nltk_to_others() -> None:
    """Each process of a build or a verification pays for what it imports."""
    code = (
        "import sys\nfrom videop2r_data.validators.metrics import rouge_mean_f\n"
        "assert rouge_mean_f('the cats sat', 'the cat sat') == 1.0\n"
        "assert not {'nltk', 'rouge_score', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "from nltk.stem.porter import PorterStemmer\nimport nltk\n"
        "assert nltk.__spec__ is not None and PorterStemmer().stem('running') == 'run'\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
