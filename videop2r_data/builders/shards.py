"""One build on many machines: each process makes the calls of its share, over one shared journal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from videop2r_data.builders.sources import BadRow
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Sample, digest

_SHARD = re.compile(r"(\d{1,5})/(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` (from 1) of `count`.

    A question belongs to a share by what it is about (its media file, or its own text), so that questions
    about one clip share its decoding, and equal questions, which are one call, meet in one process.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2/8`.

        Raises:
            ConfigError: not a share.

        >>> Shard.parse("2/8")
        Shard(index=2, count=8)
        """
        match = _SHARD.fullmatch(text.strip())
        shard = cls(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.index <= shard.count:
            raise ConfigError(
                f"not a share: {text!r}", hint="write --shard 1/8 for the first of eight processes"
            )
        return shard

    def of(self, pool: Iterator[Sample | BadRow]) -> Iterator[Sample | BadRow]:
        """The rows of a pool that belong to this share; bad rows to the first."""
        for item in pool:
            if self.owns(item):
                yield item

    def owns(self, item: Sample | BadRow) -> bool:
        """Whether a row belongs to this share."""
        if isinstance(item, BadRow):
            return self.index == 1
        about = [item.source, item.path] if item.path else [item.problem]
        return int(digest(about)[:15], 16) % self.count == self.index - 1
