"""Breaks one line at a time and checks that a test notices: the lines of `tests/mutants.yaml`.

    python scripts/mutants.py                 all of them, on two workers
    python scripts/mutants.py --only kappa    those whose place or purpose holds this text
    python scripts/mutants.py --find          run whole test files, and print the test that fails first

Each entry names a function, class or constant of the package (`at`), a piece of its text (`old`), what to
put there (`new`), what the line guarantees (`holds`), and the tests that must fail (`breaks`). The checkout
is never touched: each mutant lives in a process of its own, forked after the heavy libraries are loaded,
whose import of that one module gives the changed text. Tests that start further processes do not see it:
name tests that call the code.

Exit code 1: a mutant survived, its text is not there any more, or its tests do not pass without it.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "videop2r_data"
LIST = ROOT / "tests" / "mutants.yaml"
HEAVY = (
    *("pytest", "_pytest.doctest", "hypothesis", "numpy", "pyarrow.parquet", "pydantic", "orjson", "aiohttp"),
    *("torch", "typer.testing", "rich.console", "PIL.Image", "jiwer", "rouge_score.rouge_scorer", "uvloop"),
)
"""Loaded once, before the processes of the mutants are forked."""
PASSED, FAILED = 0, 1
"""Exit codes of pytest; any other one means that the tests were not run."""


class Mutant(NamedTuple):
    """One line to break.

    Attributes:
        at: `function`, `method`, `Class.method` or a constant, as it is called in its module.
        old, new: what stands there, once, and what is put in its place.
        holds: what the line guarantees.
        breaks: ids of tests, at least one of which must fail.
    """

    at: str
    old: str
    new: str
    holds: str
    breaks: tuple[str, ...]


class Changed(NamedTuple):
    """A module with its new text."""

    name: str
    path: Path
    text: str


class Outcome(NamedTuple):
    """How the tests of one mutant ended."""

    code: int
    said: str
    seconds: float


def read_mutants(path: Path = LIST) -> list[Mutant]:
    """The entries of the list; a key too many or too few is a TypeError."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [Mutant(**{**one, "breaks": tuple(one["breaks"])}) for one in found]


def _places(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Name, first and last line of every function, class and constant."""
    for node in ast.iter_child_nodes(tree):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
            yield from _places(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        if names and isinstance(node, ast.stmt):
            for name in names:
                yield prefix + name, node.lineno, node.end_lineno or node.lineno


def index() -> dict[str, list[tuple[Path, int, int]]]:
    """Name -> where it stands in the package: file, first and last line."""
    found: dict[str, list[tuple[Path, int, int]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, first, last in _places(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(name, []).append((path, first, last))
            if "." in name:
                found.setdefault(name.rpartition(".")[2], []).append((path, first, last))
    return found


def change(mutant: Mutant, places: dict[str, list[tuple[Path, int, int]]]) -> Changed:
    """The module with the mutant's line.

    Raises:
        LookupError: the text stands nowhere under that name, or more than once.
    """
    found = []
    for path, first, last in places.get(mutant.at, ()):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        block = "".join(lines[first - 1 : last])
        found += [(path, lines, first, last, block)] * block.count(mutant.old)
    if len(found) != 1:
        raise LookupError(f"{mutant.at}: {mutant.old!r} stands there {len(found)} times, wanted once")
    path, lines, first, last, block = found[0]
    text = "".join((*lines[: first - 1], block.replace(mutant.old, mutant.new), *lines[last:]))
    ast.parse(text)
    parts = path.relative_to(ROOT).with_suffix("").parts
    return Changed(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path, text)


class _Loader(SourceFileLoader):
    def __init__(self, changed: Changed) -> None:
        super().__init__(changed.name, str(changed.path))
        self.text = changed.text

    def get_code(self, fullname: str) -> CodeType:
        """The changed text, compiled."""
        return compile(self.text, self.path, "exec")


class _Finder(MetaPathFinder):
    """Gives one module its changed text."""

    def __init__(self, changed: Changed) -> None:
        self.changed = changed

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The changed module, if it is asked for."""
        if fullname != self.changed.name:
            return None
        package = [str(self.changed.path.parent)] if self.changed.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self.changed.path, loader=_Loader(self.changed), submodule_search_locations=package
        )


