"""`p2r-train export-lmms`: answers for lmms-eval's graders, or its tasks with our reader."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli.common import JsonOpt
from videop2r_data.cli.terminal import plural, print_json, say


def export_lmms(
    result: Annotated[
        Path | None, typer.Argument(metavar="[RESULT]", help="A folder that p2r-train eval wrote.")
    ] = None,
    out: Annotated[Path | None, typer.Argument(metavar="[OUT]", help="A new folder, for the logs.")] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write a folder for lmms-eval's --include_path instead."),
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Answers of an evaluation for lmms-eval's own graders, without a model; or its tasks with our reader.

    With --tasks run it in the environment of lmms-eval: each of its tasks is written once more as p2r_TASK.
    """
    if tasks is not None:
        if result or out:
            raise typer.BadParameter("reads no result: leave RESULT and OUT out", param_hint="--tasks")
        _tasks(tasks, as_json=json)
        return
    if result is None or out is None:
        raise typer.BadParameter("RESULT and OUT are needed, or --tasks OUT", param_hint="RESULT OUT")
    from videop2r_data.evaluation import export_logs

    done = export_logs(result, out)
    if json:
        print_json({"out": str(out), "benchmarks": [asdict(one) for one in done]})
        return
    for one in done:
        answers, tasks_of = sum(one.tasks.values()), len(one.tasks)
        say(f"{one.benchmark}: {plural(answers, 'answer')} of {plural(tasks_of, 'task')}")
        if one.unanswered:
            say(f"  {one.unanswered} without an answer stand as ???")
        if one.outside:
            say(f"  {one.outside} of no task of lmms-eval are left out")
        if one.no_log:
            say(f"  no log for from_log: {one.no_log}")
    names = ",".join(task for one in done if not one.no_log for task in one.tasks)
    if names:
        say("next, where lmms-eval is installed:")
        say(f"  python -m lmms_eval --model from_log --model_args logs={out} --tasks {names}")


def _tasks(out: Path, *, as_json: bool) -> None:
    from videop2r_data.evaluation import write_tasks

    done = write_tasks(out)
    if as_json:
        print_json({"out": str(out), "tasks": done})
        return
    say(f"{plural(len(done), 'task')} in {out}: {', '.join(done)}")
    say(f"next: python -m lmms_eval --include_path {out} --tasks {done[0]} --model ...")
