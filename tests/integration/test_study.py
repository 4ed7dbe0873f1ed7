"""`p2r-train study` against a server that sees as much as its frames show."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.fakes.openai_server import Call
from tests.integration.test_ask import running
from tests.media.clips import write_clip
from videop2r_data.cli.train import app

pytestmark = pytest.mark.integration
QUESTIONS = 6


def frames_in(call: Call) -> list[Any]:
    """The frames of a request, as pictures."""
    content = call.body["messages"][-1]["content"]
    urls = (
        [part["video_url"]["url"] for part in content if part["type"] == "video_url"]
        if isinstance(content, list)
        else []
    )
    return [
        Image.open(io.BytesIO(base64.b64decode(one)))
        for url in urls
        for one in url.partition(",")[2].split(",")
    ]


def sees(call: Call) -> str:
    """Right (A) with three sharp frames or more, wrong (B) with fewer, blurred ones or none."""
    shown = frames_in(call)
    sharp = [np.abs(np.diff(np.asarray(one.convert("L"), float))).mean() > 1.8 for one in shown]
    answer = "A" if sum(sharp) >= 3 else "B"
    return f"<observation>{len(shown)} frames</observation> <think>t</think><answer>{answer}</answer>"


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media" / "a.mp4")
    rows = [
        {
            "problem_id": f"q{i}", "problem": f"What is it, case {i}?", "options": ["A. x", "B. y"], "path": "a.mp4",
            "problem_type": "multiple choice", "data_type": "video", "solution": "<answer>A</answer>", "data_source": "d",
        }
        for i in range(QUESTIONS)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def write_plan(folder: Path, url: str) -> Path:
    plan = {
        "name": "seen", "backend": {"kind": "openai", "model": "m", "base_url": url, "retries": 0},
        "benchmarks": [{"path": "rows.jsonl", "media_root": "media"}],
        "media": {"max_pixels": 12544, "workers": 1, "frames": 6},
    }  # fmt: skip
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    return folder / "plan.yaml"


def study(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["study", *map(str, words)])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    return done


def values(told: dict[str, Any]) -> dict[str, float]:
    return {one["cell"]["name"]: one["figures"][0]["value"] for one in told["study"]["cells"]}


def test_frames_against_accuracy_over_one_journal(pool: Path) -> None:
    with running(answer=sees) as server:
        plan, out = write_plan(pool, server.url), pool / "out"
        told = orjson.loads(
            study("frames", plan, "--frames", "2,4", "--pixels", "12544", "--out", out, "--json").stdout
        )
        assert values(told) == {"frames-2_pixels-12544": 0.0, "frames-4_pixels-12544": 1.0}
        first = told["study"]["cells"][0]["figures"][0]
        assert (first["question_only"], first["frames"], first["n"]) == (0.0, 2.0, QUESTIONS)
        assert first["input_tokens"] < told["study"]["cells"][1]["figures"][0]["input_tokens"]
        assert told["study"]["cells"][0]["seconds_p50"] > 0
        # questions alone are asked once for both cells
        assert server.requests == 2 * QUESTIONS + QUESTIONS
        for name in (
            "study.json",
            "README.md",
            "study.png",
            "study.svg",
            "cells/frames-2_pixels-12544/result.json",
        ):
            assert (out / name).is_file(), name
        # wider: what was answered is not asked again
        flags = ["--frames", "2,4,8", "--pixels", "12544", "--out", out]
        again = study("frames", plan, *flags)
        assert server.requests == 4 * QUESTIONS
        assert "frames 8, pixels 12544" in again.stdout and all(
            len(line) <= 80 for line in again.stdout.splitlines() if "/" not in line
        )
        written = (out / "study.json").read_bytes(), (out / "study.png").read_bytes()
        study("frames", plan, *flags)
        assert ((out / "study.json").read_bytes(), (out / "study.png").read_bytes()) == written
        assert server.requests == 4 * QUESTIONS


def test_a_model_that_needs_sharp_frames_falls_with_blur_and_dropped_frames(pool: Path) -> None:
    with running(answer=sees) as server:
        plan = write_plan(pool, server.url)
        told = orjson.loads(
            study("robustness", plan, "--blur", "8", "--drop", "0.9", "--out", pool / "out", "--json").stdout
        )
    assert values(told) == {"plan": 1.0, "drop-0.9": 0.0, "blur-8": 0.0}
    lines = (pool / "out" / "README.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")][2:] == [
        "| as in the plan",
        "| drop 0.9",
        "| blur 8",
    ]


def test_selection_by_scenes_beside_uniform_frames(pool: Path) -> None:
    with running(answer=sees) as server:
        plan = write_plan(pool, server.url)
        told = orjson.loads(study("selection", plan, "--frames", "4", "--out", pool / "out", "--json").stdout)
    assert list(values(told)) == ["frames-4"], "one list given: nothing else is varied"


def test_a_study_that_is_stopped_says_so_and_goes_on(pool: Path) -> None:
    def expensive(call: Call) -> str:
        return sees(call)

    with running(answer=expensive) as server:
        plan = write_plan(pool, server.url)
        priced = yaml.safe_load(plan.read_text())
        priced["backend"]["price"] = {"input": 1000.0, "output": 1000.0}
        priced["max_cost"] = 12.0
        plan.write_text(yaml.safe_dump(priced))
        flags = ["frames", plan, "--frames", "2,4", "--out", pool / "out", "--json"]
        told = orjson.loads(study(*flags, code=3).stdout)
        assert told["study"]["missing"] >= 1
        priced["max_cost"] = 10_000.0
        plan.write_text(yaml.safe_dump(priced))
        told = orjson.loads(study(*flags).stdout)
        assert told["study"]["missing"] == 0 and server.stats()["repeats_answered"] == 0


def test_what_cannot_be_studied_is_told(pool: Path) -> None:
    plan = write_plan(pool, "http://127.0.0.1:9/v1")
    assert "no list of numbers" in study("frames", plan, "--frames", "4;8", code=2).stderr
    assert "kind" in study("colour", plan, code=1).stderr
    (pool / "other").mkdir()
    (pool / "other" / "thesis.tex").touch()
    done = study("frames", plan, "--frames", "4", "--out", pool / "other", code=1)
    assert "something else than a study" in done.stderr
