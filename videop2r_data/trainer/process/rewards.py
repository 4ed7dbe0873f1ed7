"""What each rollout earns: `R_k = acc_k + form_k + len_k` for every stream k of the trace [paper §3.3].

The default grammar has perception P and reasoning R. Where the paper leaves the parts open:

- A stream with a perception segment earns the judge's verdict on the observation: 1 sufficient, 0 not, or
  what `judging.reward` names instead; without an observation in its place 0, and no judge is asked. The
  stream with the answer earns the metric of the problem type on it; without an answer in its mark 0. A stream
  with both earns the sum, one with neither has no accuracy.
- form_k comes from `template.read_template`: each stream answers for its own form only.
- len_k counts the tokens of the stream with its marks, without the end-of-turn token, bounds inclusive; it is
  paid if the form and every accuracy of the stream are non-zero.
- An accuracy that could not be scored (no verdict, unusable reference) is None, never 0: the rollout is left
  out of the mean and deviation of that stream, and its advantage there is 0.

Plain GRPO pays one reward: the answer, the form of the whole trace, and the length of the answer's stream.
N = B * G rollouts, row b * G + g is rollout g of prompt b; all tables are float64 on the CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from videop2r_data.schemas import ROBUST, Policy, ProblemType, ScoreReason
from videop2r_data.trainer.process.masks import SegmentMasks
from videop2r_data.trainer.settings.objectives import TraceStream, trace_streams
from videop2r_data.trainer.settings.rl import DynamicLengthSpec, ObjectiveSpec, RewardSpec, TemporalSpec
from videop2r_data.validators import extract_answer, score


def dynamic_bounds(lengths: Sequence[int], spec: DynamicLengthSpec) -> tuple[int, int] | None:
    """Lowest and highest paid length in tokens, inclusive: quantiles of the lengths of the correct rollouts,
    widened by the slack; None if they are too few.

    >>> dynamic_bounds([100, 100, 110, 120, 400], DynamicLengthSpec())
    (90, 132)
    >>> dynamic_bounds([100, 400], DynamicLengthSpec()) is None
    True
    """
    if len(lengths) < spec.at_least:
        return None
    low, high = (float(x) for x in np.quantile(lengths, [spec.low, spec.high]))
    # Rounded before ceil: 120 * 1.1 is 132.00000000000003 in floating point, and would pay for 133 tokens.
    return math.floor(round(low * (1 - spec.slack), 6)), math.ceil(round(high * (1 + spec.slack), 6))


_KINDS = ("accuracy", "format", "length")
"""What a stream's reward is the sum of."""
_Shuffled = Sequence[Sequence[float | None] | None] | None


