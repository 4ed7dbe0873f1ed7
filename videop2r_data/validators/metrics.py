"""The graded metrics as plain functions, and how a comparison becomes a `Score`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from videop2r_data.schemas import Score, ScoreReason
from videop2r_data.validators.text import marked_words, ocr_units

# jiwer, nltk and rouge-score load at the first call: most problem types need none of them.


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Word error rate by jiwer: (S + D + I) / words of the reference; at least 0, may exceed 1 [paper §7.2].

    Characters are the words of Chinese, Japanese and Korean text (its character error rate).

    Raises:
        ValueError: the reference holds no word.

    >>> word_error_rate("a b c d", "a x c d")
    0.25
    """
    ref, hyp = ocr_units(reference), ocr_units(hypothesis)
    if not ref:
        raise ValueError("the word error rate needs at least one word in the reference")
    if ref == hyp:
        return 0.0
    if not hyp:
        return 1.0
    return float(_jiwer().wer(" ".join(ref), " ".join(hyp)))


def plain_word_error_rate(reference: str, hypothesis: str) -> float:
    """Word error rate over white-space tokens, case and punctuation included: as Video-R1 computes it."""
    ref, hyp = reference.split(), hypothesis.split()
    if not ref or ref == hyp:
        return 0.0 if ref == hyp else 1.0
    return float(_jiwer().wer(" ".join(ref), " ".join(hyp))) if hyp else 1.0


@cache
def _jiwer() -> Any:
    import jiwer

    return jiwer


_ASCII_TOKEN = re.compile(r"[a-z0-9]+")


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return str(_porter().stem(word))


@cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


def rouge_tokens(text: str, *, any_script: bool = False) -> list[str]:
    """Tokens of ROUGE: lower case, words of more than three letters stemmed (Porter).

    Args:
        text: any text.
        any_script: letters of every script with the symbols that carry meaning (`marked_words`), CJK by
            character; else ASCII letters and digits only, as rouge-score does.
    """
    if any_script:
        return [_stem(w) if len(w) > 3 and w.isascii() and w.isalpha() else w for w in marked_words(text)]
    return [_stem(w) if len(w) > 3 else w for w in _ASCII_TOKEN.findall(text.lower())]


class _Tokens:
    """A rouge-score tokenizer with a cached stemmer."""

    def __init__(self, any_script: bool) -> None:
        self.any_script = any_script

    def tokenize(self, text: str) -> list[str]:
        return rouge_tokens(text, any_script=self.any_script)


@cache
def _scorer(any_script: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Tokens(any_script))


def rouge_mean_f(reference: str, prediction: str, *, any_script: bool = False) -> float:
    """Mean F measure of ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score, stemmer on; [0, 1] [paper §7.2].

    Time grows with (tokens of one) x (tokens of the other): callers bound the prediction.

    >>> round(rouge_mean_f("the cat sat", "the cats sat"), 3)
    1.0
    """
    scores = _scorer(any_script).score(reference, prediction)
    return float(sum(s.fmeasure for s in scores.values()) / 3)


def relative_accuracy(prediction: float, reference: float) -> float:
    """`1 - |p - r| / |r|`, clipped to [0, 1]; for r = 0: 1 if p = 0, else 0; not finite: 0 [paper §7.2]."""
    if not (math.isfinite(prediction) and math.isfinite(reference)):
        return 0.0
    if reference == 0:
        return 1.0 if prediction == 0 else 0.0
    return min(1.0, max(0.0, 1.0 - abs(prediction - reference) / abs(reference)))


def relative_accuracy_smoothed(prediction: float, reference: float) -> float:
    """The predecessor's form, `1 - (|p - r| + 1e-9) / (|r| + 1e-9)` clipped: 0 for a correct zero."""
    if not (math.isfinite(prediction) and math.isfinite(reference)):
        return 0.0
    error = (abs(prediction - reference) + 1e-9) / (abs(reference) + 1e-9)
    return 1.0 - min(1.0, max(0.0, error))


