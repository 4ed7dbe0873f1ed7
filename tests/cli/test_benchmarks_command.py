"""`p2r-data benchmarks`: the list, one declaration with its sources, rows against counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.benchmarks.test_own import COLUMNS, ROW, declare
from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.cli.main import app


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["benchmarks", *args])
    return result.exit_code, result.output


def test_the_list_names_rows_and_headline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, told = run()
    assert code == 0
    assert max(map(len, told.splitlines()[:-1])) <= 80
    assert all(name in told for name in packaged_benchmarks())
    listed = {one["name"]: one for one in json.loads(run("--json")[1])}
    assert listed["mvbench"]["expected"]["rows"] == 4000


@pytest.mark.parametrize("name", packaged_benchmarks())
def test_one_is_shown_with_every_source(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = " ".join(run(name)[1].split())
    declared = load_benchmark(name)
    for text in (*declared.sources.values(), *declared.notes, *(a.id for a in declared.aggregates)):
        assert " ".join(text.split()) in told
    assert json.loads(run(name, "--json")[1])["name"] == name


def test_what_is_printed_starts_a_declaration_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(run("mvbench")[1].replace("name: mvbench", "name: mine", 1))
    assert load_benchmark(str(tmp_path / "mine.yaml")).layouts == load_benchmark("mvbench").layouts
    assert run(str(tmp_path / "mine.yaml"))[1] == (tmp_path / "mine.yaml").read_text()


def test_rows_that_are_not_there_are_told() -> None:
    code, told = run("mvbench", "--rows", "nowhere")
    assert code == 1
    assert told == "error: nowhere: no such file or folder\n  name row files as published, or hub\n"


def test_rows_are_held_against_the_counts(tmp_path: Path) -> None:
    layout = {"columns": COLUMNS | {"path": "video"}}
    own = declare(tmp_path, layout, expected={"rows": 2})
    rows = [ROW | {"video": "a.mp4"}, ROW | {"problem_id": 7, "video": ""}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    code, told = run(own, "--rows", str(tmp_path / "rows.json"))
    assert code == 1
    assert "2 rows, 1 bad row" in told
    assert '7: "video" is empty' in told
    assert "1 of them cannot be read" in told
    report = json.loads(run(own, "--rows", str(tmp_path / "rows.json"), "--json")[1])
    assert (report["rows"], report["layout"], list(report["bad"].values())) == (2, "only", [["7"]])
    (tmp_path / "rows.json").write_text(json.dumps([rows[0], rows[0] | {"problem_id": 8}]))
    code, told = run(own, "--rows", str(tmp_path / "rows.json"))
    assert (code, told.splitlines()[-1]) == (0, "all counts are as published")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--rows", "x"], "only with the name of a benchmark"),
        (["mmvu", "--layout", "hub"], "only with --rows"),
    ],
)
def test_wrong_usage_is_told(args: list[str], told: str) -> None:
    code, said = run(*args)
    assert code == 2
    assert told in said
