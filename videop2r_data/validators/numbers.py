"""The number that an answer states (digits, words, roots, π), with unit and precision, or why none."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import NamedTuple

from videop2r_data.schemas import ROBUST, Policy, ScoreReason
from videop2r_data.validators.conclusions import Cue, conclusions, figure
from videop2r_data.validators.metrics import drop_format, normalised, unwrap
from videop2r_data.validators.units import canonical_unit


class Quantity(NamedTuple):
    """A number as printed.

    Attributes:
        value: exact (Fraction) unless it holds a root or π (float).
        step: half-open printed precision, 1/100 for `3.14`; None if exact (integers, fractions, roots).
        decimals: printed decimals.
        unit: canonical, `""` if there is none.
    """

    value: Fraction | float
    step: Fraction | None
    decimals: int
    unit: str


def same_number(prediction: Quantity, reference: Quantity) -> bool:
    """Equality at the reference's printed precision; integers, fractions and roots are exact.

    A fraction or root may also be answered by its decimal expansion, rounded to two decimals or more.
    """
    signed = prediction.value - reference.value
    gap = signed if signed >= 0 else -signed
    if isinstance(gap, float):
        if gap <= 1e-9 * max(abs(float(reference.value)), 1e-300):
            return True
    elif gap == 0 or (reference.step is not None and gap <= reference.step / 2):
        return True
    right = reference.value
    if isinstance(right, Fraction) and (reference.step is not None or right.denominator == 1):
        return False
    # The reference is a fraction or a root: its decimal expansion counts from two printed decimals on.
    if prediction.step is None or prediction.decimals < 2:
        return False
    # At least two significant digits: `0.01` is no expansion of 1/128.
    size = abs(float(prediction.value)) / float(prediction.step)
    return size >= 10 and float(gap) <= float(prediction.step) / 2 * (1 + 1e-9)


# --- number words, read where the policy says so (`Policy.number_words`) ---

_IN_ORDER = """
zero one two three four five six seven eight nine
ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
twenty thirty forty fifty sixty seventy eighty ninety
"""
_ONES = {word: i for i, word in enumerate(_IN_ORDER.split()[:20])}
_TENS = {word: 10 * i for i, word in enumerate(_IN_ORDER.split()[20:], 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_HAN = {c: i for i, c in enumerate("零一二三四五六七八九十")} | {"两": 2}
_TOKENS = re.compile(r"[a-z]+|\d+(?:\.\d+)?", re.IGNORECASE)
_LEAD = re.compile(
    r"(?:minus |negative )?(?:\b(?:" + "|".join([*_ONES, *_TENS, *_SCALES, "and"]) + r")\b[\s-]*)+",
    re.IGNORECASE,
)
_MIXED = re.compile(
    r"([+-]?\d+(?:,\d{3})*(?:\.\d+)?)\s*(?:(hundred|thousand|million|billion|trillion|dozen)s?\b|([十百千万萬亿億兆]))",
    re.IGNORECASE,
)
_MIXED_SCALES = (
    _SCALES
    | {"trillion": 10**12, "dozen": 12}
    | dict(zip("十百千万萬亿億兆", (10, 100, 1000, 10**4, 10**4, 10**8, 10**8, 10**12), strict=True))
)


def read_number_words(text: str) -> str:
    """Replace a leading number in words by digits; other text is returned as it is.

    >>> read_number_words("twenty-one balls"), read_number_words("2.5 million"), read_number_words("3万元")
    ('21 balls', '2500000', '30000元')
    """
    mixed = _MIXED.match(text)
    if mixed:
        scale = _MIXED_SCALES[(mixed.group(2) or mixed.group(3)).lower()]
        scaled = float(mixed.group(1).replace(",", "")) * scale
        return f"{scaled:.15g}" + text[mixed.end() :] if abs(scaled) < 1e15 else text
    if text[:1] in _HAN and text[1:2] not in _HAN:
        return f"{_HAN[text[0]]}{text[1:]}"
    lead = _LEAD.match(text)
    if lead is None:
        return text
    words = [w for w in _TOKENS.findall(lead.group().lower()) if w != "and"]
    negative = words[:1] in (["minus"], ["negative"])
    value = _compose(words[1:] if negative else words)
    if value is None:
        return text
    tail = text[lead.end() :]
    return f"{'-' if negative else ''}{value}{' ' if tail else ''}{tail}"


def _compose(words: list[str]) -> int | None:
    total, group, last = 0, 0, ""
    for word in words:
        if word in _ONES:
            if last in _ONES or (last in _TENS and not 0 < _ONES[word] < 10):
                return None  # "two three" is two numbers
            group += _ONES[word]
        elif word in _TENS:
            if last in _ONES or last in _TENS:
                return None
            group += _TENS[word]
        elif word == "hundred":
            group = max(group, 1) * 100
        else:
            total, group = total + max(group, 1) * _SCALES[word], 0
        last = word
    return total + group if words else None


# --- roots and multiples of π, as geometry answers print them: `2√{3}`, `9π cm^{2}`, `3/2√{3}` ---

_TOKEN = re.compile(
    r"\s*(?:(?P<num>\d+(?:\.\d+)?)|(?P<root>√|\\?sqrt)|(?P<pi>π|\\pi\b|\bpi\b)|(?P<op>[-+*/(){}]))", re.ASCII
)
_DEEP = 8


class _SurdError(Exception):
    pass


class _Reader:
    """Recursive descent over `sum := product (± product)*`, juxtaposition multiplies, braces are brackets."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def peek(self) -> tuple[str, str]:
        """Kind and text of the next token; empty: there is none."""
        match = _TOKEN.match(self.text, self.at)
        return ("", "") if match is None else (match.lastgroup or "", match.group(match.lastgroup or 0))

    def take(self) -> tuple[str, str]:
        """The next token, read."""
        match = _TOKEN.match(self.text, self.at)
        if match is None or match.lastgroup is None:
            raise _SurdError
        self.at = match.end()
        return match.lastgroup, match.group(match.lastgroup)

    def sum(self) -> float:
        """Terms joined by plus and minus."""
        sign = -1.0 if self.peek()[1] == "-" else 1.0
        if self.peek()[1] in ("-", "+"):
            self.take()
        total = sign * self.product()
        while self.peek()[1] in ("+", "-"):
            total += self.product() if self.take()[1] == "+" else -self.product()
        return total

    def product(self) -> float:
        """Factors, joined or side by side."""
        value = self.factor()
        while True:
            kind, text = self.peek()
            if text == "*":
                self.take()
                value *= self.factor()
            elif text == "/":
                self.take()
                bottom = self.factor()
                if bottom == 0:
                    raise _SurdError
                value /= bottom
            elif kind in ("root", "pi") or text in ("(", "{"):
                value *= self.factor()
            else:
                return value

    def factor(self) -> float:
        """A number, a root, or what stands in brackets."""
        kind, text = self.take()
        if kind in ("num", "pi"):
            return math.pi if kind == "pi" else float(text)
        if kind == "root":
            inside = self.factor()
            if inside < 0:
                raise _SurdError
            return math.sqrt(inside)
        if text in ("(", "{"):
            self.depth += 1
            if self.depth > _DEEP:
                raise _SurdError
            value = self.sum()
            if self.take()[1] != {"(": ")", "{": "}"}[text]:
                raise _SurdError
            self.depth -= 1
            return value
        raise _SurdError


