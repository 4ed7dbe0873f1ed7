"""A whole evaluation of a real model behind a real server: the demo world, and rows of three benchmarks.

The rows are real, and real clips stand in the places of theirs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evaluation.rows import timeless
from tests.shared import media_dir, samples_dir
from tests.vllm_server import Server, cpu_environment, make_model, serve, vllm_python
from videop2r_data.builders.sources import open_source
from videop2r_data.evaluation import read_result
from videop2r_data.schemas import BadRow, EvalPool

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(900)]

CLIPS = ("video_90.mov", "sample_android_slow_motion.mp4", "h265_video.mp4")
ROWS = 6
BENCHMARKS = {
    "vsi-bench": "videor1_eval_vsibench.jsonl",
    "videommmu": "videor1_eval_videommmu.jsonl",
    "mvbench": "videor1_eval_mvbench.jsonl",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = make_model(tmp_path_factory.mktemp("model"))
    with serve(model, tmp_path_factory.mktemp("log") / "server.txt") as running:
        yield running


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Entries of a plan, with a clip where each row looks for its own."""
    samples, media = samples_dir(), media_dir()
    if samples is None or media is None:
        pytest.skip("no shared rows and clips")
    folder = tmp_path_factory.mktemp("benchmarks")
    found = []
    for name, file in BENCHMARKS.items():
        root = folder / name
        root.mkdir()
        entry = {"benchmark": name, "path": str(samples / file), "media_root": str(root), "limit": ROWS}
        for at, row in enumerate(open_source(EvalPool.model_validate(entry).source, base=folder).rows()):
            assert not isinstance(row, BadRow), row
            clip = root / row.path
            clip.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(media / CLIPS[at % len(CLIPS)], clip)
        found.append(entry)
    return found


def write_plan(folder: Path, benchmarks: list[dict[str, Any]], backend: dict[str, Any]) -> Path:
    plan = {
        "name": "tiny", "benchmarks": [{"name": "demo", "demo": {"rows": 12}}, *benchmarks],
        "backend": {"concurrency": 2, "timeout_s": 120.0, **backend}, "temperature": 0.0, "top_p": None,
        "max_tokens": 12, "media": {"frames": 4, "max_pixels": 16 * 784, "workers": 1, "encoding": "png"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    return folder / "plan.yaml"


def of(server: Server) -> dict[str, Any]:
    return {"kind": "openai", "model": server.model, "base_url": server.base_url}


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "videop2r_data.cli.train", "eval", *map(str, words), "--json"]


def run(*words: str | Path) -> dict[str, Any]:
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def answered(server: Server) -> int:
    """Requests that the server says it has answered."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.base_url.removesuffix("/v1") + "/metrics", timeout=30) as reply:
        text = reply.read().decode()
    counts = re.findall(r"^vllm:request_success_total\{[^}]*\} ([\d.]+)", text, re.MULTILINE)
    return round(sum(map(float, counts)))


def compared(folder: Path) -> dict[str, bytes]:
    """What depends on rows and journal alone; the page names where clips lie."""
    paths = [folder / "result.json", folder / "README.md", *sorted((folder / "rows").iterdir())]
    return {path.name: timeless(path) for path in paths}


def test_killed_and_resumed_it_ends_in_the_same_result_and_is_scored_again_without_a_call(
    tmp_path: Path, server: Server, benchmarks: list[dict[str, Any]]
) -> None:
    before = answered(server)
    whole = run(write_plan(tmp_path / "a", benchmarks, of(server)), "--out", tmp_path / "a" / "out")
    calls = answered(server) - before
    found = {one["name"]: one for one in whole["result"]["benchmarks"]}
    assert list(found) == ["demo", *BENCHMARKS]
    # one question of MVBench is about a part that lies behind the end of the clip in its place
    failed = {name: one["failed"] for name, one in found.items() if one["failed"]}
    assert failed == {"mvbench": {"media_outside": 1}}
    assert all(one["answered"] + sum(one["failed"].values()) == one["questions"] for one in found.values())
    assert [found[name]["layout"] for name in BENCHMARKS] == ["video-r1"] * 3
    assert whole["run"]["calls_made"] == calls
    for name in BENCHMARKS:
        one = found[name]
        assert (one["rows_found"], one["selection"]) == (ROWS, f"the first {ROWS}")
        assert one["sent"]["frames"]["high"] <= 4 and one["sent"]["output_tokens"]["high"] == 12
        assert one["told"]["cut"] == one["answered"] and one["sent"]["input_tokens"]["low"] > 100
        protocols = [figure["protocol"] for figure in one["figures"] if not figure["by"]]
        counted = [figure for figure in one["figures"] if figure["n"]]  # some tracks have no row here
        assert protocols and counted and all(figure["question_only"] is not None for figure in counted)
    assert "vsi_macro8" in [figure["protocol"] for figure in found["vsi-bench"]["figures"]]
    assert {figure["by"] for figure in found["videommmu"]["figures"]} >= {"", "discipline"}

    killed = write_plan(tmp_path / "b", benchmarks, of(server))
    before = answered(server)
    process = subprocess.Popen(
        command(killed, "--out", tmp_path / "b" / "out"), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while answered(server) - before < calls // 2:
        assert process.poll() is None, "it must be killed in the middle"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resumed = run(killed, "--out", tmp_path / "b" / "out")
    assert 0 < resumed["run"]["calls_made"] < calls and resumed["run"]["calls_found"] >= calls // 2 - 2
    assert compared(tmp_path / "b" / "out") == compared(tmp_path / "a" / "out")

    before = answered(server)
    for scoring in ("robust", "paper"):
        again = run(
            "--rescore", tmp_path / "b" / "out", "--scoring", scoring, "--out", tmp_path / "c" / scoring
        )
        assert again["result"]["plan"]["scoring"]["profile"] == scoring
    assert answered(server) == before


def test_the_same_model_in_this_process_reads_the_same_prompts(
    tmp_path: Path, server: Server, benchmarks: list[dict[str, Any]]
) -> None:
    run(write_plan(tmp_path / "a", benchmarks[:1], of(server)), "--out", tmp_path / "a" / "out")
    here = write_plan(
        tmp_path / "b", benchmarks[:1],
        {"kind": "transformers", "model": str(server.folder), "extra": {"device_map": "cpu", "dtype": "float32"}},
    )  # fmt: skip
    done = subprocess.run(
        [str(vllm_python()), *command(here, "--out", tmp_path / "b" / "out")[1:]],
        capture_output=True, text=True, env=cpu_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    served, own = (read_result(tmp_path / name / "out").benchmarks for name in "ab")
    for one, other in zip(served, own, strict=True):
        assert one.sent.input_tokens == other.sent.input_tokens, one.name
        assert (one.sent.frames, one.sent.pixels) == (other.sent.frames, other.sent.pixels)
