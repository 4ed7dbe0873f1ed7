"""What is told of a whole batch is what the checks row by row say: findings, table and digests."""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.release_rows import Row, key, valid_rows
from videop2r_data.builders.verify.quick import BRACKETS, check_sft_arrow, sure_rows
from videop2r_data.builders.verify.report import Rules, Tally
from videop2r_data.builders.verify.rows import check_sft
from videop2r_data.errors import SourceError
from videop2r_data.files.rows import as_batch
from videop2r_data.schemas import PAPER
from videop2r_data.schemas.recipe import LengthSpec, VerifySpec, WordBounds
from videop2r_data.schemas.rows import SftRow, arrow_schema
from videop2r_data.validators.metrics import unmask_markup

OWN = Rules("ours", VerifySpec(), own=True, judge=True, synthetic=True)
RULES = (
    OWN,
    Rules("ours", VerifySpec()),
    Rules("ours", VerifySpec(policy=PAPER), own=True, judge=None),
    Rules("ours", VerifySpec(threshold=0.9), own=True, judge=False, synthetic=False),
    Rules("ours", VerifySpec(length=LengthSpec(think=WordBounds(min=3))), own=True, bounded=True, judge=True),
)


def built(rows: list[Row]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=arrow_schema(SftRow))


def seen(tally: Tally) -> tuple[Any, ...]:
    digests = bytes(tally.ids), bytes(tally.contents), bytes(tally.questions)
    return tally.findings.listing(), dict(tally.table), list(tally.at), dict(tally.notes), digests


def assert_agree(part: pa.RecordBatch, rules: Rules, start: int = 0) -> Tally:
    """Check a batch both ways; returns the tally."""
    whole, one_by_one = Tally(), Tally()
    check_sft_arrow(start, part, "f", rules, whole)
    check_sft(as_batch(start, part, "f"), None, "f", rules, one_by_one)
    assert seen(whole) == seen(one_by_one)
    return whole


def traced(row: Row) -> Row:
    """The same row with process and output of its segments."""
    process = f"<think>{row['think']}</think><answer>{row['answer']}</answer>"
    return row | {"process": process, "output": f"<observation>{row['observation']}</observation> {process}"}


TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "\u3000",
            "x",
            "é",
            "a < b",
            "＜judgement＞Yes",
            "&lt;judgement&gt;",
            "</think>",
            "A. a",
        ]
    ),
)
WORDS = ("answer is", "option is", "choice should be", "conclusion must be:", "Answer:", "answers is", "the")
CLAIM = st.sampled_from(
    ["A", "B", "C", "D", "Z", "b", "42", "42.0", "7", "0", "1,000", "-3", "a", "", "A or B"]
)
THINK = st.builds(
    lambda lead, turn, words, claim, end: f"{lead}{turn} {words} {claim}{end}",
    TEXT,
    st.sampled_from(
        ["", " So the", " If not, the", " The answer is B. No, the", "\nthe final", " The option is C:"]
    ),
    st.sampled_from(WORDS),
    CLAIM,
    st.sampled_from(["", ".", "?", "..", ". ", " or C.", ". But wait."]),
)
LONG = (
    "Based on the question, I need to notice the disc. "
    + "A red disc lies beside the large green square. " * 6
)
OBSERVATION = st.one_of(
    TEXT,
    st.just(LONG),
    st.builds(
        lambda lead, words, claim: f"{lead}{words} {claim}.",
        st.sampled_from(["", LONG, "." * 400]),
        st.sampled_from(
            ["The answer is", "It matches OPTION", "If so, the answer is", "\\boxed{", "答案是", "It says"]
        ),
        CLAIM,
    ),
)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "problem": TEXT,
    "problem_type": st.sampled_from(["multiple choice", "numerical", "OCR", "free-form", "regression", "x"]),
    "data_type": st.sampled_from(["image", "video", "text", "audio"]),
    "options": st.one_of(
        st.lists(TEXT, max_size=4),
        st.lists(TEXT, min_size=2, max_size=5).map(lambda t: [f"{'ABCDE'[i]}. {x}" for i, x in enumerate(t)]),
        st.just(["B. x", "A. y"]),
        st.just([f"{chr(65 + i)}. o{i}" for i in range(28)]),
    ),
    "solution": CLAIM.map(lambda c: f"<answer>{c}</answer>"),
    "path": st.one_of(TEXT, st.sampled_from(["../x", "a/../b", "a//b.mp4", "ä.mp4", "a/b.mp4", "a.mp4\n"])),
    "observation": OBSERVATION,
    "think": THINK,
    "answer": CLAIM,
    "reward": st.sampled_from([1.0, 0.7, 0.0, 1.0 + 1e-12, float("nan"), float("inf"), -1.0]),
    "attempt": st.sampled_from([0, -1, 3]),
    "judgement": st.sampled_from(["Yes", "No", "", "yes"]),
    "judge_key": st.sampled_from(["", key("x"), "A" * 64, "0" * 63]),
    "generation_key": st.sampled_from(["", key("x"), "g" * 64]),
    "media_sha256": st.sampled_from(["", key("x"), "é" * 32]),
    "frame_indices": st.lists(st.integers(-2, 9), max_size=4),
    "frame_times_s": st.lists(
        st.sampled_from([-1.0, 0.0, 0.5, 1.0, 9.0, float("nan"), float("inf")]), max_size=4
    ),
    "source_fps": st.sampled_from([None, 0.0, 30.0, float("nan"), float("inf")]),
    "synthetic": st.booleans(),
    "times": st.sampled_from(["", "exact", "repaired", "assumed", "guessed"]),
    "media_missing": st.sampled_from([None, 0.0, 1.0, -0.1, 1.5, float("nan")]),
}


