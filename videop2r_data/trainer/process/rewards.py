"""What each rollout earns: `R_k = acc_k + form_k + len_k`, k perception P or reasoning R [paper §3.3].

Where the paper leaves the parts open:

- acc_P is the judge's verdict on the observation: 1 sufficient, 0 not. Without an observation in its place it
  is 0, and no judge is asked. acc_R is the metric of the problem type on the answer, taken after the last
  `</think>`; without an answer in its tag it is 0.
- form_P and form_R come from `masks.read_template`: each segment is held to its own text only.
- len_k counts the tokens of the segment with its tags, without the end-of-turn token, bounds inclusive.
- An accuracy that could not be scored (no verdict, unusable reference) is None, never 0: the rollout is left
  out of the mean and deviation of that segment, and its advantage there is 0.

Plain GRPO pays one reward: acc_R, the format of the whole template, and the length of the reasoning.
N = B * G rollouts, row b * G + g is rollout g of prompt b; all tables are float64 on the CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from videop2r_data.schemas import ROBUST, Policy, ProblemType
from videop2r_data.trainer.process.masks import SegmentMasks
from videop2r_data.trainer.settings.objectives import Part
from videop2r_data.trainer.settings.rl import DynamicLengthSpec, ObjectiveSpec, RewardSpec, TemporalSpec
from videop2r_data.validators import extract_answer, score

# Paid lengths.


Bounds = tuple[int, int]
"""Lowest and highest paid length in tokens, both inclusive."""


def dynamic_bounds(lengths: Sequence[int], spec: DynamicLengthSpec) -> Bounds | None:
    """Quantiles of the lengths of the correct rollouts, widened by the slack; None if they are too few.

    >>> dynamic_bounds([100, 100, 110, 120, 400], DynamicLengthSpec())
    (90, 132)
    >>> dynamic_bounds([100, 400], DynamicLengthSpec()) is None
    True
    """
    if len(lengths) < spec.at_least:
        return None
    ordered = sorted(lengths)
    low, high = _quantile(ordered, spec.low), _quantile(ordered, spec.high)
    # Rounded before ceil: 120 * 1.1 is 132.00000000000003 in floating point, and would pay for 133 tokens.
    return math.floor(round(low * (1 - spec.slack), 6)), math.ceil(round(high * (1 + spec.slack), 6))


def _quantile(ordered: Sequence[int], share: float) -> float:
    """Linear between the order statistics, as numpy's default method."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


# Rewards.


class Graded(NamedTuple):
    """One rollout, graded; the accuracies lie in [0, 1], None means unscored.

    Attributes:
        form: the whole template, as GRPO pays it.
        tokens_p, tokens_r: lengths of the segments in tokens.
        finished: the model ended its turn; False: cut at the token limit.
        observation: what to show the judge; None: nothing to show, `acc_p` is 0 already.
        answer: the answer that was scored; None if there was none.
        reason: why `acc_r` is what it is (a `ScoreReason` value).
        fault: first fault of the template (a `TraceFault` value), None if there is none.
    """

    acc_p: float | None
    acc_r: float | None
    form_p: bool
    form_r: bool
    form: bool
    tokens_p: int
    tokens_r: int
    finished: bool = True
    observation: str | None = None
    answer: str | None = None
    reason: str = ""
    fault: str | None = None

    def judged(self, sufficient: bool | None) -> Graded:
        """With the judge's verdict (None: unscored); a rollout without an observation keeps its 0."""
        if self.observation is None:
            return self
        return self._replace(acc_p=None if sufficient is None else float(sufficient))


def grade(
    masks: SegmentMasks,
    *,
    problem_type: ProblemType | str,
    reference: str,
    options: Sequence[str] = (),
    finished: bool = True,
    policy: Policy = ROBUST,
) -> Graded:
    """Grade one completion, all but the judge's part: `acc_p` stays None until `Graded.judged`.

    Args:
        masks: of the completion; its text and template are read.
        reference: the right answer, with or without its tag; one that cannot be used makes `acc_r` None
            (it should have been refused when the data were read).

    Raises:
        ValueError: `problem_type` is none of the seven.
    """
    found = extract_answer(masks.text, policy)
    # An empty answer tag means "no answer" to the scorer, which then still reports a reference it cannot use.
    result = score(
        problem_type,
        prediction="<answer></answer>" if found.answer is None else found.answer,
        reference=reference,
        options=options,
        policy=policy,
    )
    template = masks.template
    unscored = template.case == "agnostic" or template.observation is not None
    missing = found.reason.value if found.reason and result.value is not None else None
    return Graded(
        acc_p=None if unscored else 0.0,
        acc_r=result.value,
        form_p=template.form_p,
        form_r=template.form_r,
        form=template.form,
        tokens_p=masks.tokens_p,
        tokens_r=masks.tokens_r,
        finished=finished,
        observation=template.observation,
        answer=found.answer,
        reason=missing or result.reason.value,
        fault=template.spans.fault.value if template.spans.fault else None,
    )


