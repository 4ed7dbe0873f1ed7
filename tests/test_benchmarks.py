"""The suite of benchmarks: what it names exists, and the pages hold the recorded figures and no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from pydantic import ValidationError

from benchmarks import __main__ as program
from benchmarks import record, suite, written
from benchmarks.suite import ROOT, Call, Claim, NoFigureError

RUNS = suite.load().runs
RECORDS = suite.recorded(record.RUNS)
CALLS = [Call(name, run, quick) for name, run in RUNS.items() for quick in (False, True)]
PARSED = """
import argparse, json, runpy, sys
parse = argparse.ArgumentParser.parse_args
def only_parse(self, arguments=None, namespace=None):
    found = parse(self, arguments, namespace)
    raise SystemExit(0 if str(found.json) == "out.json" else "no --json")
argparse.ArgumentParser.parse_args = only_parse
for module, arguments in json.loads(sys.argv[1]):
    sys.argv = [module, *arguments, "--json", "out.json"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        raise SystemExit("parsed nothing")
    except SystemExit as end:
        if end.code:
            print(module, *arguments, end.code, sep=" ")
"""


def claim(**changed: Any) -> Claim:
    given = {
        "text": "help is fast",
        "run": "startup",
        "path": "help_s",
        "bound": "<= 0.5",
        "unit": "s",
        "digits": 3,
    }
    return Claim(**(given | changed))


def startup(**figures: Any) -> dict[str, Any]:
    made = {"runs": 3, "help_s": 0.2, "fastest_s": 0.1, "slowest_s": 0.3, "heavy": []}
    return {
        "command": "python -m benchmarks.startup",
        "date": "2026-11-22",
        "machine": {"system": "Linux", "cores": 2, "memory_gb": 24, "load_before": 0.1, "load_after": 0.2},
        "versions": {"python": "3.11.7"},
        "figures": made | figures,
    }


def test_every_script_takes_the_arguments_of_its_runs() -> None:
    wanted = [
        (call.run.module, call.arguments) for call in CALLS if not call.quick or call.run.quick is not None
    ]
    command = [sys.executable, "-W", "ignore", "-c", PARSED, json.dumps(wanted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""


def test_a_run_is_recorded_under_its_own_command() -> None:
    for name, found in RECORDS.items():
        assert found["command"] == Call(name, RUNS[name]).command, name
    assert {path.stem for path in record.RUNS.glob("*.json")} == set(RECORDS), "a record of no run"


def test_every_claim_has_its_figure_in_the_recorded_run() -> None:
    decided = [one for one in suite.load().claims if one.run in RECORDS]
    for one in decided:
        value = suite.figure(RECORDS[one.run]["figures"], one.path)
        assert one.holds(value) in (True, False)


def test_the_pages_hold_the_recorded_figures() -> None:
    assert written.differences(written.pages(record.RUNS)) == [], "run: python -m benchmarks write"


def test_one_figure_that_differs_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(record.RUNS, runs)
    path = runs / "miniature.json"
    found = json.loads(path.read_text())
    ahead = found["figures"]["pa_grpo_minus"]["P2"]["grpo"]
    ahead["mean"] += 0.1
    path.write_text(json.dumps(found))
    monkeypatch.setattr(record, "RUNS", runs)
    assert program.main(["write", "--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    new = [line for line in lines if line.startswith("+PA-GRPO answers")]
    assert len(new) == 1 and f"answers {ahead['mean']:.1f} ±" in new[0]


def test_commands_in_the_results_are_those_of_the_suite() -> None:
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    shown = re.findall(r"^    (python -m benchmarks\.[^#\n]*?) *(?:#.*)?$", text, re.MULTILINE)
    known = {Call(name, run).command for name, run in RUNS.items()}
    assert {line for line in shown if not line.startswith("python -m benchmarks.gpu_all")} <= known
    assert len(shown) > len(known) / 2


def test_a_run_of_the_suite_end_to_end(tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in record.RUNS.glob("*")}
    command = [sys.executable, "-m", "benchmarks", "run", "--quick", "startup"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^== startup: \d+ s, exit status 0$", done.stdout, re.MULTILINE), done.stdout
    word = r"(holds|does not hold at this size)"
    assert re.search(rf"^  {word}: `p2r-data --help`: \d+\.\d{{3}} s", done.stdout, re.MULTILINE), done.stdout
    assert {path: path.read_bytes() for path in record.RUNS.glob("*")} == before


def test_a_full_run_is_recorded_and_a_failed_one_leaves_the_last_record(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "startup.json"
    good = suite.Run(module="benchmarks.startup", full=["--runs", "1"])
    done = program.execute(Call("startup", good), target)
    found = json.loads(target.read_text())
    assert done.status == 0 and done.figures == found["figures"] and found["figures"]["runs"] == 1
    assert found["command"] == "python -m benchmarks.startup --runs 1"
    bad = suite.Run(module="benchmarks.startup", full=["--no-such-option"])
    failed = program.execute(Call("startup", bad), target)
    assert failed.status != 0 and failed.figures is None
    assert json.loads(target.read_text()) == found


def test_a_broken_bound_and_a_missing_figure_fail_a_full_run_alone() -> None:
    full, quick = (Call("startup", RUNS["startup"], quick) for quick in (False, True))
    held = "  holds: `p2r-data --help`: 0.200 s (at most 0.5 s)"
    assert program.verdicts(full, {"help_s": 0.2}) == ([held], True)
    assert program.verdicts(full, {"help_s": 0.7}) == (
        [held.replace("holds", "DOES NOT HOLD").replace("0.2", "0.7")],
        False,
    )
    missing = ["  not decided: `p2r-data --help` (at most 0.5 s)"]
    assert program.verdicts(full, {}) == (missing, False)
    assert program.verdicts(quick, {}) == (missing, True)


def test_what_a_run_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("P2R_SHARED", str(tmp_path))
    one = suite.Run(module="benchmarks.frames", full=["{media}"], needs=["media"], rivals=["nobody"])
    lacks = Call("frames", one).lacks()
    assert [words.split()[0] for words in lacks] == ["a", ".venv-nobody"] and str(tmp_path) in lacks[0]
    (tmp_path / "media").mkdir()
    assert len(Call("frames", one).lacks()) == 1
    assert Call("frames", one, quick=True).lacks() == ["a small size"]
    assert Call("frames", one).arguments == [str(tmp_path / "media")]
    assert Call("frames", one).command == "python -m benchmarks.frames MEDIA"
    with pytest.raises(SystemExit, match="no run is called nobody"):
        program.calls(["nobody"], quick=True)


@pytest.mark.parametrize(
    ("bound", "limit", "good", "bad"),
    [
        (">= 20_000", "at least 20,000 s", 20_000, 19_999.9),
        ("<= 0.5", "at most 0.5 s", 0.5, 0.51),
        ("< 300", "under 300 s", 299.9, 300),
        ("== 0", "exactly 0 s", 0, 1),
        ("== true", "yes", True, False),
    ],
)
def test_bounds(bound: str, limit: str, good: float, bad: float) -> None:
    one = claim(bound=bound)
    assert one.limit == limit
    assert one.holds(good) and not one.holds(bad)


def test_a_claim_that_nobody_can_check_is_refused() -> None:
    with pytest.raises(ValidationError, match="operator"):
        claim(bound="fast")
    with pytest.raises(ValidationError, match="nobody"):
        suite.Suite(runs={}, claims=[claim(run="nobody")])
    for path in ("nothing", "heavy", "help_s.more"):
        with pytest.raises(NoFigureError):
            suite.figure(startup()["figures"], path)


def pages(records: dict[str, Any], *claims: Claim) -> dict[str, str]:
    found = suite.Suite(runs=RUNS, claims=list(claims))
    return written.render(found, records, (ROOT / "README.md").read_text())


def test_a_broken_bound_is_shown_as_broken() -> None:
    also = claim(also="fastest {{ figures.fastest_s | number(3) }}")
    line = "| help is fast | at most 0.5 s | {seen} (fastest 0.100) | {holds} | startup |"
    good = pages({"startup": startup()}, also)["benchmarks/RESULTS.md"]
    assert line.format(seen="0.200 s", holds="yes") in good
    bad = pages({"startup": startup(help_s=0.7)}, also)["benchmarks/RESULTS.md"]
    assert line.format(seen="0.700 s", holds="**no**") in bad
    never = pages({}, also)["benchmarks/RESULTS.md"]
    assert "| help is fast | at most 0.5 s | not measured yet |  | startup |" in never
    assert "| `p2r-data --help` | 0.700 s | |" in pages({"startup": startup(help_s=0.7)})["README.md"]


def test_a_page_without_any_record_can_be_written_and_one_without_its_figure_cannot() -> None:
    for text in pages({}).values():
        assert written.NOT_YET in text.lower()
    with pytest.raises(UndefinedError, match="help_s"):
        pages({"startup": startup() | {"figures": {}}})
    with pytest.raises(NoFigureError, match="help_s"):
        pages({"startup": startup() | {"figures": {}}}, claim())


def test_only_the_marked_block_of_a_text_is_replaced() -> None:
    text = f"before\n{written.BEGIN}old\n{written.END}after\n"
    assert written.with_block(text, "new\n") == f"before\n{written.BEGIN}new\n{written.END}after\n"
    with pytest.raises(ValueError, match="once"):
        written.with_block("no marks", "new")
