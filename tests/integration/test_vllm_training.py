"""PA-GRPO with rollouts by vLLM in process, whole: learn the template, then update from vLLM's completions.

Runs in the environment of `scripts/vllm_env.sh` (`make test-vllm`); skipped elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm")

import torch

from tests.trainer.run import small
from videop2r_data.trainer.run.runlog import read_lines
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.tiny.model import make_tiny

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]
HEADS = small.TINY.model_copy(update={"hidden": 128, "heads": 2, "intermediate": 256, "tied": False})
"""A head size of 64, which vLLM's CPU attention takes."""


def test_updates_from_completions_of_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    model = make_tiny(tmp_path / "tiny", HEADS, world=small.WORLD)
    learnt = small.sft(
        model,
        tmp_path / "sft",
        batch={"size": 16, "micro": 16},
        steps=90,
        optim={"lr": 0.004, "warmup": 5, "betas": [0.9, 0.98], "max_grad_norm": 1.0, "schedule": "linear"},
    )
    assert train(learnt).complete
    run = tmp_path / "rl"
    recipe = small.rl(
        tmp_path / "sft" / "final",
        run,
        steps=3,
        sampling={"max_new_tokens": 32, "backend": "vllm"},
        vllm={"engine": {"enforce_eager": True}, "memory": 0.4, "max_model_len": 1024},
    )
    assert train(recipe).complete
    rows = small.rows(run)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["rollouts"] == 16 and row["unscored/p"] == 0 for row in rows)
    assert all(row["reward/format_p"] > 0.5 for row in rows), "what vLLM writes is what the policy has learnt"
    assert all(row["grad_norm"] > 0 for row in rows), "its completions moved the policy"
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    # vLLM's own log-probabilities of its tokens are the trainer's, up to rounding
    assert all(0 < row["mismatch/abs_all"] < 1e-3 and row["mismatch/max_all"] < 0.05 for row in rows)
    assert rows[2]["kl"] > 0
    assert len(read_lines(run / "samples.jsonl")) > 0
    before, after = small.weights(tmp_path / "sft"), small.weights(run)
    assert any(not torch.equal(before[name], after[name]) for name in before)
