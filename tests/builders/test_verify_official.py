"""The official layout: both plausible readings pass, what contradicts is found."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.release_rows import Row, official_rows, write_official
from videop2r_data.builders.verify import Code, VerifyReport, verify_release
from videop2r_data.builders.verify.official import parse_options, parse_reward


def codes(report: VerifyReport) -> dict[str, str]:
    return {found.code.value: found.severity for found in report.findings}


def test_a_valid_official_release(tmp_path: Path) -> None:
    report = verify_release(write_official(tmp_path, official_rows()), workers=1)
    assert report.findings == []
    assert report.layout == "official"
    assert report.configs == {"sft": 6}
    assert "sft: answer holds the reference: 6 rows" in report.notes
    assert report.paper is not None
    assert report.paper.rows == 6 - 162_062
    assert report.paper.table["video"]["multiple choice"] == 1 - 86_910


def test_the_rl_file_in_which_every_value_is_text(tmp_path: Path) -> None:
    rows = official_rows(text=True)
    assert rows[0]["options"].startswith("['A. ")
    write_official(tmp_path, rows, prefix="VideoP2R-263k_rl", parts=3)
    report = verify_release(tmp_path, workers=1)
    assert report.findings == []
    assert report.configs == {"rl": 6}


def rewritten(**changes: Callable[[Row], Any]) -> list[Row]:
    return [row | {name: make(row) for name, make in changes.items()} for row in official_rows()]


@pytest.mark.parametrize(
    "rows",
    [
        rewritten(answer=lambda r: r["solution"][8:-9]),
        rewritten(process=lambda r: r["process"].split("<answer>")[0]),
        rewritten(process=lambda r: r["process"].split("<answer>")[0][7:-8]),
        rewritten(observation=lambda r: f"<observation>{r['observation']}</observation>"),
        rewritten(output=lambda r: r["output"].replace("> <", ">\n\n<").replace("</think><", "</think>\n<")),
        rewritten(solution=lambda r: r["solution"][8:-9]),
        rewritten(path=lambda r: "./" + r["path"] if r["path"] else ""),
        rewritten(problem_id=lambda r: str(r["problem_id"])),
        rewritten(options=lambda r: r["options"] or None),
        rewritten(reward=lambda r: "1.0"),
    ],
)
def test_other_plausible_readings_pass(tmp_path: Path, rows: list[Row]) -> None:
    report = verify_release(write_official(tmp_path, rows), workers=1)
    assert report.findings == []


CORRUPTIONS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("observation", {"observation": "else"}, {"segment_differs": "error"}),
    ("process", {"process": "<think>else</think><answer>B</answer>"}, {"segment_differs": "error"}),
    ("answer", {"answer": "Q"}, {"segment_differs": "error"}),
    ("output cut", {"output": "<observation>o</observation> <think>t"}, {"trace_fault": "error"}),
    ("output null", {"output": None}, {"bad_value": "error"}),
    ("reward word", {"reward": "high"}, {"bad_value": "error"}),
    ("reward low", {"reward": 0.1}, {"below_threshold": "error"}),
    ("reward not the score", {"reward": 0.8}, {"reward_differs": "warning"}),
    ("options a number", {"options": 3}, {"bad_options": "error"}),
    ("options too few", {"options": ["A. x"]}, {"bad_options": "error"}),
    ("type", {"problem_type": "riddle"}, {"unknown_problem_type": "error"}),
    ("path", {"path": "../../x"}, {"unsafe_path": "error"}),
]


@pytest.mark.parametrize(
    ("cells", "expected"), [case[1:] for case in CORRUPTIONS], ids=[case[0] for case in CORRUPTIONS]
)
def test_what_contradicts_is_found(tmp_path: Path, cells: dict[str, Any], expected: dict[str, str]) -> None:
    rows = official_rows()
    rows[0] |= cells
    report = verify_release(write_official(tmp_path, rows), workers=1)
    assert codes(report) == expected
    assert report.findings[0].places[0].row == 0
    assert report.findings[0].places[0].file == "VideoP2R-162k_sft.part1of2.json.gz"


def test_a_broken_trace_is_no_fault_in_the_unfiltered_rl_file(tmp_path: Path) -> None:
    rows = official_rows(text=True)
    rows[0] |= {"output": "<observation>never closed", "reward": "0.0"}
    rows[1] |= {"reward": "0.0", "output": rows[1]["output"].replace("42", "41")}
    rows[1] |= {"process": rows[1]["process"].replace("42", "41")}
    report = verify_release(write_official(tmp_path, rows, prefix="VideoP2R-263k_rl"), workers=1)
    assert report.findings == []
    assert "rl: output is no trace of three segments: 1 rows" in report.notes


def test_a_missing_column_and_a_missing_part(tmp_path: Path) -> None:
    rows = official_rows()
    for row in rows:
        del row["output"]
    write_official(tmp_path, rows)
    (tmp_path / "VideoP2R-162k_sft.part1of2.json.gz").unlink()
    report = verify_release(tmp_path, workers=1)
    assert codes(report) == {"part_missing": "error", "bad_value": "error"}
    assert report.rows == 3


@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.lists(st.text()), st.binary()))
@settings(deadline=None)
def test_cells_of_any_kind_never_raise(value: Any) -> None:
    reward = parse_reward(value)
    assert reward is None or abs(reward) < float("inf")
    options = parse_options(value)
    assert options is None or all(isinstance(option, str) for option in options)


@given(st.lists(st.text(max_size=20), max_size=6))
@settings(deadline=None)
def test_a_list_written_as_python_text_is_read_back(options: list[str]) -> None:
    assert parse_options(str(options)) == options


@pytest.mark.parametrize(
    "text", ["[" * 5000, "[" + "(" * 400, "['a', __import__('os')]", "['" + "x" * 200_000]
)
def test_hostile_option_texts(text: str) -> None:
    assert parse_options(text) is None


def test_a_part_without_rows_is_found(tmp_path: Path) -> None:
    folder = write_official(tmp_path, official_rows())
    part = next(p for p in sorted(folder.iterdir()) if ".part" in p.name)
    for content in (b"", b"[]", b"\n\n"):
        part.write_bytes(gzip.compress(content))
        report = verify_release(folder, workers=1)
        codes = {found.code for found in report.findings if found.severity == "error"}
        assert codes & {Code.PART_EMPTY, Code.FILE_UNREADABLE}, content
        assert not report.ok
    part.write_bytes(b"")
    assert not verify_release(folder, workers=1).ok
