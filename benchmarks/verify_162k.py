"""How fast a release of 162,062 rows is verified, beside a straightforward script that does less.

    python -m benchmarks.verify_162k [--scale 1.0] [--workers 0] [--json FILE]

Both run as commands of their own on the same made-up release (see `synthetic_release.py`), one after the
other. Memory is the sum of the resident sets of the whole process tree, sampled 20 times a second (pages that
processes share are counted once for each).

The straightforward script is what one writes in ten minutes: each row as a dict, one regular expression over
the output, segments compared, the same scorer called, ids and contents in sets. It has no types, files, lock,
card, frames, keys or places, and one process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record

ROOT = Path(__file__).resolve().parents[1]
_TRACE = re.compile(
    r"\A\s*<observation>(.*?)</observation>\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*\Z", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Run:
    """One command, measured."""

    seconds: float
    cpu_s: float
    peak_mb: float
    code: int


def measure(command: list[str]) -> Run:
    """Run a command to its end; time, CPU time of it and its children, and peak memory of the tree."""
    before, begin = os.times(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(0.05)
    seconds, after = time.perf_counter() - begin, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(seconds, cpu, peak / 2**20, process.returncode)


def tree_bytes(root: int) -> int:
    """Resident bytes of a process and all below it."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            sizes[int(entry.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    total = 0
    for pid, size in sizes.items():
        at = pid
        while at not in (0, root):
            at = parents.get(at, 0)
        total += size if at == root else 0
    return total


def naive(folder: Path) -> int:
    """The straightforward script; returns the number of faults."""
    from videop2r_data.validators import score

    faults = 0
    ids, contents = set(), set()
    for row in naive_rows(folder):
        match = _TRACE.match(row["output"])
        if not match:
            faults += 1
            continue
        observation, think, answer = match.groups()
        faults += observation != row["observation"]
        faults += f"<think>{think}</think><answer>{answer}</answer>" != row["process"]
        reference = row["solution"].replace("<answer>", "").replace("</answer>", "").strip()
        value = score(
            row["problem_type"], prediction=answer, reference=reference, options=tuple(row["options"])
        ).value
        faults += value is None or value < 0.6 or abs(value - row["reward"]) > 1e-9
        content = (row["problem"], tuple(row["options"]), row["path"], row["output"])
        faults += row["problem_id"] in ids or content in contents
        ids.add(row["problem_id"])
        contents.add(content)
    return faults


def naive_rows(folder: Path):  # type: ignore[no-untyped-def]
    """Rows as dicts, the way the documentation of each format shows it."""
    import gzip

    import pyarrow.parquet as pq

    for path in sorted(folder.glob("data/*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    for path in sorted(folder.glob("*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            yield from json.load(stream)


def commands(folder: Path, workers: int) -> dict[str, list[str]]:
    """`p2r-data verify`, from the environment of this interpreter, and the straightforward script."""
    program = str(Path(sys.executable).parent / "p2r-data")
    return {
        "verify": [program, "verify", str(folder), "--workers", str(workers)],
        "straightforward": [sys.executable, "-m", "benchmarks.verify_162k", "--naive", str(folder)],
    }


def main() -> None:
    """Time `verify` and the straightforward script on both layouts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--naive", type=Path, help=argparse.SUPPRESS)
    record.add_option(parser)
    args = parser.parse_args()
    if args.naive:
        print(naive(args.naive), "faults")
        return
    # only here: the straightforward script is a process of this module, and must not pay for it
    from benchmarks.synthetic_release import write_official, write_release

    figures: dict[str, Any] = {"rows": 0}
    for layout, write in (("parquet", write_release), ("official", write_official)):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "release"
            rows = figures["rows"] = write(folder, scale=args.scale)
            figures[layout] = {}
            for name, command in commands(folder, args.workers).items():
                run = measure(command)
                if run.code:
                    raise SystemExit(f"{name} ended with {run.code}")
                figures[layout][name] = {
                    "seconds": round(run.seconds, 1),
                    "rows_per_s": round(rows / run.seconds),
                    "cpu_s": round(run.cpu_s, 1),
                    "peak_mb": round(run.peak_mb),
                }
                print(layout, name, json.dumps(figures[layout][name]), flush=True)
    record.save(args, "verify_162k", figures, packages=["pyarrow", "orjson"])


if __name__ == "__main__":
    main()
