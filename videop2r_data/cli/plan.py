"""The commands before a build: `estimate`, `schema`, `init`."""

from __future__ import annotations

from pathlib import Path

import typer

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    UNFINISHED,
    err_console,
    out_console,
    read_recipe,
    shell,
    with_overrides,
)
from videop2r_data.cli.output import print_json, say
from videop2r_data.errors import ConfigError


def run_estimate(
    recipe: str, *, out: Path | None, work: Path | None, pilot: int, max_cost: float | None, as_json: bool
) -> None:
    """Price a build."""
    from videop2r_data.builders.estimate import estimate
    from videop2r_data.builders.run import Stop
    from videop2r_data.builders.workspace import Workspace
    from videop2r_data.cli.progress import BuildProgress
    from videop2r_data.cli.signals import run_draining

    found, base = read_recipe(recipe)
    found = with_overrides(found, max_cost=max_cost)
    place = Workspace.at(out or Path(found.name), base=base, work=work)
    console, stop = err_console(), Stop()
    with BuildProgress(console) as progress:
        report = run_draining(
            estimate(found, place, pilot=pilot, observer=progress, stop=stop), stop, console.print
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        render_estimate(report, recipe, out_console())
    raise typer.Exit(UNFINISHED if report.stopped else OK if report.ok else FINDINGS)


def run_schema(name: str) -> None:
    """Print a JSON Schema."""
    from pydantic import BaseModel

    from videop2r_data.builders.build import BuildReport
    from videop2r_data.builders.check_report import CheckReport, FileLine
    from videop2r_data.builders.estimate import Estimate
    from videop2r_data.builders.findings import DoctorReport
    from videop2r_data.schemas import ProcessTrace, Sample
    from videop2r_data.schemas.calibration import HumanLabel, JudgesFile
    from videop2r_data.schemas.lock import BuildLock
    from videop2r_data.schemas.recipe import Recipe
    from videop2r_data.schemas.rows import CONFIGS

    known: dict[str, type[BaseModel]] = {
        "recipe": Recipe,
        "lock": BuildLock,
        "trace": ProcessTrace,
        "sample": Sample,
        **CONFIGS,
        "report": BuildReport,
        "check": CheckReport,
        "file": FileLine,
        "doctor": DoctorReport,
        "estimate": Estimate,
        "judges": JudgesFile,
        "label": HumanLabel,
    }
    if not name:
        say("\n".join(known))
        return
    if name not in known:
        raise ConfigError(f"no schema {name!r}", hint=f"one of: {', '.join(known)}")
    schema = known[name].model_json_schema()
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def run_init(
    path: Path, *, template: str, force: bool, data: str | None, split: str | None, as_json: bool
) -> None:
    """Write a commented recipe: a packaged one, or one over a pool that is looked at."""
    from videop2r_data.recipes import list_recipes, recipe_text

    if template not in list_recipes():
        raise ConfigError(f"no packaged recipe {template!r}", hint=f"one of: {', '.join(list_recipes())}")
    if split is not None and data is None:
        raise ConfigError("--split is of the data", hint="add --from-data FILE|FOLDER|ID")
    if path.is_dir():
        path = path / f"{template}.yaml"
    if path.exists() and not force:
        raise ConfigError("the file exists", where=str(path), hint="--force replaces it")
    if data is not None:
        init_from_data(path, data, template=recipe_text(template), split=split, as_json=as_json)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe_text(template), encoding="utf-8")
    if as_json:
        print_json({"wrote": str(path)})
    else:
        say(f"wrote {path}; edit its sources, then: p2r-data check {shell(path)}")
