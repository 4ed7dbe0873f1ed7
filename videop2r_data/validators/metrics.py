"""The metrics of the problem types, and the normalised text that they compare."""

from __future__ import annotations

import html
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from threading import Lock
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from videop2r_data.schemas import Score, ScoreReason

# --- text before it is compared: folding, words, characters of scripts without spaces ---

CJK = (
    "\u3040-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Inside of a character class: scripts that are written without spaces."""
_CJK_CHAR = re.compile(f"[{CJK}]")
_CJK_PUNCT = "\u3000-\u303f\uff01-\uff0f\uff1a-\uff1f\uff3b-\uff40\uff5b-\uff65"
_UNIT = re.compile(f"[{CJK}]|[^\\s{CJK}{_CJK_PUNCT}]+")
_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII)
_BRACKETS = str.maketrans(
    dict.fromkeys("‹〈⟨《❮❬˂≺⧼﹤＜", "<")
    | dict.fromkeys("›〉⟩》❯❭˃≻⧽﹥＞", ">")
    | {"∕": "/", "⁄": "/", "╱": "/"}
)
_HOMOGLYPHS = str.maketrans("аеосрхѕіјԁɡυтмпνοєϳ", "aeocpxsijdgutmnvoej")
_ENTITY_ROUNDS = 3
_WRAPS = (("\\boxed{", "}"), ("\\text{", "}"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("$$", "$$"),
          ("$", "$"), ("`", "`"), ('"', '"'), ("“", "”"), ("'", "'"))  # fmt: skip
_MARKS_IN_A_ROW = 30
"""Combining characters in a row that any real text has at most [Unicode UAX #15, Stream-Safe Text Format]."""
_SUSPICIOUS = re.compile(rf"[^\w\s!-~]{{{_MARKS_IN_A_ROW + 1}}}")
_BOLD = re.compile(r"(?<![\w*])(\*\*|__)(?=\S)([^*_\n]+?)(?<=\S)\1(?![\w*])")
_MINUS = str.maketrans("−﹣", "--")
_COMPARISONS = {"<=": "≤", ">=": "≥", "!=": "≠"}
_OPTIONAL_VOWELS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u064b-\u0652\u0670]")
"""Points of Hebrew and Arabic, which the same word may be written with or without."""


