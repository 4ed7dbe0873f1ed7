"""Traces: good ones are whole and sufficient, planted ones are wrong in exactly one way."""

from __future__ import annotations

from itertools import islice

import pytest

from videop2r_data.demo import (
    iter_scenes,
    observation_is_sufficient,
    see_statement,
    settles,
    split_claims,
    write_trace,
)
from videop2r_data.demo.report import expected_rejection
from videop2r_data.demo.scene import INVENTIONS, TEMPLATE_DEFECTS, Defect, Profile, applicable
from videop2r_data.demo.traces import inventions
from videop2r_data.demo.world import planted
from videop2r_data.schemas import ClaimVerdict, parse_trace, segment_spans
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.schemas.sample import ProblemType
from videop2r_data.schemas.verdict import RejectReason, Stage

PROFILES: tuple[Profile, ...] = ("robust", "paper")
SAMPLES = list(islice(iter_scenes(DemoSpec(seed=3)), 700))


def test_good_traces_have_the_form_and_the_evidence() -> None:
    for s in SAMPLES:
        trace = parse_trace(write_trace(s, None))
        assert trace.observation.startswith("Based on the question, I need to notice")
        assert trace.think.startswith("Based on the observations,")
        assert trace.answer == s.question.answer
        assert observation_is_sufficient(s.scene, s.question, trace.observation)
        assert settles(s.question, trace.observation)
        assert trace.think.rstrip('."').endswith(s.question.answer.rstrip("."))


@pytest.mark.parametrize("defect", TEMPLATE_DEFECTS)
def test_broken_templates_have_the_fault_they_are_named_after(defect: Defect) -> None:
    for s in SAMPLES:
        fault = segment_spans(write_trace(s, defect)).fault
        assert fault is not None
        assert fault.value == defect.value


@pytest.mark.parametrize(
    "defect", [Defect.EVIDENCE_OMITTED, Defect.EVIDENCE_CONTRADICTED, Defect.COPIED_VERDICT]
)
def test_spoilt_evidence_is_insufficient_and_all_else_is_right(defect: Defect) -> None:
    for s in SAMPLES:
        trace = parse_trace(write_trace(s, defect))
        assert not observation_is_sufficient(s.scene, s.question, trace.observation)
        assert not settles(s.question, trace.observation), "the blind judge refuses it as well"
        assert trace.answer == s.question.answer
        assert ("<judgement>Yes</judgement>" in trace.observation) == (defect is Defect.COPIED_VERDICT)


@pytest.mark.parametrize("defect", [Defect.WRONG_ANSWER, Defect.LOW_QUALITY, Defect.NEAR_MISS])
def test_wrong_answers_come_with_a_right_observation(defect: Defect) -> None:
    seen = 0
    for s in SAMPLES:
        if defect not in applicable(s.question.problem_type):
            continue
        trace = parse_trace(write_trace(s, defect))
        assert trace.answer != s.question.answer
        assert observation_is_sufficient(s.scene, s.question, trace.observation)
        seen += 1
    assert seen > 30


def test_mismatch_settles_on_another_letter_than_the_right_answer() -> None:
    for s in SAMPLES:
        if s.question.problem_type is not ProblemType.MULTIPLE_CHOICE:
            continue
        trace = parse_trace(write_trace(s, Defect.THINK_ANSWER_MISMATCH))
        assert trace.answer == s.question.answer
        letter = trace.think.rstrip(".")[-1]
        assert letter in "ABCDEF"
        assert letter != trace.answer


def test_a_cut_completion_ends_inside() -> None:
    for s in SAMPLES:
        assert not write_trace(s, Defect.COMPLETION_CUT).endswith("</answer>")


