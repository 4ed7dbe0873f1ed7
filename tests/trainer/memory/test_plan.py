"""Counted memory against measured memory, and against arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.trainer.memory.measure import measured
from tests.trainer.run import small
from videop2r_data.cli.train import app
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.memory.count import Ledger, model_of
from videop2r_data.trainer.memory.plan import GIB, _Run, plan_memory, shapes
from videop2r_data.trainer.settings.recipe import TrainRecipe, load_train_recipe

HALF = {"model__dtype": "bfloat16", "precision": "bf16"}
SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft, recomputed": {"model__gradient_checkpointing": True},
    "rl": {},
    "rl, more prompts": {"batch__size": 8},
    "rl, whose rollouts take most": {"batch__size": 16, "model__gradient_checkpointing": True},
    "rl, bf16 reference and autocast": {"precision": "bf16", "model__reference_dtype": "bfloat16"},
    "rl, float32 copies": {**HALF, "optim__kind": "adamw-master"},
    "rl, adapters": {**HALF, "model__lora": {"rank": 4}},
}
CLIP = 16 * 2
"""Tokens of two pairs of frames of 32 x 32 pixels, 8 x 8 to a token."""


def tiny(kind: str, model: Path, run: Path, **changes: Any) -> TrainRecipe:
    """Two steps without readings of alarms, a row of a fixed clip at a time."""
    made = small.sft if kind == "sft" else small.rl
    alarms = {} if kind == "sft" else {"alarms__every": 0}
    return made(
        model,
        run,
        **{
            "steps": 2,
            "batch__micro": 1,
            "data__media": {"frames": 4, "max_pixels": 1024, "min_pixels": 64, "factor": 8},
            "data__demo": {**small.STREAM, "side": 32},
            **alarms,
            **changes,
        },
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_the_count_is_within_ten_percent_of_what_is_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that torch's allocator holds at the worst moment of a run, from loading to the last step."""
    model = small.model(tmp_path / "tiny")
    recipe = tiny(name.partition(",")[0], model, tmp_path / "run", **SETTINGS[name])
    peak, prompt, completion = measured(recipe, monkeypatch)
    found = plan_memory(recipe, gpus=1, card=1, cuda=False, text=prompt - CLIP, completion=completion)
    assert found.phases[found.peak] == pytest.approx(peak, rel=0.1)


def test_published_numbers_of_weights() -> None:
    """The packaged shapes make as many weights as the published checkpoints hold."""
    published = {
        "qwen2.5-vl-3b": 3_754_622_976,
        "qwen2.5-vl-7b": 8_292_166_656,
        "qwen3-vl-2b": 2_127_532_032,
        "qwen3-vl-4b": 4_437_815_808,
        "qwen3-vl-8b": 8_767_123_696,
    }
    from transformers import AutoConfig

    recipe = load_train_recipe("paper-7b-rl")
    for name, data in shapes().items():
        model = model_of(recipe, AutoConfig.for_model(**data))
        assert sum(weight.numel() for weight in model.parameters()) == published[name]
    assert set(shapes()) == set(published)


def test_a_ledger_by_hand() -> None:
    """[4, 8] float32 is 128 bytes; what has died is no longer held, the peak stays; a view is nothing new."""
    core = torch.nn.Module()
    core.config = type("C", (), {"text_config": type("T", (), {"vocab_size": 99, "hidden_size": 7})()})()
    ledger = Ledger(core)
    with ledger:
        one = torch.ones(4, 8)
        two = one.view(8, 4)
        three = torch.ones(2, 99)  # as wide as the vocabulary
    assert ledger.parts == {"activations": 128, "logits": 792}
    del two, three
    assert ledger.parts == {"activations": 128, "logits": 0}
    del one
    assert ledger.parts.total() == 0
    assert ledger.peak.total() == 920
    assert ledger.work == 920