def normalised(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """A Unicode normal form, in linear time.

    >>> normalised("NFKC", "\uff21\u0065\u0301") == "A\u00e9"
    True
    """
    # Sorting a run of combining characters takes `unicodedata` quadratic time: 100 KB of mixed accents keep
    # it busy for a minute. A run of more than 30 is cut by U+034F, as the Stream-Safe Text Format does.
    if _SUSPICIOUS.search(text) is not None:
        text = _long_runs().sub("\\g<0>\u034f", text)
    return unicodedata.normalize(form, text)


@lru_cache(maxsize=1)
def _long_runs() -> re.Pattern[str]:
    """Runs of characters that decompose to one that combines; built when first needed."""
    every = map(chr, range(0x300, sys.maxunicode + 1))
    marks = "".join(c for c in every if unicodedata.combining(unicodedata.normalize("NFKD", c)[0]))
    return re.compile(f"[{marks}]{{{_MARKS_IN_A_ROW}}}")


def drop_format(text: str) -> str:
    """Without zero-width, bidirectional and other format characters (category Cf)."""
    return text if text.isascii() else "".join(c for c in text if unicodedata.category(c) != "Cf")


def fold(text: str) -> str:
    r"""NFKC, no zero-width characters, white space collapsed; case is kept.

    >>> fold("  （Ａ）\u200b\n x ")
    '(A) x'
    """
    if not text.isascii():
        text = drop_format(normalised("NFKC", text))
    return " ".join(text.split())


def unwrap(text: str) -> str:
    """Without `$…$`, `\\boxed{…}`, bold, quotes around the whole."""
    # Wrappers nest (`$\boxed{"A"}$`); six layers are more than any model prints.
    for _ in range(6):
        text = text.strip()
        for left, right in _WRAPS:
            if len(text) > len(left) + len(right) - 1 and text.startswith(left) and text.endswith(right):
                inner = text[len(left) : len(text) - len(right)]
                if left not in inner and (right != "}" or inner.count("{") == inner.count("}")):
                    text = inner
                    break
        else:
            return text
    return text


def without_bold(text: str) -> str:
    """Without the marks of bold words; `2**3` and a mark that stands alone stay.

    >>> without_bold("**A. an **offer**"), without_bold("2**3 = 8")
    ('**A. an offer', '2**3 = 8')
    """
    return _BOLD.sub(r"\2", text) if "**" in text or "__" in text else text


def unmask_markup(text: str) -> str:
    """Text in which a tag that only looks like one is one: entities, look-alike characters, zero-width.

    For detection, never for display.

    >>> unmask_markup("＜judge\u200bment&gt;")
    '<judgement>'
    """
    # `&amp;lt;` needs two rounds; more than three are no accident, and `judge._plain` has a rule for them.
    for _ in range(_ENTITY_ROUNDS):
        if "&" not in text:
            break
        text = html.unescape(text)
    if text.isascii():
        return text
    # Translate before and after: NFKC turns some look-alikes into others that the table knows.
    text = drop_format(normalised("NFKC", text.translate(_BRACKETS)))
    return text.translate(_BRACKETS).translate(_HOMOGLYPHS)


def has_cjk(text: str) -> bool:
    """Whether any Chinese, Japanese or Korean character stands in the text."""
    return not text.isascii() and _CJK_CHAR.search(text) is not None


def count_words(text: str) -> int:
    """Words of a segment: runs between white space; each CJK character is a word of its own.

    >>> count_words("a red ball"), count_words("红色的球。"), count_words("共 3 个")
    (3, 4, 3)
    """
    return len(text.split()) if text.isascii() else len(_UNIT.findall(text))


def ocr_units(text: str) -> list[str]:
    """What a word error is counted in: words between white space, single characters for CJK."""
    return text.split() if text.isascii() else _CJK_CHAR.sub(r" \g<0> ", text).split()


def words(text: str) -> list[str]:
    """Letters and digits with their combining marks, lower case, any script; CJK by character."""
    text = text.lower()
    return (_ASCII_WORD if text.isascii() else _word_of_any_script()).findall(text)


def marked_words(text: str) -> list[str]:
    """Words as `words`, with the symbols that are part of what a word or a number means.

    These are the sign and the point of a number, the `++` and `#` of a name, the `+` and `-` of a grade or a
    blood group, and comparisons.

    >>> marked_words("C++ is at -5, not 1,000.50: A- for x <= 3")
    ['c++', 'is', 'at', '-5', 'not', '1000.5', 'a-', 'for', 'x', '≤', '3']
    """
    text = text.lower().translate(_MINUS)
    if not text.isascii():
        text = _OPTIONAL_VOWELS.sub("", text)
    found = []
    for match in _marked_word(text.isascii()).finditer(text):
        token = match.group()
        # `1,000.50` and `1000.5` are one number: no thousands separator, no trailing zeros.
        if match.lastgroup == "number":
            whole, point, decimals = token.replace(",", "").partition(".")
            token = whole + (point + decimals.rstrip("0")).rstrip(".")
        found.append(_COMPARISONS.get(token, token))
    return found


@lru_cache(maxsize=2)
def _marked_word(ascii_only: bool) -> re.Pattern[str]:
    word = r"[^\W_]+" if ascii_only else _word_of_any_script().pattern
    return re.compile(
        rf"[{CJK}]|(?P<number>(?:(?<![\w.)])-)?\d+(?:,\d{{3}})*(?:\.\d+)?)(?![^\W_])"
        r"|\b[a-z]{1,2}[+-](?=\s|\Z|[.,;:)])"
        rf"|{word}(?:\+\+|\#)?|[<>!]=|[<>](?![a-z/])|[≤≥≠]"
    )


@lru_cache(maxsize=1)
def _word_of_any_script() -> re.Pattern[str]:
    """A CJK character, or a letter or digit and all that follow, vowel signs and accents included.

    `\\w` leaves combining marks out, which would make words of Hindi and others equal that differ in a vowel.
    """
    # `re` has no class for combining marks (category M): collect their ranges once.
    is_mark = groupby(range(0x300, 0x20000), lambda code: unicodedata.category(chr(code))[0] == "M")
    runs = [list(codes) for mark, codes in is_mark if mark]
    marks = "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
    return re.compile(f"[{CJK}]|[^\\W_{CJK}](?:[^\\W_{CJK}]|[{marks}])*")


# --- the graded metrics; jiwer, nltk and rouge-score load at the first call: most problem types need none ---


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Word error rate by jiwer: (S + D + I) / words of the reference; at least 0, may exceed 1 [paper §7.2].

    Characters are the words of Chinese, Japanese and Korean text (its character error rate).

    Raises:
        ValueError: the reference holds no word.

    >>> word_error_rate("a b c d", "a x c d")
    0.25
    """
    ref = ocr_units(reference)
    if not ref:
        raise ValueError("the word error rate needs at least one word in the reference")
    return _error_rate(ref, ocr_units(hypothesis))


def plain_word_error_rate(reference: str, hypothesis: str) -> float:
    """Word error rate over white-space tokens, case and punctuation included: as Video-R1 computes it."""
    return _error_rate(reference.split(), hypothesis.split())


def _error_rate(ref: list[str], hyp: list[str]) -> float:
    if ref == hyp:
        return 0.0
    if not ref or not hyp:
        return 1.0
    import jiwer

    return float(jiwer.wer(" ".join(ref), " ".join(hyp)))


_ASCII_TOKEN = re.compile(r"[a-z0-9]+")


_ROUGE_LOCK = Lock()


@cache
def _rouge() -> tuple[Callable[[str], str], Any]:
    """Porter's stemmer of nltk, with a cache, and rouge-score's class of scorers.

    `import nltk` brings scipy, scikit-learn and pandas along where they are installed: almost two seconds in
    each process, for a stemmer that needs none of them. It is imported below an empty package here, which is
    taken away again: who imports nltk or rouge-score later gets all of them.
    """
    with _ROUGE_LOCK:
        found = find_spec("nltk")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'nltk'", name="nltk")
        root = found.submodule_search_locations[0]
        aside = _taken("nltk", "rouge_score")
        try:
            for name, folder in (("nltk", root), ("nltk.stem", str(Path(root, "stem")))):
                sys.modules[name] = ModuleType(name)
                sys.modules[name].__path__ = [folder]
            from nltk.stem.porter import PorterStemmer
            from rouge_score.rouge_scorer import RougeScorer
        finally:
            _taken("nltk", "rouge_score")
            sys.modules.update(aside)
    return lru_cache(maxsize=65536)(PorterStemmer().stem), RougeScorer


def _taken(*packages: str) -> dict[str, ModuleType]:
    """The modules of some packages, out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in packages}


