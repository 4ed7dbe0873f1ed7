"""Several servers of one model: balance, failover, and what each of them is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import request
from tests.fakes.openai_server import Call, FakeServer, Reply
from tests.ports import held
from videop2r_data.backends import Caller, Journal, Money
from videop2r_data.backends.limiter import LONGEST_PROBE_S
from videop2r_data.backends.make import make_backend, make_breaker, make_caller
from videop2r_data.backends.servers import Servers
from videop2r_data.errors import AuthError, AwayError, TransientError
from videop2r_data.schemas.judges import BackendSpec, Price


def spec(*servers: FakeServer, **more: Any) -> BackendSpec:
    settings = {"kind": "openai", "model": "m", "base_urls": [server.url for server in servers], **more}
    return BackendSpec.model_validate({"concurrency": 8, "server_wait_s": 30.0, **settings})


async def with_caller(
    folder: Path, asked: BackendSpec, work: Callable[[Caller], Awaitable[None]], told: list[str] | None = None
) -> None:
    with Journal(folder / "journal") as journal:
        caller = make_caller(
            asked,
            make_backend(asked),
            "generate",
            journal=journal,
            money=Money(journal, None),
            breaker=make_breaker("generate", keep_going=True),
            tell=None if told is None else told.append,
        )
        try:
            await work(caller)
            assert all(one.under_way == 0 for one in servers_of(caller)._all)
        finally:
            await caller.close()


def servers_of(caller: Caller) -> Servers:
    assert isinstance(caller.backend, Servers)
    return caller.backend


async def ask_all(caller: Caller, count: int) -> None:
    answers = await asyncio.gather(*(caller.ask(request(f"question {i}")) for i in range(count)))
    assert all(answer is not None and answer.completion is not None for answer in answers)


def test_a_slower_server_gets_fewer_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeServer(latency=0.01) as fast, FakeServer(latency=1.0) as slow:
            await with_caller(tmp_path, spec(fast, slow), lambda caller: ask_all(caller, 300))
            assert slow.max_in_flight <= 8 and fast.max_in_flight <= 8
            assert fast.requests + slow.requests == 300 and 0 < slow.requests < fast.requests

    asyncio.run(main())


@pytest.mark.parametrize("priced", [False, True])
def test_a_server_killed_in_the_middle_costs_no_answer_and_pays_none_twice(
    tmp_path: Path, priced: bool
) -> None:
    told: list[str] = []

    async def main() -> None:
        async with FakeServer(latency=0.02) as one, FakeServer(latency=0.02) as two:
            price = {"price": Price(input=1, output=1)} if priced else {}

            async with FakeServer(latency=0.02) as dying:
                asked = spec(one, two, dying, **price)

                async def kill() -> None:
                    while dying.requests < 20:  # noqa: ASYNC110 - what is looked at tells nobody
                        await asyncio.sleep(0.005)
                    await dying.__aexit__()

                async def both(caller: Caller) -> None:
                    await asyncio.gather(ask_all(caller, 400), kill())

                await with_caller(tmp_path, asked, both, told)
                answered = sum(server.stats()["answered"] for server in (one, two, dying))
                assert answered == 400, "no answer that came was asked for again"
                assert one.requests + two.requests + dying.requests <= 400 + 8
                assert max(one.max_in_flight, two.max_in_flight) <= 8, (
                    "nor takes another one its calls at once"
                )
                assert any(f"{dying.url} is left out for 0.5 s" in words for words in told), told

    asyncio.run(main())


def test_an_answer_cut_off_in_the_turn_of_the_loop_that_sends_it_is_not_counted() -> None:
    """The sums of the tests above hang on it: whoever is killed has answered what it sent, and no more."""

    async def main() -> None:
        async with FakeServer(latency=0.05) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
            while not server.in_flight:  # noqa: ASYNC110 - what is looked at tells nobody
                await asyncio.sleep(0.001)
            (connection,) = server.connections
            asyncio.get_running_loop().call_later(0, connection.abort)
            time.sleep(0.2)  # noqa: ASYNC251 - both are due when the loop goes on
            while server.in_flight:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert server.stats()["answered"] == 0
            writer.close()

    asyncio.run(main())


def test_a_server_that_comes_back_is_looked_at_and_used_again(tmp_path: Path) -> None:
    told: list[str] = []

    async def main() -> None:
        async with FakeServer(latency=0.05) as stays:
            async with FakeServer() as gone:
                port = gone.port

            async def work(caller: Caller) -> None:
                await ask_all(caller, 10)
                async with FakeServer(port=port) as back:
                    for start in range(200):
                        await asyncio.gather(*(caller.ask(request(f"later {start} {i}")) for i in range(2)))
                        if back.requests > 8:
                            return
                raise AssertionError("it was hardly asked")

            with held(port):
                await with_caller(tmp_path, spec(stays, gone), work, told)
            assert told and all(gone.url in words for words in told)

    asyncio.run(main())


def test_one_call_looks_at_a_server_that_hangs_while_the_others_go_on(tmp_path: Path) -> None:
    asked: list[int] = []

    def hang(call: Call) -> Reply | None:
        asked.append(call.number)
        return Reply(status=503) if len(asked) == 1 else Reply(latency=600.0)

    async def main() -> None:
        async with FakeServer(latency=0.02) as well, FakeServer(script=hang) as hung:

            async def work(caller: Caller) -> None:
                await ask_all(caller, 1)
                await asyncio.sleep(0.6)
                asking = asyncio.ensure_future(ask_all(caller, 400))
                while well.requests < 300:  # noqa: ASYNC110 - what is looked at tells nobody
                    await asyncio.sleep(0.01)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

            began = time.monotonic()
            await with_caller(tmp_path, spec(hung, well, concurrency=4), work)
            looks = 1 + int((time.monotonic() - began) / LONGEST_PROBE_S)
            assert hung.requests <= 1 + looks

    asyncio.run(main())


def test_a_server_that_answers_500_loses_its_calls_to_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        broken = Reply(status=500)
        async with FakeServer(latency=0.02) as well, FakeServer(script=lambda call: broken) as ill:
            await with_caller(tmp_path, spec(well, ill, retries=0), lambda caller: ask_all(caller, 200))
            assert well.stats()["answered"] == 200 and ill.requests <= 8 + 8

    asyncio.run(main())


def test_too_many_at_one_server_pauses_that_server_alone(tmp_path: Path) -> None:
    async def main() -> None:
        full = Reply(status=429, headers={"retry-after": "900"})
        async with FakeServer(latency=0.02) as well, FakeServer(script=lambda call: full) as busy:
            began = time.monotonic()
            await with_caller(tmp_path, spec(busy, well, retries=0), lambda caller: ask_all(caller, 200))
            assert busy.requests <= 8 and time.monotonic() - began < 600

    asyncio.run(main())


def test_the_run_waits_for_the_server_that_is_to_be_asked_first(tmp_path: Path) -> None:
    async def main() -> None:
        long = Reply(status=429, headers={"retry-after": "900"})
        async with FakeServer(script=[long]) as one, FakeServer(script=[Reply(status=500)]) as two:
            began = time.monotonic()
            await with_caller(tmp_path, spec(two, one), lambda caller: ask_all(caller, 1))
            assert two.stats()["answered"] == 1 and time.monotonic() - began < 600

    asyncio.run(main())


def test_what_may_have_been_paid_is_no_failover_but_a_try(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeServer(script=[Reply(cut="body")]) as one, FakeServer() as two:
            backend = make_backend(spec(one, two))
            await backend.start()
            try:
                with pytest.raises(TransientError) as caught:
                    await backend.complete(request("q"))
                assert caught.value.maybe_billed and two.requests == 0
                assert (await backend.complete(request("q"))).text and two.requests == 1
            finally:
                await backend.close()

    asyncio.run(main())


def test_no_server_anywhere_is_given_up_at_the_limit(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeServer() as one, FakeServer() as two:
            asked = spec(one, two, server_wait_s=1.0)
        with (
            held(one.port, two.port),
            pytest.raises(AwayError, match="the generate server could not be reached for 1 s"),
        ):
            await with_caller(tmp_path, asked, lambda caller: ask_all(caller, 20))

    asyncio.run(main())


def test_a_run_waits_until_the_first_of_its_servers_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeServer() as gone, FakeServer() as late:
            asked, port = spec(gone, late), late.port

        async def work(caller: Caller) -> None:
            asking = asyncio.ensure_future(ask_all(caller, 40))
            await asyncio.sleep(1.2)
            async with FakeServer(port=port) as there:
                await asking
                assert there.requests == 40

        with held(gone.port, port):
            await with_caller(tmp_path, asked, work)

    asyncio.run(main())


def test_a_server_without_the_model_ends_the_run_and_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        none = Reply(status=404, body=b'{"error":{"message":"The model `m` does not exist."}}')
        async with FakeServer() as one, FakeServer(script=lambda call: none) as two:
            with pytest.raises(AuthError, match="does not exist") as caught:
                await with_caller(tmp_path, spec(one, two), lambda caller: ask_all(caller, 20))
            assert caught.value.hint is not None and two.url in caught.value.hint

    asyncio.run(main())


def test_a_check_asks_all_of_them_for_their_models() -> None:
    async def main() -> None:
        async with FakeServer(models=["m", "k"]) as one, FakeServer(models=[]) as silent:
            async with FakeServer(models=["m"]) as two:
                backend = make_backend(spec(one, two, silent))
                assert isinstance(backend, Servers)
                await backend.start()
                assert [model.model for model in await backend.models() or ()] == ["m"]
            with pytest.raises(TransientError, match=two.url) as caught:
                await backend.models()
            assert caught.value.away
            await backend.close()

    asyncio.run(main())


# In a recipe.


def test_how_many_servers_there_are_is_in_no_key_and_no_lock() -> None:
    one = BackendSpec(kind="openai", model="m", base_url="http://a/v1")
    urls = ["http://a/v1", "http://b/v1"]
    many = BackendSpec.model_validate({"kind": "openai", "model": "m", "base_urls": urls})
    assert many.base_url == "http://a/v1" and many.identity == one.identity
    assert (one.calls_at_once, many.calls_at_once) == (64, 128)
    assert "base_urls" not in one.model_dump(mode="json") and "serve" not in one.model_dump(mode="json")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "vllm", "base_urls": ["http://a/v1"]}, "base_urls and serve are for kind openai"),
        ({"kind": "openai", "base_urls": "http://a/v1"}, "base_urls"),
        ({"kind": "openai", "base_urls": {"a": 1}}, "base_urls"),
        ({"kind": "openai", "base_url": "http://a/v1", "serve": "--name 'open"}, "No closing quotation"),
        ({"kind": "openai"}, "needs base_url"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BackendSpec.model_validate({"model": "m", **settings})
