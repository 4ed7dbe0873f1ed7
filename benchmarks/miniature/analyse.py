"""Why an objective wins or loses: what its gradient says at the start of RL.

    OMP_NUM_THREADS=1 python -m benchmarks.miniature.analyse --seed 0 [--work DIR] [--quick]

One large set of rollouts from the SFT start, graded once. From it, for every objective:

- agreement: mean cosine between its gradients on disjoint batches of prompts. High: little noise.
- towards answers, towards observations: cosine between its gradient on one batch and the gradient of the
  answers' (observations') accuracy alone, over all tokens, on all other batches: the direction in which that
  accuracy grows, estimated without the batch itself.

And of the groups: how many are collapsed, how the two verdicts go together, within a group and over all.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.miniature.run import RESULTS
from benchmarks.miniature.settings import ARMS, FULL, QUICK, Scale, rl_recipe
from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data import Collator, DemoStream, ModelInputs, PromptBatch, draw
from videop2r_data.trainer.judging import DemoJudge, JudgeItem
from videop2r_data.trainer.model import TrainModel, load_policy
from videop2r_data.trainer.process import (
    Graded,
    SegmentMasks,
    Stream,
    TokenTable,
    denominators,
    grade,
    pad_masks,
    policy_loss,
    rewards_of,
    segment_masks,
    streams,
)
from videop2r_data.trainer.rollout import HfEngine
from videop2r_data.trainer.settings import LossSpec, ObjectiveSpec, RewardSpec

OBJECTIVES = ("pa-grpo", "grpo", "no-separation", "no-perception", "no-reasoning")
GROUP = 8
LOSS = LossSpec(beta=0.0)
REWARDS = RewardSpec(length="off")


@dataclass
class Batch:
    """Prompts with their graded groups."""

    inputs: ModelInputs
    masks: list[SegmentMasks]
    graded: list[Graded]


class Rolls:
    """Draws and grades groups from the start of a seed."""

    def __init__(self, weights: Path, seed: int, scale: Scale, output: Path) -> None:
        arm = next(a for a in ARMS if a.name == "pa-grpo")
        recipe = rl_recipe(arm, seed, scale, weights, output)
        self.data, self.size = recipe.data, scale.rl_prompts
        policy = load_policy(recipe.model, torch.device("cpu"))
        self.model = TrainModel(policy.net)
        self.engine = HfEngine(policy.net, policy.tokenizer, recipe.sampling)
        self.table = TokenTable.from_tokenizer(policy.tokenizer)
        self.collator = Collator(policy.processor, load_prompt(recipe.data.prompt_name), recipe.data.media)
        self.stream, self.judge = DemoStream(recipe.data), DemoJudge()

    def batch(self, number: int) -> Batch:
        """Batch `number` of the prompts that RL sees, in its order."""
        examples = self.stream[number * self.size : (number + 1) * self.size]
        frames = [draw(e.scene, self.data.media) for e in examples if e.scene is not None]
        prompts: PromptBatch = self.collator(examples, frames)
        seeds = [10_000 * number + i for i in range(len(examples) * GROUP)]
        rolled = self.engine.generate(prompts, group_size=GROUP, seeds=seeds)
        masks = [segment_masks(one.ids, self.table) for one in rolled]
        graded = []
        for row, (one, mask) in enumerate(zip(rolled, masks, strict=True)):
            example = examples[row // GROUP]
            found = grade(
                mask,
                problem_type=example.problem_type,
                reference=example.reference,
                options=example.options,
                finished=one.finished,
            )
            verdict = self.judge.submit([JudgeItem(example, found.observation)]).result()[0]
            graded.append(found.judged(verdict.sufficient))
        return Batch(prompts.with_completions([one.ids for one in rolled], GROUP), masks, graded)

    def gradient(self, batch: Batch, name: str) -> Tensor:
        """Of an objective, or of one accuracy alone (`answers`, `observations`), as one vector."""
        told = self.model(batch.inputs)
        width = told.logps.shape[1]
        if name in OBJECTIVES:
            objective = ObjectiveSpec.model_validate({"name": name})
            table = rewards_of(batch.graded, REWARDS, GROUP, objective=objective)
            owned = {
                stream.name: pad_masks([mask.weights[stream.name] for mask in batch.masks], width)
                for stream in table.streams
            }
            chosen = streams(objective, table, owned, completion_mask=told.mask, spec=LOSS)
        else:
            key = "accuracy_r" if name == "answers" else "accuracy_p"
            values = rewards_of(batch.graded, REWARDS, GROUP).components[key].float().view(-1, GROUP)
            chosen = [Stream("all", told.mask.float(), (values - values.mean(1, keepdim=True)).flatten())]
        result = policy_loss(
            told.logps,
            None,
            None,
            chosen,
            completion_mask=told.mask,
            spec=LOSS,
            denominators=denominators(told.mask),
        )
        self.model.zero_grad()
        result.loss.backward()
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two vectors."""
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-12))


