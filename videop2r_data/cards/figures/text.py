"""Words of perception and reasoning: counts, lengths, openings and a sample of rows."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, Self

from pydantic import Field

from videop2r_data.schemas import Model, TraceGrammar, default_grammar, segment_spans, trace_parser

# Words, lengths and their distributions. Everything held is bounded: a release may be larger than the memory.

MAX_VOCABULARY = 200_000
"""Different words held; beyond it the rarer half is dropped, and counts become lower bounds."""
MAX_TOKENS = 50_000
"""Different tokens (texts between white space) held before they are cut into words."""
MAX_GROUPS = 2_000
"""Different sources held; further ones count as `other`."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NOISE = re.compile(r"[\W_]+")
_FUNCTION_WORDS = """
a an and are as at be been but by can do does for from had has have he her his i if in into is it its
itself me my no not of on or our she so some than that the their them then there these they this those to
was we were what when where which while who will with would you your let
"""
_STOP = frozenset(_FUNCTION_WORDS.split())


class Spread(Model):
    """A distribution in nine numbers; all 0 without values."""

    count: int = 0
    mean: float = 0.0
    min: float = 0.0
    p5: float = 0.0
    p25: float = 0.0
    p50: float = 0.0
    p75: float = 0.0
    p95: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, values: Counter[int], *, scale: int = 1) -> Self:
        """From value -> count; values are divided by `scale`. Percentiles are nearest-rank.

        >>> Spread.of(Counter({1: 3, 5: 1})).p75
        1.0
        """
        return cls(**_spread(values, scale))


