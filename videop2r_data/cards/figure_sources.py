"""Where rows come from: a bar per source, cut by problem type, sources of a modality together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from videop2r_data.cards.figure_table import problem_types, shares, summed_up
from videop2r_data.plots.frame import label, new_figure, plain_axes, share
from videop2r_data.plots.palette import Look
from videop2r_data.schemas import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOURCES = 12
"""Sources of a modality that get a bar; the rest are summed up."""


class SourcesData(Model):
    """What the figure shows."""

    config: str
    rows: int
    sources: int
    """Different ones."""
    counts: dict[str, dict[str, dict[str, int]]]
    """Modality -> source -> problem type -> rows; sources by size, `… other sources` last."""

    @classmethod
    def of(cls, config: str, counts: Counter[tuple[str, str, str]]) -> SourcesData:
        """From (source, modality, problem type) -> rows."""
        nested: dict[str, dict[str, Counter[str]]] = {}
        for (source, data_type, kind), number in sorted(summed_up(counts).items()):
            nested.setdefault(data_type, {}).setdefault(source, Counter())[kind] += number
        ordered = sorted(nested, key=lambda d: (-sum(c.total() for c in nested[d].values()), d))
        return cls(
            config=config,
            rows=counts.total(),
            sources=len({source for source, _, _ in counts}),
            counts={data_type: _largest(nested[data_type]) for data_type in ordered},
        )


def _largest(sources: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    ranked = sorted(sources, key=lambda s: (-sources[s].total(), s))
    if len(ranked) == SOURCES + 1:
        return {s: dict(sources[s]) for s in ranked}
    found = {s: dict(sources[s]) for s in ranked[:SOURCES]}
    rest = ranked[SOURCES:]
    if rest:
        found[f"{len(rest)} other sources"] = dict(sum((sources[s] for s in rest), Counter()))
    return found


def sources_caption(data: SourcesData) -> str:
    """One sentence for the card."""
    table = _table(data)
    return (
        f"Rows of `{data.config}` by source and problem type: {data.rows:,} rows of {data.sources:,} "
        f"source{'s' if data.sources != 1 else ''}; {shares(table)}."
    )


def _table(data: SourcesData) -> dict[str, dict[str, int]]:
    """Modality -> problem type -> rows."""
    found: dict[str, Counter[str]] = {}
    for data_type, sources in data.counts.items():
        found[data_type] = sum((Counter(kinds) for kinds in sources.values()), Counter())
    return {data_type: dict(kinds) for data_type, kinds in found.items()}


def draw_sources(data: SourcesData, look: Look) -> Figure:
    """One block per modality, all on one axis."""
    kinds = problem_types(_table(data))
    heights = [len(sources) for sources in data.counts.values()]
    told = f"rows of {data.config} by source and problem type; {shares(_table(data))}"
    high = 0.27 * sum(heights) + 0.3 * len(heights) + (0.55 if len(kinds) > 5 else 0.36)
    figure = new_figure("Sources", told, look, high=high)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    most = max(sum(k.values()) for sources in data.counts.values() for k in sources.values())
    for axes, (data_type, sources) in zip(grid.flat, data.counts.items(), strict=True):
        plain_axes(axes, look, grid="", title=label(data_type, 20))
        _block(axes, sources, kinds, data.rows, look)
    last = grid.flat[-1]
    last.set_xlim(0, most * 1.2)
    handles, names = last.get_legend_handles_labels()
    across = 3 if max(map(len, names)) > 20 else 5 if len(names) < 6 else 4
    figure.legend(
        handles, names, loc="outside lower left", ncols=across, frameon=False, fontsize=8,
        labelcolor=look.ink, handlelength=1.0, handleheight=1.0, columnspacing=1.6, borderaxespad=0.2,
    )  # fmt: skip
    return figure


def _block(axes: Axes, sources: dict[str, dict[str, int]], kinds: list[str], rows: int, look: Look) -> None:
    lefts = [0] * len(sources)
    for place, kind in enumerate(kinds):
        counts = [found.get(kind, 0) for found in sources.values()]
        axes.barh(
            range(len(counts)), counts, left=lefts, height=0.66, color=look.kinds[place],
            label=label(kind, 22), edgecolor=look.paper, linewidth=0.5,
        )  # fmt: skip
        lefts = [a + b for a, b in zip(lefts, counts, strict=True)]
    for y, found in enumerate(sources.values()):
        number = sum(found.values())
        axes.annotate(
            f"{number:,}  {share(number, rows)}", (lefts[y], y), xytext=(4, 0), textcoords="offset points",
            ha="left", va="center_baseline", fontsize=7.8, color=look.muted,
        )  # fmt: skip
    axes.set_yticks(range(len(sources)), [label(name) for name in sources])
    axes.tick_params(axis="y", labelcolor=look.ink)
    axes.set_ylim(len(sources) - 0.5, -0.5)
