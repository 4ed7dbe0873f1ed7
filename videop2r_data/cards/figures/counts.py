"""What a figure is; figures of row counts: composition, sources, the way from questions to accepted rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from videop2r_data.plots import Look, ink_on, label, mix, new_figure, plain_axes, share
from videop2r_data.schemas import Model, ProblemType, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class FigureData(Model):
    """What a figure shows: it is kept as JSON, and every picture is drawn from that alone."""

    title: ClassVar[str]

    @abstractmethod
    def caption(self) -> str:
        """A sentence or two below the figure in a card."""

    @abstractmethod
    def draw(self, look: Look) -> Figure:
        """The picture in the colours of a look."""


# Composition: the paper's table of modality by problem type [paper table 1], tinted by size.

ROW = 0.42
MOST = 8
"""Modalities and problem types shown at most; the format has three and seven."""
OTHER_TYPES, OTHER_MODALITIES = "other types", "other"


class TableData(FigureData):
    """What the figure shows."""

    title = "Composition"
    config: str
    """Whose rows were counted."""
    rows: int
    table: dict[str, dict[str, int]]
    """Modality -> problem type -> rows."""

    @classmethod
    def of(cls, config: str, counts: Counter[tuple[str, str, str]]) -> TableData:
        """From (source, modality, problem type) -> rows."""
        table: dict[str, dict[str, int]] = {}
        for (_, data_type, kind), number in sorted(summed_up(counts).items(), key=lambda item: item[0][1:]):
            row = table.setdefault(data_type, {})
            row[kind] = row.get(kind, 0) + number
        return cls(config=config, rows=counts.total(), table=table)

    def caption(self) -> str:
        """One sentence for the card."""
        kinds = {kind for row in self.table.values() for kind in row}
        return (
            f"Rows of `{self.config}` by modality and problem type: {self.rows:,} rows, "
            f"{len(self.table)} modalities, {len(kinds)} problem types."
        )

    def draw(self, look: Look) -> Figure:
        """Cells with their counts; the darker, the more rows (logarithmic)."""
        columns = problem_types(self.table)
        rows = list(self.table)
        told = f"rows of {self.config} by modality and problem type, {self.rows:,} in all"
        figure = new_figure(self.title, told, look, high=ROW * (len(rows) + 1.85))
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_xlim(-1.1, len(columns) + 1)
        axes.set_ylim(len(rows) + 1, -0.85)
        small = 8.5 if len(columns) < 7 else 7.5
        for x, kind in enumerate([*columns, "sum"]):
            name = label(kind, 20).replace(" ", "\n", 1)
            axes.text(
                x + 0.5, -0.42, name, ha="center", va="center", fontsize=small - 0.5, color=look.muted,
                linespacing=1.05,
            )  # fmt: skip
        for y, row in enumerate([*rows, "sum"]):
            weight = "bold" if row == "sum" else "normal"
            axes.text(
                -0.1, y + 0.5, label(row, 12), ha="right", va="center", fontsize=9, color=look.ink,
                fontweight=weight,
            )  # fmt: skip
        _cells(axes, self, columns, look, small)
        return figure


def _cells(axes: Axes, data: TableData, columns: list[str], look: Look, size: float) -> None:
    from matplotlib.patches import Rectangle

    rows = list(data.table)
    most = max(n for row in data.table.values() for n in row.values())
    place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
    for y, row in enumerate(rows):
        for x, kind in enumerate(columns):
            number = data.table[row].get(kind, 0)
            if not number:
                axes.text(x + 0.5, y + 0.5, "–", color=look.muted, **place)
                continue
            depth = 0.14 + 0.76 * math.log1p(number) / math.log1p(most)
            ground = mix(look.paper, look.perception, depth)
            axes.add_patch(Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, facecolor=ground, linewidth=0))
            axes.text(x + 0.5, y + 0.5, f"{number:,}", color=ink_on(ground), **place)
    axes.plot([0.04, len(columns) + 0.96], [len(rows)] * 2, color=look.muted, linewidth=0.8)
    down = [sum(data.table[row].get(kind, 0) for row in rows) for kind in columns]
    sums = [(x, len(rows), number) for x, number in enumerate([*down, data.rows])]
    sums += [(len(columns), y, sum(data.table[row].values())) for y, row in enumerate(rows)]
    for x, y, number in sums:
        axes.text(x + 0.5, y + 0.5, f"{number:,}", color=look.ink, fontweight="bold", **place)


def problem_types(table: dict[str, dict[str, int]]) -> list[str]:
    """Problem types of a table in the paper's order, then others by name.

    >>> problem_types({"image": {"OCR": 1, "x": 1}, "video": {"numerical": 2}})
    ['numerical', 'OCR', 'x']
    """
    found = {kind for row in table.values() for kind in row}
    known = [kind.value for kind in ProblemType if kind.value in found]
    return known + sorted(found - set(known) - {OTHER_TYPES}) + [OTHER_TYPES] * (OTHER_TYPES in found)


def few(counts: Counter[str], other: str) -> dict[str, str]:
    """Name -> name to show: its own for the largest `MOST`; with more names, `other` from the eighth on.

    >>> few(Counter({"a": 2, "b": 1}), "other")
    {'a': 'a', 'b': 'b'}
    """
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    kept = ranked if len(ranked) <= MOST else ranked[: MOST - 1]
    return {name: name if name in kept else other for name in ranked}


def summed_up(counts: Counter[tuple[str, str, str]]) -> Counter[tuple[str, str, str]]:
    """(source, modality, problem type) -> rows, with modalities and types reduced by `few`."""
    modalities: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    found: Counter[tuple[str, str, str]] = Counter()
    for (_, data_type, kind), number in counts.items():
        modalities[data_type] += number
        kinds[kind] += number
    shown, typed = few(modalities, OTHER_MODALITIES), few(kinds, OTHER_TYPES)
    for (source, data_type, kind), number in counts.items():
        found[source, shown[data_type], typed[kind]] += number
    return found


def shares(table: dict[str, dict[str, int]]) -> str:
    """Modalities with their shares, the largest first.

    >>> shares({"image": {"OCR": 1}, "video": {"OCR": 3}})
    'video 75.0 %, image 25.0 %'
    """
    sums = {name: sum(row.values()) for name, row in table.items()}
    whole = sum(sums.values())
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{label(name, 12)} {share(number, whole)}" for name, number in ordered)


# Sources: a bar per source, divided by problem type, a block per modality.

SOURCES = 12
"""Sources with a bar of their own, per modality; the others share one."""


class SourcesData(FigureData):
    """What the figure shows."""

    title = "Sources"
    config: str
    rows: int
    sources: int
    """Number of different sources."""
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

    def caption(self) -> str:
        """One sentence for the card."""
        table = _table(self)
        return (
            f"Rows of `{self.config}` by source and problem type: {self.rows:,} rows of {self.sources:,} "
            f"source{'s' if self.sources != 1 else ''}; {shares(table)}."
        )

    def draw(self, look: Look) -> Figure:
        """One block per modality, all on one axis."""
        kinds = problem_types(_table(self))
        heights = [len(sources) for sources in self.counts.values()]
        told = f"rows of {self.config} by source and problem type; {shares(_table(self))}"
        high = 0.27 * sum(heights) + 0.3 * len(heights) + (0.55 if len(kinds) > 5 else 0.36)
        figure = new_figure(self.title, told, look, high=high)
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        most = max(sum(k.values()) for sources in self.counts.values() for k in sources.values())
        for axes, (data_type, sources) in zip(grid.flat, self.counts.items(), strict=True):
            plain_axes(axes, look, grid="", title=label(data_type, 20))
            _block(axes, sources, kinds, self.rows, look)
        last = grid.flat[-1]
        last.set_xlim(0, most * 1.2)
        handles, names = last.get_legend_handles_labels()
        across = 3 if max(map(len, names)) > 20 else 5 if len(names) < 6 else 4
        figure.legend(
            handles, names, loc="outside lower left", ncols=across, frameon=False, fontsize=8,
            labelcolor=look.ink, handlelength=1.0, handleheight=1.0, columnspacing=1.6, borderaxespad=0.2,
        )  # fmt: skip
        return figure


def _largest(sources: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    ranked = sorted(sources, key=lambda s: (-sources[s].total(), s))
    kept = SOURCES + (len(ranked) == SOURCES + 1)  # one bar for a single other source would say less
    found = {s: dict(sources[s]) for s in ranked[:kept]}
    if rest := ranked[kept:]:
        found[f"{len(rest)} other sources"] = dict(sum((sources[s] for s in rest), Counter()))
    return found


def _table(data: SourcesData) -> dict[str, dict[str, int]]:
    """Modality -> problem type -> rows."""
    found: dict[str, Counter[str]] = {}
    for data_type, sources in data.counts.items():
        found[data_type] = sum((Counter(kinds) for kinds in sources.values()), Counter())
    return {data_type: dict(kinds) for data_type, kinds in found.items()}


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


# The way from all questions to the accepted rows: a bar for each reason why rows were lost.

REASONS = 8
"""Reasons with a bar of their own, per stage; the rarer ones share one."""
WORDS = {
    "pool": "reading",
    "media": "media",
    "generate": "generation",
    "verify": "verification",
    "judge": "judge",
}


class Lost(Model):
    """Rows lost for one reason."""

    stage: str
    reason: str
    rows: int


class FunnelData(FigureData):
    """What the figure shows: `rows_in` minus all `lost` is `accepted`."""

    title = "From questions to accepted rows"

    rows_in: int
    accepted: int
    lost: list[Lost]
    """In the order of the stages."""

    @classmethod
    def of(cls, accepted: int, funnel: dict[str, int]) -> FunnelData:
        """From the rows of `sft` and the `stage/reason` counts of `rejected`."""
        lost = [
            Lost(stage=name.partition("/")[0], reason=name.partition("/")[2], rows=rows)
            for name, rows in funnel.items()
        ]
        return cls(rows_in=accepted + sum(funnel.values()), accepted=accepted, lost=lost)

    def caption(self) -> str:
        """One sentence for the card."""
        stages = ", ".join(
            f"{WORDS.get(stage, label(stage))} {sum(x.rows for x in lost):,}"
            for stage, lost in by_stage(self.lost).items()
        )
        return (
            f"Of {self.rows_in:,} questions {self.accepted:,} ({share(self.accepted, self.rows_in)}) were "
            f"accepted; lost by step: {stages}."
        )

    def draw(self, look: Look) -> Figure:
        """A bar of the rows that remain after each stage, and above it one per reason of that stage."""
        stages = by_stage(self.lost)
        lines = 1 + sum(1 + len(lost) for lost in stages.values())
        kept = f"{self.accepted:,} accepted ({share(self.accepted, self.rows_in)})"
        told = f"{self.rows_in:,} questions in, {kept}, {self.rows_in - self.accepted:,} lost"
        figure = new_figure(self.title, told, look, high=0.225 * lines + 0.15)
        axes = figure.subplots()
        plain_axes(axes, look, grid="")
        _bars(axes, self, stages, look)
        axes.set_ylim(lines - 0.35, -0.65)
        axes.set_xlim(0, self.rows_in * 1.22)
        return figure


def by_stage(lost: list[Lost]) -> dict[str, list[Lost]]:
    """Stage -> its losses, in the order of the build; the rarest reasons of a stage are one entry."""
    known = [stage.value for stage in Stage]
    order = sorted({x.stage for x in lost}, key=lambda s: (known.index(s) if s in known else len(known), s))
    found: dict[str, list[Lost]] = {}
    for stage in order:
        ranked = sorted((x for x in lost if x.stage == stage), key=lambda x: (-x.rows, x.reason))
        kept = REASONS + (len(ranked) == REASONS + 1)
        found[stage] = ranked[:kept]
        if rest := ranked[kept:]:
            words = f"{len(rest)} other reasons"
            found[stage].append(Lost(stage=stage, reason=words, rows=sum(x.rows for x in rest)))
    return found


def _bars(axes: Axes, data: FunnelData, stages: dict[str, list[Lost]], look: Look) -> None:
    kept, dropped = look.perception, look.reasoning
    names, heads, y, left = ["questions"], {0}, 0, data.rows_in
    axes.barh(0, left, height=0.74, color=kept)
    _count(axes, left, 0, f"{left:,}", look, bold=True)
    for place, (stage, lost) in enumerate(stages.items()):
        for x in lost:
            y += 1
            names.append(label(x.reason.replace("_", " "), 30))
            axes.barh(y, left, height=0.5, color=mix(look.paper, kept, 0.16))
            axes.barh(y, -x.rows, left=left, height=0.5, color=dropped)
            _count(axes, left, y, f"−{x.rows:,}", look)
            left -= x.rows
        y += 1
        heads.add(y)
        last = place == len(stages) - 1
        names.append("accepted" if last else f"after {WORDS.get(stage, label(stage))}")
        axes.barh(y, left, height=0.74, color=kept if last else mix(look.paper, kept, 0.62))
        _count(axes, left, y, f"{left:,}  {share(left, data.rows_in)}", look, bold=True)
    axes.set_yticks(range(len(names)), names)
    for at, tick in enumerate(axes.get_yticklabels()):
        bold = at in heads
        tick.set(color=look.ink if bold else look.muted, fontweight="bold" if bold else "normal")
        tick.set_fontsize(8.5 if bold else 7.8)


def _count(axes: Axes, x: float, y: float, text: str, look: Look, *, bold: bool = False) -> None:
    axes.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", ha="left", va="center_baseline",
        fontsize=7.8, color=look.ink if bold else look.muted, fontweight="bold" if bold else "normal",
    )  # fmt: skip