class Distribution(Spread):
    """A spread with its histogram."""

    bin_width: float = 1.0
    bins: dict[str, int] = Field(default_factory=dict)
    """Lower edge of each bin -> count, empty bins included; the last bin also counts all above."""

    @classmethod
    def of(cls, values: Counter[int], *, scale: int = 1, bin_width: int = 1, most: int = 40) -> Self:
        """From value -> count, in at most `most` bins of `bin_width` (before scaling).

        >>> Distribution.of(Counter({0: 1, 25: 2}), bin_width=20).bins
        {'0': 1, '20': 2}
        """
        counted: Counter[int] = Counter()
        for value, number in values.items():
            counted[min(value // bin_width, most - 1)] += number
        low, high = (min(counted), max(counted)) if counted else (0, -1)
        bins = {f"{edge * bin_width / scale:g}": counted[edge] for edge in range(low, high + 1)}
        return cls(**_spread(values, scale), bin_width=bin_width / scale, bins=bins)


def _spread(values: Counter[int], scale: int) -> dict[str, Any]:
    count = values.total()
    if not count:
        return {}
    ordered = sorted(values.items())
    marks = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
    found: dict[str, float] = {}
    below = 0
    for value, number in ordered:
        below += number
        found |= {m: value / scale for m, share in marks.items() if m not in found and below >= share * count}
    mean = sum(value * number for value, number in ordered) / count / scale
    edges = {"min": ordered[0][0] / scale, "max": ordered[-1][0] / scale}
    return {"count": count, "mean": round(mean, 4), **edges, **found}


class TopWords(Model):
    """Size of the vocabulary, and its most frequent words."""

    tokens: int
    """Words in all."""
    types: int
    """Different words."""
    top: dict[str, int]
    """The most frequent words, function words left out -> how often."""


class Words:
    """Word counts of one segment over all rows."""

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.vocabulary: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()  # between white space, not yet cut into words
        self._groups: dict[str, Counter[int]] = {}

    def add(self, text: str | None, groups: Iterable[str]) -> None:
        """Count one text in every one of its groups; None is not counted."""
        if text is None:
            return
        tokens = text.lower().split()
        length = len(tokens)
        self.lengths[length] += 1
        for group in groups:
            counter = self._groups.get(group)
            if counter is None:
                name = group if len(self._groups) < MAX_GROUPS else "source/other"
                counter = self._groups.setdefault(name, Counter())
            counter[length] += 1
        self._tokens.update(tokens)
        if len(self._tokens) > MAX_TOKENS:
            self._count_words()

    def _count_words(self) -> None:
        """Cut the tokens held into words: once per different token, not once per text."""
        for token, count in self._tokens.items():
            for word in _WORD.findall(token):
                self.vocabulary[word] += count
        self._tokens.clear()
        if len(self.vocabulary) > MAX_VOCABULARY:
            self.vocabulary = Counter(dict(self.vocabulary.most_common(MAX_VOCABULARY // 2)))

    def spreads(self, most: int) -> dict[str, Spread]:
        """Group -> lengths; of the sources the `most` frequent."""
        sources = sorted(
            (g for g in self._groups if g.startswith("source/")), key=lambda g: (-self._groups[g].total(), g)
        )
        others = sorted(g for g in self._groups if not g.startswith("source/"))
        return {group: Spread.of(self._groups[group]) for group in others + sources[:most]}

    def counts(self) -> Counter[str]:
        """Word -> count, with function words."""
        self._count_words()
        return self.vocabulary

    def top(self, most: int) -> TopWords:
        """The most frequent words without function words."""
        self._count_words()
        top = content_words(self.vocabulary, most)
        return TopWords(tokens=self.vocabulary.total(), types=len(self.vocabulary), top=top)


def content_words(words: Counter[str], most: int) -> dict[str, int]:
    """The most frequent words -> how often; function words and single letters left out.

    >>> content_words(Counter({"the": 9, "red": 2, "ball": 3}), 2)
    {'ball': 3, 'red': 2}
    """
    ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return dict([(w, n) for w, n in ordered if n > 0 and w not in _STOP and len(w) > 1][:most])


def text_of(row: Mapping[str, Any], name: str) -> str:
    """A cell of a row; empty if it is not text."""
    cell = row[name]
    return cell if isinstance(cell, str) else ""


def question_of(problem: Any, options: Any, path: Any) -> tuple[str, bytes] | None:
    """(question with its options, path of its file) of a row; None: there is no text."""
    if not isinstance(problem, str):
        return None
    told = [o for o in options if isinstance(o, str)] if isinstance(options, list) else []
    file = path.removeprefix("./") if isinstance(path, str) else ""
    return " ".join([problem, *told]), file.encode("utf-8", "surrogatepass")


def segments_of(
    observation: Any, process: Any, output: Any, grammar: TraceGrammar | None = None
) -> tuple[str | None, str | None]:
    """Perception and reasoning of a row without marks, from their columns, else from the whole trace.

    >>> segments_of(None, None, "<observation>o</observation><think>t</think><answer>A</answer>")
    ('o', 't A')
    """
    marks = trace_parser(grammar or default_grammar()).mark
    perception = marks.sub(" ", observation) if isinstance(observation, str) and observation else None
    reasoning = marks.sub(" ", process).strip() if isinstance(process, str) and process else None
    if (perception is None or reasoning is None) and isinstance(output, str):
        spans = segment_spans(output)
        if perception is None and spans.observation:
            perception = output[spans.observation.start : spans.observation.end]
        if reasoning is None and spans.think and spans.answer:
            parts = (output[s.start : s.end] for s in (spans.think, spans.answer))
            reasoning = " ".join(parts)
    return perception, reasoning


def normal_question(problem: Any, options: Any, path: Any) -> bytes | None:
    """64-bit digest of question, options and path without case, spaces and punctuation; None: no text."""
    found = question_of(problem, options, path)
    if found is None:
        return None
    plain = _NOISE.sub(" ", found[0].lower()).strip()
    return blake2b(plain.encode("utf-8", "surrogatepass") + b"\0" + found[1], digest_size=8).digest()


# Watchers: they see every row in the pass that counts it, and keep what only figures need.

MAX_CHARS = 8_000
"""Characters kept of a sampled text: more than any embedding reads."""
OPENINGS = ("based on the question, i need to notice", "based on the observations,")
"""Openings that the prompt asks for [paper §8.1]: they alone would tell perception from reasoning."""
MAX_KINDS = 64
"""Different modalities and problem types held; further ones count as `other`."""
OTHER = "other"
_OPENING = re.compile(r"\A\W*(?:" + "|".join(map(re.escape, OPENINGS)) + r")[\s:,]*", re.IGNORECASE)


class Crossed:
    """Rows by source, modality and problem type, with a bounded number of each."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._known: dict[str, set[str]] = {"source": set(), "modality": set(), "type": set()}

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """Count a row; a cell that is not text counts as empty."""
        source, data_type, kind = (
            text_of(row, name) for name in ("data_source", "data_type", "problem_type")
        )
        self.counts[
            self._bounded("source", source, MAX_GROUPS),
            self._bounded("modality", data_type, MAX_KINDS),
            self._bounded("type", kind, MAX_KINDS),
        ] += 1

    def _bounded(self, what: str, name: str, most: int) -> str:
        known = self._known[what]
        if name not in known:
            if len(known) >= most:
                return OTHER
            known.add(name)
        return name


class Opened:
    """Counts the prompted openings, to subtract their words from the word counts."""

    def __init__(self) -> None:
        self._found: dict[str, Counter[str]] = {"perception": Counter(), "reasoning": Counter()}

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """Count the openings of a row."""
        for name, text in (("perception", perception), ("reasoning", reasoning)):
            if text and (match := _OPENING.match(text)):
                self._found[name].update(_WORD.findall(match.group().lower()))

    def without(self, name: str, words: Counter[str]) -> Counter[str]:
        """Word counts of `perception` or `reasoning` minus the openings."""
        return words - self._found[name]


class Pair(NamedTuple):
    """Perception and reasoning of one row."""

    row: int
    """Index of the row in its config, in reading order."""
    perception: str
    reasoning: str


class Sampled:
    """Rows drawn without replacement from those with both perception and reasoning.

    The rank of a row is a keyed hash of its number; the lowest ranks are kept. So batches do not matter, and
    a larger sample contains a smaller one of the same seed.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seen = 0
        """Rows with both perception and reasoning."""
        self._seed = seed.to_bytes(8, "big", signed=True)
        self._number = 0
        self._heap: list[tuple[int, Pair]] = []

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """Keep a row if its rank is among the lowest."""
        number, self._number = self._number, self._number + 1
        if not (perception and perception.strip() and reasoning and reasoning.strip()):
            return
        self.seen += 1
        key = blake2b(number.to_bytes(8, "big"), digest_size=8, key=self._seed).digest()
        rank = -int.from_bytes(key, "big")  # heapq pops the smallest: the highest rank has to go first
        if len(self._heap) >= self.size and not (self._heap and rank > self._heap[0][0]):
            return
        pair = Pair(number, *(without_opening(text)[:MAX_CHARS] for text in (perception, reasoning)))
        heapq.heappush(self._heap, (rank, pair))
        if len(self._heap) > self.size:
            heapq.heappop(self._heap)

    def pairs(self) -> list[Pair]:
        """The sample in reading order."""
        return sorted(pair for _, pair in self._heap)


def without_opening(text: str) -> str:
    """A segment without the opening that the prompt asks for.

    >>> without_opening(" Based on the observations, the ball is red.")
    'the ball is red.'
    """
    return _OPENING.sub("", text[: MAX_CHARS + 100])
