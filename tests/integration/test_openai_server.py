"""The OpenAI backend, with its real client, against a real server on loopback that misbehaves on demand."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.backends.calls import clip_frames, image_frames, request
from tests.fakes.openai_server import Call, FakeServer, Reply, Script
from videop2r_data.backends import http as module
from videop2r_data.backends.caller import call_with_retries
from videop2r_data.backends.limiter import AdaptiveLimiter, RateLimits
from videop2r_data.backends.openai.client import OpenAIBackend
from videop2r_data.errors import AuthError, BackendError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas import parse_trace
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.judges import BackendSpec

pytestmark = pytest.mark.integration
KEY = "sk-very-secret-0123456789"


@asynccontextmanager
async def served(
    script: Iterable[Reply] | Script = (), *, server: dict[str, Any] | None = None, **spec: Any
) -> AsyncIterator[tuple[OpenAIBackend, FakeServer]]:
    async with FakeServer(script=script, **(server or {})) as fake:
        settings = {"concurrency": 16, "timeout_s": 10.0, "base_url": fake.url, **spec}
        backend = OpenAIBackend(BackendSpec(kind="openai", model="some/model", **settings))
        await backend.start()
        try:
            yield backend, fake
        finally:
            await backend.close()
            await backend.close()


def ask(*script: Reply, **spec: Any) -> Any:
    async def run() -> Any:
        async with served(script, **spec) as (backend, _):
            return await backend.complete(request("question"))

    return asyncio.run(run())


def test_text_image_and_video_arrive_whole() -> None:
    async def run() -> None:
        async with served(server={"model": "served-model"}) as (backend, fake):
            answer = await backend.complete(request("question", system="rules"))
            parse_trace(answer.text)
            assert (answer.model, answer.finish_reason) == ("served-model", "stop")
            assert answer.usage.input_tokens > 0
            assert answer.usage.output_tokens > 0
            for frames in (image_frames(), clip_frames(3), clip_frames(20, height=560, width=560)):
                await backend.complete(request("question", frames=frames), frames)
                assert isinstance(fake.last, Call)
                part = fake.last.body["messages"][0]["content"][0]
                url = part[part["type"]]["url"]
                pictures = url.split(",")[1:]
                assert [base64.b64decode(p, validate=True) for p in pictures] == list(frames.encoded)
            assert fake.last is not None
            assert len(fake.last.raw) > 2**21  # more than the client sends as one piece

    asyncio.run(run())


@pytest.mark.parametrize(
    ("reply", "limited", "billed"),
    [
        (Reply(status=429), True, False),
        (Reply(status=529), True, False),
        (Reply(status=408), False, False),
        (Reply(status=409), False, False),
        (Reply(status=500), False, False),
        (Reply(status=503), False, False),
        (Reply(status=504), False, True),
        (Reply(status=499, body=b'{"error": {"code": 499, "status": "CANCELLED"}}'), False, True),
        (Reply(status=204), False, True),
        (Reply(cut="start"), False, True),
        (Reply(cut="headers"), False, True),
        (Reply(cut="body"), False, True),
        (Reply(body=b""), False, True),
        (Reply(body=b"<html>bad gateway</html>"), False, True),
        (Reply(body=b'{"choices": []}'), False, True),
        (Reply(body=b'{"choices"'), False, True),
    ],
    ids=repr,
)
def test_worth_another_try(reply: Reply, limited: bool, billed: bool) -> None:
    with pytest.raises(TransientError) as caught:
        ask(reply)
    assert (caught.value.rate_limited, caught.value.maybe_billed) == (limited, billed)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_refused_for_good_with_the_servers_words(status: int) -> None:
    body = json.dumps({"error": {"message": "This model's maximum context\nlength is 10 tokens"}}).encode()
    with pytest.raises(
        RefusedError, match=f"status {status}: This model's maximum context length is 10 tokens"
    ):
        ask(Reply(status=status, body=body))


@pytest.mark.parametrize(
    "error",
    [  # of OpenRouter and of xAI
        {
            "error": {
                "code": 403,
                "message": "Your chosen model requires moderation and your input was flagged",
            }
        },
        {"code": "permission-denied", "error": "Content violates usage guidelines. Failed check: BIO"},
    ],
    ids=["openrouter", "xai"],
)
def test_a_status_of_the_account_that_is_about_one_request_costs_one_row(error: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="status 403"):
        ask(Reply(status=403, body=json.dumps(error).encode()))


def test_no_money_left_is_held_against_no_row() -> None:
    """Status 402, as OpenRouter and DeepSeek answer it."""
    body = json.dumps({"error": {"code": 402, "message": "Insufficient credits"}}).encode()
    with pytest.raises(AuthError, match="add credit to the account"):
        ask(Reply(status=402, body=body))


def test_no_request_can_succeed() -> None:
    for status in (401, 403):
        with pytest.raises(AuthError, match="set api_key_env"):
            ask(Reply(status=status))
    with pytest.raises(AuthError, match=r"check model 'some/model' and base_url http://127"):
        ask(Reply(status=404))
    with pytest.raises(AuthError, match="redirects"):
        ask(Reply(status=307, headers={"location": "http://example.org/"}))
    distrust = json.dumps(
        {"error": {"message": "Start the server with --trust-request-mm-kwargs only"}}
    ).encode()
    with pytest.raises(AuthError, match=r"or set extra\.video to frames"):
        ask(Reply(status=400, body=distrust))
    quota = json.dumps({"error": {"message": "pay first", "code": "insufficient_quota"}}).encode()
    with pytest.raises(AuthError, match="pay first"):
        ask(Reply(status=429, body=quota))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"Retry-After-Ms": "250"}, 0.25),
        ({"x-ratelimit-reset-tokens": "1m2s"}, 62.0),
    ],
)
def test_the_server_says_when_to_come_back(headers: dict[str, str], seconds: float) -> None:
    with pytest.raises(TransientError) as caught:
        ask(Reply(status=429, headers=headers))
    assert caught.value.retry_after_s == seconds


def test_budgets_in_the_headers_are_handed_on() -> None:
    async def run() -> None:
        seen: list[RateLimits] = []
        headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}
        async with served([Reply(headers=headers), Reply()]) as (backend, _):
            backend.on_rate_limits = seen.append
            await backend.complete(request("a"))
            await backend.complete(request("b"))
        assert seen == [RateLimits(remaining_requests=0, reset_requests_s=2.0)]

    asyncio.run(run())


@pytest.mark.parametrize(
    "reply", [Reply(latency=30.0), Reply(slow_s=30.0)], ids=["no answer", "half an answer"]
)
def test_a_deadline_and_a_cancellation_leave_no_connection(reply: Reply) -> None:
    async def run() -> None:
        async with served([reply, reply], timeout_s=0.1) as (backend, fake):
            with pytest.raises(TransientError, match=r"within 0\.1 s") as caught:
                await backend.complete(request("a"))
            assert caught.value.maybe_billed
            task = asyncio.create_task(backend.complete(request("b")))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(100):
                if not fake.connections:
                    break
                await asyncio.sleep(0.01)
            assert not fake.connections
            await backend.complete(request("c"))  # and the next call works

    asyncio.run(run())


def test_connections_are_reused_and_bounded() -> None:
    async def run() -> None:
        async with served(server={"latency": 0.002}, concurrency=8) as (backend, fake):
            await asyncio.gather(*(backend.complete(request(f"q{i}")) for i in range(80)))
            assert fake.opened <= 8
            assert fake.stats()["distinct"] == 80
        for _ in range(100):
            if not fake.connections:
                break
            await asyncio.sleep(0.01)
        assert not fake.connections

    asyncio.run(run())


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 10_000)
    with pytest.raises(TransientError, match="passes 10000 bytes"):
        ask(Reply(body=b"x" * 20_000))
    assert ask(Reply()).finish_reason == "stop"


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask().finish_reason == "stop"
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(TransientError, match="ClientProxyConnectionError"):
        ask()


def test_no_server_at_all() -> None:
    with pytest.raises(TransientError, match=r"connection to http://127\.0\.0\.1:9/v1 failed") as caught:
        ask(base_url="http://127.0.0.1:9/v1")
    assert not caught.value.maybe_billed


class TestKey:
    def test_it_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", KEY + "\n")
        assert ask(server={"key": KEY}, api_key_env="MY_KEY").finish_reason == "stop"

    def test_it_is_missing_or_impossible(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MY_KEY", raising=False)
        with pytest.raises(ConfigError, match="MY_KEY is not set"):
            ask(api_key_env="MY_KEY")
        monkeypatch.setenv("MY_KEY", "sk-a\r\nX-Evil: 1")
        with pytest.raises(ConfigError) as caught:
            ask(api_key_env="MY_KEY")
        assert "sk-a" not in str(caught.value)

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(status=401, body=json.dumps({"error": {"message": f"Incorrect key: {KEY}"}}).encode()),
            Reply(status=500, body=f"trace: {KEY}".encode()),
            Reply(body=json.dumps({"error": f"bad {KEY}"}).encode()),
            Reply(status=400, body=json.dumps({"detail": KEY}).encode()),
            Reply(cut="start"),
            Reply(latency=30.0),
        ],
        ids=["401", "500", "200", "400", "cut", "slow"],
    )
    def test_it_is_never_told(
        self, reply: Reply, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("MY_KEY", KEY)

        async def run() -> None:
            async with served([reply], api_key_env="MY_KEY", timeout_s=0.2) as (backend, _):
                assert KEY not in repr(backend)
                await backend.complete(request("q"))

        with pytest.raises(BackendError) as caught:
            asyncio.run(run())
        shown = [
            repr(caught.value),
            str(caught.value),
            repr(caught.value.__context__),
            repr(caught.value.__cause__),
        ]
        assert not any(KEY in text for text in [*shown, caplog.text])


def test_overload_lowers_the_concurrency_and_every_call_succeeds() -> None:
    async def run() -> None:
        server = {"latency": 0.002, "capacity": 4}
        async with served(server=server, concurrency=64) as (backend, fake):
            limiter = AdaptiveLimiter(64)
            rng = random.Random(0)

            async def one(i: int) -> None:
                await call_with_retries(
                    lambda: backend.complete(request(f"q{i}")),
                    retries=40,
                    limiter=limiter,
                    rng=rng,
                    base_s=0.01,
                    cap_s=0.1,
                )

            await asyncio.gather(*(one(i) for i in range(200)))
            stats = fake.stats()
            assert stats["answered"] == 200
            assert stats["repeats_answered"] == 0
            assert stats["statuses"].keys() == {"200", "429"}
            assert limiter.cuts >= 3
            assert limiter.in_flight == 0

    asyncio.run(run())


def test_not_started_or_without_frames() -> None:
    backend = OpenAIBackend(BackendSpec(kind="openai", model="m", base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(BackendError, match="not started"):
        asyncio.run(backend.complete(request("q")))
    asyncio.run(backend.close())

    async def run() -> None:
        async with served() as (started, _):
            await started.start()  # a second start changes nothing
            frames = image_frames()
            with pytest.raises(ValueError, match="frames are missing"):
                await started.complete(request("q", frames=frames))
            png = Frames(frames.record, encoded=frames.encoded, mime="image/png")
            with pytest.raises(ValueError, match="the request says jpeg-95"):
                await started.complete(request("q", frames=png), png)

    asyncio.run(run())


def test_the_fake_speaks_the_protocol_to_the_official_client() -> None:
    import openai

    async def run() -> None:
        async with FakeServer(answer=lambda call: call.prompt[::-1]) as fake:
            client = openai.AsyncOpenAI(base_url=fake.url, api_key=KEY, max_retries=0)
            async with client:
                made = await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "abc"}], max_tokens=5
                )
                assert made.choices[0].message.content == "cba"
                assert made.usage is not None
                assert made.usage.prompt_tokens > 0
                fake.queue.append(Reply(status=429, headers={"retry-after": "1"}))
                with pytest.raises(openai.RateLimitError):
                    await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": "abc"}]
                    )
                assert [m.id async for m in client.models.list()] == ["fake"]

    asyncio.run(run())


def test_the_fake_as_a_process_of_its_own() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.openai_server", "--latency", "0.001"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()

            def post(path: str, data: Any) -> Any:
                raw = json.dumps(data).encode()
                with urllib.request.urlopen(
                    urllib.request.Request(url + path, data=raw), timeout=10
                ) as reply:
                    return json.loads(reply.read())

            chat = {"messages": [{"role": "user", "content": "say <judgement>"}], "model": "m"}
            one, two = post("/chat/completions", chat), post("/chat/completions", chat)
            assert one == two
            assert "<judgement>" in one["choices"][0]["message"]["content"]
            stats = post("/stats", {})
            assert (stats["requests"], stats["distinct"], stats["repeats_answered"]) == (2, 1, 1)
            post("/script", [{"status": 200, "body": "{}"}])
            assert post("/chat/completions", chat) == {}
            post("/reset", {})
            assert post("/stats", {})["requests"] == 0
        finally:
            process.terminate()


def test_a_rule_may_answer_by_content() -> None:
    def rule(call: Call) -> Reply | None:
        return Reply(status=400) if b"forbidden" in call.raw else None

    async def run() -> None:
        async with served(rule) as (backend, _):
            with pytest.raises(RefusedError):
                await backend.complete(request("forbidden"))
            await backend.complete(request("fine"))

    asyncio.run(run())
