"""A trace as the page shows it: cut at its marks, each segment in the colour of its role, typed values
found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from videop2r_data.schemas import (
    BOX,
    SEGMENTS,
    GroupSpec,
    Role,
    Template,
    TraceGrammar,
    TraceParser,
    default_grammar,
    trace_parser,
)

Shown = tuple[str, ...]
"""(kind, text), or (kind, text, name). The name is that of the segment, where that is not the kind; of a tag,
that of the segment that it opens ("": it closes one), where the tag itself does not tell it, as `<think>`
does."""
KINDS = {
    Role.PERCEPTION: "observation",
    Role.REASONING: "think",
    Role.ANSWER: "answer",
    Role.OTHER: "other",
}
"""Role -> kind of a segment: its colour. The other kinds are `tag` and `outside`."""
VALUES = 200
"""Typed values of one segment that are marked in its text."""


def parts_of(text: str, grammar: TraceGrammar | None = None) -> tuple[Shown, ...]:
    """Cut a trace at its marks; in a malformed trace, text belongs to the segment opened last.

    Args:
        text: any text; joined, the parts are the text.
        grammar: None: the default.

    >>> parts_of("<observation>o</observation> x")
    (('tag', '<observation>'), ('observation', 'o'), ('tag', '</observation>'), ('outside', ' x'))
    """
    parser = trace_parser(grammar or default_grammar())
    found: list[Shown] = []
    last = 0
    for piece in parser.spans(text).pieces:
        found += _between(parser, text, last, piece.open)
        found.append(_tag(text[piece.open : piece.start], piece.name))
        found.append(_segment(parser, piece.name, text[piece.start : piece.end]))
        found.append(_tag(text[piece.end : piece.close], ""))
        last = piece.close
    found += _between(parser, text, last, len(text))
    return tuple(part for part in found if part[1])


def _segment(parser: TraceParser, name: str, text: str) -> Shown:
    kind = KINDS[parser.grammar.named[name].role]
    return (kind, text) if name == kind else (kind, text, name)


def _tag(text: str, opens: str) -> Shown:
    told = text[1:-1] if text.startswith("<") and not text.startswith("</") else ""
    return ("tag", text) if told == opens else ("tag", text, opens)


def _between(parser: TraceParser, text: str, start: int, end: int) -> Iterator[Shown]:
    """What stands between well-formed segments: marks without their counterpart, and text."""
    name = ""
    for mark in parser.mark.finditer(text, start, end):
        spelled, opens = parser.literals[mark.group()]
        if spelled == BOX and name:
            continue  # LaTeX in a segment that is not closed
        yield _loose(parser, name, text[start : mark.start()])
        name, start = parser.usual(spelled, 0) if opens else "", mark.end()
        yield _tag(mark.group(), name)
    yield _loose(parser, name, text[start:end])


def _loose(parser: TraceParser, name: str, text: str) -> Shown:
    return _segment(parser, name, text) if name else ("outside", text)


def canonical_segments(parts: Sequence[Shown]) -> tuple[str, ...] | None:
    """The three segments of a canonical trace of the default form, from which the page rebuilds it; else
    None."""
    texts = {part[0]: part[1] for part in parts if part[0] in SEGMENTS}
    if len(texts) != len(SEGMENTS):
        return None
    observation, think, answer = (texts[name] for name in SEGMENTS)
    whole = f"<observation>{observation}</observation> <think>{think}</think><answer>{answer}</answer>"
    return (observation, think, answer) if "".join(part[1] for part in parts) == whole else None


def values_in(part: Shown, grammar: TraceGrammar) -> list[list[Any]]:
    """The typed values of a segment, in order, none over another: [from, to, words, at, share].

    `from` and `to` count UTF-16 units, as the page's script does. `at` is a time in seconds, or where `share`
    is 1 a share of the clip; None for what is no time.
    """
    spec = grammar.named.get(_name(part))
    if spec is None or part[0] not in KINDS.values():
        return []
    templates = map(Template, (*spec.fields, *([spec.holds] if spec.holds else ())))
    text = part[1]
    values = sorted(
        (one for t in templates for found in t.read(text) for one in found), key=lambda v: v.start
    )
    out: list[list[Any]] = []
    last = units = 0
    for one in values[:VALUES]:
        if one.start < last:
            continue
        start = units + _units(text[last : one.start])
        units, last = start + _units(text[one.start : one.end]), one.end
        time = one.value if one.kind == "time" and isinstance(one.value, float | int) else None
        share = {"percent": 0.01, "fraction": 1.0}.get(one.unit)
        at = time * share if time is not None and share is not None else time
        words = " ".join(word for word in (f"{one.name}:", one.kind, one.unit) if word)
        out.append([start, units, words, at, int(time is not None and share is not None)])
    return out


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def segments_in(parts: Sequence[Shown]) -> list[str]:
    """Names of the segments that a trace has, in order."""
    return [_name(part) for part in parts if part[0] in KINDS.values()]


def _name(part: Shown) -> str:
    return part[2] if len(part) > 2 else part[0]


def rounds_of(names: Sequence[str], grammar: TraceGrammar) -> int:
    """How often a group of segments stands, at most, in a trace that has segments of these names."""
    groups = [part for part in grammar.segments if isinstance(part, GroupSpec)]
    heads = [next(spec.name for spec in group.group if spec.needed) for group in groups]
    return max(map(names.count, heads), default=0)


def about_trace(grammar: TraceGrammar) -> dict[str, Any]:
    """What the page has to know of the form of its traces; nothing of the default one."""
    if grammar == default_grammar():
        return {}
    rounds = [
        {
            "starts": [s.name for s in group.group[: 1 + [s.needed for s in group.group].index(True)]],
            "names": list(dict.fromkeys(s.name for s in group.group)),
        }
        for group in grammar.segments
        if isinstance(group, GroupSpec) and group.max != 1
    ]
    roles = {name: spec.role.value for name, spec in grammar.named.items()}
    return {"trace": {"name": grammar.name, "about": grammar.about, "roles": roles, "rounds": rounds}}
