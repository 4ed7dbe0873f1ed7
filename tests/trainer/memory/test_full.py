"""Planted lacks of memory: the part, the amount, the settings to lower; the last checkpoint stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.trainer.run import small
from videop2r_data.errors import MemoryFullError
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.memory.full import PARTS, advice
from videop2r_data.trainer.model.load import Reference
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.run import rl as rl_module
from videop2r_data.trainer.run import session as session_module
from videop2r_data.trainer.run.checkpoint import find_checkpoints
from videop2r_data.trainer.run.train import train

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.06 GiB "
    "is free. Of the allocated memory 70.31 GiB is allocated by PyTorch"
)
HOST = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 5368709120 bytes."


def failing(error: BaseException, *, after: int = 0) -> Callable[..., Any]:
    """Raises at the call after `after` others, which do nothing but what they did."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "part", "asked"),
    [
        (torch.OutOfMemoryError(CUDA), "update", "2.50 GiB asked"),
        (RuntimeError(HOST), "host", "5.00 GiB asked"),
        (MemoryError(), "host", "an unknown amount asked"),
        (RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "update", "unknown"),
    ],
)
def test_the_amount_and_the_part(error: Exception, part: str, asked: str) -> None:
    with pytest.raises(MemoryFullError, match=asked) as told, guarded("update"):
        raise error
    assert PARTS["update"] in told.value.message
    assert "GiB free" in told.value.message
    assert told.value.part == part


def test_other_errors_pass_and_the_innermost_part_counts() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), guarded("update"):
        raise RuntimeError("size mismatch")
    with pytest.raises(MemoryFullError, match="optimizer's step"), guarded("update"), guarded("step"):
        raise torch.OutOfMemoryError(CUDA)


Planter = Callable[[pytest.MonkeyPatch, Callable[..., Any]], None]
PLANTED: dict[str, Planter] = {
    "load": lambda patch, fail: patch.setattr(session_module, "load_policy", fail),
    "reference": lambda patch, fail: patch.setattr(rl_module, "load_reference", fail),
    "engine": lambda patch, fail: patch.setattr(rl_module, "make_drawer", fail),
    "rollout": lambda patch, fail: patch.setattr(HfEngine, "generate", fail),
    "logps": lambda patch, fail: patch.setattr(Reference, "logps", fail),
    "update": lambda patch, fail: patch.setattr(rl_module, "policy_loss", fail),
    "step": lambda patch, fail: patch.setattr(torch.optim.AdamW, "step", fail),
}


@pytest.mark.parametrize("part", PLANTED)
def test_a_run_says_where_and_what_to_lower(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small.rl(small.model(tmp_path / "tiny"), tmp_path / "run", steps=1)
    PLANTED[part](monkeypatch, failing(torch.OutOfMemoryError(CUDA)))
    with pytest.raises(MemoryFullError) as told:
        train(recipe)
    assert f"out of memory in {PARTS[part]}: 2.50 GiB asked" in str(told.value)
    assert "there is no checkpoint yet" in str(told.value)
    assert ("sampling.rows: 4" in str(told.value)) == (part == "rollout")
    assert "batch.micro: 1, now 2" in str(told.value)


def test_the_last_checkpoint_stays_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the third step; with a lower `batch.micro` the run goes on from the second."""
    model = small.model(tmp_path / "tiny")
    recipe = small.sft(model, tmp_path / "run", save__every=1, steps=4)
    steps, whole = [0], torch.optim.AdamW.step

    def step(self: Any, *rest: Any, **more: Any) -> Any:
        steps[0] += 1
        if steps[0] == 3:
            raise torch.OutOfMemoryError(CUDA)
        return whole(self, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(MemoryFullError, match="goes on from its checkpoint of step 2"):
            train(recipe)
    assert find_checkpoints(recipe.folder)[-1].step == 2
    done = train(recipe.model_copy(update={"batch": recipe.batch.model_copy(update={"micro": 1})}))
    assert done.complete
    assert [row["step"] for row in small.rows(done.folder)] == [1, 2, 3, 4]


def test_the_command_shows_a_message_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videop2r_data.cli.train import app

    recipe = small.sft(small.model(tmp_path / "tiny"), tmp_path / "run")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True) | {"train": 1}))
    PLANTED["step"](monkeypatch, failing(MemoryError("no room")))
    told = CliRunner().invoke(app, ["sft", str(file)])
    assert told.exit_code == 1
    assert "out of memory in the optimizer's step" in told.output
    assert "data.ahead: 1" in told.output
    assert "Traceback" not in told.output


def test_what_is_advised_follows_the_settings(tmp_path: Path) -> None:
    """Nothing is advised that is set already, and adapters need no advice about weights."""
    whole = small.rl(tmp_path, tmp_path, model__gradient_checkpointing=False)
    assert any(line.startswith("model.gradient_checkpointing") for line in advice(whole, "update"))
    assert any(line.startswith("model.reference_dtype") for line in advice(whole, "update"))
    adapters = small.rl(
        tmp_path,
        tmp_path,
        model__lora={"rank": 2},
        model__dtype="bfloat16",
        model__gradient_checkpointing=True,
        batch__micro=1,
    )
    assert [line.split(",")[0] for line in advice(adapters, "update")] == [
        "sampling.max_new_tokens",
        "data.media.frames",
    ]
    engine = small.rl(tmp_path, tmp_path, sampling__backend="vllm")
    assert advice(engine, "rollout")[0].startswith("vllm.memory")
    assert advice(engine, "update")[0].startswith("vllm.sleep: 1")
