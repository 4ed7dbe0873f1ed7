"""A build over several servers of one model: the bytes of a build over one, whatever happens to them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import Call, FakeServer, Reply
from tests.integration.test_build import Silent, digests, question, recipe, write_pool
from tests.integration.test_refusals import steady
from videop2r_data.builders.checks import TrialRows, look_at_servers
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.replay import reproduce
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.schemas.recipe import Recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROWS = 120


def over(first: FakeServer, *others: FakeServer, **settings: Any) -> Recipe:
    """Generator and judge at these servers; of one, without `base_urls`."""
    made = recipe(first, concurrency=4)
    urls = tuple(server.url for server in (first, *others)) if others else ()
    return made.with_backends(
        lambda spec: spec.model_copy(update={"base_urls": urls, "retries": 6, **settings})
    )


async def built(folder: Path, made: Recipe, out: str) -> BuildReport:
    place = Workspace.at(folder / out, base=folder)
    return await build(made, place, observer=Silent(), card=write_dataset_card)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pool(tmp_path, [question(i) for i in range(ROWS)])
    return tmp_path


def test_one_killed_one_failing_and_one_slow_change_no_byte(folder: Path) -> None:
    def failing(call: Call) -> Reply | None:
        return Reply(status=503) if call.number > 10 else None

    async def main() -> None:
        async with (
            FakeServer(answer=steady, latency=0.02) as first,  # at once: it would take nearly all
            FakeServer(answer=steady, script=failing) as ill,
            FakeServer(answer=steady, latency=0.1) as slow,
        ):
            alone = await built(folder, over(first), "one")
            assert alone.ledger is not None and alone.ledger.kept == ROWS
            before = first.requests
            async with FakeServer(answer=steady, latency=0.02) as dying:
                going = asyncio.ensure_future(built(folder, over(first, ill, slow, dying), "many"))
                while dying.requests < 10:
                    assert not going.done(), "the build was over before a server was killed"
                    await asyncio.sleep(0.002)
            report = await going
            assert report.state == "complete" and report.unanswered == 0
            answered = [server.stats()["answered"] for server in (first, ill, slow, dying)]
            assert sum(answered) - before == 2 * ROWS, "no answer that came was asked for again"
            assert ill.requests < 10 + 30 and min(answered) > 0

    asyncio.run(main())
    assert digests(folder / "one") == digests(folder / "many"), "lock and card among them"
    place = Workspace.at(folder / "many", base=folder)
    again = asyncio.run(reproduce(place, card=write_dataset_card, observer=Silent()))
    assert again.same, again.causes


def test_a_journal_made_with_one_server_answers_for_many(folder: Path) -> None:
    async def main() -> BuildReport:
        async with FakeServer(answer=steady) as one, FakeServer(answer=steady) as two:
            await built(folder, over(one), "set")
            return await built(folder, over(two, one), "set")

    assert asyncio.run(main()).calls_made == 0


def test_a_recipe_that_names_only_base_urls_reads_and_reproduces(folder: Path) -> None:
    async def main() -> None:
        async with FakeServer(answer=steady) as one, FakeServer(answer=steady) as two:
            data = over(one).model_dump(mode="json")
            for step in ("generate", "judge"):
                data[step]["backend"].pop("base_url")
                data[step]["backend"]["base_urls"] = [one.url, two.url]
            made = Recipe.model_validate(data)
            report = await built(folder, made, "set")
            assert report.state == "complete" and one.requests and two.requests

    asyncio.run(main())
    place = Workspace.at(folder / "set", base=folder)
    assert asyncio.run(reproduce(place, card=write_dataset_card, observer=Silent())).same
    locked = "".join(path.read_text() for path in (folder / "set").glob("*lock*"))
    assert '"base_url"' in locked and "base_urls" not in locked


def test_a_check_looks_at_every_server(folder: Path) -> None:
    async def error_of(one: FakeServer, two: FakeServer) -> str:
        made = over(one, two, server_wait_s=0.0)
        place = Workspace.at(folder / "set", base=folder)
        (look, _) = await look_at_servers(made, place, TrialRows(), calls="models", tell=lambda _: None)
        assert look.address == f"{one.url} and 1 more"
        (error,) = [found for found in look.findings if found.state == "error"]
        return error.message

    async def main() -> None:
        async with FakeServer(models=["g", "j"]) as one:
            async with FakeServer(models=["other"]) as two:
                assert "not all servers list g; all of them list: none" in await error_of(one, two)
            assert two.url in await error_of(one, two), "it is away"

    asyncio.run(main())
