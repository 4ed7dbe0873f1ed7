"""Texts that say nearly the same, among many: MinHash signatures, and the bands in which they must agree.

Why no library: docs/decisions/004-near-copies.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from zlib import crc32

import numpy as np
import numpy.typing as npt

HASHES = 64
"""Hash functions per text: the standard error of a similarity s is sqrt(s(1 - s) / 64), 0.05 at 0.8."""
BAND = 4
"""Hashes per band: two texts are compared if they agree in all of one of the 16 bands, which 99.98 % of the
pairs of similarity 0.8 do, and 64 % of those of 0.5."""
GOLD = 0x9E3779B97F4A7C15
_WORD = re.compile(r"\w+")
_PAIRS = 1 << 18
"""Pairs that are compared at once."""

U64 = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint16]
Places = npt.NDArray[np.int64]


def words_of(text: str, most: int) -> list[int]:
    """The ids of the first words of a text: letters and digits only, case ignored."""
    return [_word_id(word) for word in _WORD.findall(text.lower())[:most]]


@lru_cache(200_000)
def _word_id(word: str) -> int:
    data = word.encode("utf-8", "surrogatepass")
    return (crc32(data) << 32) | crc32(data, 0x5BD1E995)


class MinHash:
    """A family of hash functions, the same for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._odd = (rng.integers(0, 2**63, HASHES, dtype=np.uint64) << np.uint64(1)) | np.uint64(1)
        self._shift = rng.integers(0, 2**63, HASHES, dtype=np.uint64)

    def signatures(self, shingles: U64, starts: npt.NDArray[np.intp]) -> Signatures:
        """The signatures of some texts.

        A hash is `(shingle * odd + shift) >> 16`, its minimum over the text reduced to 16 bits: two different
        minima collide once in 65,536, far below the standard error.

        Args:
            shingles: uint64, those of all texts, one after the other.
            starts: where the shingles of each text begin; no text is without one.

        Returns:
            uint16 [texts, HASHES].
        """
        signature = np.empty((len(starts), HASHES), np.uint16)
        for number in range(HASHES):
            mixed = (shingles * self._odd[number] + self._shift[number]) >> np.uint64(16)
            least = np.minimum.reduceat(mixed, starts)
            signature[:, number] = (least * np.uint64(GOLD)) >> np.uint64(48)
        return signature


def bands_of(signatures: Signatures) -> U64:
    """The keys of all bands, uint64 [texts, bands]: texts with an equal key in one are compared."""
    return np.ascontiguousarray(signatures).view(np.uint64)


def likely_pairs(left: Signatures, right: Signatures, *, least: float, most: int) -> tuple[Places, Places]:
    """Pairs of two collections whose signatures say that they are alike, each once.

    Args:
        left: uint16 [texts, HASHES].
        right: uint16 [texts, HASHES].
        least: share of equal hashes, the estimate of the similarity.
        most: partners of a text that are looked at in each band, spread over all that share its key: equal
            keys of a million texts cost no more than this.

    Returns:
        Indices into `left` and `right`, of equal length.
    """
    found = np.zeros(0, np.int64)
    for band in range(bands_of(left).shape[1]):
        there = _in_band(left, right, band, least=least, most=most)
        back = [(a, b) for b, a in _in_band(right, left, band, least=least, most=most)]
        packed = [a << 32 | b for a, b in (*there, *back)]
        found = np.unique(np.concatenate([found, *packed]))
    return found >> 32, found & 0xFFFFFFFF


def _in_band(
    left: Signatures, right: Signatures, band: int, *, least: float, most: int
) -> Iterator[tuple[Places, Places]]:
    """The pairs that agree in one band, in blocks: for each of `left` at most so many of `right`."""
    ours, theirs = bands_of(left)[:, band], bands_of(right)[:, band]
    order = np.argsort(theirs, kind="stable")
    low = np.searchsorted(theirs[order], ours, "left")
    counts = np.searchsorted(theirs[order], ours, "right") - low
    taken = np.minimum(counts, most)
    ends = np.cumsum(taken)
    last = int(ends[-1]) if len(ends) else 0
    for start in range(0, last, _PAIRS):
        at = np.arange(start, min(start + _PAIRS, last))
        a = np.searchsorted(ends, at, "right")
        nth = at - (ends[a] - taken[a])
        b = order[low[a] + nth * counts[a] // taken[a]]
        close = (left[a] == right[b]).mean(axis=1, dtype=np.float32) >= least
        yield a[close], b[close]
