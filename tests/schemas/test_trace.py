"""The trace parser against a brute-force reading, its fast path, and everything that is no trace."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.errors import TraceError
from videop2r_data.schemas import (
    ProcessTrace,
    SegmentSpans,
    TraceFault,
    parse_trace,
    render_trace,
    segment_spans,
)
from videop2r_data.schemas.grammar import DEFAULT_GRAMMAR, load_grammar
from videop2r_data.schemas.parser import TraceParser
from videop2r_data.schemas.trace import SEGMENTS

O, T, A = "<observation>o</observation>", "<think>t</think>", "<answer>a</answer>"  # noqa: E741
GOOD = f"{O} {T}{A}"
TAGS = ["<observation>", "</observation>", "<think>", "</think>", "<answer>", "</answer>"]
PIECES = [*TAGS, O, T, A, GOOD, "x", " ", "\r\n", "<", ">", "<Think>", "<think >", "\u3000", "é", "\u200b"]
TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12).map("".join)
TAG = re.compile("</?(observation|think|answer)>")
CONTENT = st.text(min_size=1, max_size=60).filter(lambda s: s.strip() and not TAG.search(s))


def scanned(text: str) -> SegmentSpans:
    """The general scan alone: a parser without its fast path."""
    slow = TraceParser(load_grammar(DEFAULT_GRAMMAR))
    slow.plain = None
    found = slow.spans(text)
    first = {name: found.first(name) for name in SEGMENTS}
    o, t, a = map(first.get, SEGMENTS)
    return SegmentSpans(o, t, a, found.fault, found.at)


def is_trace(text: str) -> bool:
    """An independent reading: each tag once, in order, contents not blank, only white space around."""
    at = [[m.start() for m in re.finditer(re.escape(tag), text)] for tag in TAGS]
    if any(len(places) != 1 for places in at):
        return False
    starts = [places[0] for places in at]
    if starts != sorted(starts):
        return False
    ends = [s + len(tag) for s, tag in zip(starts, TAGS, strict=True)]
    inside = [text[ends[i] : starts[i + 1]] for i in (0, 2, 4)]
    outside = [text[: starts[0]], text[ends[1] : starts[2]], text[ends[3] : starts[4]], text[ends[5] :]]
    return all(s.strip() for s in inside) and not any(s.strip() for s in outside)


@settings(deadline=None)
@given(CONTENT, CONTENT, CONTENT)
def test_what_was_rendered_is_read_back(observation: str, think: str, answer: str) -> None:
    trace = ProcessTrace(observation=observation, think=think, answer=answer)
    assert parse_trace(render_trace(trace)) == trace


@settings(deadline=None, max_examples=400)
@given(TEXT)
def test_any_text_is_read_and_the_fast_path_agrees(text: str) -> None:
    spans = segment_spans(text)
    assert spans == scanned(text)
    assert (spans.fault is None) == is_trace(text)
    assert (spans.at == -1) == (spans.fault is None) and spans.at <= len(text)
    for name, span in zip(("observation", "think", "answer"), spans[:3], strict=True):
        if span is not None:
            content = text[span.start : span.end]
            assert text[span.open : span.close] == f"<{name}>{content}</{name}>" and not TAG.search(content)


def test_every_short_sequence_of_tags_agrees_with_brute_force() -> None:
    for n in range(5):
        for parts in itertools.product([*TAGS, "x"], repeat=n):
            text = "".join(parts)
            assert (segment_spans(text).fault is None) == is_trace(text)
    for parts in itertools.permutations([O, T, A, "", " "]):
        assert (segment_spans("".join(parts)).fault is None) == is_trace("".join(parts))


@pytest.mark.parametrize(
    ("text", "fault", "at"),
    [
        ("", "missing_observation", 0),
        ("x", "missing_observation", 0),
        (T + A, "missing_observation", len(T + A)),
        (O + A, "missing_think", len(O + A)),
        (O + T, "missing_answer", len(O + T)),
        (O + T + "A", "missing_answer", len(O + T)),
        (O + O + T + A, "repeated_tag", len(O)),
        (O + T + A + A, "repeated_tag", len(O + T + A)),
        ("<observation>o<think>t</think></observation>" + A, "nested_tag", 14),
        ("<observation>o</think>" + T + A, "nested_tag", 14),
        (T + O + A, "out_of_order", 0),
        (O + A + T, "out_of_order", 0),
        (O + T + "<answer>a", "unclosed_tag", len(O + T)),
        (O + T + A + "</answer>", "stray_closing_tag", len(O + T + A)),
        ("</think>" + GOOD, "stray_closing_tag", 0),
        ("  hi " + GOOD, "text_outside", 2),
        (O + " and " + T + A, "text_outside", len(O) + 1),
        (GOOD + "\nbye", "text_outside", len(GOOD) + 1),
        ("<observation> </observation>" + T + A, "empty_segment", 13),
        (O + T + "<answer></answer>", "empty_segment", len(O + T) + 8),
        ("<Observation>o</Observation>" + T + A, "missing_observation", 0),
        (O + "<think >t" + A, "missing_think", len(O)),
        (O + T + "＜answer＞a＜/answer＞", "missing_answer", len(O + T)),
    ],
)
def test_faults_and_their_places(text: str, fault: str, at: int) -> None:
    spans = segment_spans(text)
    assert (spans.fault, spans.at) == (TraceFault(fault), at)
    with pytest.raises(TraceError) as caught:
        parse_trace(text)
    assert (caught.value.fault, caught.value.at) == (fault, at)


@pytest.mark.parametrize(
    "text",
    [
        f"\r\n{O}\r\n\r\n{T}\r\n{A}\r\n",
        f"\u3000{O}\u2028{T}\u00a0{A}",
        O.replace("o<", "日本 < 5 <b> <Think> &lt;think&gt;<") + T + A,
    ],
)
def test_white_space_and_look_alikes_inside_are_no_fault(text: str) -> None:
    assert parse_trace(text).think == "t"


@pytest.mark.parametrize(
    "piece", ["x", "<", " ", *TAGS, O, GOOD, "<observation", "</", "é\n", "<observation><think>"]
)
def test_a_megabyte_of_junk_is_read(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert segment_spans(text).fault is not None
    assert segment_spans(f"<observation>{'y ' * 500_000}</observation>{T}{A}").fault is None


@pytest.mark.parametrize("content", ["", " ", "\n", "a<think>", "</answer>"])
def test_a_segment_that_could_not_be_read_back_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="segment"):
        ProcessTrace(observation=content, think="t", answer="a")
