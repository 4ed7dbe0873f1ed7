"""The real client against a server on loopback: what goes over the wire, and what its failures become."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from PIL import Image

from tests.fakes.anthropic_server import Cut, FakeAnthropic, Fault, Garbage, Slow, Status
from videop2r_data.backends.anthropic.client import AnthropicBackend
from videop2r_data.errors import AuthError, BackendError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas.calls import (
    Backend,
    Completion,
    Frames,
    MediaRecord,
    Message,
    Request,
    SamplingParams,
    Usage,
)
from videop2r_data.schemas.judges import BackendSpec

pytestmark = pytest.mark.integration
MODEL = "claude-test-3-7"


def spec(server: FakeAnthropic, **changes: Any) -> BackendSpec:
    return BackendSpec(kind="anthropic", model=MODEL, base_url=server.url, **changes)


def ask(text: str, *, model: str = MODEL, system: str = "", **params: Any) -> Request:
    messages = ((Message("system", system),) if system else ()) + (Message("user", text),)
    return Request("judge", model, messages, SamplingParams(**params))


def run(
    work: Callable[[FakeAnthropic, AnthropicBackend], Awaitable[Any]],
    server: FakeAnthropic | None = None,
    **changes: Any,
) -> Any:
    async def main() -> Any:
        async with server or FakeAnthropic() as live:
            backend = AnthropicBackend(spec(live, **changes))
            await backend.start()
            try:
                return await work(live, backend)
            finally:
                await backend.close()
                await backend.close()

    return asyncio.run(main())


def test_one_message_and_its_prompt_cache() -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> list[Completion]:
        assert isinstance(backend, Backend)
        first = await backend.complete(ask("red or blue?", system="x" * 400, max_tokens=7))
        again = await backend.complete(ask("one or two?", system="x" * 400, max_tokens=7))
        assert server.bodies[0] == {
            "model": MODEL,
            "max_tokens": 7,
            "temperature": 0.0,
            "system": [{"type": "text", "text": "x" * 400, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "red or blue?"}]}],
        }
        return [first, again]

    first, again = run(work)
    # 12 characters are 3 tokens, 400 are 100; the answer has 22 characters, 5 tokens.
    assert first == Completion(
        text="you said: red or blue?",
        finish_reason="stop",
        model=MODEL,
        usage=Usage(input_tokens=3, output_tokens=5, cache_read_tokens=0, cache_write_tokens=100),
    )
    assert again.usage == Usage(input_tokens=2, output_tokens=5, cache_read_tokens=100, cache_write_tokens=0)


def test_cache_mark_can_be_off() -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        done = await backend.complete(ask("q", system="y" * 40))
        assert "cache_control" not in server.bodies[0]["system"][0]
        assert done.usage.input_tokens == 10

    run(work, cache_prompt=False)


def picture(mime: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (28, 28), (200, 10, 10)).save(out, "JPEG" if mime == "image/jpeg" else "PNG")
    return out.getvalue()


def frames(kind: Any, count: int, mime: Any = "image/jpeg") -> Frames:
    record = MediaRecord(
        data_type=kind,
        frames_sha256="0" * 64,
        count=count,
        width=28,
        height=28,
        indices=tuple(range(count)),
        times_s=tuple(i * 0.5 for i in range(count)),
        source_frames=count,
        source_width=28,
        source_height=28,
        file_sha256="0" * 64,
        file_bytes=1,
        sampler="test/1",
    )
    return Frames(record, encoded=(picture(mime),) * count, mime=mime)


def test_video_frames_carry_their_times_and_an_image_does_not() -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        for media in (frames("video", 3), frames("image", 1, "image/png")):
            request = Request("generate", MODEL, (Message("user", "what?", media=True),), media=media.record)
            await backend.complete(request, media)
        video, image = (body["messages"][0]["content"] for body in server.bodies)
        assert [b.get("text", b["type"]) for b in video] == [
            *("[0.00 s]", "image", "[0.50 s]", "image", "[1.00 s]", "image"),
            "what?",
        ]
        assert [b["type"] for b in image] == ["image", "text"]
        assert image[0]["source"]["media_type"] == "image/png"
        with pytest.raises(RefusedError, match="no encoded frames"):
            await backend.complete(request)

    run(work)


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-2-sonnet-x", {"temperature", "top_p"}),
        ("claude-opus-4-1", {"temperature"}),
        ("claude-opus-4-7", set()),
        ("claude-sonnet-5", set()),
        ("my-own-model", {"temperature", "top_p"}),
    ],
)
def test_sampling_parameters_by_model(model: str, sent: set[str]) -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        await backend.complete(ask("q", model=model, temperature=0.5, top_p=0.9))
        assert {"temperature", "top_p"} & set(server.bodies[0]) == sent

    run(work)


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
def test_claude_3_7_takes_temperature_zero() -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        await backend.complete(ask("q", model="claude-3-7-sonnet-20250219"))
        assert server.bodies[0]["temperature"] == 0.0
        with pytest.raises(RefusedError, match=r"temperature 1\.3"):
            await backend.complete(ask("q", temperature=1.3))

    run(work)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "other"),
        ("something_new", "other"),
    ],
)
def test_stop_reasons(reason: str, expected: str) -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        server.stop_reason = reason
        assert (await backend.complete(ask("q"))).finish_reason == expected

    run(work)


SOON = {"retry-after": "7"}
RESETS = {
    "anthropic-ratelimit-requests-remaining": "3",
    "anthropic-ratelimit-requests-reset": "2999-01-01T00:00:00Z",
    "anthropic-ratelimit-tokens-remaining": "0",
    "anthropic-ratelimit-tokens-reset": "2020-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("fault", "error", "wait", "limited"),
    [
        (Status(429, "rate_limit_error", headers=SOON), TransientError, 7.0, True),
        (Status(429, "rate_limit_error", headers=RESETS), TransientError, 0.0, True),
        (Status(429, "rate_limit_error"), TransientError, None, True),
        (Status(529, "overloaded_error"), TransientError, None, True),
        (Status(500), TransientError, None, False),
        (Status(503, headers={"retry-after-ms": "1500"}), TransientError, 1.5, False),
        (Status(408, "timeout_error"), TransientError, None, False),
        (Status(409, "conflict_error"), TransientError, None, False),
        (Cut(), TransientError, None, False),
        (Cut(after=True), TransientError, None, False),
        (Garbage(), TransientError, None, False),
        (Garbage("{", "application/json"), TransientError, None, False),
        (Garbage('{"a": 1}', "application/json"), TransientError, None, False),
        (Status(400, "invalid_request_error", "prompt is too long"), RefusedError, None, False),
        (Status(413, "request_too_large"), RefusedError, None, False),
        (Status(422, "invalid_request_error"), RefusedError, None, False),
        (Status(400, "invalid_request_error", "Your credit balance is too low"), AuthError, None, False),
        (Status(401, "authentication_error"), AuthError, None, False),
        (Status(402, "billing_error"), AuthError, None, False),
        (Status(403, "permission_error"), AuthError, None, False),
        (Status(404, "not_found_error"), AuthError, None, False),
    ],
)
def test_failures_are_typed_and_tried_once(
    fault: Fault, error: type[BackendError], wait: float | None, limited: bool
) -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        server.fail("messages", fault)
        with pytest.raises(error) as caught:
            await backend.complete(ask("q"))
        assert server.calls["messages"] == 1
        if isinstance(caught.value, TransientError):
            assert (caught.value.retry_after_s, caught.value.rate_limited) == (wait, limited)
        assert (await backend.complete(ask("q"))).text == "you said: q"

    run(work)


def test_deadline() -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        server.fail("messages", Slow(5.0))
        with pytest.raises(TransientError, match="no answer from") as caught:
            await backend.complete(ask("q"))
        assert caught.value.maybe_billed

    run(work, timeout_s=0.2)


@pytest.mark.parametrize(
    ("fault", "billed"),
    [
        (Status(429, "rate_limit_error"), False),
        (Status(529, "overloaded_error"), False),
        (Status(500), False),
        (Status(502), True),
        (Status(504, "timeout_error"), True),
        (Cut(), True),
        (Cut(after=True), True),
        (Garbage(), True),
        (Garbage("{", "application/json"), True),
        (Garbage('{"a": 1}', "application/json"), True),
    ],
)
def test_a_call_that_was_sent_and_lost_may_have_been_billed(fault: Fault, billed: bool) -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        server.fail("messages", fault)
        with pytest.raises(TransientError) as caught:
            await backend.complete(ask("q"))
        assert caught.value.maybe_billed is billed

    run(work)


def test_nobody_listens() -> None:
    async def main() -> None:
        server = await FakeAnthropic().start()
        await server.stop()
        backend = AnthropicBackend(spec(server))
        await backend.start()
        with pytest.raises(TransientError, match="failed: ClientConnectorError") as caught:
            await backend.complete(ask("q"))
        assert not caught.value.maybe_billed
        await backend.close()

    asyncio.run(main())


def test_the_key_comes_from_the_environment_and_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-123")

    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        await backend.complete(ask("q"))
        assert (
            server.headers[0]
            .get("x-api-key", server.headers[0].get("Authorization", ""))
            .endswith("sk-secret-123")
        )
        server.api_key = "another"  # from here on its 401 quotes the key that was sent
        with pytest.raises(AuthError) as caught:
            await backend.complete(ask("q"))
        assert "sk-secret" not in str(caught.value) and "***" in str(caught.value)

    run(work, api_key_env="JUDGE_KEY")


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    here: dict[str, Any] = {"base_url": "http://x", "api_key_env": "NO_SUCH_KEY"}
    for name, about in (("ANTHROPIC_API_KEY", {}), ("NO_SUCH_KEY", here)):
        backend = AnthropicBackend(BackendSpec(kind="anthropic", model=MODEL, **about))
        with pytest.raises(ConfigError, match=f"{name} is not set"):
            asyncio.run(backend.start())


def test_many_at_once() -> None:
    async def work(server: FakeAnthropic, backend: AnthropicBackend) -> None:
        server.latency_s = 0.05
        answers = await asyncio.gather(*(backend.complete(ask(f"q{i}")) for i in range(40)))
        assert [a.text for a in answers] == [f"you said: q{i}" for i in range(40)]
        assert server.peak_in_flight > 8

    run(work, concurrency=40)