@cache
def _mra_thresholds() -> tuple[float, ...]:
    import numpy as np

    # The very call of the benchmark: its ninth threshold is 0.8999999999999999, which decides ties at 0.9.
    return tuple(np.linspace(0.5, 0.95, int((0.95 - 0.5) / 0.05 + 2)).tolist())


def mean_relative_accuracy(prediction: float, reference: float) -> float:
    """Mean over the thresholds t = 0.5, 0.55 ... 0.95 of `|p - r| / |r| <= 1 - t`; [0, 1] [VSI-Bench].

    All in float64, thresholds by `numpy.linspace(.5, .95, int((.95 - .5) / .05 + 2))`, as the benchmark does.
    Not finite or r = 0: 0, except an exact zero: 1.

    >>> mean_relative_accuracy(9.0, 10.0)
    0.9
    """
    if not (math.isfinite(prediction) and math.isfinite(reference)):
        return 0.0
    if reference == 0:
        return 1.0 if prediction == 0 else 0.0
    error = abs(prediction - reference) / abs(reference)
    thresholds = _mra_thresholds()
    return sum(error <= 1 - t for t in thresholds) / len(thresholds)


def interval_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two intervals `(start, end)`; [0, 1], 0 if either is empty.

    >>> interval_iou((0, 2), (1, 3))
    0.3333333333333333
    """
    inter = min(a[1], b[1]) - max(a[0], b[0])
    union = max(a[1], b[1]) - min(a[0], b[0])
    if inter <= 0 or a[1] <= a[0] or b[1] <= b[0] or not math.isfinite(union):
        return 0.0
    return min(1.0, inter / union)


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes `(x1, y1, x2, y2)`; [0, 1], 0 if either is empty.

    >>> box_iou((0, 0, 2, 2), (1, 1, 3, 3))
    0.14285714285714285
    """
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    # Two negative overlaps would multiply to a positive area.
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    if not math.isfinite(union) or union <= 0 or min(a[2] - a[0], b[2] - b[0], a[3] - a[1], b[3] - b[1]) <= 0:
        return 0.0
    return min(1.0, inter / union)


# --- how a comparison becomes a `Score`; both profiles use these ---


MAX_TEXT_CHARS = 20_000
MATCH = Score(value=1.0, reason=ScoreReason.MATCH)


def bad_reference(fault: str) -> Score:
    """An unscorable result (value None); `fault` says what is wrong with the reference."""
    return Score(value=None, reason=ScoreReason.BAD_REFERENCE, detail=fault[:300])


def zero(reason: ScoreReason, detail: str = "") -> Score:
    """Value 0 with a reason."""
    return Score(value=0.0, reason=reason, detail=detail)


def graded(value: float, prediction: str, reference: str) -> Score:
    """The score of a metric at most 1; below 0 it is clipped."""
    if value >= 1.0:
        return MATCH
    reason = ScoreReason.PARTIAL if value > 0 else ScoreReason.MISMATCH
    return Score(value=max(0.0, value), reason=reason, detail=pair(prediction, reference))


def pair(prediction: str, reference: str) -> str:
    """Prediction and reference for `Score.detail`, each cut to 80 characters."""
    return f"{prediction[:80]!r} for {reference[:80]!r}"


def binary(right: bool, prediction: str, reference: str) -> Score:
    """Value 1 if right, else 0 (mismatch)."""
    return MATCH if right else zero(ScoreReason.MISMATCH, pair(prediction, reference))


def too_long(prediction: str, reference: str) -> bool:
    """Whether an answer has over 20,000 characters and over 8 times those of its reference: then 0."""
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
    """`rouge_mean_f`, or 0 for a prediction of over 1,000 tokens and over 4 times those of the reference.

    ROUGE-L takes time tokens x tokens; no honest answer is that long.
    """
    if len(prediction) > 4000:
        n = len(rouge_tokens(prediction, any_script=any_script))
        if n > max(1000, 4 * len(rouge_tokens(reference, any_script=any_script))):
            return 0.0
    return rouge_mean_f(reference, prediction, any_script=any_script)
