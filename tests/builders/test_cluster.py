"""What the steps of a build see of actors on Ray: losses, frames that are gone, nodes that lack a file."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from videop2r_data.backends import Journal, Money, make_breaker, make_caller
from videop2r_data.builders import cluster as module
from videop2r_data.builders.cluster import Cluster, FarBackend, FarFrames, FarSampler, OnRay
from videop2r_data.builders.crew import CallerActor, Crew, FramesLostError
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import AuthError, AwayError, ConfigError, MediaError, StoppedError, TransientError
from videop2r_data.schemas import (
    BackendSpec,
    Completion,
    MediaRecord,
    MediaSpec,
    Message,
    Price,
    Recipe,
    Request,
)

ASKED = Request(purpose="generate", model="m", messages=(Message("user", "?"),))
ANSWER = Completion(text="yes", finish_reason="stop", model="m")
LOST = TransientError("one of the decoders was lost: killed")
SERVER = BackendSpec.model_validate({"kind": "openai", "model": "m", "base_url": "http://h/v1"})


def record(digest: str = "0") -> MediaRecord:
    one = {"count": 1, "width": 28, "height": 28, "indices": (0,), "times_s": (0.0,), "source_frames": 1}
    more = {"source_width": 28, "source_height": 28, "file_sha256": "0", "file_bytes": 1, "sampler": "doc/1"}
    return MediaRecord.model_validate({"data_type": "image", "frames_sha256": digest} | one | more)


class Answering:
    """A crew whose answers are given: values are returned, exceptions raised."""

    name = "callers"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    async def ask(self, send: Callable[[Any], Any], wall_s: float) -> Any:
        sent = send(self)
        self.asked.append(await sent if asyncio.iscoroutine(sent) else sent)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return (answer, self.asked[-1][1]) if asyncio.iscoroutine(sent) else answer

    @property
    def complete(self) -> Any:
        return self

    @property
    def sample(self) -> Any:
        return self

    def options(self, **_: Any) -> Any:
        return self

    def remote(self, *arguments: Any) -> Any:
        if isinstance(arguments[0], Request):
            return arguments

        async def told() -> Any:
            return arguments

        return told(), f"frames {len(self.asked)}"


def asking(crew: Answering, frames: FarFrames | None = None) -> Completion:
    backend: Any = FarBackend(crew, SERVER)  # type: ignore[arg-type]
    found: Completion = asyncio.run(backend.complete(ASKED, frames))
    return found


def sampling(path: Path, *answers: Any) -> FarFrames:
    crew: Any = Answering(*answers)
    return asyncio.run(FarSampler(crew, MediaSpec(), "encoded").sample(path, "image"))


@pytest.mark.parametrize(
    ("error", "words"), [("ActorDiedError", "The actor died"), ("OutOfMemoryError", "more memory than")]
)
def test_a_call_whose_actor_is_lost_may_have_been_billed_and_another_takes_its_place(
    error: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray: Any = pytest.importorskip("ray")
    ended: list[Any] = []
    monkeypatch.setattr(ray, "kill", ended.append)
    busy = most = 0

    class Actor:
        def __init__(self) -> None:
            self.ready = self

        async def remote(self) -> None:
            return None

    async def dies(_: Any) -> None:
        kind = getattr(ray.exceptions, error)
        raise kind() if error == "ActorDiedError" else kind("a node used more memory than it may")

    async def answers(actor: Any) -> Any:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        for _ in range(9):
            await asyncio.sleep(0)
        busy -= 1
        return actor

    async def main() -> None:
        crew = Crew("callers", Actor, 1, 1, "nothing")
        with pytest.raises(TransientError, match=f"one of the callers was lost: .*{words}") as caught:
            await crew.ask(dies, 60)
        assert caught.value.maybe_billed and len(ended) == 1
        assert set(await asyncio.gather(*(crew.ask(answers, 60) for _ in range(4)))).isdisjoint(ended)
        assert most == 1  # the place of the lost one is not given away
        crew.close()
        assert len(ended) == 2

    asyncio.run(main())


def test_an_engine_that_died_takes_its_actor_along_and_a_wrong_key_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another actor then takes the engine's place; a server's word on a key holds for all of them."""
    ends: list[int] = []

    class Dead:
        async def complete(self, *_: Any) -> Completion:
            raise AuthError("no more")

    def exits(spec: BackendSpec) -> Any:
        actor = CallerActor(None, None, spec)  # type: ignore[arg-type]
        actor._backend = Dead()  # type: ignore[assignment]
        return asyncio.run(actor.complete(ASKED, None))

    monkeypatch.setattr("os._exit", ends.append)
    exits(BackendSpec.model_validate({"kind": "vllm", "model": "m"}))
    assert ends == [1]
    said, _ = exits(SERVER)
    assert ends == [1] and isinstance(said, AuthError)


def test_lost_frames_are_decoded_again_for_the_next_try_unless_the_file_has_changed() -> None:
    async def again() -> FarFrames:
        return FarFrames(record(), refs=["new"])

    async def other() -> FarFrames:
        return FarFrames(record("1"), refs=["new"])

    frames = FarFrames(record(), refs=["old"], again=again)
    crew = Answering(FramesLostError("node gone"), (ANSWER, []))
    with pytest.raises(TransientError, match="lost with their node: node gone") as caught:
        asking(crew, frames)
    assert not caught.value.maybe_billed  # the call was not made
    assert asking(crew, frames) == ANSWER
    assert [ref for _, ref in crew.asked] == ["old", "new"]
    frames = FarFrames(record(), refs=["old"], again=other)
    with pytest.raises(TransientError, match="changed since"):
        asking(Answering(FramesLostError()), frames)
    assert frames.refs == ["old"]


