"""Studies: one plan evaluated under many settings of its media, over one journal, with a table and a figure.

A study is a grid over `EvalPlan.media`. Each of its cells is an evaluation with a result of its own below the
study's folder; they share the work folder, so that a stopped study goes on, and a wider grid asks only what
is new. Questions without media are asked once for all cells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import compress, product
from typing import Any, Literal

import orjson
from pydantic import Field, model_validator

from videop2r_data.builders import Observer, Stop, Workspace
from videop2r_data.cards.card import cell, numbers, table
from videop2r_data.errors import AuthError, AwayError, ConfigError, JournalError, P2RError
from videop2r_data.evaluation.result import all_failed
from videop2r_data.evaluation.run import evaluate
from videop2r_data.schemas import (
    BenchmarkResult,
    EvalPlan,
    EvalResult,
    LookSpec,
    Measured,
    MediaSpec,
    Model,
    digest,
    validate_settings,
)

STUDY, TABLE, CELLS = "study.json", "README.md", "cells"
AXES = {"frames": "frames", "pixels": "max_pixels", "fps": "fps"}
"""What is varied -> setting of `MediaSpec`."""
PERTURBATIONS = ("drop", "blur", "noise", "occlude")
"""Settings of `LookSpec` that make frames worse."""
VARIED = (*AXES, "select", *PERTURBATIONS)
DEFAULTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "frames": {"frames": (4, 8, 16, 32), "pixels": (64 * 28 * 28, 256 * 28 * 28)},
    "robustness": {
        "drop": (0.25, 0.5, 0.75),
        "blur": (1.0, 2.0, 4.0),
        "noise": (16.0, 32.0, 64.0),
        "occlude": (0.1, 0.25, 0.5),
    },
    "selection": {"frames": (8, 16), "select": ("uniform", "scenes")},
}
"""What a study varies where nothing is said."""
ENDS = (AuthError, AwayError, JournalError)
"""Errors that every other cell would meet, too."""


class StudySpec(Model):
    """What a study varies: frames, pixels, fps and selection with each other, each perturbation alone."""

    kind: Literal["frames", "robustness", "selection"]
    vary: dict[str, tuple[int | float | str, ...]]
    """One of `VARIED` -> its values."""
    embedder: str = ""
    """For `select: question`."""

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("vary"):
            return data | {"vary": DEFAULTS.get(data.get("kind", ""), {})}
        return data

    @property
    def worse(self) -> dict[str, tuple[Any, ...]]:
        """The perturbations."""
        return {name: self.vary[name] for name in PERTURBATIONS if name in self.vary}

    @property
    def along(self) -> str:
        """What runs along the bottom of the figure."""
        several = (name for name in AXES if len(self.vary.get(name, ())) > 1)
        return "severity" if self.worse else next(several, "frames")


class Cell(Model):
    """One point of a study."""

    name: str
    """Of its folder below `cells`."""
    varied: dict[str, int | float | str]
    """Setting -> value, of those that the study varies; empty: the plan as it is."""
    media: MediaSpec


class CellFigure(Measured):
    """What one benchmark came to in one cell, and what that cost."""

    benchmark: str
    questions: int
    answered: int
    frames: float | None
    """Mean of a clip, as they were sent."""
    input_tokens: float | None
    """Mean of a prompt, as the server counted them."""
    output_tokens: float | None
    seconds_p50: float | None
    """Of the calls that gave the answers with media, when they were made; None: they were not timed."""
    seconds_p95: float | None
    usd: float | None
    """Of all calls behind the figure."""


class CellResult(Cell):
    """One point with its figures."""

    figures: tuple[CellFigure, ...]
    failed: str = ""
    """Why there are none."""

    def figure(self, benchmark: str, protocol: str) -> CellFigure | None:
        """What a benchmark came to by a protocol; None: nothing."""
        return next((f for f in self.figures if (f.benchmark, f.protocol) == (benchmark, protocol)), None)


class Study(Model):
    """`study.json`."""

    study: Literal[1] = 1
    name: str
    spec: StudySpec
    model: str
    cells: tuple[CellResult, ...]
    missing: int = Field(ge=0)
    """Cells that were not finished."""

    @property
    def failed(self) -> bool:
        """Whether a cell has no figure."""
        return any(one.failed for one in self.cells)

    @property
    def protocols(self) -> list[tuple[str, str]]:
        """(benchmark, protocol) of what is shown: the first protocol of each benchmark."""
        first: dict[str, str] = {}
        for figure in (figure for one in self.cells for figure in one.figures):
            first.setdefault(figure.benchmark, figure.protocol)
        return list(first.items())


def cells_of(plan: EvalPlan, spec: StudySpec) -> list[Cell]:
    """The points of a study, equal ones once, that nearest to the plan first.

    Raises:
        ConfigError: a setting that no frames can have.
    """
    found: dict[str, Cell] = {}
    for varied in _points(spec):
        media = _media(plan.media, varied, spec.embedder)
        name = re.sub(r"[^A-Za-z0-9.+-]", "_", "_".join(_words(varied, "-"))) or "plan"
        found.setdefault(digest(media.model_dump(mode="json")), Cell(name=name, varied=varied, media=media))
    return list(found.values())


def _points(spec: StudySpec) -> Iterator[dict[str, Any]]:
    if unknown := spec.vary.keys() - set(VARIED):
        raise ConfigError(f"a study cannot vary {', '.join(unknown)}", hint=f"known: {', '.join(VARIED)}")
    axes = {name: spec.vary[name] for name in (*AXES, "select") if name in spec.vary}
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        yield chosen
        for name, severities in spec.worse.items():
            for severity in filter(None, severities):
                yield chosen | {name: severity}


def _media(media: MediaSpec, varied: Mapping[str, Any], embedder: str) -> MediaSpec:
    look = (media.look or LookSpec()).model_dump(mode="json")
    look |= {name: value for name, value in varied.items() if name not in AXES}
    if look["select"] != "question":
        look |= {"embedder": "", "revision": None}
    elif embedder:
        look["embedder"] = embedder
    changes: dict[str, Any] = {"look": None if look == LookSpec().model_dump(mode="json") else look}
    changes |= {AXES[name]: value for name, value in varied.items() if name in AXES}
    where = ", ".join(_words(varied))
    return validate_settings(media.model_dump(mode="json") | changes, MediaSpec, where=where, what="frames")


def _words(varied: Mapping[str, Any], sign: str = " ") -> list[str]:
    return [
        f"{name}{sign}{v:g}" if isinstance(v, int | float) else f"{name}{sign}{v}"
        for name, v in varied.items()
    ]


def told(varied: Mapping[str, Any]) -> str:
    """The setting of a cell in words.

    >>> told({"frames": 8, "blur": 2.0}), told({})
    ('frames 8, blur 2', 'as in the plan')
    """
    return ", ".join(_words(varied)) or "as in the plan"


async def run_study(
    plan: EvalPlan,
    spec: StudySpec,
    place: Workspace,
    *,
    observer: Observer,
    stop: Stop | None = None,
    forgive: bool = False,
    tell: Callable[[int, int, Cell], None] = lambda done, total, cell: None,
) -> Study:
    """Evaluate every cell, or go on with a study that was stopped; write `study.json` and the table.

    A cell whose evaluation ends in an error, or without an answer, is shown with the reason.

    Args:
        plan: what is asked of whom.
        spec: what is varied.
        place: folder of the study, and the one work folder of its cells.
        observer: progress of the evaluation of a cell.
        stop: ask it to stop early: the cells so far are written.
        forgive: ask again what an earlier run was refused, or got an empty reply to.
        tell: called before each cell.

    Raises:
        ConfigError: settings that do not fit; a folder of something else. P2RError: no cell has a figure.
    """
    cells, stop = cells_of(plan, spec), stop or Stop()
    there = {path.name for path in place.out.iterdir()} if place.out.is_dir() else set()
    if there and not there & {STUDY, CELLS}:
        raise ConfigError(
            "the folder holds something else than a study", where=str(place.out), hint="choose another --out"
        )
    done: list[CellResult] = []
    errors: list[P2RError] = []
    for number, one in enumerate(cells):
        if stop.asked or (errors and isinstance(errors[-1], ENDS)):
            break
        tell(number, len(cells), one)
        own = plan.model_copy(update={"media": one.media, "name": one.name})
        where = Workspace(place.out / CELLS / one.name, place.work, place.base)
        alone = Stop()  # an error stops this cell, the reader all of them
        stop.listen(alone.ask)
        try:
            own = EvalPlan.model_validate(own.model_dump(mode="json"))
            report = await evaluate(own, where, observer=observer, stop=alone, forgive=forgive)
        except P2RError as error:
            errors.append(error)
            done.append(CellResult(**dict(one), figures=(), failed=str(error)))
            continue
        if report.result is None:
            break
        done.append(_finished(one, report.result))
    if errors and len(errors) == len(done):
        raise errors[0]
    missing = len(cells) - len(done)
    study = Study(name=plan.name, spec=spec, model=plan.backend.model, cells=tuple(done), missing=missing)
    place.out.mkdir(parents=True, exist_ok=True)
    form = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (place.out / STUDY).write_bytes(orjson.dumps(study.model_dump(mode="json"), option=form))
    (place.out / TABLE).write_text(render_study(study), encoding="utf-8")
    return study


def _finished(one: Cell, result: EvalResult) -> CellResult:
    """A cell with its figures; a score of 0 of no answers is none."""
    said = next((f": {words}" for found in result.benchmarks for words in found.examples.values()), "")
    failed = f"no question got an answer{said}" if all_failed(result) else ""
    every = [found for found in result.benchmarks if not failed]
    figures = tuple(figure for found in every for figure in _figures(found))
    return CellResult(**dict(one), figures=figures, failed=failed)


def _figures(found: BenchmarkResult) -> Iterator[CellFigure]:
    slow = {f"seconds_{name}": getattr(found.took, name, None) for name in ("p50", "p95")}
    sent = {
        name: getattr(found.sent, name).mean if getattr(found.sent, name) else None
        for name in ("frames", "input_tokens", "output_tokens")
    }
    for figure in found.figures:
        if not figure.by:
            of = {name: getattr(found, name) for name in ("questions", "answered", "usd")}
            yield CellFigure(**dict(figure), benchmark=found.name, **of, **slow, **sent)


def lines_of(study: Study, benchmark: str, protocol: str) -> dict[str, list[tuple[float, CellFigure]]]:
    """A benchmark's points (x, figure) in lines: those of a line share every setting but that along x.

    Along x are the severities of a perturbation where the study has some, 0 for none, else the first setting
    that is a number with several values.
    """
    worse = study.spec.worse
    found: dict[str, list[tuple[float, CellFigure]]] = {}
    for result in study.cells:
        figure = result.figure(benchmark, protocol)
        if figure is None or figure.value is None:
            continue
        varied = dict(result.varied)
        own = [name for name in worse if name in varied]
        severity = varied.pop(own[0]) if own else 0.0
        at = severity if worse else varied.pop(study.spec.along, figure.frames or 0.0)
        for name in own or worse or [""]:  # the frames as they are begin every line of severities
            line = ", ".join([*filter(None, [name]), *_words(varied)])
            found.setdefault(line, []).append((float(at), figure))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def lines_told(study: Study, benchmark: str, protocol: str) -> list[list[str]]:
    """The table: heads, then each cell with its score and what that cost; empty columns are left out."""
    heads = ["setting", "value", "interval", "alone", "frames", "tokens", "written", "s", "s, p95", "USD"]
    lines = [heads]
    for result in study.cells:
        found = result.figure(benchmark, protocol)
        if found is None:
            lines.append([told(result.varied), "failed", *["-"] * (len(heads) - 2)])
            continue
        value, interval, _, alone = numbers(found)
        costs = (
            (found.frames, ".1f"), (found.input_tokens, ",.0f"), (found.output_tokens, ",.0f"),
            (found.seconds_p50, ".2f"), (found.seconds_p95, ".2f"), (found.usd, ".4f"),
        )  # fmt: skip
        shown = ["-" if number is None else format(number, form) for number, form in costs]
        lines.append([told(result.varied), value, interval, alone, *shown])
    known = [any(line[at] not in ("", "-") for line in lines[1:]) for at in range(len(heads))]
    return [list(compress(line, known)) for line in lines]


def lacking(study: Study) -> Iterator[str]:
    """What its figures lack, a line each."""
    for one in study.cells:
        if one.failed:
            yield f"{told(one.varied)} failed: {one.failed}"
        for name, lost in {f.benchmark: f.questions - f.answered for f in one.figures}.items():
            if lost:
                yield f"{told(one.varied)}: {lost:,} of {name} without an answer, counted as wrong"
    if study.missing:
        yield f"Not finished: {study.missing} settings are missing; the same command goes on."


def render_study(study: Study) -> str:
    """The table beside a study, in Markdown: accuracy with what it costs."""
    parts = [f"# {cell(study.name)}: {study.spec.kind}", f"Model {cell(study.model)}."]
    parts += ["- " + cell(line) for line in lacking(study)]
    for benchmark, protocol in study.protocols:
        heads, *rows = ([cell(word) for word in line] for line in lines_told(study, benchmark, protocol))
        parts += [f"## {cell(benchmark)}: {cell(protocol)}", table(heads, rows)]
    return "\n\n".join(parts) + "\n"
