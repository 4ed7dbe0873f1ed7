"""Trace grammars: what is rendered is read back, an independent reading agrees, and real rows are read."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.real_traces import RESULTS, ROOT, Row, read, tables
from tests.shared import samples_dir
from videop2r_data.errors import ConfigError, TraceError
from videop2r_data.schemas.grammar import (
    FREE,
    GroupSpec,
    Mark,
    Role,
    SegmentSpec,
    TraceGrammar,
    load_grammar,
    packaged_grammars,
    parse_grammar,
)
from videop2r_data.schemas.parser import TraceParser, trace_parser
from videop2r_data.schemas.verdict import RejectReason, TraceFault

KINDS = st.sampled_from(["tag", "tags", "phrases", "boxed", "text"])


@st.composite
def segments(draw: st.DrawFn, name: str, role: Role) -> SegmentSpec:
    kind = draw(KINDS)
    kinds: dict[str, dict[str, Any]] = {
        "tag": {"tag": name},
        "tags": {"tag": (name.upper(), f"{name}-2"), "marks": ((f"[{name}", f"{name}]"),)},
        "phrases": {"marks": ((f"(begin {name})", f"(end {name})"),)},
        "boxed": {"boxed": True},
        "text": {"text": True},
    }
    return SegmentSpec(
        name=name,
        role=role,
        stream=draw(st.sampled_from([None, "one", "two"])),
        required=draw(st.booleans()),
        after=draw(st.sampled_from(["", " ", "\n\n"])),
        **kinds[kind],
    )


@st.composite
def grammars(draw: st.DrawFn) -> TraceGrammar:
    """Any grammar that the models allow; those that a parser refuses are thrown away by the tests."""
    names = [f"s{n}" for n in range(draw(st.integers(1, 6)))]
    roles = draw(st.lists(st.sampled_from(list(Role)), min_size=len(names), max_size=len(names)))
    roles[draw(st.integers(0, len(names) - 1))] = Role.ANSWER
    specs = [draw(segments(name, role)) for name, role in zip(names, roles, strict=True)]
    parts: list[SegmentSpec | GroupSpec] = []
    while specs:
        size = draw(st.integers(0, min(3, len(specs))))
        taken, specs = specs[: max(size, 1)], specs[max(size, 1) :]
        if size and any(one.needed for one in taken):
            low = draw(st.integers(0, 2))
            high = draw(st.sampled_from([None, max(low, 1), low + 2]))
            parts.append(GroupSpec(group=tuple(taken), min=low, max=high))
        else:
            parts.extend(taken)
    flat = [spec for part in parts for spec in (part.group if isinstance(part, GroupSpec) else (part,))]
    assume(not all(spec.text for spec in flat))
    return TraceGrammar(name="random", segments=tuple(parts))


def compiled(grammar: TraceGrammar) -> TraceParser:
    try:
        return TraceParser(grammar)
    except ConfigError as error:
        assert "may begin" in error.message
        assume(False)
        raise


def contents(spec: SegmentSpec, parser: TraceParser) -> st.SearchStrategy[str]:
    plain = st.text(st.sampled_from("ab <>{}()[]/\\s0é\u3000\n"), min_size=1, max_size=12)
    good = plain.filter(lambda s: bool(s.strip()) and not parser.mark.search(s))
    if spec.boxed:
        return good.filter(_balanced)
    return good.map(str.strip) if spec.text else good


def _balanced(text: str) -> bool:
    depth = 0
    for sign in text:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0


@st.composite
def traces(draw: st.DrawFn, parser: TraceParser) -> list[tuple[str, str]]:
    parts = []
    for part in parser.rounds:
        most = part.least + 2 if part.most is None else part.most
        for _ in range(draw(st.integers(part.least, most))):
            for spec in part.specs:
                if spec.needed or draw(st.booleans()):
                    parts.append((spec.name, draw(contents(spec, parser))))
    return parts


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_what_is_rendered_is_read_back_in_every_grammar(data: st.DataObject) -> None:
    parser = compiled(data.draw(grammars()))
    parts = data.draw(traces(parser))
    assert parser.parse(parser.render(parts)) == tuple(parts)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_an_independent_reading_accepts_the_same_sequences(data: st.DataObject) -> None:
    """A regular expression over one letter per mark, made from the grammar, against the parser."""
    parser = compiled(data.draw(grammars()))
    letters = {mark: chr(ord("a") + n) for n, mark in enumerate(parser.marks)}

    def expression(spec: SegmentSpec) -> str:
        return f"[{''.join(letters[m] for m in spec.spellings)}]" + ("" if spec.needed else "?")

    pattern = "".join(
        f"(?:{''.join(map(expression, part.specs))}){{{part.least},{'' if part.most is None else part.most}}}"
        for part in parser.rounds
    )
    chosen = data.draw(st.lists(st.sampled_from(parser.marks), max_size=7))
    # two pieces of free text side by side are one
    marks = [m for n, m in enumerate(chosen) if m is not FREE or n == 0 or chosen[n - 1] is not FREE]
    text = " ".join(f"{mark.open}x{mark.close}" for mark in marks)
    accepted = re.fullmatch(pattern, "".join(letters[mark] for mark in marks)) is not None
    assert (parser.spans(text).fault is None) == accepted


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_text_is_taken_and_pieces_are_what_they_say(data: st.DataObject) -> None:
    parser = compiled(data.draw(grammars()))
    bits = [*parser.literals, "}", "{", "x", " ", "<", "\\boxed{"]
    text = "".join(data.draw(st.lists(st.one_of(st.sampled_from(bits), st.text(max_size=2)), max_size=14)))
    spans = parser.spans(text)
    last = 0
    for piece in spans.pieces:
        assert last <= piece.open <= piece.start <= piece.end <= piece.close
        last = piece.close
        mark = Mark(text[piece.open : piece.start], text[piece.end : piece.close])
        if mark != FREE:
            assert piece.start == 0 or mark in parser.grammar.named[piece.name].spellings
    assert (spans.fault is None) == (spans.at == -1)
    assert spans.at <= len(text)
    if spans.fault is None:
        parts = parser.parse(text)
        assert parser.parse(parser.render(parts)) == parts
    else:
        with pytest.raises(TraceError):
            parser.parse(text)


@pytest.mark.parametrize("name", packaged_grammars())
def test_a_packaged_grammar_compiles_and_has_an_answer(name: str) -> None:
    grammar = load_grammar(name)
    assert grammar.name == name
    assert trace_parser(grammar).grammar.answers


def test_a_box_may_hold_braces_and_stand_inside_a_segment_as_content() -> None:
    parser = trace_parser(load_grammar("vision-sr1"))
    text = r"<description>d</description><think>so \boxed{3}?</think>\boxed{\frac{1}{2}}"
    assert parser.parse(text)[-1] == ("answer", r"\frac{1}{2}")
    cut = parser.spans(r"<description>d</description><think>t</think>\boxed{\frac{1}{2")
    assert (cut.fault, cut.segment) == (TraceFault.UNCLOSED_TAG, "answer")


def test_a_model_that_stopped_early_answers_in_the_first_box() -> None:
    parser = trace_parser(load_grammar("videoauto-r1"))
    early, late = parser.parse(r"\boxed{B}"), parser.parse(r"\boxed{A}<think>wait</think>\boxed{B}")
    assert early == (("first_answer", "B"),)
    assert late == (("first_answer", "A"), ("think", "wait"), ("answer", "B"))
    lost = parser.spans(r"\boxed{A}<think>wait</think>")
    assert (lost.fault, lost.segment) == (TraceFault.MISSING_ANSWER, "answer")


def test_an_opening_mark_may_stand_in_the_prompt() -> None:
    parser = trace_parser(load_grammar("think-answer"))
    assert parser.parse("so it is\n</think>\n<answer>B</answer>")[0] == ("think", "so it is\n")
    assert parser.spans("<answer>B</answer></think>").fault is TraceFault.STRAY_CLOSING_TAG


def test_groups_count_their_rounds_and_name_what_is_missing() -> None:
    parser = trace_parser(load_grammar("video-thinker"))
    good = "First. <time>00:01-00:05</time><caption>c</caption><think>t</think> So: <answer>A</answer>"
    assert [part.name for part in parser.parse(good)] == [
        "remark",
        "time",
        "caption",
        "think",
        "remark",
        "answer",
    ]
    hole = parser.spans(good.replace("<caption>c</caption>", "", 1))
    assert (hole.fault, hole.segment) == (TraceFault.MISSING_SEGMENT, "caption")
    form = parser.spans(good.replace("00:01-00:05", "1 to 5 s"))
    assert (form.fault, form.segment) == (TraceFault.BAD_FIELD, "time")
    twice = load_grammar("video-thinker").model_copy(
        update={
            "segments": tuple(
                part.model_copy(update={"max": 1}) if isinstance(part, GroupSpec) else part
                for part in load_grammar("video-thinker").segments
            )
        }
    )
    round_ = "<time>00:01-00:05</time><caption>c</caption>"
    assert TraceParser(twice).spans(f"{round_}{round_}<answer>A</answer>").fault is TraceFault.REPEATED_TAG


AMBIGUOUS = """
trace: 1
name: two-boxes
segments:
  - {name: early, role: other, boxed: true, required: false}
  - {name: answer, role: answer, boxed: true}
