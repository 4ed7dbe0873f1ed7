"""Log-probabilities see the clip, all three of them, and nothing but their own prompt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from tests.trainer.model.batches import batch_of, clip, random_completions, tiny_policy
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.model.forward import TokenLogProbs, TrainModel
from videop2r_data.trainer.model.load import Policy, Reference, load_reference
from videop2r_data.trainer.settings.parts import LoraSpec, PolicySpec

PICTURE = clip(5, 1, 56, 84)[0]
MIXED = (clip(1), PICTURE, None, clip(2, 8, 28, 56))
CLOSE = {"atol": 3e-5, "rtol": 1e-4}


@cache
def policy() -> Policy:
    return tiny_policy()


def inputs_of(media: Any = MIXED, repeat: int = 3, seed: int = 0) -> ModelInputs:
    batch = batch_of(policy().processor, media)
    return batch.with_completions(random_completions(len(media) * repeat, seed), repeat)


def told(inputs: ModelInputs, *, share: bool = True, **settings: Any) -> TokenLogProbs:
    with torch.no_grad():
        out: TokenLogProbs = TrainModel(policy().net, share_prompts=share, **settings)(inputs, entropy=True)
    return out


def row_by_row(inputs: ModelInputs, temperature: float = 1.0) -> tuple[list[Any], list[Any]]:
    """The same by the library's own forward, one row at a time: log-probabilities and entropies."""
    net, logps, entropies = policy().net, [], []
    for i in range(len(inputs.starts)):
        one = inputs.rows(i - i % inputs.repeat, i - i % inputs.repeat + inputs.repeat)
        start, length = int(inputs.starts[i]), int(inputs.lengths[i])
        end = start + length
        with torch.no_grad():
            logits = net(
                input_ids=inputs.input_ids[i : i + 1, :end],
                mm_token_type_ids=inputs.types[i : i + 1, :end],
                **one.media,
            ).logits[0, start - 1 : end - 1]
        table = (logits / temperature).log_softmax(-1)
        logps.append(table.gather(-1, inputs.input_ids[i, start:end, None])[:, 0])
        entropies.append(-(table.exp() * table).sum(-1))
    return logps, entropies


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_entropies_are_the_librarys(share: bool, temperature: float) -> None:
    inputs = inputs_of()
    out = told(inputs, share=share, temperature=temperature)
    logps, entropies = row_by_row(inputs, temperature)
    assert out.logps.dtype == torch.float32
    assert out.mask.sum(-1).tolist() == inputs.lengths.tolist()
    assert out.entropy is not None
    for i, (want, spread) in enumerate(zip(logps, entropies, strict=True)):
        torch.testing.assert_close(out.logps[i][out.mask[i]], want, **CLOSE)
        torch.testing.assert_close(out.entropy[i][out.mask[i]], spread, **CLOSE)
    assert not out.logps[~out.mask].any()
    assert not out.entropy[~out.mask].any()


def test_entropy_of_a_flat_distribution_is_the_logarithm_of_its_size() -> None:
    own = tiny_policy()
    torch.nn.init.zeros_(own.net.lm_head.weight)
    out = TrainModel(own.net)(inputs_of((None,), 1), entropy=True)
    size = own.net.lm_head.weight.shape[0]
    flat = torch.full_like(out.logps, size).log()
    torch.testing.assert_close(out.entropy, flat)
    torch.testing.assert_close(out.logps, -flat)


@pytest.mark.parametrize("share", [True, False])
def test_neither_padding_nor_company_changes_a_row(share: bool) -> None:
    inputs = inputs_of()
    whole = told(inputs, share=share)
    for prompt in range(4):
        alone = told(inputs.rows(3 * prompt, 3 * prompt + 3), share=share)
        for i in range(3):
            row = 3 * prompt + i
            torch.testing.assert_close(
                alone.logps[i][alone.mask[i]], whole.logps[row][whole.mask[row]], **CLOSE
            )


