"""A completion held against its trace grammar: which stream owns which part of the text, and which stream
broke the form.

A piece belongs to its segment's stream, with the white space in front of it. Pieces count as far as they
stand, from the start of the text, where the grammar wants them, with nothing but white space between them.
What is behind them belongs to

- the stream of the last piece, if the text is a trace (white space and the end-of-turn token);
- the stream of the segment that is opened there and never closed;
- else to all streams that may still come: one alone owns it, several share it.

A stream answers for its own form only: its segments must all be there, each with content in its declared
form, and nothing in the text that it owns may be out of place. Where segments of other streams are missing in
front of it, it is read from its first opening mark on, as if they stood there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from videop2r_data.schemas import (
    Part,
    Piece,
    Role,
    SegmentSpec,
    Trace,
    TraceGrammar,
    TraceParser,
    TraceSpans,
    default_grammar,
    trace_parser,
)
from videop2r_data.trainer.settings.rl import Style

_STAND_IN = "-"
"""Content of a faultless segment: put before a text, the parser finds the faults of what follows."""


class Template(NamedTuple):
    """A text held against the grammar.

    Attributes:
        spans: of the whole text, with its first fault.
        borders: (character offset where it ends, stream) of each stretch that one stream owns, in order.
        rest: the streams that share what is behind the last border.
        forms: each stream of the grammar -> whether it has its form.
        form: the whole text is a trace.
        observation: what a judge of perception may be asked about: the perception segments, if all that the
            grammar wants are in their place and none is blank; else None.
        found: what there is of a trace, whether the text is one or not.
        perceives: whether the grammar has perception segments at all.
        tagged: the trace ends with `<answer>`, which the scorer finds in any text.
    """

    spans: TraceSpans
    borders: tuple[tuple[int, str], ...]
    rest: tuple[str, ...]
    forms: dict[str, bool]
    form: bool
    observation: str | None
    found: Trace
    perceives: bool
    tagged: bool


def read_template(text: str, style: Style = "process", grammar: TraceGrammar | None = None) -> Template:
    """Hold a completion against a grammar (None: the default), in time linear in its length.

    Style `agnostic`: a trace of the default grammar without its observation.

    >>> found = read_template("<observation>o</observation> <think>t")
    >>> found.borders, found.rest
    (((28, 'perception'),), ('reasoning',))
    >>> found = read_template("<think>t</think><answer>A</answer>")
    >>> found.forms, found.rest
    ({'perception': False, 'reasoning': True}, ('perception', 'reasoning'))
    """
    form = _form(grammar or default_grammar())
    if style == "agnostic":
        return _without_observation(form, text)
    read = form.read(text)
    good = read.spans.fault is None
    forms = {name: good or form.holds(name, text, read) for name in form.grammar.streams}
    placed = read.placed
    borders = tuple((piece.close, form.stream[piece.name]) for piece in placed)
    parts = [Part(piece.name, text[piece.start : piece.end]) for piece in placed]
    seen = [part for part in parts if form.role[part.name] is Role.PERCEPTION]
    wanted = any(spec.role is Role.PERCEPTION for spec in read.lacking)
    whole = bool(seen) and not wanted and all(part.text.strip() for part in seen)
    return Template(
        spans=read.spans,
        borders=borders,
        rest=read.rest,
        forms=forms,
        form=good,
        observation=Trace.made_of(form.grammar, parts).observation if whole else None,
        found=Trace.found_in(text, form.grammar),
        perceives=form.perceives,
        tagged=form.tagged,
    )


def _without_observation(form: _Form, text: str) -> Template:
    """A text that must hold think and answer only: all of it is reasoning."""
    lead = form.stand_in("reasoning")
    shift = len(lead)
    found = form.parser.spans(lead + text)
    seen = [piece for piece in found.pieces if piece.open >= shift]
    pieces = tuple(Piece(piece.name, *(place - shift for place in piece[1:])) for piece in seen)
    at = -1 if found.fault is None else max(found.at - shift, 0)
    good = found.fault is None
    forms = {name: good and name == "reasoning" for name in form.grammar.streams}
    spans = TraceSpans(pieces, found.fault, at, found.segment)
    held = Trace.found_in(lead + text, form.grammar)
    return Template(spans, (), ("reasoning",), forms, good, None, held, perceives=False, tagged=True)


class _Read(NamedTuple):
    """One reading of a text: `placed` pieces stand where the grammar wants them, `lacking` segments must
    still come, the streams in `rest` share what is behind, and it is `clean` if that is white space."""

    spans: TraceSpans
    placed: tuple[Piece, ...]
    lacking: tuple[SegmentSpec, ...]
    rest: tuple[str, ...]
    clean: bool


class _Form:
    """What reading needs of a grammar."""

    def __init__(self, grammar: TraceGrammar) -> None:
        self.grammar = grammar
        self.parser: TraceParser = trace_parser(grammar)
        self.stream = {name: spec.reward for name, spec in grammar.named.items()}
        self.role = {name: spec.role for name, spec in grammar.named.items()}
        self.perceives = Role.PERCEPTION in self.role.values()
        self.tagged = grammar.answers == (grammar.flat[-1].name,) and grammar.flat[-1].tag == ("answer",)
        self.leads = {name: self._lead(name) for name in grammar.streams}

    def _lead(self, stream: str) -> tuple[SegmentSpec, tuple[str, ...]]:
        """The first segment of a stream, and the needed segments before it."""
        before: list[str] = []
        for part in self.parser.rounds:
            for spec in part.specs:
                if spec.reward == stream:
                    return spec, tuple(before)
                if spec.needed:
                    before.append(spec.name)
            if not part.least:  # what may be left out need not stand before
                before = before[: len(before) - sum(spec.needed for spec in part.specs)]
        raise AssertionError(stream)

    def stand_in(self, stream: str) -> str:
        """Faultless segments in front of a stream."""
        return self.parser.render((name, _STAND_IN) for name in self.leads[stream][1])

    def read(self, text: str) -> _Read:
        """Read a text once."""
        spans = self.parser.spans(text)
        names: list[str] = []
        last = 0
        for piece in spans.pieces:
            if text[last : piece.open].strip():
                break
            names.append(piece.name)
            last = piece.close
        place = self.parser.place(names)
        placed = spans.pieces[: place.stands]
        rest = text[placed[-1].close :] if placed else text
        clean = not rest.strip()
        if spans.fault is None or (placed and clean and not place.lacking):
            owners: tuple[str, ...] = (self.stream[placed[-1].name],)
        else:
            ahead = dict.fromkeys(spec.reward for spec in place.ahead)
            unclosed = _unclosed(rest.lstrip(), place.next)
            owners = (unclosed.reward,) if unclosed else tuple(ahead)
            owners = owners or (self.stream[placed[-1].name],)
        return _Read(spans, placed, place.lacking, owners, clean)

    def holds(self, stream: str, text: str, read: _Read) -> bool:
        """Whether a stream of a text that is no trace has its form."""
        first, lead = self.leads[stream]
        if not {piece.name for piece in read.placed}.issuperset(lead):
            starts = [text.find(mark.open) for mark in first.spellings if mark.open]
            start = min((at for at in starts if at >= 0), default=-1)
            if start < 0:
                return False
            text = self.stand_in(stream) + text[start:]
            read = self.read(text)
        if any(spec.reward == stream for spec in read.lacking) or (not read.clean and stream in read.rest):
            return False
        own = [(p.name, text[p.start : p.end]) for p in read.placed if self.stream[p.name] == stream]
        held = self.parser.forms
        return all(content.strip() and (n not in held or held[n].fits(content)) for n, content in own)


def _unclosed(rest: str, specs: Iterable[SegmentSpec]) -> SegmentSpec | None:
    """The segment that a text opens and never closes."""
    for spec in specs:
        for mark in spec.spellings:
            # a box that closes again would be a piece
            if mark.open and rest.startswith(mark.open) and (spec.boxed or mark.close not in rest):
                return spec
    return None


_form = lru_cache(maxsize=64)(_Form)
