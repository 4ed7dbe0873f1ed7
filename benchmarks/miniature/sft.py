"""SFT on the traces of a teacher that slips, and starts that are kept."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Generator, Tensor

from benchmarks.miniature.measure import VALIDATION, counted
from benchmarks.miniature.policy import Policy
from benchmarks.miniature.settings import Scale, Setting, Start
from benchmarks.miniature.world import BASE, DIGITS, TOKENS, Clips, World, answer, think

RATE, BATCH = 2e-3, 128
WATCHED = 25
"""Updates between looks at validation clips, where SFT is stopped by them."""


def world_of(setting: Setting) -> World:
    """The world of a setting."""
    return World(setting.pixels, setting.noise, setting.likely)


def new_policy(setting: Setting, seed: int, tokens: int = TOKENS) -> Policy:
    """Random weights of a seed."""
    torch.manual_seed(seed)
    return Policy(pixels=setting.pixels, tokens=tokens)


def teach(clips: Clips, slip: float, generator: Generator) -> Tensor:
    """[N, 5] traces of the teacher: each value slips on its own, and what follows goes on from the slip."""

    def slipped(right: Tensor) -> Tensor:
        wrong = torch.randint(BASE, right.shape, generator=generator)
        return torch.where(torch.rand(right.shape, generator=generator) < slip, wrong, right)

    said = slipped(clips.digits)
    thought = slipped(think(said, clips.question))
    last = slipped(answer(thought, said[:, 2], clips.question))
    return torch.cat([said, thought[:, None], last[:, None]], dim=1)


def train(setting: Setting, seed: int, scale: Scale, start: Start = "sft") -> Policy:
    """The start of a seed: process-aware, or `agnostic` on the same traces without their observations."""
    world, tokens = world_of(setting), TOKENS if start != "agnostic" else TOKENS - DIGITS
    policy = new_policy(setting, seed, tokens)
    if start == "random":
        return policy
    generator = Generator().manual_seed(1000 + seed)
    watched = world.draw(scale.clips // 4, Generator().manual_seed(VALIDATION))
    updates = max(2, round(setting.sft_updates * scale.share))
    optimizer = torch.optim.AdamW(policy.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for step in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 50) * max(0.05, 1 - step / updates)
        clips = world.draw(BATCH, generator)
        traces = teach(clips, setting.slip, generator)[:, TOKENS - tokens :]
        loss = -policy.write(policy.read(clips.seen, clips.question), said=traces).logps.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        looks = setting.sft_stop and step > updates // 4 and step % WATCHED == 0
        if looks and reached(policy, watched) >= setting.sft_stop:
            break
    return policy


def reached(policy: Policy, clips: Clips) -> float:
    """Share of sampled answers that are right."""
    with torch.no_grad():
        written = policy.write(policy.read(clips.seen, clips.question), Generator().manual_seed(1))
    return counted(written.tokens, clips)["answers"]


def kept(
    folder: Path, name: str, setting: Setting, seed: int, scale: Scale, start: Start
) -> tuple[Policy, float]:
    """The start of a seed, from its file if it was trained before; and the CPU seconds that it took."""
    path = folder / "starts" / f"{name}-{start}-{seed}.pt"
    policy = new_policy(setting, seed, TOKENS if start != "agnostic" else TOKENS - DIGITS)
    if path.exists():
        found = torch.load(path, weights_only=True)
        policy.load_state_dict(found["weights"])
        return policy, float(found["cpu_s"])
    began = time.process_time()
    policy = train(setting, seed, scale, start)
    spent = time.process_time() - began
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"weights": policy.state_dict(), "cpu_s": spent}, partial)
    partial.replace(path)
    return policy, spent
