"""Answers that come twice or for another question, of other providers, of batches and of rollouts."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from yarl import URL

from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.anthropic_worker import make_requests
from tests.fakes.batch_servers import FakeGemini
from tests.faults.proxy import Plan, Proxy
from tests.faults.world import World
from tests.integration.test_anthropic_messages import MODEL as CLAUDE
from tests.integration.test_anthropic_messages import ask
from tests.integration.test_file_batches import MODELS, SERVERS, Bench
from videop2r_data.backends import make_backend
from videop2r_data.errors import TransientError
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.trainer.rollout.vllm_sync import Http
from videop2r_data.trainer.settings.rl import VllmSpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
ASKED = 40
REPEATED = ("repeat", "repeat_late")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret-key")


async def through_a_proxy(kind: str, fault: str) -> tuple[list[str | None], int, int]:
    """What was said to each question (None: told apart as another's), faults met, calls that it counted."""

    async def one(number: int) -> str | None:
        async with gate:
            try:
                return (await backend.complete(ask(f"question {number}.", model=about["model"]))).text
            except TransientError as error:
                assert "the answer belongs to another question" in str(error)
                return None

    server: Any = FakeAnthropic(api_key="secret-key") if kind == "anthropic" else FakeGemini()
    about: dict[str, Any] = {
        "kind": kind,
        "model": MODELS.get(kind, CLAUDE),
        "api_key_env": "A_KEY",
        "concurrency": 4,
    }
    async with server:
        port = URL(server.url).port
        assert port is not None
        async with Proxy(port, Plan(seed=1, faults=(fault,), share=0.5)) as proxy:
            gate = asyncio.Semaphore(4)
            url = str(URL(server.url).with_port(proxy.port))
            backend = make_backend(BackendSpec.model_validate({**about, "base_url": url}))
            await backend.start()
            said = await asyncio.gather(*(one(number) for number in range(ASKED)))
            await backend.close()
            return said, proxy.met[fault], server.calls["messages"]


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
@pytest.mark.parametrize("fault", REPEATED)
def test_an_answer_that_comes_again_reaches_nobody(kind: str, fault: str) -> None:
    said, met, calls = asyncio.run(through_a_proxy(kind, fault))
    assert said == [f"you said: question {number}." for number in range(ASKED)]
    assert met > 10 and calls == ASKED, "no second call"


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
def test_an_answer_to_another_question_is_told_by_its_id(kind: str) -> None:
    """The id was seen before, with another question; whom it was meant for keeps it."""
    said, met, _ = asyncio.run(through_a_proxy(kind, "swap"))
    assert all(text in (None, f"you said: question {number}.") for number, text in enumerate(said))
    assert met - 4 <= said.count(None) <= met, "the first questions find no other answer to get"


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("fault", REPEATED)
def test_what_a_provider_of_batches_says_twice_is_heard_once(kind: str, fault: str, tmp_path: Path) -> None:
    """An upload's answer taken for the next one's would put one file into two batches, and pay it twice."""

    async def main() -> None:
        async with SERVERS[kind]() as server:
            port = URL(server.url).port
            assert port is not None
            async with Proxy(port, Plan(seed=1, faults=(fault,), share=1.0)) as proxy:
                server.url = str(URL(server.url).with_port(proxy.port))
                bench = Bench(kind, server, tmp_path, {"max_requests": 10})
                runner = bench.runner()
                await runner.submit(make_requests(25))
                await bench.wait(runner)
                await bench.backend.close()
                assert proxy.met[fault] >= 6 and set(server.accepted_ids.values()) == {1}
                assert bench.texts() == sorted(f"you said: q{i}" for i in range(25))

    asyncio.run(main())


@pytest.mark.parametrize("fault", REPEATED)
def test_rollouts_that_come_again_are_nobody_elses(world: World, fault: str) -> None:
    """A rollout under another prompt would be rewarded, and trained on, as an answer to it."""
    world.proxy.plan = Plan(seed=1, faults=(fault,), share=0.5)
    http = Http(VllmSpec(url=world.proxy.url.removesuffix("/v1"), concurrency=4, retries=0))
    bodies = [
        orjson.dumps({"model": "g", "messages": [{"role": "user", "content": f"name shape {number}"}]})
        for number in range(ASKED)
    ]
    answers = http.post_all("/v1/chat/completions", [partial(bytes, body) for body in bodies])
    assert world.proxy.met[fault] > 10
    for number, answer in enumerate(answers):
        assert f"shape {number}." in answer["choices"][0]["message"]["content"]
