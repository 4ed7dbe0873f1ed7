"""Content that nobody meant, damaged files, several processes, and an interruption."""

from __future__ import annotations

import multiprocessing.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.release_rows import Row, accepted, official_rows, valid_rows, write_ours, write_parquet
from videop2r_data.builders.verify import VerifyReport, verify_release
from videop2r_data.builders.verify.report import Rules
from videop2r_data.builders.verify.run import run_tasks
from videop2r_data.builders.verify.work import Task
from videop2r_data.schemas.recipe import VerifySpec

any_value = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        ["<answer>", "<think></think>", "\x00", "\ud800".encode("utf-8", "replace").decode(), "9" * 400]
    ),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def codes(report: VerifyReport) -> set[str]:
    return {found.code.value for found in report.findings}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cell_of_any_kind_raises(tmp_path: Path, data: st.DataObject) -> None:
    config = data.draw(st.sampled_from(["sft", "rl", "rejected", "official"]))
    rows = official_rows() if config == "official" else valid_rows()[config]
    row = dict(data.draw(st.sampled_from(rows)))
    for name in data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=4, unique=True)):
        if data.draw(st.booleans()):
            row[name] = data.draw(any_value)
        else:
            del row[name]
    name = "sft" if config == "official" else config
    path = tmp_path / f"{name}.jsonl"
    path.write_text("\n".join(__import__("json").dumps(r) for r in (row, rows[-1])))
    report = verify_release(path, workers=1)
    assert report.rows == 2
    assert report.model_dump_json()


def test_json_lines_in_our_columns(tmp_path: Path) -> None:
    report = verify_release(write_lines(tmp_path / "sft.jsonl", valid_rows()["sft"]), workers=1)
    assert report.findings == []
    assert report.configs == {"sft": 6}


CELLS: list[tuple[str, Any]] = [
    ("output", None),
    ("output", 7),
    ("reward", "1.0"),
    ("reward", True),
    ("attempt", 1.5),
    ("attempt", 2**40),
    ("options", None),
    ("options", "A. x"),
    ("options", ["A. x", 2]),
    ("frame_indices", [0, None]),
    ("frame_times_s", "0.0"),
    ("synthetic", "yes"),
    ("synthetic", 1),
    ("problem", None),
]


@pytest.mark.parametrize(("name", "value"), CELLS)
def test_wrong_types_are_named_cell_by_cell(tmp_path: Path, name: str, value: Any) -> None:
    rows = valid_rows()["sft"]
    rows[2][name] = value
    report = verify_release(write_lines(tmp_path / "sft.jsonl", rows), workers=1)
    assert codes(report) == {"bad_value"}
    (place,) = report.findings[0].places
    assert (place.row, place.field) == (2, name)


def test_missing_and_extra_columns_in_json(tmp_path: Path) -> None:
    rows = valid_rows()["sft"]
    del rows[1]["think"]
    rows[0]["extra"] = 1
    report = verify_release(write_lines(tmp_path / "sft.jsonl", rows), workers=1)
    assert {(f.code.value, f.places[0].field) for f in report.findings} == {
        ("bad_value", "think"),
        ("schema_mismatch", "extra"),
    }


def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "sft.jsonl", valid_rows()["sft"])
    path.write_bytes(path.read_bytes() + b"\n[]\nnot json\n")
    report = verify_release(path, workers=1)
    assert codes(report) == {"bad_record"}
    assert [place.row for place in report.findings[0].places] == [6, 7]
    assert report.rows == 8


def huge_rows() -> list[Row]:
    big = accepted(0, "free-form", "text", "x")
    text = "<answer" * 100_000
    return [
        big | {"observation": text, "output": text, "sample_id": "a"},
        big | {"output": "<think>" * 50_000, "sample_id": "b"},
        big | {"solution": f"<answer>{'7' * 200_000}</answer>", "sample_id": "c"},
        big | {"path": "../" * 50_000, "sample_id": "d"},
    ]


def test_huge_cells_are_reported_in_one_line_each(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/sft-00000.parquet", "sft", huge_rows())
    report = verify_release(tmp_path, workers=1)
    assert not report.ok
    for finding in report.findings:
        for place in finding.places:
            assert len(place.got) < 300
            assert len(place.expected) < 300


def test_a_truncated_parquet_file_is_a_finding_and_the_others_are_read(tmp_path: Path) -> None:
    folder = write_ours(tmp_path / "made")
    path = folder / "data/rl-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    report = verify_release(folder, workers=1)
    assert {"file_unreadable", "file_digest"} <= codes(report)
    assert report.configs == {"sft": 6, "rejected": 5}


def test_damage_inside_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "data/sft-00000.parquet"
    rows = [accepted(n, "numerical", "image", str(n)) for n in range(3000)]
    write_parquet(path, "sft", rows)
    data = bytearray(path.read_bytes())
    data[2000:12000] = bytes(10_000)
    path.write_bytes(data)
    report = verify_release(tmp_path, workers=1)
    assert not report.ok
    assert "file_unreadable" in codes(report)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "sft.parquet").write_bytes(b"PAR1 no")
    report = verify_release(tmp_path, workers=1)
    assert codes(report) == {"file_unreadable", "no_rows"}