@pytest.mark.parametrize("share", [True, False])
def test_row_i_uses_the_media_of_prompt_i_over_g(share: bool) -> None:
    batch = batch_of(policy().processor, (clip(1), clip(2), clip(3)))
    completions = random_completions(6)
    plain = told(batch.with_completions(completions, 2), share=share)
    turned = batch_of(policy().processor, (clip(3), clip(1), clip(2)))
    # question i stays, clips move: every row must be that of the clip that is now at its prompt
    for prompt, clip_at in enumerate((3, 1, 2)):
        alone = batch_of(policy().processor, (None,) * prompt + (clip(clip_at),))
        one = told(alone.with_completions([[1]] * 2 * prompt + completions[2 * prompt : 2 * prompt + 2], 2))
        moved = told(turned.with_completions(completions, 2), share=share)
        for i in (2 * prompt, 2 * prompt + 1):
            torch.testing.assert_close(moved.logps[i][moved.mask[i]], one.logps[i][one.mask[i]], **CLOSE)
            assert not torch.allclose(moved.logps[i], plain.logps[i], **CLOSE)


def passes() -> dict[str, Callable[[ModelInputs], TokenLogProbs]]:
    lora = tiny_policy(LoraSpec(rank=2))
    adapted = TrainModel(lora.net)
    full = TrainModel(policy().net)
    frozen = load_reference(PolicySpec(model=policy().net.config._name_or_path, dtype="float32"))

    def old(inputs: ModelInputs) -> TokenLogProbs:
        with torch.no_grad():
            out: TokenLogProbs = full(inputs)
        return out

    return {
        "policy": full,
        "old": old,
        "reference, full": Reference(full, frozen).logps,
        "reference, adapters": Reference(adapted).logps,
    }


@pytest.mark.parametrize("which", ["policy", "old", "reference, full", "reference, adapters"])
@pytest.mark.parametrize("other", [0, 1])
def test_the_media_reach_every_pass(which: str, other: int) -> None:
    """The check that fails where the rollout sees the video and the log-probabilities do not."""
    run = passes()[which]
    seen = run(inputs_of())
    again = run(inputs_of((clip(1), PICTURE.copy(), None, clip(2, 8, 28, 56))))
    assert torch.equal(seen.logps, again.logps)
    media = list(MIXED)
    media[other] = 255 - MIXED[other]  # type: ignore[operator]
    changed = run(inputs_of(media))
    rows = slice(3 * other, 3 * other + 3)
    assert ((seen.logps - changed.logps).abs() > 1e-3)[rows][seen.mask[rows]].all()
    rest = torch.ones(12, dtype=torch.bool)
    rest[rows] = False
    torch.testing.assert_close(seen.logps[rest], changed.logps[rest], **CLOSE)


def test_the_order_of_frames_and_their_times_matter() -> None:
    still = told(inputs_of((clip(1),)))
    backwards = told(inputs_of((clip(1)[::-1].copy(),)))
    assert ((still.logps - backwards.logps).abs() > 1e-3)[still.mask].all()
    slower = inputs_of((clip(1),))
    slower.media["second_per_grid_ts"] = slower.media["second_per_grid_ts"] * 3
    assert not torch.allclose(still.logps, told(slower).logps, **CLOSE)


def gradients(inputs: ModelInputs, weights: torch.Tensor, **settings: Any) -> dict[str, Any]:
    own = tiny_policy(**settings.pop("policy", {}))
    out = TrainModel(own.net, **settings)(inputs)
    (out.logps * weights[: out.logps.shape[0], : out.logps.shape[1]]).sum().backward()
    return {name: weight.grad for name, weight in own.net.named_parameters()}


