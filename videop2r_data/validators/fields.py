"""Typed values of a trace: can they be, and do its spans and boxes meet the reference of the question?"""

from __future__ import annotations

from collections.abc import Sequence

from videop2r_data.schemas import (
    Check,
    FieldValue,
    RejectReason,
    Sample,
    ScoreReason,
    Shown,
    TraceGrammar,
    VerifySpec,
    nonsense,
    trace_parser,
)
from videop2r_data.validators.geometry import parse_box, parse_interval
from videop2r_data.validators.metrics import box_iou, interval_iou

_PASSED = Check()
_SHARE = {"percent": 0.01, "fraction": 1.0}


def check_fields(
    completion: str, sample: Sample, spec: VerifySpec, grammar: TraceGrammar, shown: Shown
) -> Check:
    """Check the typed values of a trace, if its grammar has any.

    Args:
        completion: a trace of the grammar.
        sample: the question; its reference is used where it is an interval in seconds or a box in pixels.
        spec: which checks there are.
        grammar: which values there may be, and in which units.
        shown: what is known of the clip or the picture.

    Returns:
        Passed; `senseless_value`: a value that cannot be, with its place; `missed_evidence`: no span or box
        outside the answer reaches `spec.evidence_iou` with the reference.
    """
    parser = trace_parser(grammar)
    if not parser.templates:
        return _PASSED
    found: list[Sequence[FieldValue]] = []
    for name, values in parser.values(completion, parser.spans(completion).pieces):
        wrong = nonsense(values, shown) if spec.checks_values else ""
        if wrong:
            detail = f"{name}, at character {values[0].start}: {wrong}"
            return Check(reason=RejectReason.SENSELESS_VALUE, detail=detail)
        # the answer is scored against the same reference already
        if name not in grammar.answers:
            found.append(values)
    return _PASSED if spec.evidence_iou is None else _meets(found, sample, spec, shown)


def _meets(found: Sequence[Sequence[FieldValue]], sample: Sample, spec: VerifySpec, shown: Shown) -> Check:
    """Whether the best span, or box, meets the reference; passed where the reference is neither."""
    form, wanted = sample.problem_type.traits.form, spec.evidence_iou or 0.0
    reference: tuple[float, ...] | ScoreReason
    if form == "interval":
        reference, iou = parse_interval(sample.reference), interval_iou
        read = [span for values in found if len(span := _span(values, shown)) > 1]
    elif form == "box":
        reference, iou = parse_box(sample.reference), box_iou
        boxes = [one for values in found for one in values if (one.kind, one.unit) == ("box", "pixels")]
        read = [tuple(number * spec.policy.box_scale for number in box.numbers) for box in boxes]
    else:
        return _PASSED
    if isinstance(reference, ScoreReason):
        return _PASSED  # the score says so
    reached, best = max(((iou(one, reference), one) for one in read), default=(0.0, ()))
    if read and reached >= wanted:
        return _PASSED
    told = f"IoU {reached:.3f} of {_listed(best)}, the best of {len(read)}, against"
    told = told if read else f"no {form} to hold against"
    detail = f"{told} {_listed(reference)}: {wanted:g} or more is asked for"
    return Check(reason=RejectReason.MISSED_EVIDENCE, detail=detail)


def _span(values: Sequence[FieldValue], shown: Shown) -> tuple[float, ...]:
    """The times of one template in seconds; those whose length of the clip is not known are left out."""
    seconds = []
    for value in values:
        share = _SHARE.get(value.unit)
        if value.kind == "time" and (share is None or shown.seconds is not None):
            seconds += [n if share is None else n * share * (shown.seconds or 0) for n in value.numbers]
    return tuple(seconds[:2])


def _listed(numbers: Sequence[float]) -> str:
    return f"[{', '.join(f'{number:.10g}' for number in numbers)}]"
