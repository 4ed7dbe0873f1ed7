"""Declarations: packaged ones by name, a user's own from a YAML file; rows held against their counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import (
    BadRow,
    Benchmark,
    Expected,
    Sample,
    expanded,
    is_file,
    parse_yaml,
    read_settings,
)

FIRST = ("vsi-bench", "videommmu", "mmvu", "vcr-bench", "mvbench", "tempcompass", "video-mme")
"""Those that the paper reports, in its order."""


def packaged_benchmarks() -> tuple[str, ...]:
    """Names of the declarations in the package: the paper's first, in its order, then by name."""
    files = [file.name for file in resources.files(__package__).iterdir()]
    names = sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))
    return (*FIRST, *(name for name in names if name not in FIRST))


def load_benchmark(name_or_path: str, *, base: Path | None = None) -> Benchmark:
    """Read a packaged declaration by its name, or a YAML file.

    Args:
        name_or_path: `mvbench`, or a path with an ending.
        base: folder that a relative path starts from; None: the current one.

    Raises:
        ConfigError: there is no such benchmark, or every error of the file at once, each with its field.
    """
    return _parsed(benchmark_text(name_or_path, base=base), str((base or Path()) / name_or_path))


def benchmark_text(name_or_path: str, *, base: Path | None = None) -> str:
    """The YAML of a declaration, comments included.

    Raises:
        ConfigError: there is no such benchmark.
    """
    if name_or_path in packaged_benchmarks():
        return (resources.files(__package__) / f"{name_or_path}.yaml").read_text("utf-8")
    path = (base or Path()) / expanded(name_or_path)
    if not is_file(path):
        known = ", ".join(packaged_benchmarks())
        raise ConfigError(
            f"no benchmark {name_or_path!r}: neither packaged ({known}) nor a file",
            hint="p2r-data benchmarks lists them; one of your own is a YAML file: see docs/benchmarks.md",
        )
    return read_settings(path, what="benchmark")


@cache
def _parsed(text: str, where: str) -> Benchmark:
    return parse_yaml(
        text,
        Benchmark,
        where=where,
        what="benchmark",
        valid="a benchmark is YAML: see docs/benchmarks.md",
        allowed="docs/benchmark-reference.md lists every field; p2r-data benchmarks NAME prints one",
    )


# --- rows that were read against those that the publishers count ---


@dataclass
class RowCounts:
    """Rows of a benchmark, counted while they stream by.

    Attributes:
        rows: questions, those that cannot be read included.
        bad: reason of the reader -> id or place of each such row.
        by: tag, or `problem_type` -> value -> questions that could be read.
    """

    rows: int = 0
    bad: dict[str, list[str]] = field(default_factory=dict)
    by: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, row: Sample | BadRow) -> None:
        """Take one row in."""
        self.rows += 1
        if isinstance(row, BadRow):
            self.bad.setdefault(row.detail, []).append(row.problem_id or f"row {row.row}")
            return
        for tag, value in (row.tags | {"problem_type": row.problem_type.value}).items():
            self.by.setdefault(tag, Counter())[value] += 1


def count_faults(expected: Expected, found: RowCounts) -> tuple[str, ...]:
    """What rows lack, or have too many of, by the publishers' counts: a text for each, the whole first."""
    faults = []
    if expected.rows not in (None, found.rows):
        faults.append(f"{found.rows:,} rows, {expected.rows:,} are published")
    if bad := sum(map(len, found.bad.values())):
        faults.append(f"{bad:,} of them cannot be read: {next(iter(found.bad))}")
    for tag, counts in expected.by.items():
        got = found.by.get(tag, Counter())
        faults += [
            f"{tag} {value}: {got[value]:,} rows, {rows:,} are published"
            for value, rows in counts.items()
            if got[value] != rows
        ]
        faults += [f"{tag} {value!r}: no such value is published" for value in got if value not in counts]
    return tuple(faults)
