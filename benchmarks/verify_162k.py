"""How fast a release of 162,062 rows is verified, beside a straightforward script that does less.

    python benchmarks/verify_162k.py [--scale 1.0] [--workers 0] [--write]

Both run as commands of their own on the same made-up release (see `synthetic_release.py`), one after the
other. Memory is the sum of the resident sets of the whole process tree, sampled 20 times a second (pages that
processes share are counted once for each). `--write` puts the figures into benchmarks/results/verify_162k.md.

The straightforward script is what one writes in ten minutes: each row as a dict, one regular expression over
the output, segments compared, the same scorer called, ids and contents in sets. It has no types, files, lock,
card, frames, keys or places, and one process.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "verify_162k.md"
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
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
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
    import json

    import pyarrow.parquet as pq

    for path in sorted(folder.glob("data/*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    for path in sorted(folder.glob("*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            yield from json.load(stream)


def verify_command(folder: Path, workers: int) -> list[str]:
    """`p2r-data verify`, from the environment of this interpreter."""
    return [str(Path(sys.executable).parent / "p2r-data"), "verify", str(folder), "--workers", str(workers)]


def main() -> None:
    """Time `verify` and the straightforward script on both layouts; write the page with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--naive", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.naive:
        print(naive(args.naive), "faults")
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.synthetic_release import write_official, write_release

    lines = []
    for layout, write in (
        ("parquet, lock and card", write_release),
        ("official json.gz", write_official),
    ):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "release"
            rows = write(folder, scale=args.scale)
            for name, command in (
                ("`p2r-data verify DIR`", verify_command(folder, args.workers)),
                ("straightforward script", [sys.executable, __file__, "--naive", str(folder)]),
            ):
                run = measure(command)
                if run.code:
                    raise SystemExit(f"{name} ended with {run.code}")
                figures = f"{rows:,} | {run.seconds:.1f} | {rows / run.seconds:,.0f} | {run.cpu_s:.1f}"
                lines.append(f"| {layout} | {name} | {figures} | {run.peak_mb:,.0f} |")
                print(lines[-1], flush=True)
    if args.write:
        write_results(lines)


HEAD = """# Verifying 162,062 rows

    python benchmarks/verify_162k.py --write

Machine: 2 cores x86-64, shared with other work while measuring. Date: 2026-11-21. Seconds are those of the
whole command, start of the interpreter and of the workers included; memory is the sum over the process tree.

The release is made up, has the paper's table row for row, and texts of realistic length (P about 100 words, R
about 150). The straightforward script checks less (no types, files, lock, card, frames, keys) and holds every
row's text in a set; it is in the benchmark.

| release | command | rows | s | rows/s | CPU s | peak MB |
|---|---|---|---|---|---|---|
"""


FOOT = """
Two processes share the work of `verify`; where its seconds are not about half of its CPU seconds, other
programs had the cores meanwhile.
"""


def write_results(lines: list[str]) -> None:
    """Write the page of results around the rows of its table."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(HEAD + "\n".join(lines) + "\n" + FOOT)


if __name__ == "__main__":
    main()
