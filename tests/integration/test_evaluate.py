"""`p2r-train eval` against a server on loopback: from rows and pictures to the result, stopped and resumed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from benchmarks.throughput import get, server
from tests.evaluation.rows import timeless
from tests.fakes.anthropic_server import FakeAnthropic
from tests.integration.test_build import Silent
from videop2r_data.builders import Workspace
from videop2r_data.evaluation import EvalReport, evaluate
from videop2r_data.schemas import EvalPlan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
TEXTS = 6
"""Questions without media: `A` is right for even ones, and the server always says A."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server(0.02) as address:
        yield address


def write_rows(folder: Path, *, pictures: int = 4, missing: int = 1) -> Path:
    """Questions about nothing and about pictures, of which the last ones are not there; one row is none."""
    (folder / "media").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    options = ["A. red", "B. blue"]
    for i in range(TEXTS + pictures):
        shown = i >= TEXTS
        if shown and i < TEXTS + pictures - missing:
            Image.new("RGB", (56, 56), (40 * i % 256, 9, 9)).save(folder / "media" / f"{i}.png")
        rows.append(
            {
                "problem_id": f"q{i}", "problem": f"Which one is it in case {i}?", "options": options,
                "problem_type": "multiple choice", "data_type": "image" if shown else "text",
                "solution": "<answer>A</answer>" if i % 2 == 0 else "<answer>B</answer>",
                "path": f"{i}.png" if shown else "", "data_source": "mine",
            }
        )  # fmt: skip
    rows.append({"problem_id": "bad", "problem": "", "problem_type": "multiple choice", "data_type": "text"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_plan(folder: Path, url: str, **more: Any) -> Path:
    backend = {"kind": "openai", "model": "m", "base_url": url, "retries": 0, "concurrency": 4}
    plan = {
        "name": "mine",
        "backend": backend | more.pop("backend", {}),
        "benchmarks": [{"path": "rows.jsonl", "media_root": "media"}],
        "media": {"max_pixels": 12544, "workers": 1},
        **more,
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    return folder / "plan.yaml"


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "videop2r_data.cli.train", "eval", *map(str, words), "--json"]


def run(*words: str | Path, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == code, (done.returncode, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Without the page: it shows which clips are there."""
    assert (folder / "gallery.html").is_file()
    kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "gallery.html")
    return {str(path.relative_to(folder)): timeless(path) for path in kept}


def test_every_row_counts_and_is_asked_once_with_and_without_its_media(tmp_path: Path, url: str) -> None:
    plan = write_plan(write_rows(tmp_path / "pool"), url)
    get(url, "reset")
    made = run(plan, "--out", tmp_path / "out")
    found = made["result"]["benchmarks"][0]
    assert (found["rows_found"], found["questions"], found["answered"]) == (11, 11, 9)
    assert found["failed"] == {"bad_row": 1, "media_missing": 1} and found["rows_bad"] == {"bad_row": 1}
    overall = {one["protocol"]: one for one in found["figures"] if not one["by"]}
    micro = overall["p2r_micro"]
    assert micro["value"] == pytest.approx(5 / 11), "5 of 9 answers; the two others are wrong"
    assert micro["n"] == 11 and micro["question_only"] == pytest.approx(5 / 10)
    by_media = {one["group"]: one["value"] for one in found["figures"] if one["by"] == "data_type"}
    assert by_media == {"image": pytest.approx(2 / 4), "text": pytest.approx(3 / 7)}, "the bad row is of text"
    assert found["sent"]["frames"] == {"low": 1.0, "mean": 1.0, "high": 1.0}
    assert found["sent"]["pixels"]["mean"] == 56 * 56 and found["told"]["well_formed"]["value"] == 1.0
    assert made["result"]["served"] == {"m": 13} and set(made["result"]["prompts"]) == {
        "blind-v1",
        "generate-v1",
    }
    # 6 texts, 3 pictures, and 4 pictures' questions alone, the lost one's among them
    assert get(url, "stats")["requests"] == made["run"]["calls_made"] == found["calls"] == 13
    rows = pq.read_table(tmp_path / "out" / "rows" / "rows.parquet").to_pylist()
    assert [row["reply"]["score"] for row in rows] == [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    assert [row["reply"]["failed"] for row in rows][-2:] == ["media_missing", "bad_row"]
    assert rows[0]["segments"][2] == {"name": "answer", "text": "A"} and rows[6]["frame_width"] == 56
    took = made["took"]["rows"]
    assert took["calls"] == 9 and 0.02 <= took["p50"] <= took["p95"], "the server takes 0.02 s"
    told = f"seconds of an answer: p50 {took['p50']:.2f}, p95 {took['p95']:.2f} (of 9"
    assert told in (tmp_path / "out" / "README.md").read_text()
    assert "took" not in made["result"]["benchmarks"][0], "equal answers make equal results"

    before = files(tmp_path / "out")
    get(url, "reset")
    again = run(plan, "--out", tmp_path / "out")
    assert again["run"]["calls_made"] == 0 and again["result"] == made["result"]
    assert again["took"] == made["took"], "what an earlier run noted"
    (tmp_path / "pool" / "media" / "6.png").unlink()  # neither media nor a server are needed
    scored = run("--rescore", tmp_path / "out")
    assert scored["result"] == made["result"] and files(tmp_path / "out") == before
    paper = run("--rescore", tmp_path / "out", "--scoring", "paper", "--out", tmp_path / "paper")
    assert paper["result"]["plan"]["scoring"]["profile"] == "paper"
    assert files(tmp_path / "out") == before and get(url, "stats")["requests"] == 0


def test_killed_and_started_again_it_asks_nothing_twice(tmp_path: Path, url: str) -> None:
    slow = {"concurrency": 2}
    whole = write_plan(write_rows(tmp_path / "a"), url, backend=slow)
    run(whole, "--out", tmp_path / "a" / "out")
    killed = write_plan(write_rows(tmp_path / "b"), url, backend=slow)
    get(url, "reset")
    process = subprocess.Popen(
        command(killed, "--out", tmp_path / "b" / "out"), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while get(url, "stats")["requests"] < 5:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "b" / "out").exists()
    asked = get(url, "stats")["requests"]
    made = run(killed, "--out", tmp_path / "b" / "out")
    assert made["run"]["calls_found"] >= asked - 2, "but those in flight"
    assert get(url, "stats")["requests"] <= 13 + 2
    ours, theirs = files(tmp_path / "b" / "out"), files(tmp_path / "a" / "out")
    assert ours.keys() == theirs.keys() == {"README.md", "result.json", "rows/rows.parquet"}
    assert ours == theirs


def test_mostly_missing_media_stop_it_before_anything_is_asked(tmp_path: Path, url: str) -> None:
    plan = write_plan(write_rows(tmp_path, missing=3), url)
    get(url, "reset")
    done = subprocess.run(command(plan, "--out", tmp_path / "out"), capture_output=True, text=True)
    assert done.returncode == 1 and "3 of 4 media files cannot be used" in done.stderr
    assert "7.png" in done.stderr and "--media-root" in done.stderr and "max_missing" in done.stderr
    report = run(plan, "--check-only", code=1)
    assert not report["begins"] and "3 of 4" in report["why"]
    assert report["sources"][0]["files"] == 4 and report["sources"][0]["bad_rows"] == {"bad_row": 1}
    assert get(url, "stats")["requests"] == 0 and not (tmp_path / "out").exists()
    assert [server["step"] for server in report["servers"]] == ["generate"]
    write_plan(tmp_path, url, max_missing=1.0)
    assert run(plan, "--out", tmp_path / "out")["result"]["benchmarks"][0]["failed"]["media_missing"] == 3


def test_check_only_asks_every_server_for_its_models_and_no_question(tmp_path: Path, url: str) -> None:
    away = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    write_rows(tmp_path)
    get(url, "reset")
    listed = {"backend": {"model": "fake"}}
    report = run(write_plan(tmp_path, url, **listed), "--check-only")
    assert report["begins"] and report["servers"][0]["listed"] == ["fake"]
    more = {"judges": [{"name": "reads", "backend": away | {"base_url": url}}], "exam": {"backend": away}}
    report = run(write_plan(tmp_path, url, **listed, **more), "--check-only", code=1)
    looks = {one["step"]: one["findings"] for one in report["servers"]}
    assert list(looks) == ["generate", "reads", "exam"] and report["begins"]
    states = {step: {one["state"] for one in found} for step, found in looks.items()}
    assert "error" in states["exam"], "nobody is there"
    assert "error" in states["reads"] and "lists: fake" in looks["reads"][0]["message"], "m is not listed"
    assert states["generate"] == {"ok"}
    assert get(url, "stats")["requests"] == 0 and not (tmp_path / "out").exists()


def test_a_clip_with_several_possible_places_is_scored_again_when_it_is_gone(
    tmp_path: Path, url: str
) -> None:
    write_rows(tmp_path, missing=0)
    layout = {"about": "rows", "files": ["rows.jsonl"], "media": ["new/{path}", "media/{path}"]}
    declared = {
        "benchmark": 1, "name": "mine", "title": "Mine", "license": "none",
        "layouts": {"rows": layout | {"leave_out": {"texts": {"data_type": ["text"]}}}},
        "aggregates": [{"id": "mine"}], "sources": {"rows": "this test"},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(declared))
    pool = {"benchmark": "mine.yaml", "path": "rows.jsonl", "media_root": "."}
    out = tmp_path / "out"
    made = run(write_plan(tmp_path, url, benchmarks=[pool]), "--out", out)
    assert made["result"]["benchmarks"][0]["answered"] == 4, made["result"]["benchmarks"][0]["failed"]
    before = files(out)
    (tmp_path / "media").rename(tmp_path / "elsewhere")
    assert run("--rescore", out)["result"] == made["result"] and files(out) == before


def test_any_setting_of_a_plan_is_a_flag(tmp_path: Path, url: str) -> None:
    plan = write_plan(write_rows(tmp_path), url, question_only=False)
    found = run(plan, "--out", tmp_path / "out", "--set", "media.fps=2", "--set", "media.look={blur: 1.5}")
    media = found["result"]["plan"]["media"]
    assert (media["fps"], media["look"]["blur"], media["max_pixels"]) == (2, 1.5, 12544)
    done = subprocess.run(command(plan, "--set", "media.fsp=2"), capture_output=True, text=True)
    assert done.returncode == 1 and "media.fsp" in done.stderr and "fps" in done.stderr


def test_shares_ask_and_the_last_run_writes(tmp_path: Path, url: str) -> None:
    plan = write_plan(write_rows(tmp_path), url)
    out = tmp_path / "out"
    shares = [run(plan, "--out", out, "--shard", f"{i}/2") for i in (1, 2)]
    assert [share["run"]["state"] for share in shares] == ["shard_complete"] * 2
    assert shares[0]["result"] is None and not out.exists()
    assert sum(share["run"]["calls_made"] for share in shares) == 13
    assert run(plan, "--out", out)["run"]["calls_made"] == 0


def test_an_evaluation_without_an_answer_is_no_success(tmp_path: Path, url: str) -> None:
    plan = write_plan(write_rows(tmp_path), url, question_only=False)
    refusals = json.dumps([{"status": 400, "body": '{"error": {"message": "too long for me"}}'}] * 9)
    urllib.request.urlopen(f"{url}/script", refusals.encode(), timeout=10).close()
    made = run(plan, "--out", tmp_path / "out", code=1)
    found = made["result"]["benchmarks"][0]
    assert found["answered"] == 0 and found["failed"]["call_refused"] == 9
    assert found["figures"][0]["value"] == 0.0 and found["figures"][0]["n"] == 11
    assert "too long for me" in found["examples"]["call_refused"]
    again = run(plan, "--out", tmp_path / "out", "--retry")
    assert again["result"]["benchmarks"][0]["answered"] == 9


def test_the_money_limit_stops_it_and_more_money_goes_on(tmp_path: Path, url: str) -> None:
    price = {"price": {"input": 1.0, "output": 2.0}, "concurrency": 1}
    plan = write_plan(write_rows(tmp_path), url, backend=price, max_tokens=64, max_cost=0.003)
    made = run(plan, "--out", tmp_path / "out", code=4)
    assert made["run"]["state"] == "over_budget" and made["result"] is None
    assert 0 < made["run"]["calls_made"] < 13
    made = run(plan, "--out", tmp_path / "out", "--max-cost", "9")
    assert made["result"]["benchmarks"][0]["usd"] == pytest.approx(made["run"]["spent"]["finished_usd"])


def test_a_sample_is_drawn_by_ids_and_the_same_each_time(tmp_path: Path, url: str) -> None:
    plan = write_plan(write_rows(tmp_path), url, question_only=False)
    made = run(plan, "--out", tmp_path / "out", "--sample", "5")
    found = made["result"]["benchmarks"][0]
    assert (found["rows_found"], found["questions"]) == (11, 5)
    assert found["selection"] == "5 drawn with seed 0"
    more = run(plan, "--out", tmp_path / "more", "--sample", "7")
    drawn = [
        {row["problem_id"] for row in pq.read_table(tmp_path / name / "rows" / "rows.parquet").to_pylist()}
        for name in ("out", "more")
    ]
    assert drawn[0] < drawn[1] and more["result"]["benchmarks"][0]["questions"] == 7


def test_anthropic_is_asked_over_its_own_protocol(tmp_path: Path) -> None:
    plan = EvalPlan.model_validate(
        {
            "benchmarks": [{"path": str(write_rows(tmp_path / "pool") / "rows.jsonl")}],
            "backend": {"kind": "anthropic", "model": "claude-test-3-7", "base_url": "http://x"},
            "media": {"max_pixels": 12544, "workers": 1},
            "style": "plain",
        }
    )
    pool = plan.benchmarks[0].model_copy(update={"media_root": str(tmp_path / "pool" / "media")})

    bodies: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> str:
        bodies.append(body)
        return "Answer: A"

    async def asked() -> EvalReport:
        async with FakeAnthropic(answer=answer) as server:
            backend = plan.backend.model_copy(update={"base_url": server.url})
            now = plan.model_copy(update={"backend": backend, "benchmarks": (pool,)})
            now = EvalPlan.model_validate(now.model_dump())
            return await evaluate(now, Workspace.at(tmp_path / "out", base=tmp_path), observer=Silent())

    report = asyncio.run(asked())
    assert report.result is not None, report.run
    (found,) = report.result.benchmarks
    assert found.answered == 9 and found.told.places == {"cue": 9} and found.told.well_formed is None
    assert found.figures[0].n == 11 and found.figures[0].value == pytest.approx(5 / 11)
    assert all("top_p" not in body and body["temperature"] == 0.01 for body in bodies)
    assert any(part["type"] == "image" for body in bodies for part in body["messages"][0]["content"])
