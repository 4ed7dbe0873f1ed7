"""Intervals and boxes out of answers: `[3.5, 7]`, `3.5-7 s`, `00:05 to 00:12`, `[x1, y1, x2, y2]`."""

from __future__ import annotations

import math
import re

from videop2r_data.schemas.reasons import ScoreReason
from videop2r_data.validators.text import drop_format, normalised, unwrap

MAX_CHARS = 300
_LIMIT = 1e9
_TIME = r"(?:\d{1,3}:)?\d{1,2}:\d{2}(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+"
_UNIT = r"(?:\s*(?:s|sec|secs|seconds?)\b\.?)?"
_INTERVAL = re.compile(
    rf"(?:from\s+|between\s+)?[\[({{]?\s*({_TIME}){_UNIT}\s*(?:,|;|-|~|\bto\b|\band\b|\buntil\b)\s*({_TIME}){_UNIT}"
    rf"\s*[\])}}]?\.?",
    re.IGNORECASE | re.ASCII,
)
_SIGNED = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?"
_SEP = r"\s*[,;\s]\s*"
_BOX = re.compile(
    rf"(?:\{{?\s*\"?(?:bbox|bbox_2d|box)\"?\s*[:=]\s*)?[\[(]?\s*[\[(]?\s*({_SIGNED}){_SEP}({_SIGNED})\s*[\])]?"
    rf"{_SEP}[\[(]?\s*({_SIGNED}){_SEP}({_SIGNED})\s*[\])]?\s*[\])]?\s*\}}?\.?",
    re.IGNORECASE | re.ASCII,
)
_LABEL = re.compile(r"\b[xy](?:_?(?:[12]|min|max))\s*[=:]\s*", re.IGNORECASE)
_DASHES = str.maketrans({"−": "-", "–": "-", "—": "-", "～": "~", "至": ",", "到": ","})


def _plain(text: str) -> str:
    if not text.isascii():
        text = drop_format(normalised("NFKC", text.translate(_DASHES)).translate(_DASHES))
    return unwrap(text)


def _seconds(clock: str) -> float:
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total


def parse_interval(text: str) -> tuple[float, float] | ScoreReason:
    """Seconds `(start, end)` with 0 <= start < end; EMPTY_ANSWER, TOO_LONG or BAD_INTERVAL otherwise.

    >>> parse_interval("[3.5, 7]"), parse_interval("00:05 to 01:10")
    ((3.5, 7.0), (5.0, 70.0))
    """
    if len(text) > MAX_CHARS:
        return ScoreReason.TOO_LONG
    text = _plain(text)
    if not text:
        return ScoreReason.EMPTY_ANSWER
    match = _INTERVAL.fullmatch(text)
    if match is None:
        return ScoreReason.BAD_INTERVAL
    start, end = _seconds(match.group(1)), _seconds(match.group(2))
    return (start, end) if start < end <= _LIMIT else ScoreReason.BAD_INTERVAL


def parse_box(text: str) -> tuple[float, float, float, float] | ScoreReason:
    """`(x1, y1, x2, y2)` with x1 < x2 and y1 < y2; EMPTY_ANSWER, TOO_LONG or BAD_BOX otherwise.

    >>> parse_box("(0, 1), (2, 3)")
    (0.0, 1.0, 2.0, 3.0)
    """
    if len(text) > MAX_CHARS:
        return ScoreReason.TOO_LONG
    text = _LABEL.sub("", _plain(text))
    if not text:
        return ScoreReason.EMPTY_ANSWER
    match = _BOX.fullmatch(text)
    if match is None:
        return ScoreReason.BAD_BOX
    x1, y1, x2, y2 = (float(g) for g in match.groups())
    big = max(abs(v) for v in (x1, y1, x2, y2))
    if not (math.isfinite(big) and big <= _LIMIT and x1 < x2 and y1 < y2):
        return ScoreReason.BAD_BOX
    return x1, y1, x2, y2
