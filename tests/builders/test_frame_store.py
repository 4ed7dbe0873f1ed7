"""Frames are shared by those who hold them, and no decode begins without room for its frames."""

from __future__ import annotations

import asyncio

import pytest

from videop2r_data.builders.frames import FrameStore
from videop2r_data.errors import MediaError, StoppedError
from videop2r_data.schemas.calls import Frames, MediaRecord

RECORD = MediaRecord(
    data_type="image",
    frames_sha256="0",
    count=1,
    width=28,
    height=28,
    indices=(0,),
    times_s=(0.0,),
    source_frames=1,
    source_width=28,
    source_height=28,
    file_sha256="0",
    file_bytes=1,
    sampler="test/1",
)


class Decoder:
    """Makes frames of so many bytes, when it is let."""

    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.calls = 0
        self.under_way = 0
        self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> Frames:
        self.calls += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.go.wait()
        await asyncio.sleep(0)
        self.under_way -= 1
        return Frames(RECORD, encoded=(b"x" * self.size,))


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def test_who_holds_shares_one_decode_and_the_last_one_gives_the_room_back() -> None:
    async def main() -> None:
        store, decode = FrameStore(100, recent=0), Decoder()
        await asyncio.gather(*(store.take("a", 10, decode) for _ in range(5)))
        for _ in range(5):
            assert store.used == 10
            store.release("a")
        assert store.used == 0 and decode.calls == 1
        await store.take("a", 10, decode)
        assert decode.calls == 2

    asyncio.run(main())


def test_a_set_without_a_holder_stays_only_while_there_is_room() -> None:
    async def main() -> None:
        store, decode = FrameStore(30, recent=2), Decoder()
        for name in "abc":
            await store.take(name, 10, decode)
            store.release(name)
        assert store.used == 20, "two stay"
        await store.take("c", 10, decode)
        assert decode.calls == 3
        await store.take("d", 20, decode)
        assert store.used == 20, "b went, c is held, d came"

    asyncio.run(main())


@pytest.mark.parametrize("budget", [1, 10, 35, 1000])
def test_what_is_held_and_under_way_stays_within_the_budget(budget: int) -> None:
    async def main() -> None:
        store, decode, peak = FrameStore(budget), Decoder(), 0

        async def question(i: int) -> None:
            nonlocal peak
            await store.take(f"{i // 2}", 10, decode)
            peak = max(peak, store.used)
            await turns(3)
            store.release(f"{i // 2}")

        await asyncio.gather(*(question(i) for i in range(60)))
        assert decode.calls == 30
        assert peak <= max(budget, 10)
        assert decode.most == min(30, max(1, budget // 10))

    asyncio.run(main())


def test_room_is_handed_out_in_order_also_past_a_large_one() -> None:
    async def main() -> None:
        store, done = FrameStore(20, recent=0), []

        async def question(name: str, size: int) -> None:
            await store.take(name, size, Decoder(size))
            done.append(name)
            await turns(5)
            store.release(name)

        await asyncio.gather(*(question(n, s) for n, s in [("a", 15), ("b", 20), ("c", 5), ("d", 5)]))
        assert done[:2] == ["a", "b"]

    asyncio.run(main())


def test_a_failed_decode_holds_nothing_and_is_tried_anew() -> None:
    async def main() -> None:
        store, decode = FrameStore(10), Decoder()

        async def fails() -> Frames:
            raise MediaError("no", reason="media_unreadable")

        found = await asyncio.gather(*(store.take("a", 10, fails) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(error, MediaError) for error in found)
        assert store.used == 0
        await store.take("a", 10, decode)
        assert decode.calls == 1

    asyncio.run(main())


def test_a_cancelled_question_costs_nobody_else_the_frames_or_the_room() -> None:
    async def main() -> None:
        store, decode = FrameStore(10, recent=0), Decoder()
        decode.go.clear()
        asks = [asyncio.ensure_future(store.take(name, 10, decode)) for name in ("a", "a", "b", "c")]
        await turns()
        asks[0].cancel()
        asks[2].cancel()  # waits for room
        await turns()
        decode.go.set()
        await asks[1]
        assert store.used == 10
        store.release("a")
        await asks[3]
        store.release("c")
        await turns()
        assert store.used == 0

    asyncio.run(main())


def test_closing_cancels_what_is_under_way_and_a_late_release_is_no_error() -> None:
    async def main() -> None:
        store, decode = FrameStore(20), Decoder()
        await store.take("a", 10, decode)
        decode.go.clear()
        asks = [asyncio.ensure_future(store.take(name, 10, decode)) for name in ("b", "c")]
        await turns()
        await store.close()
        assert all(
            isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*asks, return_exceptions=True)
        )
        store.release("a")

    asyncio.run(main())


def test_a_stop_ends_waits_for_room_and_decodes_but_keeps_the_frames_that_are_there() -> None:
    async def run() -> None:
        store, there, never = FrameStore(20), Decoder(), Decoder()
        held = await store.take("a", 10, there)
        never.go.clear()
        decoding = asyncio.ensure_future(store.take("b", 10, never))
        waiting = asyncio.ensure_future(store.take("c", 10, Decoder()))
        await asyncio.sleep(0)
        store.stop()
        for task in (decoding, waiting, asyncio.ensure_future(store.take("d", 10, Decoder()))):
            with pytest.raises(StoppedError):
                await task
        assert held.encoded and store.used == 10
        store.release("a")
        await store.close()

    asyncio.run(run())
