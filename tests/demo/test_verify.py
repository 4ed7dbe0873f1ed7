"""The planted labels against the real verify step and the demo's judges, in every packaged grammar."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.schemas.test_grammar import compiled, grammars
from videop2r_data.demo import SceneSample, iter_scenes, see_statement, settles, split_claims, write_trace
from videop2r_data.demo.forms import fault_of
from videop2r_data.demo.report import expected_rejection
from videop2r_data.demo.scene import TEMPLATE_DEFECTS, Defect, Profile, applicable
from videop2r_data.demo.traces import inventions
from videop2r_data.schemas import (
    PAPER,
    ROBUST,
    ClaimVerdict,
    TraceGrammar,
    load_grammar,
    packaged_grammars,
    trace_parser,
)
from videop2r_data.schemas.grammar import parse_grammar
from videop2r_data.schemas.recipe import DemoSpec, VerifySpec
from videop2r_data.schemas.verdict import RejectReason, Stage
from videop2r_data.validators import check_reference, verify_completion

SAMPLES = list(islice(iter_scenes(DemoSpec(seed=11)), 2100))
SPECS: dict[Profile, VerifySpec] = {"paper": VerifySpec(policy=PAPER), "robust": VerifySpec(policy=ROBUST)}
OWN = """
name: own
segments:
  - {name: plan, role: other, marks: [["PLAN:", "END PLAN"]], required: false, after: "\\n"}
  - {name: first_look, role: perception, tag: look, stream: eyes, after: "\\n"}
  - group:
      - name: span
        role: perception
        tag: span
        holds: "{at: time seconds} to {until: time seconds} in {where: box per_mille}"
      - {name: note, role: reasoning, tag: note, stream: notes, fields: ["<m>{p: point fraction}</m>"]}
    min: 2
    max: 4
  - {name: verdict, role: answer, tag: verdict}
"""


@cache
def fitting(at: int) -> tuple[Defect, ...]:
    """The defects that a sample's trace can have."""
    s = SAMPLES[at]
    return (*applicable(s.question.problem_type), *inventions(s.scene, s.question))


def fate(
    s: SceneSample,
    defect: Defect | None,
    profile: Profile,
    *,
    grammar: TraceGrammar | None = None,
    seeing: bool = True,
) -> tuple[Stage, RejectReason] | None:
    """Where the trace falls, and why; None: kept."""
    completion = write_trace(s, defect, grammar=grammar)
    verified = verify_completion(completion, s.sample(), SPECS[profile], grammar)
    if defect is Defect.COMPLETION_CUT and (verified.trace is None or grammar is not None):
        return Stage.GENERATE, RejectReason.COMPLETION_CUT
    if verified.check.reason is not None:
        return Stage.VERIFY, verified.check.reason
    assert verified.trace is not None
    observation = verified.trace.observation
    if observation and not settles(s.question, observation):
        return Stage.JUDGE, RejectReason.INSUFFICIENT
    claims = split_claims(observation) if seeing else ()
    if ClaimVerdict.CONTRADICTED in {see_statement(s.scene, claim) for claim in claims}:
        return Stage.JUDGE, RejectReason.CONTRADICTED
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


@pytest.mark.parametrize("seeing", [True, False])
@pytest.mark.parametrize("profile", ["robust", "paper"])
@pytest.mark.parametrize("defect", [d for d in Defect if d is not Defect.BAD_FIELD])
def test_every_defect_falls_where_its_label_says(defect: Defect, profile: Profile, seeing: bool) -> None:
    wrong, planted = [], 0
    whole = seeing == (profile == "robust")  # each profile over all samples once; what sees reads every claim
    for at, s in enumerate(SAMPLES if whole else SAMPLES[:350]):
        if defect not in fitting(at):
            continue
        planted += 1
        got = fate(s, defect, profile, seeing=seeing)
        if got != expected_rejection(defect, profile, seeing=seeing):
            wrong.append((s.question.kind, got))
    assert planted > 15
    assert wrong == []


def test_only_what_is_false_of_the_clip_needs_a_judge_that_sees() -> None:
    blind, seeing = (
        {d: expected_rejection(d, "robust", seeing=sees) for d in Defect if d is not Defect.BAD_FIELD}
        for sees in (False, True)
    )
    changed = {d for d in blind if blind[d] != seeing[d]}
    assert changed == {Defect.INVENTED_EVIDENCE, Defect.INVENTED_DETAIL}
    assert all(blind[d] is None for d in changed)
    kept = {d for d in seeing if seeing[d] is None}
    assert kept == {Defect.NEAR_MISS, Defect.REPETITION}


@pytest.mark.parametrize("name", [*packaged_grammars()[1:], "own"])
def test_every_grammar_has_the_same_content_and_the_same_fates(name: str) -> None:
    grammar = parse_grammar(OWN, where="own") if name == "own" else load_grammar(name)
    formed = any(one.holds for one in grammar.flat)
    wrong = []
    for at, s in enumerate(SAMPLES[:70]):
        parts = trace_parser(grammar).parse(write_trace(s, None, grammar=grammar))
        assert trace_parser(grammar).parse(trace_parser(grammar).render(parts)) == parts
        for defect in (None, *fitting(at), *([Defect.BAD_FIELD] if formed else [])):
            got = fate(s, defect, "robust", grammar=grammar)
            if got != expected_rejection(defect, "robust", grammar):
                wrong.append((defect, s.question.kind, got))
    assert wrong == []


@settings(deadline=None, max_examples=150)
@given(grammars(), st.integers(0, 200), st.sampled_from(TEMPLATE_DEFECTS))
def test_any_grammar_can_be_written_whole_and_broken(grammar: TraceGrammar, at: int, defect: Defect) -> None:
    parser = compiled(grammar)
    whole = write_trace(SAMPLES[at], None, grammar=grammar)
    assert parser.render(parser.parse(whole)) == whole
    assert SAMPLES[at].question.answer in whole
    broken = write_trace(SAMPLES[at], defect, grammar=grammar)
    assert parser.spans(broken).fault is fault_of(defect, grammar)[1]