def _run_tests(changed: Changed | None, tests: Sequence[str]) -> int:
    """In a process of its own: the tests, with the changed module if there is one."""
    import pytest

    if changed is not None:
        sys.meta_path.insert(0, _Finder(changed))
    quiet = ["-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    quiet += ["-W", "ignore:Module already imported"]  # hypothesis, before its plugin asks for it
    return int(pytest.main([*quiet, *(["-x"] if changed else []), *tests]))


class Runner:
    """Runs each mutant's tests in a forked process, a few at a time."""

    def __init__(self, workers: int, folder: Path) -> None:
        self.workers = workers
        self.folder = folder
        self._running: dict[int, tuple[str, Path, float]] = {}
        self.done: dict[str, Outcome] = {}

    def start(self, name: str, changed: Changed | None, tests: Sequence[str]) -> None:
        """Fork; waits until a worker is free."""
        while len(self._running) >= self.workers:
            self._wait()
        said = self.folder / f"{len(self.done) + len(self._running)}.txt"
        process = os.fork()
        if process == 0:
            code = 99
            try:
                out = os.open(said, os.O_WRONLY | os.O_CREAT)
                os.dup2(out, 1)
                os.dup2(out, 2)
                code = _run_tests(changed, tests)
            except BaseException:  # noqa: BLE001 - a forked process must not go on behind this call
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        self._running[process] = name, said, time.monotonic()

    def finish(self) -> None:
        """Wait for all."""
        while self._running:
            self._wait()

    def _wait(self) -> None:
        process, status = os.wait()
        name, said, began = self._running.pop(process)
        code = os.waitstatus_to_exitcode(status)
        self.done[name] = Outcome(code, said.read_text(errors="replace"), time.monotonic() - began)


def verdict(outcome: Outcome) -> str:
    """Empty if the mutant was noticed, else what is wrong with it."""
    if outcome.code == FAILED:
        return ""
    if outcome.code == PASSED:
        return "SURVIVED: no named test fails"
    return f"its tests did not run (pytest ended with {outcome.code}):\n{outcome.said[-1500:]}"


def first_failure(outcome: Outcome) -> str:
    """The test that failed first, as pytest names it."""
    failed = [line for line in outcome.said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split(" ")[1].partition("[")[0] if failed else "nothing"


def main() -> int:
    """Run the mutants, print what survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="mutants whose place, text or purpose holds this")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--find", action="store_true", help="run whole test files; print what fails first")
    options = parser.parse_args()
    os.chdir(ROOT)
    mutants = [m for m in read_mutants() if options.only in f"{m.at} {m.old} {m.holds}"]
    places = index()
    faults: dict[str, str] = {}
    changed: dict[str, Changed] = {}
    for mutant in mutants:
        try:
            changed[f"{mutant.at}: {mutant.holds}"] = change(mutant, places)
        except (LookupError, SyntaxError) as error:
            faults[f"{mutant.at}: {mutant.holds}"] = str(error)
    for name in HEAVY:
        with suppress(ImportError):
            importlib.import_module(name)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(options.workers, Path(folder))
        if not options.find:  # a test that fails anyway would notice every mutant
            runner.start("", None, sorted({test for m in mutants for test in m.breaks}))
        for mutant in mutants:
            name = f"{mutant.at}: {mutant.holds}"
            if name in changed:
                tests = [t.partition("::")[0] for t in mutant.breaks] if options.find else mutant.breaks
                runner.start(name, changed[name], tests)
        runner.finish()
    plain = runner.done.pop("", None)
    if plain is not None and plain.code != PASSED:
        faults["without a mutant"] = f"the named tests do not pass:\n{plain.said[-3000:]}"
    for name, outcome in runner.done.items():
        if options.find:
            print(f"{outcome.seconds:6.1f} s  {name}\n          {first_failure(outcome)}")
        if wrong := verdict(outcome):
            faults[name] = wrong
    for name, wrong in faults.items():
        print(f"FAULT  {name}\n       {wrong}")
    print(
        f"{len(mutants)} mutants, {len(mutants) - len(faults)} noticed, {len(faults)} faults "
        f"in {time.monotonic() - start:.0f} s"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
