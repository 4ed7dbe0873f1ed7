"""`p2r-data status` beside real builds: running, killed, in two shares, with metrics; and the first rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.kill_resume import digests, finish, start
from benchmarks.throughput import get, server
from tests.cli.test_commands import p2r
from tests.cli.test_hostile_output import EVIL
from tests.cli.test_status import parse
from tests.integration.test_build import question, write_pool
from tests.integration.test_two_processes import bill, priced
from videop2r_data.builders import Progress, add_up, read_news

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def rows(news: Progress) -> int:
    return sum(news.counts.values())


def until(seen: Callable[[Progress], bool], work: Path, *processes: subprocess.Popen[str]) -> Progress:
    """Wait until the news of all processes says so."""
    while not ((news := read_news(work)) and len(news) == len(processes) and seen(add_up(news))):
        assert all(process.poll() in (None, 0, -signal.SIGKILL) for process in processes)
        time.sleep(0.1)
    return add_up(news)


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_build_that_is_killed_and_goes_on(tmp_path: Path) -> None:
    out, work = tmp_path / "set", tmp_path / "set.build"
    with server(2.0) as url:
        recipe = priced(tmp_path, url, 200)
        first = start(recipe, out, "--metrics", ":0", "--max-cost", "5")
        try:
            assert first.stderr is not None
            while "metrics: " not in (line := first.stderr.readline()):
                assert line
            news = until(lambda news: 20 <= rows(news) < 200 and news.state == "running", work, first)
            assert (news.total, news.limit_usd) == (200, 5.0) and news.process.startswith(f"{first.pid} on ")
            assert news.left_s is not None and news.per_min["rows"] > 0
            assert news.made["generate"] >= news.made["judge"] > 0
            with urllib.request.urlopen(line.split()[1], timeout=120) as answer:
                metrics = parse(answer.read().decode())
            assert 0 < metrics["p2r_made", "generate"] <= 400 and metrics["p2r_limit_usd", ""] == 5.0
            while "running" not in (
                told := p2r("status", str(out)).stdout
            ):  # its last news may be old just now
                assert first.poll() is None, told
            assert "/200, kept" in told and " of $5.00" in told
        finally:
            kill(first)
        news = until(lambda news: news.state == "killed", work, first)
        assert p2r("status", str(out)).stdout.startswith(f"killed (process {first.pid} on ")
        found = json.loads(p2r("status", str(work), "--json").stdout)
        assert found["state"] == "killed" and found["counts"] == news.counts
        second = start(recipe, out)
        until(lambda news: news.state == "running", work, second)
        report = finish(second)
        found = json.loads(p2r("status", str(out), "--json").stdout)
        assert found["state"] == "complete" and found["reasons"] == report["ledger"]["reasons"]
        assert found["counts"]["kept"] == report["ledger"]["kept"] and found["total"] == 200
        assert found["spent_usd"] == pytest.approx(report["spent"]["finished_usd"])


def test_two_shares_are_added_up(tmp_path: Path) -> None:
    out, work = tmp_path / "set", tmp_path / "set.build"
    with server(0.3) as url:
        recipe = priced(tmp_path, url, 120)
        shares = [start(recipe, out, "--shard", f"{i}/2") for i in (1, 2)]
        until(lambda news: rows(news) > 0, work, *shares)
        reports = [finish(process) for process in shares]
        ended = add_up(read_news(work))
        assert (ended.state, rows(ended), ended.total) == ("shard_complete", 120, 120)
        assert ended.made["generate"] + ended.made["judge"] == sum(one["calls_made"] for one in reports)
        assert ended.spent_usd == pytest.approx(bill(url)), "what both know of each other counts once"
        assert "share-1-of-2, shard_complete: calls: " in p2r("status", str(out)).stdout.replace("\n", " ")
        requests = get(url, "stats")["requests"]
        finish(start(recipe, out))
        assert [one.lease for one in read_news(work)] == ["build"] and get(url, "stats")[
            "requests"
        ] == requests


def test_the_first_rows_as_a_page_and_the_set_stays_as_it_is(tmp_path: Path) -> None:
    with server(0.0) as url:
        recipe = priced(tmp_path, url, 140)
        pool = [
            question(i, problem=f"shape {i} {EVIL}</script><img src=x onerror=alert(1)>?") for i in range(140)
        ]
        for row in pool[::2]:
            row["solution"] = "<answer>B</answer>"
        write_pool(tmp_path, pool)
        finish(start(recipe, tmp_path / "set", "--gallery"))
        (tmp_path / "plain.build").mkdir()
        (tmp_path / "plain.build" / "gallery").touch()
        finish(start(recipe, tmp_path / "plain", "--gallery"))  # a page that cannot be written ends no build
    assert digests(tmp_path / "set") == digests(tmp_path / "plain")
    page = (tmp_path / "set.build" / "gallery" / "index.html").read_text()
    assert "onerror=alert(1)>" not in page and "\x1b" not in page
    shown = json.loads(p2r("status", str(tmp_path / "set"), "--json").stdout)["counts"]
    assert shown["kept"] + shown["rejected"] == 140
    assert page.count(r"onerror=alert(1)") >= min(50, shown["kept"]) + min(50, shown["rejected"])