@st.composite
def one_row(draw: st.DrawFn) -> Row:
    row = dict(draw(st.sampled_from(valid_rows()["sft"])))
    for name in draw(st.lists(st.sampled_from(sorted(CELLS)), max_size=3, unique=True)):
        row[name] = draw(CELLS[name])
    if draw(st.booleans()):
        row["observation"] = draw(OBSERVATION)
    if draw(st.booleans()):
        row["think"] = f"I look again. So the answer is {row['answer']}."
    return row if draw(st.integers(0, 5)) == 0 else traced(row)


@given(
    st.lists(one_row(), min_size=1, max_size=6), st.sampled_from(RULES), st.integers(0, 3), st.integers(0, 99)
)
@settings(deadline=None, max_examples=400)
def test_a_batch_says_what_its_rows_say(rows: list[Row], rules: Rules, skip: int, start: int) -> None:
    assert_agree(built(valid_rows()["sft"][:skip] + rows).slice(skip), rules, start)


LETTERED = st.lists(TEXT, min_size=2, max_size=5).map(
    lambda t: [f"{'ABCDE'[i]}. {x}" for i, x in enumerate(t)]
)


@given(THINK, LETTERED, st.sampled_from("AB"))
@settings(deadline=None, max_examples=400)
def test_a_conclusion_in_the_last_words(think: str, options: list[str], answer: str) -> None:
    row = valid_rows()["sft"][0] | {"think": think, "options": options, "answer": answer}
    assert_agree(built([traced(row | {"solution": f"<answer>{answer}</answer>", "reward": 1.0})]), OWN)


@given(THINK, st.sampled_from(["numerical", "regression"]), CLAIM)
@settings(deadline=None, max_examples=300)
def test_a_number_in_the_last_words(think: str, kind: str, answer: str) -> None:
    row = valid_rows()["sft"][1] | {"think": think, "problem_type": kind, "answer": answer}
    assert_agree(built([traced(row | {"solution": f"<answer>{answer}</answer>", "reward": 1.0})]), OWN)


def test_plain_rows_are_sure() -> None:
    rows = [
        traced(row | {"think": f"Look. So the answer is {row['answer']}.", "observation": LONG})
        for row in valid_rows()["sft"]
    ]
    rules = Rules("ours", VerifySpec(), own=True, judge=True, synthetic=bool(rows[0]["synthetic"]))
    sure, sound = sure_rows(built(rows), rules)
    assert sound.all()
    kinds = [row["problem_type"] for row in rows]
    assert [k for k, told in zip(kinds, sure.tolist(), strict=True) if told] == [
        k for k in kinds if k in ("multiple choice", "numerical")
    ]


def test_every_character_that_may_hide_a_bracket_is_known() -> None:
    others = "".join(map(chr, (c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)))
    others = others.translate(dict.fromkeys(map(ord, f"<&{BRACKETS}")))
    assert "<" not in unmask_markup("x".join(others))


def test_text_that_is_not_utf8_is_an_unreadable_file() -> None:
    part = built(valid_rows()["sft"])
    at = part.schema.get_field_index("judge_explanation")
    broken = pa.array([b"\xff\xfe"] * part.num_rows, pa.binary()).view(pa.string())
    arrays = [broken if i == at else part.column(i) for i in range(part.num_columns)]
    with pytest.raises(SourceError, match="damaged parquet file"):
        check_sft_arrow(0, pa.RecordBatch.from_arrays(arrays, schema=part.schema), "f", OWN, Tally())


def test_an_empty_batch() -> None:
    assert assert_agree(built([]), OWN).rows == 0
