"""`p2r-data status`, the line a minute, and the metrics in Prometheus' text form."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len

from tests.builders.test_news import RUN
from tests.cli.test_commands import p2r
from tests.cli.test_hostile_output import EVIL, STEERING
from videop2r_data.builders import Tally
from videop2r_data.builders.news import Progress
from videop2r_data.cli.build import BuildProgress
from videop2r_data.cli.status import metrics_text, with_metrics
from videop2r_data.cli.terminal import SafeConsole
from videop2r_data.errors import ConfigError


def test_piped_a_build_prints_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = [0.0], io.StringIO()
    monkeypatch.setattr("videop2r_data.cli.terminal.time.monotonic", lambda: clock[0])
    parts: Any = SimpleNamespace(journal=SimpleNamespace(readonly=True))
    with BuildProgress(SafeConsole(file=out, force_terminal=False, width=200)) as progress:
        progress.begin("calls", 1200)
        for clock[0] in range(1, 601):
            progress.step(Tally(rows=int(clock[0]), kept=int(clock[0])), parts)
    first, *lines = out.getvalue().splitlines()
    assert first == "calls: 1,200 questions" and len(lines) == 10, "after 30 seconds, then every minute"
    assert lines[-1] == "calls: 570/1,200, kept 100.0%, 60/min, 0:10:30 left"


def hostile(work: Path, **known: Any) -> None:
    """News as a process that is not ours may write it."""
    work.mkdir(parents=True)
    words = dict.fromkeys(("last_error", "waits_for", "phase", "process"), EVIL + "\n\x1b[2J")
    news = RUN.model_copy(update=words | {"reasons": {EVIL: 3}, "made": {EVIL: 1}} | known)
    news.at = time.time() + 600  # fresh however long a test takes
    (work / "progress-build.json").write_text(news.model_dump_json())


@pytest.mark.parametrize("state", ["complete", "failed", "running", EVIL])
def test_nothing_of_the_news_steers_the_terminal(tmp_path: Path, state: str) -> None:
    hostile(tmp_path / "set.build", state=state)
    for words in (["status", str(tmp_path / "set")], ["status", str(tmp_path / "set.build"), "--json"]):
        told = p2r(*words).stdout
        assert STEERING.search(told) is None and "over" in told
        assert "--json" in words or all(cell_len(line) <= 80 for line in told.splitlines())


def test_what_is_told_of_a_run_and_where_there_is_none(tmp_path: Path) -> None:
    hostile(tmp_path / "set.build", phase="calls", waits_for="the server", last_error="no key")
    told = " ".join(p2r("status", str(tmp_path / "set")).stdout.split())
    for words in ("running (process", "123,456/260,000", "kept 81.2%", "$3.25 of $50.00", "7:13:20 left"):
        assert words in told
    assert "waiting: the server last error: no key 3 " in told
    found = json.loads(p2r("status", str(tmp_path / "set"), "--json").stdout)
    assert found["spent_usd"] == 3.25 and found["shares"] == [] and found["counts"]["kept"] == 100_247
    for other in (tmp_path / "other", tmp_path):
        assert "no build has left news here" in p2r("status", str(other), code=1).stderr


def test_each_share_has_a_line(tmp_path: Path) -> None:
    for i in (1, 2):
        news = RUN.model_copy(update={"lease": f"share-{i}-of-2", "state": "shard_complete"})
        (tmp_path / f"progress-{news.lease}.json").write_text(news.model_dump_json())
    told = " ".join(p2r("status", str(tmp_path)).stdout.split())
    assert "246,912/520,000" in told and "share-2-of-2, shard_complete: calls: 123,456/260,000" in told
    assert len(json.loads(p2r("status", str(tmp_path), "--json").stdout)["shares"]) == 2


SAMPLE = re.compile(r'([a-z_][a-z0-9_]*)(?:\{name="([^"\\\n]*)"\})? (\S+)')


def parse(text: str) -> dict[tuple[str, str], float]:
    """Every sample of a page in Prometheus' text form; fails for a line that is none, or a second time."""
    *lines, last = text.split("\n")
    assert not last
    matches = [SAMPLE.fullmatch(line) for line in lines]
    assert all(matches), lines
    found = {(match[1], match[2] or ""): float(match[3]) for match in matches if match}
    assert len(found) == len(lines)
    return found


def serve(address: str) -> tuple[str, str]:
    """Serve metrics while one client asks for them; returns its answer's type and text."""

    async def ask() -> Any:
        url = re.search(r"http://127\.0\.0\.1:\d+/metrics", out.getvalue())
        assert url is not None

        def get() -> tuple[str, str]:
            with urllib.request.urlopen(url[0], timeout=120) as answer:
                return answer.headers["Content-Type"], answer.read().decode()

        return await asyncio.to_thread(get)

    out = io.StringIO()
    progress = BuildProgress(SafeConsole(file=out, force_terminal=False, width=200))
    progress.said = RUN.model_copy()
    found: Any = asyncio.run(with_metrics(ask(), address, progress))
    return found[0], found[1]


def test_metrics_over_loopback() -> None:
    kind, text = serve(":0")
    found = parse(text)
    assert kind.startswith("text/plain; version=0.0.4;") and found["p2r_total", ""] == 260_000
    assert found["p2r_made", "judge"] == 120_000 and found["p2r_spent_usd", ""] == 3.25


def test_every_figure_is_a_metric_and_no_word_of_a_server_is() -> None:
    words = {"last_error": "sk-planted", "waits_for": "sk-planted", "process": "sk-planted"}
    text = metrics_text(RUN.model_copy(update=words))
    found = parse(text)
    assert "planted" not in text and found["p2r_reasons", "judge/insufficient"] == 20_000
    assert {name for name, _ in found} == {
        f"p2r_{name}" for name, value in RUN.model_dump().items() if not isinstance(value, str)
    }
    assert ("p2r_limit_usd", "") not in parse(metrics_text(Progress()))


@pytest.mark.parametrize("address", ["", "no", ":x", ":99999", ":-1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    async def never() -> Any:
        raise AssertionError

    progress = BuildProgress(SafeConsole(file=io.StringIO(), force_terminal=False))
    with pytest.raises(ConfigError, match="no such address"):
        asyncio.run(with_metrics(never(), address, progress))


def test_an_address_that_cannot_be_had_is_told_with_what_to_do() -> None:
    async def never() -> Any:
        raise AssertionError

    progress = BuildProgress(SafeConsole(file=io.StringIO(), force_terminal=False))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address, why in ((f":{port}", "in use"), ("192.0.2.1:9100", "assign"), ("no.invalid:9100", "")):
            with pytest.raises(ConfigError, match=f"cannot listen there: .*{why}") as caught:
                asyncio.run(with_metrics(never(), address, progress))
            assert address in str(caught.value) and "another port" in str(caught.value.hint)
