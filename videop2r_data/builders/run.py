"""One pass over the pool: many questions at once, results in pool order, and the rows made of each result."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from videop2r_data.errors import P2RError, StoppedError
from videop2r_data.schemas import (
    ASK_AGAIN,
    NOT_SHOWN,
    PLAIN,
    WHOLE,
    BadRow,
    ClaimCell,
    Extra,
    Focus,
    Judgement,
    JudgementCell,
    MediaRecord,
    Outcome,
    ProcessTrace,
    RejectedRow,
    RejectReason,
    Sample,
    Score,
    Stage,
    Trace,
    arrow_schema,
    configs_of,
    default_grammar,
    rejected_row_of,
    render_trace,
    rl_row_of,
    sft_row_of,
)

if TYPE_CHECKING:
    from videop2r_data.builders.steps import Parts

# The result of one question, and the released rows (`rl`, `sft`, `rejected`) made of it.


MAX_DETAIL = 500


class Judged(NamedTuple):
    """What the judges of a list said of a question; a single `judge` leaves it empty.

    Attributes:
        judgements: of each judge that was asked, in order.
        claims: of the first judge that sees.
        blind: whether the question was answered from its text alone; None: not asked, or no verdict.
    """

    judgements: tuple[JudgementCell, ...] = ()
    claims: tuple[ClaimCell, ...] = ()
    blind: bool | None = None

    def cells(self) -> dict[str, object]:
        """The columns that a list of judges adds."""
        return {"judgements": list(self.judgements), "claims": list(self.claims), "blind": self.blind}


NOT_JUDGED = Judged()


@dataclass(frozen=True, slots=True)
class Result:
    """One question after the three steps.

    Attributes:
        outcome: None while an answer is outstanding (a batch that has not come back).
        reason: why it is not kept.
        attempt: the try that this result is about, from 0.
        completion: raw text of the generator.
        models: step -> model id as its server reported it, for the calls of this try.
        judged: what the judges of a list said.
    """

    sample: Sample
    outcome: Outcome | None
    stage: Stage | None = None
    reason: RejectReason | None = None
    detail: str = ""
    attempt: int = 0
    completion: str = ""
    trace: ProcessTrace | None = None
    score: Score | None = None
    judgement: Judgement | None = None
    media: MediaRecord | None = None
    generation_key: str = ""
    judge_key: str = ""
    models: dict[str, str] = field(default_factory=dict)
    judged: Judged = NOT_JUDGED


class Done(NamedTuple):
    """A question that needs no look, since it is known what became of it."""

    outcome: Outcome
    stage: Stage | None
    reason: RejectReason | None
    detail: str = ""


def _question(sample: Sample, extra: Extra) -> dict[str, Any]:
    return sample.content() | {"sample_id": sample.sample_id} | (_part(sample.focus) if extra.parts else {})


def _part(focus: Focus) -> dict[str, Any]:
    return {"start_s": focus.start_s, "end_s": focus.end_s}


def rl_row(sample: Sample, extra: Extra = PLAIN) -> dict[str, Any]:
    """The `rl` row of a question."""
    return rl_row_of(extra).model_validate(_question(sample, extra)).model_dump(mode="json")


def sft_row(result: Result, *, synthetic: bool, extra: Extra = PLAIN) -> dict[str, Any]:
    """The `sft` row of a kept result."""
    trace, media, score = result.trace, result.media, result.score
    assert trace is not None and score is not None and score.value is not None
    grammar = trace.grammar if isinstance(trace, Trace) else default_grammar()
    shown = media.shown if media else NOT_SHOWN
    model = sft_row_of(grammar, extra)
    row = model.model_validate(
        _question(result.sample, extra)
        | trace.columns()
        | (result.judged.cells() if extra.judged else {})
        | ({"clip_s": shown.seconds, "clip_frames": shown.frames} if extra.clips else {})
        | {
            "output": render_trace(trace),
            "reward": score.value,
            "attempt": result.attempt,
            "judgement": result.judgement.verdict or "" if result.judgement else "",
            "judge_explanation": result.judgement.explanation if result.judgement else "",
            "frame_indices": list(media.indices) if media else [],
            "frame_times_s": list(media.times_s) if media else [],
            "source_fps": media.source_fps if media else None,
            "times": (media.times or "") if media else "",
            "media_missing": media.missing if media else None,
            "media_sha256": media.file_sha256 if media else "",
            "generation_key": result.generation_key,
            "judge_key": result.judge_key,
            "synthetic": synthetic,
        }
    )
    return row.model_dump(mode="json")


def rejected_row(result: Result, *, synthetic: bool, extra: Extra = PLAIN) -> dict[str, Any]:
    """The `rejected` row of a result that is not kept."""
    assert result.outcome is not None and result.stage is not None and result.reason is not None
    row = rejected_row_of(extra).model_validate(
        _question(result.sample, extra)
        | (result.judged.cells() if extra.judged else {})
        | {
            "outcome": result.outcome,
            "stage": result.stage,
            "reason": result.reason.value,
            "detail": result.detail[:MAX_DETAIL],
            "output": result.completion,
            "reward": result.score.value if result.score else None,
            "attempt": result.attempt,
            "judge_explanation": result.judgement.explanation if result.judgement else "",
            "generation_key": result.generation_key,
            "judge_key": result.judge_key,
            "synthetic": synthetic,
        }
    )
    return row.model_dump(mode="json")


def bad_row(bad: BadRow, *, synthetic: bool, extra: Extra = PLAIN) -> dict[str, Any]:
    """The `rejected` row of a pool row that could not be read: what is not known of it is empty."""
    empty: dict[str, Any] = dict.fromkeys(RejectedRow.model_fields, "")
    row = rejected_row_of(extra).model_validate(
        empty
        | (NOT_JUDGED.cells() if extra.judged else {})
        | (_part(WHOLE) if extra.parts else {})
        | {
            "problem_id": bad.problem_id,
            "problem": bad.raw,
            "options": [],
            "sample_id": bad.sample_id,
            "outcome": Outcome.FAILED,
            "stage": Stage.POOL,
            "reason": bad.reason.value,
            "detail": bad.detail[:MAX_DETAIL],
            "reward": None,
            "attempt": 0,
            "synthetic": synthetic,
        }
    )
    return row.model_dump(mode="json")


# What questions come to in a data set: their rows, and what is counted of them.


class Portion(NamedTuple):
    """What some questions came to.

    Attributes:
        rows: config -> an Arrow table.
        counts: ("table", data type, problem type) -> accepted rows; ("served", step, model id as its server
            reported it) -> rows; ("took", step, "rows", "calls" or a field of `Usage`) -> what answers took,
            of one judge alone nothing.
    """

    rows: dict[str, Any]
    tally: Tally
    counts: Counter[tuple[str, str, str]]


class Replay:
    """Takes questions through the steps with no call, and makes their rows."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.extra = parts, parts.recipe.extra
        self._marks: dict[str, Any] = {"synthetic": parts.recipe.synthetic, "extra": self.extra}
        self._recorders = parts.record() if parts.recipe.judges else {}
        configs = configs_of(parts.recipe.trace, self.extra)
        self._schemas = {name: arrow_schema(row) for name, row in configs.items()}

    async def make(self, items: list[Sample | BadRow], room: float = math.inf) -> Portion:
        """The rows of these questions, until `room` of them are accepted."""
        import pyarrow as pa

        made = Portion({}, Tally(), Counter())
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self._schemas}
        for item in items:
            if made.tally.kept >= room:
                break
            if isinstance(item, BadRow):
                made.tally.add(item)
                rows["rejected"].append(bad_row(item, **self._marks))
                continue
            result = settled(await self.parts.steps.run(item))
            made.tally.add(result)
            made.counts.update(("served", *served) for served in result.models.items())
            for step, recorder in self._recorders.items():
                answers = [answer.completion for _, answer in recorder.calls if answer is not None]
                made.counts["took", step, "rows"] += bool(answers)
                made.counts["took", step, "calls"] += len(answers)
                for usage in (answer.usage.model_dump() for answer in answers if answer is not None):
                    made.counts.update({("took", step, field): count for field, count in usage.items()})
                recorder.calls.clear()
            if result.stage not in (Stage.POOL, Stage.MEDIA):
                rows["rl"].append(rl_row(item, self.extra))
            if result.outcome is Outcome.KEPT:
                rows["sft"].append(sft_row(result, **self._marks))
                made.counts["table", item.data_type.value, item.problem_type.value] += 1
            else:
                rows["rejected"].append(rejected_row(result, **self._marks))
        made.tally.first.clear()
        made.rows.update({n: pa.Table.from_pylist(rows[n], schema) for n, schema in self._schemas.items()})
        return made


