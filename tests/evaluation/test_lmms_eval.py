"""Results for lmms-eval: its logs as `from_log` and its own logger have them, and tasks with our reader.

Nothing of lmms-eval is needed here: what it reads and writes is described below, and benchmarks/lmms_bridge.py
holds it against the real one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks._blank import blank
from tests.evaluation.rows import eval_row
from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.cli.train import app
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation import NO_ANSWER, TaskReader, export_logs, plain_answer, write_tasks
from videop2r_data.evaluation.page import read_rows
from videop2r_data.evaluation.result import read_result
from videop2r_data.schemas import BenchmarkResult, EvalResult, EvalRow, arrow_schema

PETS = ["A. cat", "B. dog", "C. cow"]

LINE = {"doc_id": int, "target": str, "filtered_resps": str, "resps": list, "input": str,
        "token_counts": list, "doc_hash": str}  # fmt: skip
"""A line of `*_samples_TASK.jsonl` of lmms-eval 0.7.3 (loggers/evaluation_tracker.py), less what graders add."""


def from_log(folder: Path) -> dict[str, dict[int, str]]:
    """What `models/simple/from_log.py` of 0.7.3 takes out of a folder: task -> document -> response."""
    found: dict[str, dict[int, str]] = {}
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        assert {"model", "model_args", "limit"} <= set(data["args"]) and data["args"]["limit"] is None
        assert len(data["time"]) == 9 and data["time"][4] == "_"
        found[data["model_configs"]["task"]] = {one["doc_id"]: one["resps"][0][0] for one in data["logs"]}
    return found


def result_in(folder: Path, rows: dict[str, list[EvalRow]], **changes: Any) -> Path:
    """The folder of a result with these rows, each benchmark in lmms-eval's layout."""
    (folder / "rows").mkdir(parents=True)
    done = []
    for name, some in rows.items():
        table = pa.Table.from_pylist([r.model_dump(mode="json") for r in some], schema=arrow_schema(EvalRow))
        pq.write_table(table, folder / "rows" / f"{name}.parquet")
        declared = load_benchmark(name).lmms_eval
        said: dict[str, Any] = {"name": name, "title": name, "questions": len(some), "answered": len(some)}
        said |= {"layout": declared.layout if declared else "hub", "file": f"rows/{name}.parquet"}
        done.append(BenchmarkResult.model_validate(blank(BenchmarkResult) | said | changes))
    plan = {"benchmarks": [{"name": name, "benchmark": name} for name in rows]}
    told = {"plan": plan, "model": "org/model", "benchmarks": tuple(done)}
    result = EvalResult.model_validate(blank(EvalResult) | told)
    (folder / "result.json").write_text(result.model_dump_json())
    return folder


def mvbench(task: str, answer: str | None, text: str = "") -> EvalRow:
    return eval_row("mvbench", answer, options=PETS, tags={"task": task}, text=text)


def test_answers_stand_where_from_log_and_the_logger_have_them(tmp_path: Path) -> None:
    whole = "<observation>Building A.</observation><think>So.</think><answer>B</answer>"
    rows = [
        mvbench("action_count", "B", whole),
        mvbench("state_change", "(C) cow"),
        mvbench("action_count", None),
    ]
    folder = result_in(
        tmp_path / "result", {"mvbench": rows, "video-mme": [eval_row("video-mme", "A", options=PETS)]}
    )
    done = export_logs(folder, tmp_path / "out")
    assert from_log(tmp_path / "out") == {
        "mvbench_action_count": {0: "B", 1: NO_ANSWER},
        "mvbench_state_change": {0: "C"},
        "videomme": {0: "A"},
    }
    assert [(one.benchmark, sum(one.tasks.values()), one.unanswered, one.no_log) for one in done] == [
        ("mvbench", 3, 1, ""),
        ("video-mme", 1, 0, ""),
    ]
    lines = (tmp_path / "out" / "org__model" / "samples_mvbench_action_count.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert {name: type(line[name]) for name in LINE} == LINE
    assert json.loads(lines[0])["resps"] == [whole] and json.loads(lines[0])["filtered_resps"] == "B"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layout": "video-r1"}, "have video-r1"),
        ({"layout": ""}, "an unknown one"),
        ({"selection": "300 drawn by their ids"}, "an answer to every question"),
    ],
)
def test_no_log_where_the_place_of_a_row_is_not_that_of_its_document(
    tmp_path: Path, changes: dict[str, str], why: str
) -> None:
    folder = result_in(tmp_path / "result", {"mvbench": [mvbench("action_count", "B")]}, **changes)
    (done,) = export_logs(folder, tmp_path / "out")
    assert why in done.no_log and from_log(tmp_path / "out") == {}
    assert (tmp_path / "out" / "org__model" / "samples_mvbench_action_count.jsonl").is_file()


