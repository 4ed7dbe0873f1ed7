"""Every kind of question: its wordings, the facts that it needs, and one table of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Literal

from videop2r_data.demo.scene import (
    COLOURS,
    PLACES,
    SHAPES,
    WORDS,
    Key,
    Medium,
    Question,
    Scene,
    Theme,
    truth,
)
from videop2r_data.schemas import ProblemType

# --- wordings: `{at}` is `in clip 17`, `{At}` the same with a capital, `{label}` is `clip 17` ---

PROBLEMS: dict[str, tuple[str, ...]] = {
    "direction": (
        "{At}, which way does the {a} move?",
        "In which direction does the {a} travel {at}?",
        "Watch {label}. Where is the {a} heading?",
    ),
    "colour": (
        "{At}, what colour is the {a}?",
        "Which colour does the {a} have {at}?",
        "Look at {label}. Name the colour of the {a}.",
    ),
    "shape": (
        "{At}, what shape is the {a} thing?",
        "Which shape does the only {a} thing have {at}?",
        "Look at {label}. What kind of shape is drawn in {a}?",
    ),
    "order": (
        "{At}, which shape can be seen first?",
        "Watch {label}. Which of these shapes comes into view before the others?",
        "Which shape is the earliest to appear {at}?",
    ),
    "faster": (
        "{At}, which of the two is faster, the {a} or the {b}?",
        "Compare the {a} with the {b} {at}. Which one travels faster?",
        "Watch {label}. Does the {a} or the {b} have the higher speed?",
    ),
    "place": (
        "{At}, in which corner region is the {a}?",
        "Where in the frame does the {a} lie {at}?",
        "Look at {label}. Which part of it holds the {a}?",
    ),
    "beside": (
        "{At}, on which side of the {b} is the {a}?",
        "Seen from the {b}, where is the {a} {at}?",
        "Look at {label}. Is the {a} left or right of the {b}?",
    ),
    "exists": (
        "{At}, is there a {a}?",
        "Does a {a} appear anywhere {at}?",
        "Look at {label}. Can a {a} be seen?",
    ),
    "count": (
        "{At}, how many shapes are there?",
        "What is the number of shapes {at}?",
        "Count the shapes {at}.",
    ),
    "count_some": (
        "{At}, how many {a} are there?",
        "What is the number of {a} {at}?",
        "Look at {label}. How many {a} can you find?",
    ),
    "count_moving": (
        "{At}, how many shapes move?",
        "How many of the shapes change their place {at}?",
        "Watch {label}. What is the number of shapes in motion?",
    ),
    "count_choice": (
        "{At}, how many shapes are in view altogether?",
        "Pick the total number of shapes {at}.",
    ),
    "interval": (
        "{At}, from when to when is the {a} visible? Give the start and the end in seconds.",
        "During which seconds can the {a} be seen {at}?",
        "Watch {label}. Mark the time span in which the {a} is shown, in seconds.",
    ),
    "seconds": (
        "{At}, for how many seconds is the {a} visible?",
        "How long, in seconds, can the {a} be seen {at}?",
        "Watch {label}. Estimate how many seconds the {a} stays in view.",
    ),
    "box": (
        "{At}, give the bounding box of the {a} in pixels of the {side} x {side} frame.",
        "Where exactly is the {a} {at}? Answer with its box in pixels; the frame is {side} x {side}.",
        "Locate the {a} {at} by its box [x1, y1, x2, y2] on the {side} x {side} pixel grid.",
    ),
    "describe": (
        "{At}, what does the {a} do?",
        "Describe the behaviour of the {a} {at} in one sentence.",
        "Watch {label}. Say in a sentence how the {a} behaves.",
    ),
    "portray": (
        "{At}, describe the {a} in one sentence: its size and its place.",
        "How large is the {a} {at}, and where is it? Answer in one sentence.",
    ),
    "read": (
        "{At}, what is written on the sign?",
        "Transcribe the text of the sign {at}.",
        "Read the sign {at} aloud, word by word.",
    ),
    "read_choice": (
        "{At}, which of these texts is on the sign?",
        "Pick the text that the sign shows {at}.",
    ),
    "level": (
        "{At}, how full is the bar, in percent?",
        "Estimate the fill of the bar {at}, from 0 to 100 percent.",
        "Look at {label}. What percentage of the bar is filled?",
    ),
    "level_end": (
        "{At}, how full is the bar at the very end, in percent?",
        "What percentage of the bar is filled when {label} ends?",
    ),
    "trend": (
        "{At}, what happens to the fill of the bar?",
        "How does the bar change {at}?",
    ),
    "sum": (
        "{Puzzle} A box holds {things}. How many shapes does it hold in all?",
        "{Puzzle} Someone draws {things}. How many shapes are drawn altogether?",
        "{Puzzle} On a table lie {things}. What is the total number of shapes?",
    ),
    "most": (
        "{Puzzle} A box holds {things}. Which kind is the most frequent?",
        "{Puzzle} On a table lie {things}. Of which kind are there the most?",
    ),
}
"""Question kind -> its wordings."""


NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


def listing(things: list[str]) -> str:
    """`a, b and c`."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def plural(name: str) -> str:
    """`red circles`, `blue crosses`."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def number(value: float) -> str:
    """Shortest text of a number, at most three decimals."""
    return f"{round(float(value), 3):g}"


# --- multiple choice, with plausible wrong options ---

DIRECTIONS = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}
Needs = tuple[tuple[Key, ...], ...]


def _question(
    kind: str,
    scene: Scene,
    rng: Random,
    answer: str,
    needs: Needs,
    *,
    subjects: tuple[str, ...] = (),
    **slots: str,
) -> Question:
    """A question in one of its wordings; `{a}` and `{b}` are its subjects, unless `slots` say otherwise."""
    at, puzzle = f"in {scene.label}", f"{scene.label.capitalize()}:"
    first, second = (*subjects, "", "")[:2]
    wording = rng.choice(PROBLEMS[kind])
    return Question(
        kind=kind,
        problem_type=KINDS[kind.removesuffix("_end")][3],  # `level_end` is a wording of `level`
        problem=wording.format(
            at=at, At=at.capitalize(), label=scene.label, Puzzle=puzzle, **{"a": first, "b": second} | slots
        ),
        answer=answer,
        subjects=subjects,
        needs=needs,
    )


def _choice(asked: Question, wrong: Iterable[str], rng: Random) -> Question:
    """Multiple choice: the answer and up to five wrong texts, shuffled."""
    pool = [w for w in dict.fromkeys(wrong) if w != asked.answer]
    rng.shuffle(pool)
    texts = [asked.answer, *pool[: rng.randint(min(len(pool), 2), 5)]]
    rng.shuffle(texts)
    options = tuple(f"{'ABCDEF'[i]}. {text}" for i, text in enumerate(texts))
    return asked.model_copy(update={"options": options, "answer": options[texts.index(asked.answer)][0]})


def _all_there(scene: Scene) -> tuple[Key, ...]:
    """The facts that every object is there: an enumeration."""
    return tuple(("exists", o.name) for o in scene.objects)


def _absent(scene: Scene) -> list[str]:
    names = {o.name for o in scene.objects}
    return [f"{c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in names]


def _ask_direction(scene: Scene, rng: Random) -> Question:
    found = rng.choice(scene.objects)
    texts = [*DIRECTIONS.values(), "it stays where it is"]
    right, needs = DIRECTIONS.get(found.motion, texts[-1]), ((("motion", found.name),),)
    return _choice(_question("direction", scene, rng, right, needs, subjects=(found.name,)), texts, rng)


def _ask_part(kind: Literal["colour", "shape"], scene: Scene, rng: Random) -> Question | None:
    """The colour of the only thing of some shape, or the other way round."""
    known = "shape" if kind == "colour" else "colour"
    parts = [getattr(o, known) for o in scene.objects]
    alone = [o for o in scene.objects if parts.count(getattr(o, known)) == 1]
    if not alone:
        return None
    found = rng.choice(alone)
    right, needs = getattr(found, kind), ((("exists", found.name),),)
    asked = _question(kind, scene, rng, right, needs, subjects=(found.name,), a=getattr(found, known))
    return _choice(asked, COLOURS if kind == "colour" else SHAPES, rng)


def _ask_order(scene: Scene, rng: Random) -> Question | None:
    times = sorted((o.appear, o.name) for o in scene.objects)
    # A quarter of a second apart at least, so that sampled frames can show which came first.
    if len(times) < 2 or times[1][0] - times[0][0] < max(2, scene.fps // 4):
        return None
    first, *later = names = [name for _, name in times]
    needs = (tuple(("appear", name) for name in sorted(names)),)
    asked = _question("order", scene, rng, f"the {first}", needs, subjects=tuple(names))
    return _choice(asked, [f"the {name}" for name in (*later, rng.choice(_absent(scene)))], rng)


def _ask_faster(scene: Scene, rng: Random) -> Question | None:
    fast = [o for o in scene.objects if o.pace == "fast"]
    slower = [o for o in scene.objects if o.pace == "slow"]
    if not fast or not slower:
        return None
    right, other = rng.choice(fast).name, rng.choice(slower).name
    a, b = rng.sample((right, other), 2)
    needs = ((("pace", right), ("pace", other)),)
    asked = _question("faster", scene, rng, f"the {right}", needs, subjects=(right, other), a=a, b=b)
    return _choice(asked, [f"the {other}", "both are equally fast"], rng)


def _ask_place(scene: Scene, rng: Random) -> Question | None:
    key = ("place", rng.choice(scene.objects).name)
    place = truth(scene, key)
    if place is None:
        return None
    return _choice(_question("place", scene, rng, str(place), ((key,),), subjects=key[1:]), PLACES, rng)


def _ask_beside(scene: Scene, rng: Random) -> Question | None:
    if len(scene.objects) < 2:
        return None
    a, b = (o.name for o in rng.sample(scene.objects, 2))
    side = truth(scene, ("beside", f"{a}|{b}"))
    if side is None:
        return None
    needs = ((("beside", f"{a}|{b}"),), (("beside", f"{b}|{a}"),))
    asked = _question("beside", scene, rng, f"on its {side}", needs, subjects=(a, b))
    return _choice(asked, ["on its left", "on its right"], rng)


def _ask_exists(scene: Scene, rng: Random) -> Question:
    names = [o.name for o in scene.objects]
    # Half of the answers are No: neither word is the safer guess.
    name = rng.choice(names if rng.random() < 0.5 else _absent(scene))
    needs: Needs = ((("exists", name),),)
    # That a thing is absent follows only from a full list of what is there.
    if name not in names:
        needs += ((("count", "all"), *_all_there(scene)),)
    right = "Yes" if name in names else "No"
    return _choice(_question("exists", scene, rng, right, needs, subjects=(name,)), ["Yes", "No"], rng)


def _ask_count_choice(scene: Scene, rng: Random) -> Question:
    asked = _count("count_choice", scene, rng, "all", _all_there(scene))
    return _choice(asked, [str(n) for n in range(1, 7)], rng)


def other_text(text: str, rng: Random) -> str:
    """As many words, all of them other ones."""
    words = text.split()
    pool = [w for w in WORDS if w not in words]
    return " ".join(
        str(rng.randint(10, 9999)) if word.isdigit() and rng.random() < 0.3 else rng.choice(pool)
        for word in words
    )


def _ask_read_choice(scene: Scene, rng: Random) -> Question:
    text = str(truth(scene, ("text", "")))
    others = [other_text(text, rng) for _ in range(4)]
    return _choice(_question("read_choice", scene, rng, text, ((("text", ""),),)), others, rng)


def _ask_trend(scene: Scene, rng: Random) -> Question:
    assert scene.gauge is not None
    texts = ["it rises", "it falls", "it stays the same"]
    right = texts[0] if scene.gauge.end > scene.gauge.start else texts[1]
    needs = ((("level", "start"), ("level", "end")),)
    return _choice(_question("trend", scene, rng, right, needs, subjects=("start", "end")), texts, rng)


def _things(scene: Scene) -> str:
    """The groups of a text puzzle in words."""
    return listing([f"{g.count} {plural(g.name)}" for g in scene.groups])


def _ask_most(scene: Scene, rng: Random) -> Question | None:
    ranked = sorted(scene.groups, key=lambda g: -g.count)
    if ranked[0].count == ranked[1].count:
        return None
    names = tuple(g.name for g in scene.groups)
    needs = (tuple(("count", name) for name in names),)
    right, *wrong = (plural(g.name) for g in ranked)
    return _choice(
        _question("most", scene, rng, right, needs, subjects=names, things=_things(scene)), wrong, rng
    )


# --- answers of their own: numbers, text, spans, boxes ---


def _count(
    kind: str, scene: Scene, rng: Random, subject: str, listed: tuple[Key, ...], **slots: str
) -> Question:
    """A number of things: it follows from a statement of it, or from all the facts that are `listed`."""
    key = ("count", subject)
    return _question(kind, scene, rng, str(truth(scene, key)), ((key,), listed), subjects=(subject,), **slots)


def _ask_count(scene: Scene, rng: Random) -> Question:
    return _count("count", scene, rng, "all", _all_there(scene))


def _ask_count_some(scene: Scene, rng: Random) -> Question:
    """How many of one colour or one shape?"""
    subject = rng.choice([o.shape for o in scene.objects] + [o.colour for o in scene.objects])
    words = plural(subject) if subject in SHAPES else f"{subject} shapes"
    return _count("count_some", scene, rng, subject, _all_there(scene), a=words)


def _ask_count_moving(scene: Scene, rng: Random) -> Question:
    return _count("count_moving", scene, rng, "moving", tuple(("motion", o.name) for o in scene.objects))


def _ask_time(kind: Literal["interval", "seconds"], scene: Scene, rng: Random) -> Question | None:
    """From when to when, or for how long, is something visible that is not shown all the time?"""
    names = [o.name for o in scene.objects if o.vanish - o.appear < scene.frames]
    if scene.sign is not None and scene.sign.vanish - scene.sign.appear < scene.frames:
        names.append("sign")
    if not names:
        return None
    name = rng.choice(names)
    need: tuple[Key, ...] = (("appear", name), ("vanish", name))
    start, end = (float(str(truth(scene, key))) for key in need)
    answer = f"[{number(start)}, {number(end)}]" if kind == "interval" else number(end - start)
    return _question(kind, scene, rng, answer, (need,), subjects=(name,))


def _ask_box(scene: Scene, rng: Random) -> Question | None:
    still = [o for o in scene.objects if o.motion == "still"]
    if not still:
        return None
    found = rng.choice(still)
    key, answer = ("box", found.name), str(list(found.box()))
    return _question("box", scene, rng, answer, ((key,),), subjects=(found.name,), side=str(scene.side))


def behaviour(name: str, motion: str, pace: str) -> str:
    """The reference of a `describe` question."""
    if motion == "still":
        return f"The {name} stays in the same place without moving."
    return f"The {name} moves {'slowly' if pace == 'slow' else 'quickly'} {DIRECTIONS[motion]}."


def portrait(name: str, size: str, place: str) -> str:
    """The reference of a `portray` question."""
    return f"The {name} is {size} and lies in the {place} of the picture."


def _ask_describe(scene: Scene, rng: Random) -> Question:
    found = rng.choice(scene.objects)
    facts = ("motion",) if found.motion == "still" else ("motion", "pace")
    needs = (tuple((fact, found.name) for fact in facts),)
    answer = behaviour(found.name, found.motion, found.pace)
    return _question("describe", scene, rng, answer, needs, subjects=(found.name,))


def _ask_portray(scene: Scene, rng: Random) -> Question | None:
    found = rng.choice(scene.objects)
    need = (("size", found.name), ("place", found.name))
    place = truth(scene, need[1])
    if place is None:
        return None
    answer = portrait(found.name, found.size, str(place))
    return _question("portray", scene, rng, answer, (need,), subjects=(found.name,))


def _ask_read(scene: Scene, rng: Random) -> Question:
    key: Key = ("text", "")
    return _question("read", scene, rng, str(truth(scene, key)), ((key,),))


def _ask_level(scene: Scene, rng: Random) -> Question:
    """How full is the bar, at the end if it changes?"""
    kind, anchor = ("level", "now") if scene.medium == "image" else ("level_end", "end")
    key: Key = ("level", anchor)
    return _question(kind, scene, rng, str(truth(scene, key)), ((key,),), subjects=(anchor,))


def _ask_sum(scene: Scene, rng: Random) -> Question:
    names, total = tuple(g.name for g in scene.groups), sum(g.count for g in scene.groups)
    needs = (tuple(("count", name) for name in names), (("count", "all"),))
    return _question("sum", scene, rng, str(total), needs, subjects=names, things=_things(scene))


# --- the table of all kinds ---

Asker = Callable[[Scene, Random], Question | None]
KINDS: dict[str, tuple[Asker, Theme, tuple[Medium, ...], ProblemType]] = {
    "direction": (_ask_direction, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "colour": (partial(_ask_part, "colour"), "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "shape": (partial(_ask_part, "shape"), "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "order": (_ask_order, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "faster": (_ask_faster, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "place": (_ask_place, "shapes", ("image",), ProblemType.MULTIPLE_CHOICE),
    "beside": (_ask_beside, "shapes", ("image",), ProblemType.MULTIPLE_CHOICE),
    "exists": (_ask_exists, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "count": (_ask_count, "shapes", ("video", "image"), ProblemType.NUMERICAL),
    "count_choice": (_ask_count_choice, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "count_some": (_ask_count_some, "shapes", ("video", "image"), ProblemType.NUMERICAL),
    "count_moving": (_ask_count_moving, "shapes", ("video",), ProblemType.NUMERICAL),
    "interval": (partial(_ask_time, "interval"), "shapes", ("video",), ProblemType.TEMPORAL_GROUNDING),
    "sign_interval": (partial(_ask_time, "interval"), "sign", ("video",), ProblemType.TEMPORAL_GROUNDING),
    "seconds": (partial(_ask_time, "seconds"), "shapes", ("video",), ProblemType.REGRESSION),
    "box": (_ask_box, "shapes", ("video", "image"), ProblemType.SPATIAL_GROUNDING),
    "describe": (_ask_describe, "shapes", ("video",), ProblemType.FREE_FORM),
    "portray": (_ask_portray, "shapes", ("image",), ProblemType.FREE_FORM),
    "read": (_ask_read, "sign", ("video", "image"), ProblemType.OCR),
    "read_choice": (_ask_read_choice, "sign", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "level": (_ask_level, "gauge", ("video", "image"), ProblemType.REGRESSION),
    "trend": (_ask_trend, "gauge", ("video",), ProblemType.MULTIPLE_CHOICE),
    "sum": (_ask_sum, "groups", ("text",), ProblemType.NUMERICAL),
    "most": (_ask_most, "groups", ("text",), ProblemType.MULTIPLE_CHOICE),
}
"""Kind -> how to ask, the theme and the media that it fits, and its type."""


def ask(scene: Scene, kinds: Sequence[str], at_most: int, rng: Random) -> list[Question]:
    """Up to `at_most` different questions about a scene, of the given kinds, in random order."""
    fitting = [k for k in kinds if KINDS[k][1] == scene.theme and scene.medium in KINDS[k][2]]
    rng.shuffle(fitting)
    asked: list[Question] = []
    for kind in fitting:
        if len(asked) == at_most:
            break
        question = KINDS[kind][0](scene, rng) if scene.objects or scene.theme != "shapes" else None
        if question is not None and question.problem not in {q.problem for q in asked}:
            asked.append(question)
    return asked
