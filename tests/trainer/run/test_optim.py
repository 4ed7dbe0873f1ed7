"""AdamW in less memory: float32 copies beside bf16 weights, on the device or the host; means of 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.run import small
from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.trainer.model.load import load_reference
from videop2r_data.trainer.run import rl as rl_module
from videop2r_data.trainer.run.optim import MasterAdamW, make_optimizer
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.parts import OptimSpec
from videop2r_data.trainer.settings.recipe import TrainRecipe

MASTERS = ("adamw-master", "adamw-host")


def net_of(dtype: torch.dtype, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(16, 256), torch.nn.Linear(256, 4)).to(dtype)


def give_gradients(*nets: torch.nn.Module, step: int) -> None:
    """The same gradients, exact in bf16, for every net."""
    torch.manual_seed(100 + step)
    for weights in zip(*(net.parameters() for net in nets), strict=True):
        grad = torch.randn(weights[0].shape).bfloat16()
        for weight in weights:
            weight.grad = grad.to(weight.dtype)


def copies(optimizer: torch.optim.Optimizer, net: torch.nn.Module) -> list[torch.Tensor]:
    return [optimizer.state[weight]["master"] for weight in net.parameters()]


@pytest.mark.parametrize("kind", MASTERS)
def test_the_copies_are_those_of_float32_training(kind: Any) -> None:
    """The copies equal torch's own AdamW on float32 weights, step by step; the weights are the copies, rounded."""
    half, whole = net_of(torch.bfloat16), net_of(torch.bfloat16).float()
    spec = OptimSpec(kind=kind, lr=1e-3, weight_decay=0.1)
    optimizer = make_optimizer(half, spec)
    groups = [
        {"params": [w for w in whole.parameters() if (w.dim() >= 2) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, 0.1), (False, 0.0))
    ]
    exact = torch.optim.AdamW(groups, lr=1e-3, betas=spec.betas, eps=spec.eps, fused=True)
    for step in range(5):
        give_gradients(half, whole, step=step)
        optimizer.step()
        exact.step()
        assert all(weight.grad is None for weight in half.parameters())
        for weight, master, reference in zip(
            half.parameters(), copies(optimizer, half), whole.parameters(), strict=True
        ):
            assert master.dtype == torch.float32
            assert torch.equal(master, reference)
            assert torch.equal(weight, reference.bfloat16())


def test_small_updates_are_not_lost() -> None:
    """20 updates of 1e-6 move the copies of bf16 weights; rounded each time, no weight would have moved."""
    net = net_of(torch.bfloat16)
    before = [weight.detach().clone() for weight in net.parameters()]
    optimizer = make_optimizer(net, OptimSpec(kind="adamw-master", lr=1e-6, weight_decay=0))
    for _ in range(20):
        for weight in net.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    for old, master in zip(before, copies(optimizer, net), strict=True):
        assert torch.allclose(old.float() - master, torch.full_like(master, 20e-6), atol=1e-6)


@pytest.mark.parametrize("kind", MASTERS)
def test_a_saved_state_goes_on_bit_equal(kind: Any, tmp_path: Path) -> None:
    net, again = net_of(torch.bfloat16), net_of(torch.bfloat16, seed=1)
    spec = OptimSpec(kind=kind, lr=1e-4)
    optimizer, other = make_optimizer(net, spec), make_optimizer(again, spec)
    for step in range(3):
        give_gradients(net, step=step)
        optimizer.step()
    torch.save((net.state_dict(), optimizer.state_dict()), tmp_path / "state")
    weights, state = torch.load(tmp_path / "state")
    again.load_state_dict(weights)
    other.load_state_dict(state)
    for step in range(3, 6):
        give_gradients(net, again, step=step)
        optimizer.step()
        other.step()
    for one, two in zip(copies(optimizer, net), copies(other, again), strict=True):
        assert two.dtype == torch.float32
        assert torch.equal(one, two)


def test_a_weight_without_a_gradient_stays() -> None:
    net = net_of(torch.bfloat16)
    before = [weight.detach().clone() for weight in net.parameters()]
    optimizer = make_optimizer(net, OptimSpec(kind="adamw-master"))
    optimizer.step()
    assert not optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


HALF = {"model__dtype": "bfloat16", "precision": "bf16"}


