"""Results of evaluations against each other: what else is not the same, and which differences are real."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from videop2r_data.benchmarks import load_benchmark
from videop2r_data.builders import Workspace
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.faithful import Belonging
from videop2r_data.evaluation.figures import counted_by, scored_row
from videop2r_data.evaluation.page import read_rows
from videop2r_data.evaluation.pools import OWN
from videop2r_data.evaluation.result import plan_in, read_result
from videop2r_data.prompts import GENERATE_ANY
from videop2r_data.schemas import Aggregate, EvalPlan, EvalPool, EvalRow, Model
from videop2r_data.validators import Difference, ScoredRow, compare_pair, holm

RIGHT = 0.5
"""Score from which a graded answer counts as right in flips."""
_APART = frozenset({
    "plan", "name", "backend", "benchmarks", "judges", "max_missing", "probe", "level", "resamples",
    "max_cost", "question_only", "question_only_prompt", "seed", "exam", "tokenizer",
})  # fmt: skip
"""Settings of a plan that are the subject of a comparison, or change no score of the model with its media."""
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
"""Of a sha256 its beginning is told: enough to see that two differ."""
_QUESTION = attrgetter(
    "problem", "problem_type", "data_type", "options", "reference", "path", "start_s", "end_s", "tags"
)
"""What makes two rows the same question, of the same task."""
_BY_CONCLUSION = ("mismatch", "settles_on_nothing", "mismatch_or_nothing")
_PARTS = frozenset({
    *_BY_CONCLUSION, "words", "tokens", "well_formed", "mismatch_rule",
    "sufficient", "sufficient_of_all", "true", "claims_supported",
})  # fmt: skip
"""Figures of the traces that are compared: each question has its own value, whatever the others have."""
Kind = Literal["rows", "asked", "scored"]


class Setting(Model):
    """Something beside the model that is not the same in two results."""

    kind: Kind
    """`rows`: other questions; `asked`: frames, prompt, sampling; `scored`: how answers are graded."""
    benchmark: str = ""
    """Empty: of all of them."""
    name: str
    first: str
    second: str


class Flip(Model):
    """A question that one model got right and the other wrong."""

    benchmark: str
    sample_id: str
    problem: str
    reference: str
    first: str | None
    """Answer of the first model."""
    second: str | None
    gained: bool
    """Wrong in the first, right in the second."""


class Compared(Model):
    """One protocol of one benchmark, or one figure of its traces: a result against the first."""

    benchmark: str
    headline: bool
    """The benchmark's first protocol: the headlines of all benchmarks are judged as one family."""
    scale: float
    """What 1 is printed as."""
    part: bool = False
    """Of the parts of the traces, not of the answers: these are judged as a family of their own."""
    of: str = ""
    """Of a part: judge or segment."""
    found: Difference


class Comparison(Model):
    """One result against the first."""

    first: str
    second: str
    settings: tuple[Setting, ...]
    figures: tuple[Compared, ...]
    flips: tuple[Flip, ...]
    left_out: dict[str, int]
    """Benchmark -> questions that only one of them has."""


