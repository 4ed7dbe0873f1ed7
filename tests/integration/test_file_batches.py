"""OpenAI's and Gemini's batches: the real wire against servers on loopback that lose, cut, expire and forget."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.fakes.anthropic_server import Cut, CutStream, Garbage, Slow, Status
from tests.fakes.anthropic_worker import JsonlLog, collect_all, make_requests
from tests.fakes.batch_servers import FakeBatches, FakeGemini, FakeOpenAIBatches, Refused
from tests.integration.test_anthropic_batches import Clock, one_of_two_gone, until
from videop2r_data.backends import batch_apis, make_batches
from videop2r_data.backends.batch_log import NotAcceptedError
from videop2r_data.backends.batches import BatchRunner
from videop2r_data.errors import AuthError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas.calls import BatchResult
from videop2r_data.schemas.judges import BackendSpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SERVERS = {"openai": FakeOpenAIBatches, "gemini": FakeGemini}
MODELS = {"openai": "gpt-test", "gemini": "gemini-test"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret-key")


@pytest.fixture(params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def spec_of(kind: str, server: FakeBatches, **more: Any) -> BackendSpec:
    about = {"kind": kind, "model": MODELS[kind], "base_url": server.url, "api_key_env": "A_KEY"}
    return BackendSpec.model_validate({**about, "batch": True, **more})


class Bench:
    """One build: a server, a log, and the results that were handed over."""

    def __init__(self, kind: str, server: FakeBatches, folder: Path, settings: dict[str, Any]) -> None:
        self.server, self.clock, self.settings = server, Clock(), settings
        self.log = JsonlLog(folder / "log.jsonl")
        self.results: list[BatchResult] = []
        self.backend: Any = make_batches(spec_of(kind, server))

    def runner(self) -> BatchRunner:
        """As a new process would make it."""
        return BatchRunner(self.backend, self.log, clock=self.clock, sleep=self.clock.sleep, **self.settings)

    async def wait(self, runner: BatchRunner) -> None:
        await collect_all(runner, self.results.append, sleep=self.clock.sleep)

    def events(self) -> list[str]:
        return [event["event"] for event in self.log.batch_events()]

    def texts(self) -> list[str]:
        return sorted(r.completion.text for r in self.results if r.completion is not None)

    def errors(self) -> list[TransientError]:
        return [r.error for r in self.results if isinstance(r.error, TransientError)]


def run(
    kind: str, work: Callable[[Bench], Awaitable[None]], folder: Path, *, polls: int = 0, **settings: Any
) -> None:
    async def main() -> None:
        async with SERVERS[kind](polls=polls) as server:
            bench = Bench(kind, server, folder, settings)
            try:
                await work(bench)
            finally:
                await bench.backend.close()

    asyncio.run(main())


def said(count: int) -> list[str]:
    return sorted(f"you said: q{i}" for i in range(count))


def test_submitted_here_collected_there_in_any_order(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        requests = make_requests(25)
        assert len(await bench.runner().submit(requests)) == 3 == len(bench.server.batches)
        elsewhere = bench.runner()
        assert elsewhere.pending_keys() == {r.key for r in requests}
        assert await elsewhere.submit(requests) == []
        await bench.wait(elsewhere)
        assert bench.texts() == said(25) and elsewhere.pending_keys() == set()
        done = [r.completion for r in bench.results if r.completion]
        assert all(one.batched and one.usage.output_tokens == 5 for one in done)
        assert bench.events() == ["submitting", "submitted"] * 3 + ["collected"] * 3
        assert set(bench.server.accepted_ids.values()) == {1}

    run(kind, work, tmp_path, polls=3, max_requests=10)


def test_a_lost_answer_is_found_by_its_name_while_the_batch_runs(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Cut(after=True))
        runner = bench.runner()
        assert await runner.submit(make_requests(4)) == []
        assert bench.events() == ["submitting", "lost"] and len(runner.pending_keys()) == 4
        first = await runner.collect_ready(bench.results.append)
        assert len(first.open_batches) == 1 and not bench.results, "adopted although it still runs"
        await bench.wait(runner)
        assert bench.texts() == said(4) and len(bench.server.batches) == 1

    run(kind, work, tmp_path, polls=5)


def test_what_was_never_taken_is_given_up_and_strangers_are_left_alone(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Cut())
        runner = bench.runner()
        assert await runner.submit(make_requests(4)) == []
        await bench.backend.submit(make_requests(8)[4:])  # of another build, of the same size
        await bench.wait(runner)
        assert bench.events() == ["submitting", "lost", "abandoned"] and not bench.results
        assert len(await runner.submit(make_requests(4))) == 1
        await bench.wait(runner)
        assert bench.texts() == said(4) and set(bench.server.accepted_ids.values()) == {1}

    run(kind, work, tmp_path)


def test_a_listing_that_lags_behind(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.hidden_lists = 3
        bench.server.fail("create", Cut(after=True))
        runner = bench.runner()
        await runner.submit(make_requests(4))
        await bench.wait(runner)
        assert bench.texts() == said(4) and len(bench.server.batches) == 1

    run(kind, work, tmp_path)


def test_the_listing_goes_back_over_pages(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.runner().submit(make_requests(130))
        listing = await bench.backend.listing(created_after_s=0.0)
        assert len(listing) == 130 and bench.server.calls["list"] == 2
        assert all(info.label for info in listing)

    run(kind, work, tmp_path, max_requests=1)


def test_the_listing_is_read_to_its_end_where_the_oldest_come_first(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.runner().submit(make_requests(130))
        for batch in bench.server.batches.values():
            batch.created_s -= 10_000 - int(batch.batch_id[-4:])
        last = await bench.backend.submit(make_requests(1))
        newest = bench.server.newest
        bench.server.newest = lambda: newest()[::-1]  # type: ignore[method-assign]
        since = bench.server.batches[last].created_s
        listing = await bench.backend.listing(created_after_s=since - 60)
        assert [info.batch_id for info in listing] == [last]

    run(kind, work, tmp_path, max_requests=1)


def test_a_server_that_knows_no_pages_is_not_asked_for_ever(tmp_path: Path) -> None:
    class Deaf(FakeOpenAIBatches):
        async def _list(self, request: web.Request) -> web.Response:
            if self.calls["list"] > 5:
                raise Refused("asked for ever", 500)
            told = [self._describe(batch) for batch in self.newest()]
            return web.json_response({"object": "list", "data": told, "has_more": True})

    async def main() -> None:
        async with Deaf() as server:
            backend: Any = make_batches(spec_of("openai", server))
            try:
                names = {await backend.submit([one]) for one in make_requests(3)}
                listing = await backend.listing(created_after_s=0.0)
                assert len(listing) == 3 and {info.batch_id for info in listing} == names
            finally:
                await backend.close()

    asyncio.run(main())


def test_a_line_of_the_results_without_an_end_fills_no_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(bench: Bench) -> None:
        monkeypatch.setattr(batch_apis, "MAX_ANSWER_BYTES", 2**16)
        bench.server.mangle = lambda lines: [b"x" * 2**18, *lines]
        runner = bench.runner()
        await runner.submit(make_requests(2))
        now = await runner.collect_ready(bench.results.append)
        assert "passes 65536 bytes" in now.trouble[0] and not bench.results
        bench.server.mangle = list
        await bench.wait(runner)
        assert bench.texts() == said(2)

    run(kind, work, tmp_path)


@pytest.mark.parametrize("fault", [Status(500), Cut(), Garbage(), Status(429)], ids=str)
def test_an_upload_that_fails_was_not_accepted(kind: str, fault: Any, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("upload", fault)
        assert len(await bench.runner().submit(make_requests(2))) == 1
        assert bench.events() == ["submitting", "abandoned", "submitting", "submitted"]

    run(kind, work, tmp_path)


def test_too_many_is_tried_again_and_what_is_refused_is_not(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        began = bench.clock.now
        bench.server.fail("create", Status(429, "RESOURCE_EXHAUSTED", headers={"retry-after": "40"}))
        assert len(await bench.runner().submit(make_requests(2))) == 1
        assert bench.clock.now == began + 40
        more = make_requests(4)[2:]
        bench.server.fail("create", Status(400, "invalid"))
        with pytest.raises(RefusedError, match="400"):
            await bench.runner().submit(more)
        bench.server.fail("create", *[Status(429)] * 6)
        with pytest.raises(NotAcceptedError):
            await bench.runner().submit(more)
        assert len(bench.runner().pending_keys()) == 2 and len(bench.server.batches) == 1

    run(kind, work, tmp_path)


def test_no_server_is_waited_for_longer_than_an_hour(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        began = bench.clock.now
        bench.server.fail("create", Status(429, "rate_limit_exceeded", headers={"retry-after": "86400"}))
        assert len(await bench.runner().submit(make_requests(2))) == 1
        assert bench.clock.now == began + 3600

    run("openai", work, tmp_path)


def test_overload_and_garbage_leave_the_outcome_open(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Status(503), Garbage())
        runner, requests, taken = bench.runner(), make_requests(3), 0
        for _ in range(3):
            taken += len(await runner.submit(requests))
            await bench.wait(runner)
        assert taken == 1 and bench.texts() == said(3) and set(bench.server.accepted_ids.values()) == {1}

    run(kind, work, tmp_path)


def test_a_revoked_key_stops_the_run_and_changes_nothing(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        await runner.submit(make_requests(2))
        bench.server.key = "another"
        with pytest.raises(AuthError) as caught:
            await runner.collect_ready(bench.results.append)
        assert "secret-key" not in str(caught.value)
        with pytest.raises(AuthError):
            await runner.submit(make_requests(4)[2:])
        assert len(runner.pending_keys()) == 2
        assert "secret-key" not in (tmp_path / "log.jsonl").read_text()
        bench.server.key = "secret-key"
        await bench.wait(runner)
        assert bench.texts() == said(2)

    run(kind, work, tmp_path)


def test_every_kind_of_result(kind: str, tmp_path: Path) -> None:
    kinds = ["succeeded", "expired", "bad", "busy", "broken"]

    async def work(bench: Bench) -> None:
        requests = make_requests(5)
        bench.server.outcome = lambda _key, index: kinds[index]
        runner = bench.runner()
        await runner.submit(requests)
        await bench.wait(runner)
        got = {r.key: r for r in bench.results}
        told = [type(got[r.key].error).__name__ for r in requests]
        assert told == ["NoneType", "TransientError", "RefusedError", "TransientError", "TransientError"]
        assert runner.pending_keys() == set()
        assert [error.maybe_billed for error in bench.errors()] == [False] * 3

    run(kind, work, tmp_path)


def test_repeated_unknown_and_unreadable_lines_change_nothing(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        ours = "custom_id" if kind == "openai" else "key"

        def mangle(lines: list[bytes]) -> list[bytes]:
            stranger = json.dumps(json.loads(lines[0]) | {ours: "f" * 64}).encode() + b"\n"
            odd = [b"no json\n", b"[]\n", b'{"custom_id": 3, "key": 3}\n', b"\n", b'{"key": null}\n']
            return [*odd, stranger, *lines, *lines]

        bench.server.mangle = mangle
        runner = bench.runner()
        await runner.submit(make_requests(4))
        await bench.wait(runner)
        assert len(bench.results) == 4 and bench.texts() == said(4)

    run(kind, work, tmp_path)


@pytest.mark.parametrize(
    "cut", [CutStream(3), CutStream(3, torn=True), CutStream(3, clean=True), CutStream(0)]
)
def test_results_cut_off_are_downloaded_again(kind: str, cut: CutStream, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        await runner.submit(make_requests(6))
        bench.server.fail("results", cut)
        first = await runner.collect_ready(bench.results.append)
        assert first.trouble and len(first.open_batches) == 1
        await bench.wait(runner)
        assert len(bench.results) == 6 and bench.texts() == said(6)

    run(kind, work, tmp_path)


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled"])
def test_a_batch_that_ended_as_a_whole_frees_its_requests_and_costs_nothing(
    kind: str, state: str, tmp_path: Path
) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        (batch_id,) = await runner.submit(make_requests(3))
        bench.server.batches[batch_id].state = state
        await bench.wait(runner)
        assert [error.maybe_billed for error in bench.errors()] == [False] * 3
        assert all(error.rate_limited for error in bench.errors()) == (state == "failed")
        assert runner.pending_keys() == set() and bench.events()[-1] == "collected"

    run(kind, work, tmp_path, polls=50)


def test_a_batch_that_is_gone_is_named(kind: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await one_of_two_gone(bench, bench.runner())
        with pytest.raises(RefusedError, match="no batch id"):
            await bench.backend.poll("../files")

    run(kind, work, tmp_path, max_requests=2)


def test_a_missing_key_is_named_before_anything_goes_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(bench: Bench) -> None:
        monkeypatch.delenv("A_KEY")
        with pytest.raises(ConfigError, match="A_KEY is not set"):
            make_batches(spec_of(kind, bench.server))

    run(kind, work, tmp_path)


def test_the_official_client_reads_the_server_as_we_do(tmp_path: Path) -> None:
    """What the tests of this file stand on: the server is one that OpenAI's own client works with."""
    openai = pytest.importorskip("openai")

    async def work(bench: Bench) -> None:
        requests = make_requests(3)
        (batch_id,) = await bench.runner().submit(requests)
        async with openai.AsyncOpenAI(api_key="secret-key", base_url=bench.server.url) as client:
            told = await client.batches.retrieve(batch_id)
            assert told.status == "completed" and told.request_counts.total == 3
            text = (await client.files.content(told.output_file_id)).text
            assert {json.loads(line)["custom_id"] for line in text.splitlines()} == {r.key for r in requests}
            body = bench.backend._body(requests[0], None)
            line = orjson.dumps(bench.backend._entry(requests[0].key, body))
            file = await client.files.create(file=("x.jsonl", line), purpose="batch")
            made = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            assert made.id in {b.id async for b in client.batches.list(limit=1)}

    run("openai", work, tmp_path)


