"""One of two training processes, each with a vLLM engine of its own; started by torchrun.

torchrun --nproc-per-node 2 -m tests.trainer.rollout.vllm_two_ranks MODEL_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.trainer.rollout.vllm_prompts import make_batch, make_world, move
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.rollout.vllm_engine import VllmEngine
from videop2r_data.trainer.settings.rl import SamplingSpec, VllmSpec

GREEDY = SamplingSpec(temperature=0.0, max_new_tokens=12, backend="vllm")


def main() -> None:
    """Other prompts on each rank, one update, rollouts before and after it against transformers."""
    dist.init_process_group("gloo")
    world = make_world(Path(sys.argv[1]))
    batch = make_batch(
        world.policy, ("video", "text") if dist.get_rank() == 0 else ("text", "image", "video")
    )
    seeds = range(len(batch))
    own = HfEngine(world.net, world.policy.tokenizer, GREEDY)
    settings = VllmSpec(engine={"enforce_eager": True}, memory=0.2, max_model_len=2048)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    engine = VllmEngine(world.net, world.policy.tokenizer, GREEDY, settings, model=str(world.folder))
    assert torch.equal(torch.rand(1), expected), "starting the engine draws nothing"
    first = own.generate(batch, group_size=1, seeds=seeds)
    assert engine.generate(batch, group_size=1, seeds=seeds) == first
    move(world.net, make_batch(world.policy, ("video", "text")))
    engine.sync(world.net)
    second = own.generate(batch, group_size=1, seeds=seeds)
    assert engine.generate(batch, group_size=1, seeds=seeds) == second != first
    engine.close()
    both = torch.ones(1)
    dist.all_reduce(both)
    assert both.item() == 2, "the trainer's group outlives the engine"
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
