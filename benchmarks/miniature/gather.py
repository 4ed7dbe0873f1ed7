"""From the cells of a run to one small file per setting, and from these to figures with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videop2r_data.validators import alarms_in

Record = dict[str, Any]
CURVE = ("answers", "observations", "invented", "kl")
"""Of the sampled traces, kept at every point of a curve."""
READ = ("empty", "shuffled", "own", "seen", "usual_right", "usual_wrong")
"""What an alarm reads: of each the value at the first update and over the last four readings is kept."""
_T95 = (
    math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""Student's t at 97.5 %, by degrees of freedom."""


def small(record: Record) -> Record:
    """What of a cell is kept in the repository."""
    kept = {
        key: value
        for key, value in record.items()
        if key not in ("curve", "readings", "training", "validation")
    }
    kept["validation"] = {mode: found["answers"] for mode, found in record["validation"].items()}
    if len(record.get("curve", [])) > 0 and "sampled" in record["curve"][0]:
        points = record["curve"]
        kept["curve"] = {
            "step": [point["step"] for point in points],
            "greedy": [point["greedy"]["answers"] for point in points],
            **{key: [point["sampled"].get(key) for point in points] for key in CURVE},
        }
    if record.get("purpose") in ("judges", "long"):
        kept["training"] = record["training"]
    if record.get("readings"):
        kept["alarms"] = {one.alarm: [one.since, one.last, one.up] for one in alarms_in(record["readings"])}
        for name, some in (("read_first", record["readings"][:1]), ("read", record["readings"][-4:])):
            kept[name] = {key: _pooled(some, key) for key in READ}
    return kept


def _pooled(rows: Sequence[Record], key: str) -> float | None:
    counts = [(row.get(f"alarm/{key}", 0.0), row.get(f"alarm/{key}_n", 0)) for row in rows]
    n = sum(count for _, count in counts)
    return round(sum(share * count for share, count in counts) / n, 4) if n else None


def gather(cells: Path, results: Path) -> None:
    """Write `results/SETTING.jsonl` from all cells of a folder; a line for each, in the order of names."""
    results.mkdir(parents=True, exist_ok=True)
    for setting in sorted(path.name for path in cells.iterdir() if path.is_dir()):
        paths = sorted((cells / setting).glob("*/*.json"))
        lines = [json.dumps(small(json.loads(path.read_text())), separators=(",", ":")) for path in paths]
        (results / f"{setting}.jsonl").write_text("\n".join(lines) + "\n")


def records(results: Path) -> list[Record]:
    """All that was gathered."""
    lines = (line for path in sorted(results.glob("*.jsonl")) for line in path.read_text().splitlines())
    return [json.loads(line) for line in lines if line]


class Cell(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of the seeds.
        half: half the width of its 95 % interval (Student's t); NaN for one seed.
        n: seeds.
    """

    mean: float
    half: float
    n: int

    def text(self, *, signed: bool = False, digits: int = 1) -> str:
        """For a table: times 100 was done before."""
        number = f"{self.mean:+.{digits}f}" if signed else f"{self.mean:.{digits}f}"
        return number if math.isnan(self.half) else f"{number} ±{self.half:.{digits}f}"


def over_seeds(values: Iterable[float]) -> Cell:
    """Mean and interval.

    >>> over_seeds([1.0, 2.0, 3.0]).text(digits=2)
    '2.00 ±2.48'
    """
    known = list(values)
    n = len(known)
    if not n:
        return Cell(math.nan, math.nan, 0)
    mean = sum(known) / n
    if n == 1:
        return Cell(mean, math.nan, 1)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in known) / (n - 1))
    return Cell(mean, _T95[min(n - 1, len(_T95) - 1)] * deviation / math.sqrt(n), n)


def by_seed(found: Iterable[Record], **wanted: Any) -> dict[int, Record]:
    """Seed -> the record that has these values."""
    return {
        record["seed"]: record
        for record in found
        if all(record.get(key) == value for key, value in wanted.items())
    }


def paired(one: dict[int, Record], other: dict[int, Record], value: Callable[[Record], float | None]) -> Cell:
    """Difference of two arms over the seeds that both have."""
    pairs = [(value(one[seed]), value(other[seed])) for seed in sorted(set(one) & set(other))]
    return over_seeds(a - b for a, b in pairs if a is not None and b is not None)


def within_kl(curve: Record, budget: float, key: str) -> float:
    """The best figure of a run while it is no further than this from its start.

    The KL term holds runs at some distance, where they go on getting better: a figure *at* a KL would be that
    of whichever point first passed it by chance.

    Args:
        curve: lists of one length, the first point at KL 0.
        budget: KL to the start in nats a trace.

    >>> within_kl({"kl": [0.0, 0.3, 0.5, 0.4], "answers": [0.5, 0.6, 0.65, 0.7]}, 0.4, "answers")
    0.7
    """
    return max(float(value) for kl, value in zip(curve["kl"], curve[key], strict=True) if kl <= budget)


class AtKl(NamedTuple):
    """Two arms compared within the same distance from their start.

    Attributes:
        level: mean over seeds of that KL, the largest that both reach.
        answers, observations: paired differences.
    """

    level: Cell
    answers: Cell
    observations: Cell


def equal_kl(one: dict[int, Record], other: dict[int, Record]) -> AtKl:
    """One arm minus the other at equal KL, seed by seed."""
    levels, answers, observations = [], [], []
    for seed in sorted(set(one) & set(other)):
        a, b = one[seed]["curve"], other[seed]["curve"]
        level = min(max(a["kl"]), max(b["kl"]))
        levels.append(level)
        answers.append(100 * (within_kl(a, level, "answers") - within_kl(b, level, "answers")))
        if a["observations"][0] is not None and b["observations"][0] is not None:
            observations.append(
                100 * (within_kl(a, level, "observations") - within_kl(b, level, "observations"))
            )
    return AtKl(over_seeds(levels), over_seeds(answers), over_seeds(observations))


TURNED = 0.1
"""Growth of the share of invented observations that counts as a turn to inventing."""


def turn(record: Record) -> int | None:
    """The update from which on a run invents; None: it does not, or not at the end.

    From there on, in every block of updates, the share of invented observations is `TURNED` above the first
    block's.
    """
    rows = record["training"]
    before = rows[0][4]
    found = None
    for step, *_, invented in rows:
        if invented < before + TURNED:
            found = None
        elif found is None:
            found = step
    return found
