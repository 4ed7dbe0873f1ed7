"""Typed values of a trace: by hand worked numbers, at every edge, and for any values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import (
    NOT_SHOWN,
    DataType,
    ProblemType,
    RejectReason,
    Sample,
    Shown,
    Template,
    nonsense,
)
from videop2r_data.schemas.grammar import load_grammar, parse_grammar
from videop2r_data.schemas.recipe import VerifySpec, parse_recipe
from videop2r_data.validators import box_iou, interval_iou, verify_completion

CLIP = Shown(seconds=23.6, frames=590, width=640, height=360)
SENSE = (
    ("{a: time seconds}-{b: time seconds}", "3-3.5", None),
    ("{a: time seconds}-{b: time seconds}", "3-3", "a 3 is not before b 3"),
    ("{a: time seconds}-{b: time seconds}", "0-24", None),  # the second that the clip ends in
    ("{a: time seconds}-{b: time seconds}", "0-24.1", "b 24.1 seconds is not within 0 to 24"),
    ("{a: time mm:ss}-{b: time mm:ss}", "00:20-00:24", None),
    ("{a: time mm:ss}-{b: time mm:ss}", "00:20-00:25", "b 25 mm:ss is not within 0 to 24"),
    ("{a: time mm:ss}-{b: time mm:ss}", "01:05-00:20", "a 65 is not before b 20"),
    ("{a: time percent}", "100", None),
    ("{a: time percent}", "100.5", "a 100.5 percent is not within 0 to 100"),
    ("{a: time fraction}", "1.01", "a 1.01 fraction is not within 0 to 1"),
    ("{a: frame}", "590", None),  # counted from 1
    ("{a: frame}", "591", "a 591 is not within 0 to 590"),
    ("{a: number}", "-7", None),
    ("<o>{a: label}</o>", "<o>a 900 pixel thing</o>", None),
    ("{a: box pixels}", "[0, 0, 640, 360]", None),
    ("{a: box pixels}", "[0, 0, 641, 360]", "a [0, 0, 641, 360] pixels is not within 0 to 640 by 360"),
    ("{a: box pixels}", "[0, 0, 360, 361]", "a [0, 0, 360, 361] pixels is not within 0 to 640 by 360"),
    ("{a: box pixels}", "[-1, 0, 2, 2]", "a [-1, 0, 2, 2] pixels is not within 0 to 640 by 360"),
    ("{a: box pixels}", "[5, 0, 5, 2]", "the corners of a [5, 0, 5, 2] are not in order"),
    ("{a: box fraction}", "(0.2, 0.4, 0.3, 0.4)", "the corners of a [0.2, 0.4, 0.3, 0.4] are not in order"),
    ("{a: box per_mille}", "[1, 1, 2, 1000.5]", "a [1, 1, 2, 1000.5] per_mille is not within 0 to 1000"),
    ("{a: point pixels}", "(640, 0)", None),
    ("{a: point pixels}", "(0, 640)", "a [0, 640] pixels is not within 0 to 640 by 360"),
)


@pytest.mark.parametrize(("template", "text", "told"), SENSE)
def test_what_cannot_be_is_told(template: str, text: str, told: str | None) -> None:
    (values,) = Template(template).read(text)
    assert nonsense(values, CLIP) == (told or "")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{a: time seconds}", "9999"),
        ("{a: frame}", "9999"),
        ("{a: box pixels}", "[0, 0, 9999, 9999]"),
    ],
)
def test_what_is_not_known_bounds_nothing(template: str, text: str) -> None:
    (values,) = Template(template).read(text)
    assert nonsense(values) == nonsense(values, NOT_SHOWN) == "" != nonsense(values, CLIP)


@pytest.mark.parametrize(
    ("indices", "times", "kind", "known"),
    [
        ((0, 5, 10), (0.0, 0.5, 1.0), "exact", (1.1, 11)),
        ((0, 23), (0.0, 23 / 24), "repaired", (1.0, 24)),
        ((0, 10), (0.0, 1.0), "assumed", (None, 11)),
        ((0,), (0.0,), "exact", (None, None)),
        ((), (), "", (None, None)),
        ((3, 3), (0.0, 1.0), "exact", (None, None)),
        ((-3, 3), (0.0, 1.0), "exact", (None, None)),
        ((0, 3), (0.0, math.nan), "exact", (None, 4)),
        ((0, 3), (0.0, math.inf), "exact", (None, 4)),
    ],
)
def test_frames_tell_where_their_clip_ends(
    indices: tuple[int, ...], times: tuple[float, ...], kind: str, known: tuple[float | None, int | None]
) -> None:
    assert Shown.by_frames(indices, times, kind)[:2] == known


SPANS = """
name: spans
segments:
  - {name: look, role: perception, tag: look, fields: ["<t>{a: time seconds} to {b: time seconds}</t>",
     "<p>{a: time percent} to {b: time percent}</p>", "<b>{where: box pixels}</b>"]}
  - {name: answer, role: answer, tag: answer, fields: ["<t>{a: time seconds} to {b: time seconds}</t>"]}
