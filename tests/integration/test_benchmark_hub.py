"""Benchmarks on the Hub: row files at the declared commit, and configs row by row, from the Hub on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.test_own import declare
from tests.fakes.hub_repo import Repo
from tests.fakes.hub_server import HubServer
from tests.integration.test_sources_hub import read

pytestmark = pytest.mark.integration
COLUMNS = {"problem": "q", "solution": "a", "path": None, "problem_type": None, "data_type": None}
ROWS = [{"problem_id": i, "q": f"{i}?", "options": ["x", "y"], "a": "x"} for i in range(3)]


def layout(**hub: Any) -> dict[str, Any]:
    tags = {"part": "@part"}
    return {
        "hub": {"id": "me/pool", **hub},
        "files": ["rows.json"],
        "columns": COLUMNS | {"tags": tags},
        "data_type": "text",
    }


def pool(hub: HubServer) -> Repo:
    return hub.store.create("dataset", "me/pool", private=False)


def test_row_files_at_a_commit_of_which_the_first_digits_are_known(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        repo = pool(hub)
        hub.store.put_text(repo, "rows.json", json.dumps(ROWS))
        pinned = repo.log[-1][0]
        hub.store.put_text(repo, "rows.json", json.dumps(ROWS[:1]))
        own = {"kind": "benchmark", "benchmark": declare(tmp_path, layout(revision=pinned[:8]))}
        (found,) = read(hub, tmp_path, own)
        assert [row["problem"] for row in found["rows"]] == ["0?", "1?", "2?"]
        (newest,) = read(hub, tmp_path, own | {"revision": "main"})
        assert [row["tags"] for row in newest["rows"]] == [{"part": "rows"}]
        (gone,) = read(hub, tmp_path, own | {"revision": "no-such-branch"})
        assert "me/pool" in gone["error"]


def test_configs_row_by_row(tmp_path: Path) -> None:
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/*\n"
        for name in ("one", "two")
    )
    with HubServer(tmp_path / "hub") as hub:
        repo = pool(hub)
        hub.store.put_text(repo, "README.md", f"{card}---\n")
        for name in ("one", "two"):
            lines = "".join(json.dumps(row | {"problem_id": f"{name}{row['q']}"}) + "\n" for row in ROWS)
            hub.store.put_text(repo, f"{name}/test.jsonl", lines)
        own = {"kind": "benchmark", "benchmark": declare(tmp_path, layout(configs=["one", "two"]))}
        (found,) = read(hub, tmp_path, own)
        assert [row["tags"]["part"] for row in found["rows"]] == ["one"] * 3 + ["two"] * 3
