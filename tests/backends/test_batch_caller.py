"""Batches over one journal: paid once whoever submits, and money is freed when a server refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import pytest

from videop2r_data.backends.batches import MAX_ROUNDS, BatchCaller
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.money import Money
from videop2r_data.errors import RefusedError, StoppedError, TransientError
from videop2r_data.schemas.calls import (
    BatchInfo,
    BatchResult,
    Completion,
    Message,
    Request,
    SamplingParams,
    Usage,
)
from videop2r_data.schemas.judges import Price

PRICE = Price(input=2.0, output=20.0)
"""At half of it a call of 100 output tokens holds a little over 0.001 USD."""


def ask(i: int) -> Request:
    return Request("judge", "m", (Message("user", f"q{i}"),), SamplingParams(max_tokens=100))


class Server:
    """Ends every batch at once, with an answer or the given error for each request."""

    usage = Usage(input_tokens=10, output_tokens=10)

    def __init__(self, error: Exception | None = None, refuse: Exception | None = None) -> None:
        self.error, self.refuse = error, refuse
        self.batches: dict[str, list[str]] = {}
        self.before: Callable[[], object] | None = None

    async def close(self) -> None: ...

    async def submit(self, requests: Sequence[Request]) -> str:
        if self.refuse is not None:
            raise self.refuse
        await asyncio.sleep(0.005)
        name = f"b{len(self.batches)}"
        self.batches[name] = [r.key for r in requests]
        return name

    async def poll(self, batch_id: str) -> BatchInfo:
        return BatchInfo(batch_id, "ended", len(self.batches[batch_id]), 0.0)

    async def listing(self, *, created_after_s: float) -> list[BatchInfo]:
        return [await self.poll(name) for name in self.batches]

    async def collect(self, batch_id: str) -> AsyncGenerator[BatchResult, None]:
        for key in self.batches[batch_id]:
            done = Completion(text="Yes", finish_reason="stop", model="m-1", usage=self.usage, batched=True)
            yield BatchResult(key, None if self.error else done, self.error)


def caller(journal: Journal, server: Server, *, max_cost: float | None = None) -> BatchCaller:
    return BatchCaller(server, journal=journal, money=Money(journal, max_cost), price=PRICE, poll_s=0.001)


async def all_of(one: BatchCaller, n: int) -> list[str]:
    """What each of n requests is answered now; "" if it is not."""
    found = [await one.ask(ask(i)) for i in range(n)]
    return [a.completion.text if a and a.completion else "" for a in found]


async def collect(one: BatchCaller) -> bool:
    return await one.collect(wait=True, tell=lambda _: None)


def test_asked_flushed_collected_and_found(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server()
        with Journal(tmp_path) as journal:
            one = caller(journal, server)
            assert await all_of(one, 3) == ["", "", ""]
            await one.flush()
            assert journal.spending.open_nusd > 3 * 1_000_000
            assert await collect(one)
            assert await all_of(one, 3) == ["Yes"] * 3
            # 10 tokens at 1 USD and 10 at 10 USD per million, three times
            assert journal.spending.finished_nusd == 3 * (10 * 1_000 + 10 * 10_000)
            assert journal.spending.open_nusd == 0 and len(server.batches) == 1

    asyncio.run(main())


def test_two_processes_with_one_journal_submit_once(tmp_path: Path) -> None:
    """Both opened the journal before either submitted."""

    async def main() -> None:
        server = Server()
        with Journal(tmp_path) as first, Journal(tmp_path) as second:
            one, two = caller(first, server), caller(second, server)
            await all_of(one, 4)
            await all_of(two, 4)
            await one.flush()
            await two.flush()
            assert [len(keys) for keys in server.batches.values()] == [4]
            assert await collect(one)
            assert await collect(two)
            assert await all_of(one, 4) == ["Yes"] * 4
            assert await all_of(two, 4) == ["Yes"] * 4, "the other one's answers are seen"
            await two.flush()
            assert len(server.batches) == 1

    asyncio.run(main())
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.open_nusd == 0 and journal.repeats == 0


def test_two_processes_that_collect_at_once_count_an_answer_once(tmp_path: Path) -> None:
    class Slowly(Server):
        async def collect(self, batch_id: str) -> AsyncGenerator[BatchResult, None]:
            async for result in super().collect(batch_id):
                await asyncio.sleep(0.002)
                yield result

    async def main() -> None:
        server = Slowly()
        with Journal(tmp_path) as first, Journal(tmp_path) as second:
            one = caller(first, server)
            await all_of(one, 20)
            await one.flush()
            two = caller(second, server)
            assert all(await asyncio.gather(collect(one), collect(two)))
            assert await all_of(one, 20) == await all_of(two, 20) == ["Yes"] * 20
            assert one.made + two.made == 20

    asyncio.run(main())
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.repeats == 0 and journal.spending.total_nusd == 20 * (10 * 1_000 + 10 * 10_000)


def test_a_batch_that_another_process_collects_between_look_and_lock_is_counted_once(tmp_path: Path) -> None:
    class Late(Server):
        first: BatchCaller

        async def poll(self, batch_id: str) -> BatchInfo:
            found = await super().poll(batch_id)
            assert await collect(self.first)
            return found

    async def main() -> None:
        server, late = Server(), Late()
        late.batches = server.batches
        with Journal(tmp_path) as first, Journal(tmp_path) as second:
            late.first = one = caller(first, server)
            await all_of(one, 3)
            await one.flush()
            two = caller(second, late)
            assert await collect(two) and two.made == 0 and one.made == 3

    asyncio.run(main())
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.repeats == 0 and journal.spending.total_nusd == 3 * (10 * 1_000 + 10 * 10_000)


@pytest.mark.parametrize("lost", [False, True])
def test_a_request_that_another_process_collected_in_vain_is_held_again(tmp_path: Path, lost: bool) -> None:
    async def main() -> None:
        server = Server(error=TransientError("expired", maybe_billed=lost))
        with Journal(tmp_path) as first, Journal(tmp_path) as second:
            one = caller(first, server)
            await all_of(one, 3)
            await one.flush()
            held = first.spending.open_nusd
            assert await collect(caller(second, server)) and await collect(one)
            assert first.spending.open_nusd == (held if lost else 0)
            await all_of(one, 3)
            await one.flush()
            assert len(server.batches) == 2 and first.spending.open_nusd == (2 * held if lost else held)

    asyncio.run(main())


def test_what_a_server_never_took_is_not_held_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(refuse=TransientError("cut off", maybe_billed=True))
        with Journal(tmp_path) as journal:
            one = caller(journal, server)
            await all_of(one, 3)
            await one.flush()
            assert journal.spending.open_nusd > 0 and len(one.pending) == 3
        with Journal(tmp_path) as journal:
            two = caller(journal, server)
            two._runner._settler.settle_s = 0.0
            assert await collect(two) and not two.pending
            assert journal.spending.total_nusd == 0

    asyncio.run(main())


def test_a_refusal_frees_its_money_in_whichever_segment_it_stands(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(error=RefusedError("no"))
        with Journal(tmp_path) as first, Journal(tmp_path) as second:
            assert first.segment < second.segment
            two = caller(second, server)
            await all_of(two, 3)
            await two.flush()
            assert await collect(caller(first, server)) and first.spending.total_nusd == 0

    asyncio.run(main())
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.total_nusd == 0


@pytest.mark.parametrize("error", [RefusedError("too large")])
def test_a_refused_batch_frees_its_money(tmp_path: Path, error: Exception) -> None:
    async def main() -> None:
        with Journal(tmp_path) as journal:
            one = caller(journal, Server(refuse=error))
            await all_of(one, 3)
            with pytest.raises(RefusedError):
                await one.flush()
            assert journal.spending.total_nusd == 0

    asyncio.run(main())
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.total_nusd == 0


def test_answers_whose_tokens_nobody_counted_cost_what_was_written_ahead_by_another_process(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        server = Server()
        server.usage = Usage()
        with Journal(tmp_path) as journal:
            one = caller(journal, server)
            await all_of(one, 3)
            await one.flush()
            held = journal.spending.open_nusd
        with Journal(tmp_path) as journal:
            one = caller(journal, server)
            assert await collect(one) and await all_of(one, 3) == ["Yes"] * 3
            assert (journal.spending.finished_nusd, journal.spending.open_nusd) == (held, 0)

    asyncio.run(main())


def test_what_fits_the_budget_goes_out_and_the_rest_when_it_has_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        server, limit = Server(), 0.0035
        with Journal(tmp_path) as journal:
            one = caller(journal, server, max_cost=limit)
            while "" in await all_of(one, 10):
                await one.flush()
                assert journal.spending.total_nusd <= limit * 1e9
                assert one.pending and await collect(one)
            assert [len(keys) for keys in server.batches.values()] == [3, 2, 2, 2, 1]
            # a call of which the limit leaves no room, and no batch that could make some
            last = caller(journal, server, max_cost=journal.spending.total_nusd / 1e9)
            await last.ask(ask(10))
            await last.flush()
            assert last.short and not last.pending and len(server.batches) == 5

    asyncio.run(main())


def test_requests_that_no_batch_answers_are_given_up_and_cost_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(error=TransientError("expired"))
        with Journal(tmp_path) as journal:
            one = caller(journal, server)
            for _ in range(MAX_ROUNDS):
                assert await all_of(one, 2) == ["", ""]
                await one.flush()
                assert await collect(one)
            with pytest.raises(TransientError, match="ended without an answer: expired"):
                await one.ask(ask(0))
            assert len(server.batches) == MAX_ROUNDS and journal.spending.total_nusd == 0

    asyncio.run(main())


def test_a_refused_request_is_not_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        server = Server(error=RefusedError("half \ud800"))
        with Journal(tmp_path) as journal:
            one = caller(journal, server)
            await all_of(one, 1)
            await one.flush()
            assert await collect(one)
            found = await one.ask(ask(0))
            assert found is not None and found.completion is None and found.refused == "half ?"

    asyncio.run(main())


def test_what_may_have_been_billed_stays_on_the_bill(tmp_path: Path) -> None:
    """A request without a line in the results, or with one that cannot be read."""

    async def main() -> None:
        server = Server(error=TransientError("ended without an answer", maybe_billed=True))
        with Journal(tmp_path) as journal:
            one = caller(journal, server)
            await all_of(one, 2)
            await one.flush()
            held = journal.spending.open_nusd
            assert await collect(one) and journal.spending.open_nusd == held > 0
            server.error = None
            await all_of(one, 2)
            await one.flush()
            assert await collect(one) and await all_of(one, 2) == ["Yes"] * 2
            assert journal.spending.open_nusd == held and journal.spending.finished_nusd > 0

    asyncio.run(main())


def test_looks_at_the_server_grow_further_apart_until_the_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Busy(Server):
        async def poll(self, batch_id: str) -> BatchInfo:
            return BatchInfo(batch_id, "in_progress", len(self.batches[batch_id]), 0.0)

    async def main() -> None:
        with Journal(tmp_path) as journal:
            one = BatchCaller(Busy(), journal=journal, money=Money(journal, None), price=PRICE)

            async def rest(seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 9:
                    one.stop()
                    raise StoppedError("asked to stop")

            monkeypatch.setattr(one, "_rest", rest)
            await all_of(one, 1)
            await one.flush()
            assert not await collect(one)

    asyncio.run(main())
    assert pauses[:3] == [15.0, 22.5, 33.75] and pauses[-2:] == [15.0 * 1.5**7, 300.0]


def test_a_share_that_hands_a_batch_over_is_waited_for(tmp_path: Path) -> None:
    """And what it handed over is not submitted a second time."""

    async def main() -> None:
        server = Server()
        with Journal(tmp_path) as first, Journal(tmp_path) as second:
            one, two = caller(first, server), caller(second, server)
            await all_of(one, 4)
            await all_of(two, 6)
            await asyncio.gather(one.flush(), two.flush())
            assert sorted(len(keys) for keys in server.batches.values()) == [2, 4]
            assert await collect(one) and await collect(two)
            assert await all_of(two, 6) == ["Yes"] * 6

    asyncio.run(main())
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.open_nusd == 0 and journal.repeats == 0
