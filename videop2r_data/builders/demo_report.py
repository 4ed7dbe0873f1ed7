"""A demo build against the defects that its world planted: what each step caught, and what it should have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from videop2r_data.builders.reproduce import locked, read_lock
from videop2r_data.builders.workspace import Workspace
from videop2r_data.demo import DemoReport, evaluate
from videop2r_data.demo.report import SEES_THE_SCENE
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Outcome, Stage

_COLUMNS = ["problem_id", "sample_id", "attempt"]
_VERDICT = ["outcome", "stage", "reason"]


def demo_report(place: Workspace) -> DemoReport:
    """Precision and recall of each step.

    Raises:
        ConfigError: the data set was not made from a demo world.
    """
    recipe = locked(read_lock(place.out), place.out)
    world = next((s.name for s in recipe.sources if s.kind == "demo"), None)
    if world is None:
        raise ConfigError("no source of kind demo", where=str(place.out), hint="run: p2r-data build demo")
    spec = recipe.generate
    outcomes, temperatures = [], {}
    for name, attempt, *verdict in _rows(place.out, world):
        outcomes.append((name, Outcome(verdict[0]), Stage(verdict[1]) if verdict[1] else None, verdict[2]))
        temperatures[name] = min(spec.temperature + attempt * spec.temperature_step, 2.0)
    profile = recipe.verify.policy.profile
    report = evaluate(place.demo / world, outcomes, profile, temperatures=temperatures)
    exact = recipe.judge is not None and recipe.judge.backend.kind == "demo"
    return report.model_copy(update={"judge_note": SEES_THE_SCENE}) if exact else report


def _rows(out: Path, world: str) -> Iterator[tuple[str, int, str, str, str]]:
    import pyarrow.parquet as pq

    for config in ("sft", "rejected"):
        columns = _COLUMNS if config == "sft" else _COLUMNS + _VERDICT
        for path in sorted((out / "data").glob(f"{config}-*.parquet")):
            for row in pq.read_table(path, columns=columns).to_pylist():
                if row["sample_id"].startswith(f"{world}/"):
                    verdict = [row.get(c, "") for c in _VERDICT] if config == "rejected" else ["kept", "", ""]
                    yield row["problem_id"], row["attempt"], verdict[0], verdict[1], verdict[2]
