"""The table and the figures of the miniature, from `results/*.json`.

    python -m benchmarks.miniature.report [--results DIR] [--mode sampled|greedy]

Two intervals, for two questions. Over clips: had the same weights seen other clips? Clips are resampled, the
same ones for every arm and seed. Over seeds: had another start and other rollouts been drawn? Student's t
over the seeds' means, with differences taken within a seed; with 3 seeds its factor is 4.3, so it is wide.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.miniature.settings import ARMS

Floats = NDArray[np.float64]
HERE = Path(__file__).parent
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
"""Student's t, two-sided 95 %, by the number of seeds."""
METRICS = ("score", "exact", "sufficient", "mismatch", "format")
SEEN, SEEN_METRICS = "interval+seconds", ("score", "exact", "sufficient")
RESAMPLES = 4000


@dataclass(frozen=True)
class Cell:
    """A mean with its two intervals; NaN where there is none."""

    value: float
    clips: tuple[float, float]
    seeds: float
    """Half-width."""

    def text(self, signed: bool = False) -> str:
        """E.g. `41.2 [39.8, 42.7] ±2.1`, in percent."""
        form = "{:+.1f}" if signed else "{:.1f}"
        low, high = (form.format(100 * x) for x in self.clips)
        wide = "" if np.isnan(self.seeds) else f" ±{100 * self.seeds:.1f}"
        return "-" if np.isnan(self.value) else f"{form.format(100 * self.value)} [{low}, {high}]{wide}"


