"""Studies: one plan evaluated under many settings of its media, over one journal, with a table and a figure.

A study is a grid over `EvalPlan.media`. Each of its cells is an evaluation with a result of its own below the
study's folder; they share the work folder, so that a stopped study goes on, and a wider grid asks only what
is new. Questions without media are asked once for all cells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import Field, model_validator

from videop2r_data.builders import Observer, Stop, Workspace
from videop2r_data.cards.card import cell, table
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.run import RUN, EvalReport, evaluate
from videop2r_data.schemas import (
    BenchmarkResult,
    EvalPlan,
    LookSpec,
    MediaSpec,
    Model,
    digest,
    validate_settings,
)

STUDY, TABLE, CELLS = "study.json", "README.md", "cells"
Kind = Literal["frames", "robustness", "selection"]
PERTURBATIONS = ("drop", "blur", "noise", "occlude")
"""Settings of `LookSpec` that make frames worse."""
DEFAULTS: dict[Kind, dict[str, tuple[Any, ...]]] = {
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


class StudySpec(Model):
    """What a study varies: `frames`, `pixels`, `fps`, `select` with each other, each perturbation alone."""

    kind: Kind
    frames: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()
    """Of a frame at most."""
    fps: tuple[float, ...] = ()
    select: tuple[Literal["uniform", "scenes", "question"], ...] = ()
    embedder: str = ""
    """For `select: question`."""
    drop: tuple[float, ...] = ()
    blur: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()
    occlude: tuple[float, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value not in ((), [], None, "")}
        if not set(given) - {"kind", "embedder"}:
            given |= DEFAULTS.get(given.get("kind", ""), {})
        return given

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Settings that are varied with each other."""
        named = {"frames": self.frames, "pixels": self.pixels, "fps": self.fps, "select": self.select}
        return {name: values for name, values in named.items() if values}

    @property
    def perturbations(self) -> list[str]:
        """Settings that are made worse, each alone."""
        return [name for name in PERTURBATIONS if getattr(self, name)]


class Cell(Model):
    """One point of a study."""

    name: str
    """Of its folder."""
    varied: dict[str, int | float | str]
    """Setting -> value, of those that the study varies; empty: the plan as it is."""
    media: MediaSpec


class CellFigure(Model):
    """What one benchmark came to in one cell."""

    benchmark: str
    protocol: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    question_only: float | None
    frames: float | None
    """Mean of a clip, as they were sent."""
    input_tokens: float | None
    """Mean of a prompt, as the server counted them."""
    output_tokens: float | None
    usd: float | None
    """Of all calls behind the figure."""
    answered: int


class CellResult(Model):
    """One point with its figures."""

    cell: Cell
    folder: str
    figures: tuple[CellFigure, ...]
    seconds_p50: float | None
    """Of the calls that were timed when the cell was first asked; None: all answers were in the journal."""
    seconds_p95: float | None


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
    def along(self) -> str:
        """What runs along the bottom of its figure."""
        if self.spec.perturbations:
            return "severity"
        axes = self.spec.axes.items()
        return next((name for name, values in axes if len(values) > 1 and name != "select"), "frames")


def cells_of(plan: EvalPlan, spec: StudySpec) -> list[Cell]:
    """The points of a study, equal ones once, that nearest to the plan first.

    Raises:
        ConfigError: a setting that no frames can have.
    """
    found: dict[str, Cell] = {}
    for varied in _points(spec):
        media = _media(plan.media, varied, spec.embedder)
        made = Cell(name=_name(varied), varied=varied, media=media)
        found.setdefault(digest(media.model_dump(mode="json")), made)
    return list(found.values())


def _points(spec: StudySpec) -> Iterator[dict[str, Any]]:
    axes = spec.axes
    worse = {name: getattr(spec, name) for name in spec.perturbations}
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        yield chosen
        for name, severities in worse.items():
            for severity in severities:
                if severity:
                    yield chosen | {name: severity}


