"""Whatever a build waits for, it says so, goes on by itself, and ends the wait at the first signal."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import request
from tests.fakes.openai_server import Call, FakeServer, Reply
from tests.integration.test_build import Silent, question, recipe, write_pool
from tests.integration.test_refusals import steady
from tests.integration.test_train_judge import ask, judge_of, says_what_it_reads, serving
from tests.trainer.judging.questions import item
from videop2r_data.backends import http
from videop2r_data.backends.breaker import IN_A_ROW
from videop2r_data.backends.openai.client import OpenAIBackend
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import AwayError, BackendError, TransientError
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.recipe import Recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def started(folder: Path, made: Recipe, watch: Silent, stop: Stop | None = None) -> asyncio.Task[BuildReport]:
    place = Workspace.at(folder / "set", base=folder)
    return asyncio.ensure_future(build(made, place, observer=watch, card=write_dataset_card, stop=stop))


async def until(true: Any) -> None:
    while not true():  # noqa: ASYNC110 - what is looked at tells nobody
        await asyncio.sleep(0.01)


def test_a_server_that_is_restarted_in_the_middle_costs_no_row(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(60)])
    watch = Silent()

    async def main() -> BuildReport:
        async with FakeServer(answer=steady, latency=0.02) as first:
            made = recipe(first)
            running = started(tmp_path, made, watch)
            await until(lambda: first.requests > 20)
        await until(lambda: any("cannot be reached" in words for words in watch.waits))
        assert not running.done()
        async with FakeServer(answer=steady, port=first.port):
            return await running

    report = asyncio.run(main())
    assert report.state == "complete" and report.unanswered == 0
    assert report.ledger is not None and report.ledger.kept == 60


def test_a_server_that_is_nowhere_is_told_at_once_and_given_up_at_the_limit(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(100)])
    watch = Silent()

    async def main() -> None:
        async with FakeServer() as gone:
            made = recipe(gone, generate__backend__server_wait_s=2.0)
        with pytest.raises(AwayError, match="could not be reached for 2 s: connection to http"):
            await started(tmp_path, made, watch)

    asyncio.run(main())
    assert "the generate server cannot be reached" in watch.waits[0]


def test_a_wait_for_a_server_ends_when_the_stop_is_asked_for(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(100)])
    watch, stop = Silent(), Stop()

    async def main() -> BuildReport:
        async with FakeServer() as gone:
            made = recipe(gone, generate__backend__server_wait_s=10_000.0)
        running = started(tmp_path, made, watch, stop)
        await until(lambda: watch.waits)
        stop.ask()
        return await running

    report = asyncio.run(main())
    assert report.state == "interrupted" and report.unanswered == 0


def _start(folder: Path, url: str, *more: str, does: str = "build", **backend: Any) -> subprocess.Popen[str]:
    write_pool(folder, [question(i) for i in range(20)])
    settings = {"kind": "openai", "base_url": url, "model": "m", **backend}
    made = {
        "recipe": 1,
        "name": "slow",
        "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
        "generate": {"backend": settings},
    }
    (folder / "r.yaml").write_text(json.dumps(made))
    command = [sys.executable, "-m", "videop2r_data", does, str(folder / "r.yaml"), *more]
    return subprocess.Popen(
        [*command, "--out", str(folder / "set")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_long_pause_is_told_and_ends_with_the_first_signal(tmp_path: Path, number: signal.Signals) -> None:
    """A single 429 asks for a day: 15 minutes are waited for, unless somebody ends it."""

    def busy(call: Call) -> Reply | None:
        return Reply(status=429, headers={"retry-after": "86400"}) if call.number == 1 else None

    with serving(script=busy, answer=steady) as server, _start(tmp_path, server.url) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "as its last answer asked" in line)
        assert "the next call goes to the generate server in" in said and "86,400 s" in said
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "Stopped" in stdout and "finishing the calls under way" in stderr


def test_a_pilot_that_is_stopped_sends_nobody_to_a_build(tmp_path: Path) -> None:
    """It was not carried out: exit code 3, and the same command is the next."""

    def busy(_: Call) -> Reply:
        return Reply(status=429, headers={"retry-after": "86400"})

    with (
        serving(script=busy) as server,
        _start(tmp_path, server.url, "--pilot", "5", does="estimate") as process,
    ):
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("waiting:"))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "run the same command again" in stdout and "p2r-data build" not in stdout


def test_a_server_that_is_not_there_is_named_and_the_exit_code_says_run_me_again(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with _start(tmp_path, url, "--server-wait", "3") as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if line.startswith("waiting:"))
        assert "cannot be reached" in said and url in said
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3 and "error: the generate server could not be reached for 3 s" in stderr


def test_a_host_that_swallows_connections_is_away_and_was_not_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_S", 0.2)

    async def main(port: int) -> None:
        spec = BackendSpec(kind="openai", model="m", base_url=f"http://127.0.0.1:{port}/v1")
        backend = OpenAIBackend(spec)
        await backend.start()
        try:
            with pytest.raises(TransientError, match="no connection to http") as caught:
                await backend.complete(request("?"))
        finally:
            await backend.close()
        assert caught.value.away and not caught.value.maybe_billed

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [
            socket.socket() for _ in range(4)
        ]  # nobody accepts: the queue is full, and more are dropped
        try:
            for one in fillers:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            asyncio.run(main(full.getsockname()[1]))
        finally:
            for one in fillers:
                one.close()


def test_the_judge_of_training_waits_for_its_server_beyond_the_deadline(tmp_path: Path) -> None:
    with serving(answer=says_what_it_reads) as first:
        port = first.port
        judge = judge_of(first, tmp_path, deadline_s=5.0, server_wait_s=120.0)
    told: list[str] = []
    judge._tell = told.append
    with judge:
        ticket = judge.submit([item("a red disc"), item("a blue disc")])
        beyond = time.monotonic() + 6.0
        while not told or time.monotonic() < beyond:
            assert not ticket.done()
            time.sleep(0.05)
        with serving(answer=says_what_it_reads, port=port):
            assert [one.sufficient for one in ticket.result()] == [True, False]
    assert "the judge server cannot be reached" in told[0]


def test_a_judge_of_training_that_is_gone_stops_the_run(tmp_path: Path) -> None:
    with serving() as server:
        judge = judge_of(server, tmp_path, deadline_s=0.2, server_wait_s=1.0)
    with judge, pytest.raises(AwayError, match="could not be reached"):
        ask(judge, item("a red disc"))


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=400), "were refused; the last: status 400: scripted 400"),
        (
            Reply(body=b'{"choices":[{"finish_reason":"stop","message":{"content":null}}]}'),
            "came back empty",
        ),
    ],
)
def test_a_judge_of_training_that_never_judges_stops_the_run_and_is_asked_again_later(
    tmp_path: Path, reply: Reply, words: str
) -> None:
    """Without verdicts perception would learn nothing, and no number would say so."""
    items = [item(f"a red disc, {i}") for i in range(2 * IN_A_ROW)]
    with (
        serving(script=lambda call: reply) as server,
        judge_of(server, tmp_path) as judge,
        pytest.raises(BackendError, match=words),
    ):
        ask(judge, *items)
    with serving(answer=says_what_it_reads) as server, judge_of(server, tmp_path) as judge:
        assert all(one.sufficient for one in ask(judge, *items))
        assert server.stats()["requests"] == len(items)
