"""Typed values inside a segment: times, boxes, points, frames, numbers and labels, read by templates.

A template is text with holes: `<obj>{object: label}</obj>`, `{start: time mm:ss}-{end: time mm:ss}`. A hole
says name, type and unit. The unit is declared because no text tells it: published formats write boxes in
pixels, in fractions and in thousandths, all as four numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from typing import NamedTuple, Self

_NUMBER = r"[-+]?\d{1,9}(?:\.\d{1,6})?"
_LIST = r"[\[(]\s*{0}(?:\s*,\s*{0}){{{1}}}\s*[\])]"
_CLOCK = r"(?:\d{1,3}:)?\d{1,3}:\d{1,2}(?:\.\d{1,3})?"
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "time": (r"\d{1,7}(?:\.\d{1,6})?", ("seconds", "mm:ss", "percent", "fraction")),
    "box": (_LIST.format(_NUMBER, 3), ("pixels", "fraction", "per_mille")),
    "point": (_LIST.format(_NUMBER, 1), ("pixels", "fraction", "per_mille", "percent")),
    "frame": (r"\d{1,9}", ("",)),
    "number": (_NUMBER, ("",)),
    "label": (r"[^<>{}\[\]]{1,200}?", ("",)),
}
"""Type of a hole -> how it is written, and the units it may have. All bounded: reading stays linear."""
_EXAMPLES = {
    ("time", "seconds"): "2.5",
    ("time", "mm:ss"): "00:05",
    ("time", "percent"): "12.5",
    ("box", "pixels"): "[10, 20, 110, 90]",
    ("box", "fraction"): "[0.1, 0.2, 0.5, 0.9]",
    ("box", "per_mille"): "[100, 200, 500, 900]",
    ("point", "fraction"): "[0.1, 0.2]",
}
_PLAIN_EXAMPLES = {"time": "0.5", "point": "[10, 20]", "frame": "12", "number": "3"}
"""Type and unit, else type of a hole -> how it may be filled."""
_HIGHEST = {"fraction": 1.0, "percent": 100.0, "per_mille": 1000.0}
_HOLE = re.compile(r"\{ *([a-z][a-z0-9_]{0,31}) *: *([a-z]+)(?: +([a-z_:]+))? *\}")


class FieldValue(NamedTuple):
    """One typed value in a text.

    Attributes:
        name, kind, unit: as the template says.
        value: seconds, a percentage or a fraction for `time` (mm:ss is turned into seconds); numbers for
        `box`
            (x1, y1, x2, y2) and `point` (x, y); a number; or the text of a label.
        start, end: character offsets.
    """

    name: str
    kind: str
    unit: str
    value: float | tuple[float, ...] | str
    start: int
    end: int

    @property
    def numbers(self) -> tuple[float, ...]:
        """The value as numbers; none of a label."""
        if isinstance(self.value, str):
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)


class Shown(NamedTuple):
    """What is known of the media that a trace is about; None: it is not known.

    Attributes:
        seconds: length of the clip.
        frames: frames of the clip.
        width, height: pixels; the larger of the source and of the frame that was sent, for a box may mean
            either.
    """

    seconds: float | None = None
    frames: int | None = None
    width: float | None = None
    height: float | None = None

    @classmethod
    def by_frames(
        cls,
        indices: Sequence[int],
        times_s: Sequence[float],
        times: str | None,
        *,
        start_s: float | None = None,
    ) -> Self:
        """What sampled frames tell of their clip, of which they hold the first and the last.

        Args:
            indices: of the frames in the clip.
            times_s: of the frames, in seconds; anything, in rows of other people.
            times: `assumed`: the times say nothing of the clip.
            start_s: where the part begins that the frames are of: a model is told times and frames from there
                on; None: of the whole clip.
        """
        if len(indices) < 2 or len(times_s) < 2 or not 0 <= indices[0] < indices[-1]:
            return cls()  # one frame tells nothing of what is behind it
        end = times_s[-1] + (times_s[-1] - times_s[0]) / (indices[-1] - indices[0])
        known = times != "assumed" and math.isfinite(end)
        first = 0 if start_s is None else indices[0]
        return cls(round(end - (start_s or 0.0), 6) if known else None, indices[-1] + 1 - first)


NOT_SHOWN = Shown()


class Template:
    """A template, compiled."""

    def __init__(self, text: str) -> None:
        """Compile a template.

        Raises:
            ValueError: no hole, an unknown type or unit, or a name twice.
        """
        self.holes: list[tuple[str, str, str]] = []
        pattern, at = "", 0
        for hole in _HOLE.finditer(text):
            name, kind, unit = hole.group(1), hole.group(2), hole.group(3) or ""
            if kind not in _KINDS:
                raise ValueError(f"{text!r}: a hole is {', '.join(_KINDS)}, not {kind!r}")
            if unit not in _KINDS[kind][1]:
                allowed = ", ".join(_KINDS[kind][1]) or "none"
                raise ValueError(f"{text!r}: units of {kind} are {allowed}; not {unit!r}: say which it is")
            if any(name == known for known, _, _ in self.holes):
                raise ValueError(f"{text!r}: two holes are called {name!r}")
            self.holes.append((name, kind, unit))
            written = _CLOCK if unit == "mm:ss" else _KINDS[kind][0]
            pattern += f"{_literal(text[at : hole.start()])}({written})"
            at = hole.end()
        if not self.holes:
            raise ValueError(f"{text!r} has no hole such as {{at: time seconds}}")
        self.pattern = re.compile(pattern + _literal(text[at:]))
        self.text = text

    def example(self) -> str:
        """The template with a value in each hole; a label is the name of its hole."""
        return self.write(
            {
                name: _EXAMPLES.get((kind, unit)) or _PLAIN_EXAMPLES.get(kind, name)
                for name, kind, unit in self.holes
            }
        )

    def write(self, values: Mapping[str, str]) -> str:
        """The template with a value in each hole, by the names of the holes."""
        return _HOLE.sub(lambda h: values[h.group(1)], self.text)

    def fits(self, text: str) -> bool:
        """Whether the whole text, but for white space around it, is one occurrence of the template."""
        return self.pattern.fullmatch(text.strip()) is not None

    def read(self, text: str, offset: int = 0) -> Iterator[tuple[FieldValue, ...]]:
        """Each occurrence of the template: its values in order.

        Args:
            text: the content of a segment.
            offset: of the content in the whole trace; added to `start` and `end`.
        """
        for found in self.pattern.finditer(text):
            yield tuple(
                FieldValue(
                    name, kind, unit, _value(kind, unit, found.group(n)), *(x + offset for x in found.span(n))
                )
                for n, (name, kind, unit) in enumerate(self.holes, 1)
            )


def _literal(text: str) -> str:
    """The text of a template between holes; where it has white space, any is read."""
    return r"\s*".join(re.escape(part) for part in re.split(r"\s+", text))


def _value(kind: str, unit: str, text: str) -> float | tuple[float, ...] | str:
    if kind == "label":
        return text.strip()
    if kind in ("box", "point"):
        return tuple(float(x) for x in re.findall(_NUMBER, text))
    if unit == "mm:ss":
        seconds = 0.0
        for part in text.split(":"):
            seconds = 60 * seconds + float(part)
        return seconds
    return float(text)


def nonsense(values: Sequence[FieldValue], shown: Shown = NOT_SHOWN) -> str:
    """What cannot be in the values of one template, in words; "" if nothing is wrong.

    A span starts before it ends, and both lie in the clip; the corners of a box are in order and in the
    frame; fractions lie in [0, 1], percentages in [0, 100] and thousandths in [0, 1000]. A time may lie
    anywhere in the second that the clip ends in: whole seconds are what models write.
    """
    for one, following in pairwise(value for value in values if value.kind == "time"):
        if not one.value < following.value:  # type: ignore[operator]
            return f"{_said(one)} is not before {_said(following)}"
    for value in values:
        numbers = value.numbers
        highest = _highest(value, shown)
        if highest and not all(0 <= n <= high for n, high in zip(numbers, cycle(highest), strict=False)):
            most = " by ".join("any" if high == math.inf else f"{high:g}" for high in highest)
            return f"{_said(value)} {value.unit} is not within 0 to {most}".replace("  ", " ")
        if value.kind == "box" and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
            return f"the corners of {_said(value)} are not in order"
    return ""


def _highest(value: FieldValue, shown: Shown) -> tuple[float, ...]:
    """The highest number, or the highest x and y, that such a value can have; empty: it may be any."""
    if value.unit in _HIGHEST:
        return (_HIGHEST[value.unit],)
    if value.kind == "time":
        return (math.inf if shown.seconds is None else math.ceil(shown.seconds),)
    if value.kind == "frame":
        return (shown.frames or math.inf,)
    return (shown.width or math.inf, shown.height or math.inf) if value.unit == "pixels" else ()


def _said(value: FieldValue) -> str:
    numbers = ", ".join(f"{number:.10g}" for number in value.numbers)
    return f"{value.name} [{numbers}]" if isinstance(value.value, tuple) else f"{value.name} {numbers}"
