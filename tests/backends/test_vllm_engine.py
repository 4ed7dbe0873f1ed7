"""VllmBackend in the vLLM environment: a real engine with a tiny random model, on CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import clip_frames, image_frames, request
from videop2r_data.backends.local.vllm import VllmBackend
from videop2r_data.backends.money import media_tokens
from videop2r_data.errors import BackendError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.judges import BackendSpec

pytest.importorskip("vllm")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]
ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 2048,
    "gpu_memory_utilization": 0.4,
    "limit_mm_per_prompt": {"image": 1, "video": 1},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from tests.tiny_model import make_tiny_model

    yield make_tiny_model(tmp_path_factory.mktemp("tiny"))


def spec(model: Path, **changes: Any) -> BackendSpec:
    return BackendSpec.model_validate(
        {"kind": "vllm", "model": str(model), "extra": ENGINE, "timeout_s": 120.0, **changes}
    )


def test_one_engine_answers_text_image_and_video(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")

    async def run() -> None:
        backend = VllmBackend(spec(model))
        with pytest.raises(BackendError, match="not started"):
            await backend.complete(request("q"))
        await backend.start()
        try:
            plain = await backend.complete(request("Look.", max_tokens=4))
            clip, picture = clip_frames(16, height=56, width=84, every=4), image_frames(height=84, width=56)
            for frames in (clip, picture):
                asked = request("Look.", frames=frames, max_tokens=4)
                both = await asyncio.gather(backend.complete(asked, frames), backend.complete(asked, frames))
                assert both[0] == both[1]
                assert both[0].usage.output_tokens <= 4
                # Every frame counts, none is resized: the tokens of the patches, and two markers around them.
                expected = plain.usage.input_tokens + media_tokens(frames.record) + 2
                assert both[0].usage.input_tokens == expected
            with pytest.raises(RefusedError):
                await backend.complete(request("word " * 5000))
            with pytest.raises(BackendError, match="as an array"):
                bare = Frames(clip.record, encoded=clip.encoded)
                await backend.complete(request("q", frames=clip), bare)
            task = asyncio.create_task(backend.complete(request("Go on", max_tokens=1500)))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            backend._spec = spec(model, timeout_s=0.05)
            with pytest.raises(TransientError, match=r"within 0\.05 s"):
                await backend.complete(request("Go on", max_tokens=1500))
            backend._spec = spec(model)
            assert (await backend.complete(request("Look.", max_tokens=4))).text == plain.text
        finally:
            await backend.close()
            await backend.close()

    asyncio.run(run())


def test_an_unknown_engine_argument_is_named(model: Path) -> None:
    backend = VllmBackend(spec(model, extra={"tensor_paralel_size": 8}))
    with pytest.raises(ConfigError, match="tensor_paralel_size"):
        asyncio.run(backend.start())
