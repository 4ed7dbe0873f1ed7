"""A real vLLM server, held against the same engine in process: same pixels, same times, same answer."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.backends.calls import clip_frames, image_frames, request
from videop2r_data.backends.openai import OpenAIBackend
from videop2r_data.backends.pricing import media_tokens
from videop2r_data.backends.vllm_engine import VllmBackend
from videop2r_data.errors import AuthError, RefusedError
from videop2r_data.schemas.calls import Backend, Completion, Frames
from videop2r_data.schemas.recipe import BackendSpec

pytest.importorskip("vllm")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]
START_S = 240.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def base_url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "2048", "--gpu-memory-utilization", "0.4"]
    command += ["--trust-request-mm-kwargs"]
    command += ["--limit-mm-per-prompt", '{"image":1,"video":1}']
    log = tmp_path_factory.mktemp("log") / "server.txt"
    with log.open("wb") as sink:
        server = subprocess.Popen(
            command, stdout=sink, stderr=sink, env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the vLLM server did not start:\n" + log.read_text(errors="replace")[-3000:])


def as_png(frames: Frames) -> Frames:
    """The same pixels, encoded without loss."""
    assert frames.array is not None
    pictures = []
    for picture in frames.array:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    return Frames(frames.record, array=frames.array, encoded=tuple(pictures), mime="image/png")


CASES: list[Frames | None] = [
    None,
    as_png(image_frames(height=84, width=56)),
    as_png(clip_frames(16, height=56, width=84, every=4)),
    as_png(clip_frames(5, fps=29.97, every=31)),
]


async def _ask(backend: Backend, model: str) -> list[Completion]:
    await backend.start()
    try:
        calls = [(request("Look.", frames=f, max_tokens=12, model=model), f) for f in CASES]
        return await asyncio.gather(*(backend.complete(*call) for call in calls))
    finally:
        await backend.close()


def test_over_http_and_in_process_are_one_model(
    model: Path, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    spec = BackendSpec(kind="openai", model=str(model), base_url=base_url, timeout_s=120)
    served = asyncio.run(_ask(OpenAIBackend(spec, encoding="png"), str(model)))
    plain = served[0].usage.input_tokens
    for frames, answer in zip(CASES[1:], served[1:], strict=True):
        assert frames is not None
        assert answer.usage.input_tokens == plain + media_tokens(frames.record) + 2
    engine = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.4,
        "limit_mm_per_prompt": {"image": 1, "video": 1},
    }
    local = BackendSpec(kind="vllm", model=str(model), extra=engine, timeout_s=120)
    inside = asyncio.run(_ask(VllmBackend(local), str(model)))
    assert [a.text for a in inside] == [a.text for a in served]
    assert [a.usage for a in inside] == [a.usage for a in served]


def test_what_the_server_refuses_is_typed(model: Path, base_url: str) -> None:
    async def run() -> None:
        spec = BackendSpec(kind="openai", model=str(model), base_url=base_url, timeout_s=120)
        backend = OpenAIBackend(spec, encoding="png")
        await backend.start()
        try:
            with pytest.raises(RefusedError, match="2048"):
                await backend.complete(request("word " * 5000, model=str(model)))
            with pytest.raises(AuthError, match="does not exist"):
                await backend.complete(request("q", model="another/model"))
        finally:
            await backend.close()

    asyncio.run(run())
