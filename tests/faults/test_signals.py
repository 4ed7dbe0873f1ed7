"""SIGSTOP, SIGTERM and SIGKILL of each kind of process, while calls and files are under way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.faults.proxy import Exchange, Plan, answer
from tests.faults.world import PASS, ROWS, UNDER_WAY, Gate, World, finish, nothing_lost_nor_paid_again, until
from tests.integration.test_build import question, write_pool

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_stopped_driver_goes_on_and_takes_what_came_meanwhile(world: World, gate: Gate) -> None:
    """Stopped for longer than any call may take: the answers lie in the sockets, and none is asked for again."""
    recipe = world.recipe("set", timeout_s=15.0)
    with world.start(recipe=recipe) as process:
        gate.wait_until_full()
        process.send_signal(signal.SIGSTOP)
        gate.is_open = True
        time.sleep(18.0)
        process.send_signal(signal.SIGCONT)
        ended = finish(process)
    assert ended.code == 0, ended.text
    assert world.server.requests == 2 * ROWS, "an answer that had come was paid for again"
    assert world.build(world.out, recipe=world.recipe()).code == 0
    nothing_lost_nor_paid_again(world)


def heard(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a first signal, and wait until the build says that it lets the calls under way come back."""
    process.send_signal(number)
    assert process.stderr is not None
    next(line for line in process.stderr if "finishing the calls under way" in line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_calls_under_way_come_back(
    world: World, gate: Gate, number: signal.Signals
) -> None:
    with world.start() as process:
        gate.wait_until_full()
        heard(process, number)
        gate.is_open = True
        ended = finish(process)
    assert ended.code == 3 and "Stopped" in ended.stdout, ended.text
    assert world.kept_calls(world.out) == world.proxy.given.total() == world.server.requests
    assert world.build(world.out).code == 0
    nothing_lost_nor_paid_again(world)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_ends_at_once_costs_what_was_under_way(
    world: World, gate: Gate, second: signal.Signals
) -> None:
    """What was under way, eight calls to each model, is asked once more, and not one call more than that."""
    with world.start() as process:
        gate.wait_until_full()
        if second == signal.SIGTERM:
            heard(process, signal.SIGTERM)
        process.send_signal(second)
        ended = finish(process)
    assert ended.code == (-9 if second == signal.SIGKILL else 3), ended.text
    kept = world.kept_calls(world.out)
    assert kept == PASS, "what came through before is kept"
    gate.is_open = True
    assert world.build(world.out).code == 0
    assert world.server.requests == 2 * ROWS + UNDER_WAY
    nothing_lost_nor_paid_again(world, beyond=UNDER_WAY)


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pictures(world: World) -> Path:
    """A pool of pictures, and a recipe with one decoder."""
    folder = world.folder / str(world.story)
    folder.mkdir()
    for i in range(ROWS):
        Image.new("RGB", (1800, 1800), (i, 7, 7)).save(folder / f"{i}.png")
    write_pool(folder, [question(i, data_type="image", path=f"./{i}.png") for i in range(ROWS)])
    made = world.recipe()
    settings = json.loads(made.read_text())
    settings["media"] = {"workers": 1, "limits": {"wall_s": 8.0}}
    path = folder / "set.yaml"
    path.write_text(json.dumps(settings))
    return path


def build_while(world: World, recipe: Path, out: str, does: Callable[[int], None]) -> tuple[int, str]:
    """A build to whose process something is done while files are decoded; how it ended, and what it said.

    Its calls get no answer before that, so that it cannot be over by then.
    """
    done = threading.Event()

    async def wait(exchange: Exchange) -> bool:
        while not done.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)
        await exchange.send(answer(200, (await exchange.ask())[2]))
        return True

    world.proxy.reset(Plan(faults=("wait",), share=1.0))
    world.proxy.extra["wait"] = wait
    with world.start(out=f"{world.story}/{out}/set", recipe=recipe) as process:
        until(lambda: world.proxy.asked)
        does(process.pid)
        done.set()
        ended = finish(process)
    assert world.proxy.given.total() == len(world.proxy.given) == 2 * ROWS
    return ended.code, ended.text


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL])
def test_a_decoder_that_is_stopped_or_killed_costs_no_file(world: World, number: signal.Signals) -> None:
    """A stopped one is replaced after `limits.wall_s`; its file is not at fault."""
    recipe = pictures(world)

    def signal_decoders(pid: int) -> None:
        found = children(pid)
        assert found, "there is a decoder"
        for child in found:
            os.kill(child, number)

    assert build_while(world, recipe, "a", lambda _: None)[0] == 0
    code, text = build_while(world, recipe, "b", signal_decoders)
    assert code == 0 and "0 failed" in text, text
    assert world.digests(f"{world.story}/a/set") == world.digests(f"{world.story}/b/set")


def test_a_driver_that_is_stopped_blames_no_file_for_it(world: World) -> None:
    """Longer than a file may take to decode: the decoders were done long ago, and nobody read it."""
    recipe = pictures(world)

    def rest(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(10.0)
        os.kill(pid, signal.SIGCONT)

    code, text = build_while(world, recipe, "a", rest)
    assert code == 0 and "0 failed" in text, text
