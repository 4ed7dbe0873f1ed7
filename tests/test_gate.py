"""The gate counts instructions with valgrind: what is done twice is above its limit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import gate
from benchmarks._gate_parts import PARTS
from benchmarks.gate import Seen

ROOT = Path(__file__).resolve().parents[1]
needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """The gate for traces alone, the part that starts quickest."""
    command = [sys.executable, "-m", "benchmarks.gate", "--only", "traces", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@needs_valgrind
@pytest.mark.integration
def test_a_planted_slowdown_is_noticed_and_nothing_else(tmp_path: Path) -> None:
    found = {}
    for name, flags, code in (("as it is", (), 0), ("twice", ("--twice", "traces"), 1)):
        file = tmp_path / f"{name}.json"
        done = run(*flags, "--json", str(file))
        assert done.returncode == code, done.stdout + done.stderr
        found[name] = json.loads(file.read_text())["figures"]["traces"]
        assert ("ABOVE" in done.stdout) == bool(code)
        assert ("-m cProfile -s tottime -m benchmarks._gate_parts traces" in done.stderr) == bool(code)
    assert found["twice"]["work"] == pytest.approx(2 * found["as it is"]["work"], rel=0.02)
    assert found["twice"]["json"] == pytest.approx(found["as it is"]["json"], rel=0.02)


def test_every_part_has_a_limit_of_ten_percent_over_what_was_seen() -> None:
    known = yaml.safe_load(gate.LIMITS.read_text())
    assert list(known) == list(PARTS)
    for entry in known.values():
        assert entry["limit"] == pytest.approx(gate.ROOM * entry["seen"], abs=0.002)


def test_limits_are_written_for_what_was_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LIMITS", tmp_path / "gate.yaml")
    gate.write_limits({"traces": Seen(200.0, 100.0), "verify": Seen(300.0, 100.0)})
    gate.write_limits({"traces": Seen(100.0, 100.0)})
    assert gate.read_limits() == {"verify": 3.3, "traces": 1.1}
    assert gate.LIMITS.read_text().startswith("# Limits of `make gate`")
    shown = gate.table({"traces": Seen(120.0, 100.0), "verify": Seen(320.0, 100.0)}, gate.read_limits())
    assert [line.endswith("ABOVE") for line in shown.splitlines()] == [False, True, False]


def test_a_machine_without_valgrind_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as ended:
        gate.count(["traces"])
    assert ended.value.code == 2 and "valgrind is not installed" in capsys.readouterr().err
