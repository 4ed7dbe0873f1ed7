"""Counts of a released data set, in one pass and constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import Field

from videop2r_data.cards.figures.text import (
    Distribution,
    Spread,
    TopWords,
    Words,
    normal_question,
    segments_of,
    text_of,
)
from videop2r_data.files import Batch, Release
from videop2r_data.schemas import Model, Stage, TraceGrammar, default_grammar

TOP = 40
"""Sources and words listed at most."""


class Stats(Model):
    """The counts of a data set."""

    where: str
    rows: dict[str, int]
    """Config -> rows."""
    table: dict[str, dict[str, int]]
    """data type -> problem type -> rows of `sft`, or of `rl` if there is no `sft`."""
    sources: dict[str, int]
    """data_source -> rows, the most frequent first."""
    perception_words: Distribution
    """Words of P, all rows."""
    reasoning_words: Distribution
    """Words of R, all rows."""
    perception_by: dict[str, Spread]
    """`type/…`, `data/…`, `source/…` -> words of P."""
    reasoning_by: dict[str, Spread]
    """`type/…`, `data/…`, `source/…` -> words of R."""
    rewards: Distribution
    """Score of the answers, 0 to 1 in tenths."""
    attempts: dict[str, int] = Field(default_factory=dict)
    """Which try was kept -> rows."""
    frames: Spread
    """Sampled frames per row with media."""
    seconds: Spread
    """Time of the last sampled frame of a video."""
    funnel: dict[str, int] = Field(default_factory=dict)
    """`stage/reason` -> rows of `rejected`, in the order of the stages, the most frequent first."""
    near_duplicates: int
    """Rows whose question repeats an earlier one up to case, white space and punctuation."""
    perception_top: TopWords
    reasoning_top: TopWords
    segment_words: dict[str, Spread] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Segment -> words of each time it stands in a trace, in the order of the grammar; empty for the default
    form of a trace, whose segments are above."""


_COLUMNS = (
    *("problem", "problem_type", "data_type", "data_source", "observation", "process", "output"),
    *("reward", "attempt", "frame_indices", "frame_times_s", "options", "path", "segments"),
)


class Watcher(Protocol):
    """Sees every row of the main config while it is counted."""

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """One row, in reading order; P and R as bare text, None where there is none."""
        ...


def compute_stats(release: Release) -> Stats:
    """Count everything that `Stats` holds; a cell that is missing or of another type is left out.

    Raises:
        SourceError: a file is damaged.
    """
    return count_release(release).stats()


def count_release(release: Release, watchers: Sequence[Watcher] = ()) -> Tally:
    """Go through a release once; watchers see the rows of `sft`, or of `rl` if there is no `sft`."""
    main = "sft" if "sft" in release.configs else "rl"
    tally = Tally(release.where, main, watchers, release.grammar)
    for config in release.configs:
        wanted = _COLUMNS if config == main else ("stage", "reason")
        tally.rows[config] = 0
        for _, batch in release.batches(config, wanted, size=512):
            tally.rows[config] += len(batch.index)
            if config == main:
                tally.add(batch)
            elif config == "rejected":
                tally.reject(batch)
    return tally


