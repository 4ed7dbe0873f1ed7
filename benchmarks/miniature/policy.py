"""The policy: an encoder of frames and an autoregressive network that writes the trace token by token.

    features = encoder(frame 1), encoder(frame 2), encoder(frame 3)          glimpses: the vectors themselves
    h_j      = gelu(prompt(features, question) + place_j + sum_(i<j) said_i[y_i])
    logits_j = out(gelu(middle(h_j)))

All weights serve both processes, and the clip is seen at every token: the policy *can* write an observation
that suits an answer, which is what judges have to be tested against. 52,000 weights on pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from benchmarks.miniature.world import BASE, DIGITS, QUESTIONS

_FRAME, _CHANNELS, _HIDDEN = 16, 16, 128


class Written(NamedTuple):
    """Traces, with gradient where gradients are on.

    Attributes:
        tokens: [N, C].
        every: [N, C, BASE] log-probabilities of all tokens at every place.
    """

    tokens: Tensor
    every: Tensor

    @property
    def logps(self) -> Tensor:
        """[N, C] log-probabilities of the tokens."""
        return self.every.gather(2, self.tokens[:, :, None])[:, :, 0]


class Policy(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Writes traces.

    Args:
        pixels: clips are frames of pixels.
        tokens: C, of a trace: 5, or 2 without an observation.
    """

    def __init__(self, *, pixels: bool, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        features = DIGITS * (_FRAME if pixels else BASE)
        self.encoder = _encoder() if pixels else nn.Identity()
        self.prompt = nn.Linear(features + QUESTIONS, _HIDDEN)
        # The first layer of a network on one-hot tokens, in parts: the part of the prompt is worked out once.
        bound = (features + QUESTIONS + tokens * (BASE + 1)) ** -0.5
        self.said = nn.Parameter(torch.empty(tokens, BASE, _HIDDEN).uniform_(-bound, bound))
        self.place = nn.Parameter(torch.empty(tokens, _HIDDEN).uniform_(-bound, bound))
        for weights in self.prompt.parameters():
            nn.init.uniform_(weights, -bound, bound)
        self.middle = nn.Linear(_HIDDEN, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, BASE)

    def read(self, seen: Tensor, question: Tensor) -> Tensor:
        """[B, H]: what of the first layer depends on clip and question alone."""
        features = seen.flatten(1)
        if not isinstance(self.encoder, nn.Identity):
            features = self.encoder(seen.flatten(0, 1)[:, None]).view(len(seen), -1)
        asked = nn.functional.one_hot(question, QUESTIONS).float()
        return self.prompt(torch.cat([features, asked], dim=1))

    def _logits(self, first: Tensor) -> Tensor:
        return self.out(nn.functional.gelu(self.middle(nn.functional.gelu(first))))

    def write(
        self, read: Tensor, generator: Generator | None = None, *, group: int = 1, said: Tensor | None = None
    ) -> Written:
        """Write traces at temperature 1; without a generator the likeliest token each time.

        Args:
            read: [B, H]; row b * group + g of the result is trace g of prompt b.
            said: [B * group, c] tokens that stand already; the rest is written.
        """
        # A state for each prefix that was written, not for each trace: most traces of a group begin alike.
        states = read + self.place[0]
        at = torch.arange(len(read)).repeat_interleave(group)
        tokens, found = [], []
        for step in range(self.tokens):
            every = nn.functional.embedding(at, self._logits(states).log_softmax(-1))
            if said is not None and step < said.shape[1]:
                chosen = said[:, step]
            elif generator is None:
                chosen = every.argmax(-1)
            else:
                chosen = _drawn(every.detach().exp(), generator)
            tokens.append(chosen)
            found.append(every)
            if step + 1 < self.tokens:
                prefixes, at = torch.unique(at * BASE + chosen, return_inverse=True)
                moved = self.said[step] + (self.place[step + 1] - self.place[step])
                states = nn.functional.embedding(prefixes // BASE, states)
                states = states + nn.functional.embedding(prefixes % BASE, moved)
        return Written(torch.stack(tokens, dim=1), torch.stack(found, dim=1))


def _drawn(shares: Tensor, generator: Generator) -> Tensor:
    """[N] a token of each row of [N, BASE] probabilities; several times as fast as `multinomial`."""
    at = torch.rand(len(shares), 1, generator=generator)
    return (shares.cumsum(dim=1) < at).sum(dim=1).clamp(max=BASE - 1)


def _encoder() -> nn.Sequential:
    """A frame of 12 by 12 pixels to `_FRAME` numbers."""
    return nn.Sequential(
        nn.Conv2d(1, _CHANNELS, 3, 2, 1),
        nn.GELU(),
        nn.Conv2d(_CHANNELS, 2 * _CHANNELS, 3, 2, 1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(2 * _CHANNELS * 9, 64),
        nn.GELU(),
        nn.Linear(64, _FRAME),
    )