class Loaded:
    """A result on disk.

    Attributes:
        name: for people.
        folder: where it lies.
        result: its figures.
        benchmarks: the same, by name.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder = folder
        self.result = read_result(folder)
        self.name = name or self.result.name
        self.benchmarks = {one.name: one for one in self.result.benchmarks}

    @cached_property
    def plan(self) -> EvalPlan:
        """What was asked of whom."""
        return plan_in(self.result, {})

    @cached_property
    def place(self) -> Workspace | None:
        """Where the evaluation was made, as far as the work folder beside the result tells."""
        try:
            return Workspace.of(self.folder)
        except ConfigError:
            return None

    def pool(self, benchmark: str) -> EvalPool:
        """A benchmark in the plan."""
        return next(pool for pool in self.plan.benchmarks if pool.name == benchmark)

    def rows(self, benchmark: str) -> dict[str, EvalRow]:
        """sample_id -> question, in order."""
        one = self.result.model_copy(update={"benchmarks": (self.benchmarks[benchmark],)})
        return {row.sample_id: row for row in read_rows(self.folder, one)}

    def aggregates(self, benchmark: str) -> list[Aggregate]:
        """The protocols that it has figures of, the headline first."""
        pool, base = self.pool(benchmark), self.place.base if self.place else self.folder
        own = load_benchmark(pool.benchmark or OWN, base=base).aggregates
        known = {how.id: how for how in (*own, *pool.aggregates)}
        figures = self.benchmarks[benchmark].figures
        return [known[f.protocol] for f in figures if not f.by and f.protocol in known]


def load_results(named: Sequence[tuple[str, Path]]) -> list[Loaded]:
    """Results with names of their own: as given, else of the evaluation, else of the folder.

    Args:
        named: (name or empty, folder), at least two.

    Raises:
        ConfigError: a folder holds no result, or there is one alone.
    """
    if len(named) < 2:
        raise ConfigError("one result alone", hint="name two or more: p2r-train compare BASE OTHER")
    loaded = [Loaded(folder, name) for name, folder in named]
    shared = Counter(one.name for one in loaded)
    for (given, _), one in zip(named, loaded, strict=True):
        if not given and shared[one.name] > 1:
            one.name = one.folder.resolve().name
    for at, one in enumerate(loaded):
        if one.name in {other.name for other in loaded[:at]}:
            one.name = f"{one.name} ({at + 1})"
    return loaded


def compare_results(results: Sequence[Loaded], *, common: bool = False) -> list[Comparison]:
    """Hold every result against the first.

    Args:
        results: two or more.
        common: compare the questions that both have, where one has others too.

    Raises:
        ConfigError: no benchmark is in both, one has other questions than the other, or none is in both.
        SourceError: rows that cannot be read.
    """
    first, *others = results
    return [_compare(first, other, common=common) for other in others]


def _compare(first: Loaded, second: Loaded, *, common: bool) -> Comparison:
    shared = [name for name in first.benchmarks if name in second.benchmarks]
    if not shared:
        named = ", ".join(first.benchmarks), ", ".join(second.benchmarks)
        raise ConfigError(
            f"no benchmark is in both: {named[0]}; {named[1]}", where=f"{first.name}, {second.name}"
        )
    figures: list[Compared] = []
    flips: list[Flip] = []
    left_out: dict[str, int] = {}
    for name in shared:
        pairs, others = _pairs(first.rows(name), second.rows(name))
        if others and not (common and pairs):
            few = f"evaluate both on the same rows, or compare the {len(pairs):,} of both: --common"
            raise ConfigError(
                f"{others:,} questions of {name} are in one of them alone, or are not the same in both",
                where=f"{first.folder}, {second.folder}",
                hint=few if pairs else "no question is in both: evaluate both on the same rows",
            )
        if others:
            left_out[name] = others
        whole = not (others or first.benchmarks[name].selection)
        figures += _figures(name, first.aggregates(name), pairs, whole=whole)
        figures += _parts(name, (first.plan, second.plan), pairs)
        flips += _flips(name, pairs)
    return Comparison(
        first=first.name, second=second.name, settings=tuple(differing(first, second, shared)),
        figures=tuple(_together(figures)), flips=tuple(flips), left_out=left_out,
    )  # fmt: skip


def _pairs(
    first: Mapping[str, EvalRow], second: Mapping[str, EvalRow]
) -> tuple[list[tuple[EvalRow, EvalRow]], int]:
    """Questions that both have, in the order of the first, and how many only one has."""
    both = ((row, second[name]) for name, row in first.items() if name in second)
    pairs = [(a, b) for a, b in both if _QUESTION(a) == _QUESTION(b)]
    return pairs, len(first) + len(second) - 2 * len(pairs)


def _figures(
    benchmark: str, aggregates: Sequence[Aggregate], pairs: Sequence[tuple[EvalRow, EvalRow]], *, whole: bool
) -> Iterator[Compared]:
    scored = [(scored_row(a, a.reply, at), scored_row(b, b.reply, at)) for at, (a, b) in enumerate(pairs)]
    both = [(a, b) for a, b in scored if a is not None and b is not None]
    for at, how in enumerate(aggregates if both else ()):
        found = compare_pair(how, *(counted_by(how, rows, whole=whole) for rows in zip(*both, strict=True)))
        if found is not None:
            yield Compared(benchmark=benchmark, headline=at == 0, scale=how.scale, found=found)


def _parts(
    benchmark: str, plans: tuple[EvalPlan, EvalPlan], pairs: Sequence[tuple[EvalRow, EvalRow]]
) -> Iterator[Compared]:
    """What the traces of both come to, by the rules and by judges that are the same in both."""
    judges = [judge for judge in plans[0].judges if judge in plans[1].judges]
    concluding = [[one for one in plan.judges if one.decides == "conclusion"][:1] for plan in plans]
    left_out = () if concluding[0] == concluding[1] else _BY_CONCLUSION
    first, second = (
        _said([pair[side] for pair in pairs], plan.model_copy(update={"judges": tuple(judges)}))
        for side, plan in enumerate(plans)
    )
    for name, of in first:
        both = first[name, of].keys() & second.get((name, of), {}).keys()
        if name not in _PARTS or name in left_out or not both:
            continue
        found = compare_pair(
            Aggregate(id=name), *([side[name, of][at] for at in sorted(both)] for side in (first, second))
        )
        if found is not None:
            yield Compared(benchmark=benchmark, headline=False, scale=1.0, part=True, of=of, found=found)


def _said(rows: Sequence[EvalRow], plan: EvalPlan) -> dict[tuple[str, str], dict[int, ScoredRow]]:
    """Figure, and judge or segment -> number of a row -> its value."""
    belonging = Belonging(plan)
    for row in rows:
        belonging.add(row)
    said = {key: {one.order: one for one in values} for key, values in belonging.said.items()}
    formed = {
        at: ScoredRow(float(row.well_formed), {}, "", row.path, at)
        for at, row in enumerate(rows)
        if row.well_formed is not None
    }
    return {("well_formed", ""): formed} | said


def _together(figures: Sequence[Compared]) -> Iterator[Compared]:
    """The headlines judged as one family, the parts of the traces as another; the rest stands alone."""
    headlines = iter(holm([one.found.p for one in figures if one.headline]))
    parts = iter(holm([one.found.p for one in figures if one.part]))
    for one in figures:
        p = next(headlines) if one.headline else next(parts) if one.part else one.found.p
        yield one.model_copy(update={"found": one.found.model_copy(update={"p_holm": p})})


def _flips(benchmark: str, pairs: Sequence[tuple[EvalRow, EvalRow]]) -> Iterator[Flip]:
    for a, b in pairs:
        if a.reply.score is None or b.reply.score is None:
            continue
        was, now = a.reply.score >= RIGHT, b.reply.score >= RIGHT
        if was is not now:
            yield Flip(
                benchmark=benchmark, sample_id=a.sample_id, problem=a.problem, reference=a.reference,
                first=a.reply.answer, second=b.reply.answer, gained=now,
            )  # fmt: skip


# What else is not the same.


def differing(first: Loaded, second: Loaded, benchmarks: Sequence[str]) -> Iterator[Setting]:
    """Everything beside the model that can move a number and is not the same in both."""
    one, two = _settings(first, benchmarks), _settings(second, benchmarks)
    for key in dict.fromkeys([*one, *two]):
        if one.get(key) != two.get(key):
            kind, benchmark, name = key
            told = ("(none)" if value in (None, "") else str(value) for value in (one.get(key), two.get(key)))
            a, b = (_DIGEST.sub(r"\1", text) for text in told)
            yield Setting(kind=kind, benchmark=benchmark, name=name, first=a, second=b)


def _settings(one: Loaded, benchmarks: Sequence[str]) -> dict[tuple[Kind, str, str], Any]:
    """(kind, benchmark, name) -> what was asked and how, without the model."""
    found: dict[tuple[Kind, str, str], Any] = {}
    for name in benchmarks:
        of = one.benchmarks[name]
        for field in ("pool_sha256", "selection", "revision", "layout"):
            found["rows", name, field] = getattr(of, field)
        found["asked", name, "hint"] = one.pool(name).hint
        for field in ("frames", "pixels"):
            sent = getattr(of.sent, field)
            found["asked", name, f"{field} sent, mean"] = sent and round(sent.mean, 1)
    plan = {name: value for name, value in one.result.plan.items() if name not in _APART}
    backend = one.result.plan.get("backend", {})
    # of the backend what may change the answers of one model
    plan["backend"] = {name: value for name, value in backend.items() if name in ("kind", "extra")}
    for name, value in _flat(plan):
        found["scored" if name.startswith("scoring") else "asked", "", name] = value
    for name in (one.plan.prompt_name, GENERATE_ANY):  # prompts of judges change no score
        if name in one.result.prompts:
            found["asked", "", "prompt text"] = one.result.prompts[name]
    return found | {("scored", "", f"version of {name}"): v for name, v in one.result.versions.items()}


def _flat(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value
