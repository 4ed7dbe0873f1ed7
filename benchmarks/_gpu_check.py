"""Whether bfloat16 on this device computes what it should: a line of JSON for each check.

    python -m benchmarks._gpu_check --shape 3b --keep FOLDER [--tokens 64]
    python -m benchmarks._gpu_check --quick

The same weights in float32, one sequence for each rollout, are the truth; what bfloat16 loses there is the
yardstick for everything else: shared prompts and decode with its cache may lose 1.5 times as much, not more.
What a mask forbids may change nothing at all. Prompts are two questions about clips of the demo world, of
different lengths and the sizes of `gpu_step.py`, 8 rollouts each; log-probabilities are in nats.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_step import SHAPES, ready_model
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas import DemoSpec, MediaSpec
from videop2r_data.trainer.data import Collator, DemoStream, ModelInputs, PromptBatch, draw
from videop2r_data.trainer.model import TrainModel, load_policy
from videop2r_data.trainer.rollout import HfEngine
from videop2r_data.trainer.settings import DataSpec, PolicySpec, SamplingSpec

GROUP = 8
WORSE = 1.5
"""How much more than rows a layout may lose to bfloat16."""
NOTHING = 1e-4
"""A difference that counts as none."""


class Side(NamedTuple):
    """The same weights in one type: the net, its processor, and whether it computes in mixed precision."""

    net: Any
    processor: Any
    mixed: bool


def main() -> None:
    """Run the checks, all of them, whatever fails; the exit code tells whether all hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="3b")
    parser.add_argument("--keep", type=Path, help="folder in which the random model stays")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="the tiny shape, frames of 56 pixels, 12 tokens")
    args = parser.parse_args()
    side, tokens, shape = (56, 12, "tiny") if args.quick else (308, args.tokens, args.shape)
    with tempfile.TemporaryDirectory() as name:
        held = check(ready_model(args.keep or Path(name), shape), side, tokens)
    raise SystemExit(0 if all(held) else 1)


def check(model: Path, side: int, tokens: int) -> list[bool]:
    """Which checks hold.

    Args:
        model: the checkpoint.
        side: of the frames, in pixels.
        tokens: longest completion.
    """
    half = load(model, "bfloat16", mixed=True)
    prompts = make_prompts(half.processor, side)
    drawn, decoded = decode(half, prompts, tokens)
    whole = prompts.with_completions([[*row][: tokens - i % 4] for i, row in enumerate(drawn)], GROUP)
    rows, shared = logps(half, whole, share=False), logps(half, whole, share=True)
    apart = isolation(half, whole)
    alone = logps(half, whole.rows(0, GROUP), share=False)
    dark = logps(half, blackened(whole), share=False)
    slopes = {name: gradient(half, whole, share=name == "shared") for name in ("rows", "shared")}
    del half
    gc.collect()
    full = load(model, "float32", mixed=False)
    truth = logps(full, whole, share=False)
    slopes["truth"] = gradient(full, whole, share=False)
    mask = torch.arange(truth.shape[1]) < whole.lengths[:, None]
    decoded = decoded[:, : mask.shape[1]]
    own = mask[:GROUP, : alone.shape[1]]
    lost = distance(rows, truth, mask)
    turned = {name: 1 - cosine(slope, slopes["truth"]) for name, slope in slopes.items()}
    limit = WORSE * lost + NOTHING
    padded = distance(alone, rows[:GROUP, : alone.shape[1]], own)
    return [
        tell("rows", lost, None, "mean difference to float32"),
        tell("shared prompts", distance(shared, truth, mask), limit, "the same"),
        tell("decode", distance(decoded, truth, mask), limit, "the same"),
        tell("decode to forward", distance(decoded, shared, mask), 2 * limit, "mean difference"),
        tell("neighbours are not seen", apart, NOTHING, "largest change by another completion"),
        tell("padding and company", padded, 2 * limit, "mean change of a group that is computed alone"),
        tell(
            "the clip is seen", distance(dark, rows, mask), -2 * lost, "mean change by a black clip, at least"
        ),
        tell("gradient of rows", turned["rows"], None, "1 - cosine to float32, a query matrix in the middle"),
        tell("gradient, shared prompts", turned["shared"], WORSE * turned["rows"] + NOTHING, "the same"),
    ]


def tell(name: str, value: float, limit: float | None, what: str) -> bool:
    """Print a check and whether it holds. A negative limit is a least value; without one a number will do."""
    held = value == value if limit is None else value <= limit if limit >= 0 else value >= -limit
    shown = None if limit is None else round(abs(limit), 6)
    print(
        json.dumps({"check": name, "value": round(value, 6), "limit": shown, "holds": held, "what": what}),
        flush=True,
    )
    return held


