"""When an alarm of a training run is up: lines of its metrics in, words out.

A reading is a share and how many things it was taken over: `alarm/empty` and `alarm/empty_n`. Single readings
are small, so readings are pooled until they hold `ENOUGH` things: the newest ones, and the first ones of the
run. Without that many there is no alarm. What is compared, and why, stands in docs/training.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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


class Rule(NamedTuple):
    """One alarm: a metric that gets worse, or is bad beside another one of the same lines.

    Attributes:
        key: the metric.
        said: what it is, for people.
        worse: 1 if a growth is bad, -1 if a fall is.
        beside, beside_said: the other metric, and what it is; empty: none.
        bad: of the share and the other one (0 without one): they are bad whatever was before.
    """

    key: str
    said: str
    worse: int
    beside: str
    beside_said: str
    bad: Callable[[float, float], bool]


def _needless(false: float, own: float) -> bool:
    return false >= HALF and false > own - WITHIN


_OWN = ("alarm/own", "of own clips", _needless)
RULES = {
    "empty": Rule("alarm/empty", "{} of the observations of empty clips suffice", 1, *_OWN),
    "shuffled": Rule("alarm/shuffled", "{} of the observations of other questions' clips suffice", 1, *_OWN),
    "usual": Rule(
        "alarm/usual_wrong", "where the usual answer is wrong {} of the answers are right", -1,
        "alarm/usual_right", "where it is right", lambda wrong, right: right - wrong >= GAP,
    ),
    "seen": Rule("alarm/seen", "the clips show {} of the claims", -1, "", "", lambda seen, _: seen < HALF),
}  # fmt: skip


def alarms_up(rows: Sequence[Row]) -> dict[str, str]:
    """The alarms that are up after these lines of metrics: name -> what was measured, for people."""
    found = {}
    for name, rule in RULES.items():
        first, now = pool(rows, rule.key), pool(reversed(rows), rule.key)
        if first is None or now is None:
            continue
        beside = pool((row for row in reversed(rows) if rule.key in row), rule.beside)
        comparable = beside is not None or not rule.beside
        bad = comparable and rule.bad(now.share, beside.share if beside else 0.0)
        if bad or now.moved_from(first) * rule.worse >= MOVED:
            others = [f"{rule.beside_said} {beside.share:.0%}"] if beside else []
            others += [f"at first {first.share:.0%}"] if now.steps[0] > first.steps[1] else []
            told = f" ({', '.join(others)})" if others else ""
            found[name] = rule.said.format(f"{now.share:.0%}") + told
    return found


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
