"""What is measured: the runs and claims of suite.yaml, and what was recorded of them.

A run is one command of one script; a claim is a bound on one figure of a run. The bounds stand in suite.yaml
and nowhere else: scripts measure, they do not judge.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FILE = HERE / "suite.yaml"
Group = Literal["building", "scale", "media", "training"]
Number = float | bool

_BOUND = re.compile(r"(>=|<=|<|==) (true|-?[\d_]+(?:\.\d+)?)")
_WORDS = {">=": "at least", "<=": "at most", "<": "under", "==": "exactly"}
_HOLDS: dict[str, Callable[[Number, Number], bool]] = {
    ">=": lambda seen, bound: seen >= bound,
    "<=": lambda seen, bound: seen <= bound,
    "<": lambda seen, bound: seen < bound,
    "==": lambda seen, bound: seen == bound,
}


class NoFigureError(LookupError):
    """A run has no figure under such a path."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(_Strict):
    """One command whose figures are recorded."""

    module: str
    """As `python -m` takes it."""
    full: list[str] = []
    """Arguments of the run that is recorded; `{media}` is the folder of real clips."""
    quick: list[str] | None = None
    """Arguments of a run of less than a minute, which shows that the script works; none: there is none."""
    needs: list[Literal["media", "chromium", "datasketch", "rensa"]] = []
    """What both runs need beyond the development environment."""
    rivals: list[str] = []
    """Environments `.venv-NAME` that the full run needs: programs that it is compared with."""
    takes: str = ""
    """How long the full run takes, where that is more than half an hour."""


class Claim(_Strict):
    """A bound on a figure."""

    text: str
    run: str
    path: str
    """Keys into the run's figures, with dots between them."""
    bound: str
    """`>= 20_000`, `<= 0.5`, `< 300`, `== true`."""
    unit: str = ""
    digits: int = Field(0, ge=0, le=4)
    """Decimals that the figure is shown with."""
    also: str = ""
    """More of the same run, shown beside the figure: a template whose `figures` are those of the run."""
    group: Group = "building"

    @model_validator(mode="after")
    def _readable(self) -> Claim:
        if not _BOUND.fullmatch(self.bound):
            raise ValueError(f"bound {self.bound!r}: wanted an operator (>=, <=, <, ==) and a number or true")
        return self

    @property
    def number(self) -> Number:
        """What the figure is held against."""
        word = self.bound.split()[1]
        return True if word == "true" else float(word)

    @property
    def limit(self) -> str:
        """The bound in words."""
        if isinstance(self.number, bool):
            return "yes"
        return f"{_WORDS[self.bound.split()[0]]} {self.number:,g} {self.unit}".rstrip()

    def holds(self, seen: Number) -> bool:
        """Whether a figure keeps the bound."""
        return _HOLDS[self.bound.split()[0]](seen, self.number)

    def shown(self, value: Number) -> str:
        """A figure as the pages show it."""
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:,.{self.digits}f} {self.unit}".rstrip()


class Suite(_Strict):
    """All runs and claims."""

    runs: dict[str, Run]
    claims: list[Claim]

    @model_validator(mode="after")
    def _named(self) -> Suite:
        unknown = {claim.run for claim in self.claims} - set(self.runs)
        if unknown:
            raise ValueError(f"claims name runs that are not there: {', '.join(sorted(unknown))}")
        return self

    def claims_of(self, run: str) -> list[Claim]:
        """The claims that a run decides."""
        return [claim for claim in self.claims if claim.run == run]


@cache
def load(path: Path = FILE) -> Suite:
    """The suite as suite.yaml says it."""
    return Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def figure(figures: Any, path: str) -> Number:
    """The figure at a path, which is a number or yes or no.

    Raises:
        NoFigureError: there is none, or something else.

    >>> figure({"kinds": {"bare": {"calls_per_s": 4500.0}}}, "kinds.bare.calls_per_s")
    4500.0
    """
    found = figures
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            raise NoFigureError(f"{path}: no {key!r}")
        found = found[key]
    if not isinstance(found, int | float):
        raise NoFigureError(f"{path}: not a number")
    return found


def recorded(folder: Path) -> dict[str, Any]:
    """Name -> what a run's file holds, of all runs that were recorded in a folder."""
    found = {}
    for name in load().runs:
        path = folder / f"{name}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


# What runs need.


def media() -> Path:
    """The folder of real clips that the tests use; it need not be there."""
    shared = os.environ.get("P2R_SHARED")
    return (Path(shared).resolve() if shared else ROOT.parent / "shared") / "media"


def python_of(rival: str) -> Path:
    """The interpreter of a rival's environment."""
    return ROOT / f".venv-{rival}" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Call:
    """A run at one of its sizes."""

    name: str
    run: Run
    quick: bool = False

    @property
    def _words(self) -> list[str]:
        return (self.run.quick or []) if self.quick else self.run.full

    @property
    def arguments(self) -> list[str]:
        """As they are told to the script."""
        return [str(media()) if word == "{media}" else word for word in self._words]

    @property
    def command(self) -> str:
        """As `record.command` writes it, without folders of a machine."""
        words = ["MEDIA" if word == "{media}" else word for word in self._words]
        return shlex.join(["python", "-m", self.run.module, *words])

    def lacks(self) -> list[str]:
        """What it needs and is not here, each with how to get it."""
        found = [said for need in self.run.needs if (said := _lack(need))]
        if self.quick:
            return found if self.run.quick is not None else [*found, "a small size"]
        absent = (name for name in self.run.rivals if not python_of(name).exists())
        return found + [f".venv-{name} (benchmarks/rivals/env.sh {name})" for name in absent]


def _lack(need: str) -> str:
    if need == "media":
        return "" if media().is_dir() else f"a folder of clips at {media()} (P2R_SHARED names another parent)"
    if need == "chromium":
        there = os.environ.get("P2R_CHROMIUM") or shutil.which("chromium")
        return "" if there else "chromium (scripts/chromium.sh)"
    return "" if find_spec(need) else f"{need} (pip install {need})"
