"""A build whose judge answers through Message Batches: hours later, on another machine, never paid twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.anthropic_server import Cut, FakeAnthropic, ThirdsExpire
from tests.fakes.openai_server import FakeServer
from tests.integration.test_build import Silent, question, rows_of, without_url, write_pool
from videop2r_data.backends import batches
from videop2r_data.backends.batch_log import BatchGoneError
from videop2r_data.builders.costs import estimate
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.retries import abandon_batch
from videop2r_data.builders.workspace import Shard, Workspace, take_share
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.recipe import Recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
PRICE = {"input": 3.0, "output": 15.0, "cache_read": 0.3, "cache_write": 3.75}


def judge(params: dict[str, Any]) -> str:
    text = str(params["messages"])
    return f"Because. <judgement>{'No' if 'shape 3?' in text else 'Yes'}</judgement>"


def recipe(generator: FakeServer, anthropic: FakeAnthropic, **changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "set",
            "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
            "generate": {"backend": {"kind": "openai", "base_url": generator.url, "model": "g"}},
            "judge": {
                "backend": {
                    "kind": "anthropic",
                    "model": "claude-test-3-7",
                    "base_url": anthropic.url,
                    "batch": True,
                    "price": PRICE,
                }
            },
            **changes,
        }
    )


async def run(
    folder: Path, generator: FakeServer, anthropic: FakeAnthropic, *, wait: bool = True, **changes: Any
) -> BuildReport:
    place = Workspace.at(folder / "set", base=folder)
    return await build(
        recipe(generator, anthropic, **changes), place, observer=Silent(), card=write_dataset_card, wait=wait
    )


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    known = batches.BatchCaller.__init__.__kwdefaults__ or {}
    defaults = {**known, "poll_s": 0.05, "max_poll_s": 0.1}
    monkeypatch.setattr(batches.BatchCaller.__init__, "__kwdefaults__", defaults)


def test_submitted_now_collected_later_by_another_process(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(12)])

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge, polls=4) as anthropic:
            first = await run(tmp_path, generator, anthropic, wait=False)
            assert first.state == "waiting" and first.waiting == 12 and first.ledger is None
            assert len(anthropic.batches) == 1 and first.spent.finished_usd == 0 < first.spent.lost_usd
            again = await run(tmp_path, generator, anthropic, wait=False)
            assert again.state == "waiting" and len(anthropic.batches) == 1, "not submitted twice"
            last = await run(tmp_path, generator, anthropic, wait=True)
            assert last.state == "complete" and last.ledger is not None
            assert (last.ledger.kept, last.ledger.rejected) == (11, 1)
            assert last.spent.lost_usd == 0
            # the reports split the bill of the server's own counter
            assert last.spent.finished_usd == pytest.approx(anthropic.cost_usd)
            assert len(anthropic.batches) == 1 and generator.requests == 12
            assert set(anthropic.accepted_ids.values()) == {1}
            done = await run(tmp_path, generator, anthropic)
            assert done.calls_made == 0 and len(anthropic.batches) == 1

    asyncio.run(main())
    assert [r["problem_id"] for r in rows_of(tmp_path / "set", "rejected")] == ["3"]


def test_what_is_in_a_batch_is_not_asked_one_by_one_as_well(tmp_path: Path) -> None:
    """Neither by a pilot, whose judge answers at once, nor by a recipe that gives up batches meanwhile."""
    write_pool(tmp_path, [question(i) for i in range(6)])

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge, polls=4) as anthropic:
            first = await run(tmp_path, generator, anthropic, wait=False)
            assert first.state == "waiting"
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            with pytest.raises(ConfigError, match="6 judge calls of this build are in a batch"):
                await estimate(recipe(generator, anthropic), place, pilot=3, observer=Silent())
            direct = json.loads(recipe(generator, anthropic).model_dump_json())["judge"]
            direct["backend"]["batch"] = False
            with pytest.raises(ConfigError, match="paid twice"):
                await run(tmp_path, generator, anthropic, judge=direct)
            assert anthropic.calls["messages"] == 0, "nothing was asked one by one"
            last = await run(tmp_path, generator, anthropic)
            assert last.state == "complete" and set(anthropic.accepted_ids.values()) == {1}
            asked = await estimate(recipe(generator, anthropic), place, pilot=3, observer=Silent())
            assert asked.rows == 6

    asyncio.run(main())


def write_pools(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The same pool for a build in batches and for one of direct calls."""
    for name in ("batched", "direct"):
        (folder / name).mkdir()
        write_pool(folder / name, rows)


def test_expired_requests_are_asked_again_and_the_bytes_are_those_of_direct_calls(tmp_path: Path) -> None:
    write_pools(tmp_path, [question(i) for i in range(10)])
    outcome = ThirdsExpire()

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge, outcome=outcome) as anthropic:
            report = await run(tmp_path / "batched", generator, anthropic)
            assert report.state == "complete" and len(outcome.expired) == 4 and len(anthropic.batches) >= 2
            assert report.spent.lost_usd == 0, "expired requests are not billed"
            direct = json.loads(recipe(generator, anthropic).model_dump_json())["judge"]
            direct["backend"]["batch"] = False
            await run(tmp_path / "direct", generator, anthropic, judge=direct)

    asyncio.run(main())
    assert without_url(tmp_path / "batched" / "set") == without_url(tmp_path / "direct" / "set")


