"""The content of a trace in the segments of any grammar, whole or with a template that is broken in one way.

The role of a segment says what stands in it: what is seen, what is concluded, the answer. What the grammar
leaves open (rounds of a group, segments that may be absent) is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

from videop2r_data.demo.scene import Defect, Scene, SceneObject, SceneSample, stream
from videop2r_data.demo.statements import read_claims
from videop2r_data.schemas import (
    GroupSpec,
    Part,
    Role,
    SegmentSpec,
    Template,
    TraceFault,
    TraceGrammar,
    trace_parser,
)

_FILLERS = {Role.PERCEPTION: "There is more to look at.", Role.REASONING: "Let me think about that."}
"""What stands in a segment when there are more segments than sentences."""


class Content(NamedTuple):
    """What a trace says, in sentences."""

    seen: Sequence[str]
    concluded: Sequence[str]
    answer: str


def lay_out(
    content: Content, sample: SceneSample, grammar: TraceGrammar, rng: Random | None
) -> tuple[Part, ...]:
    """The segments of a trace with this content; a time, a box or a label in them is that of the scene.

    Args:
        content: what the trace says.
        sample: the scene, and what is asked about it.
        grammar: the segments that there may be.
        rng: draws what the grammar leaves open; None: those of the trace that `fault_of` looks at.
    """
    plan = list(_plan(grammar, rng))
    told = {Role.PERCEPTION: content.seen, Role.REASONING: content.concluded}
    shares = {role: iter(_shares(plan, role, told[role])) for role in told}
    texts = [next(shares[spec.role]) if _tells(spec) else "" for spec in plan]
    parts: list[Part] = []
    for at, spec in enumerate(plan):
        if spec.role is Role.ANSWER or spec.name in grammar.answers:
            text = content.answer
        elif spec.holds:
            beside = read_claims(next(filter(None, texts[at:]), ""))
            text = _filled(spec.holds, sample, [claim.key[1] for claim in beside])
        else:
            said = texts[at] or f"The question is about {sample.scene.label}."
            text = "".join([*_evidence(spec, sample), said])
        parts.append(Part(spec.name, text))
    return tuple(parts)


def _tells(spec: SegmentSpec) -> bool:
    """Whether sentences of the trace stand in such a segment."""
    return spec.role in _FILLERS and not spec.holds


def _plan(grammar: TraceGrammar, rng: Random | None) -> Iterator[SegmentSpec]:
    """Which segments the trace has; nothing is drawn where the grammar leaves nothing open."""
    rng = rng or stream("specimen", grammar.name)
    before: SegmentSpec | None = None
    for part in grammar.segments:
        rounds = 1
        if isinstance(part, GroupSpec):
            fewest = max(1, part.min)
            rounds = rng.randint(fewest, fewest + 2 if part.max is None else min(part.max, fewest + 2))
        for left in reversed(range(rounds)):
            for spec in part.group if isinstance(part, GroupSpec) else (part,):
                # free text would run into the free text before it; the last round is always whole
                joined = spec.text and before is not None and before.text
                if joined or (not spec.required and left and rng.random() < 0.5):
                    continue
                before = spec
                yield spec


def _shares(plan: Sequence[SegmentSpec], role: Role, sentences: Sequence[str]) -> list[str]:
    """The sentences of a role, in order, over its segments."""
    n = sum(spec.role is role and _tells(spec) for spec in plan)
    padded = [*[_FILLERS[role]] * (n - len(sentences)), *sentences]
    ends = [len(padded) * i // n for i in range(n + 1)] if n else []
    return [" ".join(padded[a:b]) for a, b in pairwise(ends)]


def tells_what_it_sees(grammar: TraceGrammar, *, alone: bool = False) -> bool:
    """Whether a trace has words about the scene for a judge; `alone`: in one segment, nothing beside them."""
    seen = [spec for spec in grammar.flat if spec.role is Role.PERCEPTION]
    single = len(seen) == 1 and seen[0].name in grammar.single
    return any(map(_tells, seen)) and (single or not alone)


# --- typed values, true of the scene ---


def _evidence(spec: SegmentSpec, sample: SceneSample) -> Iterator[str]:
    """A line with the typed values that may stand inside the segment, if the scene has a thing for them."""
    subjects = sample.question.subjects
    if spec.fields and _shown(sample.scene, subjects):
        yield f"Evidence: {' '.join(_filled(text, sample, subjects) for text in spec.fields)}\n"


def _shown(scene: Scene, names: Sequence[str]) -> SceneObject | None:
    found = [scene.named(name) for name in names]
    return next(filter(None, found), scene.objects[0] if scene.objects else None)


def _filled(text: str, sample: SceneSample, names: Sequence[str]) -> str:
    """A template with the values of one of these things; of the whole scene if it shows none of them."""
    template, scene = Template(text), sample.scene
    found = _shown(scene, names)
    first, end = (found.appear, found.vanish) if found else (0, max(1, scene.frames))
    middle = (first + end) // 2
    edges = found.box(middle) if found else (0, 0, scene.side, scene.side)
    x1, y1, x2, y2 = (min(max(edge, 0), scene.side) for edge in edges)
    spans = sum(kind == "time" for _, kind, _ in template.holes) > 1
    times = iter((first, end) if spans else (middle,))
    plain = {"frame": str(middle), "number": "1", "label": found.name if found else "scene"}
    values: dict[str, str] = {}
    for name, kind, unit in template.holes:
        if kind == "time":
            values[name] = _time(next(times, end) / scene.fps, unit, scene.duration_s)
        elif kind in plain:
            values[name] = plain[kind]
        else:
            shown = (x1, y1, x2, y2) if kind == "box" else ((x1 + x2) / 2, (y1 + y2) / 2)
            scale, digits = _SHARES.get(unit, 0) / scene.side or 1.0, 3 if unit == "fraction" else None
            values[name] = str([round(edge * scale, digits) for edge in shown])
    return template.write(values)


_SHARES = {"fraction": 1, "percent": 100, "per_mille": 1000}


def _time(seconds: float, unit: str, duration: float) -> str:
    if unit in _SHARES:
        share = seconds / duration if duration else 0.0
        return f"{min(1.0, share) * _SHARES[unit]:.3f}"
    cut = math.floor(seconds * 1000) / 1000  # never behind the end
    return f"{int(cut // 60):02d}:{cut % 60:06.3f}".rstrip("0").rstrip(".") if unit == "mm:ss" else f"{cut:g}"


# --- broken templates: each fault of the parser in the ways that the grammar allows ---

_MISSING: Mapping[Defect, Role] = {
    Defect.MISSING_OBSERVATION: Role.PERCEPTION,
    Defect.MISSING_THINK: Role.REASONING,
    Defect.MISSING_ANSWER: Role.ANSWER,
}
_EVERY_GRAMMAR_HAS = (Defect.MISSING_ANSWER, Defect.EMPTY_SEGMENT, Defect.UNCLOSED_TAG)


def break_template(parts: Sequence[Part], defect: Defect, grammar: TraceGrammar, rng: Random) -> str:
    """A text whose first template fault is that of `fault_of`; the parts are laid out without a draw."""
    family, fault = fault_of(defect, grammar)
    spans = trace_parser(grammar).spans
    ways = [(text, spans(text).fault) for text in _ways(parts, family, grammar)]
    return rng.choice([text for text, found in ways if found is fault])


@lru_cache(maxsize=256)
def fault_of(defect: Defect, grammar: TraceGrammar) -> tuple[Defect, TraceFault]:
    """How a template defect is planted in a grammar: in which way, and which fault it has there.

    The fault is the one that the defect names. Where no text of the grammar can have it, it is the nearest
    one: a missing caption is a `missing_segment`.
    """
    specimen = [
        Part(spec.name, Template(spec.holds).example() if spec.holds else "x")
        for spec in _plan(grammar, None)
    ]
    for family in dict.fromkeys((defect, *_EVERY_GRAMMAR_HAS)):
        texts = _ways(specimen, family, grammar)
        found = [fault for text in texts if (fault := trace_parser(grammar).spans(text).fault)]
        if found:
            named = TraceFault(family.value)
            return family, named if named in found else found[0]
    raise AssertionError(f"trace {grammar.name}: no template of it can be broken")


def _ways(parts: Sequence[Part], defect: Defect, grammar: TraceGrammar) -> list[str]:
    """The texts that a defect may turn a trace into; some of them may be whole in this grammar."""
    parser, specs = trace_parser(grammar), [grammar.named[part.name] for part in parts]
    shown, everywhere = [parser.render([part]) for part in parts], range(len(parts))
    whole, head = "".join(shown), shown[0].rstrip()
    first, last = (specs[at].spellings[0].close for at in (0, -1))

    def put(at: int, text: str) -> str:
        return "".join([*shown[:at], text, *shown[at + 1 :]])

    def filled(at: int, text: str) -> str:
        return put(at, parser.render([(parts[at].name, text)]))

    if defect in _MISSING:
        role = _MISSING[defect]
        gone = next((spec.name for spec in specs if spec.role is role and spec.needed), None)
        rest = "".join(text for spec, text in zip(specs, shown, strict=True) if spec.name != gone)
        # without the answer, also with its bare text
        return [] if gone is None else [rest, rest + parts[-1].text][: 1 + (role is Role.ANSWER)]
    times = [max(2, (parser.limits[spec.spellings[0]] or 0) + 1) for spec in specs]
    orders = [shown[1::-1] + shown[2:], shown[-1:] + shown[:-1], shown[:-2] + shown[:-3:-1]]
    return {
        Defect.REPEATED_TAG: [put(at, times[at] * shown[at]) for at in reversed(everywhere)],
        Defect.OUT_OF_ORDER: ["".join(order) for order in orders if len(shown) > 1],
        Defect.NESTED_TAG: [filled(at, f"{parts[at].text} {shown[at + 1]}") for at in everywhere[:-1]],
        Defect.EMPTY_SEGMENT: [filled(at, ("", " ", "\n")[at % 3]) for at in everywhere],
        Defect.BAD_FIELD: [filled(at, "early on") for at in everywhere if specs[at].holds],
        Defect.UNCLOSED_TAG: [whole.rstrip().removesuffix(last)] if last else [],
        Defect.STRAY_CLOSING_TAG: [put(0, f"{head} {first} "), whole + last],
        Defect.TEXT_OUTSIDE: [
            *(f"Sure, here is my answer. {whole}", f"{whole} I hope this helps!"),
            put(0, f"{head} Now I think about it. "),
        ],
    }[defect]
