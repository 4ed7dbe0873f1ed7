"""Do the parts of a trace belong together: what of it the judges are asked, and what their verdicts come to.

Everything here is read from the rows of a result, so that it can be counted again without a call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
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
    Part,
    ProcessTrace,
    Sample,
    Trace,
    TraceGrammar,
)
from videop2r_data.validators import (
    NOTHING,
    ScoredRow,
    aggregate,
    kappa_of_clips,
    thinks_otherwise,
)

TITLES = {
    "well_formed": "form that was asked for",
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
_MEAN = Aggregate(id="mean")
_FIGURES = {
    "sufficiency": ("sufficient", "Yes", "accuracy_if_sufficient", "accuracy_if_not"),
    "faithfulness": ("true", "faithful", "accuracy_if_true", "accuracy_if_invented"),
}
"""What a judge decides -> its figure, the verdict that passes, the figures of the answers on either side."""


# What is asked, and what is noted of it in a row.


def lacks(judge: NamedJudge, trace: ProcessTrace) -> str:
    """Why a judge cannot be asked about a trace, whole or not: what it lacks; empty: nothing."""
    if not read_by(judge, trace).strip():
        usual = "reasoning" if judge.decides == "conclusion" else "observation"
        return f"no {' or '.join(judge.reads) or usual}"
    return "no answer" if judge.decides == "conclusion" and not trace.answer.strip() else ""


def with_answer(trace: Trace, answer: str | None) -> Trace:
    """The trace with the answer that was read, where its own answer segment is missing."""
    return trace if trace.answer.strip() or not answer else trace.model_copy(update={"answer": answer})


def trace_of(row: EvalRow, grammar: TraceGrammar) -> Trace:
    """What there is of a trace in a row."""
    return Trace.made_of(grammar, [Part(cell.name, cell.text) for cell in row.segments])


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


@dataclass
class Belonging:
    """Whether the parts of a benchmark's traces belong together, taken in row by row."""

    plan: EvalPlan
    rows: int = 0
    said: dict[tuple[str, str], list[ScoredRow]] = field(default_factory=lambda: defaultdict(list))
    """Figure, and judge or segment -> its value in each row that has one."""
    mismatch: list[tuple[bool, bool]] = field(default_factory=list)
    """By the judge, by the rule: of the rows of which both decide, and their clips."""
    clips: list[str] = field(default_factory=list)
    examined: list[tuple[str, int, dict[str, float | None]]] = field(default_factory=list)
    """Clip and number of a row, and its scores by what was shown."""
    not_asked: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    silent: Counter[str] = field(default_factory=Counter)

    def add(self, row: EvalRow) -> None:
        """Take in one question."""
        judge, rule = row.mismatch_judge, row.mismatch_rule
        if judge is not None and rule is not None:
            self.mismatch.append((judge, rule))
            self.clips.append(row.path or f"question {self.rows}")
        if self.plan.exam is not None and (why := _why_no_exam(row, self.plan.exam.shown)):
            self.not_asked["exam"][why] += 1
        self.examined.append((row.path, self.rows, {one.shown: one.reply.score for one in row.examined}))
        for figure, of, value in (*_lengths(row), *_reasoning(row), *self._judged(row)):
            self.said[figure, of].append(_scored(value, row.path, self.rows))
        self.rows += 1

    def _judged(self, row: EvalRow) -> Iterator[tuple[str, str, float]]:
        """Of each judge whether the row passes, and the score of its answer on that side."""
        cells = {cell.judge: cell for cell in row.judgements}
        for judge in self.plan.judges if not row.reply.failed else ():
            name, cell = judge.name, cells.get(judge.name)
            if cell is None:
                self.not_asked[name][_why_not(row, judge, self.plan)] += 1
            elif not cell.verdict:
                self.silent[name] += 1
                continue
            if judge.decides not in _FIGURES:
                continue
            figure, passing, good, bad = _FIGURES[judge.decides]
            passes = cell is not None and cell.verdict == passing
            if judge.decides == "sufficiency":
                yield "sufficient_of_all", name, passes
            if cell is None:
                continue
            yield figure, name, passes
            if row.reply.score is not None:
                yield good if passes else bad, name, row.reply.score
            if judge.decides == "faithfulness" and cell.score is not None:
                yield "claims_supported", name, cell.score

    def result(self) -> Faithful | None:
        """All figures; None: the answers have no segments, and nothing was asked of anybody."""
        said = self.said | self._exam()
        figures = [self._mean(figure, of, rows) for (figure, of), rows in said.items()]
        found, both = Counter(self.mismatch), None
        if found:
            kappa, n = kappa_of_clips(self.mismatch, self.clips), len(self.mismatch)
            figures.append(Measured(protocol="kappa", value=kappa.value, low=kappa.low, high=kappa.high, n=n))
            both = Both(
                both=found[True, True],
                judge_alone=found[True, False],
                rule_alone=found[False, True],
                neither=found[False, False],
            )
        if not figures:
            return None
        place = {name: n for n, name in enumerate((*TITLES, *(judge.name for judge in self.plan.judges)))}
        figures.sort(key=lambda one: (place[one.protocol], place.get(one.group, 0)))
        return Faithful(
            figures=tuple(figures),
            not_asked={name: dict(sorted(why.items())) for name, why in sorted(self.not_asked.items())},
            without_verdict=dict(sorted(self.silent.items())),
            rule_against_judge=both,
        )

    def _exam(self) -> dict[tuple[str, str], list[ScoredRow]]:
        """Each figure is of the questions that were asked in all of these ways: they can be compared."""
        ways = {way for _, _, scores in self.examined for way in scores}
        found: dict[tuple[str, str], list[ScoredRow]] = defaultdict(list)
        for clip, order, scores in self.examined:
            worth = {way: score for way, score in scores.items() if score is not None}
            if worth.keys() != ways:
                continue
            for way, score in worth.items():
                found[f"exam_{way}", ""].append(_scored(score, clip, order))
            for more, less in permutations(worth, 2):
                if (figure := f"exam_{more}-{less}") in TITLES:
                    found[figure, ""].append(_scored(worth[more] - worth[less], clip, order))
        return found

    def _mean(self, figure: str, of: str, rows: list[ScoredRow]) -> Measured:
        """Of the rows that have a value; intervals draw clips."""
        mean = aggregate(_MEAN, rows, level=self.plan.level, resamples=self.plan.resamples)
        assert mean is not None
        by = "segment" if figure in ("words", "tokens") else "judge" if of else ""
        low, high = mean.low, mean.high
        return Measured(protocol=figure, by=by, group=of, value=mean.value, low=low, high=high, n=mean.n)