class Graded(NamedTuple):
    """One rollout, graded; the accuracies lie in [0, 1], None means unscored.

    Attributes:
        acc_p: the verdict on the observation: 1 or 0 for sufficiency, else a share.
        acc_r: the metric on the answer.
        forms: stream -> whether it has its form.
        form: the whole trace, as GRPO pays it.
        lengths: stream -> its tokens.
        finished: the model ended its turn; False: cut at the token limit.
        tokens: of the whole completion.
        observation: what to show the judge; None: nothing to show, `acc_p` is 0 already.
        answer: the answer that was scored; None if there was none.
        reason: why `acc_r` is what it is (a `ScoreReason` value).
        fault: first fault of the trace (a `TraceFault` value), None if there is none.
    """

    acc_p: float | None
    acc_r: float | None
    forms: Mapping[str, bool]
    form: bool
    lengths: Mapping[str, int]
    finished: bool = True
    tokens: int = 0
    observation: str | None = None
    answer: str | None = None
    reason: str = ""
    fault: str | None = None

    def judged(self, score: float | None) -> Graded:
        """With the judge's verdict (None: unscored); a rollout without an observation keeps its 0."""
        if self.observation is None:
            return self
        return self._replace(acc_p=None if score is None else float(score))

    def accuracies(self, stream: TraceStream) -> list[float | None]:
        """What a stream's accuracy is the sum of."""
        return [acc for acc, has in ((self.acc_p, stream.sees), (self.acc_r, stream.answers)) if has]

    def right(self, stream: TraceStream) -> bool:
        """Whether a length of the stream may be paid."""
        return all(self.accuracies(stream)) and self.forms[stream.name]


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

    A reference (with or without its tag) that cannot be used makes `acc_r` None; it should have been refused
    when the data were read.

    Raises:
        ValueError: `problem_type` is none of the seven.
    """
    template = masks.template
    found = extract_answer(masks.text, policy)
    if not template.tagged:
        answer = template.found.answer.strip() or None
        found = found._replace(answer=answer, reason=None if answer else ScoreReason.NO_ANSWER)
    # An empty answer tag means "no answer" to the scorer, which then still reports a reference it cannot use.
    result = score(
        problem_type,
        prediction="<answer></answer>" if found.answer is None else found.answer,
        reference=reference,
        options=options,
        policy=policy,
    )
    unscored = not template.perceives or template.observation is not None
    missing = found.reason.value if found.reason and result.value is not None else None
    return Graded(
        acc_p=None if unscored else 0.0,
        acc_r=result.value,
        forms=template.forms,
        form=template.form,
        lengths=masks.lengths,
        finished=finished,
        tokens=masks.tokens,
        observation=template.observation,
        answer=found.answer,
        reason=missing or result.reason.value,
        fault=template.spans.fault.value if template.spans.fault else None,
    )


@dataclass(frozen=True, slots=True)
class RewardTable:
    """Rewards of N rollouts, each tensor [N]; what is unscored is 0 and False in its `scored` column.

    Attributes:
        paid: every part of the reward with its weight; `accuracy_<key>` and so on for each stream.
        scored: key of a stream -> its accuracy is known.
        answered: the accuracy of the answer is known.
        components: the same parts before weights (`length_*`, `temporal`, `overlong` as paid), for the log.
        weights: of the parts.
        group_size: G.
        streams: of the grammar.
    """

    paid: dict[str, Tensor]
    scored: dict[str, Tensor]
    answered: Tensor
    components: dict[str, Tensor]
    weights: dict[str, float]
    group_size: int
    streams: tuple[TraceStream, ...]

    def earned(self, parts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[N] the sum of these parts, and [N] bool where it is scored; 0 where it is not.

        A sum is unscored if one of its parts depends on an accuracy that is unknown: `format` and `overlong`
        never do.
        """
        scored = torch.ones_like(self.answered)
        sums: dict[str, Tensor] = {}  # each stream is added up apart: R_P + R_R is the sum of two sums
        for part in parts:
            kind, _, key = part.partition("_")
            if kind not in ("format", "overlong"):
                scored = scored & (self.scored[key] if key else self.answered)
            sums[key] = sums[key] + self.paid[part] if key in sums else self.paid[part]
        return functools.reduce(torch.add, sums.values()) * scored, scored

    def of(self, key: str) -> tuple[Tensor, Tensor]:
        """[N] the reward R_k of the stream with this key, and [N] bool where it is scored."""
        return self.earned([f"{kind}_{key}" for kind in _KINDS])

    @property
    def total(self) -> tuple[Tensor, Tensor]:
        """[N] the sum of R_k over all streams, and [N] bool: all of them are scored."""
        return self.earned([f"{kind}_{stream.key}" for stream in self.streams for kind in _KINDS])

    @property
    def plain(self) -> tuple[Tensor, Tensor]:
        """[N] the one reward of GRPO and T-GRPO, and [N] bool where it is scored."""
        return self.earned(("answer", "format", "length", "temporal"))


def rewards_of(
    graded: Sequence[Graded],
    spec: RewardSpec,
    group_size: int,
    *,
    objective: ObjectiveSpec | None = None,
    shuffled: _Shuffled = None,
    streams: tuple[TraceStream, ...] | None = None,
    longest: int = 0,
) -> RewardTable:
    """The rewards of whole groups.

    Args:
        graded: N rollouts in groups of `group_size`.
        spec: weights and bounds.
        objective: pays lengths and the temporal bonus, or does not; None: pa-grpo.
        shuffled: for an objective that shuffles frames, per prompt the accuracies acc_R of its group with
            shuffled frames; None for a prompt without a video.
        streams: of the grammar; None: of the default.
        longest: tokens of the longest completion that can be drawn, for an objective that pays `overlong`.

    Raises:
        ValueError: groups are not whole, or `shuffled` or `longest` does not fit the objective.

    >>> both = {"perception": True, "reasoning": True}
    >>> row = Graded(1.0, 0.5, both, True, {"perception": 200, "reasoning": 600})
    >>> table = rewards_of([row], RewardSpec(), 1)
    >>> [round(found[0].item(), 3) for found in (table.of("p"), table.of("r"), table.total)]
    [2.2, 1.5, 3.7]
    """
    objective, streams = objective or ObjectiveSpec(), streams or trace_streams()
    check_groups(len(graded), group_size)
    groups = [graded[start : start + group_size] for start in range(0, len(graded), group_size)]
    if not objective.entry.pays_length:
        spec = spec.model_copy(update={"length": "off"})
    components: dict[str, Tensor] = {}
    scored: dict[str, Tensor] = {}
    for stream in streams:
        key, name = stream.key, stream.name
        parts = [row.accuracies(stream) for row in graded]
        known = [None if None in accuracies else sum(filter(None, accuracies)) for accuracies in parts]
        components[f"accuracy_{key}"], scored[key] = _known(known)
        components[f"format_{key}"] = _column([float(row.forms[name]) for row in graded])
        right = functools.partial(Graded.right, stream=stream)
        components[f"length_{key}"] = _lengths(groups, spec, name, right)
    answering = next(stream.name for stream in streams if stream.answers)
    components["answer"], answered = _known([row.acc_r for row in graded])
    components["format"] = _column([float(row.form) for row in graded])
    components["length"] = _lengths(groups, spec, answering, lambda row: bool(row.acc_r) and row.form)
    components["temporal"] = _temporal(groups, objective, shuffled)
    overlong = "overlong" in objective.entry.parts
    lost = [-overlong_loss(row.tokens, longest, spec) if overlong else 0.0 for row in graded]
    components["overlong"] = _column(lost)
    of_kind = {"accuracy": spec.accuracy, "answer": spec.accuracy, "format": spec.form}
    weights = {part: of_kind.get(part.split("_")[0], 1.0) for part in components}
    paid = {part: weights[part] * value for part, value in components.items()}
    return RewardTable(paid, scored, answered, components, weights, group_size, streams)


