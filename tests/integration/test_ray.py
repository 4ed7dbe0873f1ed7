"""A build on Ray: the bytes of a local one, whoever is killed; limits and errors hold over all actors."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill_resume import CONCURRENCY, digests, finish, start, write_recipe
from benchmarks.throughput import get, server, write_pool
from tests.integration.test_two_processes import bill, priced
from videop2r_data.builders import BuildReport, Observer, OnRay, Stop, Workspace, build
from videop2r_data.cards.card import write_dataset_card
from videop2r_data.cli.common import _code
from videop2r_data.errors import AuthError, AwayError, ConfigError, P2RError
from videop2r_data.recipes import read_recipe

ray: Any = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


class Watch(Observer):
    """An observer that knows how many rows are done and files decoded."""

    @property
    def rows(self) -> int:
        return sum(self.now().counts.values())

    @property
    def decoded(self) -> int:
        return self.now().made.get("decode", 0)


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    """A Ray of two CPUs for all tests: starting one takes longer than a build."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()
        gc.collect()  # its processes' objects, while their warnings are ignored


async def on_ray(
    recipe: Path,
    out: Path,
    watch: Watch | None = None,
    *,
    actors: int | None = None,
    work: str | None = None,
    **flags: Any,
) -> BuildReport:
    made, base = read_recipe(str(recipe))
    made = made.model_copy(update=flags)
    place = Workspace.at(out, base=base, work=work)
    watch = watch or Watch()
    card = write_dataset_card
    return await build(made, place, observer=watch, card=card, stop=Stop(), executor=OnRay(actors))


def locally(recipe: Path, out: Path) -> dict[str, str]:
    made, base = read_recipe(str(recipe))
    place = Workspace.at(out, base=base)
    asyncio.run(build(made, place, observer=Watch(), card=write_dataset_card))
    return digests(out)


def actors(kind: str) -> set[int]:
    """Processes of the actors of a class."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if (folder / "cmdline").read_bytes().startswith(f"ray::{kind}".encode()):
                found.add(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.parametrize(("media", "rows"), [("text", 40), ("clips", 6)])
def test_the_bytes_are_those_of_a_local_build(tmp_path: Path, media: str, rows: int) -> None:
    with server(0.02) as url:
        write_pool(tmp_path, rows, media)
        recipe = write_recipe(tmp_path, url)
        expected = locally(recipe, tmp_path / "a" / "set")
        alone = get(url, "stats")["requests"]
        get(url, "reset")
        watch = Watch()
        report = asyncio.run(on_ray(recipe, tmp_path / "b" / "set", watch, actors=2))
        stats = get(url, "stats")
        assert report.calls_made == stats["requests"] == alone and stats["repeats"] == 0
        assert report.media_decoded == (rows if media == "clips" else 0)
        assert digests(tmp_path / "b" / "set") == expected
        made = watch.now().made
        assert report.calls_made == sum(made[name] for name in made.keys() - {"found", "decode"})
        assert watch.decoded == report.media_decoded
        again = asyncio.run(on_ray(recipe, tmp_path / "b" / "set"))
        assert again.calls_made == 0 and get(url, "stats")["requests"] == alone


@asynccontextmanager
async def killing(kinds: list[str], watch: Watch) -> AsyncIterator[list[int]]:
    """Kill an actor of each kind with SIGKILL, one after the other, while work goes on."""
    killed: list[int] = []

    async def kill() -> None:
        for kind in kinds:
            before = watch.rows
            while watch.rows < before + 3 or not actors(kind) - set(killed):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            killed.append(min(actors(kind) - set(killed)))
            os.kill(killed[-1], signal.SIGKILL)

    task = asyncio.ensure_future(kill())
    try:
        yield killed
    finally:
        task.cancel()


@pytest.mark.parametrize("work", [None, "s3://bucket/ray"])
def test_killed_actors_lose_nothing_and_cost_only_what_was_under_way(
    work: str | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if work is not None:
        request.getfixturevalue("s3")
    kinds = ["DecoderActor", "CallerActor", "CallerActor"]
    with server(0.5) as url:
        write_pool(tmp_path, 120, "fits")
        recipe = write_recipe(tmp_path, url)
        expected = locally(recipe, tmp_path / "a" / "set")
        get(url, "reset")
        watch = Watch()

        async def main() -> BuildReport:
            async with killing(kinds, watch) as killed:
                report = await on_ray(recipe, tmp_path / "b" / "set", watch, work=work)
                assert len(killed) == len(kinds)
                return report

        report = asyncio.run(main())
        assert report.state == "complete" and report.unanswered == 0
        assert digests(tmp_path / "b" / "set") == expected
        assert get(url, "stats")["repeats"] <= 2 * CONCURRENCY


def test_the_limit_of_money_holds_over_all_actors(tmp_path: Path) -> None:
    with server(0.02) as url:
        recipe, limit = priced(tmp_path, url, 150), 1.0
        report = asyncio.run(on_ray(recipe, tmp_path / "set", actors=2, max_cost=limit))
        assert report.state == "over_budget"
        assert 0.7 < bill(url) <= limit
        assert report.spent.finished_usd == pytest.approx(bill(url))


def test_a_refused_key_ends_the_run(tmp_path: Path) -> None:
    with server(0.0) as url:
        write_pool(tmp_path, 8, "text")
        script = json.dumps([{"status": 401}] * 64).encode()
        subprocess.run(["curl", "-s", "-X", "POST", "--data-binary", "@-", f"{url}/script"], input=script)
        with pytest.raises(AuthError, match="401") as caught:
            asyncio.run(on_ray(write_recipe(tmp_path, url), tmp_path / "set"))
        assert _code(caught.value) == 1


def test_a_server_that_is_away_is_waited_for_and_then_told(tmp_path: Path) -> None:
    write_pool(tmp_path, 8, "text")
    recipe = write_recipe(tmp_path, "http://127.0.0.1:9/v1")
    text = json.loads(recipe.read_text())
    text["generate"]["backend"]["server_wait_s"] = 1.0
    recipe.write_text(json.dumps(text))
    with pytest.raises(AwayError, match="could not be reached for 1 s") as caught:
        asyncio.run(on_ray(recipe, tmp_path / "set"))
    assert _code(caught.value) == 3


def test_a_key_that_a_node_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys never travel: here the driver has it, and the node, started before, does not."""
    monkeypatch.setenv("KEY_OF_THIS_TEST", "secret")
    write_pool(tmp_path, 2, "text")
    recipe = write_recipe(tmp_path, "http://127.0.0.1:9/v1")
    text = json.loads(recipe.read_text())
    text["generate"]["backend"]["api_key_env"] = "KEY_OF_THIS_TEST"
    recipe.write_text(json.dumps(text))
    with pytest.raises(ConfigError, match="KEY_OF_THIS_TEST"):
        asyncio.run(on_ray(recipe, tmp_path / "set"))


