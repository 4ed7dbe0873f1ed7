"""vLLM engines as actors on Ray, on the CPU with the tiny model: the bytes of a local build, after a kill too.

Runs in the environment of `scripts/vllm_env.sh` (`make test-vllm`); skipped elsewhere.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_resume import digests
from tests.integration.test_ray import Watch, killing
from tests.vllm_rows import make_recipe, write_pool
from tests.vllm_server import ENGINE, cpu_environment, make_model
from videop2r_data.builders import OnRay, Workspace, build
from videop2r_data.cards.card import write_dataset_card

pytest.importorskip("vllm")
ray: Any = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),  # of vLLM and Ray
]


@pytest.fixture(autouse=True)
def own_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A Ray whose actors have the environment of a small engine."""
    for name, value in cpu_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OF_THIS_TEST", str(tmp_path))
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield
    finally:
        ray.shutdown()
        gc.collect()  # its processes' objects, while their warnings are ignored


def engines(tmp_path: Path) -> list[str]:
    """Processes of vLLM's engines that this test brought about."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = f"OF_THIS_TEST={tmp_path}".encode() in (folder / "environ").read_bytes()
            if ours and b"EngineCore" in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_an_engine_that_is_killed_is_replaced_and_the_bytes_stay(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    backend = {"kind": "vllm", "model": str(model), "extra": ENGINE, "concurrency": 2}
    recipe = make_recipe(write_pool(tmp_path / "pool"), backend, attempts=3)

    async def run(name: str, watch: Watch, on_ray: OnRay | None) -> dict[str, str]:
        place = Workspace.at(tmp_path / name, base=tmp_path)
        report = await build(recipe, place, observer=watch, card=write_dataset_card, executor=on_ray)
        assert report.calls_made and not report.unanswered, report
        return digests(tmp_path / name)

    async def far() -> dict[str, str]:
        watch = Watch()
        async with killing(["CallerActor"], watch) as killed:
            building = asyncio.ensure_future(run("far", watch, OnRay(actors=1, gpus=0)))
            while not (seen := engines(tmp_path)) and not building.done():  # noqa: ASYNC110
                await asyncio.sleep(1)
            found = await building
        assert killed and not Path(f"/proc/{killed[0]}").exists()
        for _ in range(60):  # engines hold memory of GPUs: they end with their actors
            if not engines(tmp_path):
                break
            await asyncio.sleep(1)
        assert seen and not engines(tmp_path)
        return found

    assert asyncio.run(far()) == asyncio.run(run("here", Watch(), None))
