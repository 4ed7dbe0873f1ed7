"""Facts as sentences, and sentences read back as claims: what the exact judge needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import inf
from random import Random
from typing import NamedTuple

from videop2r_data.demo.ask import DIRECTIONS, NUMBER_WORDS, number, other_text, plural
from videop2r_data.demo.scene import COLOURS, MOTIONS, PLACES, SHAPES, Key, Question, Scene, Value, truth
from videop2r_data.schemas import ClaimVerdict

# --- sentences that state a fact, and plausible wrong values ---

_COUNT_WORDS = ("no", *NUMBER_WORDS[1:])


def state(key: Key, value: Value, rng: Random, scene: Scene) -> str:
    """One sentence that claims `value` for the fact `key`; `read_claims` reads it back exactly."""
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
    way = rng.choice((DIRECTIONS[motion], motion))
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


_CLOSED: dict[str, tuple[str, ...]] = {
    "motion": tuple(MOTIONS),
    "pace": ("slow", "fast"),
    "size": ("small", "large"),
    "place": PLACES,
    "beside": ("left", "right"),
}
"""Kinds of facts whose values come from a short list."""


def twist(scene: Scene, key: Key, rng: Random) -> tuple[Key, Value]:
    """A plausible claim in place of a true one, false beyond every tolerance of `holds`."""
    kind, subject = key
    exact = truth(scene, key)
    assert exact is not None, key
    if kind == "exists":
        return _another_thing(scene, subject, rng) if exact else (key, True)
    if kind in _CLOSED:
        return key, rng.choice([v for v in _CLOSED[kind] if v != exact])
    return key, _TWISTS[kind](scene, exact, rng)


def _another_thing(scene: Scene, name: str, rng: Random) -> tuple[Key, Value]:
    colour, shape = name.split()
    names = [f"{c} {shape}" for c in COLOURS if c != colour] + [f"{colour} {s}" for s in SHAPES if s != shape]
    return ("exists", rng.choice([n for n in names if not truth(scene, ("exists", n))])), True


def _other_count(scene: Scene, exact: Value, rng: Random) -> int:
    n = int(str(exact))
    return rng.choice([m for m in (n - 1, n + 1, n + 2) if m >= 0])


def _other_time(scene: Scene, exact: Value, rng: Random) -> float:
    time = float(str(exact))
    # Far outside of the tolerance of `holds`, and at least two frames in a short clip.
    shift = max(0.25 * scene.duration_s, 2 / scene.fps) * rng.uniform(1.0, 1.5)
    low, high = time - shift, time + shift
    return round(high if low < 0 or (high <= scene.duration_s and rng.random() < 0.5) else low, 2)


def _other_level(scene: Scene, exact: Value, rng: Random) -> int:
    level = int(str(exact))
    return rng.choice([v for v in range(2, 99) if abs(v - level) >= max(15, 0.5 * level)])


def _other_box(scene: Scene, exact: Value, rng: Random) -> tuple[float, ...]:
    """The same box elsewhere in the frame, without overlap where there is room for it."""
    assert isinstance(exact, tuple)
    x1, y1, x2, y2 = exact
    # Towards the farther side, so that the box stays in the frame.
    dx = scene.side / 2 if x1 + x2 < scene.side else -scene.side / 2
    dy = scene.side / 3 if y1 + y2 < scene.side else -scene.side / 3
    return tuple(float(round(v)) for v in (x1 + dx, y1 + dy, x2 + dx, y2 + dy))


_TWISTS: dict[str, Callable[[Scene, Value, Random], Value]] = {
    "count": _other_count,
    "appear": _other_time,
    "vanish": _other_time,
    "level": _other_level,
    "text": lambda scene, exact, rng: other_text(str(exact), rng),
    "box": _other_box,
}


# --- observations read back: what they claim, and whether the answer follows from it ---
#
# The reader knows the vocabulary of the demo world only, and is exact there. An observation is sufficient if
# every claim in it is true of the scene and the facts that the answer follows from are among the claims.


_COLOUR = "|".join(COLOURS)
_SHAPE = "|".join(SHAPES)
_MENTION = re.compile(
    rf"\b(?:(?P<size>small|large|big|little|tiny)\s+)?(?:(?P<name>(?:{_COLOUR})\s+(?:{_SHAPE}))|(?P<other>sign|bar))\b",
    re.IGNORECASE,
)
_NUMBERS = {word: n for n, word in enumerate(NUMBER_WORDS)} | {"no": 0}
_NUMBER = rf"\d{{1,9}}|{'|'.join(_NUMBERS)}"
_NOUN = rf"shapes?|objects?|things?|figures?|(?:{_SHAPE})(?:e?s)?"
_COUNT = re.compile(
    rf"(?<![\w.])(?P<n>{_NUMBER})\s+(?:of\s+the\s+)?(?:(?:small|large|different|coloured|distinct|visible|single)\s+)*"
    rf"(?:(?P<how>moving|still)\s+)?(?:(?P<colour>{_COLOUR})\s+)?(?P<noun>{_NOUN})\b"
    rf"(?P<verb>\s+(?:(?:is|are)\s+moving|moves?|(?:stays?|is|are|stand|stands)\s+still)\b)?",
    re.IGNORECASE,
)
_DEFINITE = re.compile(r"\b(?:the|these|those|both|other)\s+$", re.IGNORECASE)
_VERB = r"\b(?:mov|travel|drift|slid|glid|head|go|shift)\w*\b"
_MOTION = re.compile(
    rf"{_VERB}(?:\s+\w+){{0,4}}?\s+(?P<way>left|right|up|down|top|bottom|leftwards?|rightwards?|upwards?|downwards?)\b"
    r"(?!\s+of\b)(?:\s+or\s+(?P<or>left|right|up|down)\w*)?",
    re.IGNORECASE,
)
_ORIGIN = re.compile(r"\bfrom\s+(?:the\s+)?(?:left|right|top|bottom)(?:\s+side)?\b", re.IGNORECASE)
_STILL = re.compile(
    r"\b(?:does\s+not\s+move|do\s+not\s+move|doesn't\s+move|never\s+moves?|not\s+moving|without\s+moving"
    r"|stays?\s+still|(?:is|remains?|stands?)\s+(?:still|motionless|stationary)|does\s+not\s+change\s+its\s+place)\b"
    r"(?!\s+(?:to\s+(?:the\s+)?)?(?:left|right|up|down))",
    re.IGNORECASE,
)
_SLOW = re.compile(r"\b(?:slow|slowly)\b", re.IGNORECASE)
_FAST = re.compile(r"\b(?:fast|quick|quickly|rapidly)\b", re.IGNORECASE)
_SIZE = re.compile(r"\b(?:is|looks|it is)\s+(?:rather\s+|quite\s+)?(small|large)\b", re.IGNORECASE)
_PLACE = re.compile(r"\b(upper|top|lower|bottom)[ -](left|right)\b", re.IGNORECASE)
_BESIDE = re.compile(r"\b(left|right)\s+(?:side\s+)?of\s+(?:the\s+)?$", re.IGNORECASE)
_BOX = re.compile(r"\[\s*(-?\d{1,9}(?:\.\d{1,6})?(?:\s*,\s*-?\d{1,9}(?:\.\d{1,6})?){3})\s*\]")
_SECONDS = r"(\d{1,9}(?:\.\d{1,6})?)\s*(?:s|sec|seconds?)?\b"
_SPAN = re.compile(rf"\b(?:from|between)\s+{_SECONDS}\s*(?:to|until|and)\s+{_SECONDS}", re.IGNORECASE)
_APPEAR = re.compile(
    rf"\b(?:appear\w*|shows?\s+up|com(?:es?|ing)\s+into\s+view)\s+(?:first\s+)?(?:at|after)\s+{_SECONDS}",
    re.I,
)
_VANISH = re.compile(
    rf"\b(?:vanish\w*|disappear\w*|gone|leaves)\s+(?:again\s+)?(?:at|after)\s+{_SECONDS}", re.I
)
_ALWAYS = re.compile(r"\b(?:throughout|the whole (?:clip|time)|from the start to the end)\b", re.IGNORECASE)
_FROM_START = re.compile(r"\bfrom\s+the\s+(?:very\s+)?(?:start|beginning)\b", re.IGNORECASE)
_TO_END = re.compile(r"\b(?:to|until)\s+the\s+(?:very\s+)?end\b", re.IGNORECASE)
_QUOTE = re.compile(r"[\"“]([^\"“”]{1,200})[\"”]")
_PERCENT = re.compile(r"(?<![\d.])(\d{1,9}(?:\.\d{1,6})?)\s*(?:%|percent\b|per\s+cent\b)", re.IGNORECASE)
_FIRST = re.compile(r"\b(?:start|starts|begin|begins|beginning|first|initially)\b", re.IGNORECASE)
_LAST = re.compile(r"\b(?:end|ends|finally|last|finish|finishes)\b", re.IGNORECASE)
_NOT = re.compile(r"(?:\b(?:not|never|no|neither|nor|without)\b|n't\b)[^,;]*$", re.IGNORECASE)
_ABSENT = re.compile(r"\b(?:no|not a|not any|without a|nor a|neither a)\s*$", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_NO_CLAIM = re.compile(r"\?\s*$|\b(?:need to notice|whether|have to look|must look)\b", re.IGNORECASE)
_IT = re.compile(r"^\s*it\b", re.IGNORECASE)

LONGEST = 8_000
"""Characters of an observation at most: several times the 320 tokens that the paper rewards."""


class Claim(NamedTuple):
    """One claim: `value` of the fact `key`, or (not `positive`) anything but that value."""

    key: Key
    value: Value
    positive: bool = True


def read_claims(observation: str) -> list[Claim]:
    """Every claim of a text in the demo world's vocabulary; total. A text over `LONGEST` claims nothing.

    >>> read_claims("There are two shapes. The red circle moves slowly to the left.")[0]
    Claim(key=('count', 'all'), value=2, positive=True)
    """
    return [claim for _, claims in _read(observation) for claim in claims]


def split_claims(observation: str) -> tuple[str, ...]:
    """The sentences of an observation that claim something, each to be understood alone.

    >>> split_claims("I need to notice the ring. The red ring is small. It moves left. That is all.")
    ('The red ring is small.', 'The red ring moves left.')
    """
    return tuple(" ".join(alone.split()) for alone, claims in _read(observation) if claims)


def _read(observation: str) -> Iterator[tuple[str, list[Claim]]]:
    """Each sentence, with the name of the thing in place of `it`, and its claims."""
    last = ""
    for sentence in _SENTENCE.split(observation) if len(observation) <= LONGEST else ():
        if not _NO_CLAIM.search(sentence):
            alone = _IT.sub(f"The {last}", sentence) if last else sentence
            claims, last = _read_sentence(sentence, last)
            yield alone, claims


def _read_sentence(sentence: str, last: str) -> tuple[list[Claim], str]:
    """Claims of one sentence, and the thing that `it` means in the next one."""
    claims = [*_counts(sentence), *(Claim(("text", ""), q) for q in _QUOTE.findall(sentence))]
    claims.extend(_levels(sentence))
    marks = list(_MENTION.finditer(sentence))
    if last and _IT.match(sentence):
        claims.extend(_about(last, sentence[: marks[0].start() if marks else len(sentence)]))
    for at, mark in enumerate(marks):
        name = " ".join((mark["name"] or mark["other"]).lower().split())
        end = marks[at + 1].start() if at + 1 < len(marks) else len(sentence)
        before = sentence[marks[at - 1].end() if at else 0 : mark.start()]
        if mark["name"]:
            there = not _ABSENT.search(before)
            claims.append(Claim(("exists", name), there))
            if mark["size"] and there:
                large = mark["size"].lower() in ("large", "big")
                claims.append(Claim(("size", name), "large" if large else "small"))
            side = _BESIDE.search(before)
            if side and at:
                left = " ".join((marks[at - 1]["name"] or "").lower().split())
                claims.append(Claim(("beside", f"{left}|{name}"), side[1].lower(), not _NOT.search(before)))
        claims.extend(_about(name, sentence[mark.end() : end]))
        last = name
    return claims, last


def _about(name: str, text: str) -> Iterator[Claim]:
    """Claims of the words that follow the mention of a thing."""
    still = _STILL.search(text)
    if still:
        yield Claim(("motion", name), "still")
        yield Claim(("pace", name), "still")
    moves = _ORIGIN.sub("", text)
    for match in _MOTION.finditer(moves):
        positive = not _NOT.search(moves[: match.start()])
        for way in filter(None, (match["way"], match["or"])):
            word = re.sub(r"wards?$", "", way.lower())
            yield Claim(("motion", name), {"top": "up", "bottom": "down"}.get(word, word), positive)
    for value, pattern in (("slow", _SLOW), ("fast", _FAST)):
        for match in pattern.finditer(text):
            yield Claim(("pace", name), value, not _NOT.search(text[: match.start()]))
    for match in _PLACE.finditer(text):
        row = "upper" if match[1].lower() in ("upper", "top") else "lower"
        yield Claim(("place", name), f"{row} {match[2].lower()}", not _NOT.search(text[: match.start()]))
    for match in _SIZE.finditer(text):
        yield Claim(("size", name), match[1].lower())
    for match in _BOX.finditer(text):
        yield Claim(("box", name), tuple(float(v) for v in match[1].split(",")))
    yield from _times(name, text)


def _times(name: str, text: str) -> Iterator[Claim]:
    for match in _SPAN.finditer(text):
        yield Claim(("appear", name), float(match[1]))
        yield Claim(("vanish", name), float(match[2]))
    for match in _APPEAR.finditer(text):
        if not re.search(r"dis$", text[: match.start()], re.IGNORECASE):
            yield Claim(("appear", name), float(match[1]))
    for match in _VANISH.finditer(text):
        yield Claim(("vanish", name), float(match[1]))
    always = _ALWAYS.search(text)
    if always or _FROM_START.search(text):
        yield Claim(("appear", name), 0.0)
    if always or _TO_END.search(text):
        yield Claim(("vanish", name), inf)


def _counts(sentence: str) -> Iterator[Claim]:
    for match in _COUNT.finditer(sentence):
        if _DEFINITE.search(sentence[: match.start()]):
            continue
        raw = match["n"].lower()
        n = int(raw) if raw.isdigit() else _NUMBERS[raw]
        noun = re.sub(r"(?<=ss)es$|(?<=[^s])s$", "", match["noun"].lower())
        colour, shape = (match["colour"] or "").lower(), noun if noun in SHAPES else ""
        verb = (match["verb"] or match["how"] or "").lower()
        if verb:
            yield Claim(("count", "moving" if "mov" in verb else "still"), n)
        else:
            yield Claim(("count", f"{colour} {shape}".strip() or "all"), n)


def _levels(sentence: str) -> Iterator[Claim]:
    for piece in re.split(r",\s+|\band\b|\bthen\b|\bbut\b|\bwhile\b", sentence):
        for match in _PERCENT.finditer(piece):
            anchor = "start" if _FIRST.search(piece) else "end" if _LAST.search(piece) else "now"
            yield Claim(("level", anchor), float(match[1]))


def holds(scene: Scene, claim: Claim) -> bool | None:
    """Whether a claim is true of the scene; None if it has no bearing on it.

    Tolerances: times half a frame interval and 0.05 s; percent 2 points; boxes 3 % of the side or 1 pixel.
    """
    exact = truth(scene, claim.key)
    if exact is None:
        return None
    kind = claim.key[0]
    if kind == "box":
        slack = max(1.0, 0.03 * scene.side)
        assert isinstance(exact, tuple) and isinstance(claim.value, tuple)
        equal = all(abs(a - b) <= slack for a, b in zip(exact, claim.value, strict=True))
    elif kind in ("appear", "vanish"):
        said = float(str(claim.value))
        said = scene.duration_s if said == inf else said
        equal = abs(float(str(exact)) - said) <= 0.5 / scene.fps + 0.05
    elif kind == "level":
        equal = abs(float(str(exact)) - float(str(claim.value))) <= 2.0
    elif kind == "text":
        equal = str(exact).split() == re.sub(r"[.,;:!]+$", "", str(claim.value).strip()).upper().split()
    else:
        equal = exact == claim.value
    return equal == claim.positive


def see(scene: Scene, claim: Claim) -> ClaimVerdict:
    """What somebody who sees the scene says of a claim; a thing that is not there has no properties."""
    right = holds(scene, claim)
    if right is not None:
        return ClaimVerdict.SUPPORTED if right else ClaimVerdict.CONTRADICTED
    kind, subject = claim.key
    lacking = {"text": scene.sign is None, "level": scene.gauge is None, "count": False, "beside": False}
    absent = lacking.get(kind, scene.named(subject) is None and not (subject == "sign" and scene.sign))
    return ClaimVerdict.CONTRADICTED if absent and claim.positive else ClaimVerdict.UNSEEN


def see_statement(scene: Scene, text: str) -> ClaimVerdict:
    """The verdict on a sentence: contradicted if anything in it is false, supported if nothing is unseen."""
    found = {see(scene, claim) for claim in read_claims(text)}
    if ClaimVerdict.CONTRADICTED in found:
        return ClaimVerdict.CONTRADICTED
    return ClaimVerdict.SUPPORTED if found == {ClaimVerdict.SUPPORTED} else ClaimVerdict.UNSEEN


def observation_is_sufficient(scene: Scene, question: Question, observation: str) -> bool:
    """The exact perception judge: does the answer follow from the observation?

    True if every claim that bears on the scene is true, and the claims state all facts of one of the
    alternatives in `question.needs`. Sentences that only say what to look for ("... need to notice ...",
    "whether ...") claim nothing. Tags, instructions and verdicts in the text have no effect.

    Args:
        scene: the truth.
        question: what is asked about it.
        observation: any text, of a model or a trace; never raises.
    """
    stated: set[Key] = set()
    for claim in read_claims(observation):
        right = holds(scene, claim)
        if right is False:
            return False
        if right and (claim.positive or claim.key[0] == "exists"):
            stated.add(claim.key)
    return any(all(key in stated for key in need) for need in question.needs)
