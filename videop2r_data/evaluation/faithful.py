"""Do the parts of a trace belong together: what of it the judges are asked, and what their verdicts come to.

Everything here is read from the rows of a result, so that it can be counted again without a call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from videop2r_data.builders import read_by
from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.schemas import (
    Aggregate,
    Both,
    EvalPlan,
    EvalRow,
    Faithful,
    JudgementCell,
    Measured,
    NamedJudge,
    ProblemType,
    ProcessTrace,
    Role,
    Sample,
    Trace,
)
from videop2r_data.validators import (
    NOTHING,
    ScoredRow,
    aggregate,
    kappa_of_clips,
    thinks_otherwise,
)

TITLES = {
    "words": "words",
    "tokens": "tokens",
    "mismatch": "think differs, by judge",
    "settles_on_nothing": "think settles on nothing",
    "mismatch_or_nothing": "either of the two",
    "mismatch_rule": "think differs, by rule",
    "rule_and_judge": "rule and judge agree",
    "kappa": "Cohen's kappa of the two",
    "sufficient": "observation suffices",
    "sufficient_of_all": "is there and suffices",
    "accuracy_if_sufficient": "score where it suffices",
    "accuracy_if_not": "score where it does not",
    "true": "no claim is false",
    "claims_supported": "supported claims",
    "accuracy_if_true": "score where none is false",
    "accuracy_if_invented": "score where one is false",
    "exam_nothing": "exam: question alone",
    "exam_media": "exam: with media",
    "exam_observation": "exam: with observation",
    "exam_both": "exam: with both",
    "exam_media-nothing": "media over alone",
    "exam_observation-nothing": "observation over alone",
    "exam_observation-media": "observation over media",
    "exam_both-media": "both over media",
    "exam_both-observation": "both over observation",
}
"""Id of a figure -> its name in tables."""
_GAINS = (
    ("nothing", "media"),
    ("nothing", "observation"),
    ("media", "observation"),
    ("media", "both"),
    ("observation", "both"),
)
_MEAN = Aggregate(id="mean")
_PASSES = {"sufficiency": "Yes", "faithfulness": "faithful"}
_FIGURES = {
    "sufficiency": ("sufficient", "accuracy_if_sufficient", "accuracy_if_not"),
    "faithfulness": ("true", "accuracy_if_true", "accuracy_if_invented"),
}


# What is asked, and what is noted of it in a row.


def can_be_asked(judge: NamedJudge, trace: ProcessTrace) -> bool:
    """Whether a trace, whole or not, has what a judge reads, and an answer to hold reasoning against."""
    return bool(read_by(judge, trace).strip()) and (
        judge.decides != "conclusion" or bool(trace.answer.strip())
    )


def with_answer(trace: Trace, answer: str | None) -> Trace:
    """The trace with the answer that was read, where its own answer segment is missing."""
    return trace if trace.answer.strip() or not answer else trace.model_copy(update={"answer": answer})


def token_counter(name: str) -> Callable[[str], int] | None:
    """What counts the tokens of a text; None: nobody was named.

    Raises:
        MissingExtraError: transformers is not installed. ConfigError: there is no such tokenizer.
    """
    if not name:
        return None
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtraError("transformers", "train") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        hint = "tokenizer: the folder of the model, or a Hub id; empty counts no tokens"
        raise ConfigError(f"no tokenizer {name!r}: {error}", where="tokenizer", hint=hint) from None
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def by_rule(sample: Sample, trace: ProcessTrace, plan: EvalPlan) -> bool | None:
    """Whether think settles on another answer, by the rule; None: it has none, or no rule decides."""
    if not trace.think.strip() or not trace.answer.strip():
        return None
    return thinks_otherwise(trace, sample.problem_type, sample.options, policy=plan.scoring)


def by_judge(cells: Iterable[JudgementCell]) -> dict[str, Any]:
    """The columns `think_option` and `mismatch_judge`, of the first judge of conclusion."""
    cell = next((cell for cell in cells if cell.decides == "conclusion"), None)
    if cell is None or not cell.verdict:
        return {"think_option": None, "mismatch_judge": None}
    return {"think_option": cell.verdict, "mismatch_judge": None if cell.score is None else cell.score == 0.0}


# What the rows of a benchmark come to.


@dataclass(frozen=True, eq=False)
class _Said:
    """One row, without its texts."""

    clip: str
    order: int
    answered: bool
    silent: frozenset[str]
    """Judges that gave no verdict."""
    score: float | None
    rule: bool | None
    option: str | None
    judge: bool | None
    verdicts: dict[str, tuple[str, float | None]]
    """Judge -> verdict and score."""
    examined: dict[str, float | None]
    """What was shown -> score."""
    lengths: dict[tuple[str, str], int]
    """`words` or `tokens`, and segment -> how many, in all rounds together."""


@dataclass
class Belonging:
    """Whether the parts of a benchmark's traces belong together, taken in row by row."""

    plan: EvalPlan
    rows: list[_Said] = field(default_factory=list)
    not_asked: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    silent: Counter[str] = field(default_factory=Counter)

    def add(self, row: EvalRow) -> None:
        """Take in one question."""
        cells = {cell.judge: cell for cell in row.judgements}
        if self.plan.exam is not None and (why := self._why_no_exam(row)):
            self.not_asked["exam"][why] += 1
        for judge in self.plan.judges if not row.reply.failed else ():
            if judge.name not in cells:
                self.not_asked[judge.name][self._why_not(row, judge)] += 1
        silent = frozenset(name for name, cell in cells.items() if not cell.verdict)
        self.silent.update(silent)
        self.rows.append(
            _Said(
                clip=row.path,
                order=len(self.rows),
                answered=not row.reply.failed,
                silent=silent,
                score=row.reply.score,
                rule=row.mismatch_rule,
                option=row.think_option,
                judge=row.mismatch_judge,
                verdicts={name: (cell.verdict, cell.score) for name, cell in cells.items() if cell.verdict},
                examined={one.shown: one.reply.score for one in row.examined},
                lengths=dict(_lengths(row)),
            )
        )

    def _why_not(self, row: EvalRow, judge: NamedJudge) -> str:
        """Why a judge was not asked about a row."""
        known = self.plan.trace.named
        has = {known[cell.name].role for cell in row.segments if cell.text.strip() and cell.name in known}
        names = {cell.name for cell in row.segments if cell.text.strip()}
        if judge.reads and not names & set(judge.reads):
            return f"no {' or '.join(judge.reads)}"
        if not judge.reads and judge.role is not None and judge.role not in has:
            return "no reasoning" if judge.role is Role.REASONING else "no observation"
        if judge.decides == "conclusion":
            kind = ProblemType(row.problem_type)
            answered = Role.ANSWER in has or row.reply.answer
            return f"{kind.value}: answers cannot be compared" if answered else "no answer"
        return "no media" if row.data_type == "text" else "media cannot be read"

    def _why_no_exam(self, row: EvalRow) -> str:
        """Why a question was not asked in every way; empty: it was."""
        assert self.plan.exam is not None
        if not row.examined:
            return "no media" if row.data_type == "text" else "the row cannot be read"
        shown = {one.shown for one in row.examined}
        return "" if shown >= set(self.plan.exam.shown) else "no observation"

    def result(self) -> Faithful | None:
        """All figures; None: the answers have no segments, and nothing was asked of anybody."""
        figures = [*self._lengths(), *self._reasoning(), *self._judged(), *self._exam()]
        if not figures:
            return None
        pairs = [(row.judge, row.rule) for row in self.rows if None not in (row.judge, row.rule)]
        found = Counter(pairs)
        return Faithful(
            figures=tuple(figures),
            not_asked={name: dict(sorted(why.items())) for name, why in sorted(self.not_asked.items())},
            without_verdict=dict(sorted(self.silent.items())),
            rule_against_judge=Both(
                both=found[True, True],
                judge_alone=found[True, False],
                rule_alone=found[False, True],
                neither=found[False, False],
            )
            if pairs
            else None,
        )

    def _lengths(self) -> Iterator[Measured]:
        """Of the completions that have the segment."""
        for key in dict.fromkeys(key for row in self.rows for key in row.lengths):
            yield from self._mean(key[0], partial(_length, key), segment=key[1])

    def _reasoning(self) -> Iterator[Measured]:
        """Mismatch by judge and rule; every share of the judge is of the same rows."""
        read = [row for row in self.rows if row.judge is not None]
        yield from self._mean("mismatch", lambda row: row.judge, read)
        yield from self._mean("settles_on_nothing", lambda row: row.option == NOTHING, read)
        yield from self._mean("mismatch_or_nothing", lambda row: row.judge or row.option == NOTHING, read)
        yield from self._mean("mismatch_rule", lambda row: row.rule)
        both = [row for row in read if row.rule is not None]
        yield from self._mean("rule_and_judge", lambda row: row.rule is row.judge, both)
        if both:
            pairs = [(bool(row.judge), bool(row.rule)) for row in both]
            found = kappa_of_clips(pairs, [row.clip or f"question {row.order}" for row in both])
            yield Measured(protocol="kappa", value=found.value, low=found.low, high=found.high, n=len(both))

    def _judged(self) -> Iterator[Measured]:
        """Of each judge the share that passes, and the score of the answers on either side."""
        for judge in self.plan.judges:
            if judge.decides not in _FIGURES:
                continue
            name, good, bad = _FIGURES[judge.decides]
            said = [row for row in self.rows if judge.name in row.verdicts]
            passes = {row: row.verdicts[judge.name][0] == _PASSES[judge.decides] for row in said}
            yield from self._mean(name, passes.__getitem__, said, judge=judge.name)
            if judge.decides == "sufficiency":
                every = [row for row in self.rows if row.answered and judge.name not in row.silent]
                yield from self._mean("sufficient_of_all", partial(_of, passes), every, judge=judge.name)
            if judge.decides == "faithfulness":
                share = partial(_score_of, judge.name)
                yield from self._mean("claims_supported", share, said, judge=judge.name)
            for side, told in ((True, good), (False, bad)):
                rows = [row for row in said if passes[row] is side]
                yield from self._mean(told, lambda row: row.score, rows, judge=judge.name)

    def _exam(self) -> Iterator[Measured]:
        """Each figure is of the questions that were asked in all of these ways: they can be compared."""
        shown = {way for row in self.rows for way in row.examined}
        ways = [way for way in self.plan.exam.shown if way in shown] if self.plan.exam is not None else []
        asked = [row for row in self.rows if all(row.examined.get(way) is not None for way in ways)]
        for way in ways:
            yield from self._mean(f"exam_{way}", partial(_examined, way), asked)
        for less, more in _GAINS:
            if less in ways and more in ways:
                yield from self._mean(f"exam_{more}-{less}", partial(_gain, less, more), asked)

    def _mean(
        self,
        name: str,
        take: Callable[[_Said], float | None],
        among: Iterable[_Said] | None = None,
        *,
        judge: str = "",
        segment: str = "",
    ) -> Iterator[Measured]:
        """The mean of what `take` gives, over the rows for which that is not None; intervals draw clips."""
        values = ((row, take(row)) for row in (self.rows if among is None else among))
        rows = [ScoredRow(float(v), {}, "", row.clip, row.order) for row, v in values if v is not None]
        found = aggregate(_MEAN, rows, level=self.plan.level, resamples=self.plan.resamples)
        if found is not None:
            of = {"by": "judge" if judge else "segment" if segment else "", "group": judge or segment}
            yield Measured(protocol=name, value=found.value, low=found.low, high=found.high, n=found.n, **of)


