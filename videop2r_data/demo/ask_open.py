"""Questions with an answer of their own: numbers, text, spans, boxes; each with the facts that it needs."""

from __future__ import annotations

from random import Random

from videop2r_data.demo.ask_choice import DIRECTIONS, Asked, list_all, things_in
from videop2r_data.demo.question import Question
from videop2r_data.demo.scene import SHAPES, Key, Scene, truth
from videop2r_data.demo.wording import number, phrase, plural
from videop2r_data.schemas.sample import ProblemType


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
