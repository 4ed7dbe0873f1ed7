"""A trace grammar, compiled: where the segments of a text lie, its first fault, the canonical rendering.

Marks are matched exactly. Anything that only looks like one is text: harmless inside a segment, a fault
outside of one, unless the grammar has free text there. Every function here is total and linear in its input.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from videop2r_data.errors import ConfigError, TraceError
from videop2r_data.schemas.grammar import BOX, FREE, GroupSpec, Mark, SegmentSpec, TraceGrammar
from videop2r_data.schemas.trace_fields import FieldValue, Template
from videop2r_data.schemas.verdict import TraceFault

_MISSING = {f.value.removeprefix("missing_"): f for f in TraceFault if f.value.startswith("missing_")}
_BRACE = re.compile(r"[{}]")


class Piece(NamedTuple):
    """Character offsets of a segment: `text[start:end]` is its content, `text[open:close]` has its marks."""

    name: str
    open: int
    start: int
    end: int
    close: int


class TraceSpans(NamedTuple):
    """Where the segments of a text lie, and its first fault if it is no trace of the grammar.

    A piece is a well-formed pair of marks with no mark inside. With a fault, the pieces found are still
    given, so that a trainer can attribute tokens of a malformed rollout.
    """

    pieces: tuple[Piece, ...]
    """In the order of the text."""
    fault: TraceFault | None = None
    at: int = -1
    """Character offset of the fault, or -1."""
    segment: str = ""
    """Segment that the fault is about; "" where it is about none."""

    def first(self, name: str) -> Piece | None:
        """The first piece of a name."""
        return next((piece for piece in self.pieces if piece.name == name), None)


class Part(NamedTuple):
    """One segment of a trace.

    Attributes:
        name: as the grammar calls it.
        text: its content, verbatim; of free text without the white space around it.
    """

    name: str
    text: str


class _Round(NamedTuple):
    """One top-level part of a grammar: its segments, and how often they may stand."""

    specs: tuple[SegmentSpec, ...]
    least: int
    most: int | None

    def first(self) -> Iterator[SegmentSpec]:
        """The segments that may begin it: all up to the first needed one."""
        for spec in self.specs:
            yield spec
            if spec.needed:
                return


class Place(NamedTuple):
    """How far segments stand in the order of a grammar, and what may follow them."""

    stands: int
    """How many segments, from the first, stand where the grammar wants them."""
    next: tuple[SegmentSpec, ...]
    """Segments of which one may stand next."""
    lacking: tuple[SegmentSpec, ...]
    """Segments without which there is no trace yet."""
    ahead: tuple[SegmentSpec, ...]
    """All segments that may still come."""


class _Found(NamedTuple):
    """A well-formed piece whose name is not known yet: several segments may share a mark."""

    mark: Mark
    piece: Piece


class TraceParser:
    """Reads and writes the traces of one grammar; `trace_parser` makes it once per grammar."""

    def __init__(self, grammar: TraceGrammar) -> None:
        """Compile a grammar.

        Raises:
            ConfigError: what stands before two segments does not tell them apart, or a text is two marks.
        """
        self.grammar = grammar
        self.rounds = [
            _Round(part.group, part.min, part.max)
            if isinstance(part, GroupSpec)
            else _Round((part,), int(part.needed), 1)
            for part in grammar.segments
        ]
        self.marks = tuple(dict.fromkeys(mark for spec in grammar.flat for mark in spec.spellings))
        self.literals = self._literals()
        self.limits = {mark: self._limit(mark) for mark in self.marks}
        self.required = [s.name for r in self.rounds if r.least for s in r.specs if s.needed]
        self.forms = {spec.name: Template(spec.holds) for spec in grammar.flat if spec.holds}
        texts = {spec.name: (*spec.fields, *filter(None, [spec.holds])) for spec in grammar.flat}
        self.templates = {name: tuple(map(Template, found)) for name, found in texts.items() if found}
        self.mark = re.compile("|".join(map(re.escape, sorted(self.literals, key=len, reverse=True))))
        self.plain = self._plain()
        self._tags = [(spec.name, len(spec.tag[0]) + 2) for spec in grammar.flat if spec.tag]
        self.prefilled = next((s.spellings[0] for s in self.rounds[0].first() if s.prefilled), None)
        self._refuse_ambiguous()

    def _literals(self) -> dict[str, tuple[Mark, bool]]:
        """Text of a mark -> the mark, and whether the text opens it."""
        found: dict[str, tuple[Mark, bool]] = {}
        for mark in self.marks:
            texts = {FREE: (), BOX: ((BOX.open, True),)}.get(mark, ((mark.open, True), (mark.close, False)))
            for text, opens in texts:
                if found.setdefault(text, (mark, opens)) != (mark, opens):
                    raise ConfigError(f"{text!r} is a mark in two ways", where=f"trace {self.grammar.name}")
        return found

    def _limit(self, mark: Mark) -> int | None:
        """How many segments with this mark a trace may hold; None: any number."""
        bounds = [r.most for r in self.rounds for spec in r.specs if mark in spec.spellings]
        return None if None in bounds else sum(bound or 0 for bound in bounds)

    def _plain(self) -> re.Pattern[str] | None:
        """A trace without any `<` in its segments, in one match: nearly all; each part of it is unambiguous.

        None where a segment may be absent or repeated, is not in tags, or has a form of its own.
        """
        specs = self.grammar.flat
        if not all(s.needed and s.tag and not s.holds for s in specs):
            return None
        if any((r.least, r.most) != (1, 1) for r in self.rounds) or set(self.limits.values()) != {1}:
            return None
        return re.compile(
            r"\s*" + r"\s*".join(rf"<{s.tag[0]}>(\s*[^<\s][^<]*)</{s.tag[0]}>" for s in specs) + r"\s*"
        )

    def _refuse_ambiguous(self) -> None:
        """What may be left out or repeated must be told from what follows by its mark."""
        for n, part in enumerate(self.rounds):
            behind = list(self._begin(n + 1))
            follows = behind + (list(part.first()) if part.most != 1 else [])
            for i, spec in enumerate(part.specs):
                rest = _Round(part.specs[i + 1 :], 1, 1)
                ends = not any(one.needed for one in rest.specs)
                if not spec.needed:
                    self._tell_apart(spec, [*rest.first(), *(follows if ends else ())])
            if part.most != part.least:
                for spec in part.first():
                    self._tell_apart(spec, behind)

    def _begin(self, n: int) -> Iterator[SegmentSpec]:
        """Segments that may stand first from part n on."""
        for part in self.rounds[n:]:
            yield from part.first()
            if part.least and any(s.needed for s in part.specs):
                return

    def _tell_apart(self, spec: SegmentSpec, others: Sequence[SegmentSpec]) -> None:
        for other in others:
            shared = set(spec.spellings) & set(other.spellings)
            if shared:
                mark = min(shared)
                shown = "free text" if mark is FREE else repr(mark.open)
                raise ConfigError(
                    f"{shown} may begin {spec.name!r} or {other.name!r}, and nothing before it tells which",
                    where=f"trace {self.grammar.name}",
                    hint="let another mark stand between the two, or make the first one required",
                )

    def spans(self, text: str) -> TraceSpans:
        """Find the segments of any text in linear time; never raises."""
        plain = self.plain.fullmatch(text) if self.plain else None
        if plain is not None:
            pieces = [
                Piece(name, start - size, start, end, end + size + 1)
                for (name, size), (start, end) in zip(self._tags, plain.regs[1:], strict=True)
            ]
            return TraceSpans(tuple(pieces))
        scan = _Scan(self, text)
        at = 0
        while (found := self.mark.search(text, at)) is not None:
            at = scan.meet(found)
        return scan.finish()

    def parse(self, text: str) -> tuple[Part, ...]:
        """The segments of a trace, in order; white space around and between them is ignored.

        Raises:
            TraceError: with `fault` (a `TraceFault`) and `at` (character offset).
        """
        spans = self.spans(text)
        if spans.fault is not None:
            raise TraceError(explain(spans), fault=spans.fault.value, at=spans.at)
        return tuple(Part(piece.name, text[piece.start : piece.end]) for piece in spans.pieces)

    def render(self, parts: Iterable[tuple[str, str]]) -> str:
        """The canonical text: `parse(render(parts)) == tuple(parts)` for the parts of any trace.

        Raises:
            ValueError: a name that the grammar does not have.
        """
        out = []
        for name, text in parts:
            if name not in self.grammar.named:
                raise ValueError(f"trace {self.grammar.name} has no segment {name!r}")
            spec = self.grammar.named[name]
            out.append(f"{spec.spellings[0].open}{text}{spec.spellings[0].close}{spec.after}")
        return "".join(out)

    def values(self, text: str, pieces: Iterable[Piece]) -> Iterator[tuple[str, tuple[FieldValue, ...]]]:
        """Each occurrence of a template in the pieces of a text: name of the segment, values."""
        for piece in pieces:
            for template in self.templates.get(piece.name, ()):
                for values in template.read(text[piece.start : piece.end], piece.start):
                    yield piece.name, values

    def names(self, found: Sequence[_Found], end: int) -> tuple[list[str], _Fault | None]:
        """Walk the grammar along the pieces of a text.

        Args:
            found: the well-formed pieces, in order.
            end: length of the text: where what is missing at its end is missed.

        Returns:
            the names of the pieces up to the first that does not fit, and its fault.
        """
        names: list[str] = []

        def stands(spec: SegmentSpec) -> bool:
            return len(names) < len(found) and found[len(names)].mark in spec.spellings

        for part in self.rounds:
            rounds = 0
            while (part.most is None or rounds < part.most) and any(map(stands, part.first())):
                for spec in part.specs:
                    if stands(spec):
                        names.append(spec.name)
                    elif spec.needed:
                        return names, _misplaced(found[len(names) :], spec.name, end, inside=names[-1:])
                rounds += 1
            if rounds < part.least:
                head = next(spec.name for spec in part.specs if spec.needed)
                return names, _misplaced(found[len(names) :], head, end, inside=names[-1:] if rounds else ())
        return names, _misplaced(found[len(names) :], "", end, inside=()) if len(names) < len(found) else None

    def place(self, names: Sequence[str]) -> Place:
        """Walk the grammar along the names of segments; total."""
        n, at = 0, (-1, 0, 0)  # the last segment that stands: its part, its place in there, rounds before it

        def stands(spec: SegmentSpec) -> bool:
            return n < len(names) and names[n] == spec.name

        for i, part in enumerate(self.rounds):
            done, whole = 0, True
            while whole and (part.most is None or done < part.most) and any(map(stands, part.first())):
                for j, spec in enumerate(part.specs):
                    if stands(spec):
                        n, at = n + 1, (i, j, done)
                    elif spec.needed:
                        whole = False
                        break
                done += 1
            if not whole or done < part.least:
                break
        return self._behind(n, *at)

    def _behind(self, stands: int, part: int, place: int, done: int) -> Place:
        """What may follow the segment at a place of a part, in its round `done` from 0."""
        later = self.rounds[part + 1 :]
        lacking = [s for r in later if r.least for s in r.specs if s.needed]
        ahead = [s for r in later for s in r.specs]
        if part < 0:
            return Place(stands, tuple(self._begin(0)), tuple(lacking), tuple(ahead))
        here = self.rounds[part]
        rest = _Round(here.specs[place + 1 :], 1, 1)
        again = here.specs if here.most is None or done + 1 < here.most else ()
        missing = [s for s in rest.specs if s.needed]
        follows = list(rest.first())
        if not missing:
            follows += here.first() if again else ()
            follows += self._begin(part + 1) if done + 1 >= here.least else ()
        if done + 1 < here.least:
            missing += [s for s in here.specs if s.needed]
        return Place(stands, tuple(follows), (*missing, *lacking), (*rest.specs, *again, *ahead))

    def misfit(self, text: str, pieces: Sequence[Piece]) -> _Fault | None:
        """The first piece whose content has not the form that its segment declares."""
        for piece in pieces:
            template = self.forms.get(piece.name)
            if template is not None and not template.fits(text[piece.start : piece.end]):
                return TraceFault.BAD_FIELD, piece.start, piece.name
        return None

    def usual(self, mark: Mark, nth: int) -> str:
        """The name of the nth piece with a mark, counted from 0, in a text that is no trace."""
        names = [spec.name for spec in self.grammar.flat if mark in spec.spellings]
        return names[min(nth, len(names) - 1)]


_Fault = tuple[TraceFault, int, str]


def _misplaced(rest: Sequence[_Found], lacking: str, end: int, *, inside: Sequence[str]) -> _Fault:
    """The fault of the next piece, where another segment has to stand.

    Args:
        rest: the pieces from there on.
        lacking: the segment that has to stand there; "" if the trace should end.
        end: length of the text.
        inside: what was read of the same group; empty at the start of a part.
    """
    if not rest:
        return _missing(lacking, end)
    if rest[0].mark is FREE:
        return TraceFault.TEXT_OUTSIDE, rest[0].piece.open, ""
    return _missing(lacking, rest[0].piece.open) if inside else (TraceFault.OUT_OF_ORDER, -1, lacking)


def _missing(segment: str, at: int) -> _Fault:
    return _MISSING.get(segment, TraceFault.MISSING_SEGMENT), at, segment


class _Scan:
    """One pass over the marks of a text: what is open, what was found, and the first fault."""

    def __init__(self, parser: TraceParser, text: str) -> None:
        self.parser, self.text = parser, text
        self.found: list[_Found] = []
        self.seen: Counter[Mark] = Counter()
        self.fault: _Fault | None = None
        self.opened: tuple[Mark, int, int] | None = None  # mark, offset of its opening, offset of its content
        self.last = 0  # end of the last closing mark
        self.braces: dict[int, int] | None = None

    def note(self, kind: TraceFault, at: int, segment: str = "") -> None:
        """Keep the first fault."""
        self.fault = self.fault or (kind, at, segment)

    def meet(self, match: re.Match[str]) -> int:
        """Take in one mark; returns the offset to go on from."""
        mark, opens = self.parser.literals[match.group()]
        if mark is BOX:
            return self.box(match)
        self.open(mark, match) if opens else self.close(mark, match)
        return match.end()

    def gap(self, end: int) -> None:
        """Text between two segments, up to `end`."""
        between = self.text[self.last : end]
        if not between or between.isspace():
            return
        start = end - len(between.lstrip())
        if FREE in self.parser.limits:
            stop = self.last + len(between.rstrip())
            self.found.append(_Found(FREE, Piece("", start, start, stop, stop)))
        else:
            self.note(TraceFault.TEXT_OUTSIDE, start)

    def open(self, mark: Mark, match: re.Match[str]) -> None:
        """An opening mark."""
        if self.opened is not None:
            self.note(TraceFault.NESTED_TAG, match.start())
        else:
            self.begin(mark, match.start())
        self.opened = (mark, match.start(), match.end())

    def begin(self, mark: Mark, at: int) -> None:
        """A segment begins here: what is in front of it, and whether there was one too many."""
        self.gap(at)
        limit = self.parser.limits[mark]
        if limit is not None and self.seen[mark] >= limit:
            self.note(TraceFault.REPEATED_TAG, at, self.parser.usual(mark, limit))

    def close(self, mark: Mark, match: re.Match[str]) -> None:
        """A closing mark."""
        if self.opened is None and mark == self.parser.prefilled and not self.found and self.last == 0:
            self.opened = (mark, 0, 0)  # the opening mark stands in the prompt
        if self.opened is None:
            self.gap(match.start())
            self.note(TraceFault.STRAY_CLOSING_TAG, match.start())
        elif self.opened[0] != mark:
            self.note(TraceFault.NESTED_TAG, match.start())
        else:
            self.keep(mark, Piece("", self.opened[1], self.opened[2], match.start(), match.end()))
        # A closing mark of another segment ends what was open, too: the text behind it is outside again.
        self.opened, self.last = None, match.end()

    def box(self, match: re.Match[str]) -> int:
        """A LaTeX box; returns the offset behind it."""
        if self.opened is not None:
            return match.end()  # LaTeX inside a segment is its content
        self.begin(BOX, match.start())
        if self.braces is None:
            self.braces = _pairs(self.text)
        end = self.braces.get(match.end() - 1)
        if end is None:
            self.note(TraceFault.UNCLOSED_TAG, match.start(), self.parser.usual(BOX, self.seen[BOX]))
            self.last = match.end()
        else:
            self.keep(BOX, Piece("", match.start(), match.end(), end, end + 1))
            self.last = end + 1
        return self.last

    def keep(self, mark: Mark, piece: Piece) -> None:
        """A segment is complete."""
        if not self.text[piece.start : piece.end].strip():
            self.note(TraceFault.EMPTY_SEGMENT, piece.start, self.parser.usual(mark, self.seen[mark]))
        self.seen[mark] += 1
        self.found.append(_Found(mark, piece))

    def finish(self) -> TraceSpans:
        """What was found, at the end of the text."""
        if self.opened is not None:
            self.note(TraceFault.UNCLOSED_TAG, self.opened[1], self.parser.usual(self.opened[0], 0))
        else:
            self.gap(len(self.text))
        lacking = next((name for name in self.parser.required if not self.has(name)), None)
        if lacking is not None and (self.fault is None or self.fault[0] is TraceFault.TEXT_OUTSIDE):
            # the hole says more than the text around it
            self.fault = _missing(lacking, self.fault[1] if self.fault else len(self.text))
        names, fault = self.parser.names(self.found, len(self.text))
        pieces = self.named(names)
        fault = self.fault or fault or self.parser.misfit(self.text, pieces)
        if fault is None:
            return TraceSpans(pieces)
        if fault[0] is TraceFault.OUT_OF_ORDER:
            marked = (one.piece.open for one in self.found if one.mark is not FREE)
            fault = (fault[0], next(marked), fault[2])
        return TraceSpans(pieces, *fault)

    def has(self, name: str) -> bool:
        """Whether a segment of this name was found."""
        return any(self.seen[mark] for mark in self.parser.grammar.named[name].spellings)

    def named(self, names: Sequence[str]) -> tuple[Piece, ...]:
        """The pieces with their names; behind the first misfit, those that their marks usually have."""
        nth: Counter[Mark] = Counter()
        pieces = []
        for n, (mark, piece) in enumerate(self.found):
            name = names[n] if n < len(names) else self.parser.usual(mark, nth[mark])
            nth[mark] += 1
            pieces.append(piece._replace(name=name))
        return tuple(pieces)


def _pairs(text: str) -> dict[int, int]:
    """Offset of each opening brace -> offset of the brace that closes it."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            pairs[opened.pop()] = brace.start()
    return pairs


@lru_cache(maxsize=64)
def trace_parser(grammar: TraceGrammar) -> TraceParser:
    """The parser of a grammar; raises as `TraceParser`."""
    return TraceParser(grammar)


def explain(spans: TraceSpans) -> str:
    """The fault of a text in words."""
    assert spans.fault is not None
    name = spans.segment or "segment"
    return {
        TraceFault.MISSING_SEGMENT: f"no {name}",
        TraceFault.REPEATED_TAG: f"{name} stands once more than it may",
        TraceFault.NESTED_TAG: "a mark inside another segment",
        TraceFault.OUT_OF_ORDER: "the segments are not in the order of the grammar",
        TraceFault.UNCLOSED_TAG: f"{name} is opened and never closed",
        TraceFault.STRAY_CLOSING_TAG: "a closing mark with nothing open",
        TraceFault.TEXT_OUTSIDE: "text outside the segments",
        TraceFault.EMPTY_SEGMENT: f"{name} is blank",
        TraceFault.BAD_FIELD: f"{name} does not have its form",
    }.get(spans.fault, f"no {spans.fault.value.removeprefix('missing_')}")
