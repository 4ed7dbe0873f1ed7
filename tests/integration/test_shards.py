"""One build by several processes at once, by hand: the same bytes, no call made twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_resume import digests, finish, start, write_recipe
from benchmarks.throughput import get, server, write_pool

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def build(recipe: Path, out: Path, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "videop2r_data.cli", "build", str(recipe), "--out", str(out), "--json"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_three_processes_share_a_build_and_a_fourth_writes_it(tmp_path: Path) -> None:
    with server(0.02) as url:
        write_pool(tmp_path, 90, "fits")
        recipe = write_recipe(tmp_path, url)
        build(recipe, tmp_path / "a" / "set")
        alone = get(url, "stats")["requests"]
        get(url, "reset")
        out = tmp_path / "b" / "set"
        shares = [start(recipe, out, "--shard", f"{i}/3") for i in (1, 2, 3)]
        reports = [finish(process) for process in shares]
        assert {r["state"] for r in reports} == {"shard_complete"} and not out.exists()
        assert sum(r["seen"] for r in reports) == 90
        last = build(recipe, out)
        stats = get(url, "stats")
        assert last["calls_made"] == 0 and stats["repeats"] == 0 and stats["requests"] == alone
        assert digests(out) == digests(tmp_path / "a" / "set")
