"""The judge that cannot see: does the answer follow from what a text states, be it true of the clip or not?

It knows the question, its options, its answer and the text, as a text-only model does. Where an invented
observation leads to the right answer it says yes; where a text leaves something out that only the clip
could tell it cannot know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf

from videop2r_data.demo.ask import DIRECTIONS, behaviour, portrait
from videop2r_data.demo.scene import Key, Question, Value
from videop2r_data.demo.statements import Claim, read_claims

Said = Mapping[Key, Value]
"""What a text claims, without what it denies."""
_PACES = {"still": 0, "slow": 1, "fast": 2}


def settles(question: Question, observation: str) -> bool:
    """Whether a reader of the question and of this text must arrive at the correct answer; never raises.

    False if the text contradicts itself.
    """
    said = _consistent(read_claims(observation))
    return said is not None and _FOLLOWS[question.kind](question, said)


def _consistent(claims: list[Claim]) -> dict[Key, Value] | None:
    said: dict[Key, Value] = {}
    for claim in claims:
        if claim.positive and said.setdefault(claim.key, claim.value) != claim.value:
            return None
    denied = ((claim.key, claim.value) for claim in claims if not claim.positive)
    return None if any(said.get(key) == value for key, value in denied) else said


def _right(question: Question) -> str:
    """The correct answer in words: for multiple choice the text of its option."""
    return next((o[3:] for o in question.options if o.startswith(f"{question.answer}. ")), question.answer)


def _names(said: Said) -> list[str]:
    """The things that are said to be there."""
    return [name for (kind, name), there in said.items() if kind == "exists" and there is True]


def _number(value: Value | None) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _direction(question: Question, said: Said) -> bool:
    motion = said.get(("motion", question.subjects[0]))
    return motion is not None and DIRECTIONS.get(str(motion), "it stays where it is") == _right(question)


def _part(at: int, question: Question, said: Said) -> bool:
    """The colour (at 0) or the shape (at 1) of the only thing that shares the other one."""
    known = question.subjects[0].split()[1 - at]
    fitting = [name.split()[at] for name in _names(said) if name.split()[1 - at] == known]
    return fitting == [_right(question)]


def _order(question: Question, said: Said) -> bool:
    times = sorted((float(str(t)), f"the {name}") for (kind, name), t in said.items() if kind == "appear")
    return len(times) > 1 and times[0][0] < times[1][0] and times[0][1] == _right(question)


def _faster(question: Question, said: Said) -> bool:
    right, other = (_PACES.get(str(said.get(("pace", name)))) for name in question.subjects)
    return right is not None and other is not None and right > other


def _place(question: Question, said: Said) -> bool:
    return said.get(("place", question.subjects[0])) == _right(question)


def _beside(question: Question, said: Said) -> bool:
    a, b = question.subjects
    turned = {"left": "right", "right": "left"}.get(str(said.get(("beside", f"{b}|{a}"))))
    columns = [str(said.get(("place", name), "")).rpartition(" ")[2] for name in (a, b)]
    placed = columns[0] if set(columns) == {"left", "right"} else None
    found = {side for side in (said.get(("beside", f"{a}|{b}")), turned, placed) if side}
    return {f"on its {side}" for side in found} == {_right(question)}


def _exists(question: Question, said: Said) -> bool:
    name = question.subjects[0]
    there = said.get(("exists", name))
    if there is None and said.get(("count", "all")) == len(_names(said)):
        there = False
    return there is not None and ("Yes" if there else "No") == _right(question)


def _count(question: Question, said: Said) -> bool:
    """A number that is stated, or that the things which are named add up to."""
    subject = question.subjects[0]
    stated = said.get(("count", subject))
    if subject == "moving":
        moves = [motion != "still" for (kind, _), motion in said.items() if kind == "motion"]
        found = sum(moves) if moves else None
    else:
        named = [name for name in _names(said) if subject == "all" or subject in name.split()]
        found = len(named) or None
    if stated is not None and found is not None and found > int(str(stated)):
        return False
    return str(found if stated is None else stated) == _right(question)


def _times(length: bool, question: Question, said: Said) -> bool:
    """A time span, or how long it is; `to the end` is as good as any end."""
    start, end = (_number(said.get((kind, question.subjects[0]))) for kind in ("appear", "vanish"))
    if start is None or end is None:
        return False
    if length:
        return end == inf or abs(end - start - float(question.answer)) <= 0.15
    first, last = (float(text) for text in question.answer.strip("[]").split(","))
    return abs(start - first) <= 0.15 and (end == inf or abs(end - last) <= 0.15)


def _box(question: Question, said: Said) -> bool:
    box = said.get(("box", question.subjects[0]))
    right = [float(text) for text in question.answer.strip("[]").split(",")]
    return isinstance(box, tuple) and all(abs(a - b) <= 3 for a, b in zip(box, right, strict=True))


def _sentence(question: Question, said: Said) -> bool:
    """What a thing does, or what it looks like, in the words of the reference."""
    name = question.subjects[0]
    motion, pace, size, place = (
        str(said.get((kind, name), "")) for kind in ("motion", "pace", "size", "place")
    )
    if question.kind == "portray":
        return bool(size and place) and portrait(name, size, place) == question.answer
    known = motion == "still" or (motion in DIRECTIONS and pace)
    return bool(known) and behaviour(name, motion, pace) == question.answer


def _text(question: Question, said: Said) -> bool:
    words = str(said.get(("text", ""), "")).rstrip(" .,;:!").upper().split()
    return words == _right(question).upper().split()


def _level(question: Question, said: Said) -> bool:
    level = _number(said.get(("level", question.subjects[0])))
    return level is not None and abs(level - float(question.answer)) <= 2


def _trend(question: Question, said: Said) -> bool:
    start, end = (_number(said.get(("level", at))) for at in ("start", "end"))
    if start is None or end is None:
        return False
    found = "it rises" if end > start else "it falls" if end < start else "it stays the same"
    return found == _right(question)


def _sum(question: Question, said: Said) -> bool:
    numbers = [_number(said.get(("count", name))) for name in question.subjects]
    known = [n for n in numbers if n is not None]
    total = _number(said.get(("count", "all")))
    found = sum(known) if len(known) == len(numbers) else total
    return found == float(question.answer) and (total is None or total == found)


def _most(question: Question, said: Said) -> bool:
    counts = {name: _number(said.get(("count", name))) for name in question.subjects}
    known = {name: n for name, n in counts.items() if n is not None}
    best = [name for name, n in known.items() if n == max(known.values())]
    if len(known) < len(counts) or len(best) != 1:
        return False
    return _right(question) in (f"{best[0]}s", f"{best[0]}es")


_FOLLOWS: dict[str, Callable[[Question, Said], bool]] = {
    "direction": _direction,
    "colour": partial(_part, 0),
    "shape": partial(_part, 1),
    "order": _order,
    "faster": _faster,
    "place": _place,
    "beside": _beside,
    "exists": _exists,
    **dict.fromkeys(("count", "count_choice", "count_some", "count_moving"), _count),
    "interval": partial(_times, False),
    "seconds": partial(_times, True),
    "box": _box,
    **dict.fromkeys(("describe", "portray"), _sentence),
    **dict.fromkeys(("read", "read_choice"), _text),
    **dict.fromkeys(("level", "level_end"), _level),
    "trend": _trend,
    "sum": _sum,
    "most": _most,
}
"""Kind of question -> whether its answer follows from what is said."""
