"""The runner over a server in memory whose clock, listing and races are ours to set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends import batch_log as batch_events
from videop2r_data.backends.batch_log import (
    Event,
    abandoned,
    fold,
    open_keys,
    request_bytes,
    split,
    submitted,
    submitting,
    writer_alive,
    writer_id,
)
from videop2r_data.backends.batches import BatchRunner
from videop2r_data.errors import JournalError, TransientError
from videop2r_data.schemas.calls import BatchInfo, BatchResult, Completion, Message, Request


def request(text: str) -> Request:
    return Request("judge", "m", (Message("user", text),))


class Memory:
    """A log in memory; `before_append` lets another process write first."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.before_append: Callable[[Event], None] | None = None

    def batch_events(self) -> list[Event]:
        return list(self.events)

    def append_batch_event(self, event: Event) -> None:
        hook, self.before_append = self.before_append, None
        if hook is not None:
            hook(event)
        self.events.append(event)


class Server:
    """A batch server; `lose` takes the next batch and hides that, `deaf` does not take it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.batches = clock, dict[str, list[str]]()
        self.made_at: dict[str, float] = {}
        self.lose = self.deaf = False
        self.on_submit: Callable[[], None] | None = None

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

    async def collect(self, batch_id: str) -> AsyncIterator[BatchResult]:
        for key in self.batches[batch_id]:
            yield BatchResult(key, Completion(text=key, finish_reason="stop", model="m"), None)


class World:
    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.log, self.results = Memory(), list[BatchResult]()
        self.server = Server(lambda: self.now)

    def runner(self) -> BatchRunner:
        async def sleep(seconds: float) -> None:
            self.now += seconds

        return BatchRunner(self.server, self.log, clock=lambda: self.now, sleep=sleep)

    def status(self) -> list[str]:
        return [t.status for t in fold(self.log.events).values()]


def foreign_intent(world: World, keys: Sequence[str], writer: str = "othermachine-1-1") -> Event:
    event = submitting(keys, at=world.now, deadline_s=600, sequence=0)
    return {**event, "writer": writer, "ticket": "t" + writer}


def test_a_live_writer_elsewhere_is_respected_until_its_call_must_be_over() -> None:
    world, one = World(), request("a")
    world.log.events.append(foreign_intent(world, [one.key]))

    async def main() -> None:
        runner = world.runner()
        assert await runner.submit([one]) == []
        # call 600 s, clocks 300 s apart, listing 120 s: nothing is given up before 1020 s are over
        done = await runner.wait(world.results.append, timeout_s=1000.0)
        assert (done.unsettled, world.status()) == (1, ["submitting"])
        done = await runner.wait(world.results.append, timeout_s=1000.0)
        assert (done.done, world.status()) == (True, ["abandoned"])
        assert await runner.submit([one]) == ["b0"]

    asyncio.run(main())


def test_a_writer_that_wrote_at_the_same_time_wins() -> None:
    world, one, two = World(), request("a"), request("b")
    rival = foreign_intent(world, [one.key])
    world.log.before_append = lambda _event: world.log.events.append(rival)

    async def main() -> None:
        runner = world.runner()
        # the first intent gives way; the second holds what is left
        assert await runner.submit([one, two]) == ["b0"]
        assert world.server.batches == {"b0": [two.key]}
        assert world.status() == ["submitting", "abandoned", "submitted"]

    asyncio.run(main())


def test_a_rival_that_is_already_through_is_seen_too() -> None:
    world, one = World(), request("a")
    rival = foreign_intent(world, [one.key])
    world.server.batches["x"], world.server.made_at["x"] = [one.key], world.now
    answered = set[str]()

    def whole_life(_event: Event) -> None:
        collected = {"event": "collected", "ticket": rival["ticket"], "batch_id": "x", "answered": 1}
        world.log.events.extend([rival, submitted(rival["ticket"], "x", adopted=False), collected])
        answered.add(one.key)

    world.log.before_append = whole_life
    assert asyncio.run(world.runner().submit([one], answered=answered.__contains__)) == []
    assert list(world.server.batches) == ["x"]


def test_scopes_do_not_see_each_other() -> None:
    world, one = World(), request("a")
    world.log.events.append({**foreign_intent(world, [one.key]), "scope": "generate"})
    runner = world.runner()
    assert runner.pending_keys() == set()
    assert asyncio.run(runner.submit([one])) == ["b0"]


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
        await world.runner().wait(world.results.append, timeout_s=5000.0)
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
            assert (await runner.wait(world.results.append)).done

    asyncio.run(main())
    assert sorted(r.key for r in world.results) == sorted(r.key for r in requests)
    assert len(world.server.batches) == 1


LIFE: list[Event] = [
    submitting(["a", "b"], at=1.0, deadline_s=10.0, sequence=0),
    {**submitting(["c"], at=2.0, deadline_s=10.0, sequence=1), "ticket": "t2"},
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


def test_writers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    me = writer_id()
    machine, pid, start = me.split("-")
    assert writer_alive(me) is True
    assert writer_alive(f"{machine}-{pid}-{int(start) + 1}") is False  # the number was given to a new process
    assert writer_alive(f"{machine}-4194305-1") is False
    assert writer_alive("elsewhere-1-1") is None
    assert writer_alive("nonsense") is None
    monkeypatch.setattr(batch_events, "_started", lambda _pid: "0")
    assert writer_alive(f"{machine}-{pid}-0") is None


def test_split() -> None:
    sizes = {"a": 5, "b": 5, "c": 9, "d": 1, "e": 1}

    def chunks(max_requests: int, max_bytes: int) -> list[str]:
        made = split(
            [request(t) for t in sizes],
            max_requests=max_requests,
            max_bytes=max_bytes,
            size_of=lambda r: sizes[r.messages[0].text],
        )
        return ["".join(r.messages[0].text for r in chunk) for chunk in made]

    assert chunks(10, 10) == ["ab", "cd", "e"]
    assert chunks(2, 100) == ["ab", "cd", "e"]
    assert chunks(10, 4) == ["a", "b", "c", "de"]
    assert list(split([], max_requests=1, max_bytes=1)) == []
    assert request_bytes(request("é")) == 1024 + 4