def test_bytes_of_each_optimizer(tmp_path: Path) -> None:
    """Bytes a weight: weight, gradient, means, float32 copy."""
    model = small.model(tmp_path / "tiny")
    expected = {
        "adamw": (4, 4, 8, 0),
        "adamw-master": (2, 2, 8, 4),
        "adamw-host": (2, 2, 0, 0),
    }
    for kind, (weight, gradient, means, copies) in expected.items():
        half = {} if kind == "adamw" else HALF
        found = plan_memory(tiny("sft", model, tmp_path, optim__kind=kind, **half), gpus=1, card=1)
        names = ("weights", "gradients", "optimizer", "float32 copies")
        each = [found.parts.get(name, 0) / found.weights for name in names]
        assert each == [weight, gradient, means, copies]
        assert (found.host.get("optimizer and float32 copies", 0) == 12 * found.weights) == (
            kind == "adamw-host"
        )
    eight = plan_memory(tiny("sft", model, tmp_path, optim__kind="adamw-8bit", **HALF), gpus=1, card=1)
    # 1 + 4 / 256 bytes for each mean of large weights; small ones keep two of 2 bytes
    assert 2 * (1 + 1 / 64) < eight.parts["optimizer"] / eight.weights < 2 * 1.25


def test_many_gpus_share_the_weights_and_adapters_do_not(tmp_path: Path) -> None:
    model = small.model(tmp_path / "tiny")
    one, four = (plan_memory(tiny("sft", model, tmp_path), gpus=n, card=1) for n in (1, 4))
    for part in ("weights", "gradients", "optimizer"):
        assert four.parts[part] == one.parts[part] // 4
    assert "gathered layers" in four.parts
    adapters = tiny("sft", model, tmp_path, model__lora={"rank": 2}, model__dtype="bfloat16")
    one, four = (plan_memory(adapters, gpus=n, card=1) for n in (1, 4))
    assert four.parts["weights"] == one.parts["weights"]


def test_the_engine_counts_when_it_is_awake(tmp_path: Path) -> None:
    model = small.model(tmp_path / "tiny")
    asleep, awake = (
        plan_memory(tiny("rl", model, tmp_path, sampling__backend="vllm", vllm__sleep=level), gpus=1, card=20)
        for level in (1, 0)
    )
    engine = int(0.3 * 20 * GIB)
    assert awake.parts["vLLM engine"] == engine
    assert awake.phases["update"] - asleep.phases["update"] == pytest.approx(engine, rel=0.05)
    assert asleep.kv_tokens
    small_card = plan_memory(tiny("rl", model, tmp_path, sampling__backend="vllm"), gpus=1, card=4)
    assert small_card.kv_tokens == 0  # 2 GiB of work and the weights leave nothing
    assert not small_card.fits
    server = tiny("rl", model, tmp_path, sampling__backend="vllm-server", vllm__url="http://x:1")
    plan = plan_memory(server, gpus=5, card=20)
    assert (plan.training, bool(plan.server), "rollout" in plan.phases) == (4, True, False)


def test_the_command_says_whether_it_fits(tmp_path: Path) -> None:
    model = small.model(tmp_path / "tiny")
    call = ["plan", "tiny-rl", "--model", str(model), "--micro", "1"]
    fits = CliRunner().invoke(app, [*call, "--gpus", "1x8", "--json"])
    assert fits.exit_code == 0, fits.output
    told = json.loads(fits.output)
    assert told["fits"]
    assert told["shape"] == str(model)
    assert sum(told["parts"].values()) <= told["phases"][told["peak"]] + told["parts"]["weights"]
    small_card = CliRunner().invoke(app, [*call, "--gpus", "1x0.5"])
    assert small_card.exit_code == 1
    assert "Does not fit" in small_card.output
    assert "model.gradient_checkpointing: true" in small_card.output
    host = CliRunner().invoke(app, [*call, "--gpus", "1x8", "--host", "2"])
    assert host.exit_code == 1
    assert "the host" in host.output
    assert CliRunner().invoke(app, [*call, "--gpus", "one"]).exit_code == 2


