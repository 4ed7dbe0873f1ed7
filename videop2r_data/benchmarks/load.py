"""Read declarations: packaged ones by their name, a user's own from a YAML file."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Benchmark, parse_yaml, read_settings

FIRST = (
    "vsi-bench",
    "videommmu",
    "mmvu",
    "vcr-bench",
    "mvbench",
    "tempcompass",
    "video-mme",
)
"""Those that the paper reports, in its order."""


def packaged_benchmarks() -> tuple[str, ...]:
    """Names of the declarations in the package: the paper's first, in its order, then by name."""
    folder = resources.files(__package__)
    names = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
    return (*(name for name in FIRST if name in names), *(name for name in names if name not in FIRST))


def load_benchmark(name_or_path: str, *, base: Path | None = None) -> Benchmark:
    """Read a packaged declaration by its name, or a YAML file.

    Args:
        name_or_path: `mvbench`, or a path with an ending.
        base: folder that a relative path starts from; None: the current one.

    Raises:
        ConfigError: there is no such benchmark, or every error of the file at once, each with its field.
    """
    if name_or_path in packaged_benchmarks():
        return _packaged(name_or_path)
    return _parse(benchmark_text(name_or_path, base=base), where=str((base or Path()) / name_or_path))


def benchmark_text(name_or_path: str, *, base: Path | None = None) -> str:
    """The YAML of a declaration, comments included.

    Raises:
        ConfigError: there is no such benchmark.
    """
    if name_or_path in packaged_benchmarks():
        return (resources.files(__package__) / f"{name_or_path}.yaml").read_text("utf-8")
    path = (base or Path()) / Path(name_or_path).expanduser()
    if not path.is_file():
        known = ", ".join(packaged_benchmarks())
        raise ConfigError(
            f"no benchmark {name_or_path!r}: neither packaged ({known}) nor a file",
            hint="p2r-data benchmarks lists them; one of your own is a YAML file: see docs/benchmarks.md",
        )
    return read_settings(path, what="benchmark")


@cache
def _packaged(name: str) -> Benchmark:
    return _parse(benchmark_text(name), where=name)


def _parse(text: str, *, where: str) -> Benchmark:
    return parse_yaml(
        text,
        Benchmark,
        where=where,
        what="benchmark",
        valid="a benchmark is YAML: see docs/benchmarks.md",
        allowed="docs/benchmark-reference.md lists every field; p2r-data benchmarks NAME --yaml prints one",
    )
