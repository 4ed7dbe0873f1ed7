"""The clipped objective with a KL term, over any number of streams, exact in micro-batches and over ranks.

Notation: i a rollout of the N of the step, t one of its C_i tokens, k a stream with weights w_kit in [0, 1]
and advantage A_ki; n_ki the number of tokens with w_kit > 0; m_it = 1 for a real token, 0 for padding.

    rho_it  = exp(log pi(o_it) - log pi_old(o_it))                                   ratio: token
    rho_ki  = exp(mean over the n_ki tokens of (log pi - log pi_old)), for each t    ratio: segment
    rho_it  = sg[exp(mean over the C_i tokens of (log pi - log pi_old))] pi / sg[pi] ratio: sequence
    s_kit   = min(rho A_ki, clip(rho, 1 - epsilon, 1 + epsilon_high) A_ki)           [paper §3.3]
    kl_it   = exp(d) - d - 1 with d = log pi_ref - log pi: the estimator k3, unbiased for KL(pi || pi_ref)
              when the tokens are drawn from pi, and never negative

    segment:   -1/N sum_i sum_k 1/n_ki sum_t w_kit s_kit  + beta/N sum_i 1/C_i sum_t m_it kl_it
    sequence:  -1/N sum_i 1/C_i sum_k sum_t w_kit s_kit   + beta/N sum_i 1/C_i sum_t m_it kl_it
    token:     -1/T sum_i sum_k sum_t w_kit s_kit         + beta/T sum_i sum_t m_it kl_it,   T = sum_i C_i
    constant:  as sequence, with L, the limit of a completion's length, in place of C_i [Dr. GRPO,
               arXiv 2503.20783, §3.2]

PAPO [arXiv 2507.06448] adds, with u the policy that sees the same clip mostly black, held fixed, and "mean"
one of the reductions over all tokens of the completions:

    -gamma mean min(exp(d) - d - 1, 10)  with d = log u - log pi        - eta mean log pi

The segment reduction divides by the number of tokens, not by the sum of their weights: half weights stay
half. With kl_over "segments" the term beta kl is inside the sum over k, in place of the last term.

The paper's rho_k is the likelihood ratio of a whole segment, the product of its token ratios. Over hundreds
of tokens a product leaves [1 - epsilon, 1 + epsilon] after the smallest update, and its variance grows with
the length. Both ratios here are equal to it in value and, up to the factor n_ki, in gradient where
pi = pi_old, which is everywhere if each rollout serves one update. The segment ratio is its n_ki-th root,
the same for all tokens of the segment. The sequence ratio is that root of the whole completion, whatever the
streams, and sg stops the gradient: GSPO-token [arXiv 2507.18071, eq. 13-14]; where all tokens have one
advantage, value and gradient are GSPO's.

Tokens that another policy mu drew (an engine that computes otherwise, or has older weights) are corrected by
mu's own log-probabilities in one of two ways. Either pi_old above is mu: the ratio of PPO and GRPO is to the
policy that drew (verl's bypass mode). Or each s_kit has the weight of truncated importance sampling, without
gradient, as defined by Yao et al. ("Your efficient RL framework secretly brings you off-policy RL training",
2025) and as TRL and verl compute it per token, C = `tis_cap` = 2; pi_old is then the policy that the step
began with (decoupled PPO, arXiv 2110.00641):

    w_it = min(exp(log pi_old(o_it) - log mu(o_it)), C),    w_it s_kit in place of s_kit

The KL term has no weight, as there. k3 is then biased by as much as mu differs from pi.

There is no dual clip: it bounds the loss of bad tokens that an old policy found far less likely, and with
few updates per rollout there are none; `ratio` and `clip_fraction` in the metrics show if that ever changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from videop2r_data.trainer.process.advantages import Stream
from videop2r_data.trainer.settings.rl import LossSpec

LIMIT = 20.0
"""Log ratios are cut to this size before exp: beyond, float32 would sooner or later overflow."""
BLIND_LIMIT = 10.0
"""Divergence of a token from what is said to a black clip, beyond which PAPO raises it no further."""


class Denominators(NamedTuple):
    """Divisors of the loss of one global step: the sum of the counts of all micro-batches and ranks.

    Attributes:
        sequences: N, rollouts with at least one token (rows of padding are not counted).
        tokens: T, tokens of all completions.
        longest: L, tokens of the longest completion that can be drawn; of the reduction `constant`.
    """

    sequences: int
    tokens: int
    longest: int = 0


def denominators(completion_mask: Tensor) -> Denominators:
    """The local counts of [N, C] rows.

    >>> denominators(torch.tensor([[True, True], [True, False]]))
    Denominators(sequences=2, tokens=3, longest=0)
    """
    mask = completion_mask.bool()
    return Denominators(int(mask.any(dim=1).sum()), int(mask.sum()))


class LossResult(NamedTuple):
    """The loss of some rows of a step, and what to log.

    Attributes:
        loss: scalar float32 with gradient: the part of the step's loss that these rows contribute. Parts of
            micro-batches and ranks add up to the loss of the step; under DDP or FSDP, which average
            gradients, multiply it by the number of ranks.
        metrics: name -> [sum, count], float64 without gradient; add up those of micro-batches and ranks, then
            divide. Names: `policy` (loss without KL) and `kl`, `ratio`, `clip_fraction`,
            `clip_fraction/<stream>`, `nonfinite`, `entropy` if it was handed in, with `drawn_logps`
            `tis/weight` and `tis/truncated` (share at the cap); per token, but for `policy`, which is a share
            of the loss with count 0.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def policy_loss(
    logps: Tensor,
    old_logps: Tensor | None,
    ref_logps: Tensor | None,
    streams: Sequence[Stream],
    *,
    completion_mask: Tensor,
    spec: LossSpec,
    denominators: Denominators,
    entropy: Tensor | None = None,
    blind_logps: Tensor | None = None,
    drawn_logps: Tensor | None = None,
) -> LossResult:
    """The loss of N rows of a step; float32 whatever the inputs are.

    A token whose log-probability is infinite or NaN under any of the models is left out of the sums, still
    counts in the denominators, and is logged as `nonfinite`: one such token must not turn all weights into
    NaN.

    Args:
        logps: [N, C] log-probabilities of the sampled tokens under the policy, with gradient.
        old_logps: [N, C] under the old policy; None: the same policy, all ratios are exactly 1. Those of the
            policy that drew the tokens are corrected for by the ratio.
        ref_logps: [N, C] under the reference; may be None if beta is 0.
        completion_mask: [N, C] bool; what stands elsewhere, NaN included, has no effect.
        denominators: of the global step.
        entropy: [N, C] nats, for the log only.
        blind_logps: [N, C] under the policy that sees the clip mostly black; None: no such term.
        drawn_logps: [N, C] under the policy that drew the tokens, for truncated importance sampling; None:
            without.

    Raises:
        ValueError: shapes differ, beta is above 0 without reference log-probabilities, or the reduction is
            `constant` without `denominators.longest`.
    """
    mask = completion_mask.bool()
    if spec.beta > 0 and ref_logps is None:
        wrong = f"beta is {spec.beta:g} and there are no reference log-probabilities"
        raise ValueError(f"{wrong}: hand them in or set 0")
    models = [x for x in (logps, old_logps, ref_logps, blind_logps, drawn_logps) if x is not None]
    _check_shapes(mask, [*models, *([] if entropy is None else [entropy])], streams)
    fine = mask.clone()
    for each in models:
        fine &= torch.isfinite(each)
    mean = partial(_reduce, mask=mask, fine=fine, spec=spec, denominators=denominators)
    now = torch.where(fine, logps, 0.0).float()
    old = now.detach() if old_logps is None else _held(old_logps, fine)
    kl = torch.zeros_like(now) if ref_logps is None else _k3(now, _held(ref_logps, fine))
    tis = None
    if drawn_logps is not None:
        tis = (old - _held(drawn_logps, fine)).clamp(-LIMIT, LIMIT).exp().clamp(max=spec.tis_cap)
    policy, metrics = _policy(now - old, streams, tis=tis, fine=fine, spec=spec, mean=mean)
    loss = policy
    if spec.beta > 0:
        over = [mask] if spec.kl_over == "completion" else [stream.mask for stream in streams]
        terms = [mean(weights * kl, weights) for weights in over] or [kl.sum() * 0.0]
        loss = policy + spec.beta * torch.stack(terms).sum()
    metrics |= {"kl": _tally(kl, fine), "nonfinite": _tally(~fine, mask)}
    if tis is not None:
        metrics |= {"tis/weight": _tally(tis, fine), "tis/truncated": _tally(tis >= spec.tis_cap, fine)}
    if blind_logps is not None:
        apart = _k3(now, _held(blind_logps, fine)).clamp(max=BLIND_LIMIT)
        loss = loss - spec.perception * mean(apart, mask)
        metrics["kl_blind"] = _tally(apart, fine)
    if spec.entropy > 0:
        loss = loss - spec.entropy * mean(now, mask)
    metrics["policy"] = torch.stack([policy.detach().double(), torch.zeros_like(policy, dtype=torch.double)])
    if entropy is not None:
        metrics["entropy"] = _tally(entropy, mask & torch.isfinite(entropy))
    return LossResult(loss, metrics)


