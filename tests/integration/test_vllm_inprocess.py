"""vLLM in this process, a vLLM server and transformers, on one tiny model: one and the same answer to every row.

Runs in the environment of `scripts/vllm_env.sh` (`make test-vllm`); skipped elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.vllm_rows import Call, calls_of, make_recipe, write_pool
from tests.vllm_server import ENGINE, make_model, serve
from videop2r_data.backends.factory import make_backend
from videop2r_data.schemas.calls import Completion
from videop2r_data.schemas.recipe import BackendSpec, Recipe

pytest.importorskip("vllm")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recipe(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    pool = write_pool(tmp_path_factory.mktemp("pool"))
    return make_recipe(pool, {"kind": "vllm", "model": str(model), "extra": ENGINE})


@pytest.fixture(scope="module")
def calls(recipe: Recipe) -> list[Call]:
    return calls_of(recipe, Path(recipe.sources[0].path))


def ask(recipe: Recipe, calls: Sequence[Call], **backend: Any) -> list[Completion]:
    """All at once, by the backend that a recipe with these settings would get."""

    async def run() -> list[Completion]:
        spec = BackendSpec.model_validate({"timeout_s": 120.0, **backend})
        made = make_backend(spec, media=recipe.media)
        await made.start()
        try:
            named = [replace(c.request, model=spec.model) for c in calls]
            return await asyncio.gather(
                *(made.complete(r, c.frames) for r, c in zip(named, calls, strict=True))
            )
        finally:
            await made.close()

    return asyncio.run(run())


def test_three_ways_to_one_model_agree(
    model: Path,
    recipe: Recipe,
    calls: list[Call],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    inside = ask(recipe, calls, kind="vllm", model=str(model), extra=ENGINE)
    with serve(model, tmp_path / "server.txt") as server:
        served = ask(recipe, calls, kind="openai", model=server.model, base_url=server.base_url)
    local = ask(recipe, calls, kind="transformers", model=str(model), extra={"dtype": "float32"})
    for call, *answers in zip(calls, inside, served, local, strict=True):
        where = call.sample.path or call.sample.sample_id
        assert len({a.text for a in answers}) == 1, (where, [a.text for a in answers])
        assert len({a.usage.input_tokens for a in answers}) == 1, where
        assert len({a.usage.output_tokens for a in answers}) == 1, where
    assert len({a.text for a in inside}) == len(calls), "every row is answered for itself"
