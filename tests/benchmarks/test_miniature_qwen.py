"""The miniature's world as rows and films for the trainer, and its tiny Qwen2.5-VL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Generator

from benchmarks.miniature import qwen, report
from benchmarks.miniature.settings import KL
from benchmarks.miniature.sft import world_of
from videop2r_data.media import sample_media
from videop2r_data.trainer import load_train_recipe
from videop2r_data.trainer.data import read_examples
from videop2r_data.trainer.evaluate import EvalRow


def test_rows_show_what_the_world_drew(tmp_path: Path) -> None:
    clips = world_of(qwen.WORLD).draw(2, Generator().manual_seed(0))
    shown = torch.zeros(2, 3, 12, 12)
    shown[0, 1, 2, 3], shown[0, 2, 4, 5] = 1.0, -9.0
    clips = clips._replace(digits=torch.tensor([[4, 3, 2]] * 2), question=torch.tensor([0, 2]), seen=shown)
    # The teacher slipped: rows keep the right answer (4; 0, see `test_rules_by_hand`) beside the trace.
    qwen.write_rows(tmp_path / "data", "train", clips, torch.tensor([[4, 3, 1, 2, 3]] * 2))
    recipe = qwen.recipe_of(tmp_path, tmp_path / "tiny", 0, qwen.FULL)
    one, other = read_examples(recipe.data)
    assert (one.reference, other.reference) == ("4", "0")
    assert one.target == "<observation>4 3 1</observation> <think>2</think><answer>3</answer>"
    assert one.path is not None
    array = sample_media(one.path, "video", recipe.data.media, want="array").array
    assert array is not None
    assert array.shape == (6, 12, 12, 3)
    assert (array[::2] == array[1::2]).all()
    assert array[0, 0, 0].tolist() == [123, 117, 104]  # what the processor makes 0
    assert array[2, 2, 3].tolist() == [123 + 48, 117 + 48, 104 + 48]
    assert array[4, 4, 5].tolist() == [0, 0, 0]


def test_recipes_are_files_for_the_command_line() -> None:
    sft, rl = (load_train_recipe(qwen.HERE / f"qwen-{stage}.yaml") for stage in ("sft", "rl"))
    assert (sft.stage, rl.stage) == ("sft", "rl")
    assert rl.data.media == sft.data.media
    assert rl.data.media.factor == 2 * qwen.TINY.patch
    assert rl.loss.beta == KL


def test_what_is_no_trace_is_wrong_in_everything() -> None:
    clips = world_of(qwen.WORLD).draw(4, Generator().manual_seed(0))
    clips = clips._replace(digits=torch.tensor([[4, 3, 2]] * 4), question=torch.zeros(4, dtype=torch.long))
    texts = {3: "4 3 2 2 4", 0: qwen.TRACE.format(4, 3, 2, 2, 4), 1: qwen.TRACE.format(3, 4, 2, 2, 4)}
    rows = [
        EvalRow(index=at, sample_id=str(at), problem_type="numerical", data_type="video", text=text)
        for at, text in {**texts, 2: qwen.TRACE.format(4, 3, 2, 2, 1) + " "}.items()
    ]
    found = qwen.read(rows, clips)
    assert found["form"] == 0.5
    assert (found["answers"], found["observations"], found["invented"]) == (0.5, 0.25, 0.25)
    assert found["one_wrong"] == 0.25
    assert set(qwen.read(rows[:1], clips)) == set(found)


def test_the_quick_run_and_its_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    results = tmp_path / "qwen.jsonl"
    arguments = ["--quick", "--out", str(tmp_path), "--results", str(results)]
    qwen.main(arguments)
    first = results.read_bytes()
    assert "THE GATE DOES NOT HOLD" in capsys.readouterr().out
    found = [json.loads(line) for line in first.splitlines()]
    assert [one["arm"] for one in found] == ["sft", "pa-grpo", "grpo"]
    assert [one["updates"] for one in found] == [2, 2, 2]
    judged = (tmp_path / "quick/0/pa-grpo/metrics.jsonl").read_text()
    assert '"judge' in judged
    page = report.filled("[[qwen]]\n[[gate qwen]]", found)
    assert "| pa-grpo | 0 | 2 |" in page
    assert "stops seeds 0" in page
    curve = {"step": [5, 10], "greedy": [0.25, 0.5], "questions": 8}
    tried = {"setting": "qwen", "purpose": "try", "updates": 20, "clips": 9, "ended": 12, "curve": curve}
    page = report.filled("[[qwen]]", [*found, tried])
    assert "ended by hand at update 12: greedy answers on 8 held-out clips 25.0 at update 5, 50.0 at" in page
    assert report.filled("[[qwen]]", []) == "Not run yet.\n"
    qwen.main(arguments)  # nothing is trained again
    assert results.read_bytes() == first
    assert "GATE" not in capsys.readouterr().out
