"""The world: digits in noise, a question that chooses two rules, and exact answers.

K = 3 digits of 0 to 4 are shown, each in a frame of its own (or as a noisy vector, a glimpse). The question q
is one of three and chooses both rules:

    think  t = rule_q(digit 1, digit 2)
    answer a = rule'_q(t, digit 3)                 both modulo 5

A trace is `digit 1, digit 2, digit 3 | t, a`: observation | think, answer. Given q and two of the three
values of a rule the third one is determined, so each false observation that is not sufficient is seen in the
answer, and of the 125 observations 25 lead to any given answer: some are sufficient and false.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

BASE, DIGITS, QUESTIONS = 5, 3, 3
TOKENS = DIGITS + 2
_A, _B = torch.meshgrid(torch.arange(BASE), torch.arange(BASE), indexing="ij")
THINK = torch.stack([(_A + _B) % BASE, (_A - _B) % BASE, (2 * _A + _B) % BASE])
"""[question, digit 1, digit 2] -> t."""
ANSWER = torch.stack([(_A + _B) % BASE, (_A - _B) % BASE, (_A + 2 * _B) % BASE])
"""[question, t, digit 3] -> a."""
_THIRD = ANSWER.argsort(dim=2)
"""[question, t, a] -> the digit 3 that leads from t to a: each row of `ANSWER` is a permutation."""
LIKELY = torch.tensor([1, 3, 2])
"""[question] -> its likely answer, where the world has one."""
SIDE = 12
_GLYPHS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "01110 10001 00001 00110 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
)


def _placed() -> Tensor:
    """[digit, place, SIDE, SIDE]: every glyph, 7 by 5 pixels, at every place of a frame."""
    glyphs = torch.tensor([[[float(pixel) for pixel in row] for row in g.split()] for g in _GLYPHS])
    high, wide = glyphs.shape[1:]
    places = [(top, left) for top in range(SIDE - high + 1) for left in range(SIDE - wide + 1)]
    frames = torch.zeros(BASE, len(places), SIDE, SIDE)
    for number, (top, left) in enumerate(places):
        frames[:, number, top : top + high, left : left + wide] = glyphs
    return frames


FRAMES = _placed()


def think(digits: Tensor, question: Tensor) -> Tensor:
    """[N] the right thought of [N, >= 2] digits."""
    return THINK[question, digits[:, 0], digits[:, 1]]


def answer(thought: Tensor, third: Tensor, question: Tensor) -> Tensor:
    """[N] the right answer of a thought and the third digit."""
    return ANSWER[question, thought, third]


def solve(digits: Tensor, question: Tensor) -> Tensor:
    """[N] the right answer of [N, 3] digits.

    >>> solve(torch.tensor([[4, 3, 2]]), torch.tensor([0])).tolist()  # 4 + 3 = 2, 2 + 2 = 4
    [4]
    """
    return answer(think(digits, question), digits[:, 2], question)


class Clips(NamedTuple):
    """N questions with their clips.

    Attributes:
        digits: [N, 3] what is shown.
        question: [N].
        seen: [N, 3, SIDE, SIDE] pixels, or [N, 3, BASE] glimpses.
    """

    digits: Tensor
    question: Tensor
    seen: Tensor

    @property
    def answer(self) -> Tensor:
        """[N] the right answers."""
        return solve(self.digits, self.question)

    def at(self, rows: Tensor) -> Clips:
        """Some of them."""
        return Clips(self.digits[rows], self.question[rows], self.seen[rows])

    @property
    def black(self) -> Tensor:
        """Clips of the same shape that show nothing: black frames, as the trainer's alarm takes them."""
        return torch.zeros_like(self.seen)


@dataclass(frozen=True)
class World:
    """Draws clips.

    Attributes:
        pixels, noise, likely: see `settings.Setting`.
    """

    pixels: bool
    noise: float
    likely: float = 0.0

    def draw(self, n: int, generator: Generator) -> Clips:
        """N fresh clips; single digits are uniform in every world."""
        digits = torch.randint(BASE, (n, DIGITS), generator=generator)
        question = torch.randint(QUESTIONS, (n,), generator=generator)
        if self.likely:
            # A uniform draw hits the likely answer in 1 of BASE as well.
            share = (self.likely - 1 / BASE) / (1 - 1 / BASE)
            usual = torch.rand(n, generator=generator) < share
            wanted = torch.where(usual, LIKELY[question], torch.randint(BASE, (n,), generator=generator))
            digits[:, 2] = _THIRD[question, think(digits, question), wanted]
        return Clips(digits, question, self.show(digits, generator))

    def show(self, digits: Tensor, generator: Generator) -> Tensor:
        """What a clip of these digits looks like."""
        if self.pixels:
            clean = FRAMES[digits, torch.randint(FRAMES.shape[1], digits.shape, generator=generator)]
        else:
            clean = torch.nn.functional.one_hot(digits, BASE).float()
        return clean + self.noise * torch.randn(clean.shape, generator=generator)

    @property
    def even(self) -> World:
        """The same world without a likely answer."""
        return replace(self, likely=0.0)


class Floor(NamedTuple):
    """What answers earn that never look at the clip, in [0, 1].

    Attributes:
        constant: the best answer that is the same for every clip.
        question: the best answer for each question.
    """

    constant: float
    question: float


def floor(world: World, n: int = 20_000, seed: int = 3) -> Floor:
    """Counted over the mixture of questions, on fresh clips."""
    clips = world.draw(n, torch.Generator().manual_seed(seed))
    counts = torch.zeros(QUESTIONS, BASE)
    counts.index_put_((clips.question, clips.answer), torch.ones(n), accumulate=True)
    return Floor(counts.sum(0).max().item() / n, counts.amax(1).sum().item() / n)


def ideal(world: World, n: int = 2000, seed: int = 5) -> float:
    """Share of observations that Bayes' rule gets right, who knows the noise and sums over places."""
    clips = world.draw(n, torch.Generator().manual_seed(seed))
    if world.pixels:
        shown = FRAMES.flatten(2)
        fit = torch.einsum("nks,mps->nkmp", clips.seen.flatten(2), shown) - shown.square().sum(2) / 2
        score = (fit / world.noise**2).logsumexp(3)
    else:
        score = clips.seen / world.noise**2
    if not world.likely:
        return float((score.argmax(2) == clips.digits).all(1).float().mean())
    every = torch.cartesian_prod(*[torch.arange(BASE)] * DIGITS)
    joint = sum(score[:, k][:, every[:, k]] for k in range(DIGITS))
    leads = torch.stack([solve(every, torch.full((len(every),), q)) for q in range(QUESTIONS)])
    usual = leads[clips.question] == LIKELY[clips.question][:, None]
    rest = math.log((1 - world.likely) / (BASE - 1))
    joint = joint + torch.where(usual, math.log(world.likely), rest)
    return float((every[joint.argmax(1)] == clips.digits).all(1).float().mean())
