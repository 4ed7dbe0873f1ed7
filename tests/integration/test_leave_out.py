"""Rows that an evaluation set has too are left out of a build: counted, never asked, told by the lock."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.builders.overlap.test_overlap import compared, write
from tests.fakes.openai_server import FakeServer
from tests.integration.test_build import Silent, question, recipe, rows_of, run, write_pool
from videop2r_data.builders import Workspace, look_up, reproduce
from videop2r_data.cards.card import write_dataset_card
from videop2r_data.cli.main import app
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Recipe

pytestmark = pytest.mark.integration


def listed(path: Path, *ids: str, **more: Any) -> Path:
    path.write_text("".join(json.dumps({"sample_id": one, **more}) + "\n" for one in ids))
    return path


def leaving(server: FakeServer, **settings: Any) -> Recipe:
    return recipe(server, leave_out={"rows": "rows.jsonl", **settings})


def test_left_out_rows_are_counted_and_never_asked(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(8)])
    listed(tmp_path / "rows.jsonl", "pool/2", "pool/5", bench="mvbench", signal="both")
    report, server = run(tmp_path, leaving)
    assert report.ledger is not None
    assert report.ledger.reasons["pool/overlaps"] == 2
    assert report.ledger.rows_in == 8 == report.ledger.kept + report.ledger.rejected
    assert server.requests == 2 * 6
    out = tmp_path / "set"
    left = [row for row in rows_of(out, "rejected") if row["reason"] == "overlaps"]
    assert [(r["sample_id"], r["outcome"], r["stage"], r["detail"]) for r in left] == [
        ("pool/2", "rejected", "pool", "mvbench both"),
        ("pool/5", "rejected", "pool", "mvbench both"),
    ]
    assert left[0]["problem"] == "What is shape 2?"
    assert "pool/2" not in {row["sample_id"] for row in rows_of(out, "rl")}
    done = CliRunner().invoke(app, ["verify", str(out)])
    assert done.exit_code == 0, done.output
    assert asyncio.run(look_up(Workspace.of(out), "pool/2")).calls == []


def test_the_lock_tells_when_the_list_has_changed(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(6)])
    listed(tmp_path / "rows.jsonl", "pool/2")
    run(tmp_path, leaving)
    place = Workspace.of(tmp_path / "set")
    check = partial(reproduce, place, card=write_dataset_card, observer=Silent())
    assert asyncio.run(check()).same
    listed(tmp_path / "rows.jsonl", "pool/2", "pool/3")
    report = asyncio.run(check())
    assert not report.same and "leave_out: the file lists other rows now" in report.causes
    assert "left_out" not in json.loads(_plain_lock(tmp_path / "plain"))


def _plain_lock(folder: Path) -> bytes:
    folder.mkdir()
    write_pool(folder, [question(0)])
    run(folder)
    return (folder / "set" / "build.lock.json").read_bytes()


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, {"pool/1"}),
        ({"signals": ["text"]}, {"pool/2"}),
        ({"signals": ["text", "both"], "benches": ["other"]}, {"pool/2"}),
    ],
)
def test_signals_and_sets_choose(tmp_path: Path, settings: dict[str, Any], left: set[str]) -> None:
    write_pool(tmp_path, [question(i) for i in range(4)])
    lines = [
        {"sample_id": "pool/1", "bench": "mvbench", "signal": "both"},
        {"sample_id": "pool/2", "bench": "other", "signal": "text"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(tmp_path, partial(leaving, **settings))
    rejected = rows_of(tmp_path / "set", "rejected")
    assert {row["sample_id"] for row in rejected if row["reason"] == "overlaps"} == left


def test_the_file_that_overlap_writes_is_read_as_it_is(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(3)])
    same = question(1, problem_id=7, problem="what is SHAPE 1")
    compared(tmp_path, str(tmp_path / "pool.json"), str(write(tmp_path / "bench.json", [same])))
    settings = {"rows": "out/rows.parquet", "signals": ["text"]}
    report, _ = run(tmp_path, lambda server: recipe(server, leave_out=settings))
    assert report.ledger is not None and report.ledger.reasons["pool/overlaps"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "leave_out cannot be read"),
        ('{"id": "pool/1"}\n', "no text in `sample_id`"),
        ('{"sample_id": "elsewhere/1"}\n', "lists 1 rows, none of this recipe's sources"),
    ],
)
def test_a_list_that_leaves_nothing_out_by_mistake_is_an_error(
    tmp_path: Path, text: str | None, told: str
) -> None:
    write_pool(tmp_path, [question(0)])
    if text is not None:
        (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=told):
        run(tmp_path, leaving)


def test_an_estimate_prices_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pool(tmp_path, [question(i) for i in range(5)])
    listed(tmp_path / "rows.jsonl", "pool/1")
    made = recipe(FakeServer(), leave_out="rows.jsonl")
    (tmp_path / "set.yaml").write_text(json.dumps(made.model_dump(mode="json")))
    done = CliRunner().invoke(app, ["estimate", "set.yaml", "--json"])
    assert json.loads(done.stdout)["rows"] == 4, done.output
    done = CliRunner().invoke(app, ["check", "set.yaml", "--no-calls", "--json"])
    setup = {one["about"]: one["message"] for one in json.loads(done.stdout)["setup"]}
    assert setup["leave_out"].startswith("1 rows of the pool are left out")
    (tmp_path / "rows.jsonl").unlink()
    assert "leave_out cannot be read" in CliRunner().invoke(app, ["check", "set.yaml", "--no-calls"]).stdout
