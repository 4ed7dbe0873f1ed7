from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys

import pytest

from videop2r_data.backends.kinds import make_backend
from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.schemas.calls import Backend, Completion, Frames, Request
from videop2r_data.schemas.recipe import BackendSpec, MediaSpec


def spec(kind: str) -> BackendSpec:
    return BackendSpec.model_validate({"kind": kind, "model": "m", "base_url": "http://localhost:1/v1"})


@pytest.mark.parametrize(
    ("kind", "wants"),
    [("openai", "encoded"), ("anthropic", "encoded"), ("vllm", "array"), ("transformers", "array")],
)
def test_each_kind_gives_its_backend(kind: str, wants: str) -> None:
    backend = make_backend(spec(kind), media=MediaSpec())
    assert isinstance(backend, Backend)
    assert (backend.name, backend.model, backend.wants) == (kind, "m", wants)


def test_the_demo_backend_is_handed_in() -> None:
    class Demo:
        name = "demo"
        model = "m"
        wants = "none"

        async def start(self) -> None: ...
        async def close(self) -> None: ...
        async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
            return Completion(text="", finish_reason="stop", model="m")

    def make(_: BackendSpec) -> Backend:
        return Demo()  # type: ignore[return-value]

    assert isinstance(make_backend(spec("demo"), media=MediaSpec(), demo=make), Demo)
    with pytest.raises(ConfigError, match="demo"):
        make_backend(spec("demo"), media=MediaSpec())


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_missing_library_is_named_with_its_extra(kind: str) -> None:
    if importlib.util.find_spec("torch") or importlib.util.find_spec("vllm"):
        pytest.skip("the library is installed here")
    backend = make_backend(spec(kind), media=MediaSpec())
    with pytest.raises(
        MissingExtraError, match=rf'pip install .*\[{"vllm" if kind == "vllm" else "train"}\]"'
    ):
        asyncio.run(backend.start())


def test_nothing_heavy_is_imported_with_the_room() -> None:
    code = (
        "import sys, videop2r_data.backends.kinds, videop2r_data.backends.local.vllm,"
        " videop2r_data.backends.local.transformers, videop2r_data.backends.limiter;"
        "heavy = ('torch', 'vllm', 'transformers', 'aiohttp', 'anthropic', 'av', 'PIL');"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