def test_gradients_are_those_of_rows_computed_one_by_one() -> None:
    inputs = inputs_of(repeat=2)
    weights = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    shared = gradients(inputs, weights)
    repeated = gradients(inputs, weights, share_prompts=False)
    checkpointed = gradients(inputs, weights, policy={"gradient_checkpointing": True}, piece=2_000)
    own = tiny_policy()
    net = TrainModel(own.net, share_prompts=False)
    for i in range(8):  # ungrouped: every row with its own copy of its media, encoded for it alone
        group = inputs.rows(i - i % 2, i - i % 2 + 2)
        one = ModelInputs(
            **{n: getattr(group, n)[i % 2 : i % 2 + 1] for n in ("input_ids", "attention_mask", "types")},
            **{n: getattr(group, n)[i % 2 : i % 2 + 1] for n in ("starts", "lengths")},
            media=group.media,
            repeat=1,
        )
        logps = net(one).logps
        (logps[0] * weights[i, : logps.shape[1]]).sum().backward()
    for name, weight in own.net.named_parameters():
        for got in (shared, repeated, checkpointed):
            torch.testing.assert_close(got[name], weight.grad, atol=2e-4, rtol=2e-4, msg=name)
    tower = [g for name, g in shared.items() if "visual" in name]
    assert tower
    assert all(g is not None and g.abs().sum() > 0 for g in tower)


@pytest.mark.parametrize("on", [True, False])
def test_checkpointing_computes_each_block_again(on: bool) -> None:
    own = tiny_policy(gradient_checkpointing=on)
    calls = []
    own.net.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append("text"))
    own.net.model.visual.blocks[0].mlp.register_forward_pre_hook(lambda *_: calls.append("vision"))
    TrainModel(own.net)(inputs_of()).logps.sum().backward()
    assert sorted(calls) == sorted(["text", "vision"] * (2 if on else 1))


def test_half_precision_is_near_and_float32_outside() -> None:
    own = tiny_policy(dtype="bfloat16")
    with torch.no_grad():
        out = TrainModel(own.net)(inputs_of(), entropy=True)
    assert out.logps.dtype == torch.float32
    gap = (out.logps - told(inputs_of()).logps)[out.mask].abs()
    assert gap.mean() < 1  # logits of this random model spread over some 20 units


def test_words_alone_give_the_tower_a_gradient_of_zero() -> None:
    got = gradients(inputs_of((None, None)), torch.ones(6, 16))
    assert all(g is not None for g in got.values())
    assert all(not g.any() for name, g in got.items() if "visual" in name)
    assert any(g.any() for name, g in got.items() if "visual" not in name)


def test_a_pass_in_pieces_is_the_pass_in_one() -> None:
    inputs = inputs_of()
    one, many = told(inputs), told(inputs, piece=3_000)
    torch.testing.assert_close(one.logps, many.logps, **CLOSE)
    torch.testing.assert_close(one.entropy, many.entropy, **CLOSE)


def test_an_empty_completion_is_no_trouble() -> None:
    batch = batch_of(policy().processor, MIXED)
    completions = random_completions(8)
    completions[3] = []
    out = told(batch.with_completions(completions, 2))
    assert out.mask.sum(-1).tolist() == [len(c) for c in completions]
    full = told(batch.with_completions(completions, 2), share=False)
    torch.testing.assert_close(out.logps, full.logps, **CLOSE)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_any_number_of_completions_behind_a_prompt_gives_the_same(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of(repeat=6)
    want = told(inputs, share=False)
    monkeypatch.setattr("videop2r_data.trainer.model.layout.members", lambda *_: count)
    torch.testing.assert_close(told(inputs).logps, want.logps, **CLOSE)


def test_eager_attention_shares_prompts_too() -> None:
    own = tiny_policy(attn="eager")
    with torch.no_grad():
        out = TrainModel(own.net)(inputs_of())
    torch.testing.assert_close(out.logps, told(inputs_of()).logps, **CLOSE)


def test_other_families_are_refused() -> None:
    class Other(torch.nn.Module):  # type: ignore[misc]
        class config:
            model_type = "llava"

    with pytest.raises(ConfigError, match="llava"):
        TrainModel(Other())
