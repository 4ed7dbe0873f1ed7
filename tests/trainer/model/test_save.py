"""What is saved loads with `from_pretrained` and computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.model.batches import batch_of, clip, random_completions, tiny_folder, tiny_policy
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import Reference, load_policy, load_reference
from videop2r_data.trainer.model.weights import bare, save_policy
from videop2r_data.trainer.settings.parts import LoraSpec, PolicySpec


def logps(net: Any, processor: Any) -> Any:
    batch = batch_of(processor, (clip(1), None))
    with torch.no_grad():
        return TrainModel(net)(batch.with_completions(random_completions(4), 2)).logps


def shake(net: Any) -> None:
    """Move every trainable weight."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)


@pytest.mark.parametrize("lora", [None, LoraSpec(rank=3), LoraSpec(rank=2, vision=True)])
def test_a_saved_policy_is_a_whole_model(lora: LoraSpec | None, tmp_path: Path) -> None:
    policy = tiny_policy(lora)
    shake(policy.net)
    want = logps(policy.net, policy.processor)
    save_policy(TrainModel(policy.net), policy.processor, tmp_path / "final")
    loaded = load_policy(PolicySpec(model=str(tmp_path / "final"), dtype="float32"))
    torch.testing.assert_close(logps(loaded.net, loaded.processor), want, atol=1e-4, rtol=1e-4)
    assert bare(loaded.net).generation_config.eos_token_id == policy.tokenizer.eos_token_id
    torch.testing.assert_close(logps(policy.net, policy.processor), want, atol=0, rtol=0)  # untouched


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it
def test_adapters_alone_load_on_their_base(tmp_path: Path) -> None:
    from peft import PeftModel

    policy = tiny_policy(LoraSpec(rank=3))
    shake(policy.net)
    save_policy(policy.net, policy.processor, tmp_path, merge=False)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 200_000
    base = tiny_policy().net
    loaded = PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(logps(loaded, policy.processor), logps(policy.net, policy.processor))


def test_the_reference_of_adapters_is_the_base() -> None:
    policy, base = tiny_policy(LoraSpec(rank=3)), tiny_policy()
    shake(policy.net)
    inputs = batch_of(base.processor, (clip(1), None)).with_completions(random_completions(4), 2)
    model = TrainModel(policy.net)
    reference = Reference(model)
    want = logps(base.net, base.processor)
    torch.testing.assert_close(reference.logps(inputs).logps, want)
    assert not torch.allclose(model(inputs).logps, want, atol=1e-3)
    # a second model gives the same, and never moves
    frozen = load_reference(PolicySpec(model=str(tiny_folder()), dtype="float32"))
    torch.testing.assert_close(Reference(model, frozen).logps(inputs).logps, want)
    assert not any(weight.requires_grad for weight in frozen.parameters())
    trained = [name for name, weight in policy.net.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora" in name and "language_model" in name for name in trained)


def test_a_reference_needs_adapters_or_a_second_model() -> None:
    with pytest.raises(ConfigError, match="second, frozen copy"):
        Reference(TrainModel(tiny_policy().net))


def test_a_frozen_tower_stays_and_the_rest_learns() -> None:
    policy = tiny_policy(freeze_vision=True)
    inputs = batch_of(policy.processor, (clip(1), None)).with_completions(random_completions(4), 2)
    TrainModel(policy.net)(inputs).logps.sum().backward()
    for name, weight in policy.net.named_parameters():
        assert (weight.grad is None) == ("visual" in name), name


def test_vision_adapters_learn() -> None:
    policy = tiny_policy(LoraSpec(rank=2, vision=True), gradient_checkpointing=True)
    inputs = batch_of(policy.processor, (clip(1), None)).with_completions(random_completions(4), 2)
    TrainModel(policy.net)(inputs).logps.sum().backward()
    tower = [w.grad for n, w in policy.net.named_parameters() if "visual" in n and "lora_B" in n]
    assert tower
    assert all(grad is not None and grad.abs().sum() > 0 for grad in tower)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="drop one"):
        PolicySpec(model="x", freeze_vision=True, lora=LoraSpec(vision=True))


@pytest.mark.parametrize("cut", [False, True])
def test_weights_go_straight_to_their_device(cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process holds all weights in the host's memory; DeepSpeed's ZeRO-3 places them itself."""
    from transformers import AutoModelForImageTextToText as Auto

    whole, told = Auto.from_pretrained, dict[str, Any]()

    def load(*names: Any, **options: Any) -> Any:
        told.update(options)
        return whole(*names, **options)

    monkeypatch.setattr(Auto, "from_pretrained", load)
    monkeypatch.setattr("transformers.integrations.deepspeed.is_deepspeed_zero3_enabled", lambda: cut)
    tiny_policy()
    assert told.get("device_map") == (None if cut else torch.device("cpu"))


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load"):
        load_policy(PolicySpec(model=str(tmp_path / "none")))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="type 'llama'; known are qwen2_5_vl, qwen3_vl"):
        load_policy(PolicySpec(model=str(tmp_path)))
    with pytest.raises(ConfigError, match="no adapter fits"):
        tiny_policy(LoraSpec(targets=("nothing",)))
