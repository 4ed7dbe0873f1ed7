"""The gate: the hot parts of the program must not cost more than they did. Instructions are counted, no time.

    python -m benchmarks.gate [--only verify] [--json FILE] [--write]

Callgrind counts the instructions of each part and of a reference, plain Python's `json` on the same inputs,
in one process. The ratio of the two is held against `gate.yaml`: a busy machine does not change it, another
processor or patch version of Python little. `--write` sets the limits to what was seen and 10 % more.

Exit code 1: a part is above its limit. 2: valgrind is missing, or nothing could be counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import yaml

from benchmarks import record
from benchmarks._gate_parts import MARK, PARTS, Window

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Path(__file__).with_name("gate.yaml")
ROOM = 1.10
"""What `--write` allows over what it sees."""
_HEAD = """\
# Limits of `make gate`: instructions of a hot part over those of plain Python's json on the same inputs.
# Written by `python -m benchmarks.gate --write`: what was seen, and 10 % more.
"""
_TOTALS = re.compile(rb"^totals: (\d+)", re.MULTILINE)


class Seen(NamedTuple):
    """What was counted of a part, per input."""

    work: float
    plain: float

    @property
    def ratio(self) -> float:
        """Instructions of the part over those of its reference."""
        return self.work / self.plain


def fail(message: str) -> NoReturn:
    """End with exit code 2: there is no result."""
    print(f"gate: {message}", file=sys.stderr)
    raise SystemExit(2)


def count(names: Sequence[str], twice: str = "") -> dict[str, Seen]:
    """Count the instructions of these parts; `twice` names one that is done twice, as a slowdown is."""
    if shutil.which("valgrind") is None:
        fail("valgrind is not installed; run: bash scripts/valgrind.sh (on Debian: apt install valgrind)")
    env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="gate-") as name:
        folder = Path(name)
        inputs, counts = folder / "inputs", folder / "count"
        inputs.mkdir()
        program = [sys.executable, "-m", "benchmarks._gate_parts", *names, "--inputs", str(inputs)]
        program += ["--twice", twice] if twice else []
        _run(program, env)  # makes the inputs, at full speed
        callgrind = [
            "valgrind",
            "--tool=callgrind",
            f"--dump-before={MARK}*",
            f"--callgrind-out-file={counts}",
        ]
        said = _run([*callgrind, "--log-file=" + str(folder / "log"), *program], env)
        windows = [Window(*one) for one in json.loads(said)]
        marks = sorted(folder.glob("count.*"), key=lambda path: int(path.suffix[1:]))
        if len(marks) != 2 * len(windows):
            fail(f"valgrind cut {len(marks)} counts at {MARK}(), not {2 * len(windows)}")
        # each count ends at a mark: the first of two is what lies before a window, the second the window
        found = [_TOTALS.search(path.read_bytes()) for path in marks[1::2]]
        cost = {window: int(total[1]) for window, total in zip(windows, found, strict=True) if total}
    return {name: Seen(_each(cost, name, "work"), _each(cost, name, "plain")) for name in names}


def _run(command: list[str], env: Mapping[str, str]) -> str:
    """What it says; ends the gate where it fails."""
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        fail(f"{' '.join(command[:4])} … ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def _each(cost: Mapping[Window, int], part: str, what: str) -> float:
    """Instructions for one more input: what is done once falls out."""
    (few, less), (many, more) = sorted(
        (window.inputs, total) for window, total in cost.items() if (window.part, window.what) == (part, what)
    )
    return (more - less) / (many - few)


def table(seen: Mapping[str, Seen], limits: Mapping[str, float]) -> str:
    """A line for each part: instructions, ratio, limit."""
    lines = [f"{'part':8s} {'instructions':>14s} {'of json':>9s} {'ratio':>7s} {'limit':>7s}"]
    for name, one in seen.items():
        limit = limits.get(name)
        verdict = "" if limit is None or one.ratio <= limit else "  ABOVE"
        each = f"{one.work:>10,.0f}/{PARTS[name].unit:<5s}"
        shown = "none" if limit is None else f"{limit:.2f}"
        lines.append(f"{name:8s} {each} {one.plain:>7,.0f} {one.ratio:>7.2f} {shown:>7s}{verdict}")
    return "\n".join(lines)


def what_to_do(name: str) -> str:
    """Words for a part that is above its limit."""
    return (
        f"{name} costs more instructions than gate.yaml allows. Where they go:\n"
        f"    python -m cProfile -s tottime -m benchmarks._gate_parts {name}\n"
        "If the work is worth its cost, set the limits anew and say why in the commit:\n"
        "    python -m benchmarks.gate --write"
    )


def read_limits() -> dict[str, float]:
    """Part -> the highest ratio that is allowed."""
    known = yaml.safe_load(LIMITS.read_text()) if LIMITS.exists() else {}
    return {name: float(entry["limit"]) for name, entry in known.items()}


def write_limits(seen: Mapping[str, Seen]) -> None:
    """Set the limits of the parts that were counted; those of the others stay."""
    known = yaml.safe_load(LIMITS.read_text()) if LIMITS.exists() else {}
    for name, one in seen.items():
        known[name] = {"seen": round(one.ratio, 3), "limit": round(one.ratio * ROOM, 3)}
    lines = (
        f"{name}: {{seen: {known[name]['seen']}, limit: {known[name]['limit']}}}\n"
        for name in PARTS
        if name in known
    )
    LIMITS.write_text(_HEAD + "".join(lines))


def main() -> int:
    """Count, compare, say what to do; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone; again for more")
    parser.add_argument("--write", action="store_true", help="set the limits to what is seen and 10 %% more")
    parser.add_argument(
        "--twice", choices=PARTS, default="", help="do this part twice: what a slowdown looks like"
    )
    record.add_option(parser)
    options = parser.parse_args()
    names = options.only or list(PARTS)
    seen = count(names, options.twice)
    if options.write:
        write_limits(seen)
    limits = read_limits()
    print(table(seen, limits))
    figures = {name: {"work": one.work, "json": one.plain, "ratio": one.ratio} for name, one in seen.items()}
    record.save(options, "gate", {name: figures[name] | {"limit": limits.get(name)} for name in names})
    above = [name for name in names if name not in limits or seen[name].ratio > limits[name]]
    for name in above:
        print(
            f"\n{what_to_do(name)}" if name in limits else f"\n{name} has no limit: run with --write",
            file=sys.stderr,
        )
    return 1 if above else 0


if __name__ == "__main__":
    raise SystemExit(main())