def load(model: Path, dtype: Any, *, mixed: bool) -> Side:
    """The checkpoint in a type, on the accelerator if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = load_policy(PolicySpec(model=str(model), dtype=dtype), device)
    return Side(policy.net, policy.processor, mixed)


def make_prompts(processor: Any, side: int) -> PromptBatch:
    """Two questions about clips of the demo world whose prompts differ in length."""
    media = MediaSpec(frames=16, max_pixels=side * side, min_pixels=784, factor=28)
    world = DemoSpec(seed=1, side=side, frames=16, mediums=("video",), numbered=False, rotated=False)
    stream = DemoStream(DataSpec(source="demo", config="rl", media=media, demo=world))
    collator = Collator(processor, load_prompt("generate-v1"), media)
    first, *others = stream[:16]
    lengths = collator(others, [draw(_scene(one), media) for one in others]).ids
    whole = collator([first], [draw(_scene(first), media)]).ids[0]
    other = next((one for one, ids in zip(others, lengths, strict=True) if len(ids) != len(whole)), others[0])
    return collator([first, other], [draw(_scene(one), media) for one in (first, other)])


def _scene(example: Any) -> Any:
    assert example.scene is not None
    return example.scene


def autocast(side: Side) -> Any:
    """As training computes: bfloat16, or float32 for the truth."""
    device = next(side.net.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=side.mixed)


@torch.no_grad()  # type: ignore[untyped-decorator]
def logps(side: Side, inputs: ModelInputs, *, share: bool) -> Tensor:
    """[N, C] log-probabilities by the trainer's forward pass."""
    model = TrainModel(side.net, share_prompts=share).eval()
    with autocast(side):
        told = model(inputs.to(next(side.net.parameters()).device))
    side.net.train()
    return told.logps.cpu()


def decode(side: Side, prompts: PromptBatch, tokens: int) -> tuple[list[list[int]], Tensor]:
    """Completions of full length, and the [N, C] log-probabilities of their tokens while they were drawn."""
    head = next(module for name, module in side.net.named_modules() if name.split(".")[-1] == "lm_head")
    seen: list[Tensor] = []
    hook = head.register_forward_hook(lambda _module, _given, told: seen.append(told.float().log_softmax(-1)))
    engine = HfEngine(side.net, side.processor.tokenizer, SamplingSpec(max_new_tokens=tokens))
    with autocast(side):
        rolled = engine.generate(prompts, group_size=GROUP, seeds=range(len(prompts) * GROUP))
    hook.remove()
    ids = [one.ids for one in rolled]
    if any(len(row) < tokens for row in ids):
        raise SystemExit(
            "a completion ended by itself: the cache has dropped rows, decode cannot be compared"
        )
    tables = [table.view(-1, table.shape[-1]) for table in seen]
    tables[0] = tables[0].repeat_interleave(GROUP, 0) if len(tables[0]) < len(ids) else tables[0]
    chosen = torch.tensor(ids, device=tables[0].device)
    told = [table.gather(-1, chosen[:, t, None])[:, 0] for t, table in enumerate(tables[:tokens])]
    return ids, torch.stack(told, 1).cpu()


def isolation(side: Side, inputs: ModelInputs) -> float:
    """Largest change of any completion's log-probabilities when the first of its group is another one."""
    ids = inputs.input_ids.clone()
    for row in range(0, len(ids), GROUP):
        start, count = int(inputs.starts[row]), int(inputs.lengths[row])
        ids[row, start : start + count] = ids[row, start : start + count].flip(0)
    other = ModelInputs(**{**vars(inputs), "input_ids": ids})
    change = (logps(side, inputs, share=True) - logps(side, other, share=True)).abs()
    if not float(change[::GROUP].max()):
        raise SystemExit("other tokens gave the same log-probabilities: nothing is checked")
    kept = torch.arange(len(ids)) % GROUP > 0
    return float(change[kept].max())


def blackened(inputs: ModelInputs) -> ModelInputs:
    """The same prompts with patches of zeros."""
    media = {
        name: torch.zeros_like(part) if name.startswith("pixel") else part
        for name, part in inputs.media.items()
    }
    return ModelInputs(**{**vars(inputs), "media": media})


def gradient(side: Side, inputs: ModelInputs, *, share: bool) -> Tensor:
    """Gradient of the mean log-probability of one group in the query weights of the middle layer."""
    side.net.requires_grad_(False)
    layers = side.net.model.language_model.layers
    weight = layers[len(layers) // 2].self_attn.q_proj.weight.requires_grad_(True)
    with autocast(side):
        told = TrainModel(side.net, share_prompts=share)(inputs.rows(0, GROUP).to(weight.device))
    told.logps.mean().backward()
    found: Tensor = weight.grad.float().flatten().cpu()
    weight.grad = None
    return found


def distance(one: Tensor, other: Tensor, mask: Tensor) -> float:
    """Mean absolute difference where there is a token."""
    return float((one - other).abs()[mask].mean())


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of the angle between two vectors; float64, for angles are small."""
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


if __name__ == "__main__":
    main()
