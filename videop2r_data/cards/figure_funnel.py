"""Where rows were lost: a bar chart from all questions down to the accepted rows, reason by reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videop2r_data.plots.frame import label, new_figure, plain_axes, share
from videop2r_data.plots.palette import Look, mix
from videop2r_data.schemas import Model, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REASONS = 8
"""Reasons of a stage that get a bar; the rarest are summed up."""
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


class FunnelData(Model):
    """What the figure shows: `rows_in` minus all `lost` is `accepted`."""

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
        return cls(rows_in=accepted + sum(x.rows for x in lost), accepted=accepted, lost=lost)


def funnel_caption(data: FunnelData) -> str:
    """One sentence for the card."""
    stages = ", ".join(
        f"{WORDS.get(stage, label(stage))} {sum(x.rows for x in lost):,}"
        for stage, lost in by_stage(data.lost).items()
    )
    return (
        f"Of {data.rows_in:,} questions {data.accepted:,} ({share(data.accepted, data.rows_in)}) were "
        f"accepted; lost by step: {stages}."
    )


def by_stage(lost: list[Lost]) -> dict[str, list[Lost]]:
    """Stage -> its losses, in the order of the build, the rarest of each summed up."""
    known = [stage.value for stage in Stage]
    order = sorted({x.stage for x in lost}, key=lambda s: (known.index(s) if s in known else len(known), s))
    found: dict[str, list[Lost]] = {}
    for stage in order:
        ranked = sorted((x for x in lost if x.stage == stage), key=lambda x: (-x.rows, x.reason))
        rest = ranked[REASONS:]
        found[stage] = ranked[:REASONS]
        if len(rest) == 1:
            found[stage] += rest
        elif rest:
            words = f"{len(rest)} other reasons"
            found[stage].append(Lost(stage=stage, reason=words, rows=sum(x.rows for x in rest)))
    return found


def draw_funnel(data: FunnelData, look: Look) -> Figure:
    """Bars of what remains after each step, and under each step a bar per reason where it was lost."""
    stages = by_stage(data.lost)
    lines = 1 + sum(1 + len(lost) for lost in stages.values())
    told = (
        f"{data.rows_in:,} questions in, {data.accepted:,} accepted ({share(data.accepted, data.rows_in)}), "
        f"{data.rows_in - data.accepted:,} lost"
    )
    figure = new_figure("From questions to accepted rows", told, look, high=0.225 * lines + 0.15)
    axes = figure.subplots()
    plain_axes(axes, look, grid="")
    _bars(axes, data, stages, look)
    axes.set_ylim(lines - 0.35, -0.65)
    axes.set_xlim(0, data.rows_in * 1.22)
    return figure


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
        tick.set(
            color=look.ink if at in heads else look.muted, fontweight="bold" if at in heads else "normal"
        )
        tick.set_fontsize(8.5 if at in heads else 7.8)


def _count(axes: Axes, x: float, y: float, text: str, look: Look, *, bold: bool = False) -> None:
    axes.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", ha="left", va="center_baseline",
        fontsize=7.8,         color=look.ink if bold else look.muted, fontweight="bold" if bold else "normal",
    )  # fmt: skip
