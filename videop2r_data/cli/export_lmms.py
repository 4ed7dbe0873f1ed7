"""`p2r-train export-lmms`: answers for lmms-eval's graders, or its tasks with our reader."""

from __future__ import annotations

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
    from videop2r_data.evaluation import export_logs, write_tasks

    if tasks is not None:
        if result or out:
            raise typer.BadParameter("reads no result: leave RESULT and OUT out", param_hint="--tasks")
        names = write_tasks(tasks)
        if json:
            print_json({"out": str(tasks), "tasks": names})
            return
        say(f"{plural(len(names), 'task')} in {tasks}: {', '.join(names)}")
        say(f"next: python -m lmms_eval --include_path {tasks} --tasks {names[0]} --model ...")
        return
    if result is None or out is None:
        raise typer.BadParameter("RESULT and OUT are needed, or --tasks OUT", param_hint="RESULT OUT")
    done = export_logs(result, out)
    if json:
        print_json({"out": str(out), "benchmarks": list(map(vars, done))})
        return
    for one in done:
        say(f"{one.benchmark}: {plural(one.tasks.total(), 'answer')} of {plural(len(one.tasks), 'task')}")
        if one.unanswered:
            say(f"  {one.unanswered} without an answer stand as ???")
        if one.outside:
            say(f"  {one.outside} of no task of lmms-eval are left out")
        if one.no_log:
            say(f"  no log for from_log: {one.no_log}")
    if named := ",".join(task for one in done if not one.no_log for task in one.tasks):
        say("next, where lmms-eval is installed:")
        say(f"  python -m lmms_eval --model from_log --model_args logs={out} --tasks {named}")
