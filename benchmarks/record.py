"""One JSON file for each run of a benchmark: what was measured, when, by which command and versions.

    parser = argparse.ArgumentParser(...)
    record.add_option(parser)                       # --json FILE
    options = parser.parse_args()
    record.save(options, "startup", {"help_s": 0.147}, packages=["typer"])

RESULTS.md, pages in results/ and README's table are written from these files (`python -m benchmarks write`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RUNS = Path(__file__).parent / "results" / "runs"
"""Where the recorded runs are kept, `NAME.json` each."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let the script take `--json FILE`."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures there, with versions and date"
    )
    parser.set_defaults(load_before=os.getloadavg()[0])


def save(
    options: argparse.Namespace,
    name: str,
    figures: Mapping[str, Any],
    *,
    packages: Iterable[str] = (),
    versions: Mapping[str, str] | None = None,
) -> None:
    """Write one run to the file of `--json`; nothing where none was asked for.

    `figures` are numbers, words, and lists and mappings of those, under names with their units (`wall_s`,
    `peak_mb`). `packages` are installed here and stand in the record with their versions; `versions` are
    those of other environments.
    """
    if options.json is None:
        return
    found = {"python": platform.python_version(), "videop2r-data": version("videop2r-data")}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    made = {
        "benchmark": name,
        "command": command(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(options.load_before),
        "versions": found | dict(versions or {}),
        "figures": figures,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


def machine(load_before: float) -> dict[str, Any]:
    """Cores, memory, and how busy others kept it: the load of the last minute, before and after."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
    }


def command(argv: list[str]) -> str:
    """The command as one would type it: without `--json FILE`, without folders of this machine."""
    program = Path(argv[0])
    inside = program.resolve().relative_to(Path(__file__).parent.parent.resolve())
    module = ".".join(inside.with_suffix("").parts).removesuffix(".__main__")
    words, rest = [], iter(argv[1:])
    for word in rest:
        if word == "--json":
            next(rest, None)
        elif word.startswith("--json="):
            continue
        else:
            words.append(Path(word).name.upper() if word.startswith("/") else word)
    return shlex.join(["python", "-m", module, *words])
