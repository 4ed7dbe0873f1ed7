"""The runner over a server in memory whose clock, listing and races are ours to set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends import batch_log
from videop2r_data.backends.batch_log import (
    BatchProgress,
    Event,
    abandoned,
    collected,
    fold,
    open_keys,
    request_bytes,
    split,
    submitted,
    submitting,
)
from videop2r_data.backends.batches import BatchRunner
from videop2r_data.errors import BudgetError, JournalError, TransientError
from videop2r_data.schemas.calls import BatchInfo, BatchResult, Completion, Message, Request


def request(text: str) -> Request:
    return Request("judge", "m", (Message("user", text),))


class Held:
    """The lock of a log in memory."""

    def __init__(self, log: Memory) -> None:
        self.log = log
        log.locked = True

    def release(self) -> None:
        self.log.locked = False


class Memory:
    """A log in memory; `locked`: some process submits or settles."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.locked = False

    def batch_events(self) -> list[Event]:
        return list(self.events)

    def append_batch_event(self, event: Event) -> None:
        self.events.append(event)

    def lock_batches(self) -> Held | None:
        return None if self.locked else Held(self)


class Server:
    """A batch server; `lose` takes the next batch and hides that, `deaf` does not take it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.batches = clock, dict[str, list[str]]()
        self.made_at: dict[str, float] = {}
        self.lose = self.deaf = False
        self.on_submit: Callable[[], None] | None = None

    async def close(self) -> None: ...

    async def submit(self, requests: Sequence[Request]) -> str:
        if self.on_submit is not None:
            self.on_submit()
        if self.deaf:
            raise TransientError("cut")
        batch_id = f"b{len(self.batches)}"
        self.batches[batch_id] = [r.key for r in requests]
        self.made_at[batch_id] = self.clock()
        if self.lose:
            raise TransientError("cut")
        return batch_id

    async def poll(self, batch_id: str) -> BatchInfo:
        return BatchInfo(batch_id, "ended", len(self.batches[batch_id]), self.made_at[batch_id])

    async def listing(self, *, created_after_s: float) -> list[BatchInfo]:
        infos = [await self.poll(b) for b in self.batches]
        return [i for i in infos if i.created_at_s >= created_after_s]

    async def collect(self, batch_id: str) -> AsyncGenerator[BatchResult, None]:
        for key in self.batches[batch_id]:
            yield BatchResult(key, Completion(text=key, finish_reason="stop", model="m"), None)


class World:
    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.log, self.results = Memory(), list[BatchResult]()
        self.server = Server(lambda: self.now)

    def runner(self) -> BatchRunner:
        return BatchRunner(self.server, self.log, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def status(self) -> list[str]:
        return [t.status for t in fold(self.log.events).values()]


async def until_done(runner: BatchRunner, world: World, timeout_s: float = 1e9) -> BatchProgress:
    end = world.now + timeout_s
    while not (now := await runner.collect_ready(world.results.append)).done and world.now < end:
        await world.sleep(min(15.0, end - world.now))
    return now


def test_a_share_that_submits_is_respected_and_its_intent_settled_when_it_has_ended() -> None:
    """The lock of the log says that its process lives; nothing is given up before that is over."""
    world, one = World(), request("a")
    world.log.events.append(submitting([one.key], at=world.now, deadline_s=600))
    world.log.locked = True

    async def main() -> None:
        runner = world.runner()
        assert await runner.submit([one]) == [], "pending, so not again"
        done = await until_done(runner, world, timeout_s=5000.0)
        assert (done.unsettled, world.status()) == (1, ["submitting"])
        world.log.locked = False  # it was killed
        # the server has 120 s to list what it took
        done = await until_done(runner, world, timeout_s=119.0)
        assert (done.unsettled, world.status()) == (1, ["submitting"])
        done = await until_done(runner, world, timeout_s=100.0)
        assert (done.done, world.status()) == (True, ["abandoned"])
        assert await runner.submit([one]) == ["b0"]

    asyncio.run(main())


def test_what_another_share_submits_while_the_lock_is_waited_for_is_left_to_it() -> None:
    world, one, two = World(), request("a"), request("b")
    world.log.locked = True

    async def sleep(_seconds: float) -> None:
        """The share that has the lock hands over its batch, and frees it."""
        event = submitting([one.key], at=world.now, deadline_s=600)
        world.log.events += [event, submitted(event["ticket"], "x", adopted=False)]
        world.log.locked = False

    admitted: list[str] = []
    runner = BatchRunner(world.server, world.log, clock=lambda: world.now, sleep=sleep)
    found = asyncio.run(runner.submit([one, two], admit=lambda r: admitted.append(r.key)))
    assert found == ["b0"] and world.server.batches == {"b0": [two.key]} and admitted == [two.key]


def test_what_another_share_has_submitted_and_collected_meanwhile_is_not_asked_again() -> None:
    world, one = World(), request("a")
    world.log.locked = True
    answered = set[str]()

    async def sleep(_seconds: float) -> None:
        event = submitting([one.key], at=world.now, deadline_s=600)
        done = collected(event["ticket"], "x", 1)
        world.log.events += [event, submitted(event["ticket"], "x", adopted=False), done]
        answered.add(one.key)
        world.log.locked = False

    runner = BatchRunner(world.server, world.log, clock=lambda: world.now, sleep=sleep)
    assert asyncio.run(runner.submit([one], answered=answered.__contains__)) == []
    assert not world.server.batches and not world.log.locked


def test_a_budget_that_is_used_up_ends_the_submission_after_what_was_admitted() -> None:
    world, requests = World(), [request(str(i)) for i in range(5)]
    left = 3

    def admit(_request: Request) -> None:
        nonlocal left
        if not left:
            raise BudgetError("over")
        left -= 1

    with pytest.raises(BudgetError):
        asyncio.run(world.runner().submit(requests, admit=admit))
    assert world.server.batches == {"b0": [r.key for r in requests[:3]]} and not world.log.locked


def test_events_of_earlier_versions_are_read() -> None:
    """Their tickets were counted, and they named the process that wrote them."""
    event = {
        "event": "submitting",
        "ticket": "0123",
        "keys_digest": "f" * 64,
        "count": 1,
        "keys": ["a"],
        "at": 5.0,
        "deadline_at": 605.0,
        "writer": "0a1b2c3d4e5f-77-12345",
        "scope": "",
    }
    assert open_keys(fold([event])) == {"a"}
    assert set(event) == set(submitting(["a"], at=5.0, deadline_s=600)), "nor does a field go"


def test_another_runner_of_this_process_does_not_give_up_a_call_in_flight() -> None:
    world = World()

    async def main() -> None:
        going, over = asyncio.Event(), asyncio.Event()
        submit = world.server.submit

        async def slow(requests: Sequence[Request]) -> str:
            going.set()
            await over.wait()
            return await submit(requests)

        world.server.submit = slow  # type: ignore[method-assign]
        call = asyncio.create_task(world.runner().submit([request("a")]))
        await going.wait()
        await until_done(world.runner(), world, timeout_s=5000.0)
        assert world.status() == ["submitting"]
        over.set()
        assert await call == ["b0"]

    asyncio.run(main())


def test_the_intent_is_durable_before_the_call_and_the_id_right_after() -> None:
    world = World()
    seen: list[list[str]] = []
    world.server.on_submit = lambda: seen.append([e["event"] for e in world.log.events])
    asyncio.run(world.runner().submit([request("a"), request("a"), request("b")]))
    assert seen == [["submitting"]]
    assert [e["event"] for e in world.log.events] == ["submitting", "submitted"]
    assert world.log.events[0]["count"] == 2 == len(world.log.events[0]["keys"])


def test_cancelled_in_the_call() -> None:
    world = World()

    async def main() -> None:
        def cancel() -> None:
            world.server.lose = False
            raise asyncio.CancelledError

        world.server.on_submit = cancel
        with pytest.raises(asyncio.CancelledError):
            await world.runner().submit([request("a")])
        assert world.status() == ["lost"]

    asyncio.run(main())


@given(
    outcomes=st.lists(st.sampled_from(["taken", "lost", "deaf"]), min_size=1, max_size=6),
    restart=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_whatever_is_cut_off_each_request_is_taken_and_answered_once(
    outcomes: list[str], restart: bool
) -> None:
    world, requests = World(), [request(str(i)) for i in range(5)]

    async def main() -> None:
        runner = world.runner()
        for outcome in [*outcomes, "taken"]:
            world.server.lose, world.server.deaf = outcome == "lost", outcome == "deaf"
            runner = world.runner() if restart else runner
            done = {r.key for r in world.results}
            await runner.submit([r for r in requests if r.key not in done])
            assert (await until_done(runner, world)).done

    asyncio.run(main())
    assert sorted(r.key for r in world.results) == sorted(r.key for r in requests)
    assert len(world.server.batches) == 1


LIFE: list[Event] = [
    submitting(["a", "b"], at=1.0, deadline_s=10.0),
    {**submitting(["c"], at=2.0, deadline_s=10.0), "ticket": "t2"},
]
T1, T2 = LIFE[0]["ticket"], "t2"
LIFE += [
    {"event": "lost", "ticket": T1, "at": 3.0, "why": "cut"},
    abandoned(T1, None, "another machine gave it up"),
    submitted(T1, "b1", adopted=True),
    submitted(T2, "b2", adopted=False),
    abandoned(T2, "b2", "deleted by hand"),
    {"event": "something new", "ticket": T2},
]


@given(st.permutations(LIFE))
@settings(deadline=None, max_examples=100)
def test_the_state_does_not_depend_on_the_order_of_events(events: list[Event]) -> None:
    tickets = fold(events)
    assert {t.ticket: (t.status, t.batch_id) for t in tickets.values()} == {
        T1: ("submitted", "b1"),
        T2: ("abandoned", "b2"),
    }
    assert open_keys(tickets) == {"a", "b"}


@pytest.mark.parametrize("event", [{"event": "submitted", "ticket": "?"}, {"event": "submitting"}, {}])
def test_a_damaged_log_is_named(event: Event) -> None:
    with pytest.raises(JournalError, match="damaged or refers to an unknown ticket"):
        fold([event])


def test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"a": 5, "b": 5, "c": 9, "d": 1, "e": 1}
    monkeypatch.setattr(batch_log, "request_bytes", lambda r: sizes[r.messages[0].text])

    def chunks(max_requests: int, max_bytes: int) -> list[str]:
        made = split([request(t) for t in sizes], max_requests=max_requests, max_bytes=max_bytes)
        return ["".join(r.messages[0].text for r in chunk) for chunk in made]

    assert chunks(10, 10) == ["ab", "cd", "e"]
    assert chunks(2, 100) == ["ab", "cd", "e"]
    assert chunks(10, 4) == ["a", "b", "c", "de"]
    assert list(split([], max_requests=1, max_bytes=1)) == []
    assert request_bytes(request("é")) == 1024 + 4
