"""When an alarm of a training run is up: lines of its metrics in, words out.

A reading is a share and how many things it was taken over: `alarm/empty` and `alarm/empty_n`. Single readings
are small, so readings are pooled until they hold `ENOUGH` things: the newest ones, and the first ones of the
run. Without that many there is no alarm. What is compared, and why, stands in docs/training.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from videop2r_data.validators.estimate import wilson

ENOUGH = 48
"""Observations, or questions, that are pooled before anything is said."""
MOVED = 0.2
"""Change since the run's first readings that counts, if the 95 % intervals do not overlap."""
HALF, WITHIN, GAP = 0.5, 0.1, 0.5
"""Least share on false clips that counts; how near it is to that of the own clips; how far accuracies with
and without the usual answer lie apart."""
RAISED, ALARMS = "alarm/raised", "alarms"
"""In a line of metrics with a reading: how many alarms are up, and the words of each."""

Row = Mapping[str, Any]


class Pool(NamedTuple):
    """Several readings as one; `steps` are the first and the last of them."""

    share: float
    n: int
    steps: tuple[int, int]

    def moved_from(self, first: Pool) -> float:
        """The change since `first`; 0 where the readings or their intervals overlap."""
        if self.steps[0] <= first.steps[1]:
            return 0.0
        now, then = (wilson(round(one.share * one.n), one.n) for one in (self, first))
        apart = (now.low or 0.0) > (then.high or 0.0) or (now.high or 0.0) < (then.low or 0.0)
        return self.share - first.share if apart else 0.0


def pool(rows: Iterable[Row], key: str) -> Pool | None:
    """The readings of a key, in the order given, until they hold enough; None if they never do.

    >>> rows = [{"step": s, "alarm/empty": x, "alarm/empty_n": 32} for s, x in ((1, 0.5), (26, 0.25))]
    >>> pool(rows, "alarm/empty")
    Pool(share=0.375, n=64, steps=(1, 26))
    """
    total, n, steps = 0.0, 0, []
    for row in rows:
        count = row.get(f"{key}_n", 0)
        if count:
            total, n = total + row[key] * count, n + count
            steps.append(int(row["step"]))
        if n >= ENOUGH:
            return Pool(total / n, n, (min(steps), max(steps)))
    return None


def alarms_up(rows: Sequence[Row]) -> dict[str, str]:
    """The alarms that are up after these lines of metrics: name -> what is wrong, for people."""
    found = {
        "empty": _needless(rows, "empty", "empty clips"),
        "shuffled": _needless(rows, "shuffled", "clips of other questions"),
        "usual": _guessed(rows),
        "seen": _unseen(rows),
    }
    return {name: words for name, words in found.items() if words}


def _ends(rows: Sequence[Row], key: str) -> tuple[Pool, Pool] | None:
    """The first and the newest readings of a key."""
    first, now = pool(rows, key), pool(reversed(rows), key)
    return None if first is None or now is None else (first, now)


def _needless(rows: Sequence[Row], kind: str, what: str) -> str:
    """Observations do without the clip."""
    ends = _ends(rows, f"alarm/{kind}")
    if ends is None:
        return ""
    first, now = ends
    own = pool((row for row in reversed(rows) if f"alarm/{kind}" in row), "alarm/own")
    said = f"observations of {what} suffice in {now.share:.0%}"
    if own is not None and now.share >= HALF and now.share > own.share - WITHIN:
        return f"{said}, of their own clips in {own.share:.0%}: they hardly depend on the clip"
    if now.moved_from(first) >= MOVED:
        return f"{said}, {first.share:.0%} at first: more and more is said that no clip shows"
    return ""


def _guessed(rows: Sequence[Row]) -> str:
    """Answers follow the usual answer of the question."""
    ends = _ends(rows, "alarm/usual_wrong")
    if ends is None:
        return ""
    first, now = ends
    said = f"where the usual answer is wrong {now.share:.0%} of the answers are right"
    right = pool(reversed(rows), "alarm/usual_right")
    if right is not None and right.share - now.share >= GAP:
        return f"{said}, where it is right {right.share:.0%}: the usual answer is given whatever the clip"
    if -now.moved_from(first) >= MOVED:
        return f"{said}, {first.share:.0%} at first: the usual answer is given more and more"
    return ""


def _unseen(rows: Sequence[Row]) -> str:
    """The judge that sees does not find the claims in the clips."""
    ends = _ends(rows, "alarm/seen")
    if ends is None:
        return ""
    first, now = ends
    said = f"the clips show {now.share:.0%} of what observations claim"
    if now.share < HALF:
        return said
    return f"{said}, {first.share:.0%} at first" if -now.moved_from(first) >= MOVED else ""


class Raised(NamedTuple):
    """An alarm of a run.

    Attributes:
        alarm: its name.
        since: step of the reading at which it first was up.
        last: step of the newest reading at which it was up.
        up: it is up at the end.
        says: what is wrong, in the words of step `last`.
    """

    alarm: str
    since: int
    last: int
    up: bool
    says: str

    @property
    def line(self) -> str:
        """The alarm in one line, for people."""
        when = (
            f"since step {self.since:,}"
            if self.up
            else f"steps {self.since:,} to {self.last:,}, not at the end"
        )
        return f"{self.alarm} ({when}): {self.says}"


def alarms_in(rows: Iterable[Row]) -> list[Raised]:
    """The alarms of a run, from the lines of its `metrics.jsonl`; what is damaged is passed over.

    >>> alarms_in([{"step": 26, "alarm/raised": 1, "alarms": {"empty": "it invents"}}])
    [Raised(alarm='empty', since=26, last=26, up=True, says='it invents')]
    """
    found: dict[str, Raised] = {}
    newest = 0
    for row in rows:
        step, up = row.get("step"), row.get(ALARMS, {})
        if RAISED not in row or not isinstance(step, int) or not isinstance(up, dict):
            continue
        newest = step
        for name, words in up.items():
            since = found[name].since if name in found else step
            found[name] = Raised(str(name), since, step, True, str(words))
    return [one._replace(up=one.last == newest) for one in found.values()]