def settled(result: Result) -> Result:
    """A result without outcome becomes a failure: the journal lacks its answer, the next run asks again."""
    if result.outcome is not None:
        return result
    return replace(
        result, outcome=Outcome.FAILED, reason=RejectReason.CALL_FAILED, detail="no answer in the journal"
    )


# The pass: a window of questions is under way at once, results come in pool order, a stop drains the window.


Run = Callable[[Sample], Awaitable[Result]]
_BREATHE = 64
RAMP_S = 0.5
"""Seconds over which the questions under way grow to their full number."""
_TOGETHER = 4


class Stop:
    """A request to stop early, by Ctrl-C or an error: no new question begins, and waits end."""

    def __init__(self) -> None:
        self.asked = False
        self.why: P2RError | None = None
        """The error that ended the pass, if one did."""
        self._listeners: list[Callable[[], None]] = []

    def ask(self, why: P2RError | None = None) -> None:
        """Begin no new question; calls in flight are finished."""
        self.asked = True
        self.why = self.why or why
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the stop is asked for (at once, if it was)."""
        self._listeners.append(listener)
        if self.asked:
            listener()


@dataclass(slots=True)
class Tally:
    """What a pass has seen so far."""

    rows: int = 0
    kept: int = 0
    rejected: int = 0
    failed: int = 0
    waiting: int = 0
    """Questions whose answer is in a batch."""
    unanswered: int = 0
    """Questions that failed without an answer; another run asks them again."""
    last_error: str = ""
    """Error message of the last unanswered question."""
    reached: bool = False
    """The target is met by rows before the first question that waits."""
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> error message of the first question that failed for this reason."""
    first: list[Result] = field(default_factory=list)
    """The first 50 that are kept, and the first 50 that are rejected."""

    def merge(self, other: Tally) -> None:
        """Add what was seen of questions that come after these, but no `first`."""
        for name in ("rows", "kept", "rejected", "failed", "waiting", "unanswered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_error = other.last_error or self.last_error
        self.reasons.update(other.reasons)
        self.examples = other.examples | self.examples

    def add(self, item: Result | BadRow | Done) -> None:
        """Count one question."""
        self.rows += 1
        if isinstance(item, BadRow):
            self.failed += 1
            self.reasons[f"pool/{item.reason.value}"] += 1
            return
        if item.outcome is Outcome.KEPT:
            self.kept += 1
        elif item.outcome is Outcome.REJECTED:
            self.rejected += 1
        elif item.outcome is Outcome.FAILED:
            self.failed += 1
            if item.reason is not None and item.detail:
                self.examples.setdefault(item.reason.value, item.detail)
            if item.reason in ASK_AGAIN:
                self.unanswered += 1
                self.last_error = item.detail
        else:
            self.waiting += 1
        if isinstance(item, Result) and item.outcome in {Outcome.KEPT, Outcome.REJECTED}:
            self.first += [item] if [one.outcome for one in self.first].count(item.outcome) < 50 else []
        if item.stage is not None and item.reason is not None:
            self.reasons[f"{item.stage.value}/{item.reason.value}"] += 1


async def run_pass(
    run: Run,
    pool: Iterable[Sample | BadRow | Done],
    *,
    window: int,
    stop: Stop,
    target: int | None = None,
    on_result: Callable[[Tally], None],
) -> Tally:
    """Take every question of the pool through the steps.

    Args:
        pool: questions in pool order; read as they are needed. Those that need no look are counted.
        window: questions under way at once.
        stop: ends the pass early; those under way are finished first.
        target: end once so many are kept; questions whose answer is in a batch count as if they were, since
            the next pass goes on behind them if they are not.

    Returns:
        What was seen. `stop.why` holds the error if one ended the pass.
    """
    tally = Tally()
    outcomes: dict[int, Outcome | None] = {}
    rows = _until_it_breaks_off(pool, stop)

    def next_row() -> tuple[int, Sample | BadRow | Done] | None:
        # every row that waits may be kept: with these the target would be met
        met = target is not None and tally.kept + tally.waiting >= target
        return None if stop.asked or met else next(rows, None)

    async def worker() -> None:
        """Take one row after the other until there is none."""
        for place, item in iter(next_row, None):
            try:
                made = await run(item) if isinstance(item, Sample) else item
            except StoppedError:
                return  # stopped while it waited: its call was not made
            except P2RError as error:
                return stop.ask(error)
            tally.add(made)
            if target is not None and not isinstance(made, BadRow):
                outcomes[place] = made.outcome
            on_result(tally)
            if tally.rows % _BREATHE == 0:
                # answers from the journal never suspend this task: signals and the display need a turn
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        running = set()
        for started in range(window):
            task = group.create_task(worker())
            running.add(task)
            task.add_done_callback(running.discard)
            if started % _TOGETHER == _TOGETHER - 1:
                # questions begun all at once would come back in waves, between which the server is idle
                # while frames are decoded, and the decoders are idle while it answers
                await asyncio.sleep(RAMP_S * _TOGETHER / window)
            if not running:
                break  # the pool was shorter than the window
    tally.reached = target is not None and _sure(outcomes) >= target
    return tally


def _until_it_breaks_off(
    pool: Iterable[Sample | BadRow | Done], stop: Stop
) -> Iterator[tuple[int, Sample | BadRow | Done]]:
    try:
        yield from enumerate(pool)
    except P2RError as error:
        stop.ask(error)


def _sure(outcomes: Mapping[int, Outcome | None]) -> int:
    """Kept rows before the first row that waits: no later answer can change which rows these are."""
    first = min((place for place, outcome in outcomes.items() if outcome is None), default=math.inf)
    return sum(outcome is Outcome.KEPT and place < first for place, outcome in outcomes.items())