def _surd(text: str) -> Quantity | ScoreReason:
    """A root or a multiple of π, as a float with its unit; else NOT_A_NUMBER."""
    reader = _Reader(text)
    try:
        value = reader.sum()
    except (_SurdError, OverflowError, ValueError):
        return ScoreReason.NOT_A_NUMBER
    unit = canonical_unit(text[reader.at :])
    if unit is None or not math.isfinite(value):
        return ScoreReason.NOT_A_NUMBER
    return Quantity(value, None, 0, unit)


# --- decimal numbers, fractions and powers of ten, with unit and printed precision ---

MAX_NUMBER_CHARS = 400
_MAX_EXPONENT = 400
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_VULGAR = re.compile(r"(\d?)\s*([¼-¾⅐-⅞↉])")
_SIGNS = str.maketrans("−﹣‐‑‒–—⁄×", "-------/*")
_LATEX = {"\\times": "*", "\\cdot": "*", "\\,": " ", "\\;": " ", "\\!": "", "{,}": ","}
_LATEX |= {"\\left": "", "\\right": ""}
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_POWER = r"(?:\s?e[+-]?\d+|\s*\*\s*10\s*(?:\^|\*\*)\s*\{?\(?[+-]?\d+\)?\}?)"
_NUMBER = re.compile(
    rf"(?P<cur>[$€£¥])?\s*(?P<sign>[+-]?)\s*(?P<cur2>[$€£¥])?(?P<digits>{_DIGITS})(?P<power>{_POWER})?"
    rf"(?:(?P<num>\s+\d+)?\s*/\s*(?P<den>\d+)(?![\d.]))?",
    re.IGNORECASE | re.ASCII,
)
_TEN_TO = re.compile(r"\A([+-]?\s*)(?=10\s*(?:\^|\*\*))")
"""Where a bare power of ten begins: `10^3` is read as `1*10^3`."""
_NEGATION = re.compile(r"(?:not|never|isn't|neither)\b", re.IGNORECASE)
_NON_FINITE = re.compile(r"[+-]?\s*(?:nan|inf|infinity|infinite|∞|\\infty)", re.IGNORECASE)
_PHRASE = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|my)\s+)?(?:(?:final|correct|right)\s+)?"
    r"(?:answer|result|value|total|count|number)\s*(?:is|equals|:|=)\s*:?\s*|(?:[A-Za-z]|\\theta|∠\w+)\s*=\s*",
    re.IGNORECASE,
)
_ROOT = re.compile(r"√|\\sqrt|\bsqrt|π|\\pi\b|\bpi\b", re.IGNORECASE)
_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_FRAC = re.compile(rf"\\[dt]?frac\s*(?:{_GROUP}\s*{_GROUP}|(\d)\s*(\d))")


