"""One of two processes that hold half of each weight (FSDP2); started by torchrun.

torchrun --nproc-per-node 2 -m tests.trainer.rollout.vllm_two_shards MODEL_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.trainer.rollout.vllm_prompts import make_world
from videop2r_data.trainer.model.weights import bare, policy_weights, weight_metas
from videop2r_data.trainer.settings.parts import LoraSpec


def main() -> None:
    """What is handed over after cutting is what was handed over before, on both processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    for lora in (None, LoraSpec(rank=3, alpha=5.0, vision=True)):
        torch.manual_seed(0)
        world = make_world(Path(sys.argv[1]), lora=lora)
        with torch.no_grad():
            for name, weight in world.net.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.1)
        whole = {name: weight.clone() for name, weight in policy_weights(world.net)}
        core = bare(world.net)
        for layer in core.model.language_model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(core, mesh=mesh)
        assert type(next(core.parameters())).__name__ == "DTensor"
        gathered = list(policy_weights(world.net))
        assert [name for name, _ in gathered] == list(whole)
        for name, weight in gathered:
            torch.testing.assert_close(weight, whole[name], rtol=0, atol=1e-6)
        told = [tuple(meta) for meta in weight_metas(world.net)]
        assert told == [(name, weight.dtype, tuple(weight.shape)) for name, weight in gathered]
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
