"""One thing wrong at a time in a small valid release: exactly the right finding comes up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.builders.release_rows import (
    Rows,
    accepted,
    key,
    lock_of,
    refused,
    valid_rows,
    write_lock,
    write_ours,
    write_parquet,
)
from videop2r_data.builders.verify import Code, VerifyReport, verify_release, work
from videop2r_data.schemas.lock import BuildLock, FileLock
from videop2r_data.schemas.rows import ADDED_LATER, SftRow, arrow_schema


def codes(report: VerifyReport) -> set[str]:
    return {found.code.value for found in report.findings}


def verify(folder: Path) -> VerifyReport:
    return verify_release(folder, workers=1)


def test_the_valid_release_is_valid(tmp_path: Path) -> None:
    report = verify(write_ours(tmp_path / "made"))
    assert report.findings == []
    assert report.ok
    assert report.layout == "ours"
    assert report.configs == {"sft": 6, "rl": 9, "rejected": 5}
    assert report.rows == 20
    assert report.table == {
        "image": {"OCR": 1, "multiple choice": 1, "numerical": 1},
        "text": {"free-form": 1},
        "video": {"multiple choice": 1, "regression": 1},
    }
    assert report.outcomes == {"failed": 2, "rejected": 3}
    assert list(report.funnel) == [
        "pool/bad_row",
        "media/media_missing",
        "verify/low_score",
        "verify/missing_think",
        "judge/insufficient",
    ]
    assert report.duplicates == {"id": 0, "row": 0}
    assert report.paper is None


def put(config: str, row: int, **cells: Any) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[config][row].update(cells)

    return change


def ask(row: int, **cells: Any) -> Callable[[Rows], None]:
    """Change a question wherever it stands."""

    def change(rows: Rows) -> None:
        rows["sft"][row].update(cells)
        rows["rl"][row].update(cells)

    return change


def trace(row: int, old: str, new: str) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows["sft"][row]["output"] = rows["sft"][row]["output"].replace(old, new, 1)

    return change


def twice(**cells: Any) -> Callable[[Rows], None]:
    """The first accepted row once more, in sft and rl."""

    def change(rows: Rows) -> None:
        for config in ("sft", "rl"):
            rows[config].append(rows[config][0] | cells)

    return change


def both(row: int) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        same = refused(row, "verify", "low_score", output=valid_rows()["sft"][row]["output"], reward=0.1)
        question = {k: v for k, v in rows["sft"][row].items() if k in rows["rl"][0]}
        rows["rejected"].append(same | question)

    return change


ROW_CORRUPTIONS: list[tuple[str, Callable[[Rows], None], set[str], str]] = [
    # name, what is changed, codes, field of the first place
    ("observation", put("sft", 0, observation="something else"), {"segment_differs"}, "observation"),
    ("think", put("sft", 0, think="something else"), {"segment_differs"}, "think"),
    ("answer of the same score", put("sft", 0, answer="(B)"), {"segment_differs"}, "answer"),
    ("process", put("sft", 0, process="<think>x</think><answer>B</answer>"), {"segment_differs"}, "process"),
    ("process without tags", put("sft", 1, process="42"), {"segment_differs"}, "process"),
    ("unclosed observation", trace(0, "</observation>", ""), {"trace_fault"}, "output"),
    ("second answer tag", trace(0, "</answer>", "</answer><answer>B</answer>"), {"trace_fault"}, "output"),
    ("think before observation", put("sft", 1, output="x"), {"trace_fault"}, "output"),
    ("text behind the trace", trace(0, "</answer>", "</answer> done"), {"trace_fault"}, "output"),
    ("line break between segments", trace(0, "> <think>", ">\n<think>"), {"not_canonical"}, "output"),
    ("trailing space", trace(0, "</answer>", "</answer> "), {"not_canonical"}, "output"),
    ("reward too low for its answer", put("sft", 0, reward=0.75), {"reward_differs"}, "reward"),
    ("reward below the threshold", put("sft", 0, reward=0.25), {"below_threshold"}, "reward"),
    ("reward above 1", put("sft", 0, reward=1.5), {"bad_value"}, "reward"),
    ("reward negative", put("sft", 0, reward=-0.5), {"bad_value"}, "reward"),
    ("reward NaN", put("sft", 0, reward=float("nan")), {"bad_value"}, "reward"),
    ("reward infinite", put("sft", 0, reward=float("inf")), {"bad_value"}, "reward"),
    ("judgement No", put("sft", 0, judgement="No"), {"judgement"}, "judgement"),
    ("judgement missing though there is a judge", put("sft", 0, judgement=""), {"judgement"}, "judgement"),
    ("judge key missing", put("sft", 0, judge_key=""), {"judgement"}, "judge_key"),
    ("judge key malformed", put("sft", 0, judge_key="abc"), {"bad_key"}, "judge_key"),
    ("generation key malformed", put("sft", 0, generation_key="z" * 64), {"bad_key"}, "generation_key"),
    ("media digest missing", put("sft", 0, media_sha256=""), {"bad_key"}, "media_sha256"),
    ("media digest on text", put("sft", 3, media_sha256=key("x")), {"bad_key"}, "media_sha256"),
    ("attempt negative", put("sft", 0, attempt=-1), {"bad_value"}, "attempt"),
    ("one time less than frames", put("sft", 0, frame_times_s=[0.0]), {"frames"}, "frame_times_s"),
    ("frames out of order", put("sft", 0, frame_indices=[0, 20, 10, 30]), {"frames"}, "frame_times_s"),
    ("a frame twice", put("sft", 0, frame_indices=[0, 10, 10, 30]), {"frames"}, "frame_times_s"),
    (
        "a time that is no number",
        put("sft", 0, frame_times_s=[0.0, 0.1, float("nan"), 0.3]),
        {"frames"},
        "frame_times_s",
    ),
    ("two frames of an image", put("sft", 1, frame_indices=[0, 1], frame_times_s=[0.0, 1.0]), {"frames"}, ""),
    ("video without frames", put("sft", 0, frame_indices=[], frame_times_s=[]), {"frames"}, "frame_indices"),
    ("negative index", put("sft", 1, frame_indices=[-1]), {"frames"}, "frame_indices"),
    ("an unknown origin of times", put("sft", 0, times="guessed"), {"frames"}, "times"),
    ("times of an image", put("sft", 1, times="exact"), {"frames"}, "times"),
    ("more missing than all", put("sft", 0, media_missing=1.5), {"frames"}, "media_missing"),
    ("fps of 0", put("sft", 0, source_fps=0.0), {"frames"}, "source_fps"),
    ("not synthetic", put("sft", 0, synthetic=False), {"synthetic"}, "synthetic"),
    ("solution without tag", ask(1, solution="42"), {"bad_solution"}, "solution"),
    ("solution blank", ask(1, solution="<answer> </answer>"), {"bad_solution"}, "solution"),
    ("solution twice", ask(1, solution="<answer>1</answer><answer>42</answer>"), {"bad_solution"}, ""),
    ("another solution", ask(1, solution="<answer>43</answer>"), {"reward_differs"}, "reward"),
    ("reference that is no option", ask(0, solution="<answer>Z</answer>"), {"bad_reference"}, "solution"),
    ("reference that is no number", ask(1, solution="<answer>many</answer>"), {"bad_reference"}, "solution"),
    ("one option", ask(0, options=["B. a blue ball"]), {"bad_options"}, "options"),
    (
        "a letter twice",
        ask(0, options=["A. a", "B. a blue ball", "A. c"]),
        {"bad_options"},
        "options",
    ),
    (
        "an option without letter",
        ask(0, options=["A. a red ball", "B. a blue ball", "a green cup"]),
        {"bad_options"},
        "options",
    ),
    ("path above its root", ask(1, path="../secret.png"), {"unsafe_path"}, "path"),
    ("absolute path", ask(1, path="/etc/passwd"), {"unsafe_path"}, "path"),
    ("path as URL", ask(1, path="https://x/y.png"), {"unsafe_path"}, "path"),
    ("path with NUL", ask(1, path="a\0b.png"), {"unsafe_path"}, "path"),
    ("image without path", ask(1, path=""), {"path_and_data_type"}, "path"),
    ("text with path", ask(3, path="a.png"), {"path_and_data_type"}, "path"),
    ("unknown data type", ask(1, data_type="audio"), {"unknown_data_type"}, "data_type"),
    ("unknown problem type", ask(1, problem_type="riddle"), {"unknown_problem_type"}, "problem_type"),
    ("another problem than in rl", put("sft", 0, problem="Another?"), {"question_differs"}, "sample_id"),
    ("another source than in rl", put("rl", 0, data_source="Other"), {"question_differs"}, "sample_id"),
    ("id that rl does not have", put("sft", 0, sample_id="made/99"), {"not_in_rl"}, "sample_id"),
    ("id twice", twice(), {"duplicate_id", "duplicate_row"}, "sample_id"),
    ("row twice under another id", twice(sample_id="made/77"), {"duplicate_row"}, "output"),
    ("id in sft and rejected", both(1), {"id_in_two_configs", "ledger"}, "sample_id"),
    ("reason of another stage", put("rejected", 0, stage="judge"), {"bad_reason"}, "reason"),
    ("reason unknown", put("rejected", 0, reason="felt_wrong"), {"bad_reason"}, "reason"),
    ("stage unknown", put("rejected", 0, stage="lunch"), {"bad_reason"}, "stage"),
    ("outcome kept", put("rejected", 0, outcome="kept"), {"bad_reason", "ledger"}, "outcome"),
    ("another fault than the reason", put("rejected", 1, reason="nested_tag"), {"reason_differs"}, "reason"),
    ("fault in a judged output", put("rejected", 2, output="x"), {"reason_differs"}, "reason"),
    ("high score as low_score", put("rejected", 0, reward=1.0), {"reason_differs"}, "reward"),
    ("low score as insufficient", put("rejected", 2, reward=0.2), {"reason_differs"}, "reward"),
    ("score out of range", put("rejected", 0, reward=7.0), {"bad_value"}, "reward"),
    ("key of a rejected row", put("rejected", 0, generation_key="1"), {"bad_key"}, "generation_key"),
    ("rejected row not synthetic", put("rejected", 0, synthetic=False), {"synthetic"}, "synthetic"),
]


@pytest.mark.parametrize(
    ("change", "expected", "field"),
    [case[1:] for case in ROW_CORRUPTIONS],
    ids=[case[0] for case in ROW_CORRUPTIONS],
)
def test_one_row(tmp_path: Path, change: Callable[[Rows], None], expected: set[str], field: str) -> None:
    rows = valid_rows()
    change(rows)
    report = verify(write_ours(tmp_path / "made", rows))
    assert codes(report) == expected, report.findings
    place = next(found for found in report.findings if found.code is not Code.LEDGER).places[0]
    assert place.file.endswith(".parquet")
    assert place.row is not None
    assert not field or place.field == field
    assert report.ok == all(found.severity == "warning" for found in report.findings)


def ledger(**changes: Any) -> Callable[[BuildLock], BuildLock]:
    return lambda lock: lock.model_copy(update={"ledger": lock.ledger.model_copy(update=changes)})


LOCK_CORRUPTIONS: list[tuple[str, Callable[[BuildLock], BuildLock], str]] = [
    ("rows_in", ledger(rows_in=99), "ledger.rows_in"),
    ("kept and rows_in", ledger(kept=7, rows_in=12), "ledger.kept"),
    ("rejected for failed", ledger(rejected=4, failed=1), "ledger.rejected"),
    ("reasons", ledger(reasons={"verify/low_score": 3}), "ledger.reasons"),
    ("table", ledger(table={"video": {"numerical": 6}}), "ledger.table"),
]


@pytest.mark.parametrize(
    ("change", "field"), [case[1:] for case in LOCK_CORRUPTIONS], ids=[c[0] for c in LOCK_CORRUPTIONS]
)
def test_the_ledger(tmp_path: Path, change: Callable[[BuildLock], BuildLock], field: str) -> None:
    report = verify(write_ours(tmp_path / "made", change=change))
    assert codes(report) == {"ledger"}
    assert field in [place.field for place in report.findings[0].places]


def test_a_row_less_than_lock_and_card_say(tmp_path: Path) -> None:
    folder = write_ours(tmp_path / "made")
    write_parquet(folder / "data/rl-00000.parquet", "rl", valid_rows()["rl"][:-1])
    assert codes(verify(folder)) == {"file_digest", "lock_rows", "card_count", "ledger"}


def test_a_changed_byte_is_seen_by_its_digest(tmp_path: Path) -> None:
    folder = write_ours(tmp_path / "made")
    rows = valid_rows()
    rows["sft"][0]["judge_explanation"] = "Other words."
    write_parquet(folder / "data/sft-00000.parquet", "sft", rows["sft"])
    assert codes(verify(folder)) == {"file_digest"}


def test_files_that_lock_and_folder_do_not_share(tmp_path: Path) -> None:
    folder = write_ours(tmp_path / "made")
    (folder / "data/rl-00000.parquet").rename(folder / "data/rl-00001.parquet")
    assert codes(verify(folder)) == {"file_missing", "file_unlisted"}


def test_a_lock_that_names_a_file_outside_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = write_ours(tmp_path / "made")
    lock = lock_of(valid_rows(), {"../secret": FileLock(sha256="0" * 64, bytes=1)})
    write_lock(folder, lock)
    found = {f.code: f for f in verify(folder).findings}
    assert found[Code.FILE_MISSING].places[0].file == "../secret"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "lock_invalid"),
        ('{"lock": 1}', "lock_invalid"),
        ("[" * 100_000, "lock_invalid"),
        ("\x00", "lock_invalid"),
    ],
)
def test_a_lock_that_is_none(tmp_path: Path, text: str, code: str) -> None:
    folder = write_ours(tmp_path / "made")
    (folder / "build.lock.json").write_text(text)
    assert codes(verify(folder)) == {code}


def test_a_lock_with_a_recipe_that_is_none(tmp_path: Path) -> None:
    folder = write_ours(
        tmp_path / "made", change=lambda lock: lock.model_copy(update={"recipe": {"name": "x"}})
    )
    report = verify(folder)
    assert codes(report) == {"lock_invalid"}
    assert report.findings[0].places[0].field.startswith("recipe.")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("num_examples: 6", "num_examples: 7", "card_count"),
        ("num_examples: 6", "num_examples: six", "card_invalid"),
        ("config_name: sft\n  features", "config_name: main\n  features", "card_invalid"),
        ("dtype: float64", "dtype: float32", "card_features"),
        ("---\n", "---\n: [\n", "card_invalid"),
    ],
)
def test_the_card(tmp_path: Path, old: str, new: str, code: str) -> None:
    folder = write_ours(tmp_path / "made")
    card = folder / "README.md"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new, 1))
    assert codes(verify(folder)) == {code}


def cast(column: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(column)
        return table.set_column(at, pa.field(column, kind), table.column(column).cast(kind))

    return change


SCHEMA_CORRUPTIONS: list[tuple[str, Callable[[pa.Table], pa.Table], str, str]] = [
    ("reward as text", cast("reward", pa.string()), "reward", "error"),
    ("attempt as int64", cast("attempt", pa.int64()), "attempt", "error"),
    ("output as large text", cast("output", pa.large_string()), "output", "error"),
    ("output nullable", cast("output", pa.string()), "output", "warning"),
    ("no think", lambda table: table.drop_columns(["think"]), "think", "error"),
    ("one more", lambda table: table.append_column("extra", table.column("think")), "extra", "error"),
]


@pytest.mark.parametrize(
    ("change", "field", "severity"),
    [case[1:] for case in SCHEMA_CORRUPTIONS],
    ids=[case[0] for case in SCHEMA_CORRUPTIONS],
)
def test_column_types(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], field: str, severity: str
) -> None:
    rows = {"sft": valid_rows()["sft"]}
    folder = tmp_path / "made"
    write_parquet(folder / "data/sft-00000.parquet", "sft", rows["sft"])
    table = pa.Table.from_pylist(rows["sft"], schema=arrow_schema(SftRow))
    pq.write_table(change(table), folder / "data/sft-00000.parquet")
    report = verify(folder)
    assert codes(report) == {"schema_mismatch"}
    assert report.findings[0].places[0].field == field
    assert report.findings[0].severity == severity
    assert report.ok == (severity == "warning")


def test_a_data_set_older_than_a_column_stays_valid(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    rows = valid_rows()["sft"]
    write_parquet(folder / "data/sft-00000.parquet", "sft", rows)
    table = pa.Table.from_pylist(rows, schema=arrow_schema(SftRow)).drop_columns(list(ADDED_LATER["sft"]))
    pq.write_table(table, folder / "data/sft-00000.parquet")
    report = verify(folder)
    assert (report.ok, report.findings) == (True, [])
    lines = "".join(
        json.dumps({k: v for k, v in r.items() if k not in ADDED_LATER["sft"]}) + "\n" for r in rows
    )
    (folder / "data/sft-00000.parquet").unlink()
    (folder / "data/sft-00000.jsonl").write_text(lines)
    report = verify(folder)
    assert (report.ok, report.findings) == (True, [])


def test_findings_count_all_and_keep_the_first_places(tmp_path: Path) -> None:
    rows: Rows = {"sft": [accepted(n, "numerical", "image", "3") | {"attempt": -1} for n in range(40)]}
    write_parquet(tmp_path / "made/data/sft-00000.parquet", "sft", rows["sft"])
    (finding,) = verify(tmp_path / "made").findings
    assert finding.count == 40
    assert [place.row for place in finding.places] == [0, 1, 2, 3, 4]


def test_imports_are_no_work_on_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p2r_slow_import.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(work, "_ALWAYS", ("p2r_slow_import",))
    report = verify(write_ours(tmp_path / "made"))
    assert report.startup_s >= 0.3 and report.seconds >= 0.3
    assert report.rows / report.rows_per_s <= report.seconds - 0.3 + 0.001
