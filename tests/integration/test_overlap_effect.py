"""Scores of a real evaluation with and without the rows that a pool has too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.throughput import server
from tests.integration.test_evaluate import run, write_plan, write_rows
from videop2r_data.cli.main import app
from videop2r_data.schemas import Overlap

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server(0.02) as address:
        yield address


def test_scores_with_and_without_them(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = write_plan(write_rows(tmp_path / "pool"), url)
    run(plan, "--out", tmp_path / "result")
    # the model trained on one of the pictures and its question, and on another picture
    asked = [json.loads(line) for line in (tmp_path / "pool" / "rows.jsonl").read_text().splitlines()]
    train = [asked[6] | {"problem_id": "t6"}, asked[7] | {"problem_id": "t7", "problem": "Who painted it?"}]
    monkeypatch.chdir(tmp_path)
    Path("train.json").write_text(json.dumps(train))
    args = ["overlap", "train.json", "--against", "rows=pool/rows.jsonl", "--media", "pool/media"]
    done = CliRunner().invoke(app, [*args, "--result", "result"])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    (bench,) = Overlap.model_validate_json(Path("overlap/overlap.json").read_bytes()).benches
    same_clip, same_question = (one for one in bench.effects if one.every.protocol == "p2r_micro")
    assert (same_clip.model, same_clip.signals, same_clip.found) == ("m", ("identity", "file", "frames"), 2)
    # the server says A: right in cases 0, 2, 4, 6, 8; case 9's picture and one row are missing
    assert same_clip.every.value == pytest.approx(5 / 11)
    assert same_clip.apart.value == pytest.approx(4 / 9)
    assert same_question.found == 1
    assert same_question.apart.value == pytest.approx(4 / 10)
    gain = same_question.gain
    assert gain is not None and gain.value is not None and gain.value == pytest.approx(5 / 11 - 4 / 10)
    assert gain.low is not None and gain.low <= gain.value
    assert "45.5" in done.stdout and "40.0" in done.stdout
    done = CliRunner().invoke(app, [*args, "--result", "pool"])
    assert done.exit_code == 1 and "no result of an evaluation" in done.output