"""


def test_a_grammar_that_no_parser_can_tell_apart_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"may begin 'early' or 'answer'"):
        TraceParser(parse_grammar(AMBIGUOUS, where="two-boxes.yaml"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trace: 1\nname: x\nsegments: [{name: a, role: reasoning, tag: a}]", "no segment has role: answer"),
        ("trace: 1\nname: x\nsegments: [{name: a, role: answer}]", "give one of tag"),
        ("trace: 1\nname: x\nsegments: [{name: a, role: answer, tag: a, boxed: true}]", "give one of tag"),
        ("trace: 1\nname: x\nsegments: [{name: a, role: answer, tag: a}]\nanswer: [b]", "answer names b"),
        ("trace: 1\nname: x\nsegments: [{name: a, rôle: answer, tag: a}]", "role"),
        (
            "trace: 1\nname: x\nsegments: [{name: a, role: anser, tag: a}]",
            "mine.yaml: 1 error(s) in the trace grammar\n  segments.0.role: Input should be 'perception', 'reasoning', "
            "'answer' or 'other', got 'anser'; did you mean 'answer'? (mine.yaml:3)",
        ),
        (
            "trace: 1\nname: x\nsegments:\n- group:\n  - {name: a, role: answer, tagg: a}\n  min: two",
            "segments.0.group.0.tagg: no such setting; did you mean 'tag'? (mine.yaml:5)\n  segments.0.min: ",
        ),
        ("trace: 1\nname: x\nsegments: [a]", "segments.0: give settings, each as `name: value`, got 'a'"),
        ("trace: 1\nname: x\nsegments: {name: a}", "segments: give a list, such as [a, b], got "),
        ("trace: 1\nname: x\nsegments: [{group: [{name: a, role: answer, text: true}]}]", "a group needs"),
        ("trace: 1\nname: x\nsegments: [{name: a, role: answer, tag: a, holds: '{x: box}'}]", "units of box"),
    ],
)
def test_a_wrong_grammar_says_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        parse_grammar(text, where="mine.yaml")


def test_every_fault_is_a_reason_to_reject() -> None:
    assert {fault.value for fault in TraceFault} <= {reason.value for reason in RejectReason}


ROWS: dict[tuple[str, str], dict[str | None, int]] = {
    ("video-thinker", "video_thinker_paper"): {None: 7, "empty_segment answer": 1, "missing_segment time": 1},
    ("visionary-r1", "visionary_r1_paper"): {None: 2, "missing_segment info": 2, "missing_think think": 2},
    ("vision-sr1", "vision_sr1_format"): {"missing_answer answer": 6, "unclosed_tag think": 1},
    ("think-answer", "r1v_geoqa_7b"): {None: 6, "unclosed_tag think": 6, "nested_tag": 1},
    ("think-answer", "videorft3b_videommmu_t02"): {None: 6, "unclosed_tag think": 4},
    ("think-answer", "r1v_counting_2b_instruct"): {None: 6, "unclosed_tag think": 6},
    ("think-answer", "videochatr1_mmvu"): {None: 6, "nested_tag": 5},
    ("think-answer", "twgrpo_rollouts_format"): {
        None: 9,
        "text_outside": 5,
        "missing_think think": 4,
        "missing_answer answer": 4,
        "nested_tag": 3,
        "unclosed_tag think": 2,
        "unclosed_tag answer": 1,
        "repeated_tag think": 1,
    },
    ("llava-cot", "llava_cot"): {
        None: 3,
        "text_outside": 4,
        "missing_segment summary": 2,
        "missing_segment reasoning": 1,
    },
    ("video-toc", "video_toc_sft"): {None: 12},
    ("rethink", "embedrl_rethink_paper"): {None: 4},
    ("bbox-between", "videor1fork_bbox_between"): {
        None: 2,
        "missing_segment boxes": 2,
        "missing_think think": 1,
        "text_outside": 1,
    },
}


@cache
def _real() -> tuple[Row, ...]:
    folder = samples_dir()
    if folder is None:
        pytest.skip("no folder of real rows")
    return tuple(read(folder))


@pytest.mark.parametrize(("name", "file"), ROWS)
def test_real_rows_are_read_and_their_faults_are_these(name: str, file: str) -> None:
    """Each was looked at: benchmarks/results/real_traces.md says what the rows hold."""
    found = Counter(row.fault or None for row in _real() if (row.grammar, row.file) == (name, file))
    assert found == ROWS[name, file]


def test_the_page_of_real_rows_is_current_and_every_fault_was_looked_at() -> None:
    rows = _real()
    assert (len(rows), sum(not row.fault for row in rows), sum(row.senseless for row in rows)) == (150, 72, 0)
    folder = samples_dir()
    assert folder is not None
    assert tables(folder) in RESULTS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "grammars").glob("*.yaml")), ids=lambda p: p.stem
)
def test_an_example_grammar_is_one(path: Path) -> None:
    assert trace_parser(load_grammar(str(path))).grammar.name == path.stem