def load(folder: Path) -> dict[str, dict[int, Any]]:
    """Arm -> seed -> record."""
    found: dict[str, dict[int, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if "arm" in record:
            found.setdefault(record["arm"], {})[record["seed"]] = record
    return found


def marks(record: Any, mode: str, metric: str, kind: str = "") -> Floats:
    """[questions] in [0, 1], NaN where unsaid or of other kinds (`a+b`: of two); `exact`: the whole score."""
    told = record[mode]["score" if metric == "exact" else metric]
    if isinstance(told, str):
        values = np.array([{"1": 1.0, "0": 0.0}.get(c, np.nan) for c in told])
    else:
        values = np.array([np.nan if v is None else v / 100 for v in told])
    if metric == "exact":
        values = np.where(np.isnan(values), np.nan, values == 1.0)
    if kind:
        values[~np.isin(record["kind"], kind.split("+"))] = np.nan
    return values


def table_of(records: dict[int, Any], seeds: Sequence[int], mode: str, metric: str, kind: str = "") -> Floats:
    """[seeds, questions]."""
    return np.stack([marks(records[seed], mode, metric, kind) for seed in seeds])


def estimate(table: Floats, resamples: int = RESAMPLES) -> Cell:
    """Mean of [seeds, questions], NaN left out, with both intervals."""
    if np.isnan(table).all():
        return Cell(np.nan, (np.nan, np.nan), np.nan)
    table = table[:, ~np.isnan(table).all(axis=0)]
    per_seed = np.nanmean(table, axis=1)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(resamples // 100):
        drawn = rng.integers(0, table.shape[1], (100, table.shape[1]))
        means.append(np.nanmean(np.nanmean(table[:, drawn], axis=2), axis=0))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    n = len(per_seed)
    half = T95[n] * per_seed.std(ddof=1) / np.sqrt(n) if n in T95 else np.nan
    return Cell(float(per_seed.mean()), (float(low), float(high)), float(half))


def difference(one: Floats, other: Floats) -> Cell:
    """Paired by question and seed."""
    return estimate(one - other)


def collapsed(records: dict[int, Any], key: str) -> float:
    """Share of groups without an advantage, over all steps and seeds; NaN for an arm without RL."""
    rows = [row for record in records.values() for row in record["curve"] if f"collapsed/{key}" in row]
    groups = sum(row["groups"] for row in rows)
    return sum(row[f"collapsed/{key}"] for row in rows) / groups if groups else float("nan")


def per_step(records: dict[int, Any]) -> float:
    """CPU seconds of a training step, mean over seeds."""
    return float(np.mean([r["cpu_s"] / r["steps"] for r in records.values()]))


def markdown(found: dict[str, dict[int, Any]], mode: str) -> str:
    """All tables of one way of answering."""
    arms = [arm.name for arm in ARMS if arm.name in found]
    lines = [f"### {mode}", "", _main(found, arms, mode), "", _differences(found, arms, mode), ""]
    return "\n".join([*lines, _kinds(found, arms, mode), "", _seen(found, arms, mode), ""])


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _main(found: dict[str, dict[int, Any]], arms: Sequence[str], mode: str) -> str:
    rows = []
    for arm in arms:
        seeds = sorted(found[arm])
        cells = [estimate(table_of(found[arm], seeds, mode, metric)).text() for metric in METRICS]
        tokens = np.mean([found[arm][seed][mode]["tokens"] for seed in seeds])
        rows.append([arm, str(len(seeds)), *cells, f"{tokens:.1f}"])
    head = [
        "arm",
        "seeds",
        "answers, mean score",
        "answers exact",
        "observations sufficient",
        "think-answer mismatch",
        "format",
        "tokens",
    ]
    return _rows(head, rows)


def _differences(found: dict[str, dict[int, Any]], arms: Sequence[str], mode: str) -> str:
    rows = []
    for base in (arm for arm in arms if arm != "pa-grpo" and "pa-grpo" in found):
        seeds = sorted(set(found[base]) & set(found["pa-grpo"]))
        cells = []
        for metric in ("score", "exact", "sufficient"):
            tables = [table_of(found[arm], seeds, mode, metric) for arm in ("pa-grpo", base)]
            cells.append(difference(*tables).text(signed=True))
        rows.append([f"pa-grpo minus {base}", *cells])
    return _rows(["paired difference, points", "answers", "answers exact", "observations sufficient"], rows)


def _kinds(found: dict[str, dict[int, Any]], arms: Sequence[str], mode: str) -> str:
    kinds = sorted({kind for records in found.values() for r in records.values() for kind in r["kind"]})

    def cell(arm: str, kind: str) -> str:
        parts = []
        for metric in ("score", "sufficient"):
            table = table_of(found[arm], sorted(found[arm]), mode, metric, kind)
            parts.append("-" if np.isnan(table).all() else f"{100 * np.nanmean(table):.0f}")
        return " / ".join(parts)

    return _rows(
        ["answers / observations, %", *kinds], [[arm, *(cell(arm, k) for k in kinds)] for arm in arms]
    )


def _seen(found: dict[str, dict[int, Any]], arms: Sequence[str], mode: str) -> str:
    """The kinds whose answers are better than blind ones, and the differences there."""
    rows = []
    for arm in arms:
        seeds = sorted(found[arm])
        cells = [estimate(table_of(found[arm], seeds, mode, m, SEEN)).text() for m in SEEN_METRICS]
        rows.append([arm, *cells])
    for base in (arm for arm in arms if arm != "pa-grpo" and "pa-grpo" in found):
        seeds = sorted(set(found[base]) & set(found["pa-grpo"]))
        tables = [
            [table_of(found[arm], seeds, mode, m, SEEN) for arm in ("pa-grpo", base)] for m in SEEN_METRICS
        ]
        rows.append([f"pa-grpo minus {base}", *(difference(*pair).text(signed=True) for pair in tables)])
    return _rows([f"{SEEN} only", "answers", "answers exact", "observations sufficient"], rows)


def training(found: dict[str, dict[int, Any]]) -> str:
    """Collapsed groups, the last steps and the cost of the RL arms."""
    rows = []
    for arm in (a.name for a in ARMS if a.objective and a.name in found):
        records = found[arm]
        last = [row for r in records.values() for row in r["curve"][-10:]]
        shares = [f"{100 * collapsed(records, key):.1f}" for key in ("p", "r", "sum", "plain")]
        ends = [
            f"{_mean(last, key):.3f}" for key in ("reward/accuracy_p", "reward/accuracy_r", "kl", "entropy")
        ]
        rows.append([arm, *shares, *ends, f"{per_step(records):.2f}"])
    head = ["arm", *(f"collapsed {k}, %" for k in ("P", "R", "sum", "plain"))]
    return _rows([*head, "acc P, last 10", "acc R, last 10", "KL", "entropy", "CPU s/step"], rows)


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([row.get(key, np.nan) for row in rows]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--figures", type=Path, default=HERE)
    args = parser.parse_args()
    found = load(args.results)
    for mode in ("sampled", "greedy"):
        print(markdown(found, mode))
    print(training(found))
    from benchmarks.miniature.figures import draw

    for path in draw(found, args.figures):
        print(path)


if __name__ == "__main__":
    main()
