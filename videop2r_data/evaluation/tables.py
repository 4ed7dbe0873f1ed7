"""A result as tables that people read, in Markdown that fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from videop2r_data.cards.card import cell, numbers, table
from videop2r_data.evaluation.faithful import counts, titled
from videop2r_data.schemas import BenchmarkResult, EvalResult, Range, visible_line


def render_tables(result: EvalResult) -> str:
    """The page beside a result."""
    served = ", ".join(result.served) or "nobody"
    head = [
        f"# {result.name}",
        f"Model {cell(result.model)}, served as {cell(served)}.",
        "Each figure with its 95 % interval; *question only* is the same model on the same questions "
        "without their media.",
    ]
    return "\n\n".join([*head, *(part for one in result.benchmarks for part in _benchmark(one))]) + "\n"


def _benchmark(one: BenchmarkResult) -> Iterator[str]:
    yield f"## {cell(one.title)}"
    yield counted(one)
    for head, rows in sections(one):
        heads = [cell(head), "value", "interval", "n", "question only"]
        yield table(heads, [[cell(name), *map(cell, figures)] for name, figures in rows])
    yield "\n".join(f"- {cell(line)}" for line in details(one))


def sections(one: BenchmarkResult) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """What stands above the first column of each table, and its rows: name, and figures as text."""
    overall = [(found.protocol, numbers(found)) for found in one.figures if not found.by]
    yield "protocol", overall
    for tag in dict.fromkeys(found.by for found in one.figures if found.by):
        yield tag, [(found.group, numbers(found)) for found in one.figures if found.by == tag]
    if one.faithful is not None:
        yield "parts of the traces", [(name, numbers(found)) for name, found in titled(one.faithful)]


def counted(one: BenchmarkResult) -> str:
    """How many rows there are, were asked and were answered."""
    of = f" of {one.rows_expected:,}" if one.rows_expected is not None else ""
    parts = [f"{one.rows_found:,}{of} rows"]
    if one.selection:
        parts.append(f"asked: {one.selection}")
    parts.append(f"{one.questions:,} questions, {one.answered:,} answered")
    if one.rows_differ:
        parts.append(f"not the published rows: {one.rows_differ[0]}")
    if one.unscored:
        parts.append(f"{one.unscored:,} whose reference cannot be used")
    return "; ".join(parts) + "."


def details(one: BenchmarkResult) -> Iterator[str]:
    """What happened beside the scores, a line each."""
    for reason, count in sorted(one.failed.items(), key=lambda item: (-item[1], item[0])):
        said = f" ({visible_line(one.examples[reason])})" if reason in one.examples else ""
        yield f"{count:,} without an answer, counted as wrong: {reason}{said}"
    told, sent = one.told, one.sent
    if told.well_formed is not None and told.well_formed.value is not None:
        yield f"form that was asked for: {told.well_formed.value:.1%} of {told.well_formed.n:,}"
    if told.cut:
        yield f"{told.cut:,} completions ended at max_tokens"
    if told.places:
        yield "answers found: " + ", ".join(f"{count:,} {place}" for place, count in told.places.items())
    for name, found in (("frames", sent.frames), ("pixels of a frame", sent.pixels)):
        if found is not None:
            yield f"{name}: {spread(found)}"
    if sent.input_tokens is not None:
        yield f"prompt tokens as the server counted: {spread(sent.input_tokens)}"
    if sent.output_tokens is not None:
        yield f"tokens of a completion: {spread(sent.output_tokens)}"
    yield from counts(one.faithful) if one.faithful is not None else ()
    if one.took is not None:
        took = (
            f"p50 {one.took.p50:.2f}, p95 {one.took.p95:.2f} (of {one.took.calls:,}, as the calls were made)"
        )
        yield f"seconds of an answer: {took}"
    cost = "" if one.usd is None else f", {one.usd:.4f} USD"
    yield f"{one.calls:,} calls{cost}"


def spread(found: Range) -> str:
    """A range in words.

    >>> spread(Range(low=4, mean=6.5, high=8)), spread(Range(low=4, mean=4, high=4))
    ('4 to 8, mean 6.5', '4')
    """
    if found.low == found.high:
        return f"{found.low:,.10g}"
    return f"{found.low:,.10g} to {found.high:,.10g}, mean {found.mean:,.1f}"
