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
    Reply,
    Sent,
    Told,
)
from videop2r_data.validators import CountedEstimate, ScoredRow, aggregate, estimate_share, group_size

MOST_GROUPS = 64
"""Values of a tag above which it is an id and no table."""


def scored_row(row: EvalRow, reply: Reply | None, order: int) -> ScoredRow | None:
    """A question as the protocols count it; None: it was not asked, or its reference cannot be used."""
    if reply is None or reply.score is None:
        return None
    tags = {tag.name: tag.value for tag in row.tags}
    if row.problem_type:
        tags |= {"problem_type": row.problem_type, "data_type": row.data_type}
    return ScoredRow(reply.score, tags=tags, problem_type=row.problem_type, clip=row.path, order=order)


def counted_by(how: Aggregate, rows: Sequence[ScoredRow], *, whole: bool) -> list[ScoredRow]:
    """The questions whose place in a protocol is known; of a whole benchmark its groups lack none.

    A row that cannot be read has a place if its tags can be read, or if all questions count alike.
    """
    needed = [*how.only, how.by] if how.how in ("macro", "groups") else how.only
    placed = [row for row in rows if row.problem_type or all(map(row.tag, needed))]
    return list(_filled(how.by, placed)) if whole and how.how == "groups" else placed


def _filled(tag: str, rows: Sequence[ScoredRow]) -> Iterator[ScoredRow]:
    """Groups in which a wrong answer stands for each question that no row, or no known place, is left of.

    It stands first, where the chain of a group is worth nothing behind it.
    """
    groups: defaultdict[str, list[ScoredRow]] = defaultdict(list)
    for row in rows:
        groups[row.tag(tag)].append(row)
    for group in groups.values():
        lacking = group_size(group[-1]) - len(group)
        yield from [group[-1]._replace(score=0.0, order=group[0].order)] * lacking
        yield from group


@dataclass
class Counts:
    """What a benchmark's rows come to, taken in one by one."""

    plan: EvalPlan
    aggregates: tuple[Aggregate, ...]
    whole: bool = True
    """Whether every question of the benchmark is asked."""
    rows: list[ScoredRow] = field(default_factory=list)
    """Every question whose reference can be used."""
    blind: list[ScoredRow] = field(default_factory=list)
    """The same without their media."""
    questions: int = 0
    answered: int = 0
    unscored: int = 0
    cut: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    places: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    formed: Counter[bool] = field(default_factory=Counter)
    keys: list[str] = field(default_factory=list)
    """Of the requests that were answered."""
    sent: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.belonging = Belonging(self.plan)

    def add(self, row: EvalRow) -> None:
        """Take in one question."""
        reply = row.reply
        for rows, one in ((self.rows, reply), (self.blind, row.blind)):
            if (scored := scored_row(row, one, self.questions)) is not None:
                rows.append(scored)
        self.questions += 1
        self.unscored += reply.score is None
        self.belonging.add(row)
        if reply.failed:
            self.failed[reply.failed] += 1
            if reply.detail:
                self.examples.setdefault(reply.failed, reply.detail[:300])
            return
        self.answered += 1
        self.keys.append(reply.key)
        self.cut += reply.finish == "length"
        self.places[reply.place or "nowhere"] += 1
        if row.well_formed is not None:
            self.formed[row.well_formed] += 1
            self.faults.update([row.fault] if row.fault else [])
        if row.frame_indices:
            self.sent["frames"].append(len(row.frame_indices))
            self.sent["pixels"].append(row.frame_width * row.frame_height)
        if reply.input_tokens:
            self.sent["input_tokens"].append(reply.input_tokens)
        self.sent["output_tokens"].append(reply.output_tokens)

    def figures(self) -> tuple[Measured, ...]:
        """Every aggregate over all questions, then each tag's table."""
        return (*self._overall(), *self._tables())

    def _overall(self) -> Iterator[Measured]:
        for how in self.aggregates:
            yield self._measured(how, self.rows, self.blind)

    def _tables(self) -> Iterator[Measured]:
        """By each tag: the mean of its questions, in the scale of the headline."""
        mean = Aggregate(id="mean", scale=self.aggregates[0].scale)
        for tag in dict.fromkeys(tag for row in self.rows for tag in row.tags):
            values = sorted({row.tags[tag] for row in self.rows if tag in row.tags})
            for value in values if 1 < len(values) <= MOST_GROUPS else ():
                rows, blind = (
                    [row for row in every if row.tags.get(tag) == value] for every in (self.rows, self.blind)
                )
                yield self._measured(mean, rows, blind, tag, value)

    def _measured(
        self,
        how: Aggregate,
        rows: Sequence[ScoredRow],
        blind: Sequence[ScoredRow],
        by: str = "",
        group: str = "",
    ) -> Measured:
        found, alone = (self._estimate(how, every) for every in (rows, blind))
        value = alone.value if alone is not None else None
        update = {"question_only": value, "scale": how.scale}
        return measured(how.id, found, by, group).model_copy(update=update)

    def _estimate(self, how: Aggregate, rows: Sequence[ScoredRow]) -> CountedEstimate | None:
        """The number of a protocol; rows without a place in it are wrong, spread over all others evenly."""
        placed = counted_by(how, rows, whole=self.whole)
        found = aggregate(how, placed, level=self.plan.level, resamples=self.plan.resamples)
        if found is None or len(placed) >= len(rows):
            return found
        share = len(placed) / len(rows)
        scaled = {name: getattr(found, name) * share for name in ("value", "low", "high")}
        return found.model_copy(update=scaled)

    def told(self) -> Told:
        """What the completions are like."""
        good, bad = self.formed[True], self.formed[False]
        form = estimate_share(good, good + bad, level=self.plan.level)
        return Told(
            well_formed=None if form is None else measured("well_formed", form),
            faults=dict(sorted(self.faults.items())),
            cut=self.cut,
            places=dict(sorted(self.places.items())),
        )

    def measured_behind(self) -> Sent:
        """What reached the model."""
        return Sent(**{name: Range.of(self.sent[name]) for name in Sent.model_fields})


def measured(protocol: str, found: CountedEstimate | None, by: str = "", group: str = "") -> Measured:
    """An estimate under the name of its protocol."""
    figures = found.model_dump(include={"value", "low", "high", "n"}) if found is not None else _NOTHING
    return Measured(protocol=protocol, by=by, group=group, **figures)


_NOTHING = {"value": None, "low": None, "high": None, "n": 0}
