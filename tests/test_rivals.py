from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rivals
from benchmarks._throughput_figures import figures
from benchmarks.rivals import task
from benchmarks.throughput import parse_options, server

ROOT = Path(__file__).parent.parent
ENV = ROOT / "benchmarks" / "rivals" / "env.sh"


def run(calls_per_s: float, **more: float) -> dict[str, Any]:
    return {"calls": 8, "calls_per_s": calls_per_s, "cpu_ms_per_call": 1.0, "peak_mb": 50.0, **more}


def test_medians_and_ratios_of_medians() -> None:
    rounds = {
        "bare": [run(4000.0), run(5000.0), run(1000.0)],
        "build": [
            run(3000.0, calls_per_s_whole=1500.0),
            run(900.0, calls_per_s_whole=600.0),
            run(3200.0, calls_per_s_whole=2000.0),
        ],
        "passthrough": [run(3600.0), run(3500.0), run(3700.0)],
        "curator": [run(400.0, calls_per_s_whole=250.0), run(300.0, calls_per_s_whole=200.0)],
    }
    found = figures(rounds, in_flight=256, samples=4, latency_s=0.05)
    assert (found["rounds"], found["in_flight"], found["samples"], found["latency_s"]) == (3, 256, 4, 0.05)
    assert found["kinds"]["build"] == {
        "calls": 8,
        "calls_per_s": 3000.0,
        "calls_per_s_all": [3000.0, 900.0, 3200.0],
        "calls_per_s_whole": 1500.0,
        "cpu_ms_per_call": 1.0,
        "peak_mb": 50.0,
    }
    assert found["ratios"] == {
        "build_of_bare": 0.75,
        "whole_of_bare": 0.375,
        "passthrough_of_bare": 0.9,
        "build_of_curator": 8.571,
        "whole_of_curator": 6.667,
    }


@pytest.mark.parametrize("text", ["curator", "nobody=/usr/bin/python3", "=/usr/bin/python3"])
def test_a_rival_needs_a_known_name_and_a_python(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=PYTHON"):
        rivals.parse_rival(text)


def test_the_figures_are_found_between_whatever_a_tool_prints() -> None:
    line = '{"calls": 3, "calls_per_s": 2.5}'
    assert rivals.parse_line("curator", f"100 %\n{line}\nbye\n") == {"calls": 3, "calls_per_s": 2.5}
    with pytest.raises(rivals.RivalError, match=r"curator: no figures .*\n100 %"):
        rivals.parse_line("curator", "100 %\n")


def test_only_environments_that_are_here_are_installed(tmp_path: Path) -> None:
    python = tmp_path / ".venv-curator" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / ".venv-readers" / "bin").mkdir(parents=True)
    assert rivals.installed(tmp_path) == {"curator": python}


@pytest.mark.parametrize("name", [*rivals.CLIENTS, "readers", "swift", "trl"])
def test_every_environment_has_its_pins(name: str) -> None:
    assert f"    {name})" in ENV.read_text()
    pins = (ROOT / "benchmarks" / "rivals" / "pins" / f"{name}.txt").read_text().splitlines()
    assert pins[1:] and all("==" in line for line in pins[1:])


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Three requests, one a line."""
    path = tmp_path / "bodies.jsonl"
    with path.open("w") as out:
        for i in range(3):
            messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{i}?"}]
            out.write(json.dumps({"model": "m", "messages": messages}) + "\n")
    return path


def ask(url: str, question: task.Question) -> None:
    body = json.dumps({"model": "m", "messages": question.messages}).encode()
    with urllib.request.urlopen(f"{url}/chat/completions", data=body) as answer:
        assert json.load(answer)["choices"]


def asks(url: str, repeats: int = 1, answers: str = "yes") -> task.Run:
    """A tool that asks each question so many times, one by one."""

    def run(given: Sequence[task.Question]) -> Callable[[], list[str]]:
        for question in given:
            for _ in range(repeats):
                ask(url, question)
        return lambda: [answers for _ in given]

    return run


def test_a_client_measures_what_it_asked(
    questions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(0.02) as url:
        monkeypatch.setattr(sys, "argv", ["client", url, str(questions), "2", "4"])
        given = task.from_command_line()
        assert [question.user for question in given.questions] == ["0?", "1?"]
        task.measure(given, "pytest", asks(url))
    found = rivals.parse_line("curator", capsys.readouterr().out)
    assert (found["calls"], found["max_in_flight"]) == (2, 1)
    assert found["version"] == f"pytest {pytest.__version__}"
    # Two calls one after the other, each answered after 20 ms.
    assert 50 > found["calls_per_s"] > found["calls_per_s_whole"] > 0
    assert found["peak_mb"] > 1


@pytest.mark.parametrize("repeats", [0, 2])
def test_a_client_that_asks_too_little_or_twice_has_no_figures(
    repeats: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(0.0) as url:
        given = task.Task(url, [task.Question("s", "a"), task.Question("s", "b")], 4)
        with pytest.raises(SystemExit, match="asked once each"):
            task.measure(given, "pytest", asks(url, repeats))
    assert capsys.readouterr().out == ""


def test_a_client_that_loses_an_answer_has_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with server(0.0) as url:
        given = task.Task(url, [task.Question("s", "a"), task.Question("s", "b")], 4)
        with pytest.raises(SystemExit, match="0 answers came out for 2 questions"):
            task.measure(given, "pytest", asks(url, answers=""))
    assert capsys.readouterr().out == ""


def test_more_in_flight_than_allowed_is_no_figure() -> None:
    stats = {"requests": 9, "distinct": 9, "answered": 9, "max_in_flight": 5, "span_s": 1.0}
    with pytest.raises(SystemExit, match="4 requests in flight were allowed, 5 were seen"):
        task.seen(stats, calls=9, concurrency=4)


def test_a_rival_that_fails_is_told_and_left_out(tmp_path: Path) -> None:
    """This Python has no curator; everything else is measured and recorded."""
    record = tmp_path / "run.json"
    words = ["--samples", "4", "--rounds", "1", "--concurrency", "4", "--json", str(record)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", *words, "--rival", f"curator={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "left out, because it failed: curator: exit code 1" in done.stderr
    assert "No module named" in done.stderr
    made = json.loads(record.read_text())
    assert made["benchmark"] == "throughput_text"
    assert list(made["figures"]["kinds"]) == ["bare", "bare-uvloop", "build"]


def test_rivals_without_an_environment_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    monkeypatch.setattr(rivals, "installed", lambda: {"datatrove": python})
    options = parse_options(["--rivals", "--rival", f"curator={python}"])
    assert options.rivals == {"datatrove": python, "curator": python}
    assert capsys.readouterr().err.splitlines() == [
        f"left out, because it is not here: benchmarks/rivals/env.sh {name}"
        for name in ("designer", "distilabel")
    ]


def test_rivals_are_asked_for_text_only() -> None:
    words = ["--media", "fits", "--rival", f"curator={sys.executable}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "text only" in done.stderr


def test_the_server_closes_a_connection_that_wants_it() -> None:
    """datatrove's client sends `Connection: close` and reads until the end of the connection."""
    body = b'{"model":"m","messages":[{"role":"user","content":"?"}]}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close"
    )
    with server(0.0) as url:
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            read = b"".join(iter(lambda: connection.recv(65536), b""))
    assert read.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\nconnection: close\r\n" in read
    assert json.loads(read.partition(b"\r\n\r\n")[2])["choices"]
