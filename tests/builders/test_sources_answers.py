"""Whole-number answers, columns that are not there, and paths that lead nowhere: told once, before any row."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.pools import read_pool
from videop2r_data.builders.checks.run import check_pool
from videop2r_data.builders.sources import open_source
from videop2r_data.builders.sources.answers import OptionsError, read_options
from videop2r_data.builders.workspace import Shard
from videop2r_data.errors import SourceError
from videop2r_data.schemas import BadRow
from videop2r_data.schemas.recipe import ColumnMapping, Recipe, SourceSpec
from videop2r_data.schemas.sample import Sample
from videop2r_data.schemas.verdict import RejectReason

COLUMNS = ColumnMapping(problem="q", solution="a", path="v", options="o")
OPTIONS = ["cat", "dog", "cow", "hen"]


def spec(path: str = "pool.jsonl", **settings: Any) -> SourceSpec:
    given = {"kind": "dataset", "columns": COLUMNS, "problem_type": "mcq", "data_type": "video"} | settings
    return SourceSpec(name="pool", path=path, **given)


def pool(folder: Path, answers: list[Any], options: Any = OPTIONS) -> None:
    rows = [{"q": f"Which {i}?", "a": a, "v": f"{i}.mp4", "o": options} for i, a in enumerate(answers)]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def letters(folder: Path, **settings: Any) -> str:
    rows = open_source(spec(**settings), base=folder).rows()
    return "".join(row.reference if isinstance(row, Sample) else "-" for row in rows)


@pytest.mark.parametrize(
    ("answers", "read"),
    [
        ([1, 0, 3], "BAD"),
        ([1, 4, 3], "ADC"),
        (["1", "4", 3.0], "ADC"),
        (["<answer>2</answer>", "0"], "CA"),
        ([3, "B", "dog", 0], "DBBA"),
        ([7, 0], "-A"),
        ([-1, 4], "-D"),
        ([True, 4], "-D"),
        (["B", "dog"], "BB"),
    ],
)
def test_the_pool_as_a_whole_says_what_index_answers_count_from(
    tmp_path: Path, answers: list[Any], read: str
) -> None:
    pool(tmp_path, answers)
    assert letters(tmp_path) == read
    pool(tmp_path, answers[::-1])
    assert letters(tmp_path) == read[::-1]
    assert letters(tmp_path, limit=1) == read[-1]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([1, 2, "A"], r"2 answers are whole numbers that may count from 0 or from 1 \(row 0: answer 1 of 4"),
        (
            [1, 0, 4],
            r"count from 0 \(row 1: answer 0 of 4 options\) and from 1 \(row 2: answer 4 of 4 options\)",
        ),
    ],
)
def test_a_pool_that_leaves_it_open_asks_for_the_setting(
    tmp_path: Path, answers: list[Any], message: str
) -> None:
    pool(tmp_path, answers)
    with pytest.raises(SourceError, match=message) as caught:
        letters(tmp_path)
    assert "answer_base" in (caught.value.hint or "")
    assert letters(tmp_path, answer_base=0) == "".join(
        "ABCDE"[a] if isinstance(a, int) and a < 4 else a if a == "A" else "-" for a in answers
    )
    assert letters(tmp_path, answer_base=1) == "".join(
        "ABCD"[a - 1] if isinstance(a, int) and a else a if a == "A" else "-" for a in answers
    )


@pytest.mark.parametrize(
    ("options", "answers", "settings", "read"),
    [
        (["4", "3", "5"], ["3", "5"], {}, "BC"),
        (["4", "3", "5"], [3, 4], {"answer_base": "text"}, "BA"),
        (["4", "3", "2", "1", "0"], [0, 3], {"answer_base": 0}, "AD"),
        (["4", "3", "2", "1", "0"], [0, 3], {}, "--"),  # an index and a text that differ
        (["1", "3", "4"], [2, "2"], {}, "--"),  # no option is 2, and no index may be meant
        (["1. x", "2. y"], [2, "1"], {}, "BA"),
        (["CO", "Co"], ["Co", "CO"], {}, "BA"),
    ],
)
def test_options_that_are_numbers_themselves(
    tmp_path: Path, options: list[str], answers: list[Any], settings: dict[str, Any], read: str
) -> None:
    pool(tmp_path, answers, options)
    assert letters(tmp_path, **settings) == read


@pytest.mark.parametrize(
    ("options", "answer", "read"),
    [
        (OPTIONS, "A,C", "A,C"),
        (OPTIONS, "(B), (C)", "(B), (C)"),
        (OPTIONS, ["A", "C"], "A, C"),
        (["1. x", "2. y", "3. z"], "3,1", "C, A"),
        (["1. x", "2. y", "3. z"], "1,4", "-"),
        (["x, y", "y, x"], "y, x", "B"),
        (OPTIONS, "A,E", "-"),
        (OPTIONS, "A or C", "-"),
        (OPTIONS, "1,3", "-"),  # indexes from 0 or from 1: nobody can tell
    ],
)
def test_several_options_that_are_right_together(
    tmp_path: Path, options: list[str], answer: Any, read: str
) -> None:
    pool(tmp_path, [answer], options)
    assert letters(tmp_path) == read


@pytest.mark.parametrize(
    ("answer", "options", "settings", "read"),
    [
        ([0, 2], ["2", "0", "5"], {"answer_base": 0}, "A, C"),
        ([1, 3], ["3", "1", "7"], {"answer_base": 1}, "A, C"),
        ([0, 2], ["2", "0", "5"], {"answer_base": "text"}, "B, A"),
        ([0, 2], OPTIONS, {"answer_base": 0}, "A, C"),
        ([0, 2], ["2", "0", "5"], {}, None),
        ([2, 5], ["2", "0", "5"], {}, "A, C"),
        ([1, 3], ["1. cat", "2. dog", "3. cow"], {}, "A, C"),
        ([0, 9], OPTIONS, {"answer_base": 0}, None),
    ],
)
def test_lists_of_whole_numbers_are_read_as_single_ones_are(
    tmp_path: Path, answer: list[int], options: list[str], settings: dict[str, Any], read: str | None
) -> None:
    pool(tmp_path, [answer], options)
    (row,) = open_source(spec(**settings), base=tmp_path).rows()
    if read is None:
        assert isinstance(row, BadRow) and row.reason is RejectReason.BAD_REFERENCE
    else:
        assert isinstance(row, Sample) and row.reference == read


def test_options_by_number_stand_in_the_order_of_their_numbers() -> None:
    """JSON that was written with sorted keys has "10" before "2"."""
    by_number = {str(n): f"text {n}" for n in sorted(range(1, 12), key=str)}
    read, _ = read_options(by_number)
    assert [option[3:] for option in read] == [f"text {n}" for n in range(1, 12)]
    assert read_options({"1": "one", "0": "zero"})[0] == ("A. zero", "B. one")
    with pytest.raises(OptionsError, match="twice"):
        read_options({"1": "one", "01": "another"})


def test_formulas_that_begin_alike_have_no_letters_and_letters_that_do_not_rise_are_refused() -> None:
    read, _ = read_options(["R.L at C = a + b", "R.L at C = a - b"])
    assert read == ("A. R.L at C = a + b", "B. R.L at C = a - b")
    for texts in (["R. cat", "R. dog"], ["R.cat", "S.cow"], ["A.cat", "A.dog"]):
        with pytest.raises(OptionsError, match="must rise from A"):
            read_options(texts)


def test_every_share_of_a_pool_reads_the_same(tmp_path: Path) -> None:
    pool(tmp_path, [1, 2, 3, 1, 2, 4])
    whole = {r.sample_id: r.reference for r in read_pool([spec()], base=tmp_path) if isinstance(r, Sample)}
    shared: dict[str, str] = {}
    for index in range(1, 4):
        rows = filter(Shard.parse(f"{index}/3").owns, read_pool([spec()], base=tmp_path))
        shared |= {r.sample_id: r.reference for r in rows if isinstance(r, Sample)}
    assert shared == whole and "".join(whole.values()) == "ABCABD"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("cat\ndog", 2),
        ("A. cat\nB. dog\n", 2),
        ("(A) cat\n(B) dog", 2),
        ("cat | dog|hen", 3),
        ("A: x|B: y", 2),
    ],
)
def test_options_in_one_text(text: str, count: int) -> None:
    read, _ = read_options(text)
    assert len(read) == count and read[0][:2] == "A."


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"problem": "question"}, "no column for problem: question; there are: q, a, v, o"),
        ({"problem": "question", "options": "choices"}, "problem: question, options: choices"),
        ({"path": "Vv"}, "did you mean 'v' for 'Vv'"),
        ({"options": ("o1", "o2")}, "options: o1, options: o2"),
        ({"data_source": "origin"}, "data_source: origin"),
        ({"problem_id": "a.b.c"}, ""),
        ({"problem_type": "kind"}, "problem_type: kind"),
        ({"options": None}, "no column for options"),
        ({"path": None}, "no column for path"),
    ],
)
def test_a_column_that_is_not_there_is_one_error(tmp_path: Path, columns: dict[str, Any], told: str) -> None:
    pool(tmp_path, ["A"] * 30)
    source = open_source(spec(columns=COLUMNS.model_copy(update=columns)), base=tmp_path)
    if not told:
        source.check()
        return
    with pytest.raises(SourceError) as caught:
        source.check()
    assert told in str(caught.value)
    with pytest.raises(SourceError):
        next(iter(source.rows()))


def test_another_word_is_not_offered_for_a_column(tmp_path: Path) -> None:
    """`question` is as near to `solution` as letters go, and holds something else."""
    (tmp_path / "q.csv").write_text("Question,Answer\nWho?,me\n")
    source = open_source(spec(path="q.csv", columns=ColumnMapping()), base=tmp_path)
    with pytest.raises(SourceError, match="solution: solution") as caught:
        source.check()
    assert "did you mean" not in str(caught.value)


def test_no_value_for_all_rows_and_no_column(tmp_path: Path) -> None:
    pool(tmp_path, ["A"])
    none = COLUMNS.model_copy(update={"problem_type": None, "data_type": None})
    with pytest.raises(
        SourceError, match=r"null for problem_type and data_type.*\n.*set `problem_type` of this"
    ):
        open_source(spec(columns=none, problem_type=None, data_type=None), base=tmp_path).check()
    with pytest.raises(SourceError, match="no column for problem_type: problem_type, data_type: data_type"):
        open_source(spec(problem_type=None, data_type=None), base=tmp_path).check()


def test_all_sources_are_checked_before_the_first_row_of_any(tmp_path: Path) -> None:
    pool(tmp_path, ["A"] * 3)
    other = spec().model_copy(update={"name": "b", "columns": ColumnMapping(problem="nope")})
    with pytest.raises(SourceError, match="'b'"):
        next(iter(read_pool([spec(), other], base=tmp_path)))


def test_a_column_that_only_a_late_row_has_is_there(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"q": "?", "a": "x", "v": "a.mp4", "problem_type": "OCR"} for _ in range(300)
    ]
    rows.append(rows[0] | {"o": ["x", "y"], "problem_type": "mcq"})
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    late = list(open_source(spec(problem_type=None), base=tmp_path).rows())
    assert len(late) == 301 and not any(isinstance(row, BadRow) and "options" in row.detail for row in late)


@pytest.mark.parametrize("kind", ["video-r1", "dataset"])
def test_a_pool_without_a_row_is_an_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pool.json").write_text("[]")
    with pytest.raises(SourceError, match="the pool holds no row"):
        list(open_source(spec("pool.json", kind=kind), base=tmp_path).rows())


@pytest.mark.parametrize("kind", ["video-r1", "dataset"])
@pytest.mark.parametrize(
    "path", ["pol.jsonl", "./pool.jsnol", "data/questions.csv", "nowhere", "a/b/c", "sub/pool"]
)
def test_a_typo_in_a_path_asks_nobody(
    tmp_path: Path, path: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool(tmp_path, ["A"])
    (tmp_path / "sub").mkdir()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError) as caught:
        open_source(spec(path, kind=kind), base=tmp_path)
    told = str(caught.value)
    assert path.rpartition("/")[2] in told and ("pool.jsonl" in told or "pol" not in path)


def test_kind_video_r1_names_the_kind_for_a_table(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("q,a\n")
    with pytest.raises(SourceError, match=r"reads JSON, p\.csv is none[\s\S]*kind: dataset"):
        open_source(spec("p.csv", kind="video-r1"), base=tmp_path)


def recipe_of(path: str = "pool.jsonl", **settings: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "x", "sources": [spec(path, **settings).model_dump(mode="json")],
         "generate": {"backend": {"kind": "demo", "model": "m"}}}
    )  # fmt: skip


def test_check_reports_such_a_pool_as_wrong(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text("")
    (tmp_path / "pool.json").write_text("[]")
    (tmp_path / "pool.parquet").write_text("PAR1")
    for path in ("pool.json", "pool.jsonl", "pool.parquet"):
        report = asyncio.run(check_pool(recipe_of(path), base=tmp_path))
        assert not report.ok and report.sources[0].error


def test_check_says_what_was_read_from_the_pool_as_a_whole(tmp_path: Path) -> None:
    cases: list[tuple[list[Any], dict[str, Any], bool]] = [
        ([1, 4], {}, True), ([1, 4], {"answer_base": 1}, False), (["A"], {}, False),
    ]  # fmt: skip
    for answers, settings, said in cases:
        pool(tmp_path, answers)
        report = asyncio.run(check_pool(recipe_of(**settings), base=tmp_path))
        assert ("answers are indices from 1" in report.sources[0].note) is said
