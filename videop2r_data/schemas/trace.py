"""The process-aware trace: three segments, an exact parser and its canonical rendering.

    <observation>…</observation> <think>…</think><answer>…</answer>     [paper §3.1]

The six tags are matched exactly (case, no attributes, no spaces). Anything that only looks like one is text:
harmless inside a segment, a fault outside of one. Every function here is total and linear in its input.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from pydantic import field_validator

from videop2r_data.errors import TraceError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.verdict import TraceFault

SEGMENTS = ("observation", "think", "answer")
_TAG = re.compile(r"<(/?)(observation|think|answer)>")
_PLAIN = re.compile(
    r"\s*<observation>([^<]*)</observation>\s*<think>([^<]*)</think>\s*<answer>([^<]*)</answer>\s*"
)
"""A faultless trace without any `<` in its segments: nearly all of them; every part of it is unambiguous."""
_FAULTS = {
    TraceFault.MISSING_OBSERVATION: "no <observation>…</observation>",
    TraceFault.MISSING_THINK: "no <think>…</think>",
    TraceFault.MISSING_ANSWER: "no <answer>…</answer>",
    TraceFault.REPEATED_TAG: "a segment stands twice",
    TraceFault.NESTED_TAG: "a tag inside another segment",
    TraceFault.OUT_OF_ORDER: "the segments are not in the order observation, think, answer",
    TraceFault.UNCLOSED_TAG: "a segment is opened and never closed",
    TraceFault.STRAY_CLOSING_TAG: "a closing tag with nothing open",
    TraceFault.TEXT_OUTSIDE: "text outside the segments",
    TraceFault.EMPTY_SEGMENT: "a segment is blank",
}


class Span(NamedTuple):
    """Character offsets of one segment: `text[start:end]` is its content, `text[open:close]` has its tags."""

    open: int
    start: int
    end: int
    close: int


class SegmentSpans(NamedTuple):
    """Where the segments of a text lie, and its first fault if it is no trace.

    A span is the first well-formed `<x>…</x>` of its name with no tag inside; with a fault, the spans found
    are still given, so that a trainer can attribute tokens of a malformed rollout.
    """

    observation: Span | None
    think: Span | None
    answer: Span | None
    fault: TraceFault | None
    at: int
    """Character offset of the fault, or -1."""


class ProcessTrace(Model):
    """The content of the three segments, verbatim (surrounding white space included)."""

    observation: str
    think: str
    answer: str

    @field_validator("observation", "think", "answer")
    @classmethod
    def _is_content(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a segment is never blank")
        tag = _TAG.search(value)
        if tag:
            raise ValueError(f"a segment never holds a segment tag, found {tag.group()} at {tag.start()}")
        return value

    @property
    def process(self) -> str:
        """The reasoning segment R = think + answer with their tags, as released in the column `process`."""
        return f"<think>{self.think}</think><answer>{self.answer}</answer>"

    @classmethod
    def of(cls, text: str, spans: SegmentSpans) -> Self:
        """The trace of a text whose spans are known.

        Raises:
            TraceError: the spans hold a fault.
        """
        if spans.fault is not None:
            raise TraceError(_FAULTS[spans.fault], fault=spans.fault.value, at=spans.at)
        cut = [text[s.start : s.end] for s in (spans.observation, spans.think, spans.answer) if s is not None]
        # spans without a fault are content: nothing is left for the validators to find
        trace = cls.model_construct(observation=cut[0], think=cut[1], answer=cut[2])
        return trace  # type: ignore[return-value]  # pydantic's plugin knows the class, not Self


def parse_trace(text: str) -> ProcessTrace:
    r"""Read a completion; white space around and between the segments is ignored.

    Raises:
        TraceError: with `fault` (a `TraceFault`) and `at` (character offset).

    >>> parse_trace("<observation>o</observation>\r\n<think>t</think> <answer>A</answer>").answer
    'A'
    """
    return ProcessTrace.of(text, segment_spans(text))


def render_trace(trace: ProcessTrace) -> str:
    """The canonical text of a trace: `parse_trace(render_trace(t)) == t`."""
    return f"<observation>{trace.observation}</observation> {trace.process}"


def segment_spans(text: str) -> SegmentSpans:
    """Find the three segments of any text in linear time; never raises."""
    # Fast path for faultless traces without `<`; the scan below gives the same spans in three times the time.
    plain = _PLAIN.fullmatch(text)
    if plain is not None and not any(plain.group(i).isspace() or not plain.group(i) for i in (1, 2, 3)):
        o, t, a = (
            Span(plain.start(i + 1) - n - 2, plain.start(i + 1), plain.end(i + 1), plain.end(i + 1) + n + 3)
            for i, n in enumerate(map(len, SEGMENTS))
        )
        return SegmentSpans(o, t, a, None, -1)
    scan = _Scan(text)
    for match in _TAG.finditer(text):
        (scan.close if match.group(1) else scan.open)(match)
    return scan.finish()


class _Scan:
    """One pass over the tags of a text: what is open, what was found, and the first fault."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: dict[str, Span] = {}
        self.fault: tuple[TraceFault, int] | None = None
        self.opened: tuple[str, int, int] | None = None  # name, offset of its tag, offset of its content
        self.last = 0  # end of the last closing tag

    def note(self, kind: TraceFault, at: int) -> None:
        self.fault = self.fault or (kind, at)

    def gap(self, end: int) -> None:
        between = self.text[self.last : end]
        if between and not between.isspace():
            self.note(TraceFault.TEXT_OUTSIDE, end - len(between.lstrip()))

    def open(self, tag: re.Match[str]) -> None:
        name = tag.group(2)
        if self.opened is not None:
            self.note(TraceFault.NESTED_TAG, tag.start())
        else:
            self.gap(tag.start())
            if name in self.found:
                self.note(TraceFault.REPEATED_TAG, tag.start())
        self.opened = (name, tag.start(), tag.end())

    def close(self, tag: re.Match[str]) -> None:
        if self.opened is None:
            self.gap(tag.start())
            self.note(TraceFault.STRAY_CLOSING_TAG, tag.start())
        elif self.opened[0] != tag.group(2):
            self.note(TraceFault.NESTED_TAG, tag.start())
        else:
            self.keep(Span(self.opened[1], self.opened[2], tag.start(), tag.end()))
        # A closing tag of another name ends what was open, too: the text behind it is outside again.
        self.opened, self.last = None, tag.end()

    def keep(self, span: Span) -> None:
        assert self.opened is not None
        if self.opened[0] not in self.found:
            self.found[self.opened[0]] = span
            if not self.text[span.start : span.end].strip():
                self.note(TraceFault.EMPTY_SEGMENT, span.start)

    def finish(self) -> SegmentSpans:
        if self.opened is not None:
            self.note(TraceFault.UNCLOSED_TAG, self.opened[1])
        else:
            self.gap(len(self.text))
        spans = [self.found.get(name) for name in SEGMENTS]
        missing = next((name for name, span in zip(SEGMENTS, spans, strict=True) if span is None), None)
        opens = [span.open for span in spans if span is not None]
        if missing is not None:
            if self.fault is None or self.fault[0] is TraceFault.TEXT_OUTSIDE:
                # the hole says more than the text around it
                at = self.fault[1] if self.fault else len(self.text)
                self.fault = (TraceFault(f"missing_{missing}"), at)
        elif opens != sorted(opens):
            self.note(TraceFault.OUT_OF_ORDER, min(opens))
        fault, at = self.fault or (None, -1)
        return SegmentSpans(spans[0], spans[1], spans[2], fault, at)
