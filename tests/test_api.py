"""What the package itself offers: each function through a real build of the demo, also where a loop runs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import videop2r_data as p2r
from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.openai_server import FakeServer, Reply
from videop2r_data import api
from videop2r_data.errors import BackendError, ConfigError, RefusedError, SourceError
from videop2r_data.schemas import Judgement

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("api") / "my-set"
    report = p2r.build("demo", folder, limit=24)
    assert report.state == "complete" and report.ledger is not None and report.ledger.rows_in == 24
    yield folder


def in_a_loop(call: Callable[[], T]) -> T:
    """Call it as a notebook does: in a thread whose event loop runs."""

    async def cell() -> T:
        return call()

    return asyncio.run(cell())


def test_a_build_runs_where_a_loop_runs_and_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[str] = []
    report = in_a_loop(lambda: p2r.build("demo", tmp_path / "set", limit=6, tell=told.append))
    assert report.state == "complete" and report.seen == 6
    assert any("6 questions" in line for line in told)


def test_a_build_goes_on_and_takes_settings_as_they_stand(built: Path) -> None:
    from videop2r_data.recipes import read_recipe

    settings = read_recipe("demo")[0].model_dump(mode="json")
    settings["sources"][0]["limit"] = 24
    again = asyncio.run(p2r.build_async(settings, built))
    assert (again.state, again.calls_made) == ("complete", 0)
    with pytest.raises(p2r.P2RError, match="did you mean 'name'"):
        p2r.build({"nmae": "x"}, built)
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        p2r.build("demo", built, limit=0)


def test_rows_are_loaded_and_scored(built: Path) -> None:
    rows = p2r.load(built)
    assert rows and rows == list(p2r.iter_rows(str(built)))
    assert len(rows) + len(p2r.load(built, "rejected")) == len(p2r.load(built, "rl"))
    for row in rows:
        trace = p2r.parse_trace(row["output"])
        assert p2r.render_trace(trace) == row["output"]
        found = p2r.score(
            row["problem_type"], prediction=trace.answer, reference=row["solution"], options=row["options"]
        )
        assert found.value == row["reward"]
    assert set(p2r.load(built, columns=["problem", "answer"])[0]) == {"problem", "answer"}
    shard = next((built / "data").glob("sft-*.parquet"))
    assert p2r.load(shard) == rows
    with pytest.raises(SourceError):
        p2r.load(built / "nothing")


def test_a_row_that_cannot_be_read_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"problem": "a"}\n[1]\n')
    rows = p2r.iter_rows(tmp_path / "rows.jsonl")
    assert next(rows) == {"problem": "a"}
    with pytest.raises(SourceError, match="not a JSON object") as caught:
        next(rows)
    assert caught.value.where == "rows.jsonl, line 2"


def test_a_set_is_verified_and_a_sample_looked_at(built: Path) -> None:
    assert in_a_loop(lambda: p2r.verify(built)).ok
    row = p2r.load(built)[0]
    view = in_a_loop(lambda: p2r.look(built, row["sample_id"]))
    assert (view.outcome, view.score, view.judgement) == ("kept", row["reward"], "Yes")
    assert view.segments["answer"] == row["answer"] and [c.purpose for c in view.calls] == [
        "generate",
        "judge",
    ]
    assert p2r.look(built).sample["row"] == 0
    lines = str(view).splitlines()
    assert lines[0].startswith(f"{row['sample_id']}: kept, score 1") and lines[0].endswith("judged Yes")
    assert row["problem"] in lines and f"observation: {row['observation']}" in lines
    with pytest.raises(ConfigError, match="no sample"):
        p2r.look(built, "nobody")


def test_the_judge_of_a_set_judges_its_rows(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = p2r.load(built)[0]
    empty = row | {"observation": "Based on the question, I need to notice what there is to see."}
    said = [found.verdict for found in in_a_loop(lambda: p2r.judge([row, empty], by=built))]
    assert said == ["Yes", "No"]
    assert p2r.judge([], by=built) == []
    kept = built.with_name("my-set.build") / "journal"
    before = sum(f.stat().st_size for f in kept.iterdir())
    assert p2r.judge([row], by=built, journal=kept)[0].verdict == "Yes"
    assert sum(f.stat().st_size for f in kept.iterdir()) == before  # the build's own answer
    with pytest.raises(ConfigError, match="without solution, observation; it has problem"):
        p2r.judge([{"problem": "?"}], by=built)
    monkeypatch.chdir(built.parent)
    with pytest.raises(p2r.P2RError, match="demo"):
        p2r.judge([row], by="demo")  # its world was never made here


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_served_judge_is_asked_once_per_row(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "k")
    row: dict[str, Any] = {"problem": "How many?", "solution": "<answer>4</answer>", "observation": "Four."}
    other = row | {"observation": "Some."}
    reply = "It says so. <judgement>Yes</judgement>"

    async def asked() -> tuple[list[Judgement], list[Judgement], int]:
        openai, anthropic = FakeServer(answer=lambda _: reply), FakeAnthropic(answer=lambda _: reply)
        async with openai, anthropic:
            url = openai.url if kind == "openai" else anthropic.url
            settings = {"kind": kind, "model": "m", "base_url": url, "api_key_env": "FAKE_KEY"}
            first = await p2r.judge_async([row, other], by=settings, journal=tmp_path)
            again = await p2r.judge_async([row], by={"backend": settings}, journal=tmp_path)
            return first, again, openai.requests + anthropic.calls["messages"]

    first, again, calls = asyncio.run(asked())
    assert [found.verdict for found in first] == ["Yes", "Yes"] and first[0].explanation == "It says so."
    assert again == first[:1] and calls == 2


def test_a_refused_row_is_an_error() -> None:
    row = {"problem": "?", "solution": "4", "observation": "Four."}

    async def asked() -> None:
        async with FakeServer(script=lambda _: Reply(status=400, body=b"too rude")) as server:
            await p2r.judge_async([row], by={"kind": "openai", "model": "m", "base_url": server.url})

    with pytest.raises(RefusedError, match=r"the judge did not answer.*too rude"):
        asyncio.run(asked())


def test_a_judge_that_does_not_answer_is_an_error() -> None:
    row = {"problem": "?", "solution": "4", "observation": "Four."}
    settings = {
        "kind": "openai",
        "model": "m",
        "base_url": "http://127.0.0.1:9/v1",
        "server_wait_s": 0,
        "retries": 0,
    }
    with pytest.raises(BackendError):
        p2r.judge([row], by=settings)
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        p2r.judge([row], by={"kind": "openai", "modle": "m"})


def test_an_interrupt_cancels_what_runs_beside_the_loop() -> None:
    ended = threading.Event()

    async def long() -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def cell() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook has it
        api._run(long())

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(cell())
    assert ended.is_set() and time.monotonic() - began < 30


def test_the_package_loads_nothing_before_it_is_used() -> None:
    code = "import sys, videop2r_data; print([m for m in ('pydantic', 'numpy', 'yaml', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_is_there_and_explained() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    for name in dir(p2r):
        if not name.startswith("__"):
            assert callable(getattr(p2r, name)) and f"`{name}" in page, name


def test_the_notebook_of_the_docs_runs(tmp_path: Path) -> None:
    """As cells of a notebook: in a running loop, and in a module without a guard around its main part."""
    cell = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)[0]
    lines = "".join(f"    {line}\n" for line in cell.splitlines())
    (tmp_path / "cells.py").write_text(f"import asyncio\nasync def main():\n{lines}\nasyncio.run(main())\n")
    run = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "right: 1.0\nsufficient: Yes\n" in run.stdout and run.stdout.endswith("\nTrue\n")
