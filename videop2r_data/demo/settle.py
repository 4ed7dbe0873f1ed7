"""The judge that cannot see: does the answer follow from what a text states, be it true of the clip or not?

It knows the question, its options, its answer and the text, as a text-only model does. Where an invented
observation leads to the right answer it says yes; where a text leaves something out that only the clip
could tell it cannot know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from math import inf, isnan, nan

from videop2r_data.demo.ask import DIRECTIONS, behaviour, plural, portrait
from videop2r_data.demo.scene import Key, Question, Value
from videop2r_data.demo.statements import read_claims

_WAYS = DIRECTIONS | {"still": "it stays where it is"}
_FASTER = (("fast", "slow"), ("fast", "still"), ("slow", "still"))


def settles(question: Question, observation: str) -> bool:
    """Whether a reader of the question and of this text must arrive at the correct answer; never raises.

    False if the text contradicts itself.
    """
    claims = read_claims(observation)
    said: dict[Key, Value] = {}
    for claim in claims:
        if claim.positive and said.setdefault(claim.key, claim.value) != claim.value:
            return False
    if any(said.get(claim.key) == claim.value for claim in claims if not claim.positive):
        return False
    return _FOLLOWS[question.kind](_Text(question, said))


_LAST = re.compile(r"\banswer (?:is|should be|must be) +(\S(?:[^\n]*\S)?)\s*\Z")


def concludes(think: str) -> str | None:
    """The answer that reasoning ends in, by the wordings of this world; None: in none.

    >>> concludes("It rolls left, so the answer is A? No. Hence the answer should be B."), concludes("Hm.")
    ('B', None)
    """
    last = _LAST.search(think[think.rfind("answer ") :] if "answer " in think else "")
    # what stands before another sentence is not where reasoning ends
    return last[1].removesuffix(".").strip('"') if last and ". " not in last[1] else None


class _Text:
    """What a text claims, without what it denies, beside the question."""

    def __init__(self, question: Question, said: Mapping[Key, Value]) -> None:
        self.said, self.answer = said, question.answer
        self.subjects, (self.a, self.b) = question.subjects, (*question.subjects, "", "")[:2]
        chosen = (option[3:] for option in question.options if option.startswith(f"{self.answer}. "))
        self.right = next(chosen, self.answer)
        """The answer in words: for multiple choice the text of its option."""
        self.there = [name for (kind, name), there in said.items() if kind == "exists" and there is True]
        """The things that are said to be there."""

    def word(self, kind: str, name: str) -> str:
        """The value of a fact; empty: nothing is said of it."""
        return str(self.said.get((kind, name), ""))

    def number(self, kind: str, name: str) -> float:
        """The same; nan, which equals nothing."""
        return float(str(self.said.get((kind, name), nan)))


def _part(at: int, t: _Text) -> bool:
    """The colour (at 0) or the shape (at 1) of the only thing that shares the other one."""
    known = t.a.split()[1 - at]
    return [name.split()[at] for name in t.there if name.split()[1 - at] == known] == [t.right]


def _order(t: _Text) -> bool:
    times = sorted((float(str(at)), f"the {name}") for (kind, name), at in t.said.items() if kind == "appear")
    return len(times) > 1 and times[0][0] < times[1][0] and times[0][1] == t.right


def _beside(t: _Text) -> bool:
    turned = {"left": "right", "right": "left"}.get(t.word("beside", f"{t.b}|{t.a}"), "")
    columns = [t.word("place", name).rpartition(" ")[2] for name in (t.a, t.b)]
    placed = columns[0] if set(columns) == {"left", "right"} else ""
    found = {t.word("beside", f"{t.a}|{t.b}"), turned, placed} - {""}
    return {f"on its {side}" for side in found} == {t.right}


def _exists(t: _Text) -> bool:
    there = t.said.get(("exists", t.a))
    if there is None and t.said.get(("count", "all")) == len(t.there):
        there = False
    return there is not None and ("Yes" if there else "No") == t.right


def _count(t: _Text) -> bool:
    """A number that is stated, or that the things which are named add up to."""
    if t.a == "moving":
        moves = [motion != "still" for (kind, _), motion in t.said.items() if kind == "motion"]
    else:
        moves = [True for name in t.there if t.a == "all" or t.a in name.split()]
    stated, found = t.number("count", t.a), sum(moves) if moves else nan
    return not found > stated and float(t.right) == (found if isnan(stated) else stated)


def _times(t: _Text) -> bool:
    """A time span, or how long it is; `to the end` is as good as any end."""
    start, end = t.number("appear", t.a), t.number("vanish", t.a)
    right = [float(text) for text in t.answer.strip("[]").split(",")]
    first, last = right if len(right) == 2 else (start, start + right[0])
    return abs(start - first) <= 0.15 and (end == inf or abs(end - last) <= 0.15)


def _box(t: _Text) -> bool:
    box, right = t.said.get(("box", t.a)), t.answer.strip("[]").split(",")
    return isinstance(box, tuple) and all(abs(a - float(b)) <= 3 for a, b in zip(box, right, strict=True))


def _describe(t: _Text) -> bool:
    motion, pace = t.word("motion", t.a), t.word("pace", t.a)
    known = motion == "still" or (motion in DIRECTIONS and pace != "")
    return known and behaviour(t.a, motion, pace) == t.answer


def _read(t: _Text) -> bool:
    return t.word("text", "").rstrip(" .,;:!").upper().split() == t.right.upper().split()


def _trend(t: _Text) -> bool:
    start, end = t.number("level", "start"), t.number("level", "end")
    return {"it rises": end > start, "it falls": end < start}.get(t.right, end == start)


def _sum(t: _Text) -> bool:
    """The numbers of all kinds, or the total that is stated; of both, both."""
    found = (sum(t.number("count", name) for name in t.subjects), t.number("count", "all"))
    return {n for n in found if not isnan(n)} == {float(t.answer)}


def _most(t: _Text) -> bool:
    counts = {plural(name): t.number("count", name) for name in t.subjects}
    best = [name for name, n in counts.items() if n == max(counts.values())]
    return best == [t.right] and not any(map(isnan, counts.values()))


_FOLLOWS: dict[str, Callable[[_Text], bool]] = {
    "direction": lambda t: _WAYS.get(t.word("motion", t.a)) == t.right,
    "colour": partial(_part, 0),
    "shape": partial(_part, 1),
    "order": _order,
    "faster": lambda t: (t.word("pace", t.a), t.word("pace", t.b)) in _FASTER,
    "place": lambda t: t.word("place", t.a) == t.right,
    "beside": _beside,
    "exists": _exists,
    **dict.fromkeys(("count", "count_choice", "count_some", "count_moving"), _count),
    **dict.fromkeys(("interval", "seconds"), _times),
    "box": _box,
    "describe": _describe,
    "portray": lambda t: portrait(t.a, t.word("size", t.a), t.word("place", t.a)) == t.answer,
    **dict.fromkeys(("read", "read_choice"), _read),
    **dict.fromkeys(("level", "level_end"), lambda t: abs(t.number("level", t.a) - float(t.answer)) <= 2),
    "trend": _trend,
    "sum": _sum,
    "most": _most,
}
"""Kind of question -> whether its answer follows from what is said."""
