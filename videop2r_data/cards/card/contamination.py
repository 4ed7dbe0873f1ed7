"""What a card says of evaluation sets: rows that were compared, clips that sources are known to share."""

from __future__ import annotations

from videop2r_data.cards.card.facts import Facts
from videop2r_data.cards.card.markdown import cell, short, table
from videop2r_data.schemas import SIGNALS, Overlap, RejectReason, Shared, Stage


def contamination(facts: Facts) -> str:
    """Rows in common with evaluation sets, and public benchmarks that use clips of these rows' sources."""
    told = "This build compared no row with an evaluation set. "
    if facts.overlap is not None:
        told = _compared(facts.overlap)
    if left := facts.lock.ledger.reasons.get(f"{Stage.POOL}/{RejectReason.OVERLAPS}", 0):
        told += f"{left:,} rows of the pool that evaluation sets have too were left out of this set.\n\n"
    return told + _known(facts)


def _compared(overlap: Overlap) -> str:
    """The counts of `p2r-data overlap`, made anew from its figures: the text in the file is not ours."""
    heads = ["evaluation set", "its rows", *(SIGNALS[signal] for signal in overlap.looked)]
    rows = [
        [cell(short(bench.name)), f"{bench.rows:,}", *(_count(bench.bench.get(s)) for s in overlap.looked)]
        for bench in overlap.benches
    ]
    return (
        f"`p2r-data overlap` compared {overlap.rows:,} rows of {cell(short(overlap.pool))}. Rows of each "
        "evaluation set that were found, of those that could be compared; nothing is known of the others. "
        f"Equal wording alone is no leak, for templates repeat.\n\n{table(heads, rows)}\n"
    )


def _count(shared: Shared | None) -> str:
    return "not looked for" if shared is None else f"{shared.found:,} of {shared.known:,}"


def _known(facts: Facts) -> str:
    shared: dict[str, dict[str, str]] = {}
    for source in facts.rows.sources:
        for overlap in source.upstream.benchmarks if source.upstream is not None else ():
            shared.setdefault(overlap.name, {})[short(source.label)] = overlap.shares
    if not shared:
        return "None of its sources is one that common video benchmarks are known to share.\n"
    rows = [
        [cell(benchmark), cell(source), cell(shares)]
        for benchmark, sources in sorted(shared.items())
        for source, shares in sorted(sources.items())
    ]
    return (
        "Some of its sources share clips with benchmarks: compare the file names in `path` before you "
        "report results there.\n\n" + table(["benchmark", "source of these rows", "what is shared"], rows)
    )
