"""Number words, for the policy that accepts them."""

from __future__ import annotations

import re

_ONES_IN_ORDER = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_ONES = {word: i for i, word in enumerate(_ONES_IN_ORDER.split())}
_TENS_IN_ORDER = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {word: 20 + 10 * i for i, word in enumerate(_TENS_IN_ORDER.split())}
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
        value = float(mixed.group(1).replace(",", "")) * scale
        return f"{value:.15g}" + text[mixed.end() :] if abs(value) < 1e15 else text
    if text[:1] in _HAN and text[1:2] not in _HAN:
        return f"{_HAN[text[0]]}{text[1:]}"
    lead = _LEAD.match(text)
    if lead is None:
        return text
    words = [w for w in _TOKENS.findall(lead.group().lower()) if w != "and"]
    negative = words[:1] in (["minus"], ["negative"])
    value_or_none = _compose(words[1:] if negative else words)
    if value_or_none is None:
        return text
    tail = text[lead.end() :]
    return f"{'-' if negative else ''}{value_or_none}{' ' if tail else ''}{tail}"


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
