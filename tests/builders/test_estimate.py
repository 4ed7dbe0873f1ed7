"""Estimates cover the pool, the target and the steps, and look without touching."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.fakes.openai_server import FakeServer, Reply, default_answer
from tests.integration.test_build import Silent, question, recipe, run, write_pool
from videop2r_data.builders.costs import PAPER_KEPT, Estimate, estimate
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cli.main import app
from videop2r_data.errors import BackendError

pytestmark = pytest.mark.integration
PRICE = {"input": 1.0, "output": 10.0}


def guess(folder: Path, *, pilot: int = 0, stop: Stop | None = None, **changes: Any) -> tuple[Estimate, int]:
    async def main() -> tuple[Estimate, int]:
        async with FakeServer() as server:
            place = Workspace.at(folder / "set", base=folder)
            made = recipe(server, **changes)
            return await estimate(made, place, pilot=pilot, observer=Silent(), stop=stop), server.requests

    return asyncio.run(main())


def test_a_look_at_the_pool_makes_no_call_and_leaves_nothing(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(20)] + [question(99, options=[])])
    found, requests = guess(tmp_path, generate__backend__price=PRICE)
    assert requests == 0 and (found.rows, found.bad_rows) == (21, 1)
    assert [s.calls for s in found.steps] == [20, 16] and found.usd > 0
    assert not (tmp_path / "set.build").exists()


def test_a_target_is_priced_not_the_pool(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(200)])
    found, _ = guess(tmp_path, target=10)
    # the paper keeps 62 % of its pool: 10 kept rows need 17 questions
    assert round(10 / PAPER_KEPT) == 16 and found.steps[0].calls == 17
    assert any("target of 10" in note for note in found.notes)
    found, _ = guess(tmp_path, target=10_000)
    assert found.steps[0].calls == 200


def test_clips_by_rate_are_priced_with_the_most_frames_and_it_says_so(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i, data_type="video", path="a.mp4") for i in range(4)])
    (plain, _), (by_rate, _) = guess(tmp_path), guess(tmp_path, media={"fps": 2.0})
    assert by_rate.steps == plain.steps and not any("media.fps" in note for note in plain.notes)
    assert any("16 frames, the most that media.fps allows" in note for note in by_rate.notes)


@pytest.mark.parametrize("judged", [True, False])
def test_a_pilot_beyond_the_pool_builds_it_and_its_calls_are_kept(tmp_path: Path, judged: bool) -> None:
    write_pool(tmp_path, [question(i) for i in range(9)])
    changes: dict[str, Any] = {} if judged else {"judge": None}
    found, requests = guess(tmp_path, pilot=100, generate__backend__price=PRICE, **changes)
    assert found.pilot_rows == 9 and [s.step for s in found.steps] == ["generate", "judge"][: 1 + judged]
    assert requests == 9 * (1 + judged) and found.steps[0].calls == 9
    assert found.pilot_usd == pytest.approx(found.steps[0].usd, rel=0.05)
    report, server = run(tmp_path, lambda s: recipe(s, **changes))
    assert report.state == "complete" and server.requests == 0


def test_a_pool_without_a_good_row_costs_nothing(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i, options=[]) for i in range(3)])
    for pilot in (0, 5):
        found, requests = guess(tmp_path, pilot=pilot, target=4)
        assert (found.rows, found.bad_rows, found.usd, requests) == (3, 3, 0.0, 0)


def test_a_pilot_that_was_stopped_says_so(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(9)])
    stop = Stop()
    stop.ask()
    found, requests = guess(tmp_path, pilot=5, stop=stop)
    assert requests == 0 and found.pilot_rows == 0 and "stopped early" in found.notes[0]
    assert found.stopped


def dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_a_pilot_without_any_answer_fails_and_names_the_reason(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(9)])
    url = dead_url()
    with pytest.raises(BackendError, match=r"127\.0\.0\.1") as dead:
        guess(tmp_path, pilot=4, generate__backend__base_url=url, generate__backend__retries=0)
    assert "p2r-data doctor" in (dead.value.hint or "") or "server" in (dead.value.hint or "")

    async def refused() -> None:
        said = b'{"error":{"message":"At most 0 image(s) may be provided"}}'
        async with FakeServer(script=lambda _: Reply(status=400, body=said)) as server:
            place = Workspace.at(tmp_path / "other", base=tmp_path)
            await estimate(recipe(server), place, pilot=4, observer=Silent())

    with pytest.raises(BackendError, match=r"At most 0 image\(s\)"):
        asyncio.run(refused())


def test_a_pilot_after_a_mended_server_asks_again_what_was_refused(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(9)])

    async def pilot(**server: Any) -> tuple[Estimate, int]:
        async with FakeServer(**server) as fake:
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            return await estimate(recipe(fake), place, pilot=4, observer=Silent()), fake.requests

    with pytest.raises(BackendError):
        asyncio.run(pilot(script=lambda _: Reply(status=400)))
    found, requests = asyncio.run(pilot())
    assert found.ok and found.pilot_kept > 0 and requests == 8
    _, requests = asyncio.run(pilot())
    assert requests == 0, "what was answered is not asked again"


def test_a_pilot_that_kept_nothing_says_why_and_is_not_ok(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(9)])

    async def main() -> tuple[Estimate, int]:
        async with FakeServer(answer=lambda _: "It is A.") as server:
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            return await estimate(recipe(server), place, pilot=6, observer=Silent()), server.requests

    found, requests = asyncio.run(main())
    assert not found.ok and requests == 6 and found.kept == 0 and found.pilot is not None
    assert found.pilot.reasons == {"verify/missing_observation": 6} and found.pilot.kept_share == 0.0
    assert "nothing of the pilot was kept" in found.notes[0] and "missing_observation" in found.notes[0]
    assert [t.output for t in found.pilot.traces] == ["It is A."] * 3


def test_a_pilot_shows_yield_reasons_and_a_trace_of_each_kind(tmp_path: Path) -> None:
    rows = [question(i) for i in range(40)]
    for i in range(0, 40, 4):
        rows[i]["solution"] = "<answer>B</answer>"  # the model says A
    write_pool(tmp_path, rows)
    found, requests = guess(tmp_path, pilot=40)
    pilot = found.pilot
    assert found.ok and pilot is not None and requests == 40 + 30
    assert pilot.rows == 40 == pilot.kept + pilot.rejected + pilot.failed
    assert pilot.reasons["verify/low_score"] == 10 and pilot.kept_share == pilot.kept / 40
    assert pilot.kept_low < pilot.kept_share < pilot.kept_high and found.kept == pilot.kept
    kinds = [(t.outcome, t.reason) for t in pilot.traces]
    assert kinds[0] == ("kept", "") and ("rejected", "verify/low_score") in kinds and len(kinds) == 3
    assert all("<observation>" in t.output for t in pilot.traces)
    # the build finds the pilot's calls in its journal
    report, server = run(tmp_path)
    assert report.ledger is not None and report.ledger.kept == pilot.kept and server.requests == 0


def test_rows_without_an_answer_do_not_count_in_the_figures(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(12)])

    async def main() -> Estimate:
        async with FakeServer(
            answer=lambda c: "<judgement>Yes</judgement>" if c.body["model"] == "j" else default_answer(c),
            script=lambda c: Reply(status=500) if "shape 3?" in c.prompt and c.body["model"] == "g" else None,
        ) as server:
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            made = recipe(server, generate__backend__retries=0)
            return await estimate(made, place, pilot=12, observer=Silent())

    found = asyncio.run(main())
    assert found.pilot is not None and (found.pilot.unanswered, found.pilot.kept) == (1, 11)
    assert found.pilot.kept_share == 1.0 and found.steps[0].calls == 12 and found.ok
    assert any("got no answer" in note for note in found.notes)


def test_the_command_fails_for_a_dead_server_and_for_an_empty_pilot(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(5)])
    source = {"name": "pool", "kind": "video-r1", "path": "pool.json"}
    backend = {"kind": "openai", "base_url": dead_url(), "model": "m", "retries": 0, "price": PRICE}
    path = tmp_path / "r.yaml"
    path.write_text(
        json.dumps({"recipe": 1, "name": "x", "sources": [source], "generate": {"backend": backend}})
    )
    command = ["estimate", str(path), "--out", str(tmp_path / "set"), "--pilot", "3"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code != 0 and "next: p2r-data build" not in result.output
    assert str(backend["base_url"]) in result.stderr
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert str(backend["base_url"]) in found["error"]["message"]
    write_pool(tmp_path, [question(i, options=[]) for i in range(5)])
    result = CliRunner().invoke(app, ["estimate", str(path), "--out", str(tmp_path / "set")])
    assert result.exit_code == 1 and "no row of the pool can be used" in result.stdout


def test_the_text_of_a_pilot(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["estimate", "demo", "--out", str(tmp_path / "set"), "--pilot", "40"])
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "kept (" in text and "95 %:" in text and "next: p2r-data build demo" in text
    assert text.count("    wrote ") == 3 and "judge/insufficient" in text
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