@pytest.mark.parametrize("kind", [*MASTERS, "adamw-8bit"])
def test_a_run_learns_and_a_resumed_one_is_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT of bf16 weights: the loss falls as in float32, and stopping in between changes no bit."""
    if kind == "adamw-8bit":
        pytest.importorskip("torchao")
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # a minute of compiling
    model = small.model(tmp_path / "tiny")

    def recipe(name: str, **changes: Any) -> TrainRecipe:
        return small.sft(model, tmp_path / name, optim__kind=kind, **HALF, **changes)

    done = train(recipe("whole"))
    train(small.sft(model, tmp_path / "float32"))
    expected = [row["loss"] for row in small.rows(tmp_path / "float32")]
    found = [row["loss"] for row in small.rows(done.folder)]
    assert found == pytest.approx(expected, rel=0.03)
    stop = _After(3)
    assert not train(recipe("parts"), watchers=[stop], stop=stop.stop).complete
    train(recipe("parts"))
    assert small.rows(tmp_path / "parts") == small.rows(done.folder)
    one, two = small.weights(done.folder), small.weights(tmp_path / "parts")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {weight.dtype for weight in one.values()} == {torch.bfloat16}


class _After:
    """Stops a run after some steps."""

    def __init__(self, steps: int) -> None:
        from videop2r_data.trainer.run.runlog import Stop

        self.stop, self._steps = Stop(), steps

    def begin(self, stage: str, step: int, steps: int) -> None:
        pass

    def row(self, row: Any) -> None:
        if row["step"] >= self._steps:
            self.stop.ask()

    def note(self, text: str) -> None:
        pass


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchao.optim", None)
    with pytest.raises(MissingExtraError, match="torchao"):
        make_optimizer(net_of(torch.bfloat16), OptimSpec(kind="adamw-8bit"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__dtype": "bfloat16"}, "loses updates"),
        ({"model__dtype": "float16", "optim__kind": "adamw-8bit"}, "loses updates"),
        ({"optim__kind": "adamw-master"}, "what trains is float32"),
        (
            {"model__dtype": "bfloat16", "model__lora": {"rank": 2}, "optim__kind": "adamw-host"},
            "what trains",
        ),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        small.sft(tmp_path, tmp_path, **changes)


def test_old_recipes_are_as_they_were(tmp_path: Path) -> None:
    """The new settings are in no dump while they have their defaults: runs of before go on."""
    recipe = small.rl(tmp_path, tmp_path)
    assert "kind" not in recipe.identity["optim"]
    assert "reference_dtype" not in recipe.identity["model"]
    assert isinstance(make_optimizer(net_of(torch.float32), recipe.optim), torch.optim.AdamW)
    assert not isinstance(make_optimizer(net_of(torch.float32), recipe.optim), MasterAdamW)


def test_sharded_weights_and_copies_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    from videop2r_data.trainer.run.session import make_accelerator

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    recipe = small.sft(tmp_path, tmp_path, optim__kind="adamw-master", **HALF)
    with pytest.raises(ConfigError, match="cuts the weights"):
        make_accelerator(recipe)
    AcceleratorState._reset_state()


# The reference.


def test_a_reference_in_bf16_is_half_as_large_and_tells_nearly_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def kept(*args: Any, **settings: Any) -> Any:
        loaded.append(load_reference(*args, **settings))
        return loaded[-1]

    monkeypatch.setattr(rl_module, "load_reference", kept)
    model = small.model(tmp_path / "tiny")
    done = train(
        small.rl(model, tmp_path / "run", model__reference_dtype="bfloat16", steps=1, judging__kind="demo")
    )
    assert {weight.dtype for weight in loaded[0].parameters()} == {torch.bfloat16}
    assert 0 <= done.last["kl"] < 1e-3


def test_adapters_take_no_second_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of LoRA is the base with the adapters off: nothing is loaded, and at the start KL is 0."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a second model is loaded")

    monkeypatch.setattr(rl_module, "load_reference", never)
    model = small.model(tmp_path / "tiny")
    done = train(
        small.rl(
            model, tmp_path / "run", model__lora={"rank": 2, "alpha": 4}, model__dtype="bfloat16", steps=1
        )
    )
    assert done.last["kl"] == pytest.approx(0, abs=1e-6)