def _of(passes: dict[_Said, bool], row: _Said) -> bool:
    return passes.get(row, False)


def _score_of(judge: str, row: _Said) -> float | None:
    return row.verdicts[judge][1]


def _length(key: tuple[str, str], row: _Said) -> float | None:
    return row.lengths.get(key)


def _examined(way: str, row: _Said) -> float | None:
    return row.examined[way]


def _gain(less: str, more: str, row: _Said) -> float:
    return (row.examined[more] or 0.0) - (row.examined[less] or 0.0)


def _lengths(row: EvalRow) -> Iterator[tuple[tuple[str, str], int]]:
    names = [cell.name for cell in row.segments]
    for unit, counts in (("words", row.segment_words), ("tokens", row.segment_tokens)):
        found = Counter[str]()
        for name, count in zip(names, counts, strict=False):
            found[name] += count
        yield from (((unit, name), count) for name, count in found.items())


def titled(found: Faithful) -> list[tuple[str, Measured]]:
    """The figures with their names in tables; of several judges of one kind with that of the judge."""
    judges = Counter(one.protocol for one in found.figures)
    return [
        (
            TITLES[one.protocol]
            + (f", {one.group}" if judges[one.protocol] > 1 or one.by == "segment" else ""),
            one,
        )
        for one in found.figures
    ]


def counts(found: Faithful) -> Iterator[str]:
    """What stands behind the figures, a line each."""
    for name, why in found.not_asked.items():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in why.items())
        yield f"{name} was not asked about {sum(why.values()):,}: {reasons}"
    for name, count in found.without_verdict.items():
        yield f"{name} gave no verdict on {count:,}"
    if (both := found.rule_against_judge) is not None:
        yield (
            f"mismatch found by rule and judge: {both.both:,}, by the judge alone: {both.judge_alone:,}, "
            f"by the rule alone: {both.rule_alone:,}, by neither: {both.neither:,}"
        )


def filters(row: EvalRow) -> dict[str, str]:
    """What the page of a result can be filtered by: name -> value."""
    found: dict[str, str] = {}
    if row.think_option is not None:
        other = "think settles on another" if row.mismatch_judge else "they agree"
        found["think and answer"] = "think settles on nothing" if row.think_option == NOTHING else other
    for cell in row.judgements:
        if cell.decides != "conclusion":
            found[f"{cell.decides}: {cell.judge}"] = cell.verdict or "no verdict"
    for one in row.examined:
        found[f"exam, {one.shown}"] = "right" if one.reply.score == 1 else "wrong"
    return found
