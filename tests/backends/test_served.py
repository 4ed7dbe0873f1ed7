"""What a server lists, asked through the real clients, and the advice for its refusals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.fakes.anthropic_server import FakeAnthropic, Status
from tests.fakes.openai_server import FakeServer
from videop2r_data.backends import make_backend
from videop2r_data.backends.breaker import UNKNOWN, what_to_change
from videop2r_data.backends.openai.wire import parse_models
from videop2r_data.errors import AuthError, TransientError
from videop2r_data.schemas.calls import ListsModels, ServedModel
from videop2r_data.schemas.judges import BackendSpec


async def listed(**spec: Any) -> list[ServedModel] | None:
    backend = make_backend(BackendSpec(**spec))
    assert isinstance(backend, ListsModels)
    await backend.start()
    try:
        return await backend.models()
    finally:
        await backend.close()


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def started() -> Any:
        return await main()

    return asyncio.run(started())


def test_an_openai_server_lists_its_models_with_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "right")

    async def main() -> None:
        async with FakeServer(models=["a", "b"], max_model_len=4096, key="right") as server:
            spec = {"kind": "openai", "model": "a", "base_url": server.url + "/?v=1"}
            assert await listed(**spec, api_key_env="KEY") == [ServedModel("a", 4096), ServedModel("b", 4096)]
            with pytest.raises(AuthError, match="401"):
                await listed(**spec)
            assert server.requests == 0
        async with FakeServer(models=[]) as server:
            assert await listed(kind="openai", model="a", base_url=server.url) is None

    run(main)


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
        run(lambda: listed(kind="openai", model="m", base_url=url))


def test_an_anthropic_account_lists_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")

    async def main() -> None:
        async with FakeAnthropic() as server:
            server.models = ["claude-x"]
            spec = {"kind": "anthropic", "model": "claude-x", "base_url": server.url}
            assert await listed(**spec) == [ServedModel("claude-x", prompt=200_000)]
            server.fail("models", Status(404, "not_found_error"))
            assert await listed(**spec) is None
            server.fail("models", Status(401, "authentication_error"))
            with pytest.raises(AuthError):
                await listed(**spec)

    run(main)


@pytest.mark.parametrize("data", [None, [], {"data": 1}, {"models": []}, "page"])
def test_what_is_no_list_is_none(data: Any) -> None:
    assert parse_models(data) is None


def test_odd_entries_of_a_list_are_left_out() -> None:
    data = {
        "data": [{"id": 3}, "x", {"id": "m", "max_model_len": "long"}, {"id": "n", "max_model_len": True}]
    }
    assert parse_models(data) == [ServedModel("m"), ServedModel("n")]


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "This model's maximum context length is 2048 tokens. However, you requested 3100",
            "--max-model-len",
        ),
        ("prompt is too long: 212000 tokens > 200000 maximum", "--max-model-len"),
        ("At most 0 image(s) may be provided in one prompt.", "--limit-mm-per-prompt"),
        ("image input is not supported by this model", "vision-language"),
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "extra.max_tokens_field",
        ),
        ("Unsupported value: 'temperature' does not support 0.0 with this model.", "temperature"),
        ("Unrecognized request argument supplied: top_k", "extra.body"),
        ("needs --trust-request-mm-kwargs", "extra.video"),
        ("status 413: Request Entity Too Large", "media.quality"),
        ("Conversation roles must alternate user/assistant", "chat template"),
        ("no", UNKNOWN),
    ],
)
def test_a_refusal_says_what_to_change(said: str, advice: str) -> None:
    assert advice in what_to_change(said)
