"""A card shows what a set has in common with evaluation sets, if the report is of its rows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.builders.overlap.test_overlap import compared
from tests.fakes.openai_server import FakeServer
from tests.integration.test_build import Silent, question, recipe, run, write_pool
from videop2r_data.builders import Workspace, reproduce
from videop2r_data.cards.card import write_dataset_card
from videop2r_data.cli.main import app

pytestmark = pytest.mark.integration


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A built set of six questions, one of which an evaluation set has too."""
    write_pool(tmp_path, [question(i) for i in range(6)])
    run(tmp_path)
    bench = [question(9, problem="What IS shape 2?"), question(8, problem="Where does the road end?")]
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    return tmp_path / "set"


def card(folder: Path, report: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["card", str(folder), "--overlap", str(report)])
    return done.exit_code, done.output


def part(folder: Path) -> str:
    text = (folder / "README.md").read_text()
    return text[text.index("## Contamination") : text.index("## Versions")]


def test_the_report_of_a_set_is_shown_and_stays(made: Path, tmp_path: Path) -> None:
    before = part(made)
    assert "compared no row with an evaluation set. None of" in before
    compared(tmp_path, str(made), f"bench={tmp_path / 'bench.json'}")
    report = tmp_path / "out" / "overlap.json"
    report.write_text(
        report.read_text().replace('"name": "bench"', '"name": "b|ench"')
    )  # as a stranger may have written it
    code, said = card(made, report)
    assert code == 0, said
    assert "compared 6 rows of set." in part(made) and "| b\\|ench | 2 | 0 of 0 | 1 of 2 | 0 of 0 |" in part(
        made
    )
    shown = part(made)
    run(tmp_path)  # a build that goes on carries it over
    assert part(made) == shown
    assert CliRunner().invoke(app, ["verify", str(made)]).exit_code == 0
    again = asyncio.run(reproduce(Workspace.of(made), card=write_dataset_card, observer=Silent()))
    assert again.same
    write_pool(tmp_path, [question(i) for i in range(7)])
    run(tmp_path)  # other rows: the report says nothing of them
    assert part(made) == before


def test_clips_of_a_set_that_was_built_here_lie_where_the_build_noted_them(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    shown = [question(n, data_type="image", path=f"clips/{n}.png") for n in range(3)]
    for n in range(3):
        Image.new("RGB", (64, 64), (80 * n, 0, 0)).save(tmp_path / "clips" / f"{n}.png")
    write_pool(tmp_path, shown)
    run(tmp_path)
    (tmp_path / "bench.json").write_text(json.dumps([question(9, data_type="image", path="clips/1.png")]))
    (bench,) = compared(tmp_path, str(tmp_path / "set"), str(tmp_path / "bench.json")).benches
    assert bench.bench["file"].found == 1 and bench.pool["file"].known == 3


def test_the_report_of_the_recipe_is_one_of_the_set(made: Path, tmp_path: Path) -> None:
    settings = recipe(FakeServer()).model_dump(mode="json")
    (tmp_path / "set.yaml").write_text(json.dumps(settings))
    compared(tmp_path, str(tmp_path / "set.yaml"), str(tmp_path / "bench.json"))
    assert card(made, tmp_path / "out" / "overlap.json")[0] == 0
    assert "compared 6 rows" in part(made)


def test_a_report_of_other_rows_or_none_at_all(made: Path, tmp_path: Path) -> None:
    compared(tmp_path, str(tmp_path / "bench.json"), f"x={tmp_path / 'bench.json'}")
    code, said = card(made, tmp_path / "out" / "overlap.json")
    assert code == 0 and "is of other rows" in said
    assert "compared no row with an evaluation set" in part(made)
    (tmp_path / "overlap.json").write_text('{"overlap": 1}')
    (made / "overlap.json").unlink()
    code, said = card(made, tmp_path / "overlap.json")
    assert code == 1 and "no report of p2r-data overlap" in said
    assert not (made / "overlap.json").exists()


def test_left_out_rows_are_told(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(4)])
    (tmp_path / "rows.jsonl").write_text('{"sample_id": "pool/1"}\n')
    run(tmp_path, lambda server: recipe(server, leave_out="rows.jsonl"))
    assert "1 rows of the pool that evaluation sets have too were left out" in part(tmp_path / "set")
