"""Print the pins of everything that this package pulls in, as installed in the environment that runs it.

    .venv/bin/python scripts/freeze.py dev decord report train > constraints.txt
    .venv-vllm/bin/python scripts/freeze.py --all > constraints-vllm.txt

Only the closure of the named extras is printed, so that whatever else somebody tried out stays away; `--all`
takes the environment as it is. Local version labels (`+cpu`) are left out: they name a build, not a version.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "videop2r-data"


def closure(extras: list[str]) -> dict[str, str]:
    """Name -> version of every installed distribution that `ROOT[extras]` needs, itself left out."""
    found: dict[str, str] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    todo: list[tuple[str, tuple[str, ...]]] = [(ROOT, tuple(sorted(extras)))]
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is needed but not installed: run scripts/env.sh dev first") from None
        if name != ROOT:
            found[name] = dist.version
        for line in dist.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                continue
            todo.append((canonicalize_name(requirement.name), tuple(sorted(requirement.extras))))
    return found


def everything() -> dict[str, str]:
    """Name -> version of every installed distribution but the package itself and pip."""
    names = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    return {name: version for name, version in names.items() if name not in (ROOT, "pip", "setuptools")}


def main() -> None:
    """Write the pins to stdout, sorted by name."""
    take_all = sys.argv[1:] == ["--all"]
    target = "constraints-vllm" if take_all else "constraints"
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"# What the suite passed with, on Python {version}. Made by `make {target}`; do not edit.")
    for name, pin in sorted((everything() if take_all else closure(sys.argv[1:])).items()):
        print(f"{name}=={pin.partition('+')[0]}")


if __name__ == "__main__":
    main()
