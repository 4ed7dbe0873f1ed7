"""Two training processes with an engine each; and what is said to vLLM's own weight transfer.

Transfers `nccl` and `ipc` need GPUs: here vLLM's classes take the settings and read the policy, and nothing
travels.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

from tests.trainer.rollout.vllm_prompts import make_world
from tests.vllm_server import ROOT, cpu_environment, make_model
from videop2r_data.errors import BackendError
from videop2r_data.trainer.rollout.vllm_sync import EngineTransfer, make_source
from videop2r_data.trainer.settings.parts import LoraSpec
from videop2r_data.trainer.settings.rl import VllmSpec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]


def test_two_training_processes_have_an_engine_each_and_keep_their_group(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "tests.trainer.rollout.vllm_two_ranks", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=cpu_environment(), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.parametrize("way", ["nccl", "ipc"])
def test_the_weight_transfer_is_told_what_the_policy_holds(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vllm.distributed.weight_transfer as transfer
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    calls: list[tuple[Any, Any]] = []
    rounds: list[list[str]] = []

    def trainer_init(init_info: Any, *, client: Any, source: Any) -> Any:
        calls.append((init_info, client))

        def send_weights() -> None:
            # vLLM's own check of a source: what was announced must be what comes, one by one.
            pairs = NCCLTrainerWeightTransferEngine._checked_iter(source, source.metadata())
            rounds.append([name for name, _ in pairs])

        return SimpleNamespace(send_weights=send_weights, shutdown=lambda: None)

    monkeypatch.setattr(transfer.WeightTransferTrainerFactory, "trainer_init", trainer_init)
    world = make_world(tmp_path / "model", lora=LoraSpec(rank=2, alpha=2.0))
    http: Any = SimpleNamespace(url="http://127.0.0.1:9", get=lambda path: {"world_size": 4})
    spec = VllmSpec(transfer=way, master_address="10.0.0.1", master_port=29_777, packed=way == "nccl")
    sender = EngineTransfer(http, spec, None)
    sender.send(world.net)
    sender.send(world.net)
    sender.close()
    ((info, client),) = calls
    assert client.base_url == "http://127.0.0.1:9"
    assert info.backend == way
    assert info.is_sender
    assert info.packed is (way == "nccl")
    if way == "nccl":
        assert (info.master_address, info.master_port, info.world_size) == ("10.0.0.1", 29_777, 5)
    names = [name for name, _ in make_world(tmp_path / "model").net.named_parameters()]
    assert rounds == [names, names]


def test_the_source_has_the_newer_form_where_vllm_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vllm.distributed.weight_transfer as transfer

    class Newer:
        """The contract of vLLM 0.33."""

        def __init_subclass__(cls) -> None:
            assert isinstance(cls.__dict__["metadata"], cached_property)

        def iter_full(self) -> None:
            raise NotImplementedError

    monkeypatch.setattr(transfer, "WeightSource", Newer)
    world = make_world(tmp_path / "model")
    source = make_source(world.net)
    names = [name for name, _ in world.net.named_parameters()]
    assert [meta.name for meta in source.metadata] == names
    assert [name for name, _ in source.iter_full()] == names == [name for name, _ in source.iter_full()]


def test_a_transfer_that_cannot_be_set_up_says_what_to_do(tmp_path: Path) -> None:
    world = make_world(tmp_path / "model")
    http: Any = SimpleNamespace(url="http://127.0.0.1:9", get=lambda path: {"world_size": 1})
    sender = EngineTransfer(http, VllmSpec(transfer="ipc"), None)
    with pytest.raises(BackendError, match="--weight-transfer-config"):
        sender.send(world.net)