def mismatch(logps: Tensor, drawn_logps: Tensor, where: Tensor) -> dict[str, Tensor]:
    """How far the trainer's log-probabilities lie from those of the engine that drew the tokens, in nats.

    All are [N, C]; `where` is True at the tokens that count.

    Returns:
        float64 without gradient. `abs`: [sum, count] of the distances; `k3`: [sum, count] of
        exp(d) - d - 1 with d = trainer - engine, which estimates KL(engine || trainer) without bias, because
        the engine drew; `max`: [the largest distance].
    """
    where = where & torch.isfinite(logps) & torch.isfinite(drawn_logps)
    trainer, engine = (torch.where(where, x.detach(), 0.0).double() for x in (logps, drawn_logps))
    distance = (trainer - engine).abs()
    return {
        "abs": _tally(distance, where),
        "k3": _tally(_k3(engine, trainer), where),
        "max": distance.max()[None] if distance.numel() else distance.new_zeros(1),
    }


def _held(logps: Tensor, fine: Tensor) -> Tensor:
    """Another model's log-probabilities, which no gradient reaches; 0 where they do not count."""
    return torch.where(fine, logps, 0.0).float().detach()


def _reduce(
    values: Tensor, weights: Tensor, *, mask: Tensor, fine: Tensor, spec: LossSpec, denominators: Denominators
) -> Tensor:
    """Sum of weighted values over the tokens whose log-probabilities are all finite (`fine`), divided as
    `spec.reduction` says; scalar."""
    total = torch.where(fine, values, 0.0).sum(dim=1)
    if spec.reduction == "token":
        return total.sum() / max(denominators.tokens, 1)
    sequences = max(denominators.sequences, 1)
    if spec.reduction == "constant":
        if denominators.longest < 1:
            raise ValueError("reduction constant divides by the limit of a completion's length: give longest")
        return total.sum() / (sequences * denominators.longest)
    over = weights > 0 if spec.reduction == "segment" else mask
    return (total / (over & mask).sum(dim=1).clamp(min=1)).sum() / sequences