"""
GRAMMAR = parse_grammar(SPANS, where="spans")


def _sample(kind: str, solution: str) -> Sample:
    return Sample(
        sample_id="s/1",
        problem_id="1",
        problem="When?",
        problem_type=ProblemType(kind),
        data_type=DataType.VIDEO,
        path="a.mp4",
        solution=f"<answer>{solution}</answer>",
        source="s",
        row=0,
    )


def _told(
    look: str,
    *,
    answer: str = "[2, 10]",
    kind: str = "temporal grounding",
    solution: str = "",
    **spec: object,
) -> str:
    text = f"<look>A man. {look}</look><answer>{answer}</answer>"
    sample = _sample(kind, solution or answer)
    check = verify_completion(text, sample, VerifySpec.model_validate(spec), GRAMMAR, CLIP).check
    return f"{check.reason.value} {check.detail}" if check.reason else ""


IOU = (
    ("<t>4 to 12</t>", 0.6, ""),  # 6 of 10
    (
        "<t>4 to 12</t>",
        0.61,
        "missed_evidence IoU 0.600 of [4, 12], the best of 1, against [2, 10]: 0.61 or more",
    ),
    ("<t>20 to 23</t> then <t>0 to 8</t>", 0.6, ""),  # the best one counts
    ("<t>20 to 23</t>", 0.1, "missed_evidence IoU 0.000 of [20, 23], the best of 1, against [2, 10]: 0.1 or"),
    ("<p>0 to 50</p>", 0.6, ""),  # 0 to 11.8 s: 8 of 11.8
    ("<p>0 to 50</p>", 0.7, "missed_evidence IoU 0.678 of [0, 11.8], the best of 1, against [2, 10]"),
    ("nothing", 0.0, "missed_evidence no interval to hold against [2, 10]"),
    ("<b>[2, 2, 10, 10]</b>", 0.1, "missed_evidence no interval to hold against [2, 10]"),
    ("nothing", None, ""),
)


@pytest.mark.parametrize(("look", "wanted", "told"), IOU)
def test_a_span_meets_the_reference_or_the_row_falls(look: str, wanted: float | None, told: str) -> None:
    assert _told(look, evidence_iou=wanted).startswith(told)
    assert bool(_told(look, evidence_iou=wanted)) == bool(told)


def test_a_box_meets_the_reference_in_the_units_of_answers() -> None:
    box = {"kind": "spatial grounding", "solution": "[0, 0, 20, 10]", "answer": "[0, 0, 20, 10]"}
    assert _told("<b>[0, 0, 10, 10]</b>", evidence_iou=0.5, **box) == ""
    missed = (
        "missed_evidence IoU 0.500 of [0, 0, 10, 10], the best of 1, against [0, 0, 20, 10]: 0.51 or more"
    )
    assert _told("<b>[0, 0, 10, 10]</b>", evidence_iou=0.51, **box).startswith(missed)
    halves = box | {"answer": "[0, 0, 40, 20]"}
    assert _told("<b>[0, 0, 20, 20]</b>", evidence_iou=0.5, policy={"box_scale": 0.5}, **halves) == ""


def test_a_reference_that_is_neither_asks_for_nothing_and_the_answer_is_no_evidence() -> None:
    assert _told("a man", kind="numerical", answer="4", evidence_iou=0.9) == ""
    only_answered = _told(
        "a man", answer="<t>2 to 10</t>", solution="[2, 10]", evidence_iou=0.1, threshold=0.0
    )
    assert only_answered.startswith("missed_evidence no interval")


def test_sense_is_asked_for_unless_the_profile_or_the_setting_says_no() -> None:
    bad = "<t>12 to 4</t>"
    told = "senseless_value look, at character 16: a 12 is not before b 4"
    assert _told(bad) == told
    assert _told(bad, policy={"profile": "paper"}) == ""
    assert _told(bad, policy={"profile": "paper"}, field_values=True) == told
    assert _told(bad, field_values=False) == ""
    assert _told(bad, answer="[0, 1]", solution="[2, 10]").startswith("low_score")  # the score is told first


def test_a_packaged_grammar_checks_its_values() -> None:
    text = "Look. <time>00:01-00:{}</time><caption>A man.</caption> So <answer>[2, 10]</answer>"
    sample = _sample("temporal grounding", "[2, 10]")
    spec = VerifySpec(evidence_iou=0.5)

    def told(end: str) -> RejectReason | None:
        return verify_completion(
            text.format(end), sample, spec, load_grammar("video-thinker"), CLIP
        ).check.reason

    assert [told(end) for end in ("10", "30", "03")] == [
        None,
        RejectReason.SENSELESS_VALUE,
        RejectReason.MISSED_EVIDENCE,
    ]


SECONDS = st.integers(0, 3000).map(lambda n: n / 100)


@settings(deadline=None)
@given(SECONDS, SECONDS, SECONDS)
def test_a_span_makes_sense_exactly_if_it_lies_in_the_clip(start: float, end: float, seconds: float) -> None:
    (values,) = Template("{a: time seconds}-{b: time seconds}").read(f"{start}-{end}")
    sense = start < end <= math.ceil(seconds)
    assert (nonsense(values, Shown(seconds=seconds)) == "") == sense


@settings(deadline=None)
@given(st.lists(st.integers(-20, 120), min_size=4, max_size=4), st.integers(1, 100), st.integers(1, 100))
def test_a_box_makes_sense_exactly_if_it_lies_in_the_frame(box: list[int], width: int, height: int) -> None:
    (values,) = Template("{b: box pixels}").read(str(box))
    sense = 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
    assert (nonsense(values, Shown(width=width, height=height)) == "") == sense


@settings(deadline=None)
@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=4), st.floats(0, 1))
def test_the_best_span_decides(spans: list[tuple[float, float]], wanted: float) -> None:
    look = " ".join(f"<t>{a:.2f} to {b:.2f}</t>" for a, b in spans)
    best = max(interval_iou(span, (2, 10)) for span in spans)
    missed = _told(look, evidence_iou=wanted, field_values=False).startswith("missed_evidence")
    assert missed == (best < wanted)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.floats(0, 1))
def test_the_overlap_of_a_box_decides(box: list[int], wanted: float) -> None:
    reference = {"kind": "spatial grounding", "answer": "[5, 5, 30, 40]"}
    missed = _told(f"<b>{box}</b>", evidence_iou=wanted, field_values=False, **reference)
    assert missed.startswith("missed_evidence") == (box_iou(box, (5, 5, 30, 40)) < wanted)


@settings(deadline=None)
@given(st.text(st.sampled_from("<>tbpo/ 0123456789.-,[]"), max_size=60))
def test_any_text_is_taken(look: str) -> None:
    reason, _, _ = _told(look, evidence_iou=0.5).partition(" ")
    assert reason in {"", *RejectReason}


def test_what_cannot_be_asked_for_is_refused() -> None:
    recipe = """
name: own
trace: {trace}
sources: [{{name: demo, kind: demo}}]
generate: {{backend: {{kind: demo, model: demo}}}}
verify: {verify}
"""
    with pytest.raises(ConfigError, match="have no typed fields"):
        parse_recipe(recipe.format(trace="videop2r", verify="{evidence_iou: 0.5}"), where="r.yaml")
    with pytest.raises(ConfigError, match="segments names scene; a trace has think, answer"):
        verify = "{length: {segments: {scene: {min: 1}}}}"
        parse_recipe(recipe.format(trace="think-answer", verify=verify), where="r.yaml")
    fine = parse_recipe(recipe.format(trace="open-o3", verify="{evidence_iou: 0.5}"), where="r.yaml")
    assert fine.verify.model_dump()["evidence_iou"] == 0.5
    plain = parse_recipe(recipe.format(trace="open-o3", verify="{}"), where="r.yaml")
    assert not {"evidence_iou", "field_values"} & plain.verify.model_dump().keys()
