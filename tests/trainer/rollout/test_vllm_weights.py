"""What is handed to vLLM: whole weights under checkpoint names, adapters merged, the policy untouched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.rollout.vllm_prompts import World, make_world
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.model.weights import policy_weights, weight_metas
from videop2r_data.trainer.rollout.vllm_sync import write_weights
from videop2r_data.trainer.settings.parts import LoraSpec

ROOT = Path(__file__).resolve().parents[3]
LORA = LoraSpec(rank=3, alpha=7.0, vision=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return make_world(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def lora(world: World) -> World:
    made = make_world(world.folder, lora=LORA)
    with torch.no_grad():
        for name, weight in made.net.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return made


def test_names_and_values_are_those_of_the_checkpoint(world: World) -> None:
    held = load_file(world.folder / "model.safetensors")
    given = dict(policy_weights(world.net))
    assert len(given) == len(held)
    assert set(given) == {name for name, _ in world.net.named_parameters()}
    assert all(torch.equal(a, b) for a, b in zip(given.values(), world.net.parameters(), strict=True))
    assert not any(weight.requires_grad for weight in given.values())


def test_nothing_is_copied_where_nothing_changes(world: World) -> None:
    own = dict(world.net.named_parameters())
    assert all(w.data_ptr() == own[name].data_ptr() for name, w in policy_weights(world.net))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_is_announced_is_what_comes(lora: World, dtype: torch.dtype | None) -> None:
    come = [(name, w.dtype, tuple(w.shape)) for name, w in policy_weights(lora.net, dtype)]
    assert come == [tuple(m) for m in weight_metas(lora.net, dtype)]
    assert {row[1] for row in come} == {dtype or torch.float32}


def test_adapters_are_added_as_peft_would_and_stay_in_the_policy(world: World, lora: World) -> None:
    before = {name: w.clone() for name, w in lora.net.state_dict().items()}
    given = dict(policy_weights(lora.net))
    assert all(torch.equal(w, before[name]) for name, w in lora.net.state_dict().items())
    base = dict(world.net.named_parameters())
    assert list(given) == list(base)
    changed = {name for name, w in given.items() if not torch.equal(w, base[name])}
    assert any("visual.blocks" in name for name in changed)
    assert any("language_model.layers" in name for name in changed)
    merged = make_world(world.folder, lora=LORA)
    merged.net.load_state_dict(before)
    expected = dict(merged.net.merge_and_unload().named_parameters())
    for name, weight in given.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)


def test_a_merged_or_disabled_adapter_is_not_added_twice(world: World, lora: World) -> None:
    once = dict(policy_weights(lora.net))
    lora.net.merge_adapter()
    twice = {name: w.clone() for name, w in policy_weights(lora.net)}
    lora.net.unmerge_adapter()
    for name, weight in once.items():
        torch.testing.assert_close(twice[name], weight, rtol=0, atol=1e-6)
    with lora.net.disable_adapter():
        off = dict(policy_weights(lora.net))
    for name, weight in world.net.named_parameters():
        torch.testing.assert_close(off[name], weight.detach(), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_an_adapter_that_is_no_sum_is_refused(world: World) -> None:
    from peft import LoraConfig, get_peft_model

    net = make_world(world.folder).net
    dora = get_peft_model(net, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    with pytest.raises(ConfigError, match=r"q_proj\.weight is no plain LoRA"):
        list(policy_weights(dora))


def test_wrappers_leave_no_trace_in_the_names(world: World) -> None:
    class Holder(torch.nn.Module):  # type: ignore[misc]
        """As DDP, DeepSpeed and `TrainModel` hold what they wrap."""

        def __init__(self, inside: torch.nn.Module) -> None:
            super().__init__()
            self.module = inside

    assert [name for name, _ in policy_weights(Holder(Holder(world.net)))] == [
        name for name, _ in world.net.named_parameters()
    ]


def test_files_are_of_bounded_size_and_hold_every_weight(world: World, tmp_path: Path) -> None:
    files = write_weights(tmp_path, policy_weights(world.net), shard_bytes=200_000)
    assert files == len(list(tmp_path.iterdir())) > 3
    held = {name: w for path in tmp_path.iterdir() for name, w in load_file(path).items()}
    own = dict(world.net.named_parameters())
    assert held.keys() == own.keys()
    assert all(torch.equal(w, own[name]) for name, w in held.items())
    largest = max(w.numel() * 4 for w in own.values())
    assert all(path.stat().st_size < 200_000 + largest + 20_000 for path in tmp_path.iterdir())


def test_weights_that_are_cut_over_two_processes_come_whole(world: World) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.trainer.rollout.vllm_two_shards", str(world.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
