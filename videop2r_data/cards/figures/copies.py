"""Near copies among the texts of a data set: how they are found, and their figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from videop2r_data.cards.figures.counts import FigureData
from videop2r_data.cards.figures.text import question_of
from videop2r_data.plots import Look, ink_on, mix, new_figure, share
from videop2r_data.schemas import Model
from videop2r_data.validators import GOLD, HASHES, MinHash, bands_of, words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Only texts that agree in a whole band of their MinHash signatures are compared (why no library:
# docs/decisions/004-near-copies.md).

Array = npt.NDArray[Any]

SHINGLE = 3
"""Words of a shingle; a shorter text is one shingle."""
CHAINED = np.float32(0.8 - 1e-6)
LEVELS = (0.7, 0.8, 0.9, 1.0)
MAX_TEXTS = 1_000_000
"""Texts compared at most, 128 bytes held for each; further ones are only counted."""
GROUPS, MEMBERS = 10, 5
"""The largest groups, and rows of each, that are named."""
MAX_WORDS = 2_000
"""Words read of a text."""


class Copies(Model):
    """Near copies among the texts of one column."""

    texts: int
    """Texts compared; texts without a word are left out."""
    left_out: int
    """Texts beyond the limit, not compared."""
    rows: dict[str, int]
    """Estimated similarity -> rows that have another row at least so similar; 1: rows with an equal text."""
    groups: int
    """Groups of rows chained by a similarity of 0.8 or more."""
    largest: list[list[int]] = Field(default_factory=list)
    """The largest groups: indices of their first rows, in reading order."""
    largest_sizes: list[int] = Field(default_factory=list)


class MinHashes:
    """Signatures of the texts of one column.

    The similarity is that of Jaccard over shingles of three words, letters and digits only, case ignored.
    """

    def __init__(self, *, limit: int = MAX_TEXTS, seed: int = 0) -> None:
        self._family = MinHash(seed)
        self._limit = limit
        self._waiting: list[tuple[int, int, list[int]]] = []
        self._signatures: list[Array] = []
        self._rows: list[Array] = []
        self._salts: list[Array] = []
        self._exact: list[Array] = []
        self._count = 0
        self.left_out = 0

    def add(self, row: int, text: str, salt: bytes = b"") -> None:
        """Add the text of a row; texts of another `salt` (a media file) can be kept apart in `copies`."""
        words = words_of(text, MAX_WORDS)
        if not words:
            return
        if self._count >= self._limit:
            self.left_out += 1
            return
        self._count += 1
        own = int.from_bytes(blake2b(salt, digest_size=8).digest(), "big") if salt else 0
        self._waiting.append((row, own, words))
        if len(self._waiting) >= 256:
            self._hash()

    def _hash(self) -> None:
        """Compute the signatures of the waiting texts in one batch."""
        if not self._waiting:
            return
        numbers, salts, texts = zip(*self._waiting, strict=True)
        lengths = np.array([len(words) for words in texts])
        shingles, starts = _shingles(texts, lengths)
        self._signatures.append(self._family.signatures(shingles, starts))
        self._rows.append(np.array(numbers, np.int64))
        self._salts.append(np.array(salts, np.uint64))
        data = [np.array(words, np.uint64).tobytes() for words in texts]
        digests = b"".join(blake2b(words, digest_size=8).digest() for words in data)
        self._exact.append(np.frombuffer(digests, np.uint64))
        self._waiting.clear()

    def copies(self, *, by_salt: bool = False) -> Copies:
        """Compare all texts; `by_salt`: only those of the same salt, leaving out those without one."""
        self._hash()
        salts = np.concatenate(self._salts) if self._salts else np.zeros(0, np.uint64)
        chosen = np.flatnonzero(salts) if by_salt else np.arange(len(salts))
        if not len(chosen):
            return Copies(texts=0, left_out=self.left_out, rows=_levels(np.zeros(0)), groups=0)
        signatures = np.concatenate(self._signatures)[chosen]
        rows, exact = np.concatenate(self._rows)[chosen], np.concatenate(self._exact)[chosen]
        salts = salts[chosen] if by_salt else np.zeros_like(salts)
        best, chains = _compare(signatures, salts, exact)
        found = [rows[chain] for chain in chains]
        found.sort(key=lambda chain: (-len(chain), int(chain[0])))
        return Copies(
            texts=len(rows),
            left_out=self.left_out,
            rows=_levels(best),
            groups=len(found),
            largest=[chain[:MEMBERS].tolist() for chain in found[:GROUPS]],
            largest_sizes=[len(chain) for chain in found[:GROUPS]],
        )


class CopyWatch:
    """Collects questions (with their options), perception and reasoning, and finds near copies in each."""

    def __init__(self, *, limit: int = MAX_TEXTS) -> None:
        self.columns = {name: MinHashes(limit=limit) for name in ("question", "perception", "reasoning")}
        self._number = 0

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """Add a row."""
        number, self._number = self._number, self._number + 1
        if question := question_of(row["problem"], row["options"], row["path"]):
            self.columns["question"].add(number, *question)
        for name, text in (("perception", perception), ("reasoning", reasoning)):
            if text:
                self.columns[name].add(number, text)

    def copies(self) -> dict[str, Copies]:
        """Column -> its near copies; `question, same file` compares questions about one file only."""
        same = {"question, same file": self.columns["question"].copies(by_salt=True)}
        found = {name: column.copies() for name, column in self.columns.items()}
        return {"question": found.pop("question")} | same | found


def _shingles(texts: Sequence[list[int]], lengths: Array) -> tuple[Array, Array]:
    """Hashes of all shingles of some texts, and where those of each text begin."""
    words = np.array([word for text in texts for word in text], np.uint64)
    ends = np.cumsum(lengths)
    size = np.minimum(lengths, SHINGLE)
    # a shingle begins at each word but the last two of a text; those of a short text are one
    starts_of = np.repeat(ends - lengths, lengths)
    place = np.arange(len(words)) - starts_of
    begins = place <= np.repeat(lengths - size, lengths)
    at = np.flatnonzero(begins)
    width = np.repeat(size, lengths)[at]
    out = np.zeros(len(at), np.uint64)
    for step in range(SHINGLE):
        more = width > step
        out[more] = (out[more] ^ words[at[more] + step]) * np.uint64(GOLD)
        out ^= out >> np.uint64(29)
    return out, np.concatenate([[0], np.cumsum(lengths - size + 1)[:-1]])


def _compare(signatures: Array, salts: Array, exact: Array) -> tuple[Array, list[Array]]:
    """(highest similarity of each text to one it was compared with, groups chained by 0.8 or more).

    In each band, texts with equal keys are sorted next to each other. A text is compared with its neighbour
    and with the first of the run: a million equal keys cost two million comparisons, not 10**12.

    Args:
        signatures: uint16 [texts, HASHES].
        salts: uint64 [texts]; only texts of equal salts are compared.
        exact: uint64 [texts], digests of the words.
    """
    count = len(signatures)
    best = np.zeros(count, np.float32)
    parent = np.arange(count)
    bands = bands_of(signatures)
    mixed = salts * np.uint64(GOLD)
    for band in range(bands.shape[1]):
        keys = bands[:, band] ^ mixed
        order = np.lexsort((exact, keys))
        same = keys[order][1:] == keys[order][:-1]
        later = np.flatnonzero(same) + 1
        if not len(later):
            continue
        runs = np.maximum.accumulate(np.where(np.concatenate([[False], same]), 0, np.arange(count)))
        for earlier in (later - 1, runs[later]):
            _join(order[earlier], order[later], signatures=signatures, salts=salts, best=best, parent=parent)
    # long texts that differ in one word often agree in all hashes: only equal digests count as 1
    _, place, times = np.unique(exact ^ mixed, return_inverse=True, return_counts=True)
    best = np.where(times[place] > 1, np.float32(1), np.minimum(best, np.float32(0.999)))
    roots = _roots(parent)
    order = np.argsort(roots, kind="stable")
    edges = np.flatnonzero(np.diff(roots[order])) + 1
    return best, [chain for chain in np.split(order, edges) if len(chain) > 1]


def _join(left: Array, right: Array, *, signatures: Array, salts: Array, best: Array, parent: Array) -> None:
    """Compare pairs: update `best` of both, and join their groups in `parent` at 0.8 or more."""
    for start in range(0, len(left), 65_536):
        a, b = left[start : start + 65_536], right[start : start + 65_536]
        alike = (signatures[a] == signatures[b]).mean(axis=1, dtype=np.float32)
        alike[salts[a] != salts[b]] = 0
        np.maximum.at(best, a, alike)
        np.maximum.at(best, b, alike)
        parent[:] = _roots(parent)
        close = (alike >= CHAINED) & (parent[a] != parent[b])
        for x, y in zip(a[close].tolist(), b[close].tolist(), strict=True):
            low, high = sorted((_root(parent, x), _root(parent, y)))
            parent[high] = low


def _root(parent: Array, at: int) -> int:
    while parent[at] != at:
        parent[at] = parent[parent[at]]
        at = int(parent[at])
    return at


def _roots(parent: Array) -> Array:
    while True:
        up = parent[parent]
        if np.array_equal(up, parent):
            return up
        parent = up


def _levels(best: Array) -> dict[str, int]:
    return {f"{level:g}": int(np.count_nonzero(best >= level - 1e-6)) for level in LEVELS}


# The figure: a row per column of texts, a cell per level of similarity.

ROW = 0.46


class CopiesData(FigureData):
    """What the figure shows."""

    title = "Near-copies"
    config: str
    same_question: int
    """Rows whose question, options and path repeat an earlier row's up to case and punctuation."""
    hashes: int
    shingle: int
    """Words."""
    columns: dict[str, Copies]

    @classmethod
    def of(cls, config: str, same_question: int, columns: dict[str, Copies]) -> CopiesData:
        """From what `CopyWatch` found; columns without a text are left out."""
        found = {name: copies for name, copies in columns.items() if copies.texts}
        return cls(config=config, same_question=same_question, hashes=HASHES, shingle=SHINGLE, columns=found)

    def caption(self) -> str:
        """A few sentences for the card."""
        told = ", ".join(
            f"{name} {copies.rows['0.8']:,} of {copies.texts:,}" for name, copies in self.columns.items()
        )
        return (
            "Rows with a near-copy (another row of estimated Jaccard similarity 0.8 or more over shingles of "
            f"{self.shingle} words, MinHash of {self.hashes}; a lower bound): {told}. "
            f"{self.same_question:,} rows repeat question, options and path up to case and punctuation."
        )

    def draw(self, look: Look) -> Figure:
        """A row per column of texts, a cell per level of similarity; the darker, the larger its share."""
        rows = list(self.columns.items())
        measure = f"Jaccard of {self.shingle}-word shingles"
        told = f"rows of {self.config} with another row at least so similar ({measure})"
        figure = new_figure(self.title, told, look, high=ROW * (len(rows) + 1) + 0.1)
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_xlim(-1.62, len(LEVELS) + 2)
        axes.set_ylim(len(rows) + 0.05, -0.85)
        heads = [f"≥ {level:g}" if level < 1 else "same" for level in LEVELS]
        for x, head in enumerate([*heads, "groups\nat 0.8", "texts\ncompared"]):
            axes.text(
                x + 0.5, -0.38, head, ha="center", va="center", fontsize=8, color=look.muted, linespacing=1.05
            )
        for y, (name, copies) in enumerate(rows):
            axes.text(-0.1, y + 0.5, name, ha="right", va="center", fontsize=9, color=look.ink)
            for x, level in enumerate(LEVELS):
                _cell(axes, (x, y), copies.rows[f"{level:g}"], copies.texts, look)
            for x, number in enumerate((copies.groups, copies.texts)):
                axes.text(
                    len(LEVELS) + x + 0.5, y + 0.5, f"{number:,}", ha="center", va="center", fontsize=8.5,
                    color=look.ink if number else look.muted,
                )  # fmt: skip
        return figure


def _cell(axes: Axes, at: tuple[int, int], number: int, texts: int, look: Look) -> None:
    from matplotlib.patches import Rectangle

    x, y = at
    # by decades: 0.01 % of the rows is hardly tinted, all of them are full
    depth = 0.06 if not number else 0.12 + 0.78 * max(0.0, 1 + math.log10(number / texts) / 4)
    ground = mix(look.paper, look.perception if number else look.fill, depth)
    axes.add_patch(Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, facecolor=ground, linewidth=0))
    ink = ink_on(ground) if number else look.muted
    place: Any = {"ha": "center", "va": "center", "color": ink}
    axes.text(x + 0.5, y + (0.36 if number else 0.5), f"{number:,}", fontsize=8.5, **place)
    if number:
        axes.text(x + 0.5, y + 0.71, share(number, texts), fontsize=7, **place)
