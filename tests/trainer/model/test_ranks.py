"""Two processes, one with clips and one with words alone: same numbers as one process, and nobody waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.model.batches import batch_of, clip, random_completions, tiny_folder
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import Policy, load_policy
from videop2r_data.trainer.model.weights import policy_weights, sharding
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.settings.parts import PolicySpec
from videop2r_data.trainer.settings.rl import SamplingSpec

KINDS = {"DDP": None, "FSDP": "FSDP", "FSDP2": "FSDP2"}


def wrapped(model: Any, kind: str) -> Any:
    blocks = [*model.net.model.language_model.layers, *model.net.model.visual.blocks]
    if kind == "DDP":
        return torch.nn.parallel.DistributedDataParallel(model)
    if kind == "FSDP2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    return FullyShardedDataParallel(
        model,
        auto_wrap_policy=ModuleWrapPolicy({type(block) for block in blocks}),
        use_orig_params=True,
        device_id=torch.device("cpu"),
    )


def prompts(policy: Policy, rank: int | None) -> PromptBatch:
    media = (clip(1), clip(5, 1, 56, 84)[0], None, None)
    return batch_of(policy.processor, media if rank is None else media[2 * rank : 2 * rank + 2])


def assert_rank_agrees(rank: int, folder: str, store: str) -> None:
    """One of two processes; an assertion that fails here fails the test."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for kind, cut in KINDS.items():
        policy = load_policy(PolicySpec(model=folder, dtype="float32"))
        model = TrainModel(policy.net)
        completions = random_completions(8)
        mine = prompts(policy, None).with_completions(completions, 2).rows(4 * rank, 4 * rank + 4)
        model(prompts(policy, None).with_completions(completions, 2)).logps.sum().backward()
        want = {name.removeprefix("net."): w.grad for name, w in model.named_parameters()}
        weights = {name: w.clone() for name, w in policy.net.state_dict().items()}
        with torch.no_grad():
            alone = model(mine).logps
        drawn = draw(policy, policy.net, rank)
        model.zero_grad()

        net = wrapped(model, kind)
        assert sharding(net) == cut
        logps = net(mine).logps
        torch.testing.assert_close(logps.detach(), alone, atol=1e-5, rtol=1e-5)
        (logps.sum() * 2).backward()  # ranks are averaged
        if kind != "FSDP":  # its gradients lie flat
            for name, weight in policy.net.named_parameters():
                grad = weight.grad.full_tensor() if cut else weight.grad
                torch.testing.assert_close(grad, want[name], atol=1e-3, rtol=1e-3)
        assert draw(policy, net, rank) == drawn
        for name, weight in policy_weights(net):
            assert torch.equal(weight, weights[name]), name
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def draw(policy: Policy, net: Any, rank: int) -> Any:
    """Ranks write completions of different lengths: none may wait for the other's steps."""
    engine = HfEngine(net, policy.tokenizer, SamplingSpec(max_new_tokens=4 + 4 * rank))
    return engine.generate(prompts(policy, rank), group_size=2, seeds=range(4))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")  # of spawned processes' clean-up
def test_ranks_with_and_without_media_agree_with_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(assert_rank_agrees, (str(tiny_folder()), str(tmp_path / "store")), nprocs=2)
    assert not torch.multiprocessing.active_children()
