"""Rollouts are the library's own, drawn row by row, and the log-probabilities of training are theirs."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from tests.trainer.model.batches import batch_of, clip, tiny_policy
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import Policy
from videop2r_data.trainer.rollout.base import Tokens
from videop2r_data.trainer.rollout.hf import HfEngine, WholeCopy
from videop2r_data.trainer.settings.parts import LoraSpec
from videop2r_data.trainer.settings.rl import SamplingSpec

MEDIA = (clip(1), clip(5, 1, 56, 84)[0], None, clip(2, 8, 28, 56))


@cache
def policy() -> Policy:
    return tiny_policy()


@cache
def prompts() -> PromptBatch:
    return batch_of(policy().processor, MEDIA)


def engine(net: Any = None, **spec: Any) -> HfEngine:
    return HfEngine(
        net if net is not None else policy().net,
        policy().tokenizer,
        SamplingSpec(**({"max_new_tokens": 16} | spec)),
    )


def alone(i: int) -> PromptBatch:
    """Prompt i, in a batch of its own."""
    batch = batch_of(policy().processor, (*(None,) * i, MEDIA[i]))
    return PromptBatch(
        batch.examples[-1:],
        (None,),
        batch.texts[-1:],
        batch.ids[-1:],
        batch.types[-1:],
        batch.media,
        pad_id=batch.pad_id,
    )


@pytest.mark.parametrize("i", range(4))
def test_greedy_is_that_of_the_library(i: int) -> None:
    got = engine(temperature=0).generate(prompts(), group_size=1, seeds=[0] * 4)[i]
    one = alone(i)
    net = policy().net.eval()
    want = net.generate(
        **one.for_generation(1),
        **one.media,
        max_new_tokens=16,
        do_sample=False,
        use_cache=True,
        suppress_tokens=sorted(Tokens.of(net.config, policy().tokenizer).never),
    )[0, len(one.ids[0]) :].tolist()
    assert got.ids == want


@pytest.mark.parametrize("share", [True, False])
def test_training_gives_the_log_probabilities_of_generation(share: bool) -> None:
    """Positions and masks of the right-padded pass are those of the library's left-padded generation."""
    net = policy().net.eval()
    batch = prompts()
    media = dict(batch.media)
    tokens = Tokens.of(net.config, policy().tokenizer)
    told = net.generate(
        **batch.for_generation(1),
        **media,
        max_new_tokens=12,
        do_sample=True,
        use_cache=True,
        top_k=0,
        eos_token_id=[],
        output_logits=True,
        return_dict_in_generate=True,
        suppress_tokens=[*tokens.never, tokens.end],
    )
    width = batch.for_generation(1)["input_ids"].shape[1]
    drawn = told.sequences[:, width:]
    want = torch.stack(told.logits, 1).log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
    # each completion twice, so that groups are shared too
    twice = drawn.repeat_interleave(2, 0).tolist()
    with torch.no_grad():
        got = TrainModel(net, share_prompts=share)(batch.with_completions(twice, 2)).logps
    torch.testing.assert_close(got, want.repeat_interleave(2, 0), atol=1e-4, rtol=1e-4)


def test_a_rollout_depends_on_its_seed_alone() -> None:
    whole = engine().generate(prompts(), group_size=3, seeds=list(range(12)))
    for i in range(4):
        one = engine().generate(alone(i), group_size=1, seeds=[3 * i + 2])
        assert one[0] == whole[3 * i + 2]
    in_parts = engine(rows=6).generate(prompts(), group_size=3, seeds=list(range(12)))
    assert in_parts == whole
    assert len({tuple(r.ids) for r in whole}) > 8


def test_ends_are_told_and_kept() -> None:
    own = tiny_policy()
    end = Tokens.of(own.net.config, own.tokenizer).end
    with torch.no_grad():
        own.net.lm_head.weight[end] *= 4  # now often the likeliest
    out = engine(own.net, max_new_tokens=24).generate(prompts(), group_size=8, seeds=list(range(32)))
    ended = [r for r in out if r.finished]
    assert len(ended) > 4
    assert all(r.ids[-1] == end and end not in r.ids[:-1] for r in ended)
    assert all(len(r.ids) == 24 and end not in r.ids for r in out if not r.finished)
    # rows that leave the batch early change nothing for the rest
    again = engine(own.net, max_new_tokens=24, rows=8).generate(
        prompts(), group_size=8, seeds=list(range(32))
    )
    assert again == out


