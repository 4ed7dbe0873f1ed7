"""From rows to named aggregates, each with its interval and the number of questions behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from videop2r_data.schemas import Model
from videop2r_data.trainer.evaluate.estimates import Estimate, mean, share
from videop2r_data.trainer.evaluate.rows import EvalRow
from videop2r_data.trainer.evaluate.specs import EvalSpec


class Lengths(Model):
    """Tokens per completion, means over the completions that could be split into processes."""

    perception: Estimate | None
    reasoning: Estimate | None
    all: Estimate | None
    """Of every completion, the closing token included."""


class EvalReport(Model):
    """Aggregates of an evaluation; None: no question could tell."""

    questions: int
    """That were to be asked."""
    asked: int
    skipped: dict[str, int]
    """Reason -> questions that were never asked."""
    accuracy: Estimate | None
    """Mean score over all asked questions with a usable reference (each question counts once)."""
    accuracy_macro: float | None
    """Unweighted mean of the accuracies of the problem types."""
    accuracy_by_type: dict[str, Estimate]
    accuracy_by_media: dict[str, Estimate]
    """Over video, image and text."""
    unscored: int
    """Asked questions whose reference cannot be used."""
    sufficiency: Estimate | None
    """Share of judged observations that the answer follows from; none counts as not sufficient."""
    unjudged: dict[str, int]
    """Reason -> questions without a verdict."""
    accuracy_if_sufficient: Estimate | None
    accuracy_if_not: Estimate | None
    """Right answers behind observations that do not carry them: guessed, or seen and not said."""
    mismatch: Estimate | None
    """Share of completions whose think segment settles on another answer, of those where a rule decides."""
    format: Estimate | None
    """Share with the whole template of its style."""
    format_p: Estimate | None
    format_r: Estimate | None
    finished: Estimate | None
    """Share that ended by itself."""
    lengths: Lengths
    level: float
    """Of all intervals."""

    def metrics(self) -> dict[str, float]:
        """Flat keys for `metrics.jsonl`; what could not be told is left out."""
        found: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("accuracy", "sufficiency", "mismatch", "format", "format_p", "format_r", "finished")
        }
        found |= {f"accuracy/{kind}": value for kind, value in self.accuracy_by_type.items()}
        found |= {"length/p": self.lengths.perception, "length/r": self.lengths.reasoning}
        found |= {"length/all": self.lengths.all}
        flat = {f"eval/{name}": est.value for name, est in found.items() if isinstance(est, Estimate)}
        if self.accuracy_macro is not None:
            flat["eval/accuracy_macro"] = self.accuracy_macro
        flat["eval/questions"] = self.asked
        return flat


def summarise(rows: Iterable[EvalRow], spec: EvalSpec) -> EvalReport:
    """The aggregates of all rows; their order makes no difference."""
    every = sorted(rows, key=lambda row: row.index)
    asked = [row for row in every if not row.skipped]
    by_type = _by(asked, "problem_type", spec)
    judged = [row for row in asked if row.judge_reason]
    return EvalReport(
        questions=len(every),
        asked=len(asked),
        skipped=dict(sorted(Counter(row.skipped for row in every if row.skipped).items())),
        accuracy=_accuracy(asked, spec),
        accuracy_macro=sum(e.value for e in by_type.values()) / len(by_type) if by_type else None,
        accuracy_by_type=by_type,
        accuracy_by_media=_by(asked, "data_type", spec),
        unscored=sum(row.score is None for row in asked),
        sufficiency=_share([row.sufficient for row in judged], spec),
        unjudged=dict(sorted(Counter(r.judge_reason for r in judged if r.sufficient is None).items())),
        accuracy_if_sufficient=_accuracy([row for row in judged if row.sufficient is True], spec),
        accuracy_if_not=_accuracy([row for row in judged if row.sufficient is False], spec),
        mismatch=_share([row.mismatch for row in asked], spec),
        format=_share([row.format for row in asked], spec),
        format_p=_share([row.format_p for row in asked], spec),
        format_r=_share([row.format_r for row in asked], spec),
        finished=_share([row.finished for row in asked], spec),
        lengths=Lengths(
            perception=_mean([row.tokens_p for row in asked if row.tokens_p + row.tokens_r], spec),
            reasoning=_mean([row.tokens_r for row in asked if row.tokens_p + row.tokens_r], spec),
            all=_mean([row.tokens for row in asked], spec),
        ),
        level=spec.level,
    )


def named_estimates(report: EvalReport) -> list[tuple[str, Estimate | None, int]]:
    """Every aggregate in the order in which a person reads it: name, estimate, digits after the point."""
    return [
        ("answer accuracy, all questions", report.accuracy, 3),
        *((f"answer accuracy, {kind}", found, 3) for kind, found in report.accuracy_by_type.items()),
        *((f"answer accuracy, about {kind}", found, 3) for kind, found in report.accuracy_by_media.items()),
        ("observation suffices", report.sufficiency, 3),
        ("answer accuracy where it suffices", report.accuracy_if_sufficient, 3),
        ("answer accuracy where it does not", report.accuracy_if_not, 3),
        ("think and answer differ", report.mismatch, 3),
        ("valid format", report.format, 3),
        ("valid format, perception", report.format_p, 3),
        ("valid format, reasoning", report.format_r, 3),
        ("ended by itself", report.finished, 3),
        ("tokens, perception", report.lengths.perception, 1),
        ("tokens, reasoning", report.lengths.reasoning, 1),
        ("tokens, all", report.lengths.all, 1),
    ]


def _by(rows: Sequence[EvalRow], field: str, spec: EvalSpec) -> dict[str, Estimate]:
    kinds = sorted({getattr(row, field).value for row in rows})
    found = {kind: _accuracy([r for r in rows if getattr(r, field).value == kind], spec) for kind in kinds}
    return {kind: estimate for kind, estimate in found.items() if estimate is not None}


def _accuracy(rows: Sequence[EvalRow], spec: EvalSpec) -> Estimate | None:
    return _mean([row.score for row in rows if row.score is not None], spec)


def _mean(values: Sequence[float], spec: EvalSpec) -> Estimate | None:
    return mean(values, level=spec.level, resamples=spec.resamples, seed=spec.seed)


def _share(flags: Sequence[bool | None], spec: EvalSpec) -> Estimate | None:
    known = [flag for flag in flags if flag is not None]
    return share(sum(known), len(known), level=spec.level)