def test_a_file_goes_to_another_decoder_and_after_three_it_is_left_for_the_next_run(tmp_path: Path) -> None:
    frames = sampling(tmp_path, LOST, (record(), 5))
    assert frames.nbytes == 5 and frames.refs == ["frames 1"]  # those of the second decoder
    with pytest.raises(MediaError, match=r"3 decoders .* were lost; .*: c") as caught:
        sampling(tmp_path, LOST, LOST, TransientError("one of the decoders was lost: c"))
    assert caught.value.reason == "decode_killed"


def test_a_node_that_lacks_a_file_ends_the_run_and_a_file_that_is_gone_costs_its_row(tmp_path: Path) -> None:
    missing = (MediaError("no such file", reason="media_missing"), "node-7")
    with pytest.raises(ConfigError, match="node node-7 of the Ray cluster does not see this file"):
        sampling(tmp_path, missing)
    with pytest.raises(MediaError, match="no such file"):
        sampling(tmp_path / "gone", missing)


def test_a_stop_ends_the_wait_for_an_actor_and_the_call_costs_nothing(tmp_path: Path) -> None:
    """An engine may take minutes to load; a call that was not given to one is not paid."""

    class Loading:
        """An actor that is never ready."""

        @property
        def ready(self) -> Any:
            return self

        def remote(self) -> Any:
            return asyncio.get_running_loop().create_future()

    async def main(journal: Journal) -> None:
        crew, money = Crew("engines", Loading, 1, 4, "each needs 2 GPU"), Money(journal, 5.0)
        priced = SERVER.model_copy(update={"price": Price(input=1, output=1)})
        backend: Any = FarBackend(crew, priced)
        caller = make_caller(
            priced, backend, "generate", journal=journal, money=money, breaker=make_breaker("generate")
        )
        asked = asyncio.ensure_future(caller.ask(ASKED))
        while not crew._members:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert journal.spending.total_nusd > 0
        crew.stop()
        with pytest.raises(StoppedError):
            await asked
        assert journal.spending.total_nusd == 0
        for member in crew._members:
            assert member.welcome.cancel()

    pytest.importorskip("ray")
    with Journal(tmp_path) as journal:
        asyncio.run(main(journal))


def test_the_next_call_goes_to_the_actor_with_the_fewest_and_none_has_more_than_it_takes() -> None:
    pytest.importorskip("ray")
    most, order = 0, []

    class Actor:
        """Answers a call when `release` is set."""

        def __init__(self) -> None:
            self.release, self.busy = asyncio.Event(), 0
            made.append(self)

        @property
        def ready(self) -> Any:
            return self

        async def remote(self) -> None:
            return None

        async def work(self) -> None:
            nonlocal most
            self.busy += 1
            most = max(most, self.busy)
            order.append(made.index(self))
            await self.release.wait()
            self.busy -= 1

    async def main() -> None:
        crew = Crew("workers", Actor, 2, 3, "nothing")
        crew.start()
        work = asyncio.gather(*(crew.ask(lambda actor: actor.work(), 60) for _ in range(9)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert sorted(order) == [0, 0, 0, 1, 1, 1] and most == 3
        made[1].release.set()  # the other one stays busy: all that is left goes here
        for _ in range(20):
            await asyncio.sleep(0)
        assert order[6:] == [1, 1, 1]
        made[0].release.set()
        await work

    made: list[Actor] = []
    asyncio.run(main())
    assert most == 3


@pytest.mark.parametrize(
    ("actors", "gpus", "engines", "needs", "decoders"),
    [(None, None, 2, 2, 12), (3, None, 3, 2, 10), (None, 0, 1, 0, 14), (None, 0.5, 8, 0.5, 1)],
)
def test_engines_fill_the_gpus_and_leave_cpus_to_the_decoders(
    actors: int | None, gpus: float | None, engines: int, needs: float, decoders: int
) -> None:
    large = {"kind": "vllm", "model": "m", "extra": {"tensor_parallel_size": 2}}
    small = {"kind": "vllm", "model": "m"}
    sources = [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}]
    made = {"name": "set", "sources": sources, "generate": {"backend": large}, "judge": {"backend": small}}
    recipe, place = Recipe.model_validate(made), Workspace.at(Path("set"), base=Path())
    hands = Cluster(recipe, place, Stop(), OnRay(actors, gpus), {"GPU": 8.0, "CPU": 16.0})
    generate, *_ = recipe.backends.values()
    assert hands.actors(generate) == engines and hands.gpus(generate) == needs
    assert hands.decoders == decoders
    assert hands.actors(SERVER) == (actors or 1) and hands.gpus(SERVER) == 0


def test_ray_does_not_take_the_signals_of_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own handlers would end the build in the middle of a call: it sets them in the main thread only."""
    ray: Any = pytest.importorskip("ray")
    seen: list[threading.Thread] = []
    told: list[str] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: seen.append(threading.current_thread()))
    asyncio.run(module._connect(told.append))
    assert seen[0] is not threading.main_thread() and told == ["Ray starts on this machine"]


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ray: Any = pytest.importorskip("ray")

    def init(address: str, **_: Any) -> None:
        raise ConnectionError(f"nothing at {address}")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(AwayError, match=r"no Ray cluster can be used: nothing at auto"):
        asyncio.run(module._connect(lambda _: None))


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "[::1]:{}", "127.0.0.1:99999"])
def test_an_address_where_nobody_listens_is_not_left_to_ray(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would try for minutes, in a thread that no signal ends."""
    ray: Any = pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as once:
        address = address.format(once.getsockname()[1])
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was asked"))
    with pytest.raises(AwayError, match=r"no Ray cluster can be used: nobody answers at") as caught:
        asyncio.run(module._connect(lambda _: None))
    assert address in caught.value.message and "RAY_ADDRESS" in str(caught.value.hint)