def parse_quantity(text: str, policy: Policy = ROBUST) -> Quantity | ScoreReason:
    r"""Read the one number of an answer.

    Returns:
        The quantity, or EMPTY_ANSWER, NOT_A_NUMBER, NON_FINITE, SEVERAL_ANSWERS (a second number),
        NEGATED_ANSWER (`not 4`), TOO_LONG.

    >>> parse_quantity("$1,000.50").value, parse_quantity("\\frac{1}{2}").value, parse_quantity("−3 cm").unit
    (Fraction(2001, 2), Fraction(1, 2), 'cm')
    """
    if len(text) > MAX_NUMBER_CHARS:
        return ScoreReason.TOO_LONG
    found = _parse(text, policy)
    if isinstance(found, Quantity) or not policy.answer_phrase:
        return found
    return _concluded(text, policy) or found


def _parse(text: str, policy: Policy) -> Quantity | ScoreReason:
    text = _prepare(text)
    if policy.answer_phrase and (lead := _PHRASE.match(text)):
        text = unwrap(text[lead.end() :])
    if not text:
        return ScoreReason.EMPTY_ANSWER
    if text.endswith((".", "。")):
        text = unwrap(text[:-1])
    if _NON_FINITE.fullmatch(text):
        return ScoreReason.NON_FINITE
    if policy.number_words:
        text = read_number_words(text)
    text = _FRAC.sub(_fraction, text)
    if _ROOT.search(text):
        return _surd(text)
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1].strip()
    text = _TEN_TO.sub(r"\g<1>1*", text)
    match = _NUMBER.match(text)
    return _not_number(text) if match is None else _quantity(match, text[match.end() :])


