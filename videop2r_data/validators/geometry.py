"""Intervals and boxes out of answers, in the forms in which models print them.

`[3.5, 7]`, `3.5-7 s`, `00:05 to 00:12`, `{"start": 3, "end": 5}`, `from 3 to 5 seconds`; `[x1, y1, x2, y2]`,
`{"bbox_2d": […]}`, `<|box_start|>(x1,y1),(x2,y2)<|box_end|>`. Coordinates and times are taken as they stand:
nothing is converted here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from videop2r_data.schemas import ScoreReason
from videop2r_data.validators.metrics import drop_format, normalised, unwrap

MAX_CHARS = 2000
MAX_PLAIN_CHARS = 300
"""An answer that is longer must be JSON."""
_LIMIT = 1e9
_MAX_DEPTH = 8
"""Lists in lists that are looked into."""
_CLOCK = r"(?:\d{1,3}:)?\d{1,2}:\d{2}(?:\.\d+)?"
_MINUTES = (
    r"\d{1,3}\s*m(?:in(?:ute)?s?)?\b(?:\s*(?:and\s+)?\d{1,2}(?:\.\d+)?\s*s(?:ec(?:ond)?s?)?\b)?"
    r"|\d{1,3}m\d{1,2}s"
)
_TIME = rf"{_CLOCK}|{_MINUTES}|\d+(?:\.\d*)?|\.\d+"
_UNIT = r"(?:\s*(?:(?:s|sec|secs|seconds?)\b\.?|秒))?"
_JOIN = r"(?:,|;|-|~|\bto\b|\band\b|\buntil\b|\btill\b)"
_FIRST = r"(?:(?:from|between|at|(?:starts?|begins?)(?:\s+(?:at|time))?)\b\s*[:=]?\s*)?"
_THEN = r"(?:and\s+)?(?:(?:ends?|stops?|finishes)(?:\s+(?:at|time))?\s*[:=]?\s*)?"
_INTERVAL = re.compile(
    rf"{_FIRST}[\[({{<]?\s*({_TIME}){_UNIT}\s*{_JOIN}\s*{_THEN}({_TIME}){_UNIT}\s*[\])}}>]?\.?",
    re.IGNORECASE | re.ASCII,
)
_BARE = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_BARE_MINUTES = re.compile(r"\d+\s*m(?:in(?:ute)?s?)?", re.IGNORECASE | re.ASCII)
_SECONDS_BEHIND = re.compile(r"\s*(?:s(?:ec(?:ond)?s?)?\b|秒)", re.IGNORECASE)
_SIGNED = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?"
_SEP = r"\s*[,;\s]\s*"
_BOX = re.compile(
    rf"(?:\{{?\s*\"?(?:bbox|bbox_2d|box)\"?\s*[:=]\s*)?[\[(]?\s*[\[(]?\s*({_SIGNED}){_SEP}({_SIGNED})\s*[\])]?"
    rf"{_SEP}[\[(]?\s*({_SIGNED}){_SEP}({_SIGNED})\s*[\])]?\s*[\])]?\s*\}}?\.?",
    re.IGNORECASE | re.ASCII,
)
_BRACKETED = re.compile(
    rf"[\[(]\s*{_SIGNED}(?:[,;\s()\[\]]+{_SIGNED}){{3}}\s*[\])]", re.IGNORECASE | re.ASCII
)
_LABEL = re.compile(r"\b[xy](?:_?(?:[12]|min|max))\s*[=:]\s*", re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)
_MARKS = re.compile(
    r"<\|object_ref_start\|>.*?<\|object_ref_end\|>|<ref>.*?</ref>|<\|box_(?:start|end)\|>|</?(?:box|t|time)>",
    re.DOTALL | re.IGNORECASE,
)
"""Marks of models around boxes and times, with the name of the object in front."""
_OTHER_UNIT = re.compile(
    r"\s*[\])}>]?\s*(?:(?:m|h|ms|mins?|minutes?|hrs?|hours?|milliseconds?|msecs?)\b|分|小[时時]|[时時](?!间|間)|毫秒|ミリ)",
    re.IGNORECASE,
)
"""Behind a match: its numbers are no seconds."""
_NEGATED = re.compile(r"\b(?:not|never|neither|except|without|outside)\b|n't\b", re.IGNORECASE)
_CLEAR = re.compile(r"from|between|start|begin|[\[({<:秒]|\d\s*s", re.IGNORECASE)
"""What marks two numbers as times."""
_APART = re.compile(
    rf"\b(?:start|begin)\w*\b\D{{0,24}}?({_TIME}){_UNIT}\D{{0,40}}?\b(?:end|stop|finish)\w*\b\D{{0,24}}?({_TIME}){_UNIT}",
    re.IGNORECASE | re.ASCII,
)
"""A start and an end with words between."""
_SECOND = re.compile(r"\bsecond\s+(?=\d)", re.IGNORECASE)
_NO_SECONDS = re.compile(
    r"%|\bframes?\b|\d\s*(?:ms|hrs?|hours?|milliseconds?)\b|\d\s*(?:分|小[时時])", re.IGNORECASE
)
_STARTS = ("start", "start_time", "start_sec", "begin", "from", "t_start")
_ENDS = ("end", "end_time", "end_sec", "stop", "to", "t_end")
_SPANS = (
    *("timestamp", "timestamps", "time", "time_range"),
    *("span", "segment", "interval", "temporal_grounding"),
)
_BOXES = ("bbox_2d", "bbox", "box")
_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"))
_OTHER_BOX = ("format", "box_format", "mode")
_DASHES = str.maketrans({"−": "-", "–": "-", "—": "-", "～": "~", "至": ",", "到": ","})


def _seconds(text: str) -> float:
    """Seconds of a clock time, of `1 min 5 s`, or of a plain number."""
    minutes = re.match(r"(\d+)\s*m", text, re.IGNORECASE)
    if minutes:
        rest = re.search(r"[\d.]+", text[minutes.end() :])
        return int(minutes.group(1)) * 60 + (float(rest.group()) if rest else 0.0)
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def parse_interval(text: str) -> tuple[float, float] | ScoreReason:
    """Seconds `(start, end)` with 0 <= start < end.

    Returns:
        The interval, or EMPTY_ANSWER, TOO_LONG, BAD_INTERVAL, SEVERAL_ANSWERS (two that differ).

    >>> parse_interval("[3.5, 7]"), parse_interval("00:05 to 01:10"), parse_interval('{"start": 3, "end": 5}')
    ((3.5, 7.0), (5.0, 70.0), (3.0, 5.0))
    """
    text = _strip(text)
    if isinstance(text, ScoreReason):
        return text
    value = _json(text)
    found = list(_spans_in(value))
    if value is None:
        matches = _one_or_all(_INTERVAL, text)
        # `from 1 to 2 minutes` is handled by `_span`; milliseconds and hours are never converted.
        if any(_OTHER_UNIT.match(text, match.end()) for match in matches):
            return ScoreReason.BAD_INTERVAL
        found = [_span(match) for match in matches]
    if len(set(found)) != 1:
        return ScoreReason.SEVERAL_ANSWERS if found else ScoreReason.BAD_INTERVAL
    start, end = found[0]
    return (start, end) if 0 <= start < end <= _LIMIT else ScoreReason.BAD_INTERVAL


def marked_interval(text: str) -> tuple[float, float] | None:
    """The one interval of a text that words or brackets mark as one, beside other numbers.

    More lenient than `parse_interval`, for completions that are evaluated; None: none, several, no telling.

    >>> marked_interval("In the 45 second clip it starts at 3 s. It ends at 5 s.")
    (3.0, 5.0)
    >>> marked_interval("Player 3 wins 5 to 2.") is None
    True
    """
    if len(text) > MAX_CHARS:
        return None
    plain = drop_format(normalised("NFKC", text.translate(_DASHES))).translate(_DASHES)
    plain = _SECOND.sub("", plain.replace("第", "").replace("から", " to "))
    if _NEGATED.search(plain) or _NO_SECONDS.search(plain):
        return None
    found = [_span(match) for match in _INTERVAL.finditer(plain) if _CLEAR.search(match.group())]
    found += [_span(match) for match in _APART.finditer(plain)]
    start, end = found[0] if len(set(found)) == 1 else (0.0, 0.0)
    return (start, end) if start < end <= _LIMIT else None


def parse_box(text: str) -> tuple[float, float, float, float] | ScoreReason:
    """`(x1, y1, x2, y2)` with x1 < x2 and y1 < y2, in the unit in which they are printed.

    Returns:
        The box, or EMPTY_ANSWER, TOO_LONG, BAD_BOX, SEVERAL_ANSWERS (two that differ).

    >>> parse_box("(0, 1), (2, 3)"), parse_box('[{"bbox_2d": [0, 1, 2, 3], "label": "a car"}]')
    ((0.0, 1.0, 2.0, 3.0), (0.0, 1.0, 2.0, 3.0))
    """
    text = _strip(text)
    if isinstance(text, ScoreReason):
        return text
    value = _json(text)
    found = list(_boxes_in(value))
    if value is None:
        plain = _LABEL.sub("", text)
        whole = _BOX.fullmatch(plain)
        matches = [whole] if whole else [_BOX.fullmatch(m.group()) for m in _one_or_all(_BRACKETED, plain)]
        found = [_box(match.groups()) for match in matches if match is not None]
    if len(set(found)) != 1:
        return ScoreReason.SEVERAL_ANSWERS if found else ScoreReason.BAD_BOX
    x1, y1, x2, y2 = found[0]
    big = max(map(abs, found[0]))
    if not (math.isfinite(big) and big <= _LIMIT and x1 < x2 and y1 < y2):
        return ScoreReason.BAD_BOX
    return x1, y1, x2, y2


def _strip(text: str) -> str | ScoreReason:
    """The text without fence, marks and wraps."""
    if len(text) > MAX_CHARS:
        return ScoreReason.TOO_LONG
    if not text.isascii():
        text = drop_format(normalised("NFKC", text.translate(_DASHES)).translate(_DASHES))
    text = unwrap(text)
    fence = _FENCE.fullmatch(text)
    text = unwrap(_MARKS.sub(" ", fence.group(1) if fence else text))
    if not text:
        return ScoreReason.EMPTY_ANSWER
    return ScoreReason.TOO_LONG if len(text) > MAX_PLAIN_CHARS and text[0] not in "[{" else text


def _one_or_all(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The match of the whole text, else all matches of a sentence in which no other number stands."""
    if (whole := pattern.fullmatch(text)) is not None:
        return [whole]
    rest = pattern.sub(" ", text)
    # Another number in the sentence (a frame index, a second event) leaves open which pair is meant.
    if re.search(r"\d|%|\bframes?\b", rest, re.IGNORECASE) or _NEGATED.search(rest):
        return []
    return list(pattern.finditer(text))


