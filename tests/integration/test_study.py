"""`p2r-train study` against a server that sees as much as its frames show."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.fakes.openai_server import Call, Reply
from tests.integration.test_ask import running
from tests.media.clips import write_clip
from videop2r_data.cli.train import app
from videop2r_data.evaluation.result import read_seconds

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
    return {one["name"]: one["figures"][0]["value"] for one in told["study"]["cells"]}


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
        assert 0 < first["seconds_p50"] <= first["seconds_p95"]
        # questions alone are asked once for both cells
        assert server.requests == 2 * QUESTIONS + QUESTIONS
        for name in (
            "study.json",
            "README.md",
            "study.png",
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
    with running(answer=sees) as server:
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


def test_a_setting_that_fails_is_shown_and_tried_again(pool: Path) -> None:
    too_long = [True]

    def script(call: Call) -> Reply | None:
        refused = b'{"error": {"message": "longer than the maximum context length"}}'
        return Reply(status=400, body=refused) if len(frames_in(call)) == 6 and too_long[0] else None

    with running(answer=sees, script=script) as server:
        plan, out = write_plan(pool, server.url), pool / "out"
        flags = ["frames", plan, "--frames", "2,6,4", "--out", out]
        done = study(*flags, code=1)
        assert "frames 6 failed: " in done.stdout and "maximum context length" in done.stdout
        told = orjson.loads((out / "study.json").read_bytes())
        assert [(one["name"], len(one["figures"])) for one in told["cells"]] == [
            ("frames-2", 2), ("frames-6", 0), ("frames-4", 2)
        ]  # fmt: skip
        assert "| frames 6 | failed |" in (out / "README.md").read_text()
        too_long[0] = False
        study(*flags, code=1)
        assert values(orjson.loads(study(*flags, "--retry", "--json").stdout)) == {
            "frames-2": 0.0, "frames-6": 1.0, "frames-4": 1.0
        }  # fmt: skip


def test_a_question_without_an_answer_is_told(pool: Path) -> None:
    def sometimes(call: Call) -> str:
        return "" if "case 3" in call.prompt and frames_in(call) else sees(call)

    with running(answer=sometimes) as server:
        done = study("frames", write_plan(pool, server.url), "--frames", "4", "--out", pool / "out")
    assert "frames 4: 1 of rows without an answer, counted as wrong" in done.stdout


def test_a_study_in_which_nothing_was_answered_is_no_success(pool: Path) -> None:
    with running(answer=lambda call: "") as server:
        plan, out = write_plan(pool, server.url), pool / "out"
        told = orjson.loads(study("frames", plan, "--frames", "2,4", "--out", out, "--json", code=1).stdout)
        assert [one["failed"] for one in told["study"]["cells"]] == [
            "no question got an answer: the reply holds no text"
        ] * 2
        assert told["figures"] == [] and not (out / "study.png").exists()
        assert "frames 4 failed: no question got an answer" in (out / "README.md").read_text()
    with running(script=lambda call: Reply(status=401, body=b"no")) as server:
        plan = write_plan(pool, server.url)
        assert "401" in study("frames", plan, "--frames", "2,4", "--out", pool / "new", code=1).stderr
        assert server.requests < 2 * QUESTIONS, "no other setting would be answered"


def test_seconds_are_those_of_answers_with_media(pool: Path) -> None:
    def slow(call: Call) -> str:
        time.sleep(0.0 if frames_in(call) else 0.3)
        return sees(call)

    with running(answer=slow) as server:
        plan = write_plan(pool, server.url)
        settings = yaml.safe_load(plan.read_text())
        settings["backend"]["concurrency"] = 1
        plan.write_text(yaml.safe_dump(settings))
        told = orjson.loads(study("frames", plan, "--frames", "2", "--out", pool / "out", "--json").stdout)
        found = told["study"]["cells"][0]["figures"][0]
    asked = sorted(read_seconds(pool / "out.build").values())
    assert len(asked) == 2 * QUESTIONS and found["seconds_p50"] < 0.3 <= asked[-QUESTIONS]
    assert (
        f"| {found['seconds_p50']:.2f} | {found['seconds_p95']:.2f} |" in (pool / "out/README.md").read_text()
    )


def test_what_cannot_be_studied_is_told(pool: Path) -> None:
    plan = write_plan(pool, "http://127.0.0.1:9/v1")
    assert "no list of numbers" in study("frames", plan, "--frames", "4;8", code=2).stderr
    assert "kind" in study("colour", plan, code=1).stderr
    (pool / "other").mkdir()
    (pool / "other" / "thesis.tex").touch()
    done = study("frames", plan, "--frames", "4", "--out", pool / "other", code=1)
    assert "something else than a study" in done.stderr
