"""README and docs against the program: recipes, options, tests, links and figures."""

from __future__ import annotations

import re
import sys
from collections import Counter
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
PARTS = (path for part in ("benchmarks", "tests", "videop2r_data") for path in (ROOT / part).rglob("*.md"))
ALL_PAGES = sorted({*PAGES, *ROOT.glob("*.md"), *PARTS})


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


def anchors(page: Path) -> set[str]:
    """What a link into a page may name, by GitHub's rule for headings."""
    found = Counter[str]()
    names = set()
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#{1,6} +(.*)$", text, flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w./-]+)", (ROOT / "README.md").read_text()))
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - linked == set()


def test_the_sizes_of_the_rooms_are_those_of_the_code() -> None:
    package, told = ROOT / "videop2r_data", 0
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        row = re.fullmatch(r"\| (`\w+`(?:, `\w+`)*) \|.*\| (\d+) \| ([\d,]+) \|[^|]*\|", line)
        if row is None:
            continue
        names = re.findall(r"\w+", row[1])
        files = [file for name in names for file in (package / name).rglob("*.py")]
        files += [package / f"{name}.py" for name in names if (package / f"{name}.py").is_file()]
        lines = sum(len(file.read_text().splitlines()) for file in files)
        assert int(row[2]) == pytest.approx(len(files), rel=0.1), line
        assert int(row[3].replace(",", "")) == pytest.approx(lines, rel=0.1), line
        told += len(names)
    rooms = [path for path in package.iterdir() if (path / "__init__.py").is_file()]
    assert told == len(rooms) - 1 + 2, "a row for each room but `recipes`; errors and api are modules"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_named_files_exist(page: Path) -> None:
    text = re.sub(r"`[^`\n]*(?:NAME|-v1\b|vN)[^`\n]*`", "", page.read_text())  # stand for a name
    ours = "tests|benchmarks|scripts|schemas|backends|builders|validators|media|trainer|cards|cli|files|demo"
    for name in re.findall(rf"`((?:videop2r_data/)?(?:{ours})/[\w./-]+\.(?:py|md|sh|ya?ml|json|txt))`", text):
        assert any((base / name).is_file() for base in (ROOT, ROOT / "videop2r_data")), name


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
