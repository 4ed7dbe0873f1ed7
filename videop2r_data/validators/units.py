"""Units: one canonical name each, no conversion between them."""

from __future__ import annotations

import re

_ALIASES = {
    "%": "% percent percentage pct",
    "°": "° deg degree degrees 度",
    "°c": "°c celsius degc 摄氏度",
    "°f": "°f fahrenheit degf",
    "mm": "mm millimeter millimetre 毫米",
    "cm": "cm centimeter centimetre 厘米",
    "m": "m meter metre 米",
    "km": "km kilometer kilometre 千米 公里",
    "nmi": "nmi 海里",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "s": "s sec second 秒",
    "ms": "ms millisecond 毫秒",
    "min": "min minute 分钟",
    "h": "h hr hour 小时",
    "g": "g gm gram 克",
    "kg": "kg kilogram 千克 公斤",
    "l": "l liter litre 升",
    "ml": "ml milliliter millilitre 毫升",
    "$": "$ usd dollar dollars",
    "€": "€ eur euro",
    "£": "£ gbp pound",
    "¥": "¥ cny rmb yuan 元",
}
_CANONICAL = {alias: unit for unit, aliases in _ALIASES.items() for alias in aliases.split()}
_LATEX = re.compile(r"\\(?:text|mathrm|mbox|rm)\b|[{}\\~]")
_POWER = re.compile(r"\s*(?:\^|\*\*)\s*\(?([23])\)?")
_SQUARE = re.compile(r"\b(square|sq\.?|cubic|平方|立方)\s*(\S+)|(平方|立方)(\S+)")
_SHAPE = re.compile(r"[^\W\d_%°$€£¥]+[23]?(?:\s*[/·*]\s*[^\W\d_]+[23]?)*|[%°$€£¥][cf]?")


def canonical_unit(text: str) -> str | None:
    r"""The canonical name of a unit or counted noun; `""` for no unit, None if it is no unit at all.

    >>> [canonical_unit(unit) for unit in ("centimeters", "cm^{2}", "red balls", "or 5")]
    ['cm', 'cm2', 'red ball', None]
    """
    text = text.replace("^\\circ", "°").replace("^{\\circ}", "°").replace("\\circ", "°").replace("\\%", "%")
    text = " ".join(_LATEX.sub(" " if "\\ " in text else "", text).split()).casefold().strip(" .,;()")
    if not text:
        return ""
    text = _POWER.sub(r"\1", text)
    text = _SQUARE.sub(_powered, text).replace(" per ", "/")
    if text in _CANONICAL:
        return _CANONICAL[text]
    parts = text.split()
    if len(parts) > 3 or any(p in _NEVER for p in parts):
        return None
    if not all(_SHAPE.fullmatch(p) or p == "/" for p in parts):
        return None
    return "/".join(" ".join(_one(w) for w in side.split()) for side in text.replace("·", "*").split("/"))


_NEVER = frozenset(
    """
    or and not to from than more less fewer least most over under about between per plus minus
    times x by hundred thousand million billion trillion dozen half quarter third k maybe perhaps
    if but either neither nor no is are was i unknown without except only exactly e pi
    """.split()  # noqa: SIM905 -- a list of sixty words reads better as words
)
"""Words that never name a unit or a counted thing: they change the number, or doubt it."""


def _powered(match: re.Match[str]) -> str:
    word, unit = (match.group(1), match.group(2)) if match.group(1) else (match.group(3), match.group(4))
    return f"{_one(unit)}{2 if word.startswith(('sq', '平')) else 3}"


def _one(word: str) -> str:
    """Singular and canonical: `meters` -> `m`, `balls` -> `ball`, `cm2` -> `cm2`."""
    stem, power = (word[:-1], word[-1]) if word[-1:] in "23" and word else (word, "")
    if stem in _CANONICAL:
        return _CANONICAL[stem] + power
    if len(stem) > 3 and stem.endswith("s") and not stem.endswith("ss"):
        single = stem[:-1]
        return _CANONICAL.get(single, single) + power
    return stem + power
