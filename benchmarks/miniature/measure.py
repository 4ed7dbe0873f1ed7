"""What a policy does on clips that no stage saw, and the gate before RL."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from benchmarks.miniature.policy import Policy, Written
from benchmarks.miniature.world import (
    BASE,
    DIGITS,
    LIKELY,
    QUESTIONS,
    TOKENS,
    Clips,
    Floor,
    answer,
    solve,
    think,
)

Figures = dict[str, float]
"""Name -> share in [0, 1], or nats."""
TEST, VALIDATION = 99, 77
"""Seeds of the clips of the tables, and of those on which rates are chosen, SFT is stopped, and the gate is
checked."""


def measure(policy: Policy, clips: Clips, start: Policy | None = None, draws: int = 1) -> dict[str, Figures]:
    """Greedy and sampled figures.

    Args:
        start: what RL began with, for the KL; None: no KL.
        draws: sampled traces of each clip; several make the figure of a policy, not of the draw.
    """
    with torch.no_grad():
        generator = Generator().manual_seed(1)
        read = policy.read(clips.seen, clips.question)
        sampled = policy.write(read, generator, group=draws)
        found = {
            "greedy": counted(policy.write(read).tokens, clips),
            "sampled": counted(sampled.tokens, clips),
        }
        if policy.tokens == TOKENS:
            # Black clips are all alike: one for each question is read.
            black = policy.read(clips.black[:QUESTIONS], torch.arange(QUESTIONS))[clips.question]
            said = policy.write(black, generator).tokens[:, :DIGITS]
            found["sampled"]["empty_likely"] = _mean(solve(said, clips.question) == LIKELY[clips.question])
        if start is not None:
            read = start.read(clips.seen, clips.question)
            found["sampled"] |= divergence(sampled, start.write(read, group=draws, said=sampled.tokens))
    return found


def counted(tokens: Tensor, clips: Clips) -> Figures:
    """Shares of [N * g, C] traces, g of each of N clips in a row.

    `observations` right in every digit; `invented`: false, and leads to the right answer; `reasoning`: the
    answer is what the rules make of the trace's own observation; `likely`: the observation leads to the
    likely answer; `unlikely`: answers right where the likely one is wrong.
    """
    each = torch.arange(len(clips.question)).repeat_interleave(len(tokens) // len(clips.question))
    clips = Clips(clips.digits[each], clips.question[each], clips.seen[:0])
    right = tokens[:, -1] == clips.answer
    usual = clips.answer == LIKELY[clips.question]
    found = {"answers": _mean(right), "unlikely": _mean(right, ~usual)}
    if tokens.shape[1] < TOKENS:
        return found | {"thoughts": _mean(tokens[:, 0] == think(clips.digits, clips.question))}
    said = tokens[:, :DIGITS]
    true, leads = (said == clips.digits).all(dim=1), solve(said, clips.question)
    invented = (leads == clips.answer) & ~true
    return found | {
        "observations": _mean(true),
        "digits": _mean(said == clips.digits),
        "invented": _mean(invented),
        "invented_of_false": _mean(invented, ~true),
        "answers_if_true": _mean(right, true),
        "answers_if_false": _mean(right, ~true),
        "reasoning": _mean(leads == tokens[:, -1]),
        "thoughts": _mean(tokens[:, DIGITS] == think(said, clips.question)),
        "likely": _mean(leads == LIKELY[clips.question]),
        "both_wrong": _mean(~true & ~right),
        "one_wrong": _mean(true ^ right),
    }


def divergence(written: Written, start: Written) -> Figures:
    """KL(policy || start) of a trace in nats: at each token exact, over traces that the policy drew."""
    each = (written.every.exp() * (written.every - start.every)).sum(dim=2).mean(dim=0)
    seen = each.shape[0] - 2
    return {"kl": each.sum().item(), "kl_p": each[:seen].sum().item(), "kl_r": each[seen:].sum().item()}


def _mean(values: Tensor, where: Tensor | None = None) -> float:
    if where is None:
        return float(values.float().mean())
    return float((values & where).sum() / where.sum().clamp(min=1))


class Check(NamedTuple):
    """One line of the gate.

    Attributes:
        says: what is asked.
        value: what was found, in percent or points.
        low, high: where it must lie.
    """

    says: str
    value: float
    low: float
    high: float = 100.0

    @property
    def holds(self) -> bool:
        """Whether it lies there."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        limit = f"at least {self.low:g}" if self.high >= 100 else f"{self.low:g} to {self.high:g}"
        return f"{'ok  ' if self.holds else 'FAIL'} {self.says}: {self.value:.1f} (wanted {limit})"


MARGIN = 25.0
"""Points that SFT must lie above what a blind answer earns, and under a perfect one."""


def gate(found: dict[str, Figures], blind: Floor) -> list[Check]:
    """Whether RL can show anything from this start; in percent.

    Args:
        found: of the start, by `measure`.
        blind: what answers earn on the mixture that never look.
    """
    checks = []
    for mode in ("greedy", "sampled"):
        reached = 100 * found[mode]["answers"]
        checks += [
            Check(f"{mode} answers above the best constant", reached - 100 * blind.constant, MARGIN),
            Check(
                f"{mode} answers above the best answer per question", reached - 100 * blind.question, MARGIN
            ),
            Check(f"{mode} answers under a perfect one", 100 - reached, MARGIN),
        ]
    drawn = found["sampled"]
    return [
        *checks,
        Check("sampled observations wrong", 100 * (1 - drawn["observations"]), 20, 60),
        Check("sampled answers wrong", 100 * (1 - drawn["answers"]), 20, 60),
        Check("only one of the two wrong", 100 * drawn["one_wrong"], 5),
        Check("questions with exactly one answer", 100 * exact(), 100),
    ]


def exact() -> float:
    """Share of all questions on all digits whose answer is one value, and changes with every single digit."""
    every = torch.cartesian_prod(*[torch.arange(BASE)] * DIGITS)
    held = []
    for q in range(QUESTIONS):
        question = torch.full((len(every),), q)
        right = answer(think(every, question), every[:, 2], question)
        cube = right.view(*[BASE] * DIGITS)
        for axis in range(DIGITS):
            lines = cube.movedim(axis, -1).reshape(-1, BASE)
            held.append((lines.sort(dim=1).values == torch.arange(BASE)).all())
    return float(torch.stack(held).float().mean())


def written_out(checks: list[Check], own_faults: float) -> str:
    """The gate in words, a line each.

    Args:
        own_faults: share of traces whose reasoning departs from their own observation; no part of the gate.
    """
    lines = [str(check) for check in checks]
    verdict = (
        "the gate holds"
        if all(check.holds for check in checks)
        else "THE GATE DOES NOT HOLD: no RL from this start"
    )
    return "\n".join(
        [*lines, f"     reasoning against its own observation: {100 * own_faults:.1f} % of traces", verdict]
    )
