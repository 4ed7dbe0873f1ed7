"""Record benchmarks, and write the pages of figures from what was recorded.

    python -m benchmarks list                   # runs, what they need, when they were recorded
    python -m benchmarks run [NAME...]          # records results/runs/NAME.json; no name: all that can
    python -m benchmarks run --quick [NAME...]  # small sizes, recorded nowhere: shows that they run
    python -m benchmarks write                  # RESULTS.md, results/*.md, README's table from the records
    python -m benchmarks write --check          # fails where they differ

suite.yaml says what runs there are, and which bounds their figures are held against.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import record, suite, written
from benchmarks.suite import ROOT, Call, NoFigureError


def calls(names: Sequence[str], *, quick: bool) -> list[Call]:
    """The runs with these names, or all that can run here; what is left out is said.

    Raises:
        SystemExit: a named run is unknown or lacks something.
    """
    runs = suite.load().runs
    unknown = [name for name in names if name not in runs]
    if unknown:
        raise SystemExit(f"no run is called {', '.join(unknown)}; there are: {', '.join(runs)}")
    found = []
    for name in names or runs:
        call = Call(name, runs[name], quick)
        lacks = call.lacks()
        if not lacks:
            found.append(call)
        elif names:
            raise SystemExit(f"{name} lacks {'; '.join(lacks)}")
        else:
            print(f"{name}: left out, it lacks {'; '.join(lacks)}", flush=True)
    return found


class Done(NamedTuple):
    """A run that ended."""

    status: int
    seconds: float
    figures: Any
    """None: it wrote none."""


def execute(call: Call, target: Path) -> Done:
    """Run it in a process of its own, its record into a file.

    A run that writes no figures leaves the record of the last one.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="p2r-bench-") as folder:
        made = Path(folder) / f"{call.name}.json"
        command = [sys.executable, "-m", call.run.module, *call.arguments, "--json", str(made)]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        seconds = time.perf_counter() - began
        if not made.is_file():
            print(f"{call.name} wrote no figures", file=sys.stderr)
            return Done(status or 1, seconds, None)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(made.read_bytes())
        return Done(status, seconds, json.loads(made.read_bytes())["figures"])


def verdicts(call: Call, figures: Any) -> tuple[list[str], bool]:
    """A line for each claim that a run decides, and whether none of them is broken.

    A claim whose figure is not there counts as broken at the full size: a small one may lack it.
    """
    lines, good = [], True
    broken = "does not hold at this size" if call.quick else "DOES NOT HOLD"
    for claim in suite.load().claims_of(call.name):
        try:
            value = suite.figure(figures, claim.path)
        except NoFigureError:
            good &= call.quick
            lines.append(f"  not decided: {claim.text} ({claim.limit})")
            continue
        good &= claim.holds(value)
        word = "holds" if claim.holds(value) else broken
        lines.append(f"  {word}: {claim.text}: {claim.shown(value)} ({claim.limit})")
    return lines, good


def run(names: Sequence[str], *, quick: bool) -> int:
    """Record runs one after the other; 1 if one failed, or broke a bound at its full size."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="p2r-quick-") as folder:
        for call in calls(names, quick=quick):
            print(f"== {call.name}: {call.command}", flush=True)
            done = execute(call, (Path(folder) if quick else record.RUNS) / f"{call.name}.json")
            lines, good = verdicts(call, done.figures) if done.figures is not None else ([], False)
            print(
                f"== {call.name}: {done.seconds:.0f} s, exit status {done.status}",
                *lines,
                sep="\n",
                flush=True,
            )
            if done.status or not (good or quick):
                failed.append(call.name)
    if quick:
        print("sizes were small: whether a bound holds says nothing here")
    if failed:
        print(f"failed, or broke a bound: {', '.join(failed)}")
    return int(bool(failed))


def show() -> int:
    """Print the runs."""
    known = suite.recorded(record.RUNS)
    for name, one in suite.load().runs.items():
        call = Call(name, one)
        when = known[name]["date"] if name in known else written.NOT_YET
        told = [f"takes {one.takes}"] if one.takes else []
        if lacks := call.lacks():
            told.append(f"lacks {'; '.join(lacks)}")
        print(f"{name:24}{when:18}{call.command}", *told, sep="\n" + " " * 42)
    return 0


def write(*, check: bool) -> int:
    """Write the pages, or compare them."""
    made = written.pages(record.RUNS)
    if not check:
        print(*(written.write(made) or ["nothing differs"]), sep="\n")
        return 0
    differ = written.differences(made)
    if differ:
        print(*differ, "run: python -m benchmarks write", sep="\n")
    return int(bool(differ))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="runs, what they need, when they were recorded")
    running = commands.add_parser("run", help="record runs")
    running.add_argument("names", nargs="*", metavar="NAME", help="none: all that can run here")
    running.add_argument("--quick", action="store_true", help="at a small size, recorded nowhere")
    writing = commands.add_parser("write", help="write the pages from the records")
    writing.add_argument("--check", action="store_true", help="write nothing, fail where a page differs")
    options = parser.parse_args(arguments)
    if options.command == "run":
        return run(options.names, quick=options.quick)
    return write(check=options.check) if options.command == "write" else show()


if __name__ == "__main__":
    sys.exit(main())
