"""README and docs against the program: recipes, options, tests, links and figures."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from videop2r_data.cli import main, train
from videop2r_data.recipes import list_recipes, recipe_text
from videop2r_data.schemas.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_the_complete_recipe_of_the_readme_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    recipes = [parse_recipe(text, where="README") for text in blocks if text.startswith("recipe:")]
    assert [r.name for r in recipes] == ["my-set"]


def test_every_command_and_option_that_is_written_exists() -> None:
    known: dict[str, set[str]] = {}
    for prefix, app in (("p2r-data", main.app), ("p2r-train", train.app)):
        group = typer.main.get_command(app)
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
            known[f"{prefix} {name}"] = flags | {"--help", "-h"}
    for page in PAGES:
        for line in page.read_text().splitlines():
            for use in re.findall(r"(?:`|^ *|until |run: )(p2r-(?:data|train) [a-z][a-z-]+[^`#|;]*)", line):
                command = " ".join(use.split()[:2])
                assert command in known, (page.name, use)
                assert set(re.findall(r"(?<!\S)--[a-z-]+", use)) <= known[command], (page.name, use)
    text = (ROOT / "docs" / "commands.md").read_text()
    assert all(f"`{name.split()[1]} " in text or f"{name}" in text for name in known)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_named_tests_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for name in re.findall(r"`(tests/[\w/]+\.py|benchmarks/\w+\.py)`", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("name", list_recipes())
def test_a_vllm_server_that_gets_video_is_started_with_frame_times_allowed(name: str) -> None:
    starts = re.sub(r" \\\n#\s+", " ", recipe_text(name)).splitlines()
    for line in (line for line in starts if "vllm serve" in line and "-VL-" in line):
        assert "--trust-request-mm-kwargs" in line


def script(name: str) -> Any:
    """A module of the folder of scripts."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)


def test_the_measured_judges_are_those_of_the_script() -> None:
    demo_judges = script("demo_judges")
    made = "\n".join(demo_judges.table(demo_judges.FEW, demo_judges.SOME))
    assert made in demo_judges.RESULTS.read_text(encoding="utf-8"), (
        "run: python scripts/demo_judges.py --write"
    )


def test_the_figures_of_the_readme_are_those_of_a_fresh_demo(tmp_path: Path) -> None:
    readme_figures = script("readme_figures")
    text = (ROOT / "README.md").read_text()
    fresh = readme_figures.replaced(text, readme_figures.measure(tmp_path))
    assert fresh == text, "run: python scripts/readme_figures.py"


def test_the_pages_of_all_settings_are_those_of_the_models() -> None:
    recipe_reference = script("recipe_reference")
    for name in recipe_reference.WRITTEN_PAGES:
        written = (ROOT / "docs" / name).read_text()
        assert written == recipe_reference.page(name), "run: python scripts/recipe_reference.py"
        rows = [line for line in written.splitlines() if line.startswith("| `")]
        assert len(rows) > (80 if name in recipe_reference.PAGES else 10)
        assert [line for line in rows if line.endswith("|  |")] == [], "a setting without a docstring"
