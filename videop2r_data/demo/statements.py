"""Sentences that state a fact, and values that are plausible but wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from videop2r_data.demo.ask_choice import other_text
from videop2r_data.demo.scene import COLOURS, MOTIONS, PLACES, SHAPES, Key, Scene, Value, truth
from videop2r_data.demo.wording import NUMBER_WORDS, number, plural

_WAYS = {
    "left": ("to the left", "left"),
    "right": ("to the right", "right"),
    "up": ("upwards", "up"),
    "down": ("downwards", "down"),
}
_COUNT_WORDS = ("no", *NUMBER_WORDS[1:])


def state(key: Key, value: Value, rng: Random, scene: Scene) -> str:
    """One sentence that claims `value` for the fact `key`; `claims.read_claims` reads it back exactly."""
    kind, subject = key
    if kind == "count":
        return _state_count(subject, int(str(value)), rng)
    if kind == "motion":
        return _state_motion(subject, str(value), rng)
    if kind == "level":
        return _state_level(subject, number(float(str(value))), rng)
    if kind == "beside":
        a, b = subject.split("|")
        return rng.choice((f"The {a} lies {value} of the {b}.", f"The {a} is to the {value} of the {b}."))
    noun = {"video": "clip", "image": "picture", "text": "puzzle"}[scene.medium]
    shown = number(float(str(value))) if kind in ("appear", "vanish") else ""
    box = str([round(v) for v in value]) if isinstance(value, tuple) else ""
    forms: dict[str, tuple[str, ...]] = {
        "exists": (f"There is a {subject}.", f"A {subject} is in view.", f"The {noun} shows a {subject}.")
        if value
        else (f"There is no {subject}.", f"The {noun} shows no {subject}."),
        "pace": (
            (f"The {subject} does not move.",)
            if value == "still"
            else (f"The {subject} is {value}.", f"The {subject} goes at a {value} pace.")
        ),
        "size": (f"The {subject} is {value}.", f"The {subject} looks {value}."),
        "place": (f"The {subject} lies in the {value} part.", f"The {subject} is at the {value}."),
        "box": (f"The {subject} fills the box {box}.", f"The edges of the {subject} are at {box}."),
        "text": (f'The sign reads "{value}".', f'On the sign stands "{value}".'),
        "appear": (
            f"The {subject} appears at {shown} s.",
            f"The {subject} comes into view at {shown} seconds.",
        ),
        "vanish": (f"The {subject} disappears at {shown} s.", f"The {subject} is gone at {shown} seconds."),
    }
    return rng.choice(forms[kind])


def _state_count(subject: str, n: int, rng: Random) -> str:
    word = _COUNT_WORDS[n] if n < len(_COUNT_WORDS) and rng.random() < 0.6 else str(n)
    if subject in ("moving", "still"):
        verb = {"moving": ("moves", "move"), "still": ("stays still", "stay still")}[subject][n != 1]
        return f"{word.capitalize()} {'shape' if n == 1 else 'shapes'} {verb}."
    if subject == "all":
        noun = "shape" if n == 1 else "shapes"
    elif subject in COLOURS:
        noun = f"{subject} shape" if n == 1 else f"{subject} shapes"
    else:
        noun = subject if n == 1 else plural(subject)
    be = "is" if n == 1 else "are"
    forms = (
        f"There {be} {word} {noun}.",
        f"I count {word} {noun}.",
        f"{word.capitalize()} {noun} {be} in view.",
    )
    return rng.choice(forms)


def _state_motion(name: str, motion: str, rng: Random) -> str:
    if motion == "still":
        return rng.choice((f"The {name} does not move.", f"The {name} stays still."))
    way = rng.choice(_WAYS[motion])
    return rng.choice(
        (f"The {name} moves {way}.", f"The {name} drifts {way}.", f"The {name} is moving {way}.")
    )


def _state_level(anchor: str, percent: str, rng: Random) -> str:
    if anchor == "now":
        return rng.choice((f"The bar is {percent} percent full.", f"About {percent}% of the bar is filled."))
    when = {"start": ("At the start", "starts"), "end": ("At the end", "ends")}[anchor]
    return rng.choice(
        (f"{when[0]} the bar is {percent} percent full.", f"The bar {when[1]} at {percent}% of its width.")
    )


def twist(scene: Scene, key: Key, rng: Random) -> tuple[Key, Value]:
    """A plausible claim in place of a true one, false beyond every tolerance of `claims.holds`."""
    kind, subject = key
    exact = truth(scene, key)
    assert exact is not None, key
    if kind == "exists":
        return _another_thing(scene, subject, rng) if exact else (key, True)
    if kind in _TWISTS:
        return key, _TWISTS[kind](scene, exact, rng)
    pools: dict[str, tuple[str, ...]] = {
        "motion": tuple(MOTIONS),
        "pace": ("slow", "fast"),
        "size": ("small", "large"),
        "place": PLACES,
        "beside": ("left", "right"),
    }
    return key, rng.choice([v for v in pools[kind] if v != exact])


def _another_thing(scene: Scene, name: str, rng: Random) -> tuple[Key, Value]:
    colour, shape = name.split()
    names = [f"{c} {shape}" for c in COLOURS if c != colour] + [f"{colour} {s}" for s in SHAPES if s != shape]
    return ("exists", rng.choice([n for n in names if not truth(scene, ("exists", n))])), True


def _other_count(scene: Scene, exact: Value, rng: Random) -> int:
    n = int(str(exact))
    return rng.choice([m for m in (n - 1, n + 1, n + 2) if m >= 0])


def _other_time(scene: Scene, exact: Value, rng: Random) -> float:
    time = float(str(exact))
    shift = max(0.25 * scene.duration_s, 2 / scene.fps) * rng.uniform(1.0, 1.5)
    low, high = time - shift, time + shift
    return round(high if low < 0 or (high <= scene.duration_s and rng.random() < 0.5) else low, 2)


def _other_level(scene: Scene, exact: Value, rng: Random) -> int:
    level = int(str(exact))
    return rng.choice([v for v in range(2, 99) if abs(v - level) >= max(15, 0.5 * level)])


def _other_words(scene: Scene, exact: Value, rng: Random) -> str:
    return other_text(str(exact), rng)


def _other_box(scene: Scene, exact: Value, rng: Random) -> tuple[float, ...]:
    assert isinstance(exact, tuple)
    return moved_box(exact, scene.side)


def moved_box(box: tuple[float, ...], side: int) -> tuple[float, ...]:
    """The same box elsewhere in the frame, without overlap where there is room for it."""
    x1, y1, x2, y2 = box
    dx = side / 2 if x1 + x2 < side else -side / 2
    dy = side / 3 if y1 + y2 < side else -side / 3
    return tuple(float(round(v)) for v in (x1 + dx, y1 + dy, x2 + dx, y2 + dy))


_TWISTS: dict[str, Callable[[Scene, Value, Random], Value]] = {
    "count": _other_count,
    "appear": _other_time,
    "vanish": _other_time,
    "level": _other_level,
    "text": _other_words,
    "box": _other_box,
}