def test_a_model_that_is_not_here_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are found in the name; what has none must name a shape."""
    monkeypatch.setattr(_Run, "__init__", _told)
    for name, shape in (
        ("runs/paper-3b-sft/final", "qwen2.5-vl-3b"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b"),
        ("Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl-8b"),
    ):
        with pytest.raises(_Stop) as told:
            plan_memory(load_train_recipe("paper-3b-rl", flags={"model.model": name}), gpus=1, card=80)
        assert told.value.args == (shapes()[shape]["text_config"]["hidden_size"],)
    with pytest.raises(ConfigError, match="no sizes of 'my-model'"):
        plan_memory(load_train_recipe("paper-3b-rl", flags={"model.model": "my-model"}), gpus=1, card=80)


def test_a_folder_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name where the name tells the sizes; a folder that holds no model is an error, whatever its name."""
    recipe = load_train_recipe("paper-3b-sft-lora", flags={"model.model": "runs/none-3b"})
    found = plan_memory(recipe, gpus=1, card=80, completion=32)
    assert found.assumed[0] == "no such folder: runs/none-3b: the sizes are those of its name"
    assert found.shape == "packaged qwen2.5-vl-3b"
    (tmp_path / "run-3b" / "final").mkdir(parents=True)
    recipe = load_train_recipe("paper-3b-sft-lora", flags={"model.model": str(tmp_path / "run-3b")})
    with pytest.raises(ConfigError, match="no model in this folder"):
        plan_memory(recipe, gpus=1, card=80)


def test_rows_without_padding_and_windows_are_counted(tmp_path: Path) -> None:
    """Rows of one length have no padding to save, and windows of one length are sorted by no copy."""
    model = small.model(tmp_path / "tiny")
    plain = plan_memory(tiny("sft", model, tmp_path), gpus=1, card=1)
    for setting in ({"padding_free": True}, {"vision_attention": "windows"}):
        changes = {f"model__{name}": value for name, value in setting.items()}
        other = plan_memory(tiny("sft", model, tmp_path, **changes), gpus=1, card=1)
        assert other.parts["activations"] == pytest.approx(plain.parts["activations"], rel=0.1)
    eager = plan_memory(tiny("sft", model, tmp_path, model__attn="eager"), gpus=1, card=1)
    assert eager.parts["activations"] > 1.05 * plain.parts["activations"]


def test_the_host_holds_no_copy_of_the_weights_for_each_process(tmp_path: Path) -> None:
    """Two of the largest weights are on their way, as stored and as held; FSDP's result is whole, once."""
    model = small.model(tmp_path / "tiny")
    one, four = (plan_memory(tiny("sft", model, tmp_path), gpus=n, card=1) for n in (1, 4))
    largest = 640 * 64  # vocabulary x hidden size
    assert one.host["weights while they load"] == 2 * (2 + 4) * largest
    assert four.host["weights while they load"] == 4 * one.host["weights while they load"]
    assert one.host["whole weights while they are saved"] == 0
    assert four.host["whole weights while they are saved"] == 4 * four.weights


def test_one_step_ahead_holds_the_next_pixels_too(tmp_path: Path) -> None:
    model = small.model(tmp_path / "tiny")
    server = {"sampling__backend": "vllm-server", "vllm__url": "http://x:1"}
    now, ahead = (
        plan_memory(tiny("rl", model, tmp_path, rl__ahead=on, **server), gpus=2, card=20).host[
            "frames and pixels"
        ]
        for on in (False, True)
    )
    pixels = 4 * CLIP * 4 * 3 * 2 * 4 * 4 * 4  # prompts, patches, channels, times, sides, float32
    assert ahead - now == pytest.approx(pixels, rel=0.01)


class _Stop(Exception):
    pass


def _told(self: Any, recipe: Any, config: Any, *rest: Any, **more: Any) -> None:
    raise _Stop(config.text_config.hidden_size)


@pytest.mark.integration
def test_three_billion_weights_fit_one_card() -> None:
    """The packaged recipe for one GPU of 80 GB, by its own count: 18 bytes a weight, and vLLM in its sleep."""
    found = plan_memory(load_train_recipe("paper-3b-rl-1x80"), gpus=1, card=80)
    assert found.fits
    held = sum(found.parts[n] for n in ("weights", "gradients", "optimizer", "float32 copies", "reference"))
    assert held == 18 * found.weights
    assert found.phases["update"] < 72 * GIB
    assert found.kv_tokens and found.kv_tokens > 7 * 8 * 2200  # a step's rollouts at once
