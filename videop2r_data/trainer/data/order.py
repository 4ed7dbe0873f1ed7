"""What a step draws: its examples and its random numbers, as pure functions of seed and step.

There is no state to save: a resumed run draws what an uninterrupted one draws, and four processes what
one does. Of the B prompts of a global step, process r of W takes r B / W to (r + 1) B / W - 1.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import DataType, MediaSpec
from videop2r_data.trainer.data.examples import ENDLESS, Example
from videop2r_data.trainer.settings.parts import DataSpec

Indices = NDArray[np.int64]


class Order:
    """The order of training: `batch(step)` are the examples of this process at a global step.

    Every epoch is a new permutation. `tail="drop"`: the last ones of it that fill no batch are left out, so
    no batch crosses an epoch; `tail="carry"`: a batch that an epoch cannot fill is completed by the next one,
    so that every example comes once per epoch. Batches are always full.

    Args:
        count: examples; `ENDLESS` for a stream, which is taken in its own order.
        batch: B, prompts of a global step (over all processes and micro-batches).
        rank, world_size: r and W; W divides B.
        shuffle: False: the order of the file in every epoch.
        lengths: estimated tokens per example, for `bucket`.
        bucket: batches whose examples are sorted by length among themselves; the batches themselves come in
            random order. 0: off.

    Attributes:
        steps_per_epoch: global steps: rounded down for `drop`, up for `carry`.

    Raises:
        ConfigError: W does not divide B, or there are fewer examples than B.

    >>> order = Order(10, batch=4, seed=0, tail="carry", shuffle=False)
    >>> [order.batch(step) for step in range(3)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    >>> [Order(10, batch=4, seed=0, rank=r, world_size=2, shuffle=False).batch(1) for r in range(2)]
    [[4, 5], [6, 7]]
    """

    def __init__(
        self,
        count: int,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        tail: Literal["drop", "carry"] = "drop",
        lengths: Sequence[int] | None = None,
        bucket: int = 0,
    ) -> None:
        if batch < 1 or batch % world_size:
            wrong = f"{batch} prompts cannot be shared by {world_size} processes"
            raise ConfigError(wrong, where="batch.size")
        self._count, self.batch_size = count, batch
        self._per_epoch = count if tail == "carry" else count - count % batch
        if self._per_epoch < 1:
            hint = "lower batch.size, or set tail: carry"
            raise ConfigError(f"{count} examples fill no batch of {batch}", where="data", hint=hint)
        self.steps_per_epoch = -(-self._per_epoch // batch)
        self._seed, self._shuffle = seed, shuffle
        share = batch // world_size
        self._share = slice(rank * share, (rank + 1) * share)
        self._lengths = np.asarray(lengths, dtype=np.int64) if lengths is not None and bucket else None
        self._window = bucket * batch
        self._known: tuple[int, Indices] | None = None

    @classmethod
    def of(cls, spec: DataSpec, examples: Sequence[Example], *, batch: int, seed: int, **share: int) -> Order:
        """The order that a `DataSpec` asks for; `share`: `rank` and `world_size`."""
        known = examples if spec.bucket and len(examples) < ENDLESS else ()
        lengths = [estimated_tokens(example, spec.media) for example in known] or None
        said: dict[str, Any] = {"shuffle": spec.shuffle, "tail": spec.tail, "bucket": spec.bucket, **share}
        return cls(len(examples), batch=batch, seed=seed, lengths=lengths, **said)

    def epoch(self, step: int) -> float:
        """Epochs done before a step, as a fraction."""
        return step * self.batch_size / self._per_epoch

    def global_batch(self, step: int) -> list[int]:
        """Indices of the B examples of a global step, the same in every process."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        if self._count >= ENDLESS:
            return list(places)
        return [int(self._permutation(at // self._per_epoch)[at % self._per_epoch]) for at in places]

    def batch(self, step: int) -> list[int]:
        """This process's B / W of them."""
        return self.global_batch(step)[self._share]

    def _permutation(self, epoch: int) -> Indices:
        if self._known is None or self._known[0] != epoch:
            order = self._mixed(self._count, "order", epoch)
            if self._lengths is not None:
                self._bucket(order, self._lengths, epoch)
            self._known = (epoch, order)
        return self._known[1]

    def _bucket(self, order: Indices, lengths: Indices, epoch: int) -> None:
        """Sort windows of whole batches by length, then mix the batches within each window; in place."""
        whole = order[: self._count - self._count % self.batch_size]
        for start in range(0, len(whole), self._window):
            window = whole[start : start + self._window]
            batches = window[np.argsort(lengths[window], kind="stable")].reshape(-1, self.batch_size)
            window[:] = batches[self._mixed(len(batches), "bucket", epoch, start)].reshape(-1)

    def _mixed(self, count: int, *name: int | str) -> Indices:
        """The permutation of 0 to count - 1 with a name: sorted by splitmix64, equal on every machine."""
        if not self._shuffle:
            return np.arange(count, dtype=np.int64)
        text = "/".join(map(str, (self._seed, *name)))
        start = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        with np.errstate(over="ignore"):
            z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")


def estimated_tokens(example: Example, media: MediaSpec) -> int:
    """Tokens of prompt and target, estimated without opening the file; for bucketing only."""
    text = len(example.problem) + sum(map(len, example.options)) + len(example.target or "")
    frames = {DataType.TEXT: 0, DataType.IMAGE: 1, DataType.VIDEO: -(-media.frames // 2)}[example.data_type]
    # 4 characters to a token in English, roughly; only the ranking by length matters
    return text // 4 + frames * media.max_pixels // media.factor**2


def derive(seed: int, *path: int | str) -> int:
    """A seed in [0, 2**63) for the use that `path` names: different paths give independent seeds, and no
    generator lives on from step to step.

    >>> derive(0, "rollout", 3, "pool/17", 0) == derive(0, "rollout", 3, "pool/17", 0)
    True
    >>> derive(0, "a", 12) == derive(0, "a", 1, 2)
    False
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *path))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    # 63 bits fit a signed 64-bit integer: torch, numpy and vLLM take them all
    return int.from_bytes(digest, "big") >> 1


def rollout_seeds(
    seed: int, step: int, places: Sequence[int], group_size: int, kind: str = "rollout"
) -> list[int]:
    """B * G seeds; number b * G + g belongs to rollout g of prompt b.

    The step is in them, so that a question that comes again gets other rollouts; the places are those in the
    batch of *all* processes, so that the number of processes changes nothing. `kind` keeps different kinds of
    rollouts apart.

    >>> rollout_seeds(0, 5, [3], 2) == [derive(0, "rollout", 5, 3, 0), derive(0, "rollout", 5, 3, 1)]
    True
    """
    return [derive(seed, kind, step, place, g) for place in places for g in range(group_size)]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the global generators for one optimizer step: dropout of adapters, and draws inside libraries."""
    import torch

    number = derive(seed, "step", step, rank)  # of the rank too: dropout differs between processes
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
