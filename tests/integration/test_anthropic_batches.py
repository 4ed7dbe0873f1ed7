"""The real client's batches against a server on loopback that loses, cuts, expires and forgets."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.fakes.anthropic_server import Cut, CutStream, FakeAnthropic, Slow, Status
from tests.fakes.anthropic_worker import JsonlLog, collect_all, make_requests
from videop2r_data.backends.batch_apis import AnthropicBatches
from videop2r_data.backends.batch_log import BatchGoneError, BatchProgress, NotAcceptedError
from videop2r_data.backends.batches import BatchRunner
from videop2r_data.errors import AuthError, RefusedError, TransientError
from videop2r_data.schemas.calls import BatchResult, Message, Request, Usage
from videop2r_data.schemas.judges import BackendSpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        import time

        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Bench:
    """One build: a server, a log, and the results that were handed over."""

    def __init__(self, server: FakeAnthropic, folder: Path, **settings: Any) -> None:
        self.server, self.clock = server, Clock()
        self.log = JsonlLog(folder / "log.jsonl")
        self.results: list[BatchResult] = []
        self.settings = settings
        self.backends: list[AnthropicBatches] = []

    def runner(self) -> BatchRunner:
        """As a new process would make it."""
        spec = BackendSpec(kind="anthropic", model="claude-test-3-7", base_url=self.server.url)
        self.backends.append(AnthropicBatches(spec))
        return BatchRunner(
            self.backends[-1], self.log, clock=self.clock, sleep=self.clock.sleep, **self.settings
        )

    async def wait(self, runner: BatchRunner, seen: list[BatchProgress] | None = None) -> BatchProgress:
        return await collect_all(runner, self.results.append, sleep=self.clock.sleep, seen=seen)

    def events(self) -> list[str]:
        return [e["event"] for e in self.log.batch_events()]

    def texts(self) -> list[str]:
        return sorted(r.completion.text for r in self.results if r.completion is not None)


def run(
    work: Callable[[Bench], Awaitable[None]],
    folder: Path,
    *,
    server: FakeAnthropic | None = None,
    **settings: Any,
) -> None:
    async def main() -> None:
        async with server or FakeAnthropic() as live:
            bench = Bench(live, folder, **settings)
            try:
                await work(bench)
            finally:
                for backend in bench.backends:
                    await backend.close()
                    await backend.close()

    asyncio.run(main())


def said(count: int) -> list[str]:
    return sorted(f"you said: q{i}" for i in range(count))


def test_submitted_here_collected_there(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        requests = make_requests(25)
        ids = await bench.runner().submit(requests)
        assert len(ids) == 3 == len(bench.server.batches)
        elsewhere = bench.runner()
        assert elsewhere.pending_keys() == {r.key for r in requests}
        assert await elsewhere.submit(requests) == []
        seen: list[BatchProgress] = []
        done = await bench.wait(elsewhere, seen)
        assert done.done and len(bench.results) == 25
        assert [p.open_requests for p in seen] == [25, 25, 0]
        assert bench.texts() == said(25)
        assert all(r.completion is not None and r.completion.batched for r in bench.results)
        assert elsewhere.pending_keys() == set()
        assert bench.events() == ["submitting", "submitted"] * 3 + ["collected"] * 3
        # 10, then 15 more: q0-q9 have 2 characters (0 tokens), q10-q24 have 3 (0 tokens); the answers have
        # 12 and 13 characters, 3 tokens each: 25 * 3 tokens * 15 dollars per million, half of it
        assert bench.server.cost_usd == pytest.approx(25 * 3 * 15e-6 / 2)
        assert {r.completion.usage for r in bench.results if r.completion} == {
            Usage(input_tokens=0, output_tokens=3)
        }

    run(work, tmp_path, server=FakeAnthropic(polls=2), max_requests=10)


def test_batches_are_split_by_bytes(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        assert len(await bench.runner().submit(make_requests(9))) == 3

    # one request is 1024 bytes of envelope and twice its text of 2 bytes
    run(work, tmp_path, max_bytes=3 * 1028 + 1)


def test_answer_lost_after_the_server_took_it(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Cut(after=True))
        runner = bench.runner()
        assert await runner.submit(make_requests(4)) == []
        assert bench.events() == ["submitting", "lost"]
        assert len(runner.pending_keys()) == 4
        assert await runner.submit(make_requests(4)) == []  # pending, so not again
        done = await bench.wait(runner)
        assert done.done and bench.texts() == said(4)
        assert len(bench.server.batches) == 1 and max(bench.server.accepted_ids.values()) == 1
        assert bench.events() == ["submitting", "lost", "submitted", "collected"]

    run(work, tmp_path, server=FakeAnthropic(polls=0))


def test_an_orphan_is_pending_until_it_ends(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Cut(after=True))
        await bench.runner().submit(make_requests(4))
        (orphan,) = bench.server.batches.values()
        runner = bench.runner()
        for _ in range(3):
            progress = await runner.collect_ready(bench.results.append)
            assert (progress.unsettled, progress.open_requests, progress.open_batches) == (1, 4, ())
            await bench.clock.sleep(10_000)
        assert bench.events() == ["submitting", "lost"]
        orphan.polls_left = 0
        assert (await bench.wait(runner)).done
        assert bench.texts() == said(4) and len(bench.server.batches) == 1

    run(work, tmp_path, server=FakeAnthropic(polls=99))


def test_a_foreign_batch_of_the_same_size_is_not_adopted(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Cut())
        runner = bench.runner()
        assert await runner.submit(make_requests(4)) == []
        strangers = [Request("judge", "claude-test-3-7", (Message("user", f"other {i}"),)) for i in range(4)]
        other = AnthropicBatches(bench.backends[0]._spec)
        bench.backends.append(other)
        await other.submit(strangers)
        assert (await bench.wait(runner)).done
        assert bench.events() == ["submitting", "lost", "abandoned"]
        assert not bench.results and runner.pending_keys() == set()
        assert len(await runner.submit(make_requests(4))) == 1
        await bench.wait(runner)
        assert bench.texts() == said(4) and max(bench.server.accepted_ids.values()) == 1

    run(work, tmp_path)


def test_a_listing_that_lags_behind(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.hidden_lists = 3
        bench.server.fail("create", Cut(after=True))
        runner = bench.runner()
        await runner.submit(make_requests(4))
        assert (await bench.wait(runner)).done
        assert bench.server.calls["list"] == 4
        assert bench.texts() == said(4) and len(bench.server.batches) == 1

    run(work, tmp_path)


def test_clocks_may_differ(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.skew_s = -200.0
        bench.server.fail("create", Cut(after=True))
        runner = bench.runner()
        await runner.submit(make_requests(2))
        assert (await bench.wait(runner)).done
        assert bench.texts() == said(2) and len(bench.server.batches) == 1

    run(work, tmp_path)


def test_too_many_is_tried_again_and_what_is_refused_is_not(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        began = bench.clock.now
        bench.server.fail("create", Status(429, "rate_limit_error", headers={"retry-after": "40"}))
        assert len(await bench.runner().submit(make_requests(2))) == 1
        assert bench.clock.now == began + 40
        assert bench.events() == ["submitting", "abandoned", "submitting", "submitted"]
        more = make_requests(4)[2:]
        bench.server.fail("create", Status(413, "request_too_large"))
        with pytest.raises(RefusedError, match="413"):
            await bench.runner().submit(more)
        bench.server.fail("create", Status(401, "authentication_error"))
        with pytest.raises(AuthError):
            await bench.runner().submit(more)
        bench.server.fail("create", *[Status(429, "rate_limit_error")] * 6)
        with pytest.raises(NotAcceptedError):
            await bench.runner().submit(more)
        assert len(bench.runner().pending_keys()) == 2 and len(bench.server.batches) == 1

    run(work, tmp_path)


def test_overload_leaves_the_outcome_open(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Status(529, "overloaded_error"), Status(500))
        runner = bench.runner()
        requests, batches = make_requests(3), 0
        for _ in range(3):
            batches += len(await runner.submit(requests))
            assert (await bench.wait(runner)).done
        assert batches == 1 and bench.texts() == said(3)
        assert max(bench.server.accepted_ids.values()) == 1

    run(work, tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.server.stop()
        with pytest.raises(NotAcceptedError, match="failed: ClientConnectorError"):
            await bench.runner().submit(make_requests(1))
        assert set(bench.events()) == {"submitting", "abandoned"}

    run(work, tmp_path)


def test_every_kind_of_result(tmp_path: Path) -> None:
    kinds = {
        0: "succeeded",
        1: "expired",
        2: "canceled",
        3: "errored:invalid_request_error",
        4: "errored:api_error",
        5: "errored:overloaded_error",
        6: "errored:not_found_error",
        7: "errored:new_kind",
    }

    async def work(bench: Bench) -> None:
        requests = make_requests(8)
        runner = bench.runner()
        await runner.submit(requests)
        await bench.wait(runner)
        assert len(bench.results) == 8
        got = {r.key: r for r in bench.results}
        assert [type(got[r.key].error).__name__ for r in requests] == [
            "NoneType",
            *["TransientError"] * 2,
            "RefusedError",
            *["TransientError"] * 4,
        ]
        assert [got[r.key].completion is None for r in requests] == [False] + [True] * 7
        # expired and canceled ones may be asked again
        assert runner.pending_keys() == set()
        bench.server.outcome = lambda _key, _index: "succeeded"
        assert len(await runner.submit(requests[1:3])) == 1

    run(work, tmp_path, server=FakeAnthropic(outcome=lambda _key, index: kinds[index]))


@pytest.mark.parametrize(
    "cut",
    [
        CutStream(3),
        CutStream(3, torn=True),
        CutStream(3, clean=True),
        CutStream(3, clean=True, torn=True),
        CutStream(0),
        Cut(),
        Status(500),
        Status(429),
    ],
)
def test_results_cut_off_are_downloaded_again(cut: Any, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        await runner.submit(make_requests(6))
        # a download that gets no answer on a connection in use is asked for once more, on a new one
        bench.server.fail("results", *[cut] * (2 if isinstance(cut, Cut) else 1))
        first = await runner.collect_ready(bench.results.append)
        assert first.trouble and len(first.open_batches) == 1
        # a connection that breaks may take lines with it that were under way
        assert len(bench.results) <= (cut.lines if isinstance(cut, CutStream) else 0)
        assert (await bench.wait(runner)).done
        assert len(bench.results) == 6 and bench.texts() == said(6)
        assert len(bench.server.batches) == 1

    run(work, tmp_path)


def test_trouble_while_polling(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        await runner.submit(make_requests(2))
        bench.server.fail("retrieve", Cut(), Status(529), Status(503))
        done = await bench.wait(runner)
        assert done.done and bench.texts() == said(2)

    run(work, tmp_path)


async def one_of_two_gone(bench: Any, runner: BatchRunner) -> list[str]:
    """Submit two batches and take the first from the server: it is named, and the other one is collected."""
    gone, kept = await runner.submit(make_requests(4))
    del bench.server.batches[gone]
    with pytest.raises(BatchGoneError, match=f"{gone} is not on the server"):
        await bench.wait(runner)
    assert len(bench.results) == 2, "the other batch was collected all the same"
    return [gone, kept]


def test_a_deleted_batch_is_named_and_can_be_given_up(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        gone, kept = await one_of_two_gone(bench, runner)
        with pytest.raises(RefusedError, match="no open batch"):
            runner.abandon(kept, why="?")
        assert runner.abandon(gone, why="deleted by hand") == 2
        await runner.submit([r for r in make_requests(4) if r.key not in {x.key for x in bench.results}])
        assert (await bench.wait(runner)).done
        assert bench.texts() == said(4)

    run(work, tmp_path, max_requests=2)


def test_a_batch_that_is_canceled_at_the_server(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        (batch_id,) = await runner.submit(make_requests(2))
        async with anthropic.AsyncAnthropic(api_key="k", base_url=bench.server.url) as client:
            await client.messages.batches.cancel(batch_id)  # as at the console
        assert (await bench.wait(runner)).done
        assert [type(r.error) for r in bench.results] == [TransientError] * 2

    run(work, tmp_path, server=FakeAnthropic(polls=50))


def test_listing_goes_back_over_pages(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        await runner.submit(make_requests(230))
        listing = await bench.backends[0].listing(created_after_s=0.0)
        assert [b.total for b in listing] == [1] * 230 and bench.server.calls["list"] == 3
        newest = max(b.created_at_s for b in listing)
        assert all(b.created_at_s >= newest for b in await bench.backends[0].listing(created_after_s=newest))

    run(work, tmp_path, max_requests=1)


def test_what_a_batch_cannot_carry(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.runner()
        backend, (one,) = bench.backends[0], make_requests(1)
        for requests in ([], [one, one]):
            with pytest.raises(RefusedError, match="400"):
                await backend.submit(requests)
        with pytest.raises(RefusedError, match="no batch id"):
            await backend.poll("../messages")
        with pytest.raises(BatchGoneError):
            await backend.poll("msgbatch_9999")

    run(work, tmp_path)


def test_the_prompt_is_cached_in_batches_too(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        system = Message("system", "s" * 400)
        ask = [Request("judge", "claude-test-3-7", (system, Message("user", f"q{i}"))) for i in range(3)]
        runner = bench.runner()
        await runner.submit(ask)
        await bench.wait(runner)
        usages = [r.completion.usage for r in bench.results if r.completion]
        assert sum(u.cache_write_tokens for u in usages) == 100
        assert sum(u.cache_read_tokens for u in usages) == 200

    run(work, tmp_path)


# ---- processes that die


async def spawn(server: FakeAnthropic, folder: Path, count: int, *extra: str) -> asyncio.subprocess.Process:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = (sys.executable, "-m", "tests.fakes.anthropic_worker", server.url, str(folder), str(count))
    return await asyncio.create_subprocess_exec(*command, *extra, env=env)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the server has no such event
            await asyncio.sleep(0.02)


def check_answers(server: FakeAnthropic, folder: Path, count: int) -> None:
    lines = (folder / "answers.jsonl").read_text().splitlines()
    assert len(lines) == count == len(set(lines))
    assert set(server.accepted_ids.values()) == {1}


@pytest.mark.parametrize(
    "moment",
    [Slow(30.0, after=True), Slow(1.0)],
    ids=["the server has taken it", "the server takes it after the death"],
)
def test_kill_between_accept_and_record(moment: Slow, tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeAnthropic(polls=2) as server:
            server.fail("create", moment)
            first = await spawn(server, tmp_path, 20)
            await until(
                lambda: server.calls["create"] == 1 and (not moment.after or len(server.batches) == 1)
            )
            first.kill()
            await first.wait()
            assert [e["event"] for e in JsonlLog(tmp_path / "log.jsonl").batch_events()] == ["submitting"]
            second = await spawn(server, tmp_path, 20)
            assert await second.wait() == 0
            assert len(server.batches) == 1
            check_answers(server, tmp_path, 20)

    asyncio.run(main())


def test_kill_while_collecting(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeAnthropic() as server:
            for _ in range(2):
                dying = await spawn(server, tmp_path, 120, "--die-after", "30")
                assert await dying.wait() == -9
            last = await spawn(server, tmp_path, 120)
            assert await last.wait() == 0
            assert len(server.batches) == 3
            check_answers(server, tmp_path, 120)

    asyncio.run(main())


def test_two_processes_share_one_log(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeAnthropic(polls=20) as server:
            server.latency_s = 0.05
            both = [await spawn(server, tmp_path, 120) for _ in range(2)]
            assert [await p.wait() for p in both] == [0, 0]
            assert set(server.accepted_ids.values()) == {1}
            texts = set((tmp_path / "answers.jsonl").read_text().splitlines())
            assert len(texts) == 120

    asyncio.run(main())