def overlong_loss(tokens: int, longest: int, spec: RewardSpec) -> float:
    """What a completion loses for its length, in [0, `spec.overlong`]: 0 up to the last share of the limit,
    rising linearly over it [DAPO, arXiv 2503.14476, eq. 13]; ValueError if the limit is not known.

    >>> [overlong_loss(tokens, 100, RewardSpec()) for tokens in (80, 90, 100)]
    [0.0, 0.25, 0.5]
    """
    if longest < 1:
        raise ValueError("overlong completions are punished, and no limit of their length is given: longest")
    cache = spec.overlong_share * longest
    return spec.overlong * min(1.0, max(0.0, (tokens - (longest - cache)) / cache))


def temporal_bonus(
    ordered: Sequence[float | None], shuffled: Sequence[float | None], spec: TemporalSpec
) -> list[float]:
    """The bonus of each ordered rollout of one video question, given acc_R in both groups; unscored ones are
    left out of the shares [T-GRPO eq. 1-2].

    >>> temporal_bonus([1.0, 0.0], [1.0, 0.0], TemporalSpec())
    [0.3, 0.0]
    >>> temporal_bonus([1.0, 0.0], [1.0, 1.0], TemporalSpec())
    [0.0, 0.0]
    """
    p, p_shuffled = _share(ordered, spec), _share(shuffled, spec)
    earned = p is not None and p_shuffled is not None and p >= spec.margin * p_shuffled
    return [spec.alpha if earned and x is not None and x > spec.correct_above else 0.0 for x in ordered]


def _share(accuracies: Sequence[float | None], spec: TemporalSpec) -> float | None:
    right = [x > spec.correct_above for x in accuracies if x is not None]
    return sum(right) / len(right) if right else None


def _temporal(groups: Sequence[Sequence[Graded]], objective: ObjectiveSpec, shuffled: _Shuffled) -> Tensor:
    if not objective.entry.shuffles:
        if shuffled is not None:
            raise ValueError(f"shuffled groups were handed in, and objective {objective.name!r} reads none")
        return torch.zeros(sum(map(len, groups)), dtype=torch.float64)
    if shuffled is None or len(shuffled) != len(groups):
        got = f"{'none' if shuffled is None else len(shuffled)} for {len(groups)} prompts"
        raise ValueError(f"{objective.name} wants one shuffled entry per prompt: got {got}")
    bonus: list[float] = []
    for rows, other in zip(groups, shuffled, strict=True):
        ordered = [row.acc_r for row in rows]
        bonus += [0.0] * len(rows) if other is None else temporal_bonus(ordered, other, objective.temporal)
    return _column(bonus)


def _lengths(
    groups: Sequence[Sequence[Graded]], spec: RewardSpec, stream: str, right: Callable[[Graded], bool]
) -> Tensor:
    """[N] the length bonus of a stream, for the rollouts that are right."""
    paid: list[float] = []
    for rows in groups:
        lengths = [(row.lengths[stream], right(row)) for row in rows]
        bounds = spec.bounds_of(stream)
        if spec.length == "dynamic":
            bounds = dynamic_bounds([n for n, correct in lengths if correct], spec.dynamic)
        low, high = (math.inf, 0) if bounds is None or spec.length == "off" else bounds
        paid += [spec.length_bonus if correct and low <= n <= high else 0.0 for n, correct in lengths]
    return _column(paid)


def check_groups(rows: int, group_size: int) -> None:
    """Raise ValueError for rows that are no whole groups: an advantage over parts of two means nothing."""
    if group_size < 1 or rows % group_size:
        wrong = f"{rows} rollouts are no whole groups of {group_size}"
        raise ValueError(f"{wrong}: hand over all rollouts of each prompt")


def _known(values: Sequence[float | None]) -> tuple[Tensor, Tensor]:
    known = torch.tensor([x is not None for x in values], dtype=torch.bool)
    return _column([x or 0.0 for x in values]), known


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
