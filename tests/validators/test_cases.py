"""The table of hand-made cases, under both profiles."""

from __future__ import annotations

import pytest

from tests.validators import (
    cases_choice,
    cases_number,
    cases_options,
    cases_sentence,
    cases_space,
    cases_text,
)
from tests.validators.case import Case, Expected
from videop2r_data.schemas import PAPER, ROBUST, Policy, ProblemType, Score
from videop2r_data.validators import score

TABLES = {
    ProblemType.MULTIPLE_CHOICE: (*cases_choice.CASES, *cases_options.CASES, *cases_sentence.CHOICES),
    ProblemType.NUMERICAL: (*cases_number.NUMERICAL, *cases_sentence.NUMBERS),
    ProblemType.REGRESSION: cases_number.REGRESSION,
    ProblemType.OCR: cases_text.OCR,
    ProblemType.FREE_FORM: cases_text.FREE_FORM,
    ProblemType.TEMPORAL_GROUNDING: cases_space.TEMPORAL,
    ProblemType.SPATIAL_GROUNDING: cases_space.SPATIAL,
}
ROWS = [(kind, case) for kind, cases in TABLES.items() for case in cases]


def _names(rows: list[tuple[ProblemType, Case]]) -> list[str]:
    return [f"{kind.value}: {case.prediction[:24]!r} for {case.reference[:16]!r}" for kind, case in rows]


def _score(kind: ProblemType, case: Case, policy: Policy) -> Score:
    return score(
        kind, prediction=case.prediction, reference=case.reference, options=case.options, policy=policy
    )


def _agrees(value: float | None, expected: Expected) -> bool:
    if value is None or expected is None:
        return value is None and expected is None
    if isinstance(expected, tuple):
        return expected[0] <= value <= expected[1]
    return value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kind", "case"), ROWS, ids=_names(ROWS))
def test_paper(kind: ProblemType, case: Case) -> None:
    found = _score(kind, case, PAPER)
    assert _agrees(found.value, case.paper), (case.why, found)


@pytest.mark.parametrize(("kind", "case"), ROWS, ids=_names(ROWS))
def test_robust(kind: ProblemType, case: Case) -> None:
    found = _score(kind, case, ROBUST)
    assert _agrees(found.value, case.robust), (case.why, found)
    if case.reason:
        assert found.reason.value == case.reason, (case.why, found)


def test_the_table_is_large_and_has_no_row_twice() -> None:
    assert len(ROWS) >= 180
    keys = [(kind, c.prediction, c.reference, c.options) for kind, c in ROWS]
    assert len(set(keys)) == len(keys)