def _span(match: re.Match[str]) -> tuple[float, float]:
    first, second = match.group(1, 2)
    between = match.string[match.end(1) : match.start(2)]
    if _BARE_MINUTES.fullmatch(second) and _BARE.fullmatch(first) and not _SECONDS_BEHIND.match(between):
        return _seconds(first) * 60, _seconds(second)  # `from 1 to 2 minutes`
    return _seconds(first), _seconds(second)


def _box(numbers: Any) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = map(float, numbers)
    return x1, y1, x2, y2


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object in order; models repeat keys, and a dict would keep the last one only."""


def _json(text: str) -> Any:
    """The value of a JSON text, objects as `_Pairs`; None if it is none."""
    if text[0] not in "[{":
        return None
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    # A text of brackets nests deeper than the parser of `json` can follow.
    except RecursionError:
        return ()  # JSON, with nothing in it that is looked at
    except ValueError:
        return None


def _objects(value: Any, depth: int = 0) -> Iterator[Any]:
    """The value itself, or the elements of a list of objects or lists."""
    if isinstance(value, list) and not isinstance(value, _Pairs) and value and isinstance(value[0], list):
        for element in value if depth < _MAX_DEPTH else ():
            yield from _objects(element, depth + 1)
    else:
        yield value


def _readings(members: _Pairs) -> Iterator[dict[str, Any]]:
    """The members by key; a key that is repeated is read by its last value, and by its first."""
    for pairs in (members, members[::-1]):
        yield {key.casefold(): member for key, member in pairs}


def _spans_in(value: Any) -> Iterator[tuple[float, float]]:
    for pair in (pair for one in _objects(value) for pair in _pairs_of(one)):
        if isinstance(pair, str) and (match := _INTERVAL.fullmatch(pair.strip())):
            yield _span(match)
        elif isinstance(pair, list) and not isinstance(pair, _Pairs) and len(pair) == 2:
            times = [_json_seconds(time) for time in pair]
            if times[0] is not None and times[1] is not None:
                yield times[0], times[1]


def _pairs_of(one: Any) -> Iterator[Any]:
    if not isinstance(one, _Pairs):
        yield one
        return
    for members in _readings(one):
        starts, ends = ([members[k] for k in keys if k in members] for keys in (_STARTS, _ENDS))
        yield from ([start, end] for start in starts for end in ends)
        if not (starts and ends):
            yield next((members[k] for k in _SPANS if k in members), None)


def _json_seconds(value: Any) -> float | None:
    if isinstance(value, str):
        time = re.fullmatch(rf"({_TIME}){_UNIT}", value.strip(), re.IGNORECASE | re.ASCII)
        return _seconds(time.group(1)) if time else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= _LIMIT else None


def _boxes_in(value: Any) -> Iterator[tuple[float, float, float, float]]:
    for one in _objects(value):
        if not isinstance(one, _Pairs):
            yield from _four(one)
            continue
        readings = list(_readings(one))
        if any(name in readings[0] for name in _OTHER_BOX):
            continue  # the object says that its numbers mean something else, perhaps
        for names in _CORNERS:
            if all(name in readings[0] for name in names):
                for members in readings:
                    yield from _four([members[name] for name in names])
        for key, member in one:
            if key.casefold() in _BOXES:
                for box in _objects(member):
                    yield from _four(box)


def _four(value: Any) -> Iterator[tuple[float, float, float, float]]:
    four = value if isinstance(value, list) and len(value) == 4 else [None]
    if all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= _LIMIT for n in four):
        yield _box(four)
