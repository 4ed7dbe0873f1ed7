"""SFT and RL on traces of every packaged grammar, and of one of a user's own with four segments, three streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.run import small
from videop2r_data.schemas import TraceGrammar, load_grammar, packaged_grammars, trace_parser
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.look.curves import panels_for, read_curves
from videop2r_data.trainer.look.samples import read_samples, render_samples
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.objectives import trace_streams
from videop2r_data.trainer.settings.parts import run_grammar

pytestmark = pytest.mark.integration
torch.set_num_threads(1)

OWN = TraceGrammar.model_validate(
    {
        "name": "own",
        "segments": [
            {"name": "look", "role": "perception", "tag": "look", "stream": "eyes"},
            {"name": "note", "role": "other", "tag": "note", "stream": "notes"},
            {"name": "why", "role": "reasoning", "tag": "why"},
            {"name": "result", "role": "answer", "boxed": True},
        ],
    }
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.model(tmp_path_factory.mktemp("tiny"))


def keys_of(run: Path) -> set[str]:
    return {
        key.removeprefix("reward/total_") for key in small.rows(run)[0] if key.startswith("reward/total_")
    }


@pytest.mark.parametrize("name", packaged_grammars())
def test_both_stages_run_with_the_streams_of_a_grammar(tiny: Path, tmp_path: Path, name: str) -> None:
    form = load_grammar(name)
    recipe = small.sft(tiny, tmp_path / "sft", data__trace=name, steps=1)
    target = read_examples(recipe.data)[0].target
    assert target is not None and trace_parser(form).spans(target).fault is None
    assert train(recipe).complete
    sees = any(stream.sees for stream in trace_streams(form))
    judging = {"kind": "demo" if sees else "none"}
    train(small.rl(tmp_path / "sft" / "final", tmp_path / "rl", data__trace=name, steps=1, judging=judging))
    assert keys_of(tmp_path / "rl") == {stream.key for stream in trace_streams(form)}
    assert run_grammar(tmp_path / "rl") == form
    facts = json.loads((tmp_path / "rl" / "run.json").read_text())["data"]
    assert ("trace" in facts) == (name != "videop2r")


def test_a_grammar_of_ones_own_learns_and_each_stream_has_its_tokens(tiny: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"data__trace": OWN.model_dump(mode="json")}
    optim = {"lr": 0.006, "warmup": 5, "betas": [0.9, 0.98], "max_grad_norm": 1.0, "schedule": "linear"}
    batch = {"size": 16, "micro": 16}
    train(small.sft(tiny, tmp_path / "sft", steps=100, optim=optim, batch=batch, **changes))
    bounds = {"bounds": {"eyes": [3, 60], "notes": [3, 60]}, "reasoning_bounds": [3, 60]}
    run = tmp_path / "rl"
    train(
        small.rl(
            tmp_path / "sft" / "final",
            run,
            steps=2,
            rewards=bounds,
            sampling={"max_new_tokens": 160},
            **changes,
        )
    )
    found = small.rows(run)
    assert keys_of(run) == {"eyes", "notes", "r"}
    assert "reward/accuracy_eyes" in found[0] and "reward/accuracy_notes" not in found[0]
    for key in ("eyes", "notes", "r"):
        assert sum(row[f"reward/format_{key}"] for row in found) > 1.0  # of two steps
        assert all(row[f"length/{key}"] > 3 for row in found)
        assert f"clip_fraction/{key}" in found[0]
    records = read_samples(run)
    whole = [record for record in records if record["fault"] is None]
    assert whole
    for record in whole:
        assert list(record["segments"]) == ["look", "note", "why", "result"]
        assert set(record["advantages"]) == {"eyes", "notes", "r"}
        assert sum(record["tokens"][key] for key in ("eyes", "notes", "r")) in (
            record["tokens"]["all"],
            record["tokens"]["all"] - 1,  # the end-of-turn token has no bytes
        )
    render_samples(records, run_grammar(run))
    runs = [read_curves(run)]
    lines = {line.process for panel in panels_for(runs, split=False) for line in panel.lines}
    assert {"eyes", "notes", "reasoning"} <= lines
    assert panels_for(runs * 2, split=True)