@dataclass(frozen=True, slots=True)
class RewardTable:
    """Rewards of N rollouts, each tensor [N]; what is unscored is 0 and False in its `scored` column.

    Attributes:
        paid: every part of the reward with its weight.
        scored_p: acc_P is known: there is a verdict, or no observation to ask about.
        scored_r: acc_R is known.
        components: the same parts before weights (`length_*` and `temporal` as paid), for the log.
        group_size: G.
    """

    paid: dict[str, Tensor]
    scored_p: Tensor
    scored_r: Tensor
    components: dict[str, Tensor]
    group_size: int

    def earned(self, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
        """[N] the sum of these parts, and [N] bool where it is scored; 0 where it is not.

        A sum is unscored if one of its parts depends on an accuracy that is unknown: formats never do.
        """
        scored = torch.ones_like(self.scored_p)
        if _OF_ACC_P.intersection(parts):
            scored = scored & self.scored_p
        if _OF_ACC_R.intersection(parts):
            scored = scored & self.scored_r
        # Perception and reasoning are added up apart: R_P + R_R is the sum of two sums, to the last bit.
        of_p = [self.paid[part] for part in parts if part.endswith("_p")]
        of_r = [self.paid[part] for part in parts if not part.endswith("_p")]
        sums = [functools.reduce(torch.add, column) for column in (of_p, of_r) if column]
        return functools.reduce(torch.add, sums) * scored, scored

    @property
    def perception(self) -> Tensor:
        """[N] R_P."""
        return self.earned(("accuracy_p", "format_p", "length_p"))[0]

    @property
    def reasoning(self) -> Tensor:
        """[N] R_R."""
        return self.earned(("accuracy_r", "format_r", "length_r"))[0]

    @property
    def total(self) -> Tensor:
        """[N] R_P + R_R, scored where both are."""
        return (self.perception + self.reasoning) * self.scored_total

    @property
    def plain(self) -> Tensor:
        """[N] the one reward of GRPO and T-GRPO, scored where acc_R is."""
        return self.earned(("accuracy_r", "format", "length", "temporal"))[0]

    @property
    def scored_total(self) -> Tensor:
        """[N] bool: both accuracies are known."""
        return self.scored_p & self.scored_r


_OF_ACC_P: frozenset[Part] = frozenset({"accuracy_p", "length_p"})
_OF_ACC_R: frozenset[Part] = frozenset({"accuracy_r", "length_r", "length", "temporal"})
"""Parts that depend on an accuracy: the accuracy itself, and what is paid for right rollouts only."""


def rewards_of(
    graded: Sequence[Graded],
    spec: RewardSpec,
    group_size: int,
    *,
    objective: ObjectiveSpec | None = None,
    shuffled: Sequence[Sequence[float | None] | None] | None = None,
) -> RewardTable:
    """The rewards of whole groups.

    Args:
        graded: N rollouts in groups of `group_size`.
        spec: weights and bounds.
        objective: pays lengths and the temporal bonus, or does not; None: pa-grpo.
        shuffled: for an objective that shuffles frames, per prompt the accuracies acc_R of its group with
            shuffled frames; None for a prompt without a video.

    Raises:
        ValueError: groups are not whole, or `shuffled` does not fit the objective or the prompts.

    >>> row = Graded(1.0, 0.5, True, True, True, tokens_p=200, tokens_r=600)
    >>> table = rewards_of([row], RewardSpec(), 1)
    >>> [round(x.item(), 3) for x in (table.perception, table.reasoning, table.total)]
    [2.2, 1.5, 3.7]
    """
    objective = objective or ObjectiveSpec()
    check_groups(len(graded), group_size)
    groups = [graded[start : start + group_size] for start in range(0, len(graded), group_size)]
    acc_p, scored_p = _known([row.acc_p for row in graded])
    acc_r, scored_r = _known([row.acc_r for row in graded])
    form_p, form_r, form = (
        _column([float(getattr(row, name)) for row in graded]) for name in ("form_p", "form_r", "form")
    )
    if not objective.entry.pays_length:
        spec = spec.model_copy(update={"length": "off"})
    p, r = spec.perception_bounds, spec.reasoning_bounds
    components = {
        "accuracy_p": acc_p,
        "accuracy_r": acc_r,
        "format_p": form_p,
        "format_r": form_r,
        "format": form,
        "length_p": _lengths(groups, spec, p, lambda row: (row.tokens_p, bool(row.acc_p) and row.form_p)),
        "length_r": _lengths(groups, spec, r, lambda row: (row.tokens_r, bool(row.acc_r) and row.form_r)),
        "length": _lengths(groups, spec, r, lambda row: (row.tokens_r, bool(row.acc_r) and row.form)),
        "temporal": _temporal(groups, objective, shuffled),
    }
    weights = {"accuracy": spec.accuracy, "format": spec.form}
    paid = {part: weights.get(part.split("_")[0], 1.0) * value for part, value in components.items()}
    return RewardTable(paid, scored_p, scored_r, components, group_size)


def temporal_bonus(
    ordered: Sequence[float | None], shuffled: Sequence[float | None], spec: TemporalSpec
) -> list[float]:
    """The bonus of each ordered rollout of one video question [T-GRPO eq. 1-2].

    Args:
        ordered, shuffled: accuracies acc_R of the two groups; unscored ones are left out of the shares.

    >>> temporal_bonus([1.0, 0.0], [1.0, 0.0], TemporalSpec())
    [0.3, 0.0]
    >>> temporal_bonus([1.0, 0.0], [1.0, 1.0], TemporalSpec())
    [0.0, 0.0]
    """
    p, p_shuffled = _share(ordered, spec), _share(shuffled, spec)
    earned = p is not None and p_shuffled is not None and p >= spec.margin * p_shuffled
    return [spec.alpha if earned and x is not None and x > spec.correct_above else 0.0 for x in ordered]


def _share(accuracies: Sequence[float | None], spec: TemporalSpec) -> float | None:
    known = [x for x in accuracies if x is not None]
    return sum(x > spec.correct_above for x in known) / len(known) if known else None


def _temporal(
    groups: Sequence[Sequence[Graded]],
    objective: ObjectiveSpec,
    shuffled: Sequence[Sequence[float | None] | None] | None,
) -> Tensor:
    if not objective.entry.shuffles:
        if shuffled is not None:
            raise ValueError(f"shuffled groups were handed in, and objective {objective.name!r} reads none")
        return torch.zeros(sum(map(len, groups)), dtype=torch.float64)
    if shuffled is None or len(shuffled) != len(groups):
        got = "none" if shuffled is None else str(len(shuffled))
        raise ValueError(
            f"{objective.name} wants one shuffled entry per prompt: got {got} for {len(groups)} prompts"
        )
    bonus: list[float] = []
    for rows, other in zip(groups, shuffled, strict=True):
        ordered = [row.acc_r for row in rows]
        bonus += [0.0] * len(rows) if other is None else temporal_bonus(ordered, other, objective.temporal)
    return _column(bonus)


def _lengths(
    groups: Sequence[Sequence[Graded]],
    spec: RewardSpec,
    fixed: Bounds,
    length_of: Callable[[Graded], tuple[int, bool]],
) -> Tensor:
    """[N] the length bonus; `length_of` gives tokens, and whether accuracy and format are both non-zero."""
    paid: list[float] = []
    for rows in groups:
        lengths = [length_of(row) for row in rows]
        bounds: Bounds | None = fixed
        if spec.length != "fixed":
            known = [n for n, correct in lengths if correct]
            bounds = dynamic_bounds(known, spec.dynamic) if spec.length == "dynamic" else None
        paid += [
            spec.length_bonus if correct and bounds and bounds[0] <= n <= bounds[1] else 0.0
            for n, correct in lengths
        ]
    return _column(paid)


def check_groups(rows: int, group_size: int) -> None:
    """Refuse rows that are no whole groups: an advantage over parts of two groups means nothing.

    Raises:
        ValueError: `group_size` is below 1, or `rows` is no multiple of it.
    """
    if group_size < 1 or rows % group_size:
        raise ValueError(
            f"{rows} rollouts are no whole groups of {group_size}: hand over all rollouts of each prompt"
        )


def _known(values: Sequence[float | None]) -> tuple[Tensor, Tensor]:
    known = torch.tensor([x is not None for x in values], dtype=torch.bool)
    return _column([x or 0.0 for x in values]), known


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
