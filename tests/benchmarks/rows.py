"""Real rows of benchmarks, laid out in files as their publishers lay them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.shared import samples_dir


def sample_rows(name: str) -> list[dict[str, Any]]:
    """The lines of a file of real rows."""
    folder = samples_dir()
    assert folder is not None
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def publish(name: str, folder: Path) -> Path:
    """Write a file of real rows as its publisher does: without the wrapper that the lines have."""
    files: dict[str, Any] = {}
    for line in sample_rows(name):
        if set(line) == {"file", "row"}:
            files.setdefault(line["file"], []).append(line["row"])
        elif set(line) == {"file", "qid", "row"}:
            files.setdefault(line["file"], {})[line["qid"]] = line["row"]
        elif set(line) == {"task", "video_id", "entry"}:
            files.setdefault(f"questions/{line['task']}.json", {})[line["video_id"]] = line["entry"]
        elif set(line) == {"video_id", "entry"}:
            files.setdefault(f"{name}.json", {})[line["video_id"]] = line["entry"]
        elif set(line) >= {"track", "id"}:
            track = files.setdefault(f"data/{line['track']}_video.json", {line["track"].capitalize(): {}})
            rows = track[line["track"].capitalize()]
            rows[str(len(rows))] = {key: value for key, value in line.items() if key != "track"}
        else:
            row = line["question"] if isinstance(line.get("question"), dict) else line
            files.setdefault(f"{name}.json", []).append(row)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content), encoding="utf-8")
    return folder / next(iter(files)) if len(files) == 1 else folder
