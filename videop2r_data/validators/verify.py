"""Step 2 on one completion: template, copied verdict, length, score, typed values, leak, consistency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from videop2r_data.errors import TraceError
from videop2r_data.schemas import (
    NOT_SHOWN,
    SEGMENTS,
    Check,
    LengthSpec,
    ProcessTrace,
    RejectReason,
    Sample,
    Score,
    Shown,
    Trace,
    TraceGrammar,
    VerifySpec,
    default_grammar,
    parse_trace,
)
from videop2r_data.validators.checks import check_consistency, check_observation
from videop2r_data.validators.fields import check_fields
from videop2r_data.validators.judge import holds_verdict_tag
from videop2r_data.validators.metrics import count_words
from videop2r_data.validators.scorer import score

_PASSED = Check()
_NO_BOUNDS = LengthSpec()


class Verified(NamedTuple):
    """What step 2 found.

    Attributes:
        trace: the parsed trace; None if the completion left the template.
        score: of the answer; None if a check before it failed.
        check: passed, or the first reason in the order of the module's title.
    """

    trace: ProcessTrace | None
    score: Score | None
    check: Check


def verify_completion(
    completion: str,
    sample: Sample,
    spec: VerifySpec,
    grammar: TraceGrammar | None = None,
    shown: Shown = NOT_SHOWN,
) -> Verified:
    """The whole step 2; pure, total, linear in the completion.

    Args:
        completion: the generator's text.
        sample: the question.
        spec: which checks there are.
        grammar: what a trace is; None: the default.
        shown: what is known of the media; typed values have to lie in it.

    >>> from videop2r_data.schemas import DataType, ProblemType
    >>> sample = Sample(sample_id="s/1", problem_id="1", problem="?", problem_type=ProblemType.NUMERICAL,
    ...     data_type=DataType.TEXT, solution="<answer>4</answer>", source="s", row=0)
    >>> text = "<observation>four</observation> <think>so 4</think><answer>4</answer>"
    >>> verify_completion(text, sample, VerifySpec()).check.reason is None
    True
    """
    try:
        trace = parse_trace(completion, grammar)
    except TraceError as error:
        told = "" if grammar in (None, default_grammar()) else f": {error.message}"
        detail = f"{error.fault} at character {error.at}{told}"
        return Verified(None, None, Check(reason=RejectReason(error.fault), detail=detail))
    # Before any score: what speaks for the judge must not reach it, however right its answer is.
    if holds_verdict_tag(completion):
        detail = "the trace holds a judgement tag"
        return Verified(trace, None, Check(reason=RejectReason.COPIED_VERDICT, detail=detail))
    length = check_length(trace, spec.length)
    if length.reason is not None:
        return Verified(trace, None, length)
    result = score(
        sample.problem_type,
        prediction=trace.answer.strip(),
        reference=sample.solution,
        options=sample.options,
        policy=spec.policy,
    )
    if result.value is None:
        return Verified(trace, result, Check(reason=RejectReason.UNSCORABLE, detail=result.detail))
    if result.value < spec.threshold:
        detail = f"{result.value:.3f} < {spec.threshold:g}: {result.reason.value} {result.detail}".rstrip()
        return Verified(trace, result, Check(reason=RejectReason.LOW_SCORE, detail=detail))
    rules = _rules(trace, completion, sample, spec, shown)
    return Verified(trace, result, next((check for check in rules if check.reason is not None), _PASSED))


def _rules(
    trace: ProcessTrace, completion: str, sample: Sample, spec: VerifySpec, shown: Shown
) -> Iterator[Check]:
    """What is looked at where the answer is right."""
    if isinstance(trace, Trace):
        yield check_fields(completion, sample, spec, trace.grammar, shown)
    if spec.checks_leaks and trace.observation:
        yield check_observation(
            trace.observation,
            problem=sample.problem,
            options=sample.options,
            answer=trace.answer,
            problem_type=sample.problem_type,
        )
    if spec.checks_consistency:
        yield check_consistency(trace, sample.problem_type, sample.options, policy=spec.policy)


def check_length(trace: ProcessTrace, bounds: LengthSpec) -> Check:
    """Words of each segment against its bounds, both inclusive."""
    # The default: no word need be counted.
    if bounds == _NO_BOUNDS:
        return _PASSED
    texts = {name: getattr(trace, name) for name in SEGMENTS}
    limits = {name: getattr(bounds, name) for name in SEGMENTS}
    if isinstance(trace, Trace):
        limits |= bounds.segments
        texts |= {name: " ".join(trace.texts(name)) for name in bounds.segments}
    for name, bound in limits.items():
        if not bound.min and bound.max is None:
            continue
        words = count_words(texts[name])
        if words < bound.min or (bound.max is not None and words > bound.max):
            reason = RejectReason.TOO_SHORT if words < bound.min else RejectReason.TOO_LONG
            limit = f"at least {bound.min}" if words < bound.min else f"at most {bound.max}"
            return Check(reason=reason, detail=f"{name} has {words} words, {limit} allowed")
    return _PASSED
