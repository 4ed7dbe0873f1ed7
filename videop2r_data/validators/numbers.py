"""One number out of an answer, with its unit and its printed precision; or the reason why there is none."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from videop2r_data.schemas import ROBUST, Policy, ScoreReason
from videop2r_data.validators.conclusions import Cue, conclusions, figure
from videop2r_data.validators.number_text import read_number_words
from videop2r_data.validators.quantity import Quantity
from videop2r_data.validators.surds import parse_surd
from videop2r_data.validators.text import drop_format, normalised, unwrap
from videop2r_data.validators.units import canonical_unit

MAX_NUMBER_CHARS = 400
_MAX_EXPONENT = 400
_SUPER = str.maketrans({"²": "^2", "³": "^3", "⁴": "^4", "¹": "^1", "⁰": "^0", "⁻": "^-"})
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_VULGAR = re.compile(r"(\d?)\s*([¼-¾⅐-⅞↉])")
_SIGNS = str.maketrans(
    {"−": "-", "﹣": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "⁄": "/", "×": "*"}
)
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
        return parse_surd(text)
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
    for latex, plain in (
        ("\\times", "*"),
        ("\\cdot", "*"),
        ("\\,", " "),
        ("\\;", " "),
        ("\\!", ""),
        ("{,}", ","),
    ):
        text = text.replace(latex, plain)
    return " ".join(text.replace("\\left", "").replace("\\right", "").split())


def _fraction(match: re.Match[str]) -> str:
    top, bottom = (match.group(1), match.group(2)) if match.group(1) is not None else match.group(3, 4)
    parts = (p.strip() for p in (top, bottom))
    return " " + "/".join(p if p.isdigit() else f"({p})" for p in parts)


def _not_number(text: str) -> ScoreReason:
    if _NEGATION.match(text):
        return ScoreReason.NEGATED_ANSWER
    numbers = re.findall(r"\d+(?:\.\d+)?", text, re.ASCII)
    return ScoreReason.SEVERAL_ANSWERS if len(set(numbers)) > 1 else ScoreReason.NOT_A_NUMBER


def _quantity(match: re.Match[str], rest: str) -> Quantity | ScoreReason:
    unit = canonical_unit(rest)
    currency = match.group("cur") or match.group("cur2")
    if unit is None:
        return ScoreReason.SEVERAL_ANSWERS if re.search(r"\d", rest) else ScoreReason.NOT_A_NUMBER
    if currency:
        unit = currency if unit in ("", currency) else f"{currency} {unit}"
    digits = match.group("digits").replace(",", "")
    exponent = _exponent(match.group("power") or "")
    if abs(exponent) > _MAX_EXPONENT:
        return ScoreReason.NON_FINITE
    value = Fraction(digits.rstrip(".")) * Fraction(10) ** exponent
    decimals = len(digits.partition(".")[2])
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
