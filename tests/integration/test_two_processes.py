"""Two commands in one work folder: no call made twice, no dollar above the limit, and who is in the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_resume import finish, start, write_recipe
from benchmarks.throughput import get, server, write_pool
from videop2r_data.builders.workspace import take_lease_now

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
INPUT_USD, OUTPUT_USD = 20.0, 60.0
"""Per million tokens."""


def priced(folder: Path, url: str, samples: int) -> Path:
    write_pool(folder, samples, "text")
    path = write_recipe(folder, url)
    recipe = json.loads(path.read_text())
    for step in ("generate", "judge"):
        recipe[step]["backend"]["price"] = {"input": INPUT_USD, "output": OUTPUT_USD}
    path.write_text(json.dumps(recipe))
    return path


def bill(url: str) -> float:
    """What the server's own count of tokens costs, US dollars."""
    tokens = get(url, "stats")["tokens"]
    return float(tokens["prompt_tokens"] * INPUT_USD + tokens["completion_tokens"] * OUTPUT_USD) / 1e6


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "videop2r_data.cli", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def reports(*processes: subprocess.Popen[str]) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for process in processes:
        out, err = process.communicate()
        assert process.returncode in (0, 3, 4), err
        found.append((process.returncode, json.loads(out)))
    return found


@contextmanager
def waiting(recipe: Path, out: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A build that waits for the folder."""
    process = start(recipe, out, *flags)
    assert process.stderr is not None
    try:
        assert "this command goes on when it has ended" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_builds_in_one_folder_pay_once_and_keep_the_limit(tmp_path: Path) -> None:
    with server(0.02) as url:
        recipe = priced(tmp_path, url, 200)
        out = tmp_path / "set"
        both = [start(recipe, out, "--max-cost", "40") for _ in range(2)]
        ends = reports(*both)
        assert [(code, end["state"]) for code, end in ends] == [(0, "complete")] * 2
        stats = get(url, "stats")
        assert stats["repeats"] == 0 and sorted(end["calls_made"] for _, end in ends) == [
            0,
            stats["requests"],
        ]
        assert ends[0][1]["spent"] == ends[1][1]["spent"]
        assert ends[0][1]["spent"]["finished_usd"] == pytest.approx(bill(url))


def test_shares_that_run_together_see_each_others_money(tmp_path: Path) -> None:
    """None has a part of its own: together they use the limit up, and no more."""
    with server(0.02) as url:
        recipe = priced(tmp_path, url, 150)
        out, limit = tmp_path / "set", 1.0
        ends = reports(
            *(start(recipe, out, "--shard", f"{i}/3", "--max-cost", str(limit)) for i in (1, 2, 3))
        )
        # on a busy machine one may have ended its share before the others began
        assert {(4, "over_budget")} <= {(code, end["state"]) for code, end in ends}
        assert {code for code, _ in ends} <= {0, 4}
        # a call of this recipe may cost a little over 0.13 USD (2,048 tokens of output at most)
        assert 0.7 < bill(url) <= limit
        last = finish(start(recipe, out, "--max-cost", "40"))
        assert last["state"] == "complete" and get(url, "stats")["repeats"] == 0
        assert last["spent"] == {"finished_usd": pytest.approx(bill(url)), "lost_usd": 0.0}


def test_what_reads_goes_on_beside_a_build_and_what_pays_is_refused(tmp_path: Path) -> None:
    with server(0.0) as url:
        recipe, out = priced(tmp_path, url, 12), tmp_path / "set"
        finish(start(recipe, out))
        with take_lease_now(tmp_path / "set.build", "a build"):
            for words in (
                ["estimate", recipe, "--out", out],
                ["reproduce", out],
                ["verify", out],
                ["show", out],
            ):
                done = command(*words)
                assert done.returncode == 0, done.stderr
            for paying in (["build", "--no-wait"], ["build", "--shard", "1/2"], ["estimate", "--pilot", "4"]):
                done = command(paying[0], recipe, "--out", out, *paying[1:])
                assert done.returncode == 3, done.stderr
                assert "a build (process " in done.stderr and " works in this folder" in done.stderr
        held = get(url, "stats")["requests"]
        assert command("build", recipe, "--out", out, "--no-wait").returncode == 0
        assert get(url, "stats")["requests"] == held


def test_the_second_process_of_a_share_is_refused(tmp_path: Path) -> None:
    with server(30.0) as url:
        recipe, out = priced(tmp_path, url, 12), tmp_path / "set"
        first = start(recipe, out, "--shard", "1/2")
        try:
            assert first.stderr is not None
            while "questions" not in first.stderr.readline():
                assert first.poll() is None
            done = command("build", recipe, "--out", out, "--shard", "1/2")
            assert done.returncode == 3
            assert f"share 1 of 2 of a build (process {first.pid} on " in done.stderr
            with waiting(recipe, out):
                pass
        finally:
            first.kill()
            first.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_at_once(tmp_path: Path, number: signal.Signals) -> None:
    recipe, out = priced(tmp_path, "http://127.0.0.1:9/v1", 12), tmp_path / "set"
    with take_lease_now(tmp_path / "set.build", "a build"), waiting(recipe, out) as process:
        process.send_signal(number)
        stdout, stderr = process.communicate()  # the holder does not end before this does
        assert process.returncode == 3 and "stopped while waiting" in stderr
        assert json.loads(stdout)["error"]["kind"] == "BusyError"


def test_a_killed_build_is_followed_at_once_by_the_one_that_waits(tmp_path: Path) -> None:
    with server(0.3) as url:
        recipe, out = priced(tmp_path, url, 40), tmp_path / "set"
        first = start(recipe, out)
        assert first.stderr is not None
        while "calls:" not in first.stderr.readline():
            assert first.poll() is None
        first.send_signal(signal.SIGSTOP)  # it holds the folder, however long the second takes to start
        with waiting(recipe, out) as second:
            first.kill()
            first.communicate()
            (_, report), *_ = reports(second)
        assert report["state"] == "complete"
