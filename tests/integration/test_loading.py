"""What a user types after a build: `load_dataset`, from a fresh process, for every config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


def build(folder: Path, name: str, limit: int) -> None:
    command = [sys.executable, "-m", "videop2r_data.cli", "build", "demo", "--out", name]
    done = subprocess.run(
        [*command, "--limit", str(limit), "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def load(folder: Path, expression: str, cache: Path) -> dict[str, object]:
    """Evaluate an expression over `ds` in a fresh process with an own cache."""
    code = f"import json\nfrom datasets import load_dataset\nprint(json.dumps({expression}))"
    env = os.environ | {
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_config_loads_and_a_rebuild_in_place_gives_the_new_rows(tmp_path: Path) -> None:
    name, cache = "videop2r-cot-162k", tmp_path / "cache"
    expression = (
        '{c: [len(d), d.column_names, str(d.features["options"])] for c in ("sft", "rl", "rejected") '
        f'for d in [load_dataset("{name}", c, split="train")]}} | '
        f'{{"default": load_dataset("{name}")["train"].num_rows}}'
    )
    counts = []
    for limit in (30, 45):
        build(tmp_path, name, limit)
        lock = json.loads((tmp_path / name / "build.lock.json").read_text())["ledger"]
        found = load(tmp_path, expression, cache)
        assert found["default"] == lock["kept"] == found["sft"][0]  # type: ignore[index]
        assert found["rejected"][0] == lock["rejected"] + lock["failed"]  # type: ignore[index]
        assert found["rl"][0] == limit  # type: ignore[index]
        assert "observation" in found["sft"][1] and "reason" in found["rejected"][1]  # type: ignore[index]
        assert {found[c][2] for c in ("sft", "rl", "rejected")} == {"List(Value('string'))"}  # type: ignore[index]
        counts.append(lock["kept"])
    assert counts[0] < counts[1], "the second build really gave other rows"


def test_the_card_matches_the_files_and_a_wrong_count_is_refused(tmp_path: Path) -> None:
    from videop2r_data.cards.card.dataset import write_dataset_card
    from videop2r_data.errors import ExportError

    build(tmp_path, "demo", 20)
    folder = tmp_path / "demo"
    before = (folder / "README.md").read_bytes()
    write_dataset_card(folder)
    assert (folder / "README.md").read_bytes() == before, "the card is a function of the files"
    assert b"**Synthetic.**" in before and b"synthetic" in before.split(b"---")[1]
    lock = json.loads((folder / "build.lock.json").read_text())
    lock["files"]["data/sft-00000.parquet"]["rows"] += 1
    (folder / "build.lock.json").write_text(json.dumps(lock))
    with pytest.raises(ExportError, match="not the one in the lock"):
        write_dataset_card(folder)
