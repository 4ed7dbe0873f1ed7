"""A comparison as tables: one per protocol, for a terminal and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from videop2r_data.cards.card import cell, table
from videop2r_data.evaluation.compare import Comparison, Loaded
from videop2r_data.evaluation.faithful import TITLES
from videop2r_data.evaluation.reported import Figure, load_reported
from videop2r_data.schemas import Measured
from videop2r_data.validators import ALPHA, Difference

HEADS = ("result", "value", "change", "interval", "p", "better, worse", "")
PART_HEADS = ("", "n", "first", "second", "change", "p", "")
"""Of the traces, where more is not always better; the interval of the change stands for the change."""


class Block(NamedTuple):
    """One protocol of one benchmark, or what its traces come to.

    Attributes:
        title: benchmark and protocol.
        rows: cells under `heads`: the first result, what is held against it, then what others report.
        notes: what has to be known, a line each.
        heads: of the columns.
    """

    title: str
    rows: list[tuple[str, ...]]
    notes: list[str]
    heads: tuple[str, ...] = HEADS


def blocks_of(
    results: Sequence[Loaded], comparisons: Sequence[Comparison], *, reported: str = ""
) -> Iterator[Block]:
    """The tables of a comparison.

    Args:
        results: the first, and what is held against it.
        comparisons: of `compare_results`.
        reported: table of the reported figures that stand beside them; `all`, or empty: none.
    """
    first = results[0]
    told = load_reported() if reported else None
    for benchmark, one in first.benchmarks.items():
        for figure in one.figures:
            key = benchmark, figure.protocol, False
            found = {c.second: f.found for c in comparisons for f in c.figures
                     if (f.benchmark, f.found.protocol, f.part) == key}  # fmt: skip
            if figure.by or not found:
                continue
            rows: list[tuple[str, ...]] = [(first.name, *_value(figure), "", "", "")]
            rows += [(name, *_difference(each, figure.scale)) for name, each in found.items()]
            notes = list(_notes(figure, found))
            others = (
                [each for each in told.figures(benchmark) if each.protocol == figure.protocol] if told else []
            )
            others = [each for each in others if reported in ("all", each.table)]
            rows += [_other(each, at) for at, each in enumerate(others, 1)]
            notes += [f"[{at}] {why}" for at, each in enumerate(others, 1) for why in each.doubts]
            yield Block(f"{one.title}: {figure.protocol}, {figure.n:,} questions", rows, notes)
        for held in comparisons:
            if rows := list(_parts(benchmark, held)):
                title = f"{one.title}: parts of the traces, {held.first} | {held.second}"
                yield Block(title, rows, [], PART_HEADS)


def _parts(benchmark: str, held: Comparison) -> Iterator[tuple[str, ...]]:
    """Each figure with the values of both on the questions that are compared."""
    figures = [one for one in held.figures if one.part and one.benchmark == benchmark]
    alike = Counter(one.found.protocol for one in figures)
    for one in figures:
        found = one.found
        of = f", {one.of}" if alike[found.protocol] > 1 or found.protocol in ("words", "tokens") else ""
        values = (_number(value, one.scale) for value in (found.a, found.b))
        _, _, between, p, _, verdict = _difference(found, one.scale)
        yield (TITLES[found.protocol] + of, f"{found.n:,}", *values, between, p, verdict)


def _value(figure: Measured) -> tuple[str, str, str]:
    if figure.value is None or figure.low is None or figure.high is None:
        return "-", "", ""
    low, high = (_number(value, figure.scale) for value in (figure.low, figure.high))
    return _number(figure.value, figure.scale), "", f"{low} to {high}"


def _difference(found: Difference, scale: float) -> tuple[str, ...]:
    low, high = (_number(value, scale, "+") for value in (found.low, found.high))
    p = "<0.001" if found.p_holm < 0.001 else f"{found.p_holm:.3f}"
    flips = f"+{found.better:,} -{found.worse:,}"
    change = _number(found.difference, scale, "+")
    return _number(found.b, scale), change, f"{low} to {high}", p, flips, found.verdict


def _notes(figure: Measured, found: Mapping[str, Difference]) -> Iterator[str]:
    """Which questions are compared, if not all, and where the two tests do not say the same."""
    for name, one in found.items():
        if one.n != figure.n:
            base = _number(one.a, figure.scale)
            yield f"{name} is held against the first on {one.n:,} questions of both, where that has {base}"
        if (one.mcnemar_p < ALPHA) is not (one.p < ALPHA):
            yield f"{name}: McNemar's test, questions taken as independent, gives p {one.mcnemar_p:.3f}"


def _other(one: Figure, at: int) -> tuple[str, ...]:
    """A reported figure: its interval comes from value and n alone, and it is compared with nothing."""
    mark = f" [{at}]" if one.doubts else ""
    between = f"({one.low:.1f} to {one.high:.1f})"
    return f"{one.model}{mark}", f"{one.value:.1f}", "", between, "", "", "reported"


def _number(value: float, scale: float, sign: str = "") -> str:
    digits = 1 if scale >= 100 else 3
    return f"{value * scale:{sign}.{digits}f}"


def markdown(blocks: Sequence[Block]) -> str:
    """The tables as Markdown; text from outside is escaped."""
    parts: list[str] = []
    for block in blocks:
        rows = [[cell(text) for text in row] for row in block.rows]
        notes = "\n".join(f"- {cell(note)}" for note in block.notes)
        parts += filter(None, [f"### {cell(block.title)}", table(block.heads, rows), notes])
    return "\n\n".join(parts) + "\n"
