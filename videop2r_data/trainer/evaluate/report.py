"""One held-out question as a graded row, and rows as named aggregates with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from videop2r_data.schemas import DataType, Model, Policy, ProblemType, ProcessTrace, Unit
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.judging.base import Judged
from videop2r_data.trainer.process.masks import SegmentMasks
from videop2r_data.trainer.process.rewards import grade
from videop2r_data.trainer.settings.parts import EvalSpec
from videop2r_data.validators import CountedEstimate, estimate_mean, estimate_share, thinks_otherwise

# Rows.


class EvalRow(Model):
    """The outcome of one question; None where a value could not be determined, never 0."""

    index: int
    """Place among the questions of the evaluation."""
    sample_id: str
    problem_type: ProblemType
    data_type: DataType
    skipped: str = ""
    """Why it was not asked (a bad clip, a prompt too long); empty if it was."""
    text: str = ""
    finished: bool = True
    """The end token was drawn; False: `max_new_tokens` came first."""
    answer: str | None = None
    score: Unit | None = None
    """Metric of the problem type; None: the reference cannot be used."""
    score_reason: str = ""
    format: bool = False
    """The whole template of its style."""
    format_p: bool = False
    format_r: bool = False
    fault: str | None = None
    observation: str | None = None
    sufficient: bool | None = None
    judge_reason: str = ""
    """Reason of the verdict; empty if no judge was asked."""
    judge_words: str = ""
    mismatch: bool | None = None
    """Think concludes another answer than the one given; None: no rule decides."""
    tokens_p: int = 0
    tokens_r: int = 0
    tokens: int = 0
    """Of the whole completion, the closing one included."""

    def judged(self, found: Judged) -> EvalRow:
        """With the judge's verdict."""
        one = found.parts.get("sufficiency", found)
        told = {"sufficient": one.sufficient, "judge_reason": str(one.reason), "judge_words": one.detail}
        return self.model_copy(update=told)


def row_of(index: int, example: Example, **found: Any) -> EvalRow:
    """The row of a question, with what was found."""
    return EvalRow(
        index=index,
        sample_id=example.sample_id,
        problem_type=example.problem_type,
        data_type=example.data_type,
        **found,
    )


def graded_row(
    index: int, example: Example, masks: SegmentMasks, *, finished: bool, policy: Policy
) -> EvalRow:
    """Grade one completion; the judge's verdict is added by `EvalRow.judged`."""
    found = grade(
        masks,
        problem_type=example.problem_type,
        reference=example.reference,
        options=example.options,
        finished=finished,
        policy=policy,
    )
    reasoned, mismatch = found.forms.get("reasoning", found.form), None
    if reasoned:
        said = masks.template.found
        trace = ProcessTrace.model_construct(observation="-", think=said.think, answer=said.answer)
        mismatch = thinks_otherwise(trace, example.problem_type, example.options, policy=policy)
    return row_of(
        index,
        example,
        text=masks.text,
        finished=finished,
        answer=found.answer,
        score=found.acc_r,
        score_reason=found.reason,
        format=found.form,
        format_p=found.forms.get("perception", found.form),
        format_r=reasoned,
        fault=found.fault,
        observation=found.observation,
        mismatch=mismatch,
        tokens_p=found.lengths.get("perception", 0),
        tokens_r=sum(length for name, length in found.lengths.items() if name != "perception"),
        tokens=masks.tokens,
    )


# Aggregates, each with its interval and the number of questions behind it.


class Lengths(Model):
    """Tokens per completion: means over those that could be split into processes; `all`: over every one."""

    perception: CountedEstimate | None
    reasoning: CountedEstimate | None
    all: CountedEstimate | None


