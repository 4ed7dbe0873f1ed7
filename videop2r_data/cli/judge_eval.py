"""`p2r-data judge-eval`: judges against people."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    OVER_BUDGET,
    UNFINISHED,
    JsonOpt,
    err_console,
    shell,
    show,
)
from videop2r_data.cli.terminal import table
from videop2r_data.errors import ConfigError
from videop2r_data.recipes import read_recipe
from videop2r_data.schemas import visible_line

if TYPE_CHECKING:
    from videop2r_data.builders import CalibrationReport, JudgedLabel, People
    from videop2r_data.schemas import JudgesFile
    from videop2r_data.validators import Agreement, ClaimAgreement, Estimate

LabelsArg = Annotated[
    list[Path], typer.Argument(help="JSON Lines of human labels, as the gallery exports them.")
]
JudgesOpt = Annotated[
    Path | None, typer.Option("--judges", metavar="FILE", help="YAML list of judges to compare.")
]
RecipeOpt = Annotated[
    str | None, typer.Option("--recipe", metavar="RECIPE", help="Measure the judges of this recipe instead.")
]
DatasetOpt = Annotated[
    str | None,
    typer.Option(
        "--dataset", metavar="DIR", help="Measure the faithfulness judges of this data set; no call is made."
    ),
]
JudgeOpt = Annotated[
    str | None,
    typer.Option("--judge", metavar="NAME", help="Measure this one alone; NAME/2 is a model of its panel."),
]
OutOpt = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of journal, verdicts and report.")]
MaxCostOpt = Annotated[
    float | None, typer.Option(min=0, metavar="USD", help="US dollars for all judges, over all runs.")
]


def judge_eval(
    labels: LabelsArg,
    judges: JudgesOpt = None,
    recipe: RecipeOpt = None,
    dataset: DatasetOpt = None,
    judge: JudgeOpt = None,
    out: OutOpt = Path("judge-eval"),
    max_cost: MaxCostOpt = None,
    json: JsonOpt = False,
) -> None:
    """Agreement of judges with people: kappa, precision, recall, cost and latency, on the same labels."""
    if sum(given is not None for given in (judges, recipe, dataset)) != 1:
        raise ConfigError(
            "name the judges once", hint="give one of --judges FILE, --recipe RECIPE and --dataset DIR"
        )
    if dataset is None:
        wanted, base = _judges(judges, recipe, judge)
        report, rows = _run(labels, wanted, base, out, max_cost)
    else:
        report, rows = _look_up(labels, dataset, judge)
    _write(out, report, rows)
    show(report, partial(_render, out), as_json=json)
    raise typer.Exit(_code(report))


def _code(report: CalibrationReport) -> int:
    if not report.complete:
        return OVER_BUDGET
    if any(judge.unanswered for judge in report.judges):
        return UNFINISHED
    return FINDINGS if any(judge.unscored == judge.labels for judge in report.judges) else OK


def _run(
    labels: list[Path], wanted: JudgesFile, base: Path, out: Path, max_cost: float | None
) -> tuple[CalibrationReport, list[JudgedLabel]]:
    from rich.progress import Progress

    from videop2r_data.builders import calibrate, gather_labels

    if max_cost is not None:
        wanted = wanted.model_copy(update={"max_cost": max_cost})
    gathered = gather_labels(labels)
    out.mkdir(parents=True, exist_ok=True)
    with Progress(console=err_console(), transient=True) as progress:
        tasks = {
            judge.name: progress.add_task(judge.name, total=len(gathered.used)) for judge in wanted.judges
        }
        return asyncio.run(
            calibrate(
                wanted,
                gathered,
                out,
                base=base,
                tell=lambda name, done, _: progress.update(tasks[name], completed=done),
            )
        )


def _look_up(
    labels: list[Path], dataset: str, name: str | None
) -> tuple[CalibrationReport, list[JudgedLabel]]:
    from videop2r_data.builders import gather_labels, recorded_verdicts
    from videop2r_data.files import open_release

    return recorded_verdicts(gather_labels(labels, "faithfulness"), open_release(dataset), name)


def _write(out: Path, report: CalibrationReport, rows: list[JudgedLabel]) -> None:
    import orjson

    out.mkdir(parents=True, exist_ok=True)
    document = orjson.dumps(report.model_dump(mode="json"), option=orjson.OPT_INDENT_2)
    (out / "report.json").write_bytes(document)
    _write_lines(out / "verdicts.jsonl", rows)
    differ = [r for r in rows if r.sufficient is not None and r.sufficient is not r.label.sufficient]
    _write_lines(out / "disagreements.jsonl", differ)


def _judges(path: Path | None, recipe: str | None, name: str | None) -> tuple[JudgesFile, Path]:
    """Whom to ask, and the folder that prompts are relative to."""
    from videop2r_data.schemas import JudgesFile, judges_of_text, load_judges

    if path is not None:
        file = load_judges(path)
        models = judges_of_text(file.judges, name, where=str(path))
        return file.model_copy(update={"judges": tuple(models)}), path.parent
    found, base = read_recipe(str(recipe))
    models = judges_of_text(found.all_judges, name, where=str(recipe))
    if any(model.backend.kind == "demo" for model in models):
        raise ConfigError(
            "kind demo knows the answers: nothing to measure", where=str(recipe), hint="give --judges FILE"
        )
    if found.judge is not None:  # it has no name of its own
        models = [models[0].model_copy(update={"name": found.judge.backend.model.rsplit("/", 1)[-1]})]
    # asked one by one: a few hundred labels are not worth a batch's hours
    one_by_one = (
        model.with_backends(lambda spec: spec.model_copy(update={"batch": False})) for model in models
    )
    return JudgesFile(judges=tuple(one_by_one)), base


def _write_lines(path: Path, rows: list[JudgedLabel]) -> None:
    import orjson

    path.write_bytes(b"".join(orjson.dumps(row.model_dump(mode="json")) + b"\n" for row in rows))


def _render(out: Path, report: CalibrationReport, console: Console) -> None:
    yes = "sufficient" if report.question == "sufficiency" else "true to the clip"
    heads = (f"{report.labels:,} labels, {report.sufficient:,} {yes}", *(j.name for j in report.judges))
    made = table(*heads, overflow="fold")
    for name in ("agreement", "kappa", "precision", "recall", "specificity"):
        made.add_row(name, *(_judged(judge.figures, name) for judge in report.judges))
    for name, cells in {
        "let through wrongly": [f"{j.figures.confusion.false_positive:,}" for j in report.judges],
        "stopped wrongly": [f"{j.figures.confusion.false_negative:,}" for j in report.judges],
        "unscored": [f"{j.unscored:,}" for j in report.judges],
        "cost, USD": [f"{j.cost_usd:.4f}" for j in report.judges],
        "median s a call": ["-" if j.latency_s is None else f"{j.latency_s:.2f}" for j in report.judges],
        "calls made now": [f"{j.asked:,}" for j in report.judges],
    }.items():
        made.add_row(name, *cells)
    console.print(made)
    console.print("95 % intervals: Wilson's, for kappa Jeffreys'. Unscored ones are in no figure.")
    for judge in report.judges:
        if judge.unscored:
            nothing = (
                "no verdict at all" if judge.unscored == judge.labels else f"{judge.unscored:,} unscored"
            )
            said = f"{judge.name}: {nothing}, mostly: {judge.unscored_why}"
            console.print(visible_line(said), markup=False)
        if judge.claims is not None:
            _show_claims(judge.name, judge.claims, console)
    _show_people(report.people, console)
    if report.repeated or report.conflicts or report.bad:
        console.print(
            f"left out: {report.repeated:,} repeated labels, {len(report.conflicts):,} observations that "
            f"people label both ways, {len(report.bad):,} bad lines"
        )
    if report.elsewhere:
        console.print(
            f"{report.elsewhere:,} labels answer another question than {report.question}: not compared"
        )
    if not report.complete:
        console.print("money ran out: raise --max-cost and run the same command, nothing is lost")
    console.print(f"disagreements: {shell(out / 'disagreements.jsonl')}", markup=False)
    console.print(f"next: p2r-data gallery DIR --verdicts {shell(out / 'verdicts.jsonl')}", markup=False)


def _show_claims(judge: str, found: ClaimAgreement, console: Console) -> None:
    """Print the claims that people labelled one by one, by verdict."""
    share = _figure(found.agreement, percent=True).replace("\n", ", ")
    said = f"{judge}, claim by claim: {found.labelled:,} labelled, {share} alike, {found.unscored:,} unscored"
    console.print(visible_line(said), markup=False)
    made = table("claims", "people", "judge", "precision", "recall", overflow="fold")
    for verdict, figures in found.verdicts.items():
        c = figures.confusion
        counts = (f"{n:,}" for n in (c.true_positive + c.false_negative, c.true_positive + c.false_positive))
        made.add_row(verdict, *counts, _judged(figures, "precision"), _judged(figures, "recall"))
    console.print(made)


def _show_people(people: People, console: Console) -> None:
    """Print the reviewers and their agreement, if there are two or more."""
    if len(people.reviewers) < 2:
        return
    made = table("reviewer", "labels", "sufficient", "compared", "say the same", overflow="fold")
    for one in people.reviewers:
        counts = (f"{n:,}" for n in (one.labels, one.sufficient, one.compared))
        made.add_row(Text(one.name), *counts, _figure(one.agreement, percent=True).replace("\n", ", "))
    console.print(made)
    console.print(f"{people.items:,} observations have several reviewers; {people.agreed:,} all label alike")
    for pair in people.pairs:
        kappa = _judged(pair.figures, "kappa").replace("\n", ", ")
        line = f"{pair.first} and {pair.second}: {pair.items:,} observations, kappa {kappa}"
        console.print(line, markup=False)


def _judged(figures: Agreement, name: str) -> str:
    if name == "kappa" and figures.too_few:
        return "too few"
    return _figure(getattr(figures, name), percent=name != "kappa")


def _figure(value: Estimate, *, percent: bool) -> str:
    if value.value is None or value.low is None or value.high is None:
        return "-"
    if percent:
        return f"{value.value:.1%}\n{value.low:.1%} to {value.high:.1%}"
    return f"{value.value:.3f}\n{value.low:.3f} to {value.high:.3f}"
