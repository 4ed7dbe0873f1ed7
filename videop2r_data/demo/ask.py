"""Every kind of question, each with the facts that it needs, and one table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from videop2r_data.demo.imagine import WORDS
from videop2r_data.demo.question import Question, listing, number, phrase, plural
from videop2r_data.demo.scene import COLOURS, PLACES, SHAPES, Key, Medium, Scene, Theme, truth
from videop2r_data.schemas import ProblemType

# --- multiple choice, with plausible wrong options ---

DIRECTIONS = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}
Asked = Question | None


def list_all(scene: Scene) -> tuple[Key, ...]:
    """The facts that every object is there: an enumeration."""
    return tuple(("exists", o.name) for o in scene.objects)


def _choice(
    kind: str,
    problem: str,
    rng: Random,
    *,
    right: str,
    wrong: Sequence[str],
    needs: tuple[tuple[Key, ...], ...],
    subjects: tuple[str, ...] = (),
) -> Question:
    """A multiple-choice question: the right text and up to five wrong ones, shuffled."""
    pool = [w for w in dict.fromkeys(wrong) if w != right]
    rng.shuffle(pool)
    texts = [right, *pool[: rng.randint(min(len(pool), 2), 5)]]
    rng.shuffle(texts)
    return Question(
        kind=kind,
        problem_type=ProblemType.MULTIPLE_CHOICE,
        problem=problem,
        options=tuple(f"{'ABCDEF'[i]}. {text}" for i, text in enumerate(texts)),
        answer="ABCDEF"[texts.index(right)],
        subjects=subjects,
        needs=needs,
    )


def ask_direction(scene: Scene, rng: Random) -> Asked:
    """Which way does it move?"""
    found = rng.choice(scene.objects)
    texts = [*DIRECTIONS.values(), "it stays where it is"]
    right = DIRECTIONS.get(found.motion, texts[-1])
    problem = phrase("direction", scene.label, rng, a=found.name)
    needs = ((("motion", found.name),),)
    return _choice("direction", problem, rng, right=right, wrong=texts, needs=needs, subjects=(found.name,))


def _alone(scene: Scene, rng: Random, part: str) -> tuple[str, str] | None:
    """(name, part) of an object whose colour or shape no other object has."""
    parts = [getattr(o, part) for o in scene.objects]
    alone = [(o.name, getattr(o, part)) for o in scene.objects if parts.count(getattr(o, part)) == 1]
    return rng.choice(alone) if alone else None


def ask_colour(scene: Scene, rng: Random) -> Asked:
    """What colour is the only thing of this shape?"""
    found = _alone(scene, rng, "shape")
    if found is None:
        return None
    name, shape = found
    problem = phrase("colour", scene.label, rng, a=shape)
    needs = ((("exists", name),),)
    return _choice(
        "colour", problem, rng, right=name.split()[0], wrong=list(COLOURS), needs=needs, subjects=(name,)
    )


def ask_shape(scene: Scene, rng: Random) -> Asked:
    """What shape is the only thing of this colour?"""
    found = _alone(scene, rng, "colour")
    if found is None:
        return None
    name, colour = found
    problem = phrase("shape", scene.label, rng, a=colour)
    needs = ((("exists", name),),)
    return _choice("shape", problem, rng, right=name.split()[1], wrong=SHAPES, needs=needs, subjects=(name,))


def ask_order(scene: Scene, rng: Random) -> Asked:
    """Which appears first? None if two begin together."""
    times = sorted((o.appear, o.name) for o in scene.objects)
    # A quarter of a second apart at least, so that sampled frames can show which came first.
    if len(times) < 2 or times[1][0] - times[0][0] < max(2, scene.fps // 4):
        return None
    names = [name for _, name in times]
    needs = (tuple(("appear", name) for name in sorted(names)),)
    problem = phrase("order", scene.label, rng)
    absent = [f"the {c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in names]
    wrong = [*(f"the {n}" for n in names[1:]), rng.choice(absent)]
    right = f"the {names[0]}"
    return _choice("order", problem, rng, right=right, wrong=wrong, needs=needs, subjects=tuple(names))


def ask_faster(scene: Scene, rng: Random) -> Asked:
    """Which of a fast and a slow one is faster?"""
    fast = [o for o in scene.objects if o.pace == "fast"]
    slower = [o for o in scene.objects if o.pace == "slow"]
    if not fast or not slower:
        return None
    right, other = rng.choice(fast).name, rng.choice(slower).name
    a, b = rng.sample((right, other), 2)
    problem = phrase("faster", scene.label, rng, a=a, b=b)
    needs = ((("pace", right), ("pace", other)),)
    texts = [f"the {other}", "both are equally fast"]
    return _choice(
        "faster", problem, rng, right=f"the {right}", wrong=texts, needs=needs, subjects=(right, other)
    )


def ask_place(scene: Scene, rng: Random) -> Asked:
    """In which quarter of the picture is it?"""
    found = rng.choice(scene.objects)
    place = truth(scene, ("place", found.name))
    if place is None:
        return None
    problem = phrase("place", scene.label, rng, a=found.name)
    needs = ((("place", found.name),),)
    return _choice("place", problem, rng, right=str(place), wrong=PLACES, needs=needs, subjects=(found.name,))


def ask_beside(scene: Scene, rng: Random) -> Asked:
    """On which side of another one is it?"""
    if len(scene.objects) < 2:
        return None
    a, b = (o.name for o in rng.sample(scene.objects, 2))
    side = truth(scene, ("beside", f"{a}|{b}"))
    if side is None:
        return None
    problem = phrase("beside", scene.label, rng, a=a, b=b)
    back = {"left": "right", "right": "left"}[str(side)]
    needs = ((("beside", f"{a}|{b}"),), (("beside", f"{b}|{a}"),))
    return _choice(
        "beside", problem, rng, right=f"on its {side}", wrong=[f"on its {back}"], needs=needs, subjects=(a, b)
    )


def ask_exists(scene: Scene, rng: Random) -> Asked:
    """Is there such a thing: yes or no?"""
    names = [o.name for o in scene.objects]
    absent = [f"{c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in names]
    # Half of the answers are No: neither word is the safer guess.
    name = rng.choice(names if rng.random() < 0.5 else absent)
    there = name in names
    problem = phrase("exists", scene.label, rng, a=name)
    needs: tuple[tuple[Key, ...], ...] = ((("exists", name),),)
    # That a thing is absent follows only from a full list of what is there.
    if not there:
        needs += ((("count", "all"), *list_all(scene)),)
    right, wrong = ("Yes", "No") if there else ("No", "Yes")
    return _choice("exists", problem, rng, right=right, wrong=[wrong], needs=needs, subjects=(name,))


def ask_count_choice(scene: Scene, rng: Random) -> Asked:
    """How many shapes, with options?"""
    right = len(scene.objects)
    needs = ((("count", "all"),), list_all(scene))
    problem = phrase("count_choice", scene.label, rng)
    texts = [str(n) for n in range(1, 7)]
    return _choice(
        "count_choice", problem, rng, right=str(right), wrong=texts, needs=needs, subjects=("all",)
    )


def other_text(text: str, rng: Random) -> str:
    """As many words, all of them other ones."""
    words = text.split()
    pool = [w for w in WORDS if w not in words]
    return " ".join(
        str(rng.randint(10, 9999)) if word.isdigit() and rng.random() < 0.3 else rng.choice(pool)
        for word in words
    )


def ask_read_choice(scene: Scene, rng: Random) -> Asked:
    """Which text is on the sign?"""
    text = str(truth(scene, ("text", "")))
    others = [other_text(text, rng) for _ in range(4)]
    problem = phrase("read_choice", scene.label, rng)
    return _choice("read_choice", problem, rng, right=text, wrong=others, needs=((("text", ""),),))


def ask_trend(scene: Scene, rng: Random) -> Asked:
    """Does the bar rise or fall?"""
    assert scene.gauge is not None
    texts = ["it rises", "it falls", "it stays the same"]
    right = texts[0] if scene.gauge.end > scene.gauge.start else texts[1]
    needs = ((("level", "start"), ("level", "end")),)
    return _choice(
        "trend",
        phrase("trend", scene.label, rng),
        rng,
        right=right,
        wrong=texts,
        needs=needs,
        subjects=("start", "end"),
    )


def things_in(scene: Scene) -> str:
    """The groups of a text puzzle in words."""
    return listing([f"{g.count} {plural(g.name)}" for g in scene.groups])


def ask_most(scene: Scene, rng: Random) -> Asked:
    """Of which kind are there the most?"""
    ranked = sorted(scene.groups, key=lambda g: -g.count)
    if ranked[0].count == ranked[1].count:
        return None
    problem = phrase("most", scene.label, rng, things=things_in(scene))
    needs = (tuple(("count", g.name) for g in scene.groups),)
    names = [plural(g.name) for g in ranked]
    return _choice(
        "most",
        problem,
        rng,
        right=names[0],
        wrong=names[1:],
        needs=needs,
        subjects=tuple(g.name for g in scene.groups),
    )


# --- answers of their own: numbers, text, spans, boxes ---


def _numerical(
    kind: str, scene: Scene, rng: Random, key: Key, extra: tuple[tuple[Key, ...], ...] = (), **slots: str
) -> Question:
    return Question(
        kind=kind,
        problem_type=ProblemType.NUMERICAL,
        problem=phrase(kind, scene.label, rng, **slots),
        answer=str(truth(scene, key)),
        subjects=(key[1],),
        needs=((key,), *extra),
    )


def ask_count(scene: Scene, rng: Random) -> Asked:
    """How many shapes?"""
    return _numerical("count", scene, rng, ("count", "all"), (list_all(scene),))


def ask_count_some(scene: Scene, rng: Random) -> Asked:
    """How many of one colour or one shape?"""
    parts = [o.shape for o in scene.objects] + [o.colour for o in scene.objects]
    subject = rng.choice(parts)
    words = plural(subject) if subject in SHAPES else f"{subject} shapes"
    return _numerical("count_some", scene, rng, ("count", subject), (list_all(scene),), a=words)


def ask_count_moving(scene: Scene, rng: Random) -> Asked:
    """How many move?"""
    motions = tuple(("motion", o.name) for o in scene.objects)
    return _numerical("count_moving", scene, rng, ("count", "moving"), (motions,))


def _timed(scene: Scene, rng: Random) -> str | None:
    """Name of something that is not shown all the time."""
    names = [o.name for o in scene.objects if o.vanish - o.appear < scene.frames]
    if scene.sign is not None and scene.sign.vanish - scene.sign.appear < scene.frames:
        names.append("sign")
    return rng.choice(names) if names else None


def ask_interval(scene: Scene, rng: Random) -> Asked:
    """From when to when is it visible?"""
    name = _timed(scene, rng)
    if name is None:
        return None
    keys: tuple[Key, ...] = (("appear", name), ("vanish", name))
    start, end = (number(float(str(truth(scene, key)))) for key in keys)
    return Question(
        kind="interval",
        problem_type=ProblemType.TEMPORAL_GROUNDING,
        problem=phrase("interval", scene.label, rng, a=name),
        answer=f"[{start}, {end}]",
        subjects=(name,),
        needs=(keys,),
    )


def ask_seconds(scene: Scene, rng: Random) -> Asked:
    """How long is it visible?"""
    name = _timed(scene, rng)
    if name is None:
        return None
    keys: tuple[Key, ...] = (("appear", name), ("vanish", name))
    start, end = (float(str(truth(scene, key))) for key in keys)
    return Question(
        kind="seconds",
        problem_type=ProblemType.REGRESSION,
        problem=phrase("seconds", scene.label, rng, a=name),
        answer=number(end - start),
        subjects=(name,),
        needs=(keys,),
    )


def ask_box(scene: Scene, rng: Random) -> Asked:
    """What is the bounding box of a still shape?"""
    still = [o for o in scene.objects if o.motion == "still"]
    if not still:
        return None
    found = rng.choice(still)
    return Question(
        kind="box",
        problem_type=ProblemType.SPATIAL_GROUNDING,
        problem=phrase("box", scene.label, rng, a=found.name, side=str(scene.side)),
        answer=str(list(found.box())),
        subjects=(found.name,),
        needs=((("box", found.name),),),
    )


def behaviour(name: str, motion: str, pace: str) -> str:
    """The reference of a `describe` question."""
    if motion == "still":
        return f"The {name} stays in the same place without moving."
    return f"The {name} moves {'slowly' if pace == 'slow' else 'quickly'} {DIRECTIONS[motion]}."


def portrait(name: str, size: str, place: str) -> str:
    """The reference of a `portray` question."""
    return f"The {name} is {size} and lies in the {place} of the picture."


def ask_describe(scene: Scene, rng: Random) -> Asked:
    """What does it do, in a sentence?"""
    found = rng.choice(scene.objects)
    keys: tuple[Key, ...] = (("motion", found.name), ("pace", found.name))
    return Question(
        kind="describe",
        problem_type=ProblemType.FREE_FORM,
        problem=phrase("describe", scene.label, rng, a=found.name),
        answer=behaviour(found.name, found.motion, found.pace),
        subjects=(found.name,),
        needs=(keys[:1] if found.motion == "still" else keys,),
    )


def ask_portray(scene: Scene, rng: Random) -> Asked:
    """How large is it and where, in a sentence?"""
    found = rng.choice(scene.objects)
    place = truth(scene, ("place", found.name))
    if place is None:
        return None
    return Question(
        kind="portray",
        problem_type=ProblemType.FREE_FORM,
        problem=phrase("portray", scene.label, rng, a=found.name),
        answer=portrait(found.name, found.size, str(place)),
        subjects=(found.name,),
        needs=((("size", found.name), ("place", found.name)),),
    )


def ask_read(scene: Scene, rng: Random) -> Asked:
    """What is written on the sign?"""
    return Question(
        kind="read",
        problem_type=ProblemType.OCR,
        problem=phrase("read", scene.label, rng),
        answer=str(truth(scene, ("text", ""))),
        needs=((("text", ""),),),
    )


def ask_level(scene: Scene, rng: Random) -> Asked:
    """How full is the bar, at the end if it changes?"""
    kind, anchor = ("level", "now") if scene.medium == "image" else ("level_end", "end")
    key: Key = ("level", anchor)
    return Question(
        kind=kind,
        problem_type=ProblemType.REGRESSION,
        problem=phrase(kind, scene.label, rng),
        answer=str(truth(scene, key)),
        subjects=(anchor,),
        needs=((key,),),
    )


def ask_sum(scene: Scene, rng: Random) -> Asked:
    """How many in all, from a text?"""
    parts = tuple(("count", g.name) for g in scene.groups)
    return Question(
        kind="sum",
        problem_type=ProblemType.NUMERICAL,
        problem=phrase("sum", scene.label, rng, things=things_in(scene)),
        answer=str(sum(g.count for g in scene.groups)),
        subjects=tuple(g.name for g in scene.groups),
        needs=(parts, (("count", "all"),)),
    )


# --- the table of all kinds ---

Asker = Callable[[Scene, Random], Question | None]
KINDS: dict[str, tuple[Asker, Theme, tuple[Medium, ...], ProblemType]] = {
    "direction": (ask_direction, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "colour": (ask_colour, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "shape": (ask_shape, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "order": (ask_order, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "faster": (ask_faster, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "place": (ask_place, "shapes", ("image",), ProblemType.MULTIPLE_CHOICE),
    "beside": (ask_beside, "shapes", ("image",), ProblemType.MULTIPLE_CHOICE),
    "exists": (ask_exists, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "count": (ask_count, "shapes", ("video", "image"), ProblemType.NUMERICAL),
    "count_choice": (ask_count_choice, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "count_some": (ask_count_some, "shapes", ("video", "image"), ProblemType.NUMERICAL),
    "count_moving": (ask_count_moving, "shapes", ("video",), ProblemType.NUMERICAL),
    "interval": (ask_interval, "shapes", ("video",), ProblemType.TEMPORAL_GROUNDING),
    "sign_interval": (ask_interval, "sign", ("video",), ProblemType.TEMPORAL_GROUNDING),
    "seconds": (ask_seconds, "shapes", ("video",), ProblemType.REGRESSION),
    "box": (ask_box, "shapes", ("video", "image"), ProblemType.SPATIAL_GROUNDING),
    "describe": (ask_describe, "shapes", ("video",), ProblemType.FREE_FORM),
    "portray": (ask_portray, "shapes", ("image",), ProblemType.FREE_FORM),
    "read": (ask_read, "sign", ("video", "image"), ProblemType.OCR),
    "read_choice": (ask_read_choice, "sign", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "level": (ask_level, "gauge", ("video", "image"), ProblemType.REGRESSION),
    "trend": (ask_trend, "gauge", ("video",), ProblemType.MULTIPLE_CHOICE),
    "sum": (ask_sum, "groups", ("text",), ProblemType.NUMERICAL),
    "most": (ask_most, "groups", ("text",), ProblemType.MULTIPLE_CHOICE),
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
