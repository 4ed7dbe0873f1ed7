"""Rollouts by a real vLLM server, against transformers, before and after updates, on one tiny model.

The server runs in the environment of `scripts/vllm_env.sh` (`make test-vllm`); the trainer's side in any.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.rollout.vllm_prompts import World, make_batch, make_world, move
from tests.trainer.rollout.vllm_serve import DEV_MODE, serve_command
from tests.vllm_server import ROOT, _end, _wait_until_healthy, cpu_environment, vllm_python
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.rollout.vllm_server import VllmServerEngine
from videop2r_data.trainer.settings.rl import SamplingSpec, VllmSpec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]
KINDS = ("video", "image", "text", "video")
GREEDY = SamplingSpec(temperature=0.0, max_new_tokens=16, backend="vllm-server")
WARM = SamplingSpec(temperature=1.0, max_new_tokens=16, backend="vllm-server")


@contextmanager
def serve_rollouts(folder: Path, log: Path, spec: VllmSpec) -> Iterator[VllmSpec]:
    """The documented command on this machine's CPU; yields the settings with the server's address.

    The CPU build is a distribution of another name, for which the `vllm` script does not start: its module does.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = serve_command(str(folder), spec, dtype="float32", port=port, cpu=True)[3:]
    command = [str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *flags]
    command += ["--host", "127.0.0.1", "--enforce-eager", "--gpu-memory-utilization", "0.4"]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=sink,
            stderr=sink,
            env={**cpu_environment(), **DEV_MODE},
            start_new_session=True,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield spec.model_copy(update={"url": f"http://127.0.0.1:{port}"})
    finally:
        _end(process)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("model"), tied=True)


@pytest.fixture(scope="module")
def batch(world: World) -> PromptBatch:
    return make_batch(world.policy, KINDS)


@pytest.fixture(scope="module")
def settings(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmSpec]:
    place = tmp_path_factory.mktemp("server")
    spec = VllmSpec(max_model_len=2048, folder=str(place / "weights"), timeout_s=120.0)
    with serve_rollouts(world.folder, place / "log.txt", spec) as running:
        yield running


def start(world: World, spec: SamplingSpec, settings: VllmSpec) -> VllmServerEngine:
    return VllmServerEngine(world.net, world.policy.tokenizer, spec, settings)


def drawn(engine: Any, batch: PromptBatch, group: int = 1, seed: int = 0) -> list[list[int]]:
    count = len(batch) * group
    rows = engine.generate(batch, group_size=group, seeds=range(seed, seed + count))
    assert len(rows) == count
    return [row.ids for row in rows]


def test_greedy_tokens_agree_with_transformers_before_and_after_updates(
    world: World, batch: PromptBatch, settings: VllmSpec
) -> None:
    own = HfEngine(world.net, world.policy.tokenizer, GREEDY)
    engine = start(world, GREEDY, settings)
    before = drawn(own, batch)
    assert drawn(engine, batch, group=2) == [row for row in before for _ in range(2)]
    for i in range(2):
        move(world.net, batch, seed=i)
        after = drawn(own, batch)
        assert all(a != b and len(set(a)) > 4 for a, b in zip(after, before, strict=True))
        assert drawn(engine, batch) == before, "nothing is handed over before sync"
        engine.sync(world.net)
        assert drawn(engine, batch) == after
        before = after
    assert len(list(Path(settings.folder).iterdir())) == 1, "old weights are removed"
    engine.close()
    assert not list(Path(settings.folder).iterdir())


def test_samples_repeat_and_differ_by_seed(world: World, batch: PromptBatch, settings: VllmSpec) -> None:
    engine = start(world, WARM, settings)
    rows = drawn(engine, batch, group=3)
    assert drawn(engine, batch, group=3) == rows
    assert drawn(engine, batch, group=3, seed=1000) != rows
    assert len({tuple(row) for row in rows}) == len(rows)
    special = set(world.policy.tokenizer.all_special_ids) - {world.policy.tokenizer.eos_token_id}
    assert not special.intersection(token for row in rows for token in row)
    engine.close()


def test_a_server_without_developer_mode_is_an_error_that_says_so(
    world: World, settings: VllmSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videop2r_data.trainer.rollout import vllm_server

    # The real server answers 404 to a route that it does not have, as it does to this one without the mode.
    monkeypatch.setattr(vllm_server, "WORLD", "/no_such_route")
    with pytest.raises(ConfigError, match="VLLM_SERVER_DEV_MODE=1"):
        start(world, GREEDY, settings)