def test_special_tokens_are_never_drawn() -> None:
    own = tiny_policy()
    never = sorted(Tokens.of(own.net.config, own.tokenizer).never)
    named = own.tokenizer.convert_tokens_to_ids(
        ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|im_start|>"]
    )
    assert set(named) < set(never)
    with torch.no_grad():
        own.net.lm_head.weight[never] = 5 * own.net.lm_head.weight[65].clone()
    out = engine(own.net).generate(prompts(), group_size=4, seeds=list(range(16)))
    assert not {i for r in out for i in r.ids} & set(never)


def test_the_net_may_be_wrapped_and_keeps_its_mode() -> None:
    own = tiny_policy(LoraSpec(rank=2), gradient_checkpointing=True)
    wrapped = TrainModel(own.net)
    wrapped.train()
    frozen = [m for m in wrapped.modules() if isinstance(m, torch.nn.Embedding)]
    frozen[0].eval()
    out = engine(wrapped).generate(prompts(), group_size=2, seeds=list(range(8)))
    plain = engine().generate(prompts(), group_size=2, seeds=list(range(8)))
    assert out == plain  # fresh adapters add nothing
    assert wrapped.training
    assert not frozen[0].training
    assert all(m.training for m in wrapped.modules() if m is not frozen[0])
    inputs = prompts().with_completions([r.ids for r in out], 2)
    wrapped(inputs).logps.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in wrapped.parameters())


def test_eager_attention_draws_the_same() -> None:
    own = tiny_policy(attn="eager")
    seeds = list(range(8))
    got = engine(own.net).generate(prompts(), group_size=2, seeds=seeds)
    assert got == engine().generate(prompts(), group_size=2, seeds=seeds)


def test_updates_are_seen_at_once() -> None:
    own = tiny_policy()
    drawing = engine(own.net)
    before = drawing.generate(prompts(), group_size=1, seeds=[0, 1, 2, 3])
    with torch.no_grad():
        own.net.lm_head.weight.add_(torch.randn_like(own.net.lm_head.weight))
    drawing.sync(own.net)
    assert drawing.generate(prompts(), group_size=1, seeds=[0, 1, 2, 3]) != before
    drawing.close()
    drawing.close()
    with pytest.raises(ValueError, match="closed"):
        drawing.generate(prompts(), group_size=1, seeds=[0, 1, 2, 3])


def test_a_seed_for_every_row() -> None:
    with pytest.raises(ValueError, match="3 seeds for 4 prompts times 2"):
        engine().generate(prompts(), group_size=2, seeds=[1, 2, 3])


@pytest.mark.parametrize("lora", [None, LoraSpec(rank=2)])
def test_a_whole_copy_draws_the_same(lora: LoraSpec | None) -> None:
    """What stands in for a policy that is cut over ranks."""
    torch.manual_seed(
        7
    )  # adapters are drawn from the global generator: the draw must not depend on the tests before
    own = tiny_policy(lora)
    copy = WholeCopy(TrainModel(own.net))
    with torch.no_grad():
        for name, weight in own.net.named_parameters():
            if weight.requires_grad and ("lora_B" in name or lora is None):
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    copy.load(TrainModel(own.net))
    seeds = list(range(8))
    want = engine(own.net).generate(prompts(), group_size=2, seeds=seeds)
    assert engine(copy.net).generate(prompts(), group_size=2, seeds=seeds) == want
    assert want != engine().generate(prompts(), group_size=2, seeds=seeds)


def test_mixed_precision_computes_in_the_smaller_type() -> None:
    own = tiny_policy()
    seen: list[torch.dtype] = []
    own.net.lm_head.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        engine(own.net, max_new_tokens=3).generate(prompts(), group_size=1, seeds=[0, 1, 2, 3])
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("spec", [{}, {"temperature": 0.7, "top_p": 0.8, "top_k": 20}])
def test_rows_are_told_as_they_end_with_the_log_probabilities_of_training(spec: dict[str, Any]) -> None:
    net, told = policy().net, []
    settings = SamplingSpec(max_new_tokens=12, rows=4, **spec)
    drawn = HfEngine(net, policy().tokenizer, settings, logps=True).generate(
        prompts(), group_size=2, seeds=range(8), ended=lambda row, one: told.append((row, one))
    )
    assert dict(told) == dict(enumerate(drawn)) and len(told) == 8
    silent = engine(rows=4, **{"max_new_tokens": 12, **spec}).generate(
        prompts(), group_size=2, seeds=range(8)
    )
    assert [one.ids for one in silent] == [one.ids for one in drawn]
    assert all(one.logps is None for one in silent)
    with torch.no_grad():
        trainer = TrainModel(net.eval(), temperature=settings.temperature)
        want = trainer(prompts().with_completions([one.ids for one in drawn], 2)).logps
    for row, one in zip(want, drawn, strict=True):
        assert one.logps == pytest.approx(row[: len(one.ids)].tolist(), abs=2e-4)
