"""Promises about the project as a whole: sizes, docstrings, exports, directions, a light door, scripts."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import videop2r_data

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "videop2r_data"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [*sorted(ROOT.glob("scripts/*.sh")), *sorted(ROOT.glob("benchmarks/**/*.sh")), ROOT / ".ci" / "run"]
HEAVY = {
    "torch",
    "vllm",
    "transformers",
    "ray",
    "datasets",
    "anthropic",
    "pyarrow",
    "av",
    "decord",
    "matplotlib",
}
MAX_LINES = 500
DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
MAX_FUNCTION = 50


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_has_one_idea_and_says_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES, f"over {MAX_LINES} lines"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (
                (node.end_lineno or 0) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            )
            assert lines <= MAX_FUNCTION, f"{node.name}: {lines} lines"
    classes = [one for one in ast.walk(tree) if isinstance(one, ast.ClassDef)]
    for node in chain(tree.body, *(one.body for one in classes)):
        if isinstance(node, DOCUMENTED) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name}: no docstring"


def test_no_group_of_a_pattern_is_possessive_or_atomic() -> None:
    """Python 3.11 before 3.11.5 matches such groups wrongly, and Debian 12 has 3.11.2."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                assert not re.search(r"\)[*?+}]\+|\(\?>", text), f"{named(path)}:{node.lineno}"


RUNS_CODE = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def test_nothing_is_evaluated_or_unpickled() -> None:
    """Not even what the package packed itself: a rule with exceptions is not looked after."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{named(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not RUNS_CODE & {alias.name.split(".")[0] for alias in node.names}, where
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in RUNS_CODE, where
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, where
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert safe.get("weights_only") == "True", where


def test_every_module_can_be_imported_without_an_extra() -> None:
    for module in pkgutil.walk_packages(videop2r_data.__path__, "videop2r_data."):
        if not module.name.endswith("__main__"):
            assert importlib.import_module(module.name).__name__ == module.name


def test_what_a_room_exports_is_there() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        room = importlib.import_module(f"videop2r_data.{path.parent.name}")
        exported = list(getattr(room, "__all__", []))
        assert len(exported) == len(set(exported)), room.__name__
        missing = [name for name in exported if not hasattr(room, name)]
        assert not missing, (room.__name__, missing)


def test_imports_go_one_way() -> None:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("program", ["main", "train"])
def test_help_loads_nothing_heavy(program: str) -> None:
    code = (
        f"import sys; sys.argv = ['p', '--help']\n"
        f"from videop2r_data.cli.{program} import run\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print('heavy:', sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_version_is_told_once() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert videop2r_data.__version__ == told


def test_every_dependency_has_a_tested_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for line in wanted:
        name = line.partition(";")[0].split("[")[0]
        name = name.split(">")[0].split("=")[0].strip().lower().replace("_", "-")
        assert name in pinned, f"{name}: run make constraints"


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_shell_scripts_parse(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("goal", ["demo", "test", "test-vllm", "check", "bench", "ci"])
def test_make_knows_its_goals(goal: str) -> None:
    done = subprocess.run(["make", "-n", goal], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Front doors: a room is a package below `videop2r_data`; other rooms import from packages, never from modules.

READERS = [*MODULES, *sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "scripts").rglob("*.py"))]
STUBS = sorted(PACKAGE.rglob("__init__.pyi"))
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
INSIDE = {
    "benchmarks/miniature/qwen.py",
    "benchmarks/near_copies.py",
    "benchmarks/odd_containers.py",
    "benchmarks/step_ahead.py",
    "scripts/demo_judges.py",
}
"""Measurements of one inner part, which no room offers."""
STUB_LINE = re.compile(r"from \.(\w+(?:\.\w+)*) import (\w+) as (\w+)")


def imported(tree: ast.AST) -> list[tuple[str, str]]:
    """(module, name) of everything that is imported of this package, at any depth; the name may be empty."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] == PACKAGE.name]


def through_a_module(path: Path) -> list[str]:
    """Imports of a file that reach past a door."""
    own = path.relative_to(PACKAGE).parts if path.is_relative_to(PACKAGE) else ()
    wrong = []
    for module, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        parts = module.split(".")[1:]
        if not parts and not (PACKAGE / name / "__init__.py").is_file():
            continue  # the package itself, `errors`, `version`: modules of no room
        if parts and not (PACKAGE / parts[0]).is_dir():
            continue
        parts = parts or [name]
        if parts[0] == "cli":
            continue  # two programs, no room to import from; the directions keep other rooms out of it
        place = PACKAGE.joinpath(*parts)
        if len(own) > 1 and parts[0] == own[0]:
            inner = (place / f"{name}.py").is_file() or (place / name).is_dir()
            if place.is_dir() and path.is_relative_to(place) and not inner:
                wrong.append(f"{module}: {name} through its own door")
        elif not place.is_dir():
            wrong.append(f"{module}: {name}")
        elif module != PACKAGE.name and (place / f"{name}.py").is_file():
            wrong.append(f"{module}: the module {name} itself")
    return wrong


def test_other_rooms_are_entered_by_their_doors() -> None:
    wrong = {named(path): through_a_module(path) for path in READERS if named(path) not in INSIDE}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_the_check_of_doors_sees_what_goes_past_them(tmp_path: Path) -> None:
    path = tmp_path / "reader.py"
    path.write_text(
        "from videop2r_data.files import read_lock, names\n"
        "from videop2r_data.errors import P2RError\n"
        "import videop2r_data as p2r\n"
        "from videop2r_data import files\n"
        "import videop2r_data.files.names\n"
        "def later():\n    from videop2r_data.files.names import read_lock\n"
    )
    assert through_a_module(path) == [
        "videop2r_data.files: the module names itself",
        "videop2r_data.files.names: ",
        "videop2r_data.files.names: read_lock",
    ]


@pytest.mark.parametrize("stub", STUBS, ids=named)
def test_a_door_offers_names_that_are_there(stub: Path) -> None:
    folder = stub.parent
    inside = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    for line in stub.read_text(encoding="utf-8").splitlines():
        match = STUB_LINE.fullmatch(line)
        assert match, f"{line!r} is no `from .module import Name as Name`"
        module, name, shown = match.groups()
        assert name == shown
        # Python puts a submodule under its name into the package: it would hide the exported one.
        assert name not in inside, f"{name} is a module of {folder.name} too"
        place = folder.joinpath(*module.split("."))
        source = place / "__init__.pyi" if place.is_dir() else place.with_suffix(".py")
        assert name in defined(ast.parse(source.read_text(encoding="utf-8"))), (
            f"{name} is not in {named(source)}"
        )
    assert "lazy_loader.attach_stub" in stub.with_suffix(".py").read_text(encoding="utf-8")


def defined(tree: ast.Module) -> set[str]:
    """Names that a module has after its import."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_a_room_has_a_door_and_says_what_it_is_for(room: Path) -> None:
    text = (room / "__init__.py").read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(text)) or ""
    assert said.split("\n\n")[0].rstrip().endswith(".") and len(said.split()) >= 12, said
    assert room.name == "cli" or (room / "__init__.pyi").is_file() or "__all__" in text


def _script(name: str) -> Any:
    """A script of `scripts/`, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


MUTANTS = _script("mutants")


@pytest.fixture(scope="module")
def named_lines() -> Any:
    return MUTANTS.index()


@pytest.mark.parametrize("mutant", MUTANTS.read_mutants(), ids=lambda one: f"{one.at}: {one.holds}")
def test_a_guaranteed_line_stands_where_its_mutant_looks_for_it(mutant: Any, named_lines: Any) -> None:
    """Whoever rewrites the line sees so at once, and not when the mutants run, minutes later."""
    assert MUTANTS.change(mutant, named_lines).text
