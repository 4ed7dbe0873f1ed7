"""How long `p2r-data --help` takes, from the shell's point of view, and which imports it pays for.

    python -m benchmarks.startup [--runs 15] [--quick] [--json FILE]

Fails if a heavy library is loaded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import record

HEAVY = (
    "torch",
    "vllm",
    "transformers",
    "datasets",
    "anthropic",
    "pyarrow",
    "av",
    "numpy",
    "ray",
    "matplotlib",
)
COMMAND = [str(Path(sys.executable).with_name("p2r-data")), "--help"]
LISTED = "from videop2r_data.cli.main import run; import sys; sys.argv = ['p2r-data', '--help']; run()"


def once() -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    subprocess.run(COMMAND, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def imports() -> list[tuple[float, float, str]]:
    """Every import of a call: its own milliseconds, those with its imports, its name; slowest first."""
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", LISTED], capture_output=True, text=True, check=True
    ).stderr
    found = []
    for line in trace.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        total, _, name = rest.partition("|")
        if own.strip().isdigit():
            found.append((int(own) / 1000, int(total) / 1000, name.strip()))
    return sorted(found, reverse=True)


def main() -> int:
    """Time the first word of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="5 runs")
    record.add_option(parser)
    args = parser.parse_args()
    first = once()
    times = sorted(once() for _ in range(5 if args.quick else args.runs))
    median = statistics.median(times)
    print(f"p2r-data --help: first {first:.3f} s, then {len(times)} runs:", end=" ")
    print(f"median {median:.3f} s, fastest {times[0]:.3f} s, slowest {times[-1]:.3f} s")
    paid = imports()
    print("slowest imports (own ms, with their imports):")
    for own, total, name in paid[:12]:
        print(f"  {own:7.1f} {total:7.1f}  {name}")
    loaded = sorted({name for _, _, name in paid} & set(HEAVY))
    if loaded:
        print(f"FAILED: --help loads {', '.join(loaded)}")
    figures = {
        "runs": len(times),
        "help_s": round(median, 3),
        "fastest_s": round(times[0], 3),
        "slowest_s": round(times[-1], 3),
        "heavy": loaded,
    }
    record.save(args, "startup", figures, packages=["typer"])
    return int(bool(loaded))


if __name__ == "__main__":
    sys.exit(main())