def test_the_first_signal_drains_and_the_same_command_goes_on(tmp_path: Path, address: str) -> None:
    """As at a terminal: Ctrl-C reaches the whole group of processes."""
    with server(1.0) as url:
        write_pool(tmp_path, 400, "text")
        recipe, out = write_recipe(tmp_path, url), tmp_path / "set"
        os.environ["RAY_ADDRESS"] = address
        try:
            process = start(recipe, out, "--executor", "ray")
            while get(url, "stats")["answered"] < 20:
                assert process.poll() is None
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGINT)
            told, errors = process.communicate()
            report, seen = json.loads(told), get(url, "stats")
            assert process.returncode == 3, errors
            assert report["state"] == "interrupted" and report["calls_made"] == seen["answered"]
            assert seen["requests"] == seen["answered"] < 800
            last = finish(start(recipe, out, "--executor", "ray"))
            stats = get(url, "stats")
            assert last["state"] == "complete" and last["calls_found"] >= report["calls_made"]
            assert stats["repeats"] == 0
        finally:
            del os.environ["RAY_ADDRESS"]


def test_work_goes_to_whoever_is_free() -> None:
    """One long call holds one actor: everything else is done by the other."""
    from videop2r_data.builders.crew import Crew

    class Worker:
        def __init__(self) -> None:
            self.release = asyncio.Event()

        async def ready(self) -> None:
            pass

        async def wait(self) -> int:
            await self.release.wait()
            return os.getpid()

        async def work(self) -> int:
            return os.getpid()

        async def free(self) -> None:
            self.release.set()

        async def close(self) -> None:
            pass

    async def main() -> None:
        made: list[Any] = []

        def make() -> Any:
            made.append(ray.remote(Worker).options(num_cpus=0, max_concurrency=4).remote())
            return made[-1]

        crew = Crew("workers", make, 2, 1, "nothing")
        crew.start()
        long = asyncio.ensure_future(crew.ask(lambda actor: actor.wait.remote(), 600))
        await asyncio.sleep(0)
        short = await asyncio.gather(*(crew.ask(lambda actor: actor.work.remote(), 600) for _ in range(20)))
        for actor in made:
            await actor.free.remote()
        assert set(short) == {short[0]} and await long != short[0]
        crew.close()

    asyncio.run(main())


def test_actors_that_die_at_once_end_the_run() -> None:
    from videop2r_data.builders.crew import Crew

    class Dies:
        async def ready(self) -> None:
            os._exit(1)

    async def main() -> P2RError:
        crew = Crew("workers", ray.remote(Dies).options(num_cpus=0).remote, 1, 1, "nothing")
        crew.start()
        with pytest.raises(AwayError, match="3 workers were lost one after the other") as caught:
            await crew.ask(lambda actor: actor.work.remote(), 600)
        crew.close()
        return caught.value

    assert _code(asyncio.run(main())) == 3
