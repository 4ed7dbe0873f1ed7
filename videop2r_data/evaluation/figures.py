"""From graded questions to the figures of a benchmark, each beside that of the question alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from videop2r_data.evaluation.faithful import Belonging
from videop2r_data.schemas import (
    Aggregate,
    EvalPlan,
    EvalRow,
    Measured,
    Range,
    Sent,
    Told,
)
from videop2r_data.validators import CountedEstimate, estimate_mean, estimate_share

OWN = (Aggregate(id="accuracy", title="mean score", how="mean"),)
"""Of questions without a declaration."""
MOST_GROUPS = 64
"""Values of a tag above which it is an id and no table."""


@dataclass
class Counts:
    """What a benchmark's rows come to, taken in one by one."""

    plan: EvalPlan
    aggregates: tuple[Aggregate, ...] = OWN
    rows: list[tuple[dict[str, str], float | None, float | None]] = field(default_factory=list)
    """Tags, score, and score without media, of each question; None: it counts nowhere."""
    answered: int = 0
    unscored: int = 0
    cut: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    places: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    formed: Counter[bool] = field(default_factory=Counter)
    sufficient: list[bool] = field(default_factory=list)
    words: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    sent: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.belonging = Belonging(self.plan)

    def add(self, row: EvalRow) -> None:
        """Take in one question."""
        reply = row.reply
        tags = {tag.name: tag.value for tag in row.tags}
        if row.problem_type:
            tags |= {"problem_type": row.problem_type, "data_type": row.data_type}
        blind = row.blind.score if row.blind is not None else None
        self.rows.append((tags, reply.score, blind))
        self.unscored += reply.score is None
        self.belonging.add(row)
        if reply.failed:
            self.failed[reply.failed] += 1
            if reply.detail:
                self.examples.setdefault(reply.failed, reply.detail[:300])
            return
        self.answered += 1
        self.cut += reply.finish == "length"
        self.places[reply.place or "nowhere"] += 1
        if row.well_formed is not None:
            self.formed[row.well_formed] += 1
            self.faults.update([row.fault] if row.fault else [])
        for cell, words in zip(row.segments, row.segment_words, strict=True):
            self.words[cell.name].append(words)
        if row.frame_indices:
            self.sent["frames"].append(len(row.frame_indices))
            self.sent["pixels"].append(row.frame_width * row.frame_height)
        if reply.input_tokens:
            self.sent["input_tokens"].append(reply.input_tokens)
        self.sent["output_tokens"].append(reply.output_tokens)
        self._judged(row)

    def _judged(self, row: EvalRow) -> None:
        """Whether the answer follows from the observation; from none it does not."""
        said = [cell.verdict for cell in row.judgements if cell.decides == "sufficiency"]
        if said and said[0]:
            self.sufficient.append(said[0] == "Yes")
        elif not said and any(judge.decides == "sufficiency" for judge in self.plan.judges):
            self.sufficient.append(False)

    def figures(self) -> tuple[Measured, ...]:
        """Every aggregate over all questions, then each tag's table."""
        return (*self._overall(), *self._tables())

    def _overall(self) -> Iterator[Measured]:
        for aggregate in self.aggregates:
            yield self._measured(aggregate.id, self.rows)
        if self.sufficient:
            found = estimate_share(sum(self.sufficient), len(self.sufficient), level=self.plan.level)
            yield measured("sufficiency", found)

    def _tables(self) -> Iterator[Measured]:
        groups: dict[str, dict[str, list[tuple[dict[str, str], float | None, float | None]]]] = {}
        for row in self.rows:
            for tag, value in row[0].items():
                groups.setdefault(tag, defaultdict(list))[value].append(row)
        for tag, by_value in groups.items():
            if 1 < len(by_value) <= MOST_GROUPS:
                for value in sorted(by_value):
                    yield self._measured("mean", by_value[value], tag, value)

    def _measured(
        self,
        protocol: str,
        rows: Sequence[tuple[dict[str, str], float | None, float | None]],
        by: str = "",
        group: str = "",
    ) -> Measured:
        blind = self._mean([blind for _, _, blind in rows])
        found = measured(protocol, self._mean([score for _, score, _ in rows]), by, group)
        return found.model_copy(update={"question_only": blind.value if blind is not None else None})

    def _mean(self, scores: Sequence[float | None]) -> CountedEstimate | None:
        known = [score for score in scores if score is not None]
        return estimate_mean(known, level=self.plan.level, resamples=self.plan.resamples)

    def told(self) -> Told:
        """What the completions are like."""
        good, bad = self.formed[True], self.formed[False]
        form = estimate_share(good, good + bad, level=self.plan.level)
        return Told(
            well_formed=None if form is None else measured("well_formed", form),
            faults=dict(sorted(self.faults.items())),
            cut=self.cut,
            places=dict(sorted(self.places.items())),
            words={name: found for name, each in self.words.items() if (found := Range.of(each))},
        )

    def measured_behind(self) -> Sent:
        """What reached the model."""
        return Sent(**{name: Range.of(self.sent[name]) for name in Sent.model_fields})


def measured(protocol: str, found: CountedEstimate | None, by: str = "", group: str = "") -> Measured:
    """An estimate under the name of its protocol."""
    if found is None:
        return Measured(protocol=protocol, by=by, group=group, value=None, low=None, high=None, n=0)
    return Measured(
        protocol=protocol,
        by=by,
        group=group,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
    )