def test_rows_that_cannot_be_read_leave_the_places_behind_them_open(tmp_path: Path) -> None:
    bad = eval_row("mvbench", None, problem_type="")
    rows = {"mvbench": [bad, mvbench("action_count", "B")]}
    (done,) = export_logs(result_in(tmp_path / "a", rows, rows_bad={"bad_row": 1}), tmp_path / "out-a")
    assert "cannot be read" in done.no_log and done.outside == 1
    one = {
        "video-mme": [eval_row("video-mme", None, problem_type=""), eval_row("video-mme", "B", options=PETS)]
    }
    (done,) = export_logs(result_in(tmp_path / "b", one, rows_bad={"bad_row": 1}), tmp_path / "out-b")
    assert not done.no_log and from_log(tmp_path / "out-b") == {"videomme": {0: NO_ANSWER, 1: "B"}}


def test_rows_in_more_than_one_file_are_all_there(tmp_path: Path) -> None:
    folder = result_in(tmp_path / "result", {"mvbench": [mvbench("action_count", x) for x in "ABC"]})
    path = folder / "rows" / "mvbench.parquet"
    table = pq.read_table(path)
    pq.write_table(table[:2], path)
    pq.write_table(table[2:], path.with_name("mvbench-1.parquet"))
    assert [row.reply.answer for row in read_rows(folder, read_result(folder))] == ["A", "B", "C"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        ConfigError, match=r"rows/mvbench\.parquet: not a readable .*\n  p2r-train eval --rescore"
    ):
        export_logs(folder, tmp_path / "out")


def test_a_tag_of_a_row_never_names_a_file_elsewhere(tmp_path: Path) -> None:
    rows = {"mvbench": [mvbench("../../../x", "B"), mvbench("action_count", "B")]}
    (done,) = export_logs(result_in(tmp_path / "result", rows), tmp_path / "out")
    assert done.outside == 1 and {p.name for p in tmp_path.iterdir()} == {"result", "out"}


def test_nothing_to_export_is_an_error(tmp_path: Path) -> None:
    demo = result_in(tmp_path / "result", {"vcr-bench": [eval_row("vcr-bench", "B", options=PETS)]})
    with pytest.raises(ConfigError, match=r"nothing to export: vcr-bench: lmms-eval has no task for it"):
        export_logs(demo, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match="holds something"):
        export_logs(demo, tmp_path / "full")


@pytest.mark.parametrize(
    ("answer", "in_words", "given"),
    [
        ("B", False, "B"),
        ("B. dog", False, "B"),
        ("dog", False, "B"),
        ("B", True, "dog"),
        ("B. cat", False, NO_ANSWER),
        ("A or B", False, NO_ANSWER),
        ("not A", False, NO_ANSWER),
        ("Apple", False, NO_ANSWER),
        ("A, B", False, NO_ANSWER),
        ("", False, NO_ANSWER),
        (" ", True, NO_ANSWER),
        (None, True, NO_ANSWER),
    ],
)
def test_one_option_or_none(answer: str | None, in_words: bool, given: str) -> None:
    assert plain_answer(answer, "multiple choice", PETS, in_words=in_words) == given


@given(st.text(max_size=60))
def test_a_choice_is_never_exported_as_anything_but_an_option(text: str) -> None:
    assert plain_answer(text, "multiple choice", PETS) in {"A", "B", "C", NO_ANSWER}
    assert plain_answer(text, "regression", []) == (text.strip() or NO_ANSWER)


# --- the tasks ---