def _scored(value: float, clip: str, order: int) -> ScoredRow:
    return ScoredRow(float(value), {}, "", clip, order)


def _lengths(row: EvalRow) -> Iterator[tuple[str, str, float]]:
    """Of the segments that the completion has, all rounds together."""
    names = [cell.name for cell in row.segments]
    for unit, counts in (("words", row.segment_words), ("tokens", row.segment_tokens)):
        found = Counter[str]()
        for name, count in zip(names, counts, strict=False):
            found[name] += count
        yield from ((unit, name, count) for name, count in found.items())


def _reasoning(row: EvalRow) -> Iterator[tuple[str, str, float]]:
    """Mismatch by judge and rule; every share of the judge is of the same rows."""
    judge, rule, nothing = row.mismatch_judge, row.mismatch_rule, row.think_option == NOTHING
    if judge is not None:
        yield "mismatch", "", judge
        yield "settles_on_nothing", "", nothing
        yield "mismatch_or_nothing", "", judge or nothing
    if rule is not None:
        yield "mismatch_rule", "", rule
    if judge is not None and rule is not None:
        yield "rule_and_judge", "", judge is rule


def _why_not(row: EvalRow, judge: NamedJudge, plan: EvalPlan) -> str:
    """Why a judge was not asked about a row."""
    if why := lacks(judge, with_answer(trace_of(row, plan.trace), row.reply.answer)):
        return why
    if judge.decides == "conclusion":
        return f"{row.problem_type}: answers cannot be compared"
    return "no media" if row.data_type == "text" else "media cannot be read"


def _why_no_exam(row: EvalRow, ways: Sequence[str]) -> str:
    """Why a question was not asked in every way; empty: it was."""
    if not row.examined:
        return "no media" if row.data_type == "text" else "the row cannot be read"
    return "" if {one.shown for one in row.examined} >= set(ways) else "no observation"


# What of it people are shown.


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