def _policy(
    log_ratio: Tensor,
    streams: Sequence[Stream],
    *,
    tis: Tensor | None,
    fine: Tensor,
    spec: LossSpec,
    mean: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss without KL, and sums with counts over the tokens that a stream reaches."""
    low, high = spec.clip_range
    policy = log_ratio.new_zeros(())
    clipped, reached = torch.zeros_like(fine), torch.zeros_like(fine)
    ratios = _tally(log_ratio, reached)
    metrics: dict[str, Tensor] = {}
    for stream in streams:
        own = fine & (stream.mask > 0)
        ratio = _ratio(log_ratio, own, fine, spec)
        a = stream.advantage.float()[:, None]
        value = torch.minimum(ratio * a, ratio.clamp(low, high) * a)
        value = value if tis is None else tis * value
        policy = policy - mean(stream.mask * value, stream.mask)
        # Clipping stops a gradient only where the ratio has already moved in the direction of the advantage.
        stopped = own & (((ratio < low) & (a < 0)) | ((ratio > high) & (a > 0)))
        metrics[f"clip_fraction/{stream.name}"] = _tally(stopped, own)
        clipped, reached = clipped | stopped, reached | own
        ratios = ratios + _tally(ratio, own)
    return policy, metrics | {"clip_fraction": _tally(clipped, reached), "ratio": ratios}


def _ratio(log_ratio: Tensor, own: Tensor, fine: Tensor, spec: LossSpec) -> Tensor:
    """rho [N, C] of a stream, whose tokens are `own`."""
    if spec.ratio != "token":
        over = own if spec.ratio == "segment" else fine
        count = over.sum(dim=1, keepdim=True).clamp(min=1)
        mean = torch.where(over, log_ratio, 0.0).sum(dim=1, keepdim=True) / count
        each = log_ratio - log_ratio.detach()  # 0, with the gradient of each token
        log_ratio = mean.expand_as(log_ratio) if spec.ratio == "segment" else mean.detach() + each
    return log_ratio.clamp(-LIMIT, LIMIT).exp()


def _k3(now: Tensor, ref: Tensor) -> Tensor:
    # Only the upper side is limited: exp overflows there. On the lower side the estimate is nearly linear,
    # and a limit would end its gradient where the policy has drifted furthest.
    difference = (ref - now).clamp(max=LIMIT)
    # expm1 keeps the digits of a small difference; exp(d) - 1 - d would lose them all to rounding.
    return torch.expm1(difference) - difference


def _tally(values: Tensor, where: Tensor) -> Tensor:
    """[sum, count] of the values where the mask is True, in float64."""
    total = torch.where(where, values.detach().double(), 0.0).sum()
    return torch.stack([total, where.sum().double()])


def _check_shapes(mask: Tensor, others: Sequence[Tensor], streams: Sequence[Stream]) -> None:
    for tensor in (*others, *(stream.mask for stream in streams)):
        if mask.ndim != 2 or tensor.shape != mask.shape:
            got, wanted = list(tensor.shape), list(mask.shape)
            raise ValueError(f"got shapes {got} and {wanted} (completion mask); all must be one [N, C]")
    for stream in streams:
        if stream.advantage.shape != mask.shape[:1]:
            got = list(stream.advantage.shape)
            raise ValueError(f"stream {stream.name!r} has advantages {got}, wanted [{len(mask)}]")
