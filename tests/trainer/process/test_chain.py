"""From token ids of several prompts to gradients: every reward stays with its rollout, every group whole."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer.process.test_masks import EOS, TABLE, ids_of
from videop2r_data.trainer.process.advantages import collapsed, pad_masks, streams
from videop2r_data.trainer.process.loss import denominators, policy_loss
from videop2r_data.trainer.process.masks import SegmentMasks, segment_masks
from videop2r_data.trainer.process.rewards import grade, rewards_of
from videop2r_data.trainer.settings.rl import LossSpec, ObjectiveName, ObjectiveSpec, RewardSpec

SPEC = LossSpec(beta=0.0, eps=0.0)


class Prompt(NamedTuple):
    """A question with its reference, and two rollouts with the judge's word on each."""

    reference: str
    rollouts: tuple[tuple[str, bool | None], ...]


def trace(observation: str, answer: str) -> str:
    return f"<observation>{observation}</observation> <think>t</think><answer>{answer}</answer>"


PROMPTS = (
    # R_P 2, 1 -> A_P 1, -1;  R_R 1, 2 -> A_R -1, 1;  the sum collapses
    Prompt("3", ((trace("good", "4"), True), (trace("bad", "3"), False))),
    # the judge is silent on the first: A_P 0, 0;  R_R 2, 1 -> A_R 1, -1;  one sum is scored: collapses
    Prompt("4", ((trace("x", "4"), None), (trace("y", "3"), True))),
    # both right: all collapse
    Prompt("3", ((trace("p", "3"), True), (trace("pp", "3"), True))),
    # an answer without template: R_P 0, R_R 0 against 2, 2; its tokens cannot be split: both at half weight
    Prompt("7", (("7", None), (trace("q", "7"), True))),
)
ADVANTAGES = ((1, -1), (-1, 1)), ((0, 0), (1, -1)), ((0, 0), (0, 0)), ((-1, 1), (-1, 1))
"""Per prompt A_P and A_R of its two rollouts."""


def masks_of(prompts: tuple[Prompt, ...]) -> list[SegmentMasks]:
    return [segment_masks([*ids_of(text), EOS], TABLE) for prompt in prompts for text, _ in prompt.rollouts]


def gradients(prompts: tuple[Prompt, ...], name: ObjectiveName = "pa-grpo") -> list[list[float]]:
    """The gradient of each rollout's tokens at ratio 1."""
    masks = masks_of(prompts)
    flat = [(prompt.reference, word) for prompt in prompts for _, word in prompt.rollouts]
    graded = [
        grade(m, problem_type="numerical", reference=reference).judged(word)
        for m, (reference, word) in zip(masks, flat, strict=True)
    ]
    objective = ObjectiveSpec(name=name)
    table = rewards_of(graded, RewardSpec(), 2, objective=objective)
    width = max(m.tokens for m in masks)
    mask = torch.arange(width) < torch.tensor([[m.tokens] for m in masks])
    found = streams(
        objective,
        table,
        {name: pad_masks([m.weights[name] for m in masks], width) for name in ("perception", "reasoning")},
        completion_mask=mask,
        spec=SPEC,
    )
    logps = torch.full(mask.shape, -1.0, requires_grad=True)
    result = policy_loss(
        logps, None, None, found, completion_mask=mask, spec=SPEC, denominators=denominators(mask)
    )
    (gradient,) = torch.autograd.grad(result.loss, logps)
    return [row[: m.tokens].tolist() for row, m in zip(gradient, masks, strict=True)]


def test_every_reward_moves_its_own_rollout() -> None:
    got = gradients(PROMPTS)
    for row, masks in enumerate(masks_of(PROMPTS)):
        (a_p, a_r), g = ADVANTAGES[row // 2], row % 2
        n_p = sum(w > 0 for w in masks.weights["perception"])
        n_r = sum(w > 0 for w in masks.weights["reasoning"])
        # at ratio 1 a token's gradient is -1/N (w_P A_P / n_P + w_R A_R / n_R), N = 8
        expected = [
            -(p * a_p[g] / max(n_p, 1) + r * a_r[g] / max(n_r, 1)) / 8
            for p, r in zip(masks.weights["perception"], masks.weights["reasoning"], strict=True)
        ]
        assert got[row] == pytest.approx(expected, abs=1e-7)


@settings(deadline=None, max_examples=12)
@given(st.permutations(range(4)))
def test_prompts_permute(order: list[int]) -> None:
    plain = gradients(PROMPTS)
    moved = gradients(tuple(PROMPTS[i] for i in order))
    assert moved == [pytest.approx(plain[2 * i + g], abs=1e-7) for i in order for g in range(2)]


def test_rollouts_of_a_prompt_permute() -> None:
    swapped = tuple(p._replace(rollouts=p.rollouts[::-1]) for p in PROMPTS)
    plain, moved = gradients(PROMPTS), gradients(swapped)
    assert moved == [pytest.approx(plain[row ^ 1], abs=1e-7) for row in range(8)]


def test_a_prompt_alone_gives_the_same_advantages() -> None:
    # N is 2 instead of 8: four times the gradient, nothing else
    whole = gradients(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        alone = gradients((prompt,))
        for g in range(2):
            assert alone[g] == pytest.approx([4 * x for x in whole[2 * i + g]], abs=1e-7)


def test_what_collapses() -> None:
    graded = [
        grade(m, problem_type="numerical", reference=prompt.reference).judged(word)
        for m, (prompt, word) in zip(
            masks_of(PROMPTS), ((p, word) for p in PROMPTS for _, word in p.rollouts), strict=True
        )
    ]
    table = rewards_of(graded, RewardSpec(), 2)
    p = collapsed(table.of("p")[0], table.scored["p"], 2)
    r = collapsed(table.of("r")[0], table.scored["r"], 2)
    both = collapsed(*table.total, 2)
    assert (int(p.sum()), int(r.sum()), int(both.sum()), len(both)) == (2, 1, 3, 4)


def test_no_rollouts_at_all() -> None:
    # a rank whose clips were all lost
    table = rewards_of([], RewardSpec(), 2)
    empty: Tensor = torch.zeros(0, 3)
    found = streams(
        ObjectiveSpec(),
        table,
        {"perception": empty, "reasoning": empty},
        completion_mask=empty.bool(),
        spec=SPEC,
    )
    over = denominators(empty)
    result = policy_loss(empty, None, None, found, completion_mask=empty, spec=SPEC, denominators=over)
    assert (result.loss.item(), len(collapsed(*table.total, 2))) == (0.0, 0)