@pytest.mark.parametrize(
    ("defect", "wanted"),
    [
        (Defect.THINK_ANSWER_MISMATCH, "multiple choice"),
        (Defect.LOW_QUALITY, "OCR or free-form, not numerical"),
        (Defect.NEAR_MISS, "free-form"),
    ],
)
def test_a_defect_that_does_not_fit_the_type_is_refused(defect: Defect, wanted: str) -> None:
    s = next(s for s in SAMPLES if s.question.problem_type is ProblemType.NUMERICAL)
    assert defect not in applicable(ProblemType.NUMERICAL)
    with pytest.raises(ValueError, match=wanted):
        write_trace(s, defect)


def test_wording_varies_with_the_seed_and_is_repeatable() -> None:
    s = SAMPLES[0]
    texts = {write_trace(s, None, seed=n) for n in range(12)}
    assert len(texts) > 6
    assert write_trace(s, None, seed=4) == write_trace(s, None, seed=4)


def test_expected_rejections() -> None:
    mismatch = Defect.THINK_ANSWER_MISMATCH
    assert expected_rejection(mismatch, "robust") == (Stage.VERIFY, RejectReason.THINK_ANSWER_MISMATCH)
    assert expected_rejection(mismatch, "paper") is None
    for profile in PROFILES:
        copied = expected_rejection(Defect.COPIED_VERDICT, profile)
        assert copied == (Stage.VERIFY, RejectReason.COPIED_VERDICT)
    assert expected_rejection(Defect.NESTED_TAG, "paper") == (Stage.VERIFY, RejectReason.NESTED_TAG)
    assert expected_rejection(Defect.WRONG_ANSWER, "robust") == (Stage.VERIFY, RejectReason.LOW_SCORE)
    assert expected_rejection(Defect.EVIDENCE_OMITTED, "robust") == (Stage.JUDGE, RejectReason.INSUFFICIENT)
    assert expected_rejection(None, "robust") is None


def test_planting_rate_and_redraws() -> None:
    s = next(s for s in SAMPLES if s.question.problem_type is ProblemType.FREE_FORM)
    scenes = [s.scene.model_copy(update={"index": n}) for n in range(4000)]

    def draws(temperature: float = 0.0, **rates: float) -> list[Defect | None]:
        spec = DemoSpec(**rates)
        return [planted(spec, scene, s.question, 0, temperature) for scene in scenes]

    cold = draws(defect_rate=0.35)
    share = sum(d is not None for d in cold) / len(cold)
    assert 0.32 < share < 0.38
    assert set(cold) == {None, *applicable(ProblemType.FREE_FORM)}
    warm = draws(0.3, defect_rate=0.35)
    assert warm == draws(0.3, defect_rate=0.35) and warm != cold
    assert set(draws(defect_rate=0)) == {None}
    assert None not in draws(defect_rate=1)


def test_inventions_are_drawn_among_good_traces_alone() -> None:
    for s in SAMPLES[:150]:
        old = planted(DemoSpec(), s.scene, s.question, s.number)
        new = planted(DemoSpec(invention_rate=1), s.scene, s.question, s.number)
        assert new is old if old else new in inventions(s.scene, s.question)


@pytest.mark.parametrize("defect", INVENTIONS)
def test_inventions_are_what_they_are_called(defect: Defect) -> None:
    """What each judge makes of them, in every kind of question that they fit."""
    lies = defect in (Defect.INVENTED_EVIDENCE, Defect.INVENTED_DETAIL)
    passes = lies or defect is Defect.REPETITION
    seen = 0
    for s in SAMPLES[:300]:
        if defect not in inventions(s.scene, s.question):
            with pytest.raises(ValueError, match="cannot be planted in this question"):
                write_trace(s, defect)
            continue
        for seed in range(2):
            trace = parse_trace(write_trace(s, defect, seed=seed))
            verdicts = {see_statement(s.scene, claim) for claim in split_claims(trace.observation)}
            assert trace.answer == s.question.answer
            assert settles(s.question, trace.observation) is passes, trace.observation
            if passes:
                assert (ClaimVerdict.CONTRADICTED in verdicts) is lies, trace.observation
        seen += 1
    assert seen > 60
