"""One of several servers that answers others' questions, and processes of `--serve` that are stopped or killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.faults.proxy import Plan
from tests.faults.world import ROWS, World, until
from tests.integration.test_serve import House, finish

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_server_that_mixes_up_its_answers_is_left_out_and_costs_no_row(world: World) -> None:
    """It is told with its name and why, its calls go to the other one, and every row has its own answer."""
    world.server.names_calls = True
    made = json.loads(world.recipe().read_text())
    for step in ("generate", "judge"):
        made[step]["backend"]["base_urls"] = [made[step]["backend"].pop("base_url"), world.server.url]
    path = world.folder / "two.yaml"
    path.write_text(json.dumps(made))
    ended = world.build(world.out, plan=Plan(faults=("swap",), share=1.0, times=10**9), recipe=path)
    assert ended.code == 0, ended.text
    assert f"{world.proxy.url} is left out for" in ended.text, ended.text
    assert "the answer belongs to another question" in ended.text
    mixed = world.proxy.met["swap"] - world.proxy.given.total()
    assert mixed > 0 and world.server.requests == 2 * ROWS + mixed, "only what was mixed up is made again"
    assert world.digests(world.out) == world.clean


@pytest.mark.parametrize(("which", "number"), [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_process_of_serve_that_is_stopped_or_killed_costs_no_row(
    tmp_path: Path, which: int, number: signal.Signals
) -> None:
    """A server, or its guard. Its calls go to the other server, or to a fresh one; nothing outlives the build, a stopped one neither."""
    house = House(tmp_path, rows=1000)
    house.recipe["generate"]["backend"]["timeout_s"] = 3.0
    with house.start("--serve") as process:
        segments = (tmp_path / "set.build" / "journal").glob
        until(lambda: any(path.stat().st_size for path in segments("segment-*.jsonl")))
        os.kill(house.told()[0]["pids"][which], number)
        code, said = finish(process)
    assert code == 0 and "1,000 kept" in said, said
    house.gone()