class Tally:
    """The counters behind `Stats`; `main` is the config whose rows were counted one by one."""

    def __init__(
        self,
        where: str,
        main: str,
        watchers: Sequence[Watcher] = (),
        grammar: TraceGrammar | None = None,
    ) -> None:
        self.where = where
        self.main = main
        self.watchers = watchers
        self.rows: dict[str, int] = {}
        self.table: Counter[tuple[str, str]] = Counter()
        self.sources: Counter[str] = Counter()
        self.grammar = grammar or default_grammar()
        self.words = {"perception": Words(), "reasoning": Words()}
        self.segments: dict[str, Counter[int]] = {name: Counter() for name in self.grammar.named}
        self.rewards: Counter[int] = Counter()
        self.attempts: Counter[int] = Counter()
        self.frames: Counter[int] = Counter()
        self.seconds: Counter[int] = Counter()  # milliseconds
        self.reasons: Counter[str] = Counter()
        self.questions: set[bytes] = set()
        self.near = 0

    def add(self, batch: Batch) -> None:
        """Count some rows of the main config."""
        columns = [batch.columns.get(name) or [None] * len(batch.index) for name in _COLUMNS]
        for row in zip(*columns, strict=True):
            self._row(dict(zip(_COLUMNS, row, strict=True)))

    def _row(self, row: dict[str, Any]) -> None:
        kind, data_type, source = (
            text_of(row, name) for name in ("problem_type", "data_type", "data_source")
        )
        self.table[data_type, kind] += 1
        self.sources[source] += 1
        groups = (f"type/{kind}", f"data/{data_type}", f"source/{source}")
        perception, reasoning = segments_of(row["observation"], row["process"], row["output"], self.grammar)
        self.words["perception"].add(perception, groups)
        self.words["reasoning"].add(reasoning, groups)
        self._numbers(row, data_type)
        self._segments(row["segments"])
        question = normal_question(row["problem"], row["options"], row["path"])
        if question is not None:
            self.near += question in self.questions
            self.questions.add(question)
        for watcher in self.watchers:
            watcher.see(row, perception, reasoning)

    def _numbers(self, row: dict[str, Any], data_type: str) -> None:
        reward = _number(row["reward"])
        if reward is not None and 0 <= reward <= 1:
            self.rewards[round(reward * 1000)] += 1
        if isinstance(row["attempt"], int):
            self.attempts[row["attempt"]] += 1
        indices, times = row["frame_indices"], row["frame_times_s"]
        if isinstance(indices, list) and indices:
            self.frames[len(indices)] += 1
        last = _number(times[-1]) if isinstance(times, list) and times else None
        if data_type == "video" and last is not None:
            self.seconds[round(last * 1000)] += 1

    def _segments(self, cells: Any) -> None:
        for cell in cells if isinstance(cells, list) else ():
            lengths = self.segments.get(str(cell.get("name"))) if isinstance(cell, dict) else None
            if lengths is not None and isinstance(cell.get("text"), str):
                lengths[len(cell["text"].split())] += 1

    def reject(self, batch: Batch) -> None:
        """Count some rows of `rejected`."""
        empty = [""] * len(batch.index)
        stages, reasons = batch.columns.get("stage", empty), batch.columns.get("reason", empty)
        self.reasons.update(f"{s}/{r}" for s, r in zip(stages, reasons, strict=True))

    def stats(self) -> Stats:
        """What was counted so far."""
        perception, reasoning = self.words["perception"], self.words["reasoning"]
        table: dict[str, dict[str, int]] = {}
        for (data_type, kind), count in sorted(self.table.items()):
            table.setdefault(data_type, {})[kind] = count
        return Stats(
            where=self.where,
            rows=dict(self.rows),
            table=table,
            sources=dict(self.sources.most_common(TOP)),
            perception_words=Distribution.of(perception.lengths, bin_width=20),
            reasoning_words=Distribution.of(reasoning.lengths, bin_width=20),
            perception_by=perception.spreads(TOP),
            reasoning_by=reasoning.spreads(TOP),
            rewards=Distribution.of(self.rewards, bin_width=100, scale=1000),
            attempts={str(k): v for k, v in sorted(self.attempts.items())},
            frames=Spread.of(self.frames),
            seconds=Spread.of(self.seconds, scale=1000),
            funnel=self._funnel(),
            near_duplicates=self.near,
            perception_top=perception.top(TOP),
            reasoning_top=reasoning.top(TOP),
            segment_words={name: Spread.of(lengths) for name, lengths in self.segments.items() if lengths},
        )

    def _funnel(self) -> dict[str, int]:
        order = {stage.value: place for place, stage in enumerate(Stage)}

        def place(item: tuple[str, int]) -> tuple[int, int, str]:
            return order.get(item[0].split("/")[0], len(order)), -item[1], item[0]

        return dict(sorted(self.reasons.items(), key=place))


def _number(value: Any) -> float | None:
    """A finite number, or a text of one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e12 else None
