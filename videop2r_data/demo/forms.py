"""The content of a trace in the segments of any grammar, whole or with a template that is broken in one way.

The role of a segment says what stands in it: what is seen, what is concluded, the answer. What the grammar
leaves open (rounds of a group, segments that may be absent) is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import cycle, pairwise
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
    plan = list(_plan(grammar, rng or _fixed(grammar)))
    told = {Role.PERCEPTION: content.seen, Role.REASONING: content.concluded}
    shares = {role: iter(_shares(plan, role, told[role])) for role in told}
    texts = [next(shares[spec.role]) if _tells(spec) else "" for spec in plan]
    parts: list[Part] = []
    for at, spec in enumerate(plan):
        if spec.role is Role.ANSWER or spec.name in grammar.answers:
            text = content.answer
        elif spec.holds:
            beside = next(filter(None, texts[at:]), "")
            text = _filled(Template(spec.holds), sample, read_names(beside))
        else:
            said = texts[at] or f"The question is about {sample.scene.label}."
            text = "".join([*_evidence(spec, sample), said])
        parts.append(Part(spec.name, text))
    return tuple(parts)


def _tells(spec: SegmentSpec) -> bool:
    """Whether sentences of the trace stand in such a segment."""
    return spec.role in _FILLERS and not spec.holds


def _plan(grammar: TraceGrammar, rng: Random) -> Iterator[SegmentSpec]:
    """Which segments the trace has; nothing is drawn where the grammar leaves nothing open."""
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


def _fixed(grammar: TraceGrammar) -> Random:
    return stream("specimen", grammar.name)


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


def read_names(text: str) -> tuple[str, ...]:
    """The things that a text speaks of."""
    return tuple(dict.fromkeys(claim.key[1] for claim in read_claims(text)))


def _evidence(spec: SegmentSpec, sample: SceneSample) -> Iterator[str]:
    """A line with the typed values that may stand inside the segment, if the scene has a thing for them."""
    if spec.fields and _shown(sample.scene, sample.question.subjects):
        values = (_filled(Template(text), sample, sample.question.subjects) for text in spec.fields)
        yield f"Evidence: {' '.join(values)}\n"


def _shown(scene: Scene, names: Sequence[str]) -> SceneObject | None:
    found = [scene.named(name) for name in names]
    return next(filter(None, found), scene.objects[0] if scene.objects else None)


def _filled(template: Template, sample: SceneSample, names: Sequence[str]) -> str:
    """The template with the values of one of these things; of the whole scene if it shows none of them."""
    scene = sample.scene
    found = _shown(scene, names)
    first, end = (found.appear, found.vanish) if found else (0, max(1, scene.frames))
    middle = (first + end) // 2
    edges = found.box(middle) if found else (0, 0, scene.side, scene.side)
    box = [min(max(edge, 0), scene.side) for edge in edges]
    spans = sum(kind == "time" for _, kind, _ in template.holes) > 1
    times = iter((first, end) if spans else (middle,))
    values: dict[str, str] = {}
    for name, kind, unit in template.holes:
        if kind == "time":
            values[name] = _time(next(times, end) / scene.fps, unit, scene.duration_s)
        elif kind == "box":
            values[name] = _numbers(box, unit, scene.side)
        elif kind == "point":
            values[name] = _numbers([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], unit, scene.side)
        else:
            values[name] = {"frame": str(middle), "number": "1"}.get(kind, found.name if found else "scene")
    return template.write(values)


def _time(seconds: float, unit: str, duration: float) -> str:
    if unit in ("percent", "fraction"):
        share = seconds / duration if duration else 0.0
        return f"{min(1.0, share) * (100 if unit == 'percent' else 1):.3f}"
    cut = math.floor(seconds * 1000) / 1000  # never behind the end
    if unit == "mm:ss":
        text = f"{int(cut // 60):02d}:{cut % 60:06.3f}"
        return text.rstrip("0").rstrip(".") if text.endswith("0") else text
    return f"{cut:g}"


def _numbers(values: Sequence[float], unit: str, side: int) -> str:
    scale = {"fraction": 1 / side, "per_mille": 1000 / side, "percent": 100 / side}.get(unit, 1.0)
    return str([round(value * scale, 3) if unit == "fraction" else round(value * scale) for value in values])


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
    specimen = [Part(spec.name, "x") for spec in _plan(grammar, _fixed(grammar))]
    held = {spec.name: Template(spec.holds) for spec in grammar.flat if spec.holds}
    for at, part in enumerate(specimen):
        if part.name in held:
            values = {name: _SPECIMEN[kind, unit] for name, kind, unit in held[part.name].holes}
            specimen[at] = part._replace(text=held[part.name].write(values))
    for family in dict.fromkeys((defect, *_EVERY_GRAMMAR_HAS)):
        texts = _ways(specimen, family, grammar)
        found = [fault for text in texts if (fault := trace_parser(grammar).spans(text).fault)]
        if found:
            named = TraceFault(family.value)
            return family, named if named in found else found[0]
    raise AssertionError(f"trace {grammar.name}: no template of it can be broken")


_SPECIMEN = {
    **{("time", unit): "1" for unit in ("seconds", "percent", "fraction")},
    ("time", "mm:ss"): "00:01",
    **{("box", unit): "[0, 0, 1, 1]" for unit in ("pixels", "fraction", "per_mille")},
    **{("point", unit): "[0, 0]" for unit in ("pixels", "fraction", "per_mille", "percent")},
    **{(kind, ""): "1" for kind in ("frame", "number", "label")},
}


def _ways(parts: Sequence[Part], defect: Defect, grammar: TraceGrammar) -> list[str]:
    """The texts that a defect may turn a trace into; some of them may be whole in this grammar."""
    shown = [trace_parser(grammar).render([part]) for part in parts]
    if defect in _MISSING:
        return _without(parts, shown, _MISSING[defect], grammar)
    if defect is Defect.REPEATED_TAG:
        marks = [grammar.named[part.name].spellings[0] for part in parts]
        times = [max(2, (trace_parser(grammar).limits[mark] or 0) + 1) for mark in marks]
        return [_changed(shown, at, times[at] * shown[at]) for at in reversed(range(len(parts)))]
    if defect is Defect.OUT_OF_ORDER:
        if len(shown) < 2:
            return []
        head, tail = [shown[1], shown[0], *shown[2:]], [*shown[:-2], shown[-1], shown[-2]]
        return ["".join(order) for order in (head, [shown[-1], *shown[:-1]], tail)]
    if defect in (Defect.NESTED_TAG, Defect.EMPTY_SEGMENT, Defect.BAD_FIELD):
        texts = _other_texts(parts, shown, defect, grammar)
        return [_changed(shown, at, _render(grammar, parts[at].name, text)) for at, text in texts]
    whole = "".join(shown)
    first, last = (grammar.named[parts[at].name].spellings[0].close for at in (0, -1))
    if defect is Defect.UNCLOSED_TAG:
        return [whole.rstrip().removesuffix(last)] if last else []
    if defect is Defect.STRAY_CLOSING_TAG:
        return [_changed(shown, 0, f"{shown[0].rstrip()} {first} "), whole + last]
    between = _changed(shown, 0, f"{shown[0].rstrip()} Now I think about it. ")
    return [f"Sure, here is my answer. {whole}", f"{whole} I hope this helps!", between]


def _other_texts(
    parts: Sequence[Part], shown: Sequence[str], defect: Defect, grammar: TraceGrammar
) -> list[tuple[int, str]]:
    """Which segments get another content: the next segment in them, a blank, or words without a form."""
    if defect is Defect.NESTED_TAG:
        return [(at, f"{part.text} {shown[at + 1]}") for at, part in enumerate(parts[:-1])]
    if defect is Defect.EMPTY_SEGMENT:
        return list(zip(range(len(parts)), cycle(("", " ", "\n")), strict=False))
    return [(at, "early on") for at, part in enumerate(parts) if grammar.named[part.name].holds]


def _render(grammar: TraceGrammar, name: str, text: str) -> str:
    return trace_parser(grammar).render([(name, text)])


def _changed(shown: Sequence[str], at: int, text: str) -> str:
    return "".join([*shown[:at], text, *shown[at + 1 :]])


def _without(parts: Sequence[Part], shown: Sequence[str], role: Role, grammar: TraceGrammar) -> list[str]:
    """The trace without every segment of one name; without the answer, also with its bare text."""
    named = grammar.named
    gone = next((p.name for p in parts if named[p.name].role is role and named[p.name].needed), None)
    rest = "".join(text for part, text in zip(parts, shown, strict=True) if part.name != gone)
    if gone is None:
        return []
    return [rest, f"{rest}{parts[-1].text}"] if role is Role.ANSWER else [rest]