def _media(media: MediaSpec, varied: Mapping[str, Any], embedder: str) -> MediaSpec:
    look = (media.look or LookSpec()).model_dump(mode="json")
    look |= {name: value for name, value in varied.items() if name in (*PERTURBATIONS, "select")}
    if look["select"] != "question":
        look |= {"embedder": "", "revision": None}
    elif embedder:
        look["embedder"] = embedder
    changes: dict[str, Any] = {"look": None if look == LookSpec().model_dump(mode="json") else look}
    named = {"frames": "frames", "pixels": "max_pixels", "fps": "fps"}
    changes |= {named[name]: value for name, value in varied.items() if name in named}
    what = ", ".join(f"{name} {value}" for name, value in varied.items())
    return validate_settings(media.model_dump(mode="json") | changes, MediaSpec, where=what, what="frames")


def _name(varied: Mapping[str, Any]) -> str:
    parts = [
        f"{name}-{value:g}" if isinstance(value, int | float) else f"{name}-{value}"
        for name, value in varied.items()
    ]
    return re.sub(r"[^A-Za-z0-9.+-]", "_", "_".join(parts)) or "plan"


async def run_study(
    plan: EvalPlan,
    spec: StudySpec,
    place: Workspace,
    *,
    observer: Observer,
    stop: Stop | None = None,
    tell: Callable[[int, int, Cell], None] = lambda done, total, cell: None,
) -> Study:
    """Evaluate every cell, or go on with a study that was stopped; write `study.json` and the table.

    Args:
        plan: what is asked of whom.
        spec: what is varied.
        place: folder of the study, and the one work folder of its cells.
        observer: progress of the evaluation of a cell.
        stop: ask it to stop early: the cells so far are written.
        tell: called before each cell.

    Raises:
        ConfigError: settings that do not fit; a folder of something else. P2RError: as `evaluate`.
    """
    cells, stop = cells_of(plan, spec), stop or Stop()
    _check_ours(place.out)
    done: list[CellResult] = []
    for number, one in enumerate(cells):
        if stop.asked:
            break
        tell(number, len(cells), one)
        own = plan.model_copy(update={"media": one.media, "name": one.name})
        own = EvalPlan.model_validate(own.model_dump(mode="json"))
        where = Workspace(place.out / CELLS / one.name, place.work, place.base)
        report = await evaluate(own, where, observer=observer, stop=stop)
        if report.result is None:
            break
        done.append(_cell_result(one, where, report))
    study = Study(
        name=plan.name, spec=spec, model=plan.backend.model, cells=tuple(done), missing=len(cells) - len(done)
    )
    place.out.mkdir(parents=True, exist_ok=True)
    form = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (place.out / STUDY).write_bytes(orjson.dumps(study.model_dump(mode="json"), option=form))
    (place.out / TABLE).write_text(render_study(study), encoding="utf-8")
    return study