def _concluded(text: str, policy: Policy) -> Quantity | None:
    """The number of an answer in a sentence, if all of its conclusions are closed and say the same."""
    found = [one for one in conclusions(text) if one.cue in (Cue.ANSWER, Cue.BOXED, Cue.COUNT)]
    if not found or any(one.open for one in found) or found[-1].after.strip(" \t\n\\)]}$*.。"):
        return None
    plain = policy.model_copy(update={"answer_phrase": False})
    read = [_parse(figure(one), plain) for one in found]
    first = read[0]
    return first if isinstance(first, Quantity) and all(number == first for number in read) else None


def _prepare(text: str) -> str:
    """Plain ASCII where there is one, without losing what NFKC would glue together (`10²` is no `102`)."""
    if not text.isascii():
        text = _SUPERSCRIPTS.sub(lambda m: "^" + normalised("NFKC", m.group()), text)
        text = _VULGAR.sub(lambda m: f"{m.group(1)} {normalised('NFKC', m.group(2))}", text)
        text = drop_format(normalised("NFKC", text.translate(_SIGNS))).translate(_SIGNS)
    text = unwrap(" ".join(text.split()))
    for latex, plain in _LATEX.items():
        text = text.replace(latex, plain)
    return " ".join(text.split())


def _fraction(match: re.Match[str]) -> str:
    parts = (p.strip() for p in match.groups() if p is not None)
    return " " + "/".join(p if p.isdigit() else f"({p})" for p in parts)


def _not_number(text: str) -> ScoreReason:
    if _NEGATION.match(text):
        return ScoreReason.NEGATED_ANSWER
    numbers = re.findall(r"\d+(?:\.\d+)?", text, re.ASCII)
    return ScoreReason.SEVERAL_ANSWERS if len(set(numbers)) > 1 else ScoreReason.NOT_A_NUMBER


def _quantity(match: re.Match[str], rest: str) -> Quantity | ScoreReason:
    unit = canonical_unit(rest)
    if unit is None:
        return ScoreReason.SEVERAL_ANSWERS if re.search(r"\d", rest) else ScoreReason.NOT_A_NUMBER
    if currency := match.group("cur") or match.group("cur2"):
        unit = currency if unit in ("", currency) else f"{currency} {unit}"
    digits = match.group("digits").replace(",", "")
    exponent = _exponent(match.group("power") or "")
    if abs(exponent) > _MAX_EXPONENT:
        return ScoreReason.NON_FINITE
    # Exact arithmetic: 0.1 + 0.2 written as decimals must equal 0.3.
    value = Fraction(digits.rstrip(".")) * Fraction(10) ** exponent
    decimals = len(digits.partition(".")[2])
    # `1.5e3` prints no digit behind the point of its value, so it is exact.
    step = Fraction(10) ** (exponent - decimals) if decimals > max(exponent, 0) else None
    if match.group("den"):
        bottom = int(match.group("den"))
        if bottom == 0:
            return ScoreReason.NON_FINITE
        value = value + Fraction(int(match.group("num")), bottom) if match.group("num") else value / bottom
        step = None
    return Quantity(-value if match.group("sign") == "-" else value, step, decimals, unit)


def _exponent(power: str) -> int:
    """Of `e-3`, `*10^{-3}`, `* 10 ** (-3)`; beyond what a number holds where it is absurdly long."""
    # `int` takes quadratic time, and refuses more than 4,300 digits.
    if len(power) >= 24:
        return _MAX_EXPONENT + 1
    digits = re.search(r"[+-]?\d+\D*\Z", power, re.ASCII)
    return int(digits.group().rstrip(" )}")) if digits else 0


def plain_float(text: str) -> float | None:
    """`float` of a text with commas removed, finite, else None: the predecessor's reading of a number."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
