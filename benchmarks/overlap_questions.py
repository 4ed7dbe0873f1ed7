"""Questions about imagined clips, in the kinds that video sets have, each in two wordings of one meaning.

Kinds whose questions differ in a slot alone, as those of CLEVRER, VSI-Bench and Perception Test do, stand
beside kinds with options of their own: the first make different questions that look alike, the second do not.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).resolve().parent
_SLOT = re.compile(r"<([a-z]+)(\d?)>")

Wording = tuple[str, tuple[str, ...]]
"""A question and its options."""


class Asked(NamedTuple):
    """One question.

    Attributes:
        clip: number of the clip that it is about.
        kind: of question.
        first, second: two ways to ask it.
    """

    clip: int
    kind: str
    first: Wording
    second: Wording


class _Maker:
    """Fills the slots of forms."""

    def __init__(self, seed: int) -> None:
        table = yaml.safe_load((HERE / "overlap_kinds.yaml").read_text(encoding="utf-8"))
        self.words = {name: words.split() for name, words in table["words"].items()}
        self.phrases: dict[str, str] = table["phrases"]
        self.kinds: dict[str, Any] = table["kinds"]
        self.rng = random.Random(seed)

    def kind(self) -> str:
        """One of the kinds, by its share."""
        return self.rng.choices(list(self.kinds), [kind["share"] for kind in self.kinds.values()])[0]

    def question(self, kind: str) -> tuple[Wording, Wording]:
        """A question in two wordings, the options of the second in another order."""
        first, second, said = self.rng.choice(self.kinds[kind]["forms"])
        slots: dict[str, str] = {}
        if isinstance(said, str):
            count, name = said.split()
            said = self._several(int(count), name)
        options = tuple(self._filled(one, slots) for one in said)
        mixed = tuple(self.rng.sample(options, len(options)))
        return (self._filled(first, slots), options), (self._filled(second, slots), mixed)

    def _several(self, count: int, name: str) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            if (one := self._one(name)) not in found:
                found.append(one)
        return found

    def _one(self, name: str) -> str:
        return (
            self._filled(self.phrases[name], {})
            if name in self.phrases
            else self.rng.choice(self.words[name])
        )

    def _filled(self, form: str, slots: dict[str, str]) -> str:
        def word(match: re.Match[str]) -> str:
            if not match[2]:
                return self._one(match[1])
            if match[0] not in slots:
                slots[match[0]] = next(
                    w for w in iter(lambda: self._one(match[1]), "") if w not in slots.values()
                )
            return slots[match[0]]

        return _SLOT.sub(word, form)


def made(count: int, *, seed: int, clips: int, per_clip: int = 6) -> Iterator[Asked]:
    """So many questions; those about one clip are of one kind, as in real sets.

    Args:
        count: questions.
        seed: another seed, other questions.
        clips: number of the first clip: apart for pools that shall share none.
        per_clip: questions about a clip.
    """
    maker, kind = _Maker(seed), ""
    for number in range(count):
        if number % per_clip == 0:
            kind = maker.kind()
        yield Asked(clips + number // per_clip, kind, *maker.question(kind))


def by_hand() -> Iterator[tuple[int, Wording, Wording]]:
    """(clip, question, rewording) of those that a person reworded."""
    table = yaml.safe_load((HERE / "overlap_questions.yaml").read_text(encoding="utf-8"))
    for clip, entry in enumerate(table):
        for one in entry["questions"]:
            yield clip, (one["q"], tuple(one["o"])), (one["r"], tuple(one.get("p") or one["o"][::-1]))
