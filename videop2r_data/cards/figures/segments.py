"""The figure of the segments that a declared grammar has: how long each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from videop2r_data.cards.figures.counts import FigureData
from videop2r_data.cards.figures.text import Spread
from videop2r_data.plots import Look, label, new_figure, plain_axes, short_number
from videop2r_data.schemas import Model, Role, TraceGrammar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SegmentLengths(Model):
    """One segment of the grammar."""

    role: Role
    words: Spread
    """Words of each time it stands in a trace; a round of a group is one."""


class SegmentsData(FigureData):
    """What the figure shows."""

    title = "Length of the segments"
    config: str
    grammar: str
    segments: dict[str, SegmentLengths]
    """Name -> its lengths, in the order of the grammar; those that stand in no trace are left out."""

    @classmethod
    def of(cls, config: str, grammar: TraceGrammar, words: Mapping[str, Spread]) -> SegmentsData:
        """From the lengths of `Stats`."""
        found = {
            name: SegmentLengths(role=spec.role, words=words[name])
            for name, spec in grammar.named.items()
            if name in words and words[name].count
        }
        return cls(config=config, grammar=grammar.name, segments=found)

    def caption(self) -> str:
        """One sentence for the card."""
        medians = ", ".join(f"{name} {one.words.p50:g}" for name, one in self.segments.items())
        return (
            f"Words of each segment of `{self.grammar}` in `{self.config}`: median (dot), the middle half "
            f"(thick) and the middle 90 % (thin); the medians are: {medians}."
        )

    def draw(self, look: Look) -> Figure:
        """A line for each segment, in the colour of its role."""
        told = f"words per segment in {self.config}: median (dot), middle half (thick), middle 90 % (thin)"
        figure = new_figure(self.title, told, look, high=0.3 * len(self.segments) + 0.8)
        axes = figure.subplots()
        plain_axes(axes, look, grid="x")
        colours = {Role.PERCEPTION: look.perception, Role.REASONING: look.reasoning, Role.ANSWER: look.both}
        for y, one in enumerate(self.segments.values()):
            s, colour = one.words, colours.get(one.role, look.muted)
            axes.hlines(y, s.p5, s.p95, color=colour, linewidth=1.0)
            axes.hlines(y, s.p25, s.p75, color=colour, linewidth=4.2, alpha=0.55)
            axes.plot([s.p50], [y], linestyle="", marker="o", markersize=5, color=colour)
        lines = [f"{label(name)} ({one.role.value})" for name, one in self.segments.items()]
        axes.set_yticks(range(len(lines)), lines)
        axes.set_ylim(len(lines) - 0.45, -0.55)
        axes.tick_params(axis="y", labelcolor=look.ink)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
        axes.set_xlabel("words")
        return figure
