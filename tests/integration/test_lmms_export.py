"""From `p2r-train eval` on rows as lmms-eval's data set has them to the logs that its `from_log` reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.throughput import server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def write_clip(path: Path) -> None:
    with av.open(path, "w") as box:
        stream = box.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * i, np.uint8))
            box.mux(stream.encode(frame))
        box.mux(stream.encode())


def train(*words: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "videop2r_data.cli.train", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_evaluation_of_the_whole_set_is_exported_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_clip(tmp_path / "data" / "clip.mp4")
    row: dict[str, Any] = {
        "videoID": "clip",
        "duration": "short",
        "domain": "d",
        "sub_category": "s",
        "task_type": "t",
    }
    row |= {"question": "Which one?", "options": ["A. red.", "B. blue.", "C. green.", "D. grey."]}
    rows = [row | {"question_id": f"00{i}-1", "answer": "AB"[i % 2]} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "videomme.parquet")
    with server(0.0) as url:  # it always answers A
        asked = ("-b", f"video-mme={tmp_path}", "--backend", "openai", "--model", "m", "--base-url", url)
        made = train("eval", *asked, "--no-question-only", "--out", tmp_path / "whole")
        train("eval", *asked, "--no-question-only", "--limit", "2", "--out", tmp_path / "part")
    assert made["result"]["benchmarks"][0]["layout"] == "hub"

    done = train("export-lmms", tmp_path / "whole", tmp_path / "logs")
    assert done["benchmarks"] == [
        {"benchmark": "video-mme", "tasks": {"videomme": 4}, "unanswered": 0, "outside": 0, "no_log": ""}
    ]
    log = json.loads((tmp_path / "logs" / "m" / "videomme.json").read_text())
    assert [(one["doc_id"], one["target"], one["resps"]) for one in log["logs"]] == [
        (i, "AB"[i % 2], [["A"]]) for i in range(4)
    ]
    assert "<observation>" in log["logs"][0]["completion"]
    part = train("export-lmms", tmp_path / "part", tmp_path / "part-logs")["benchmarks"][0]
    assert "an answer to every question" in part["no_log"] and part["tasks"] == {"videomme": 2}