def directions(rolls: Rolls, batches: list[Batch]) -> dict[str, dict[str, float]]:
    """Per objective the three cosines, means over batches."""
    goals = {goal: [rolls.gradient(b, goal) for b in batches] for goal in ("answers", "observations")}
    sums = {goal: torch.stack(parts).sum(0) for goal, parts in goals.items()}
    out = {}
    for name in OBJECTIVES:
        grads = [rolls.gradient(b, name) for b in batches]
        n = len(grads)
        pairs = [cosine(grads[i], grads[j]) for i in range(n) for j in range(i)]
        found = {"agreement": float(np.mean(pairs))}
        for goal, parts in goals.items():
            rest = [cosine(g, sums[goal] - part) for g, part in zip(grads, parts, strict=True)]
            found[f"towards {goal}"] = float(np.mean(rest))
        out[name] = found
    return out


def verdicts(batches: list[Batch]) -> dict[str, float]:
    """How the two verdicts go together, and which groups tell something."""
    graded = [g for b in batches for g in b.graded]
    p = np.array([g.acc_p or 0.0 for g in graded]).reshape(-1, GROUP)
    r = np.array([g.acc_r or 0.0 for g in graded]).reshape(-1, GROUP)
    dp, dr = p - p.mean(1, keepdims=True), r - r.mean(1, keepdims=True)
    varied_p, varied_r = dp.any(1), dr.any(1)
    return {
        "rollouts": float(p.size),
        "observations sufficient": float(p.mean()),
        "answers, mean score": float(r.mean()),
        "answers if sufficient": float(r[p > 0].mean()),
        "answers if not": float(r[p == 0].mean()),
        "sufficient if answer exact": float(p[r == 1].mean()),
        "correlation": float(np.corrcoef(p.ravel(), r.ravel())[0, 1]),
        "correlation within groups": float((dp * dr).sum() / np.sqrt((dp**2).sum() * (dr**2).sum())),
        "groups with unequal observations": float(varied_p.mean()),
        "groups with unequal answers": float(varied_r.mean()),
        "only observations unequal": float((varied_p & ~varied_r).mean()),
        "only answers unequal": float((varied_r & ~varied_p).mean()),
        "neither": float((~varied_r & ~varied_p).mean()),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = args.work / f"sft-process-{args.seed}" / "final"
    rolls = Rolls(start, args.seed, QUICK if args.quick else FULL, args.work / "unused")
    batches = [rolls.batch(number) for number in range(args.batches)]
    found: dict[str, Any] = {"verdicts": verdicts(batches), "gradients": directions(rolls, batches)}
    target = args.results / f"why-{args.seed}.json"
    target.write_text(json.dumps({"seed": args.seed, **found}, indent=1) + "\n")
    print(target.read_text())


if __name__ == "__main__":
    main()
