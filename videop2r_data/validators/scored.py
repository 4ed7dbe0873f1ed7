"""A graded question, and what a statistic counts of it: its score, whether it is high enough, its group."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Aggregate


class ScoredRow(NamedTuple):
    """One question.

    Attributes:
        score: in [0, 1]; 0 if there is no answer.
        tags: what tables and aggregates go by.
        problem_type: of the question, its value; "" of a row that cannot be read.
        clip: its media file: questions of one clip are drawn together.
        order: place in the benchmark.
    """

    score: float
    tags: Mapping[str, str]
    problem_type: str
    clip: str
    order: int

    def tag(self, name: str) -> str:
        """The value of a tag, or of `problem_type`; "" if there is none."""
        return (self.problem_type if name == "problem_type" else "") or self.tags.get(name, "")


# --- what a group of questions is worth [Video-MME-v2: MME-Benchmarks/Video-MME-v2 @ 013b6c92f1c4] ---

Stages = Sequence[Sequence[int]]


def relevance(right: Sequence[bool]) -> float:
    """`(right / all)²`: 0, 1/16, 4/16, 9/16 or 1 of four.

    >>> relevance([True, False, True, True])
    0.5625
    """
    return (sum(right) / len(right)) ** 2


def logic(right: Sequence[bool], stages: Stages) -> float:
    """What an unbroken chain of right answers is worth: a question of stage s weighs `2s - 1`.

    The chain ends behind the first stage that is not right as a whole; questions of one stage count singly.

    Args:
        right: of each question, in order.
        stages: numbers of the questions of each stage, from 1.

    >>> right = [True, False, True, True]
    >>> logic(right, [[1], [2], [3], [4]]), logic(right, [[1], [2, 3], [4]])
    (0.0625, 0.3333333333333333)
    """
    earned = total = 0
    whole = True
    for weight, places in enumerate(stages):
        hits = sum(right[place - 1] for place in places)
        earned += (2 * weight + 1) * hits if whole else 0
        total += (2 * weight + 1) * len(places)
        whole = whole and hits == len(places)
    return earned / total


def _stages(row: ScoredRow) -> Stages:
    """The structure of a row's group, as `[1, [2, 3], 4]`; four questions in a line if it has none.

    Raises:
        ConfigError: it holds something else than the numbers 1 to n, each once.
    """
    text = row.tag("group_structure") or "[1, 2, 3, 4]"
    try:
        stages = [[stage] if isinstance(stage, int) else list(stage) for stage in json.loads(text)]
        places = sorted(chain.from_iterable(stages))
        if places and places == list(range(1, len(places) + 1)):
            return stages
    except (ValueError, TypeError, RecursionError):
        pass
    raise ConfigError(
        f"a group of questions has the structure {text[:60]!r}",
        where=f"tag group_structure, question {row.order}",
        hint="write the numbers of the questions in stages: [1, [2, 3], 4]",
    )


def group_size(row: ScoredRow) -> int:
    """How many questions the group of a row has.

    Raises:
        ConfigError: its structure cannot be read.
    """
    return sum(map(len, _stages(row)))


# --- what a statistic counts ---


class Unit(NamedTuple):
    """What a statistic counts: a question, or a group of questions, with their places in the benchmark."""

    value: float
    category: str
    clip: str
    orders: tuple[int, ...]


def units_of(spec: Aggregate, rows: Sequence[ScoredRow]) -> Iterator[Unit]:
    """What counts for a protocol.

    Raises:
        ConfigError: groups whose structure cannot be read.
    """
    if spec.how == "groups":
        yield from _groups(spec, rows)
        return
    for row in rows:
        if _counts(spec, row):
            value = float(row.score >= (spec.at or 0.0)) if spec.how == "recall" else row.score
            yield Unit(value, row.tag(spec.by) if spec.how == "macro" else "", _clip(row), (row.order,))


def _groups(spec: Aggregate, rows: Sequence[ScoredRow]) -> Iterator[Unit]:
    """Whole groups; tags of a group are those of its last question [Video-MME-v2]."""
    groups: dict[str, list[ScoredRow]] = {}
    for row in sorted(rows, key=lambda row: row.order):
        groups.setdefault(row.tag(spec.by), []).append(row)
    for group in groups.values():
        stages = _stages(group[-1])
        # A draw of single questions leaves parts of groups, which no curve is made for.
        if _counts(spec, group[-1]) and len(group) == sum(map(len, stages)):
            right = [row.score >= 1 for row in group]
            own = group[-1].tag("group_type") if spec.curve == "video-mme-v2" else spec.curve
            value = logic(right, stages) if own == "logic" else relevance(right)
            yield Unit(value, "", _clip(group[-1]), tuple(row.order for row in group))


def _clip(row: ScoredRow) -> str:
    """What is drawn as one: the clip, or a question that has none."""
    return row.clip or f"question {row.order}"


def _counts(spec: Aggregate, row: ScoredRow) -> bool:
    return all(row.tag(name) in values for name, values in spec.only.items())