class EvalReport(Model):
    """Aggregates of an evaluation, named as in its rows; None where no question decides."""

    questions: int
    """Questions of the evaluation, asked or not."""
    asked: int
    skipped: dict[str, int]
    """Reason -> questions that were not asked."""
    accuracy: CountedEstimate | None
    """Mean score over all asked questions with a usable reference (each question counts once)."""
    accuracy_macro: float | None
    """Unweighted mean of the accuracies of the problem types."""
    accuracy_by_type: dict[str, CountedEstimate]
    accuracy_by_media: dict[str, CountedEstimate]
    unscored: int
    """Asked questions whose reference cannot be used."""
    sufficiency: CountedEstimate | None
    """Share of judged observations that the answer follows from; none counts as not sufficient."""
    unjudged: dict[str, int]
    """Reason -> questions without a verdict."""
    accuracy_if_sufficient: CountedEstimate | None
    accuracy_if_not: CountedEstimate | None
    """Right answers behind observations that do not carry them: guessed, or seen and not said."""
    mismatch: CountedEstimate | None
    """Share of completions whose think segment settles on another answer, of those where a rule decides."""
    format: CountedEstimate | None
    format_p: CountedEstimate | None
    format_r: CountedEstimate | None
    finished: CountedEstimate | None
    lengths: Lengths
    level: float
    """Of the intervals."""

    def metrics(self) -> dict[str, float]:
        """Flat keys for `metrics.jsonl`; undetermined ones are left out."""
        plain = ("accuracy", "sufficiency", "mismatch", "format", "format_p", "format_r", "finished")
        found: dict[str, CountedEstimate | None] = {name: getattr(self, name) for name in plain}
        found |= {f"accuracy/{kind}": value for kind, value in self.accuracy_by_type.items()}
        lengths = self.lengths
        found |= {"length/p": lengths.perception, "length/r": lengths.reasoning, "length/all": lengths.all}
        flat = {f"eval/{name}": estimate.value for name, estimate in found.items() if estimate is not None}
        if self.accuracy_macro is not None:
            flat["eval/accuracy_macro"] = self.accuracy_macro
        flat["eval/questions"] = self.asked
        return flat


def summarise(rows: Iterable[EvalRow], spec: EvalSpec) -> EvalReport:
    """The aggregates of all rows; their order makes no difference."""

    every = sorted(rows, key=lambda row: row.index)
    asked = [row for row in every if not row.skipped]
    judged = [row for row in asked if row.judge_reason]
    whole = [row for row in asked if row.tokens_p + row.tokens_r]

    def mean(values: Iterable[float | None]) -> CountedEstimate | None:
        known = [value for value in values if value is not None]
        return estimate_mean(known, level=spec.level, resamples=spec.resamples, seed=spec.seed)

    def share(flags: Iterable[bool | None]) -> CountedEstimate | None:
        known = [flag for flag in flags if flag is not None]
        return estimate_share(sum(known), len(known), level=spec.level)

    def accuracy(field: str) -> dict[str, CountedEstimate]:
        kinds = sorted({getattr(row, field).value for row in asked})
        found = {kind: mean(r.score for r in asked if getattr(r, field).value == kind) for kind in kinds}
        return {kind: estimate for kind, estimate in found.items() if estimate is not None}

    by_type = accuracy("problem_type")
    return EvalReport(
        questions=len(every),
        asked=len(asked),
        skipped=dict(sorted(Counter(row.skipped for row in every if row.skipped).items())),
        accuracy=mean(row.score for row in asked),
        accuracy_macro=sum(e.value for e in by_type.values()) / len(by_type) if by_type else None,
        accuracy_by_type=by_type,
        accuracy_by_media=accuracy("data_type"),
        unscored=sum(row.score is None for row in asked),
        sufficiency=share(row.sufficient for row in judged),
        unjudged=dict(sorted(Counter(r.judge_reason for r in judged if r.sufficient is None).items())),
        accuracy_if_sufficient=mean(row.score for row in judged if row.sufficient is True),
        accuracy_if_not=mean(row.score for row in judged if row.sufficient is False),
        mismatch=share(row.mismatch for row in asked),
        format=share(row.format for row in asked),
        format_p=share(row.format_p for row in asked),
        format_r=share(row.format_r for row in asked),
        finished=share(row.finished for row in asked),
        lengths=Lengths(
            perception=mean(row.tokens_p for row in whole),
            reasoning=mean(row.tokens_r for row in whole),
            all=mean(row.tokens for row in asked),
        ),
        level=spec.level,
    )