def _check_ours(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not ((out / STUDY).is_file() or (out / CELLS).is_dir()):
        raise ConfigError(
            "the folder holds something else than a study", where=str(out), hint="choose another --out"
        )


def _cell_result(one: Cell, where: Workspace, report: EvalReport) -> CellResult:
    """The figures of a cell; how long its calls took is kept from the run that made them."""
    assert report.result is not None
    kept = where.work / "latency" / f"{one.name}.json"
    if report.run.calls_made:
        timed = _json(where.work / RUN)
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(orjson.dumps({name: timed.get(name) for name in ("p50_s", "p95_s")}))
    took = _json(kept)
    return CellResult(
        cell=one,
        folder=f"{CELLS}/{one.name}",
        figures=tuple(figure for found in report.result.benchmarks for figure in _figures(found)),
        seconds_p50=took.get("p50_s"),
        seconds_p95=took.get("p95_s"),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _figures(found: BenchmarkResult) -> Iterator[CellFigure]:
    sent = found.sent
    for figure in found.figures:
        if not figure.by:
            yield CellFigure(
                benchmark=found.name,
                **figure.model_dump(include={"protocol", "value", "low", "high", "n", "question_only"}),
                frames=sent.frames.mean if sent.frames else None,
                input_tokens=sent.input_tokens.mean if sent.input_tokens else None,
                output_tokens=sent.output_tokens.mean if sent.output_tokens else None,
                usd=found.usd,
                answered=found.answered,
            )


def shown_protocols(study: Study) -> list[tuple[str, str]]:
    """(benchmark, protocol) of what is drawn: the first protocol of each benchmark."""
    first: dict[str, str] = {}
    for result in study.cells:
        for figure in result.figures:
            first.setdefault(figure.benchmark, figure.protocol)
    return list(first.items())


def figure_of(result: CellResult, benchmark: str, protocol: str) -> CellFigure | None:
    """The figure of a cell."""
    return next((f for f in result.figures if (f.benchmark, f.protocol) == (benchmark, protocol)), None)


class Point(NamedTuple):
    """One cell in a figure.

    Attributes:
        at: along the bottom: the setting's number, or the severity of a perturbation, 0 for none.
        figure: what a benchmark came to.
        seconds: median of its calls.
    """

    at: float
    figure: CellFigure
    seconds: float | None


def lines_of(study: Study, benchmark: str, protocol: str) -> dict[str, list[Point]]:
    """The points of one benchmark in lines: those of a line share every setting but that along the bottom.

    Along the bottom are the severities of a perturbation where the study has some, else the first setting
    that is a number with several values.
    """
    worse = study.spec.perturbations
    found: dict[str, list[Point]] = {}
    for result in study.cells:
        figure = figure_of(result, benchmark, protocol)
        if figure is None or figure.value is None:
            continue
        varied = dict(result.cell.varied)
        own = [name for name in worse if name in varied]
        severity = varied.pop(own[0]) if own else 0.0
        at = severity if worse else varied.pop(study.along, figure.frames or 0.0)
        for name in own or worse or [""]:  # the frames as they are begin every line of severities
            line = ", ".join(filter(None, (name, told(varied) if varied else "")))
            found.setdefault(line, []).append(Point(float(at), figure, result.seconds_p50))
    return {name: sorted(points, key=lambda point: point.at) for name, points in found.items()}


def render_study(study: Study) -> str:
    """The table beside a study, in Markdown: accuracy with what it costs."""
    heads = [
        "setting",
        "value",
        "interval",
        "question only",
        "frames",
        "tokens read",
        "written",
        "s, median",
        "USD",
    ]
    parts = [f"# {cell(study.name)}: {study.spec.kind}", f"Model {cell(study.model)}."]
    if study.missing:
        parts.append(f"**Not finished**: {study.missing} cells are missing; the same command goes on.")
    for benchmark, protocol in shown_protocols(study):
        rows = [_line(result, figure_of(result, benchmark, protocol)) for result in study.cells]
        parts += [f"## {cell(benchmark)}: {cell(protocol)}", table(heads, rows)]
    return "\n\n".join(parts) + "\n"


def told(varied: Mapping[str, Any]) -> str:
    """The setting of a cell in words.

    >>> told({"frames": 8, "blur": 2.0}), told({})
    ('frames 8, blur 2', 'as in the plan')
    """
    return (
        ", ".join(f"{n} {v:g}" if isinstance(v, int | float) else f"{v}" for n, v in varied.items())
        or "as in the plan"
    )


def _line(result: CellResult, figure: CellFigure | None) -> Sequence[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    if figure is None:
        return [told(result.cell.varied), *["-"] * 8]
    interval = "-" if figure.low is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return [
        told(result.cell.varied),
        number(figure.value, ".3f"),
        interval,
        number(figure.question_only, ".3f"),
        number(figure.frames, ".1f"),
        number(figure.input_tokens, ",.0f"),
        number(figure.output_tokens, ",.0f"),
        number(result.seconds_p50, ".2f"),
        number(figure.usd, ".4f"),
    ]
