"""Grammars of traces, their parsers, and the whole of step 2 on any completion."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.target import RAW, SHAPED, WORDS, Target, must, raw, text_of
from videop2r_data.errors import ConfigError, TraceError
from videop2r_data.schemas import (
    DataType,
    ProblemType,
    Sample,
    Shown,
    Trace,
    TraceFault,
    TraceGrammar,
    VerifySpec,
    load_grammar,
    packaged_grammars,
    parse_trace,
    render_trace,
    segment_spans,
    trace_parser,
)
from videop2r_data.schemas.parser import TraceParser, TraceSpans, _Scan
from videop2r_data.schemas.trace_fields import nonsense
from videop2r_data.validators import holds_verdict_tag, verify_completion

NAMES = packaged_grammars()
_SHOWN = Shown(seconds=12.0, frames=300, width=640, height=480)
_SAMPLE = Sample(
    sample_id="s/1",
    problem_id="1",
    problem="Which?",
    problem_type=ProblemType.MULTIPLE_CHOICE,
    data_type=DataType.TEXT,
    options=("A. a ball", "B. a dog"),
    solution="<answer>A</answer>",
    source="s",
    row=0,
)


@cache
def _marks() -> tuple[bytes, ...]:
    every = dict.fromkeys(text for name in NAMES for text in trace_parser(load_grammar(name)).literals)
    fields = dict.fromkeys(
        template.example()
        for n in NAMES
        for ts in trace_parser(load_grammar(n)).templates.values()
        for template in ts
    )
    plain = (
        "A",
        "a ball",
        " ",
        "\n",
        "{",
        "}",
        "<",
        ">",
        "[1, 2, 3, 4]",
        "00:05",
        "9" * 9,
        "\u2028",
        "\ud800",
        "Ａ",
    )
    return tuple(text.encode("utf-8", "surrogatepass") for text in (*every, *fields, *plain))


def check(data: bytes) -> None:
    """The first byte names the grammar; the rest is a completion."""
    if not data:
        return
    grammar, text = load_grammar(NAMES[data[0] % len(NAMES)]), text_of(data[1:])
    _read(grammar, text)
    if grammar == load_grammar(NAMES[0]):
        segment_spans(text)
    found = verify_completion(text, _SAMPLE, VerifySpec(), grammar, _SHOWN)
    must(
        found.score is None or found.score.value is None or 0 <= found.score.value <= 1, "score", found.score
    )
    if found.check.reason is None:
        must(found.trace is not None and found.score is not None, "passed without a score", found)
        must(not holds_verdict_tag(text), "a verdict tag passed", text)


def _read(grammar: TraceGrammar, text: str) -> None:
    parser = trace_parser(grammar)
    spans = parser.spans(text)
    must(spans == _scanned(parser, text), "one pass and one match agree", spans)
    end = 0
    for piece in spans.pieces:
        must(end <= piece.open <= piece.start <= piece.end <= piece.close <= len(text), "offsets", spans)
        end = piece.close
    for name, values in parser.values(text, spans.pieces):
        must(name in grammar.named and isinstance(nonsense(values, _SHOWN), str), "values", values)
        must(all(0 <= value.start <= value.end <= len(text) for value in values), "offsets of values", values)
    parser.place([piece.name for piece in spans.pieces])
    Trace.found_in(text, grammar).columns()
    try:
        trace = parse_trace(text, grammar)
        parts = parser.parse(text)
    except TraceError as error:
        must(spans.fault is not None and error.fault == spans.fault.value, "one fault", error, spans)
        must(error.fault in list(TraceFault) and 0 <= error.at <= len(text), "place of the fault", error)
        return
    must(spans.fault is None, "a fault is told", spans)
    again = render_trace(trace)
    must(parse_trace(again, grammar) == trace, "parse(render(x)) == x", again)
    must(parser.parse(parser.render(parts)) == parts, "parse(render(parts)) == parts", parts)


def _scanned(parser: TraceParser, text: str) -> TraceSpans:
    """The same without the short way for plain traces."""
    scan, at = _Scan(parser, text), 0
    while (found := parser.mark.search(text, at)) is not None:
        at = scan.meet(found)
    return scan.finish()


_CONTENT = st.text(st.sampled_from("ab <>/{}\\think\n\u00e9"), min_size=1, max_size=12)
_SEGMENT = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["see", "say", "end", "so"]),
        "role": st.sampled_from(["perception", "reasoning", "answer", "other"]),
    },
    optional={
        "tag": st.sampled_from(["see", "say", "end", "a", "ab"]),
        "marks": st.lists(st.tuples(_CONTENT, _CONTENT), max_size=2),
        "boxed": st.booleans(),
        "text": st.booleans(),
        "required": st.booleans(),
        "prefilled": st.booleans(),
        "holds": st.sampled_from(["{at: time seconds}", "{b: box pixels}", "{x: number} of {y: label}"]),
        "after": st.sampled_from(["", " ", "\n"]),
    },
)
_GROUP = st.fixed_dictionaries(
    {"group": st.lists(_SEGMENT, min_size=1, max_size=3)},
    optional={"min": st.integers(0, 3), "max": st.integers(1, 3)},
)
_GRAMMAR = st.fixed_dictionaries(
    {"name": st.just("own"), "segments": st.lists(_SEGMENT | _GROUP, min_size=1, max_size=4)}
)


@settings(database=None, deadline=None)
@given(
    _GRAMMAR,
    st.lists(st.tuples(st.sampled_from(["see", "say", "end", "so"]), _CONTENT), max_size=6),
    _CONTENT,
)
def shaped(declared: dict[str, object], parts: list[tuple[str, str]], noise: str) -> None:
    """Grammars of strangers: refused with a reason, or read and written without loss."""
    from pydantic import ValidationError

    try:
        grammar = TraceGrammar.model_validate(declared)
        parser = TraceParser(grammar)
    except (ValidationError, ConfigError):
        return
    text = parser.render((name, part) for name, part in parts if name in grammar.named)
    _read(grammar, text)
    _read(grammar, noise + text)


def seeds() -> list[bytes]:
    """A trace of each grammar, and the default one in a few hundred words of places."""
    found = []
    for n, name in enumerate(NAMES):
        parser = trace_parser(load_grammar(name))
        parts = []
        for spec in parser.grammar.flat:
            template = parser.forms.get(spec.name)
            parts.append((spec.name, template.example() if template else "A"))
        found.append(bytes([RAW, n]) + parser.render(parts).encode())
    found.append(raw(b"\0<think>x</think><answer>A</answer>"))
    found.append(bytes([WORDS, 0, *range(0, 40, 2)]))
    found.append(bytes([SHAPED, *range(120)]))
    return found


TARGET = Target(
    "traces",
    check,
    seeds,
    words=(*(bytes([n]) for n in range(len(NAMES))), *_marks()),
    shaped=shaped,
)