@pytest.fixture
def lmms_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name with two tasks as lmms-eval writes them down."""
    tasks = tmp_path / "site" / "lmms_eval" / "tasks"
    for folder, text in {
        "videomme": "dataset_path: lmms-eval/Video-MME\ntask: videomme\ntest_split: test\n",
        "mvbench": "include: _default_template_yaml\ntask: mvbench_action_count\ndataset_name: action_count\n",
        "other": "task:\n- videomme\n",
    }.items():
        (tasks / folder).mkdir(parents=True)
        (tasks / folder / "task.yaml").write_text(text)
    (tasks.parent / "__init__.py").write_text("raise RuntimeError('not to be imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "lmms_eval", raising=False)
    return tasks


def test_its_tasks_are_written_once_more(lmms_eval: Path, tmp_path: Path) -> None:
    out = tmp_path / "tasks"
    assert write_tasks(out) == ["p2r_mvbench_action_count", "p2r_videomme"]
    text = (out / "p2r_mvbench_action_count.yaml").read_text()
    read = yaml.safe_load(text.replace("!function ", ""))
    assert read["include"] == str(lmms_eval / "mvbench" / "task.yaml")
    assert read["task"] == "p2r_mvbench_action_count"
    assert read["process_results"] == "p2r_mvbench_action_count.process_results"
    assert read["generation_kwargs"]["max_new_tokens"] >= 1024
    module = (out / "p2r_mvbench_action_count.py").read_text()
    assert "TaskReader('mvbench', part='action_count')" in module
    compile(module, "p2r_mvbench_action_count.py", "exec")


def test_without_lmms_eval_the_command_says_where_to_run_it(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["export-lmms", "--tasks", str(tmp_path / "tasks")])
    assert ran.exit_code != 0 and isinstance(ran.exception, ConfigError | SystemExit)
    assert not (tmp_path / "tasks").exists()


def test_a_document_is_read_and_asked_as_its_declaration_has_it() -> None:
    reader = TaskReader("mvbench", part="action_count")
    doc = {"video": "v.mp4", "question": "Which pet?", "candidates": ["cat", "dog"], "answer": "dog"}
    asked = reader.ask(doc)
    assert "Which pet?" in asked and "B. dog" in asked and "<observation>" in asked
    whole = "<observation>Building A.</observation><think>So.</think><answer>{}</answer>"
    assert [reader.answer(doc, whole.format(x)) for x in ("B", "dog", "A or B")] == ["B", "B", NO_ANSWER]
    assert reader.answer(doc, "<observation>Building A. It looks like A") == NO_ANSWER
    with pytest.raises(ConfigError, match="a document that the declaration cannot read"):
        reader.answer({"question": "Which pet?"}, "B")
    with pytest.raises(ConfigError, match="no task"):
        TaskReader("vcr-bench")


def test_texts_are_given_where_the_grader_compares_texts() -> None:
    reader = TaskReader("tempcompass", part="yes_no")
    doc = {"video_id": "1", "question": "Does it move?", "answer": "no", "dim": "action"}
    assert reader.answer(doc, "<think>Hm.</think><answer>No</answer>") == "no"


def test_every_declared_task_has_a_layout_that_reads_documents() -> None:
    named = [name for name in packaged_benchmarks() if load_benchmark(name).lmms_eval]
    assert len(named) == 10
    for name in named:
        TaskReader(name)


def test_the_command_says_what_became_of_each_benchmark(tmp_path: Path) -> None:
    rows = {"mvbench": [mvbench("action_count", "B"), mvbench("action_count", None)]}
    folder = result_in(tmp_path / "result", rows)
    ran = CliRunner().invoke(app, ["export-lmms", str(folder), str(tmp_path / "out")])
    assert ran.exit_code == 0 and "mvbench: 2 answers of 1 task" in ran.stdout
    assert "1 without an answer" in ran.stdout and "--tasks mvbench_action_count" in ran.stdout
    ran = CliRunner().invoke(app, ["export-lmms", str(folder), str(tmp_path / "json"), "--json"])
    assert json.loads(ran.stdout)["benchmarks"][0]["tasks"] == {"mvbench_action_count": 2}
    assert CliRunner().invoke(app, ["export-lmms", str(folder)]).exit_code == 2
