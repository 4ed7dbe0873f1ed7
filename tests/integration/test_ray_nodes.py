"""A node of a Ray cluster is lost in the middle of a build, with the frames that it held."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_resume import digests, write_recipe
from benchmarks.throughput import get, server, write_pool
from tests.integration.test_ray import Watch, locally, on_ray
from videop2r_data.builders import BuildReport
from videop2r_data.builders.cluster import FarSampler

ray: Any = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
ROWS, IN_FLIGHT = 18, 2


@pytest.fixture
def nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster of a head without CPUs and one node that works, all on this machine."""
    from ray.cluster_utils import Cluster

    small = {"include_dashboard": False, "object_store_memory": 150 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    node = cluster.add_node(num_cpus=1, object_store_memory=150 * 2**20)
    ray.init(cluster.address, log_to_driver=False, logging_level="error")
    try:
        yield cluster, node
    finally:
        ray.shutdown()
        with suppress(Exception):  # one of its nodes is gone
            cluster.shutdown()
        gc.collect()  # its processes' objects, while their warnings are ignored


def test_what_a_lost_node_had_is_done_by_others(
    tmp_path: Path, nodes: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, node = nodes
    decodes = 0
    sample = FarSampler.sample

    async def counting(self: FarSampler, *arguments: Any) -> Any:
        nonlocal decodes
        decodes += 1
        return await sample(self, *arguments)

    monkeypatch.setattr(FarSampler, "sample", counting)
    watch = Watch()

    async def lose() -> None:
        while watch.decoded < watch.rows + IN_FLIGHT + 2:  # noqa: ASYNC110 - frames wait for their call
            await asyncio.sleep(0.05)
        assert watch.decoded > watch.rows, "no frames wait for their call"
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=150 * 2**20)

    async def main(recipe: Path) -> BuildReport:
        losing = asyncio.ensure_future(lose())
        report = await on_ray(recipe, tmp_path / "b" / "set", watch)
        await losing
        return report

    with server(2.0) as url:
        write_pool(tmp_path, ROWS, "clips")
        recipe = write_recipe(tmp_path, url)
        text = json.loads(recipe.read_text())
        text["generate"]["backend"]["concurrency"] = IN_FLIGHT
        del text["judge"]  # it needs no frames: what waits for it would hide what waits with them
        recipe.write_text(json.dumps(text))
        expected = locally(recipe, tmp_path / "a" / "set")
        get(url, "reset")
        report = asyncio.run(main(recipe))
        assert report.state == "complete" and report.unanswered == 0
        assert digests(tmp_path / "b" / "set") == expected
        assert get(url, "stats")["repeats"] <= IN_FLIGHT
        assert report.media_decoded == ROWS < decodes  # frames were lost, and decoded again
