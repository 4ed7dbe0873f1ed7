"""A benchmark of one's own is one YAML file; layouts, steps and paths, by hand-made rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.rows import publish
from tests.shared import samples_dir
from videop2r_data.benchmarks import RowCounts, count_faults, load_benchmark
from videop2r_data.builders.sources import BenchmarkSource, open_source
from videop2r_data.builders.sources.answers import option_meant, read_options, split_options
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.schemas import BadRow, Benchmark, EvalPlan, Expected, Sample, SourceSpec
from videop2r_data.validators import ScoredRow, aggregate

VIDEO_R1_LINES = """
        benchmark: 1
        name: {name}
        title: Lines of Video-R1
        license: unknown
        layouts:
          prompts:
            about: lines of Video-R1
            columns: {{problem_id: null, problem: question, problem_type: null, data_type: null, options: null,
                      solution: ground_truth, path: image_path}}
            problem_type: numerical
            data_type: image
        aggregates: [{{id: {name}}}]
        """
OWN = {
    "videor1_geoqa_prompts": VIDEO_R1_LINES.format(name="geoqa"),
    "videor1_superclevr_counts": VIDEO_R1_LINES.format(name="superclevr"),
    "converted_mlvu_test": """
        benchmark: 1
        name: mlvu-test
        title: MLVU test, converted
        license: cc-by-nc-sa-4.0
        layouts:
          converted:
            about: of answer-entropy-zoom
            columns: {problem_type: null, data_type: null, options: problem, path: videos,
                      tags: {task: extra_info.task_type}}
            problem_type: multiple choice
        aggregates: [{id: mlvu_test_macro, how: macro, by: task}]
        """,
}


def declare(folder: Path, only: dict[str, Any], **fields: Any) -> str:
    """Write a declaration with one layout, or with the layouts of `fields`; its path."""
    one = {"name": "own", "title": "Own", "license": "mine", "aggregates": [{"id": "own"}]} | fields
    one.setdefault("layouts", {"only": {"about": "rows", "problem_type": "mcq"} | only})
    path = folder / "own.yaml"
    path.write_text(json.dumps(one), encoding="utf-8")
    return str(path)


def opened(benchmark: str, path: Path, **settings: Any) -> BenchmarkSource:
    spec = SourceSpec(name="own", kind="benchmark", benchmark=benchmark, path=str(path), **settings)
    source = open_source(spec, base=path.parent, demo_root=path.parent / "worlds")
    assert isinstance(source, BenchmarkSource)
    return source


def read(folder: Path, layout: dict[str, Any], content: Any, **settings: Any) -> list[Sample | BadRow]:
    file = folder / "rows.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return list(opened(declare(folder, layout), file, **settings).rows())


@pytest.mark.parametrize("name", OWN)
def test_one_yaml_makes_real_rows_a_benchmark(name: str, tmp_path: Path) -> None:
    if samples_dir() is None:
        pytest.skip("no real rows on this machine")
    (tmp_path / "own.yaml").write_text(OWN[name], encoding="utf-8")
    rows = list(opened("own.yaml", publish(name, tmp_path)).rows())
    assert [row.detail for row in rows if isinstance(row, BadRow)] == []
    assert len(rows) == {"converted_mlvu_test": 10, "videor1_geoqa_prompts": 90}.get(name, 30)


COLUMNS = {"problem": "question", "solution": "answer", "problem_type": None, "data_type": None}


def test_options_leave_the_question(tmp_path: Path) -> None:
    rows = [
        {"question": "Which?\nA. one\nB. two", "answer": "B. two"},
        {"question": "Which caption?\nCaption A: a dog.\nCaption B: a cat.", "answer": "Caption A: a dog."},
        {"question": "Which?\nOption 1: up\nOption 2: down", "answer": "down"},
        {"question": "Which one?\nOption 1: up\nOption 2: down", "answer": "Option 2: down"},
        {"question": "Note: what now?\n(A) go\n(B) stay\n(C) a: b", "answer": "C"},
        {"question": "No options here", "answer": "A"},
        {"question": "Wrong letters\nB. one\nA. two", "answer": "A"},
    ]
    columns = COLUMNS | {"options": "question"}
    layout = {"columns": columns, "answer_base": "letter", "media": ["x.mp4"]}
    found = read(tmp_path, layout, rows)
    good = [row for row in found if isinstance(row, Sample)]
    assert [(row.problem, row.options, row.reference) for row in good] == [
        ("Which?", ("A. one", "B. two"), "B"),
        ("Which caption?", ("A. a dog.", "B. a cat."), "A"),
        ("Which?", ("A. up", "B. down"), "B"),
        ("Which one?", ("A. up", "B. down"), "B"),
        ("Note: what now?", ("A. go", "B. stay", "C. a: b"), "C"),
    ]
    bad = [row.detail for row in found if isinstance(row, BadRow)]
    told = 'multiple choice needs at least 1 options, got 0: "question" does not end in options, one a line'
    assert bad == [told] * 2


WORDS = st.text("ab CD.:()1", min_size=1, max_size=12).map(str.strip).filter(lambda text: text[:1].isalpha())


@given(question=WORDS, options=st.lists(WORDS, min_size=2, max_size=9, unique=True), gold=st.integers(0, 8))
def test_lettered_lines_come_apart_as_they_were_put_together(
    question: str, options: list[str], gold: int
) -> None:
    gold %= len(options)
    lines = [f"{letter}. {text}" for letter, text in zip("ABCDEFGHI", options, strict=False)]
    asked, found = split_options("\n".join([f"{question} ?", *lines]))
    read, labels = read_options(found)
    assert (asked, read) == (f"{question} ?", tuple(lines))
    assert option_meant(lines[gold], read, labels, answer_base="letter") == "ABCDEFGHI"[gold]


def test_options_that_are_known_are_cut_off_the_question(tmp_path: Path) -> None:
    rows = [
        {"question": "Why A. at all?A. he\nB. she\n", "options": {"A": "he", "B": "she"}, "answer": "A"},
        {"question": "Plain?", "options": {"A": "he", "B": "she"}, "answer": "she"},
    ]
    cut = {"make": "question", "of": "{question}", "before": "A. {options.A}"}
    layout = {"steps": [cut], "columns": COLUMNS, "media": ["x.mp4"]}
    found = read(tmp_path, layout, rows)
    assert [row.problem for row in found if isinstance(row, Sample)] == ["Why A. at all?", "Plain?"]


def test_nested_rows_and_lists_become_rows(tmp_path: Path) -> None:
    content = {"run": {"v1": {"q": ["a", "b"], "t": [[1, 2], [3, 9]], "len": 5}}}
    layout = {
        "unfold": ["task", "clip", ["q", "t"]],
        "steps": [{"make": "id", "of": "{task}-{clip}-{@n}"}],
        "length": "len",
        "columns": {
            "problem_id": "id", "problem": "q", "solution": "t", "problem_type": None, "data_type": None,
            "options": None, "tags": {"task": "task"},
        },
        "problem_type": "temporal grounding",
        "media": ["{clip}.mp4"],
    }  # fmt: skip
    found = [row for row in read(tmp_path, layout, content) if isinstance(row, Sample)]
    assert [(r.problem_id, r.path, r.reference, r.tags) for r in found] == [
        ("run-v1-0", "v1.mp4", "[1, 2]", {"task": "run"}),
        ("run-v1-1", "v1.mp4", "[3, 5]", {"task": "run"}),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([{"q": 1}], "int where 'clip' leads on"),
        ({"v1": {"c": {"q": ["a"], "t": []}}}, "lists of different lengths: q 1, t 0"),
        ({"v1": {"c": {"q": "a", "t": []}}}, '"q" is str, a list is needed'),
        ({"v1": {"c": 3}}, "int where a row is expected, inside of task 'v1', clip 'c'"),
    ],
)
def test_a_step_that_does_not_fit_says_where(content: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no layout of it fits") as caught:
        read(tmp_path, {"unfold": ["task", "clip", ["q", "t"]], "columns": COLUMNS}, content)
    assert told in caught.value.message


def test_an_entry_that_does_not_fit_takes_no_other_with_it(tmp_path: Path) -> None:
    content = {"v1": {"q": "a"}, "v2": {"q": ["?"], "options": ["x", "y"], "answer": "x"}, "v3": {"q": [1]}}
    layout = {"unfold": ["clip", ["q"]], "columns": COLUMNS | {"problem": "q"}, "media": ["{clip}.mp4"]}
    first, second, third = read(tmp_path, layout, content)
    assert isinstance(first, BadRow) and isinstance(second, Sample) and isinstance(third, BadRow)
    assert first.detail == "\"q\" is str, a list is needed, inside of clip 'v1'"
    assert (second.path, second.row, third.row) == ("v2.mp4", 1, 2)


@pytest.mark.parametrize(
    ("gold", "meant"),
    [
        ([2, 9], "[2, 5]"),
        ([[1, 2.5]], "[1.0, 2.5]"),
        ("3.74-12.63", "[3.74, 5]"),
        ("3.5-4", "[3.5, 4.0]"),
        ([6, 9], "[6, 9]"),
        ("soon", ""),
        ([], ""),
    ],
)
def test_a_gold_interval_ends_with_its_clip(gold: Any, meant: str, tmp_path: Path) -> None:
    columns = COLUMNS | {"options": None}
    layout = {"columns": columns, "length": "len", "problem_type": "temporal grounding", "media": ["x.mp4"]}
    good = {"question": "When?", "answer": [0, 1], "len": 5}
    _, found = read(tmp_path, layout, [good, good | {"answer": gold}])
    assert (found.reference if isinstance(found, Sample) else "") == meant


def test_the_error_says_of_each_layout_what_it_lacks(tmp_path: Path) -> None:
    layouts = {
        "theirs": {"about": "x", "problem_type": "mcq", "columns": COLUMNS},
        "blocks": {
            "about": "x",
            "steps": [{"make": "task", "of": "{n}", "every": 10, "values": {"0": "a"}}],
        },
    }
    file = tmp_path / "rows.json"
    file.write_text('[{"n": 12, "question": "Why?", "answer": "A"}]')
    with pytest.raises(SourceError) as caught:
        opened(declare(tmp_path, {}, layouts=layouts), file)
    assert caught.value.message.splitlines() == [
        "no layout of it fits the files; tried:",
        "  theirs: multiple choice needs at least 1 options, got 0",
        "  blocks: \"{n}\" is '1', known are: 0",
    ]
    with pytest.raises(SourceError, match="no layout 'mine'; there are: theirs, blocks"):
        opened(declare(tmp_path, {}, layouts=layouts), file, layout="mine")
    with pytest.raises(SourceError, match="no such file or folder"):
        opened("mmvu", tmp_path / "nowhere.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"validation: no file validation.json\n  lmms-eval: no file"):
        opened("mmvu", tmp_path / "empty")


ROW = {"problem_id": 1, "question": "Why?", "options": ["a", "b"], "answer": "a"}


def test_the_first_place_where_a_clip_lies_counts(tmp_path: Path) -> None:
    layout = {"columns": COLUMNS, "media": ["data/{id}.mp4", "data/{id}.MP4", "../{id}.mkv"]}
    rows = [ROW | {"problem_id": x, "id": x} for x in "abc"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.MP4").touch()
    (tmp_path.parent / "c.mkv").touch()
    found = read(tmp_path, layout, rows)
    assert [row.path for row in found if isinstance(row, Sample)] == [
        "data/a.mp4",
        "data/b.MP4",
        "data/c.mp4",
    ]
    (tmp_path.parent / "c.mkv").unlink()


def test_paths_of_another_machine(tmp_path: Path) -> None:
    layout = {"columns": COLUMNS | {"path": "video"}}
    rows = [ROW | {"video": "/data/me/clips/x.mp4"}, ROW | {"problem_id": 2, "video": "y.mp4"}]
    first, second = read(tmp_path, layout, rows)
    assert isinstance(first, BadRow) and isinstance(second, Sample)
    assert "lies outside the media root" in first.detail and "set path_prefix" in first.detail
    first, second = read(tmp_path, layout, rows, path_prefix="/data/me/")
    assert isinstance(first, Sample) and first.path == "clips/x.mp4"
    first, second = read(tmp_path, layout, rows, media_root="/data/me/clips")
    assert isinstance(first, Sample) and first.path == "x.mp4"
    made = layout | {
        "media": ["{file}"],
        "steps": [{"make": "file", "of": "{video}", "after": "clips/"}],
    }
    first, second = read(tmp_path, made, rows)
    assert isinstance(first, Sample) and first.path == "x.mp4"


def test_rows_left_out_are_counted_with_the_reason(tmp_path: Path) -> None:
    layout = {
        "columns": COLUMNS | {"path": "video"},
        "leave_out": {"a judge scores them": {"kind": ["essay"]}},
    }
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([ROW | {"video": "a.mp4", "kind": "essay"}, ROW | {"video": "a.mp4"}]))
    source = opened(declare(tmp_path, layout), file)
    for _ in range(2):
        assert len(list(source.rows())) == 1
        assert source.left_out == {"a judge scores them": 1}
    assert source.note == "layout only of the benchmark own; 1 rows left out: a judge scores them"


def test_fillers_of_option_columns(tmp_path: Path) -> None:
    columns = COLUMNS | {"options": ["option0", "option1", "option2"], "path": "video", "problem_id": None}
    layout = {
        "columns": columns,
        "files": ["val-*.parquet"],
        "answer_base": 0,
        "steps": [{"make": "option2", "of": "", "when": {"option2": ["N/A"]}}],
    }
    row = {"question": "?", "option0": "a", "option1": "b", "option2": "N/A", "answer": 1, "video": "x.mp4"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "val-00000-of-00001.parquet")
    (found,) = opened(declare(tmp_path, layout), tmp_path).rows()
    assert isinstance(found, Sample)
    assert (found.options, found.reference, found.problem_id) == (("A. a", "B. b"), "B", "row-0")


def test_a_shard_is_named_by_its_folder(tmp_path: Path) -> None:
    layout = {
        "columns": COLUMNS | {"path": "video", "tags": {"part": "@part", "row": "@row"}},
        "files": ["*/*"],
    }
    for part in ("left", "right"):
        (tmp_path / part).mkdir()
        table = pa.Table.from_pylist([ROW | {"problem_id": part, "video": "x.mp4"}])
        pq.write_table(table, tmp_path / part / "test-00000-of-00001.parquet")
    found = opened(declare(tmp_path, layout), tmp_path).rows()
    assert [row.tags for row in found if isinstance(row, Sample)] == [
        {"part": "left", "row": "0"}, {"part": "right", "row": "0"},
    ]  # fmt: skip


def test_a_declaration_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    for fields, told in (
        ({"expected": {"rows": 3, "by": {"task": {"a": 1, "b": 1}}}}, "by task: 2 rows, and 3 in all"),
        ({"expected": {"rows": 2, "by": {"task": {"a": 1, "b": 1}}}}, "no layout has the tag task"),
        ({"aggregates": [{"id": "x"}, {"id": "x"}]}, "the id stands twice: x"),
        ({"aggregates": [{"id": "x", "only": {"tsak": ["a"]}}]}, "no layout has the tag tsak"),
        ({"layout": {}}, "did you mean 'layouts'"),
        ({"aggregates": [{"id": "x", "how": "macro"}]}, "macro needs by"),
        ({"aggregates": [{"id": "x", "how": "recall"}]}, "recall needs at"),
        ({"aggregates": [{"id": "x", "how": "groups"}]}, "groups needs by and curve"),
        ({"aggregates": [{"id": "x", "how": "groups", "by": "t", "curve": "steep"}]}, "'steep'"),
        ({"layouts": {"x": {"about": "x", "files": ["../*.json"]}}}, "never leaves its root"),
    ):
        path = declare(tmp_path, {}, **fields)
        with pytest.raises(ConfigError, match=told):
            load_benchmark(path)
    with pytest.raises(
        ConfigError, match=r"no benchmark 'mvbnech': neither packaged \(vsi-bench, .*\) nor a file"
    ):
        load_benchmark("mvbnech")


def test_rows_are_counted_against_the_declaration() -> None:
    expected = Expected(rows=3, by={"task": {"a": 2, "b": 1}})
    sample = Sample(
        sample_id="x/1", problem_id="1", problem="?", problem_type="numerical", data_type="text",
        solution="<answer>1</answer>", source="x", row=0, tags={"task": "a"},
    )  # fmt: skip
    counts = RowCounts()
    for row in (sample, sample, sample.model_copy(update={"tags": {"task": "b"}})):
        counts.add(row)
    assert count_faults(expected, counts) == ()
    counts.add(sample.model_copy(update={"tags": {"task": "c"}}))
    counts.add(BadRow(source="x", row=9, reason="bad_row", detail="no answer"))
    assert count_faults(expected, counts) == (
        "5 rows, 3 are published",
        "1 of them cannot be read: no answer",
        "task 'c': no such value is published",
    )
    few = RowCounts()
    few.add(sample)
    assert count_faults(expected, few) == (
        "1 rows, 3 are published", "task a: 1 rows, 2 are published", "task b: 0 rows, 1 are published",
    )  # fmt: skip


def test_groups_of_a_declaration_are_worth_what_the_authors_say(tmp_path: Path) -> None:
    def question(group: str, kind: str, structure: str, number: int) -> dict[str, Any]:
        row: dict[str, Any] = {"question_id": f"{group}-{number}", "video_id": group, "question": "Why?"}
        row |= {
            "answer": "A",
            "options": ["A. x", "B. y"],
            "group_type": kind,
            "group_structure": structure,
            "level": "1",
        }
        return row | {"second_head": "h", "third_head": "h"}

    rows = [question("001", "relevance", "[1, 2, 3, 4]", i) for i in range(4)]
    rows += [question("002", "logic", "[1, [2, 3], 4]", i) for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    read = [row for row in opened("video-mme-v2", tmp_path).rows() if isinstance(row, Sample)]
    replies = "AABAABAA"  # three of four; right, then one of two
    graded = [
        ScoredRow(float(reply == row.reference), row.tags, row.problem_type.value, row.path, place)
        for place, (row, reply) in enumerate(zip(read, replies, strict=True))
    ]
    of_groups, of_questions = (aggregate(one, graded) for one in load_benchmark("video-mme-v2").aggregates)
    assert of_groups is not None and of_questions is not None
    # (3/4)² of the first group; of the second 1 and 3 out of 1 + 3 + 3 + 5: the chain ends behind stage 2
    assert of_groups.value == pytest.approx((9 / 16 + 4 / 12) / 2)
    assert (of_questions.value, of_groups.n) == (6 / 8, 8)


def test_the_demo_world_is_a_benchmark(tmp_path: Path) -> None:
    spec = SourceSpec(name="held", kind="benchmark", benchmark="demo", demo={"rows": 3, "start": 10_000_000})
    source = open_source(spec, base=tmp_path, demo_root=tmp_path / "worlds")
    rows = [row for row in source.rows() if isinstance(row, Sample)]
    assert len(rows) == 3
    assert source.media_root is not None
    assert all((source.media_root / row.path).is_file() for row in rows if row.path)


def test_hints_go_by_tags() -> None:
    declared = load_benchmark("videommmu")
    assert isinstance(declared, Benchmark)
    sample = Sample(
        sample_id="x/1", problem_id="1", problem="?", problem_type="numerical", data_type="text",
        solution="<answer>1</answer>", source="x", row=0, tags={"track": "adaptation"},
    )  # fmt: skip
    assert "is the last frame" in declared.hint(sample)
    assert "no part of the lecture" in declared.hint(
        sample.model_copy(update={"tags": {"track": "perception"}})
    )
    assert declared.hint(sample.model_copy(update={"tags": {}})) == ""


def test_a_plan_takes_test_items_by_the_name_of_their_benchmark() -> None:
    plan = EvalPlan.model_validate({"benchmarks": ["mmvu"], "backend": {"kind": "demo", "model": "demo"}})
    (source,) = plan.recipe.sources
    assert (source.kind, source.benchmark, source.test_items) == ("benchmark", "mmvu", True)


def test_a_set_that_was_built_here_is_a_benchmark(tmp_path: Path) -> None:
    row = ROW | {"problem": "Why?", "solution": "A", "problem_type": "multiple choice", "data_type": "video"}
    row |= {"path": "a.mp4", "data_source": "x", "start_s": 1.5, "end_s": None}
    (tmp_path / "set" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "set" / "data" / "rl-00000.parquet")
    work = tmp_path / "set.build"
    work.mkdir()
    note = {"base": str(tmp_path), "recipe": {"sources": [{"name": "one", "kind": "demo"}]}}
    (work / "workspace.json").write_text(json.dumps(note))
    source = opened("p2r", tmp_path / "set")
    (found,) = source.rows()
    assert isinstance(found, Sample)
    assert (source.layout, found.start_s, found.tags) == ("rl", 1.5, {"source": "x"})
    assert source.media_root == work / "demo" / "one" / "media"
