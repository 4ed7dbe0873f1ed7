"""The loss in parts, with padding, with numbers that are none, in half precision."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer.process.pencil import EXACT, MASK, NOW, OLD, REF, P, R, averages, loss_of
from videop2r_data.trainer.process.advantages import Stream
from videop2r_data.trainer.process.loss import (
    Denominators,
    LossResult,
    denominators,
    mismatch,
    policy_loss,
)
from videop2r_data.trainer.settings.rl import LossSpec

SPECS = [
    LossSpec.model_validate({"ratio": ratio, "reduction": reduction, "kl_over": kl_over})
    for ratio in ("token", "segment")
    for reduction in ("segment", "sequence", "token")
    for kl_over in ("completion", "segments")
]


class Case(NamedTuple):
    """A random step of N rows."""

    now: Tensor
    old: Tensor
    ref: Tensor
    mask: Tensor
    streams: list[Stream]

    def rows(self, index: Tensor) -> Case:
        found = [Stream(s.name, s.mask[index], s.advantage[index]) for s in self.streams]
        return Case(self.now[index], self.old[index], self.ref[index], self.mask[index], found)

    def loss(self, spec: LossSpec, over: Denominators | None = None) -> LossResult:
        return policy_loss(
            self.now,
            self.old,
            self.ref,
            self.streams,
            completion_mask=self.mask,
            spec=spec,
            denominators=over or denominators(self.mask),
            entropy=-self.now.detach(),
        )


def random_case(seed: int, rows: int = 6, width: int = 7) -> Case:
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand(rows, width, generator=g) * 3
    now = (old + torch.randn(rows, width, generator=g) * 0.4).requires_grad_()
    ref = old + torch.randn(rows, width, generator=g) * 0.3
    lengths = torch.randint(1, width + 1, (rows, 1), generator=g)
    mask = torch.arange(width) < lengths
    border = torch.randint(0, width, (rows, 1), generator=g)
    p = ((torch.arange(width) < border) & mask).float()
    r = mask.float() - p
    p[0], r[0] = 0.5 * mask[0], 0.5 * mask[0]  # one row that cannot be split
    a = torch.randn(2, rows, generator=g)
    return Case(now, old, ref, mask, [Stream("p", p, a[0]), Stream("r", r, a[1])])


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.ratio}-{s.reduction}-{s.kl_over}")
@pytest.mark.parametrize("parts", [[6], [2, 4], [1, 1, 1, 1, 1, 1], [4, 2]])
def test_micro_batches_and_ranks_add_up(spec: LossSpec, parts: list[int]) -> None:
    case = random_case(1)
    whole = case.loss(spec)
    (gradient,) = torch.autograd.grad(whole.loss, case.now)
    # each part alone computes its counts; their sum is handed to all
    cuts = [case.rows(rows) for rows in torch.arange(6).split(parts)]
    over = Denominators(*map(sum, zip(*(denominators(cut.mask) for cut in cuts), strict=True)))
    results = [cut.loss(spec, over) for cut in cuts]
    torch.testing.assert_close(torch.stack([r.loss for r in results]).sum(), whole.loss)
    (summed,) = torch.autograd.grad(torch.stack([r.loss for r in results]).sum(), case.now)
    torch.testing.assert_close(summed, gradient)
    metrics = {name: torch.stack([r.metrics[name] for r in results]).sum(dim=0) for name in whole.metrics}
    assert averages(metrics) == pytest.approx(averages(whole.metrics), abs=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.ratio}-{s.reduction}-{s.kl_over}")
def test_padding_changes_nothing(spec: LossSpec) -> None:
    case = random_case(2)
    whole = case.loss(spec)
    (gradient,) = torch.autograd.grad(whole.loss, case.now)

    def wide(x: Tensor, fill: float) -> Tensor:
        return torch.cat([x, torch.full((len(x), 3), fill)], dim=1)

    # what stands in the padding is poison
    poison = torch.where(case.mask, case.now, math.nan)
    padded = Case(
        wide(poison, math.nan),
        wide(torch.where(case.mask, case.old, -math.inf), math.inf),
        wide(torch.where(case.mask, case.ref, math.nan), -math.inf),
        torch.cat([case.mask, torch.zeros(6, 3, dtype=torch.bool)], dim=1),
        [Stream(s.name, wide(s.mask, 0.0), s.advantage) for s in case.streams],
    )
    again = padded.loss(spec)
    # equal but for the last bit: exp of a number may differ with its place in a vector register
    torch.testing.assert_close(again.loss, whole.loss, rtol=1e-6, atol=1e-7)
    (other,) = torch.autograd.grad(again.loss, case.now)
    torch.testing.assert_close(other, gradient, rtol=1e-6, atol=1e-7)
    assert averages(again.metrics) == pytest.approx(averages(whole.metrics), rel=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.ratio}-{s.reduction}-{s.kl_over}")
def test_a_mask_that_reaches_into_the_padding_changes_nothing(spec: LossSpec) -> None:
    case = random_case(5)
    spilt = [s._replace(mask=torch.where(case.mask, s.mask, 1.0)) for s in case.streams]
    torch.testing.assert_close(case._replace(streams=spilt).loss(spec).loss, case.loss(spec).loss)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.permutations(range(6)), st.sampled_from(SPECS))
def test_rows_permute(seed: int, order: list[int], spec: LossSpec) -> None:
    case = random_case(seed)
    whole, moved = case.loss(spec), case.rows(torch.tensor(order)).loss(spec)
    torch.testing.assert_close(moved.loss, whole.loss)
    torch.testing.assert_close(
        torch.autograd.grad(moved.loss, case.now)[0], torch.autograd.grad(whole.loss, case.now)[0]
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(SPECS))
def test_the_streams_add_up(seed: int, spec: LossSpec) -> None:
    case = random_case(seed)
    plain = spec.model_copy(update={"beta": 0.0})
    both = case.loss(plain).loss
    alone = [case._replace(streams=[s]).loss(plain).loss for s in case.streams]
    torch.testing.assert_close(both, alone[0] + alone[1])
    zero = [s._replace(advantage=torch.zeros(6)) for s in case.streams]
    silent = case._replace(streams=[case.streams[0], zero[1]]).loss(plain).loss
    assert torch.equal(silent, alone[0])


def test_a_rank_without_rows_of_its_own_gives_zero_and_a_gradient() -> None:
    # an all-padding row keeps the number of calls equal on every rank; it counts for nothing
    case = random_case(3, rows=2)
    mask = case.mask.clone()
    mask[1] = False
    found = [Stream(s.name, s.mask * mask, s.advantage) for s in case.streams]
    two = case._replace(mask=mask, streams=found)
    assert denominators(mask) == Denominators(1, int(mask[0].sum()))
    one = case.rows(torch.tensor([0]))
    for spec in SPECS:
        torch.testing.assert_close(two.loss(spec).loss, one.loss(spec).loss)
    empty = two.rows(torch.tensor([1])).loss(EXACT, denominators(mask))
    assert empty.loss.item() == 0.0
    (gradient,) = torch.autograd.grad(empty.loss, case.now)
    assert bool((gradient == 0).all())
    assert empty.metrics["clip_fraction/p"].tolist() == [0.0, 0.0]
    assert set(averages(empty.metrics)) == {"policy"}


def test_no_nan_from_infinite_log_probabilities() -> None:
    now, old, ref = NOW.clone(), OLD.clone(), REF.clone()
    now[0, 0], old[0, 1], ref[1, 1] = -math.inf, -math.inf, -math.inf
    now.requires_grad_()
    spec = LossSpec(eps=0.0)
    streams = [Stream("p", P, torch.tensor([1.0, -1.0])), Stream("r", R, torch.tensor([-1.0, 1.0]))]
    got = policy_loss(
        now, old, ref, streams, completion_mask=MASK, spec=spec, denominators=denominators(MASK)
    )
    got.loss.backward()
    assert now.grad is not None and bool(torch.isfinite(now.grad).all())
    assert got.metrics["nonfinite"].tolist() == [3.0, 7.0]
    # row 0 P has no token left: 0; R -9/10; row 1 P -4/5, R 9/10 over its two places; no KL on what is left
    assert got.loss.item() == pytest.approx(-(-0.9 - 0.8 + 0.45) / 2, abs=1e-6)


def test_huge_differences_stay_finite() -> None:
    now = torch.tensor([[-500.0, -0.1]], requires_grad=True)
    old = torch.tensor([[-0.1, -500.0]])
    stream = Stream("all", torch.ones(1, 2), torch.tensor([-1.0]))
    got = policy_loss(
        now,
        old,
        old,
        [stream],
        completion_mask=torch.ones(1, 2),
        spec=LossSpec(),
        denominators=Denominators(1, 2),
    )
    got.loss.backward()
    assert bool(torch.isfinite(got.loss)) and now.grad is not None and bool(torch.isfinite(now.grad).all())


def test_far_from_the_reference_the_pull_back_goes_on() -> None:
    # log pi_ref - log pi = -100: k3 is e^-100 - 1 + 100, its slope in log pi 1
    now = torch.tensor([[-1.0]], requires_grad=True)
    stream = Stream("all", torch.ones(1, 1), torch.zeros(1))
    got = policy_loss(
        now,
        None,
        torch.tensor([[-101.0]]),
        [stream],
        completion_mask=torch.ones(1, 1),
        spec=LossSpec(beta=1.0),
        denominators=Denominators(1, 1),
    )
    got.loss.backward()
    assert got.loss.item() == pytest.approx(99.0)
    assert now.grad is not None and now.grad.item() == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_maths_is_float32(dtype: torch.dtype) -> None:
    case = random_case(4)
    low = [x.detach().to(dtype) for x in (case.now, case.old, case.ref)]
    same = case._replace(now=low[0].float(), old=low[1].float(), ref=low[2].float())
    got = case._replace(now=low[0], old=low[1], ref=low[2]).loss(LossSpec())
    assert got.loss.dtype == torch.float32
    assert torch.equal(got.loss, same.loss(LossSpec()).loss)


def test_without_old_log_probabilities_the_ratio_is_exactly_one() -> None:
    got = loss_of("pa-grpo", old=None)
    assert averages(got.metrics)["ratio"] == 1.0
    assert averages(got.metrics)["clip_fraction"] == 0.0
    # A_P = 1, -1 and A_R = -1, 1: each segment's mean is its advantage, and they cancel
    assert got.loss.item() == 0.0


def test_a_small_kl_keeps_its_digits() -> None:
    # d = 1e-3: d^2/2 + d^3/6 = 5.001667e-7, far below the rounding of exp(d) - 1 - d in float32
    stream = Stream("all", torch.ones(1, 1), torch.zeros(1))
    got = policy_loss(
        torch.tensor([[0.0]]),
        None,
        torch.tensor([[1e-3]]),
        [stream],
        completion_mask=torch.ones(1, 1),
        spec=LossSpec(beta=1.0),
        denominators=Denominators(1, 1),
    )
    assert got.loss.item() == pytest.approx(5.001667e-7, rel=2e-3)


def test_what_does_not_fit_is_refused() -> None:
    streams = [Stream("p", P, torch.zeros(2))]
    over = denominators(MASK)
    with pytest.raises(ValueError, match=r"beta is 0\.04 and there are no reference"):
        policy_loss(NOW, OLD, None, streams, completion_mask=MASK, spec=LossSpec(), denominators=over)
    with pytest.raises(ValueError, match="all must be one"):
        policy_loss(NOW, OLD[:, :3], None, streams, completion_mask=MASK, spec=EXACT, denominators=over)
    wrong = [Stream("p", P, torch.zeros(3))]
    with pytest.raises(ValueError, match=r"stream 'p' has advantages \[3\], wanted \[2\]"):
        policy_loss(NOW, OLD, None, wrong, completion_mask=MASK, spec=EXACT, denominators=over)


def test_beta_zero_needs_no_reference_and_entropy_is_passed_on() -> None:
    streams = [Stream("p", P, torch.zeros(2))]
    got = policy_loss(
        NOW,
        OLD,
        None,
        streams,
        completion_mask=MASK,
        spec=EXACT,
        denominators=denominators(MASK),
        entropy=torch.where(MASK, 2.0, math.nan),
    )
    assert averages(got.metrics)["entropy"] == 2.0
    assert streams[0].to("cpu").name == "p"


def test_truncated_importance_sampling_by_hand() -> None:
    """One completion of two tokens, A = 1: pi = 0.5 and 0.4, drawn with 0.4 and 0.1; weights 1.25 and
    min(4, 2)."""
    now = torch.log(torch.tensor([[0.5, 0.4]])).requires_grad_()
    drawn = torch.log(torch.tensor([[0.4, 0.1]]))
    mask = torch.ones(1, 2, dtype=torch.bool)
    streams = [Stream("all", mask.float(), torch.tensor([1.0]))]
    spec = LossSpec(beta=0.0, reduction="token", correction="tis")
    told = policy_loss(
        now,
        None,
        None,
        streams,
        completion_mask=mask,
        spec=spec,
        denominators=denominators(mask),
        drawn_logps=drawn,
    )
    assert float(told.loss.detach()) == pytest.approx(-(1.25 + 2.0) / 2)
    (gradient,) = torch.autograd.grad(told.loss, now)
    assert gradient.tolist()[0] == pytest.approx([-0.625, -1.0])  # the weight itself has none
    assert told.metrics["tis/weight"].tolist() == pytest.approx([3.25, 2.0])
    assert told.metrics["tis/truncated"].tolist() == [1.0, 2.0]


def test_the_ratio_to_the_policy_that_drew_is_clipped_by_hand() -> None:
    """The same tokens with old = drawn: ratios 1.25 and 4, both clipped at 1.2."""
    now, drawn = torch.log(torch.tensor([[0.5, 0.4]])), torch.log(torch.tensor([[0.4, 0.1]]))
    mask = torch.ones(1, 2, dtype=torch.bool)
    streams = [Stream("all", mask.float(), torch.tensor([1.0]))]
    spec = LossSpec(beta=0.0, reduction="token", correction="ratio")
    told = policy_loss(
        now, drawn, None, streams, completion_mask=mask, spec=spec, denominators=denominators(mask)
    )
    assert float(told.loss) == pytest.approx(-1.2)
    assert told.metrics["clip_fraction"].tolist() == [2.0, 2.0]


def test_the_mismatch_of_engine_and_trainer_by_hand() -> None:
    """d = ln 2 and -ln 2: k3 = 2 - 1 - ln 2 and 1/2 - 1 + ln 2, in all 1/2; padding and infinities are out."""
    trainer = torch.tensor([[math.log(0.4), math.log(0.2), 5.0, 0.0]])
    engine = torch.tensor([[math.log(0.2), math.log(0.4), 0.0, -math.inf]])
    found = mismatch(trainer, engine, torch.tensor([[True, True, False, True]]))
    assert found["abs"].tolist() == pytest.approx([2 * math.log(2), 2.0])
    assert found["k3"].tolist() == pytest.approx([0.5, 2.0])
    assert found["max"].tolist() == pytest.approx([math.log(2)])
    assert mismatch(trainer[:0], engine[:0], torch.zeros(0, 4).bool())["max"].tolist() == [0.0]
