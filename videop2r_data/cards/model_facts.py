"""What a model card may say: read off the files of a run, and nothing else; a missing number is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.errors import ExportError
from videop2r_data.schemas import parse_mapping, read_settings

RECIPE, RUN, METRICS = "recipe.yaml", "run.json", "metrics.jsonl"
CURVES = "figures/curves.png"
LAST_SHARE = 0.1
"""Share of the run over which final metrics are averaged."""
RL_METRICS = {
    "reward/accuracy_p": "accuracy reward, perception",
    "reward/accuracy_r": "accuracy reward, reasoning",
    "reward/format_p": "format reward, perception",
    "reward/format_r": "format reward, reasoning",
    "length/all": "tokens per completion",
    "collapsed/sum": "collapsed groups per step, of the sum",
    "groups": "groups per step",
    "kl": "KL to the reference, nats per token",
}
SFT_METRICS = {"loss": "loss, nats per token", "grad_norm": "gradient norm"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DEPTH = 8


@dataclass(frozen=True)
class Evaluation:
    """One `report.json` of `p2r-train eval`, with the settings beside it."""

    name: str
    report: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """Everything that the card says.

    Attributes:
        recipe: the effective recipe, as plain values.
        run: `run.json`.
        last: metric -> mean over the last tenth of the steps.
        evaluations: by name; may be empty.
        base_model: Hub id that the chain of runs began with; None for weights that were made here.
        curves: whether `figures/curves.png` is there.
    """

    recipe: Mapping[str, Any]
    run: Mapping[str, Any]
    last: Mapping[str, float]
    evaluations: tuple[Evaluation, ...]
    base_model: str | None
    curves: bool

    @property
    def stage(self) -> str:
        """`sft` or `rl`."""
        return str(self.recipe["stage"])

    @property
    def synthetic(self) -> bool:
        """The training data are the synthetic stream."""
        return bool(section(self.recipe, "data").get("source") == "demo")


def read_facts(folder: Path) -> RunFacts:
    """Read a finished run.

    Raises:
        ExportError: a file is missing or damaged, the run has not ended, or a number is missing.
        ConfigError: the recipe is not YAML.
    """
    recipe = parse_mapping(
        read_settings(folder / RECIPE), where=str(folder / RECIPE), what="training recipe", valid=""
    )
    run = read_json(folder / RUN)
    for place, data, names in (
        (RECIPE, recipe, ("stage", "data", "model")),
        (RUN, run, ("steps", "steps_done", "data", "versions")),
    ):
        for name in names:
            if name not in data:
                raise ExportError(f"no field {name!r}", where=str(folder / place))
    if run["steps_done"] != run["steps"]:
        raise ExportError(
            f"the run stands at step {run['steps_done']} of {run['steps']}",
            where=str(folder),
            hint="let it end: the same command goes on",
        )
    return RunFacts(
        recipe=recipe,
        run=run,
        last=last_metrics(folder / METRICS, RL_METRICS if recipe["stage"] == "rl" else SFT_METRICS, recipe),
        evaluations=_evaluations(folder),
        base_model=base_of(str(section(recipe, "model").get("model", ""))),
        curves=(folder / CURVES).is_file(),
    )


def last_metrics(path: Path, names: Mapping[str, str], recipe: Mapping[str, Any]) -> dict[str, float]:
    """Means over the last tenth of the steps.

    Raises:
        ExportError: the file is missing or a metric is not in it.
    """
    steps: dict[int, dict[str, Any]] = {}
    for row in _lines(path):
        if isinstance(row.get("step"), int):
            steps.setdefault(row["step"], {}).update(row)
    if not steps:
        raise ExportError("no step in it", where=str(path))
    last = sorted(steps)[-max(1, math.ceil(len(steps) * LAST_SHARE)) :]
    found = {}
    for name in names:
        values = [steps[step][name] for step in last if isinstance(steps[step].get(name), int | float)]
        if not values or not all(math.isfinite(value) for value in values):
            if name in _may_lack(recipe):
                continue
            raise ExportError(f"no {name!r} in the last {len(last)} steps", where=str(path))
        found[name] = sum(values) / len(values)
    return found


def _may_lack(recipe: Mapping[str, Any]) -> set[str]:
    """Metrics that a run with these settings does not have."""
    lacking = set()
    if section(recipe, "loss").get("beta") == 0:
        lacking.add("kl")
    if section(recipe, "judging").get("kind", "none") == "none":
        lacking.add("reward/accuracy_p")
    return lacking


def base_of(model: str) -> str | None:
    """The Hub id that a chain of runs began with: the model of the run whose `final/` this is, and so on."""
    for _ in range(_DEPTH):
        path = Path(model).expanduser()
        if not path.is_dir():
            return model if _HUB_ID.fullmatch(model) else None
        parent = next((p for p in (path, path.resolve().parent) if (p / RECIPE).is_file()), None)
        if parent is None:
            return None
        recipe = parse_mapping(read_settings(parent / RECIPE), where=str(parent / RECIPE), valid="")
        model = str(section(recipe, "model").get("model", ""))
    return None


def _evaluations(folder: Path) -> tuple[Evaluation, ...]:
    """Of the final model: those between the steps of the training are not the result."""
    found = []
    for path in sorted((folder / "eval").glob("*/report.json")):
        settings = read_json(path.parent / "settings.json")
        if "step" not in settings:
            found.append(Evaluation(path.parent.name, read_json(path), settings))
    return tuple(found)


def section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a recipe; empty if it is left to its defaults."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def number(values: Mapping[str, Any], name: str, where: str) -> float:
    """A finite number.

    Raises:
        ExportError: there is none.
    """
    found = values.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ExportError(f"{name!r} is {found!r}, not a number", where=where)
    return float(found)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ExportError: the file is missing or holds something else.
    """
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise ExportError("not a JSON object", where=str(path))
    return data


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot be read: {error}", where=str(path)) from None
    rows = []
    for line in data.split(b"\n"):
        try:
            row = orjson.loads(line) if line else None
        except ValueError:
            continue  # a torn last line; a step that is missing for it is found out by its metrics
        if isinstance(row, dict):
            rows.append(row)
    return rows
