"""Figures of graded questions by hand; which rows are asked; a row as the page shows it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.evaluation.rows import eval_row
from videop2r_data.builders import Workspace
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.figures import Counts
from videop2r_data.evaluation.page import entry_of
from videop2r_data.evaluation.pools import admit, chosen, look_at, selection
from videop2r_data.evaluation.questions import bad_row
from videop2r_data.evaluation.tables import render_tables
from videop2r_data.schemas import (
    Aggregate,
    BadRow,
    BenchmarkResult,
    EvalPlan,
    EvalResult,
    EvalRow,
    RejectReason,
    Sample,
    TagCell,
    default_grammar,
)

SERVER = {"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"}
MICRO, MACRO = Aggregate(id="micro", scale=100), Aggregate(id="macro", how="macro", by="task", scale=100)


def plan(*pools: Any) -> EvalPlan:
    return EvalPlan.model_validate({"backend": SERVER, "benchmarks": pools or ["demo"]})


def scored(task: str, score: float | None, blind: float | None = None, **reply: Any) -> EvalRow:
    row = eval_row("b", "A", tags={"task": task})
    answered = row.reply.model_copy(update={"score": score, "place": "segment", **reply})
    without = None if blind is None else row.reply.model_copy(update={"score": blind})
    return row.model_copy(update={"reply": answered, "blind": without})


def counted(*rows: EvalRow) -> Counts:
    counts = Counts(plan(), (MICRO, MACRO))
    for row in rows:
        counts.add(row)
    return counts


def test_protocols_stand_beside_those_of_the_question_alone() -> None:
    rows = [scored("a", 1.0, 0.0), scored("a", 1.0, 1.0), scored("a", 0.0, 0.0), scored("b", 0.0, 1.0)]
    found = {(one.protocol, one.group): one for one in counted(*rows).figures()}
    micro, macro = found["micro", ""], found["macro", ""]
    assert (micro.value, micro.question_only, micro.n, micro.scale) == (0.5, 0.5, 4, 100)
    assert macro.value == pytest.approx((2 / 3 + 0) / 2) and macro.question_only == pytest.approx(
        (1 / 3 + 1) / 2
    )
    assert found["mean", "a"].value == pytest.approx(2 / 3) and found["mean", "b"].n == 1
    assert micro.low is not None and micro.high is not None and micro.low < 0.5 < micro.high


def test_failed_and_unreadable_rows_are_wrong_and_unusable_references_count_nowhere() -> None:
    lost = scored("a", 0.0, failed="media_missing", detail="no such file", place="")
    bad = bad_row(BadRow(source="b", row=7, reason=RejectReason.BAD_ROW, detail="no question", raw="{}"))
    counts = counted(scored("a", 1.0), lost, bad, scored("b", None))
    assert (counts.questions, counts.answered, counts.unscored) == (4, 2, 1)
    assert counts.failed == {"media_missing": 1, "bad_row": 1}
    assert counts.examples == {"media_missing": "no such file", "bad_row": "no question"}
    found = {one.protocol: one for one in counts.figures() if not one.by}
    assert found["micro"].value == pytest.approx(1 / 3) and found["micro"].n == 3
    assert found["macro"].value == pytest.approx(0.5 * 2 / 3), "wrong in its share of every task, and no task"


def unreadable(row: int, **tags: str) -> EvalRow:
    return bad_row(BadRow(source="b", row=row, reason=RejectReason.BAD_ROW, detail="no question", tags=tags))


def test_an_unreadable_row_is_wrong_in_its_own_task_if_that_can_be_read() -> None:
    some = Aggregate(id="some", only={"task": ("a",)})
    rows = [scored("a", 1.0), scored("a", 1.0), scored("b", 1.0), unreadable(3, task="b", problem_type="OCR")]
    counts = Counts(plan(), (MACRO, some, Aggregate(id="types", how="macro", by="problem_type")))
    for row in rows:
        counts.add(row)
    found = {(one.protocol, one.group): [one.value, one.n] for one in counts.figures()}
    assert found["macro", ""] == [pytest.approx((1 + 1 / 2) / 2), 4]
    assert found["some", ""] == [1.0, 2] and found["mean", "b"] == [0.5, 2]
    assert found["types", ""] == [pytest.approx((3 / 3 + 0) / 2), 4], "OCR is a type with one wrong answer"
    counts.add(unreadable(4))
    found = {(one.protocol, one.group): [one.value, one.n] for one in counts.figures()}
    assert found["macro", ""] == [pytest.approx(0.75 * 4 / 5), 4]
    assert found["some", ""] == [pytest.approx(4 / 5), 2], "one in five of any task may be such a row"


RELEVANCE = Aggregate(id="relevance", how="groups", by="group", curve="relevance")
LOGIC = Aggregate(id="logic", how="groups", by="group", curve="logic")


def of_groups(*rows: EvalRow, whole: bool = True) -> dict[str, list[Any]]:
    counts = Counts(plan(), (RELEVANCE, LOGIC), whole)
    for row in rows:
        counts.add(row)
    return {one.protocol: [one.value, one.n] for one in counts.figures() if not one.by}


def in_group(group: str, score: float) -> EvalRow:
    cells = [TagCell(name="group", value=group)]
    return scored("a", score).model_copy(update={"tags": cells})


def test_a_group_with_an_unreadable_row_stays_with_that_row_wrong() -> None:
    whole = [in_group("x", 1.0)] * 4
    three = [in_group("y", 1.0)] * 3
    # x is worth 1; y has three of four: (3/4)^2; its chain breaks at the second: 1 of 1 + 3 + 5 + 7
    second = [three[0], unreadable(5, group="y"), *three[1:]]
    assert of_groups(*whole, *second) == {
        "relevance": [pytest.approx((1 + 9 / 16) / 2), 8], "logic": [pytest.approx((1 + 1 / 16) / 2), 8],
    }  # fmt: skip
    # nobody knows where it was: y lacks one all the same, and its chain is worth nothing
    lost = {"relevance": [pytest.approx((1 + 9 / 16) / 2), 8], "logic": [0.5, 8]}
    assert of_groups(*whole, *three, unreadable(7)) == lost
    assert of_groups(*whole, *three) == lost, "a row that the files lack is wrong too"
    assert of_groups(*whole, *three, whole=False)["relevance"] == [1.0, 4], "a draw leaves parts of groups"
    # five that nobody knows, one of which y lacks: the other four are spread over the eight
    spread = of_groups(*whole, *three, *map(unreadable, range(7, 12)))
    assert spread["relevance"] == [pytest.approx((1 + 9 / 16) / 2 * 8 / 12), 8]


def test_what_reached_the_model_is_of_the_answered_questions() -> None:
    seen = {"frame_indices": [0, 5], "frame_width": 28, "frame_height": 56}
    rows = [
        scored("a", 1.0, input_tokens=100, output_tokens=7, finish="length").model_copy(update=seen),
        scored("a", 0.0, input_tokens=300, output_tokens=9),
        scored("a", 0.0, failed="call_refused", input_tokens=0),
    ]
    counts = counted(*rows)
    sent, told = counts.measured_behind(), counts.told()
    assert sent.frames is not None and (sent.frames.low, sent.frames.high) == (2, 2)
    assert sent.pixels is not None and sent.pixels.mean == 28 * 56
    assert sent.input_tokens is not None and (sent.input_tokens.low, sent.input_tokens.mean) == (100, 200)
    assert told.cut == 1 and told.places == {"segment": 2} and told.well_formed is None


@given(rows=st.integers(0, 60), sample=st.integers(1, 70), seed=st.integers(0, 3), start=st.integers(0, 20))
def test_a_sample_has_its_size_grows_with_it_and_asks_no_row_before_the_start(
    rows: int, sample: int, seed: int, start: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pool")
    row = {"problem": "?", "problem_type": "numerical", "data_type": "text", "solution": "1"}
    lines = [json.dumps(row | {"problem_id": str(i), "problem": f"{i}?"}) + "\n" for i in range(rows + 1)]
    (folder / "rows.jsonl").write_text("".join(lines))
    place = Workspace.at(folder / "out", base=folder)

    def drawn(size: int) -> set[int]:
        pool = {"path": "./rows.jsonl", "sample": size, "sample_seed": seed, "start": start}
        wanted = chosen(plan(pool), place)
        every = (_sample(i) for i in range(rows + 1))
        return {one.row for one in every if wanted(one)}

    some, more = drawn(sample), drawn(sample + 1)
    assert len(some) == min(sample, max(0, rows + 1 - start)) and some <= more
    assert all(row >= start for row in more)


def _sample(row: int) -> Sample:
    asked = {"problem": f"{row}?", "problem_type": "numerical", "data_type": "text", "solution": "1"}
    names = {"sample_id": f"rows/{row}", "problem_id": str(row), "source": "rows", "row": row}
    return Sample.model_validate(asked | names)


def test_nothing_is_asked_where_most_media_are_missing(tmp_path: Path) -> None:
    row = {"problem": "?", "problem_type": "numerical", "data_type": "image", "solution": "1"}
    lines = [json.dumps(row | {"problem_id": str(i), "path": f"{i}.png"}) + "\n" for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    Image.new("RGB", (56, 56)).save(tmp_path / "0.png")
    place = Workspace.at(tmp_path / "out", base=tmp_path)
    pool = plan({"path": "./rows.jsonl", "media_root": "."})
    report = asyncio.run(look_at(pool, place))
    assert report.sources[0].files == 4 and report.sources[0].files_ok == 1
    with pytest.raises(ConfigError, match=r"3 of 4 media files[\s\S]*1\.png[\s\S]*media_root"):
        admit(pool, report)
    admit(pool.model_copy(update={"max_missing": 0.75}), report)


def test_which_rows_are_asked_is_said() -> None:
    pools = plan("demo", {"path": "./x", "limit": 1200}, {"path": "./y", "sample": 5, "start": 2}).benchmarks
    told = ["", "the first 1,200", "5 drawn with seed 0, from row 2 on"]
    assert [selection(pool) for pool in pools] == told


def test_a_row_on_the_page_says_right_or_wrong_and_why() -> None:
    text = "<observation>o</observation><think>t</think><answer>A</answer>"
    row = scored("a", 1.0, 0.0, text=text)
    right = entry_of(row, default_grammar(), {"other": "wrong"})
    assert (right.outcome, right.reason, right.reward) == ("accepted", "", 1.0)
    assert right.tags["task"] == "a" and right.tags["question only"] == "wrong"
    assert right.tags["other"] == "wrong" and ("observation", "o") in right.parts
    half = entry_of(scored("a", 0.5, reason="partial"), default_grammar())
    assert (half.outcome, half.reason, half.stage, half.tags["score"]) == (
        "rejected", "partial", "score", "partly right",
    )  # fmt: skip
    lost = entry_of(scored("a", 0.0, failed="media_missing"), default_grammar())
    assert (lost.outcome, lost.stage, lost.reason) == ("failed", "media", "media_missing")


def test_tables_hold_what_strangers_wrote_as_text() -> None:
    counts = counted(scored("| <b>x</b> `", 1.0), scored("b\n# y", 0.0, failed="call_refused", detail="<i>"))
    one = BenchmarkResult(
        name="b", title="B | <img>", revision="", layout="", rows_expected=9, rows_found=2, rows_bad={},
        rows_differ=("2 rows, 9 are published",), selection="", questions=2, answered=1,
        failed=dict(counts.failed), examples=counts.examples, unscored=0, figures=counts.figures(),
        told=counts.told(), sent=counts.measured_behind(), calls=2, usd=None, pool_sha256="", file="",
        file_sha256="",
    )  # fmt: skip
    text = render_tables(
        EvalResult(name="n", plan={}, model="m`|", served={}, prompts={}, versions={}, benchmarks=(one,))
    )
    assert "<b>" not in text and "<img>" not in text and "<i>" not in text and "\n# y" not in text
    assert "2 of 9 rows" in text and "not the published rows: 2 rows, 9 are published" in text
