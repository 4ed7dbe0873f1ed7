"""A build whose work folder is in S3-compatible storage: a server on loopback, real processes, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_resume import CONCURRENCY, digests, finish, start, write_recipe
from benchmarks.throughput import get, server, write_pool
from tests.cli.test_commands import p2r
from tests.s3 import S3, SECRET
from videop2r_data.backends import Store
from videop2r_data.builders import remote

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def asked(url: str) -> int:
    found: int = get(url, "stats")["requests"]
    return found


def kill(process: subprocess.Popen[str]) -> str:
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[1]


def texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_killed_in_the_middle_and_finished_on_another_machine(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(0.2) as url:
        write_pool(tmp_path, 150, "text")  # so many that neither kill comes too late
        recipe = write_recipe(tmp_path, url)
        recipe.write_text(recipe.read_text().replace(f'"concurrency": {CONCURRENCY}', '"concurrency": 8'))
        finish(start(recipe, tmp_path / "a" / "killed"))
        calls = asked(url)
        get(url, "reset")
        work = ("--work", "s3://bucket/some/set")
        log = ""
        for machine in ("one", "two"):
            before = asked(url)
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
            process = start(recipe, tmp_path / "b" / "killed", *work)
            while asked(url) < before + 40 and process.poll() is None:
                time.sleep(0.02)
            time.sleep(0.4)
            log += kill(process)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "three"))
        process = start(recipe, tmp_path / "b" / "killed", *work)
        out, err = process.communicate()
        assert process.returncode == 0, err
        report = json.loads(out)
        assert digests(tmp_path / "a" / "killed") == digests(tmp_path / "b" / "killed")
        assert report["damaged_records"] == 0
        assert report["calls_found"] > 0
        assert p2r("status", work[1]).stdout.startswith("complete (process ")
        # of each kill what was under way, or answered and not put yet: no more than the questions under way
        assert asked(url) <= calls + 2 * (8 + 8 + 8 + 2)
        # the first machine again: it has no data set, and finds every answer
        before = asked(url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
        again = finish(start(recipe, tmp_path / "c" / "killed", *work))
        assert again["calls_made"] == 0 and asked(url) == before
        assert digests(tmp_path / "a" / "killed") == digests(tmp_path / "c" / "killed")
    for path, data in texts(tmp_path):
        assert SECRET.encode() not in data and b"planted-id" not in data, path
    assert SECRET not in log + err + out
    names = Store("s3://bucket/some/set").names("journal")
    assert len(names) <= 8, names  # small parts were joined


def test_a_store_that_is_away_for_some_seconds_costs_nothing(s3: S3, tmp_path: Path) -> None:
    with server(0.1) as url:
        write_pool(tmp_path, 60, "text")
        recipe = write_recipe(tmp_path, url)
        process = start(recipe, tmp_path / "set", "--work", "s3://bucket/away")
        while asked(url) < 20 and process.poll() is None:
            time.sleep(0.02)
        path = tmp_path / "kept"
        path.mkdir()
        back = s3.away(3.0)
        out, err = process.communicate()
        back.join()
        assert process.returncode == 0, err
        assert get(url, "stats")["repeats"] == 0
        assert json.loads(out)["state"] == "complete"


def test_a_second_build_ends_with_3_or_waits(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(0.5) as url:
        write_pool(tmp_path, 40, "text")
        recipe = write_recipe(tmp_path, url)
        first = start(recipe, tmp_path / "a", "--work", "s3://bucket/two")
        while asked(url) < 1 and first.poll() is None:
            time.sleep(0.02)
        flags = ("--work", "s3://bucket/two")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
        second = start(recipe, tmp_path / "b", *flags, "--no-wait")
        _, err = second.communicate()
        third = start(recipe, tmp_path / "b", *flags)
        report, waited = finish(first), finish(third)
        assert second.returncode == 3 or waited["calls_made"] == 0
        assert second.returncode == 0 or "works in this folder" in err
        assert report["calls_made"] > 0 and waited["calls_made"] == 0
        assert get(url, "stats")["repeats"] == 0


def test_one_of_many_gets_the_lease(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SETTLE_S", 0.0)
    store, found = Store("s3://bucket/lease"), list[bool]()
    tries = [
        threading.Thread(target=lambda i=i: found.append(remote._next(store, 1, {"mirror": str(i)})))
        for i in range(6)
    ]
    for one in tries:
        one.start()
    for one in tries:
        one.join()
    assert sum(found) == 1


@pytest.mark.parametrize(
    "words, flags",
    [
        ("--shard needs a work folder", ("--shard", "1/2")),
        ("--dry-run needs a work folder", ("--dry-run",)),
        ("--abandon-batch needs a work folder", ("--abandon-batch", "b1")),
    ],
)
def test_what_a_url_cannot_do_is_said(words: str, flags: tuple[str, ...], s3: S3, tmp_path: Path) -> None:
    process = start(Path("demo"), tmp_path / "set", "--work", "s3://bucket/x", *flags)
    assert words in " ".join(process.communicate()[1].split())
    assert process.returncode == 1


def test_a_missing_bucket_is_an_error_at_once(s3: S3, tmp_path: Path) -> None:
    process = start(Path("demo"), tmp_path / "set", "--work", "s3://no-such-bucket/x")
    err = process.communicate()[1]
    assert "the store refuses" in err and process.returncode == 1


def merge(*words: object) -> dict[str, Any]:
    line = [sys.executable, "-m", "videop2r_data.cli", "merge", *map(str, words), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_journals_of_folders_and_urls_are_merged(s3: S3, tmp_path: Path) -> None:
    with server(0.0) as url:
        write_pool(tmp_path, 12, "text")
        recipe = write_recipe(tmp_path, url)
        for share in ("1", "2"):
            process = start(
                recipe, tmp_path / share, "--shard", f"{share}/2", "--work", str(tmp_path / f"w{share}")
            )
            finish(process)
        calls = asked(url)
        first = merge("s3://bucket/merged", tmp_path / "w1", tmp_path / "w2")
        assert (first["copied"], first["repeats"], first["damaged"]) == (2, 0, 0)
        assert first["answers"] == calls
        assert merge("s3://bucket/merged", tmp_path / "w2")["copied"] == 0
        assert merge(tmp_path / "w3", "s3://bucket/merged")["answers"] == calls
        report = finish(start(recipe, tmp_path / "all", "--work", str(tmp_path / "w3")))
        assert report["calls_made"] == 0 and asked(url) == calls