def test_an_empty_file_of_the_right_schema(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/sft-00000.parquet", "sft", [])
    assert codes(verify_release(tmp_path, workers=1)) == {"no_rows"}


def many_groups(folder: Path, rows: int) -> Path:
    path = folder / "data/sft-00000.parquet"
    made = [
        accepted(n % 997, "numerical", "image", str(n)) | {"sample_id": str(n % 500)} for n in range(rows)
    ]
    write_parquet(path, "sft", made)
    pq.write_table(pq.read_table(path), path, row_group_size=250)
    return folder


@pytest.mark.integration
def test_any_number_of_processes_gives_the_same_report(tmp_path: Path) -> None:
    folder = many_groups(tmp_path, 1100)
    one, three = (verify_release(folder, workers=n) for n in (1, 3))
    changing = {"seconds", "startup_s", "rows_per_s", "workers"}
    assert one.model_dump(exclude=changing) == three.model_dump(exclude=changing)
    assert one.duplicates == {"id": 600, "row": 0}
    places = next(f for f in one.findings if f.code.value == "duplicate_id").places
    assert [place.row for place in places] == [500, 501, 502, 503, 504]
    assert places[0].got == "as in data/sft-00000.parquet, row 0"


class _Killer(type(Path())):  # type: ignore[misc]
    """A path that kills the process that opens it."""

    def __fspath__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


@pytest.mark.integration
def test_a_slice_that_kills_its_process_costs_only_itself(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "a.jsonl", valid_rows()["sft"])
    tasks = [
        Task(good, "a", "sft"),
        Task(_Killer(tmp_path / "b.jsonl"), "b", "sft"),
        Task(good, "c", "sft"),
    ]
    tallies = list(run_tasks(tasks, Rules("ours", VerifySpec()), 2))
    assert [tally.rows for tally in tallies] == [6, 0, 6]
    assert [found.code.value for found in tallies[1].findings.listing()] == ["worker_crash"]


@pytest.mark.integration
@pytest.mark.parametrize("error", [ValueError("bad value(s) in fds_to_keep"), OSError(11, "no process")])
def test_a_process_that_does_not_start_costs_no_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """ValueError: what a start says where the process before dies in the same moment."""
    good = write_lines(tmp_path / "a.jsonl", valid_rows()["sft"])
    spawn, started = multiprocessing.util.spawnv_passfds, list[bool]()

    def spawned(path: bytes, args: list[str], passfds: list[int]) -> int:
        if "--multiprocessing-fork" in map(str, args):
            started.append(True)
            if len(started) == 2:
                raise error
        return int(spawn(path, args, passfds))

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", spawned)
    tasks = [Task(good, str(number), "sft") for number in range(3)]
    assert [tally.rows for tally in run_tasks(tasks, Rules("ours", VerifySpec()), 2)] == [6, 6, 6]
    assert len(started) > 2


@pytest.mark.integration
def test_an_interruption_leaves_no_process_behind(tmp_path: Path) -> None:
    many_groups(tmp_path, 8_000)
    script = tmp_path / "run.py"
    script.write_text(
        "import time\n"
        "from videop2r_data.builders.verify import verify_release\n"
        "def told(rows):\n"
        "    print(rows, flush=True)\n"
        "    time.sleep(0.2)  # on a busy machine the run must not be over before it is interrupted\n"
        "if __name__ == '__main__':\n"
        f"    verify_release({str(tmp_path)!r}, workers=2, progress=told)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) != 0
    until = time.monotonic() + 20
    while _group_lives(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _group_lives(process.pid)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_foreign_arrow_type_is_a_finding(tmp_path: Path) -> None:
    table = pa.table(
        {"sample_id": pa.array([1, 2]), "think": pa.array([{"a": 1}, None]), "output": ["x", "y"]}
    )
    pq.write_table(table, tmp_path / "sft.parquet")
    report = verify_release(tmp_path, workers=1)
    assert codes(report) == {"schema_mismatch"}
    assert report.rows == 2