def test_a_connection_lost_after_the_server_took_the_batch_costs_nothing(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(6)])

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge) as anthropic:
            anthropic.fail("create", Cut(after=True))
            report = await run(tmp_path, generator, anthropic)
            assert report.state == "complete" and len(anthropic.batches) == 1
            assert set(anthropic.accepted_ids.values()) == {1}

    asyncio.run(main())


def test_the_budget_holds_for_batches(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(30)])

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge) as anthropic:
            report = await run(tmp_path, generator, anthropic, max_cost=0.008)
            assert report.state == "over_budget"
            assert 0 < report.spent.finished_usd < 0.008 and report.spent.lost_usd == 0
            assert 0 < sum(anthropic.accepted_ids.values()) < 30
            report = await run(tmp_path, generator, anthropic, max_cost=5.0)
            assert report.state == "complete" and set(anthropic.accepted_ids.values()) == {1}

    asyncio.run(main())


def test_a_limit_above_what_answers_cost_is_no_end_although_batches_may_cost_more(tmp_path: Path) -> None:
    """The 30 verdicts cost 0.006 USD; six of them may cost 0.04."""
    write_pool(tmp_path, [question(i) for i in range(30)])

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge, polls=2) as anthropic:
            first = await run(tmp_path, generator, anthropic, wait=False, max_cost=0.05)
            assert first.state == "waiting" and len(anthropic.accepted_ids) == 6
            report = await run(tmp_path, generator, anthropic, max_cost=0.05)
            assert report.state == "complete" and report.waiting == 0
            assert report.spent.finished_usd < 0.05 and report.spent.lost_usd == 0
            assert set(anthropic.accepted_ids.values()) == {1} and len(anthropic.accepted_ids) == 30

    asyncio.run(main())


def test_batches_are_collected_where_what_they_hold_leaves_no_money_to_another_step(tmp_path: Path) -> None:
    backend = {"kind": "openai", "model": "g", "price": {"input": 3.0, "output": 15.0}}

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge, polls=1) as anthropic:
            step = {"backend": {**backend, "base_url": generator.url}}
            states = list[str]()
            for rows in (6, *[12] * 6):
                write_pool(tmp_path, [question(i) for i in range(rows)])
                report = await run(tmp_path, generator, anthropic, wait=False, max_cost=0.075, generate=step)
                assert report.spent.finished_usd + report.spent.lost_usd <= 0.075
                states.append(report.state)
                if report.state == "complete":
                    break
            assert states[1:] == ["waiting"] * (len(states) - 2) + ["complete"], states
            assert set(anthropic.accepted_ids.values()) == {1} and len(anthropic.accepted_ids) == 12

    asyncio.run(main())


def test_a_batch_that_is_gone_stops_the_run_until_a_person_gives_it_up(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(4)])

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge, polls=99) as anthropic:
            first = await run(tmp_path, generator, anthropic, wait=False)
            assert first.state == "waiting"
            (batch_id,) = anthropic.batches
            anthropic.batches.clear()
            with pytest.raises(BatchGoneError, match=batch_id):
                await run(tmp_path, generator, anthropic)
            settings = recipe(generator, anthropic)
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            with pytest.raises(ConfigError, match="no open batch"):
                abandon_batch(settings, place, "msgbatch_other")
            assert abandon_batch(settings, place, batch_id) == 4
            anthropic.polls = 0
            last = await run(tmp_path, generator, anthropic)
            assert last.state == "complete" and last.ledger is not None and last.ledger.kept == 3
            assert last.spent.lost_usd > 0, "the lost batch may have been billed"

    asyncio.run(main())


def test_one_process_of_a_share_submits_and_the_lease_refuses_the_second(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(12)])
    settings = tmp_path / "recipe.yaml"

    async def command(*flags: str) -> tuple[int | None, str]:
        line = [sys.executable, "-m", "videop2r_data.cli", "build", str(settings), "--out", "set", *flags]
        running = await asyncio.create_subprocess_exec(
            *line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, told = await running.communicate()
        return running.returncode, told.decode()

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge, polls=999) as anthropic:
            settings.write_text(recipe(generator, anthropic).model_dump_json())
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            held = take_share(place.work, "a share", Shard(1, 2))
            with held:
                code, told = await command("--shard", "1/2", "--no-wait")
                assert code == 3 and "each share is the work of one process" in told
                code, told = await command("--no-wait")
                assert code == 3 and "a share (process " in told
                assert anthropic.calls["create"] == 0, "nothing was submitted beside it"
            codes = await asyncio.gather(*(command("--shard", f"{i}/2", "--no-wait") for i in (1, 2)))
            assert [code for code, _ in codes] == [3, 3], codes  # batches are at the server
            # each share submits its own, over one journal, and no request twice
            assert anthropic.calls["create"] == 2 == len(anthropic.batches)
            assert len(anthropic.accepted_ids) == 12 and set(anthropic.accepted_ids.values()) == {1}
            for batch in anthropic.batches.values():
                batch.polls_left = 0
            code, told = await command()
            assert code == 0, told
            assert anthropic.calls["create"] == 2 and generator.requests == 12

    asyncio.run(main())
