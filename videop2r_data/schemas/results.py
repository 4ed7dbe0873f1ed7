"""What the questions of a benchmark come to: figures with their intervals, and `result.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field

from videop2r_data.schemas.base import Model


class Measured(Model):
    """One figure of a benchmark with its interval, beside that of the question alone."""

    protocol: str
    """id of the aggregate, e.g. vsi_macro8"""
    by: str = ""
    """tag that the table goes by; empty: the benchmark as a whole"""
    group: str = ""
    """value of the tag"""
    value: float | None
    low: float | None
    high: float | None
    n: int = Field(ge=0)
    """questions behind it, those without an answer included"""
    scale: float = 1.0
    """what 1 is printed as"""
    question_only: float | None = None
    """the same of the answers without media"""


class Range(Model):
    """Smallest, mean and largest of some measurements."""

    low: float
    mean: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range | None:
        """None of no values.

        >>> Range.of([1, 3])
        Range(low=1.0, mean=2.0, high=3.0)
        """
        return cls(low=min(values), mean=sum(values) / len(values), high=max(values)) if values else None


class Took(Model):
    """Seconds of the calls behind the answers, as they were made, with others beside them."""

    p50: float
    p95: float
    calls: int
    """Those whose seconds are known."""

    @classmethod
    def of(cls, values: Iterable[float]) -> Took | None:
        """None of no values.

        >>> Took.of(range(1, 101))
        Took(p50=50.0, p95=95.0, calls=100)
        """
        seconds = sorted(values)
        last = len(seconds) - 1
        return cls(p50=seconds[last // 2], p95=seconds[last * 95 // 100], calls=last + 1) if seconds else None


class Sent(Model):
    """What reached the model, of the questions that it answered."""

    frames: Range | None
    """Frames of a clip."""
    pixels: Range | None
    """Pixels of one frame or image, as they were sent."""
    input_tokens: Range | None
    """Tokens of prompt and media, as the server counted them behind its processor."""
    output_tokens: Range | None
    """Tokens of the completion, as the server counted them."""


class Told(Model):
    """What the completions are like."""

    well_formed: Measured | None
    """Share with the form that was asked for; None: no form was asked for."""
    faults: dict[str, int]
    """Why the others have not -> completions."""
    cut: int
    """Completions that ended at `max_tokens`."""
    places: dict[str, int]
    """Where answers were found -> completions."""


class Both(Model):
    """Questions by what rule and judge say of a mismatch."""

    both: int
    """Both find one."""
    judge_alone: int
    rule_alone: int
    neither: int


class Faithful(Model):
    """Whether the parts of the traces belong together."""

    figures: tuple[Measured, ...]
    """Lengths (`by: segment`), reasoning, each judge (`by: judge`), and the examination."""
    not_asked: dict[str, dict[str, int]]
    """Judge, or exam -> reason -> answered questions that it was not asked about."""
    without_verdict: dict[str, int]
    """Judge -> questions whose reply holds no verdict."""
    rule_against_judge: Both | None
    """Where both decide; None: nowhere."""


class BenchmarkResult(Model):
    """One benchmark."""

    name: str
    title: str
    revision: str
    """Commit of the rows, where they come from the Hub."""
    layout: str
    rows_expected: int | None
    """Rows that the benchmark has, by its declaration; None: it declares none."""
    rows_found: int
    """Rows of the files."""
    rows_bad: dict[str, int]
    """Reason -> rows that cannot be read; they count as wrong."""
    rows_differ: tuple[str, ...]
    """Where the rows differ from the published counts; of a part of them nothing is said."""
    selection: str
    """Which of the rows were asked; empty: all of them."""
    questions: int
    """Asked, or to be asked: every one of them counts."""
    answered: int
    failed: dict[str, int]
    """Reason -> questions without an answer; they count as wrong."""
    examples: dict[str, str]
    """Reason -> the error of one of them."""
    unscored: int
    """Questions whose reference cannot be used; they count nowhere."""
    figures: tuple[Measured, ...]
    """Protocol by protocol; first over all, then by each tag."""
    told: Told
    faithful: Faithful | None = Field(default=None, exclude_if=lambda value: value is None)
    """None: the answers have no segments, and nothing was asked of judges or examinees."""
    sent: Sent
    calls: int
    """Answers behind this result, those without media and those of judges among them."""
    usd: float | None
    """What they cost by the prices of the plan; None: no prices."""
    took: Took | None = Field(default=None, exclude=True)
    """Of the answers with media; not in `result.json`: equal answers make equal results."""
    pool_sha256: str
    """Of the rows as they were read."""
    file: str
    """The rows, below the result's folder."""
    file_sha256: str


class EvalResult(Model):
    """`result.json`: equal for equal journals, without clock or host."""

    result: Literal[1] = 1
    """Version of this format."""
    name: str
    plan: dict[str, Any]
    """Without the settings that change nothing."""
    model: str
    """As it was asked for."""
    served: dict[str, int]
    """As the server called it -> answers."""
    prompts: dict[str, str]
    """Name -> sha256."""
    versions: dict[str, str]
    """Of this package, and of packages that can change a score."""
    benchmarks: tuple[BenchmarkResult, ...]
