"""`build --serve` with the real `vllm serve`, on this machine's CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_build import question, write_pool
from tests.vllm_server import MAX_LEN, ROOT, cpu_environment, make_model, vllm_python

pytestmark = [pytest.mark.integration, pytest.mark.vllm, pytest.mark.timeout(1200)]
ROWS = 24
OPTIONS = f"--dtype float32 --enforce-eager --max-model-len {MAX_LEN} --gpu-memory-utilization 0.4 "
OPTIONS += '--limit-mm-per-prompt \'{"image": 1, "video": 1}\''


def _left(model: Path) -> list[str]:
    """Command lines of processes that serve this model."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = one.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"--model\0{model}\0" in command:
            found.append(command)
    return found


def _wait(true: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    assert true()


def test_a_build_serves_its_model_survives_a_kill_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    write_pool(tmp_path, [question(i) for i in range(ROWS)])
    backend = {
        "kind": "openai",
        "base_url": "http://localhost:8000/v1",
        "model": str(model),
        "concurrency": 1,
    }
    recipe = {
        "recipe": 1,
        "name": "set",
        "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
        "generate": {"backend": {**backend, "serve": OPTIONS}, "max_tokens": 64},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    command = [
        str(vllm_python()),
        "-m",
        "videop2r_data",
        "build",
        str(tmp_path / "r.yaml"),
        "--serve",
        "--keep-going",
    ]
    command += ["--out", str(tmp_path / "set"), "--json"]
    # the command of the build for the CPU looks for a distribution named vllm, and does not start
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    server = f'{vllm_python()} -m vllm.entrypoints.openai.api_server --model "$@"'
    program.write_text(f"#!/bin/sh\nshift\nexec {server}\n")
    program.chmod(0o755)
    env = {**cpu_environment(), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    env["PATH"] = f"{program.parent}{os.pathsep}{env['PATH']}"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kept() -> int:
        segments = (tmp_path / "set.build").rglob("segment-*.jsonl")
        return sum(path.read_bytes().count(b'"text"') for path in segments)

    with start() as process:
        _wait(lambda: kept() >= 3 or process.poll() is not None, 420)
        assert process.poll() is None, process.stderr and process.stderr.read()
        os.kill(process.pid, signal.SIGKILL)
    _wait(lambda: not _left(model), 60)
    first = kept()
    assert 3 <= first < ROWS
    with start() as process:
        out, err = process.communicate(timeout=420)
    report = json.loads(out)
    assert "state" in report, err
    # random weights write no trace: every row is rejected, and that is what exit code 1 says
    assert process.returncode == 1 and report["state"] == "complete" and report["unanswered"] == 0, err
    assert (report["calls_found"], report["calls_made"]) == (first, ROWS - first)
    assert "1 of 1 servers are loading" in err
    _wait(lambda: not _left(model), 60)