def rouge_tokens(text: str, *, any_script: bool = False) -> list[str]:
    """Tokens of ROUGE: lower case, words of more than three letters stemmed (Porter).

    Args:
        text: any text.
        any_script: letters of every script with the symbols that carry meaning (`marked_words`), CJK by
            character; else ASCII letters and digits only, as rouge-score does.
    """
    stem = _rouge()[0]
    if any_script:
        return [stem(w) if len(w) > 3 and w.isascii() and w.isalpha() else w for w in marked_words(text)]
    return [stem(w) if len(w) > 3 else w for w in _ASCII_TOKEN.findall(text.lower())]


@cache
def _scorer(any_script: bool) -> Any:
    tokenizer = SimpleNamespace(tokenize=partial(rouge_tokens, any_script=any_script))
    return _rouge()[1](["rouge1", "rouge2", "rougeL"], tokenizer=tokenizer)


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


def mean_relative_accuracy(prediction: float, reference: float) -> float:
    """Mean over the thresholds t = 0.5, 0.55 ... 0.95 of `|p - r| / |r| <= 1 - t`; [0, 1] [VSI-Bench].

    All in float64, as the benchmark does. Not finite or r = 0: 0, except an exact zero: 1.

    >>> mean_relative_accuracy(9.0, 10.0)
    0.9
    """
    if reference == 0 or not (math.isfinite(prediction) and math.isfinite(reference)):
        return relative_accuracy(prediction, reference)
    import numpy as np

    error = abs(prediction - reference) / abs(reference)
    # The very call of the benchmark: its ninth threshold is 0.8999999999999999, which decides ties at 0.9.
    thresholds = np.linspace(0.5, 0.95, int((0.95 - 0.5) / 0.05 + 2))
    return float(np.mean(error <= 1 - thresholds))


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
    # Two negative overlaps, or sides, would multiply to a positive area.
    if min(width, height, a[2] - a[0], b[2] - b[0], a[3] - a[1], b[3] - b[1]) <= 0:
        return 0.0
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return min(1.0, inter / union) if math.isfinite(union) and union > 0 else 0.0


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
