"""A comparison as tables: one per protocol, for a terminal, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from videop2r_data.cards.card import cell, table
from videop2r_data.evaluation.compare import Comparison, Loaded
from videop2r_data.evaluation.reported import Figure, Reported, load_reported
from videop2r_data.schemas import Measured, visible_line
from videop2r_data.validators import Difference

HEADS = ("result", "value", "change", "interval", "p", "flips", "")
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"
}  # fmt: skip


class Block(NamedTuple):
    """One protocol of one benchmark.

    Attributes:
        title: benchmark and protocol.
        rows: cells under `HEADS`: the first result, what is held against it, then what others report.
        notes: what has to be known, a line each.
    """

    title: str
    rows: list[tuple[str, ...]]
    notes: list[str]


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
            found = {c.second: f.found for c in comparisons for f in c.figures
                     if (f.benchmark, f.found.protocol) == (benchmark, figure.protocol)}  # fmt: skip
            if figure.by or not found:
                continue
            rows: list[tuple[str, ...]] = [(first.name, *_value(figure), "", "", "")]
            rows += [(name, *_difference(each, figure.scale)) for name, each in found.items()]
            notes = _notes(list(found.values()), figure.scale)
            if told is not None:
                others = _reported(told, benchmark, figure.protocol, reported)
                rows += [_other(each, at) for at, each in enumerate(others, 1)]
                notes += [f"[{at}] {why}" for at, each in enumerate(others, 1) for why in each.doubts]
            yield Block(f"{one.title}: {figure.protocol}, {figure.n:,} questions", rows, notes)


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


def _notes(found: Sequence[Difference], scale: float) -> list[str]:
    """How large a difference has to be, and where the two tests do not say the same."""
    notes = []
    least = [one.smallest for one in found if one.smallest is not None]
    if least:
        notes.append(f"shown in four of five tries: a difference of {_number(max(least), scale)} or more")
    for one in found:
        if (one.mcnemar_p < 0.05) is not (one.p < 0.05):
            notes.append(f"McNemar's test, questions taken as independent, gives p {one.mcnemar_p:.3f}")
    return notes


def _reported(told: Reported, benchmark: str, protocol: str, chosen: str) -> list[Figure]:
    every = [one for one in told.figures(benchmark) if one.protocol == protocol]
    return [one for one in every if chosen in ("all", one.table)]


def _other(one: Figure, at: int) -> tuple[str, ...]:
    """A reported figure: its interval comes from value and n alone, and it is compared with nothing."""
    between = "" if one.low is None or one.high is None else f"({one.low:.1f} to {one.high:.1f})"
    mark = f" [{at}]" if one.doubts else ""
    return f"{one.model}{mark}", f"{one.value:.1f}", "", between, "", "", "reported"


def _number(value: float, scale: float, sign: str = "") -> str:
    digits = 1 if scale >= 100 else 3
    return f"{value * scale:{sign}.{digits}f}"


def markdown(blocks: Sequence[Block]) -> str:
    """The tables as Markdown."""
    parts = []
    for block in blocks:
        rows = [[cell(text) for text in row] for row in block.rows]
        parts += [
            f"### {cell(block.title)}",
            table(HEADS, rows),
            *(f"- {cell(note)}" for note in block.notes),
        ]
    return "\n\n".join(parts) + "\n"


def latex(blocks: Sequence[Block]) -> str:
    """The tables as LaTeX with booktabs; text from outside is escaped."""
    lines = []
    for block in blocks:
        lines += [f"% {visible_line(block.title)}", r"\begin{tabular}{lrrrrrl}", r"\toprule"]
        lines += [_latex_row(HEADS), r"\midrule"]
        lines += [_latex_row(row) for row in block.rows]
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% {visible_line(note)}" for note in block.notes), ""]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(c, c) for c in visible_line(text)) for text in cells) + r" \\"
