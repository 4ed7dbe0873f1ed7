"""vLLM in this process, a vLLM server and transformers on one tiny model: one answer to every row.

Runs in the environment of `scripts/vllm_env.sh` (`make test-vllm`); skipped elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from tests.vllm_rows import Call, calls_of, make_recipe, write_pool
from tests.vllm_server import ENGINE, make_model, serve
from videop2r_data.backends import make_backend
from videop2r_data.backends.chat_input import video_metadata
from videop2r_data.schemas.calls import Completion
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.recipe import Recipe
from videop2r_data.schemas.sample import DataType

pytest.importorskip("vllm")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]
POSITIONS_PER_SECOND = 4


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
        made = make_backend(spec)
        await made.start()
        try:
            named = [replace(c.request, model=spec.model) for c in calls]
            return await asyncio.gather(
                *(made.complete(r, c.frames) for r, c in zip(named, calls, strict=True))
            )
        finally:
            await made.close()

    return asyncio.run(run())


def lasts_longer_than_its_sides(call: Call) -> bool:
    """Whether the time axis gives the clip's highest position, which transformers alone leaves out."""
    if call.frames is None or call.frames.record.data_type == "image":
        return False
    record, about = call.frames.record, video_metadata(call.frames.record)
    seconds = 2 * about["total_num_frames"] / (about["fps"] * record.count)
    last = int((ceil(record.count / 2) - 1) * seconds * POSITIONS_PER_SECOND)
    return last >= max(record.height, record.width) // 28


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
    assert [a.text for a in inside] == [a.text for a in served]
    assert [a.usage for a in inside] == [a.usage for a in served]
    assert [a.usage for a in inside] == [a.usage for a in local]
    assert [a.text for a in inside] == [a.text for a in local]
    assert {c.sample.data_type for c in calls} == set(DataType)
    assert any(lasts_longer_than_its_sides(call) for call in calls)
