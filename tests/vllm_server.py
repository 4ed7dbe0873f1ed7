"""A real vLLM server on this machine's CPU, with the tiny random model.

It runs in the environment of `scripts/vllm_env.sh`; the tests that talk to it may run in any other. Where
that environment is missing they are skipped, or fail if `P2R_REQUIRE_VLLM` is set (as in CI).
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
START_S = 240.0
"""Seconds to wait for the server; 15 are usual on two idle cores."""
STOP_S = 30.0
MAX_LEN = 4096
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": MAX_LEN,
    "gpu_memory_utilization": 0.4,
    "limit_mm_per_prompt": {"image": 1, "video": 1},
}
"""Engine arguments for a CPU; the server below gets the same ones as flags."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers.

    Attributes:
        base_url: root of its OpenAI-style API.
        model: the id that it serves the model under.
        folder: the model on disk.
    """

    base_url: str
    model: str
    folder: Path


def vllm_python() -> Path:
    """The Python that has vLLM; skips the test where there is none."""
    if importlib.util.find_spec("vllm") is not None:
        return Path(sys.executable)
    found = ROOT / ".venv-vllm" / "bin" / "python"
    if found.exists():
        return found
    if os.environ.get("P2R_REQUIRE_VLLM"):
        pytest.fail("P2R_REQUIRE_VLLM is set, but there is no .venv-vllm: run make env-vllm")
    pytest.skip("no .venv-vllm: run make env-vllm")


def cpu_environment() -> dict[str, str]:
    """Environment of a process that runs vLLM: a small cache, nothing fetched, nothing reported."""
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return {**os.environ, **quiet, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def make_model(folder: Path) -> Path:
    """The tiny model, made where transformers is installed."""
    command = [str(vllm_python()), "-m", "tests.tiny_model", str(folder)]
    made = subprocess.run(command, cwd=ROOT, env=cpu_environment(), capture_output=True, text=True)
    if made.returncode != 0:
        pytest.fail(f"tests.tiny_model failed:\n{made.stderr[-3000:]}")
    return folder


@contextmanager
def serve(folder: Path, log: Path, *, name: str = "tiny", trusting: bool = True) -> Iterator[Server]:
    """Start the server on a free port of the loopback interface; it is gone when the block ends.

    Args:
        folder: the model.
        log: file for everything that the server prints.
        name: id that the model is served under.
        trusting: accept per-request media settings, which clips need for their times.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--model", str(folder)]
    command += ["--served-model-name", name, "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", str(MAX_LEN), "--gpu-memory-utilization", "0.4"]
    command += ["--limit-mm-per-prompt", '{"image":1,"video":1}']
    if trusting:
        command += ["--trust-request-mm-kwargs"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=sink, stderr=sink, env=cpu_environment(), start_new_session=True
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield Server(f"http://127.0.0.1:{port}/v1", name, folder)
    finally:
        _end(process)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the vLLM server did not start:\n" + log.read_text(errors="replace")[-3000:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop; then kill whatever is left of its engine and workers."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