# ---- processes that die


@pytest.mark.parametrize(
    ("route", "moment"),
    [("upload", Slow(30.0, after=True)), ("create", Slow(30.0, after=True)), ("create", Slow(1.0))],
    ids=["uploaded", "taken before", "taken after"],
)
def test_killed_between_upload_submission_and_log(
    kind: str, route: Any, moment: Slow, tmp_path: Path
) -> None:
    async def main() -> None:
        async with SERVERS[kind](polls=2) as server:
            server.fail(route, moment)
            env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
            spec = spec_of(kind, server).model_dump_json()
            command = [sys.executable, "-m", "tests.fakes.anthropic_worker", spec, str(tmp_path), "20"]
            first = await asyncio.create_subprocess_exec(*command, env=env)
            waits = route == "create" and moment.after
            await until(lambda: server.calls[route] == 1 and (not waits or bool(server.batches)))
            first.kill()
            await first.wait()
            assert [e["event"] for e in JsonlLog(tmp_path / "log.jsonl").batch_events()] == ["submitting"]
            second = await asyncio.create_subprocess_exec(*command, env=env)
            assert await second.wait() == 0
            assert len(server.batches) == 1 and set(server.accepted_ids.values()) == {1}
            assert len(set((tmp_path / "answers.jsonl").read_text().splitlines())) == 20

    asyncio.run(main())
