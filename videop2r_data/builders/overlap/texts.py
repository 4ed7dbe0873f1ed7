"""Questions as texts: which say the same, which say nearly the same, and how alike two of them are."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from zlib import crc32

import numpy as np
import numpy.typing as npt

from videop2r_data.schemas import label_options
from videop2r_data.validators import MinHash, likely_pairs

NEAR = 0.7
"""Share of words in common from which two questions say nearly the same, whatever they are about."""
REWORDED = 0.3
"""The same for two questions about one clip, if no question of the pool is nearer: where questions differ in
one word, a new one about a known clip is asked of another clip in the very same words."""
_DOUBT = 0.2
"""How far the estimate of a pair may lie below its similarity: four standard errors of 64 hashes."""
_PARTNERS = 32
"""Texts of a crowd with one key that a text is compared with."""
_STEM = 4
"""Letters of a word that count: `opens` and `opening` are one word. Numbers count whole."""
_MAX_WORDS = 400
_HASHED = 4096
"""Texts whose signatures are worked out at once."""
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿가-힣]|[^\W_]+")
_FUNCTION_WORDS = """
a an and are as at be been but by can clip did do does for from had has have he her his how i if in into is it
its me my of on or she so than that the their them then there these they this those to video was we were what
when where which while who whose why will with would you your
"""
_STOP = frozenset(_FUNCTION_WORDS.split())


class Texts:
    """The questions of a pool, in the order in which they are added.

    Two questions say the same if question and options are equal up to case, punctuation and the order of the
    options. Their similarity is the share of common words (Jaccard) among those of question and options that
    are no function words, each cut to four letters: order and grammar may change.
    """

    def __init__(self) -> None:
        self.wording = array("Q")
        """Per row: digest of question and options."""
        self.text = array("l")
        """Per row: number of its set of words; questions of equal words share it."""
        self._number: dict[bytes, int] = {}
        self._words = array("I")
        self._ends = array("l")

    def __len__(self) -> int:
        return len(self._number)

    def add(self, question: str, options: Sequence[str]) -> None:
        """Add the question of the next row."""
        asked = _words(question)
        offered = sorted(_words(option.text) for option in label_options(tuple(options)))
        said = "\n".join(" ".join(words) for words in (asked, *offered))
        self.wording.append(int.from_bytes(blake2b(said.encode(), digest_size=8).digest()))
        every = {
            word[:_STEM] if word.isalpha() else word for word in sum(offered, asked) if word not in _STOP
        }
        # a question of function words alone has these as its words; one without any word is its text
        ids = sorted({crc32(word.encode()) for word in every or asked or [question]})[:_MAX_WORDS]
        data = np.array(ids, np.uint32).tobytes()
        number = self._number.setdefault(data, len(self._number))
        self.text.append(number)
        if number == len(self._ends):
            self._words.frombytes(data)
            self._ends.append(len(self._words))

    def every(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The words of all texts, one text after the other; where each text begins, and where it ends."""
        ends = np.asarray(self._ends, np.int64)
        return np.frombuffer(self._words, np.uint32), np.concatenate([[0], ends[:-1]]), ends

    def words(self, number: int) -> npt.NDArray[np.uint32]:
        """The words of a text, as sorted numbers."""
        start = self._ends[number - 1] if number else 0
        return np.frombuffer(self._words, np.uint32)[start : self._ends[number]]

    def signatures(self) -> npt.NDArray[np.uint16]:
        """MinHash signatures of all texts: uint16 [texts, 64]; a text without a word is like no other."""
        family = MinHash()
        words, starts, ends = self.every()
        found = np.empty((len(ends), 64), np.uint16)
        for first in range(0, len(ends), _HASHED):
            at = slice(first, first + _HASHED)
            held = words[starts[first] : ends[at][-1]].astype(np.uint64)
            found[at] = family.signatures(held, starts[at] - starts[first])
        return found


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text[:20_000]).lower())


def alike(left: npt.NDArray[np.uint32], right: npt.NDArray[np.uint32]) -> float:
    """Share of common words of two texts (Jaccard), 0 to 1."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / max(1, len(left) + len(right) - common)


class Nearest:
    """How near the nearest text of a pool is, exactly: by the lists of texts that hold each word."""

    def __init__(self, texts: Texts) -> None:
        words, starts, ends = texts.every()
        self._sizes = ends - starts
        owner = np.repeat(np.arange(len(self._sizes)), self._sizes)
        order = np.argsort(words, kind="stable")
        self._holding = owner[order]
        self._words, self._starts = np.unique(words[order], return_index=True)
        self._ends = np.append(self._starts[1:], len(words))

    def similarity(self, words: npt.NDArray[np.uint32]) -> float:
        """That of the nearest text, 0 to 1."""
        places = np.flatnonzero(np.isin(self._words, words, assume_unique=True))
        if not len(places):
            return 0.0
        holding = [self._holding[self._starts[at] : self._ends[at]] for at in places]
        common = np.bincount(np.concatenate(holding), minlength=len(self._sizes))
        return float((common / (self._sizes + len(words) - common)).max())


def near_texts(left: Texts, right: Texts) -> Iterator[tuple[int, int, float]]:
    """Texts of two pools that say nearly the same: numbers on both sides, and their similarity.

    Pairs are found by MinHash and then compared word by word: each is as alike as is said. What is missed:
    about one pair in a hundred at `NEAR` itself, and in crowds of texts that share a key those beyond the
    first 32 of each text.
    """
    pairs = likely_pairs(left.signatures(), right.signatures(), least=NEAR - _DOUBT, most=_PARTNERS)
    for a, b in zip(*(side.tolist() for side in pairs), strict=True):
        if (score := alike(left.words(a), right.words(b))) >= NEAR:
            yield a, b, score
