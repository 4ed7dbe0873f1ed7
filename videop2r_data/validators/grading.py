"""How a comparison becomes a `Score`: the same few words and bounds for every profile."""

from __future__ import annotations

from collections.abc import Callable

from videop2r_data.schemas import Score, ScoreReason
from videop2r_data.validators import metrics
from videop2r_data.validators.text import ocr_units

MAX_TEXT_CHARS = 20_000
MATCH = Score(value=1.0, reason=ScoreReason.MATCH)


def bad_reference(fault: str) -> Score:
    """Unscorable, with what is wrong with the reference."""
    return Score(value=None, reason=ScoreReason.BAD_REFERENCE, detail=fault[:300])


def zero(reason: ScoreReason, detail: str = "") -> Score:
    """0, with its reason."""
    return Score(value=0.0, reason=reason, detail=detail)


def graded(value: float, prediction: str, reference: str) -> Score:
    """The score of a metric at most 1; below 0 it is clipped."""
    if value >= 1.0:
        return MATCH
    reason = ScoreReason.PARTIAL if value > 0 else ScoreReason.MISMATCH
    return Score(value=max(0.0, value), reason=reason, detail=pair(prediction, reference))


def pair(prediction: str, reference: str) -> str:
    """Both texts as a detail shows them, cut."""
    return f"{prediction[:80]!r} for {reference[:80]!r}"


def binary(right: bool, prediction: str, reference: str) -> Score:
    """1 or 0."""
    return MATCH if right else zero(ScoreReason.MISMATCH, pair(prediction, reference))


def too_long(prediction: str, reference: str) -> bool:
    """Whether an answer is beyond what a metric looks at: over 20,000 characters and 8 references."""
    return len(prediction) > max(MAX_TEXT_CHARS, 8 * len(reference))


def grade_text(
    prediction: str, reference: str, key: Callable[[str], str], error_rate: Callable[[str, str], float]
) -> Score:
    """`1 - error rate` of two texts, each brought into comparable form by `key`."""
    right = key(reference)
    if not ocr_units(right):
        return bad_reference("the reference holds no text")
    if too_long(prediction, reference):
        return zero(ScoreReason.TOO_LONG, f"{len(prediction)} characters")
    given = key(prediction)
    if not given:
        return zero(ScoreReason.EMPTY_ANSWER)
    return graded(1.0 - error_rate(right, given), prediction, reference)


def bounded_rouge(reference: str, prediction: str, *, any_script: bool) -> float:
    """ROUGE with a bound on the quadratic part: over 1,000 tokens and 4 references: 0."""
    if len(prediction) > 4000:
        n = len(metrics.rouge_tokens(prediction, any_script=any_script))
        if n > max(1000, 4 * len(metrics.rouge_tokens(reference, any_script=any_script))):
            return 0.0
    return metrics.rouge_mean_f(reference, prediction, any_script=any_script)
