"""Promises about the project as a whole: sizes, docstrings, exports, directions, a light door, scripts."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import videop2r_data

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "videop2r_data"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [*sorted(ROOT.glob("scripts/*.sh")), ROOT / ".ci" / "run"]
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
    for node in tree.body:
        if isinstance(node, DOCUMENTED) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name}: no docstring"


def test_no_group_of_a_pattern_is_possessive_or_atomic() -> None:
    """Python 3.11 before 3.11.5 matches such groups wrongly, and Debian 12 has 3.11.2."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                assert not re.search(r"\)[*?+}]\+|\(\?>", text), f"{named(path)}:{node.lineno}"


def test_every_module_can_be_imported_without_an_extra() -> None:
    for module in pkgutil.walk_packages(videop2r_data.__path__, "videop2r_data."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


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
