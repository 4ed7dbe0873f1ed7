"""Other people's traces held against a grammar: where each row of a column of text goes wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from videop2r_data.errors import SourceError
from videop2r_data.files import file_rows, open_release
from videop2r_data.schemas import (
    Model,
    RejectReason,
    TraceGrammar,
    explain,
    nonsense,
    trace_parser,
    visible_line,
)

COLUMNS = ("output", "completion", "response", "model_output", "prediction", "trace", "text", "conversations")
"""Where a trace is looked for, the first that a row has."""
_SHOWN = 5
"""Places that are listed for each fault."""
_AROUND = 40
"""Characters shown in front of a fault and behind it."""


class TraceFinding(Model):
    """One kind of fault, with the first places where it stands."""

    what: str
    """Fault and segment: `missing_segment caption`."""
    means: str
    """The same in words."""
    rows: int
    places: list[tuple[str, int, str]]
    """File and row, character offset, the text around."""


class TraceReport(Model):
    """What the rows of a data set are under a grammar."""

    where: str
    grammar: str
    rows: int
    traces: int
    """Rows that are a trace of the grammar."""
    unread: dict[str, int] = Field(default_factory=dict)
    """Why a row has no text to read -> rows."""
    findings: list[TraceFinding] = Field(default_factory=list)
    """The most frequent first."""
    segments: dict[str, int] = Field(default_factory=dict)
    """Segment -> how often it stands in the traces."""
    values: dict[str, int] = Field(default_factory=dict)
    """Typed field, as `segment.name` -> values read."""

    @property
    def ok(self) -> bool:
        """Whether there are rows, and all of them are traces with values that can be."""
        return self.rows > 0 and self.traces == self.rows and not self.findings


def verify_traces(
    where: str | Path, grammar: TraceGrammar, *, column: str | None = None, revision: str | None = None
) -> TraceReport:
    """Read every row of a file, a folder or a Hub data set as a trace of a grammar.

    Args:
        where: what to read, as `open_release` takes it.
        grammar: what a trace is.
        column: which column holds the traces; None: the first of `COLUMNS` that a row has.
        revision: of a Hub data set.

    Raises:
        SourceError: nothing there, or a file cannot be read to its end.
    """
    release = open_release(where, revision=revision)
    count = _Count(grammar)
    for file in release.files:
        for place, row in file_rows(file.path):
            if isinstance(row, str):
                count.unread[row.partition(":")[0]] += 1
                continue
            text = text_of(row, column)
            if text is None:
                count.unread[f"no text in {column or ', '.join(COLUMNS)}"] += 1
            else:
                count.add(place, text)
    if not count.rows and not count.unread:
        raise SourceError("no rows", where=str(where))
    return count.report(str(where))


def text_of(row: Mapping[str, Any], column: str | None) -> str | None:
    """The trace in a row: a text, or the last message of the model in a conversation.

    >>> text_of({"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A"}]}, None)
    'A'
    """
    value = row.get(column) if column else next((row[name] for name in COLUMNS if name in row), None)
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):
        last = value[-1]
        value = last.get("value", last.get("content"))
    return value if isinstance(value, str) else None


class _Count:
    """The rows seen so far."""

    def __init__(self, grammar: TraceGrammar) -> None:
        self.grammar = grammar
        self.parser = trace_parser(grammar)
        self.rows = self.traces = 0
        self.unread: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.means: dict[str, str] = {}
        self.places: dict[str, list[tuple[str, int, str]]] = {}
        self.segments: Counter[str] = Counter()
        self.values: Counter[str] = Counter()

    def add(self, place: str, text: str) -> None:
        """Read one trace and count what it holds, or what is wrong with it."""
        self.rows += 1
        spans = self.parser.spans(text)
        if spans.fault is not None:
            self.note(f"{spans.fault.value} {spans.segment}".rstrip(), explain(spans), place, spans.at, text)
            return
        self.traces += 1
        self.segments.update(piece.name for piece in spans.pieces)
        for name, values in self.parser.values(text, spans.pieces):
            self.values.update(f"{name}.{value.name}" for value in values)
            wrong = nonsense(values)
            if wrong:
                self.note(f"{RejectReason.SENSELESS_VALUE.value} {name}", wrong, place, values[0].start, text)

    def note(self, what: str, means: str, place: str, at: int, text: str) -> None:
        """Count a fault; its first places are kept."""
        self.faults[what] += 1
        self.means.setdefault(what, means)
        places = self.places.setdefault(what, [])
        if len(places) < _SHOWN:
            around = visible_line(text[max(at - _AROUND, 0) : at + _AROUND])
            places.append((place, at, around))

    def report(self, where: str) -> TraceReport:
        """What was counted."""
        return TraceReport(
            where=where,
            grammar=self.grammar.name,
            rows=self.rows + self.unread.total(),
            traces=self.traces,
            unread=dict(self.unread),
            findings=[
                TraceFinding(what=what, means=self.means[what], rows=rows, places=self.places[what])
                for what, rows in self.faults.most_common()
            ],
            segments=dict(self.segments),
            values=dict(self.values),
        )
