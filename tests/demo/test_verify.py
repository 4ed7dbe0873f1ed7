"""The planted labels against the real verify step and the exact judge, over more than 2,000 questions."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from videop2r_data.demo import SceneSample, iter_scenes, observation_is_sufficient, write_trace
from videop2r_data.demo.scene import Defect, Profile, applicable, expected_rejection
from videop2r_data.schemas import PAPER, ROBUST
from videop2r_data.schemas.recipe import DemoSpec, VerifySpec
from videop2r_data.schemas.verdict import RejectReason, Stage
from videop2r_data.validators import check_reference, verify_completion

SAMPLES = list(islice(iter_scenes(DemoSpec(seed=11)), 2100))
SPECS: dict[Profile, VerifySpec] = {"paper": VerifySpec(policy=PAPER), "robust": VerifySpec(policy=ROBUST)}


def fate(s: SceneSample, defect: Defect | None, profile: Profile) -> tuple[Stage, RejectReason] | None:
    """Where the trace falls, and why; None: kept."""
    verified = verify_completion(write_trace(s, defect), s.sample(), SPECS[profile])
    if verified.trace is None and defect is Defect.COMPLETION_CUT:
        return Stage.GENERATE, RejectReason.COMPLETION_CUT
    if verified.check.reason is not None:
        return Stage.VERIFY, verified.check.reason
    assert verified.trace is not None
    if not observation_is_sufficient(s.scene, s.question, verified.trace.observation):
        return Stage.JUDGE, RejectReason.INSUFFICIENT
    return None


def test_every_reference_can_be_scored() -> None:
    for s in SAMPLES:
        assert check_reference(s.question.problem_type, s.question.answer, s.question.options) is None, (
            s.question
        )


@pytest.mark.parametrize("profile", ["robust", "paper"])
def test_no_good_trace_is_rejected(profile: Profile) -> None:
    fates = Counter(fate(s, None, profile) for s in SAMPLES)
    assert fates == {None: len(SAMPLES)}


@pytest.mark.parametrize("profile", ["robust", "paper"])
@pytest.mark.parametrize("defect", list(Defect))
def test_every_defect_falls_where_its_label_says(defect: Defect, profile: Profile) -> None:
    wrong, planted = [], 0
    for s in SAMPLES:
        if defect not in applicable(s.question.problem_type):
            continue
        planted += 1
        got = fate(s, defect, profile)
        if got != expected_rejection(defect, profile):
            wrong.append((s.question.kind, got))
    assert planted > 50
    assert wrong == []
