from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.trainer.look.curves import METRICS, SAMPLES
from videop2r_data.trainer.run import runlog as trackers
from videop2r_data.trainer.run.runlog import RunLog, Watcher, make_trackers, read_lines


class Seen:
    def __init__(self) -> None:
        self.rows: list[Any] = []

    def begin(self, stage: str, step: int, steps: int) -> None:
        self.rows.append((stage, step, steps))

    def row(self, row: Any) -> None:
        self.rows.append(row["step"])

    def note(self, text: str) -> None:
        self.rows.append(text)


def test_a_resumed_log_is_that_of_a_run_that_never_stopped(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in range(1, 6):
        log.row({"step": step, "loss": step / 2})
        log.sample({"step": step})
    again = RunLog(tmp_path, upto=3)
    again.row({"step": 4, "loss": 2.0})
    assert [row["step"] for row in read_lines(tmp_path / METRICS)] == [1, 2, 3, 4]
    assert [row["step"] for row in read_lines(tmp_path / SAMPLES)] == [1, 2, 3]


def test_a_torn_last_line_is_dropped_and_a_torn_middle_refused(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_bytes(b'{"step":1}\n{"step":2}\n{"ste')
    RunLog(tmp_path, upto=9).row({"step": 3})
    assert [row["step"] for row in read_lines(path)] == [1, 2, 3]
    path.write_bytes(b'{"step":1}\n{"st\n{"step":2}\n')
    with pytest.raises(ConfigError, match="line 2"):
        read_lines(path)


def test_a_number_that_json_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loss is nan"):
        RunLog(tmp_path).row({"step": 1, "loss": float("nan")})


def test_only_the_main_process_writes_and_tells(tmp_path: Path) -> None:
    seen = Seen()
    assert isinstance(seen, Watcher)
    for main in (False, True):
        log = RunLog(tmp_path, [seen], main=main)
        log.begin("sft", 0, 9)
        log.row({"step": 1})
        log.sample({"step": 1})
        log.note("hello")
    assert seen.rows == [("sft", 0, 9), 1, "hello"]
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 1


def test_a_tracker_gets_the_numbers_of_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    class Run:
        def log(self, numbers: Any, step: int) -> None:
            sent.append((numbers, step))

    class Module:
        @staticmethod
        def init(**settings: Any) -> Run:
            sent.append(settings)
            return Run()

    monkeypatch.setattr(trackers, "_need", lambda name: Module)
    made = make_trackers(("trackio", "wandb"), folder=tmp_path, config={"lr": 1})
    made[0].row({"step": 4, "loss": 0.5, "text": "x"})
    made[1].row({"step": 4, "loss": 0.5})
    assert sent[0] == {"project": "videop2r", "name": tmp_path.name, "config": {"lr": 1}}
    assert sent[1]["dir"] == str(tmp_path)
    assert sent[2:] == [({"loss": 0.5}, 4), ({"loss": 0.5}, 4)]


def test_a_tracker_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        make_trackers(("wandb",), folder=tmp_path, config={})
