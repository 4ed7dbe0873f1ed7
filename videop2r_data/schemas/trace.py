"""The process-aware trace: what every grammar's trace has, and the default one with its three segments.

    <observation>…</observation> <think>…</think><answer>…</answer>     [paper §3.1]

Other forms are declared by a `TraceGrammar`; whatever its segments are called, a trace has the same three
views: what is seen, what is concluded, and the final answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, Self

from pydantic import field_validator

from videop2r_data.errors import TraceError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.grammar import Role, TraceGrammar, default_grammar
from videop2r_data.schemas.parser import Part, Piece, TraceParser, TraceSpans, explain, trace_parser
from videop2r_data.schemas.trace_fields import FieldValue
from videop2r_data.schemas.verdict import TraceFault

SEGMENTS = ("observation", "think", "answer")


@cache
def _default() -> TraceParser:
    """The parser of the default grammar."""
    return trace_parser(default_grammar())


class SegmentSpans(NamedTuple):
    """Where the segments of a text lie, and its first fault if it is no trace.

    A span is the first well-formed `<x>…</x>` of its name with no tag inside; with a fault, the spans found
    are still given, so that a trainer can attribute tokens of a malformed rollout.
    """

    observation: Piece | None
    think: Piece | None
    answer: Piece | None
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
        tag = _default().mark.search(value)
        if tag:
            raise ValueError(f"a segment never holds a segment tag, found {tag.group()} at {tag.start()}")
        return value

    @property
    def process(self) -> str:
        """The reasoning segment R = think + answer with their tags, as released in the column `process`."""
        return f"<think>{self.think}</think><answer>{self.answer}</answer>"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`parse_trace` as a constructor."""
        return cls.of(text, segment_spans(text))

    def columns(self) -> dict[str, Any]:
        """The columns of a released row that this trace fills."""
        return {name: getattr(self, name) for name in SEGMENTS} | {"process": self.process}

    @classmethod
    def of(cls, text: str, spans: SegmentSpans) -> Self:
        """The trace of a text whose spans are known.

        Raises:
            TraceError: the spans hold a fault.
        """
        if spans.fault is not None:
            known = TraceSpans((), spans.fault, spans.at)
            raise TraceError(explain(known), fault=spans.fault.value, at=spans.at)
        cut = [text[s.start : s.end] for s in (spans.observation, spans.think, spans.answer) if s is not None]
        # spans without a fault are content: nothing is left for the validators to find
        trace = cls.model_construct(observation=cut[0], think=cut[1], answer=cut[2])
        return trace  # type: ignore[return-value]  # pydantic's plugin knows the class, not Self


class Trace(ProcessTrace):
    """A trace of any grammar. Its three views may be blank, and hold several segments: one round a line."""

    grammar: TraceGrammar
    parts: tuple[Part, ...]
    """The segments, in order."""

    @classmethod
    def made_of(cls, grammar: TraceGrammar, parts: Sequence[Part]) -> Trace:
        """The trace with these parts; they are not looked at again."""
        answer = next(
            (part.text for name in grammar.answers for part in reversed(parts) if part.name == name), ""
        )
        return cls.model_construct(
            grammar=grammar,
            parts=tuple(parts),
            observation=_view(grammar, parts, Role.PERCEPTION),
            think=_view(grammar, parts, Role.REASONING),
            answer=answer,
        )

    @classmethod
    def found_in(cls, text: str, grammar: TraceGrammar) -> Trace:
        """What there is of a trace in any text; of a segment that a trace has once, the first counts."""
        kept: list[Part] = []
        for piece in trace_parser(grammar).spans(text).pieces:
            if piece.name not in grammar.single or all(part.name != piece.name for part in kept):
                kept.append(Part(piece.name, text[piece.start : piece.end]))
        return cls.made_of(grammar, kept)

    @property
    def process(self) -> str:
        """The trace without its perception segments, with all marks."""
        named = self.grammar.named
        rest = [part for part in self.parts if named[part.name].role is not Role.PERCEPTION]
        return trace_parser(self.grammar).render(rest)

    def texts(self, name: str) -> tuple[str, ...]:
        """The content of every segment of this name, in order."""
        return tuple(part.text for part in self.parts if part.name == name)

    def columns(self) -> dict[str, Any]:
        """The columns of a released row that this trace fills, those that its grammar adds among them."""
        single = {name: "".join(self.texts(name)) for name in self.grammar.single if name not in SEGMENTS}
        cells = [{"name": name, "text": text} for name, text in self.parts]
        return super().columns() | single | {"segments": cells}

    def fields(self, name: str) -> Iterator[tuple[FieldValue, ...]]:
        """The typed values in the segments of this name, one tuple per occurrence of a template."""
        for template in trace_parser(self.grammar).templates.get(name, ()):
            for text in self.texts(name):
                yield from template.read(text)


def _view(grammar: TraceGrammar, parts: Sequence[Part], role: Role) -> str:
    """The segments of one role as one text: a single one verbatim, else those of a round on one line."""
    order = {name: n for n, name in enumerate(grammar.named)}
    chosen = [part for part in parts if grammar.named[part.name].role is role]
    if len(chosen) == 1:
        return chosen[0].text
    lines: list[str] = []
    last = len(order)
    for name, text in chosen:
        words = " ".join(text.split())
        if order[name] <= last:
            lines.append(words)
        else:
            lines[-1] += f" {words}"
        last = order[name]
    return "\n".join(lines)


def parse_trace(text: str, grammar: TraceGrammar | None = None) -> ProcessTrace:
    r"""Read a completion; white space around and between the segments is ignored.

    Args:
        text: the completion.
        grammar: what a trace is; None: the default. With another, the result is a `Trace`.

    Raises:
        TraceError: with `fault` (a `TraceFault`) and `at` (character offset).

    >>> parse_trace("<observation>o</observation>\r\n<think>t</think> <answer>A</answer>").answer
    'A'
    >>> from videop2r_data.schemas import load_grammar
    >>> parse_trace(r"\boxed{A}<think>wait</think>\boxed{B}", load_grammar("videoauto-r1")).answer
    'B'
    """
    if grammar is None or grammar == default_grammar():
        return ProcessTrace.parse(text)
    return Trace.made_of(grammar, trace_parser(grammar).parse(text))


def render_trace(trace: ProcessTrace) -> str:
    """The canonical text of a trace: `parse_trace(render_trace(t)) == t`."""
    if isinstance(trace, Trace):
        return trace_parser(trace.grammar).render(trace.parts)
    return f"<observation>{trace.observation}</observation> {trace.process}"


def segment_spans(text: str) -> SegmentSpans:
    """Find the three segments of any text in linear time; never raises."""
    found = _default().spans(text)
    pieces: dict[str, Piece] = {}
    for piece in found.pieces:
        pieces.setdefault(piece.name, piece)
    p, t, a = map(pieces.get, SEGMENTS)
    return SegmentSpans(p, t, a, found.fault, found.at)
