"""What a build will cost before it starts: from the pool alone, or from a pilot of really built rows."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext

from pydantic import Field

from videop2r_data.backends import Journal, cost_usd
from videop2r_data.builders.judging import Recorder, prompts_of
from videop2r_data.builders.news import Observer
from videop2r_data.builders.pipeline import told
from videop2r_data.builders.run import Result, Stop, run_pass
from videop2r_data.builders.steps import Parts
from videop2r_data.builders.workspace import Workspace, take_lease_now
from videop2r_data.errors import BackendError
from videop2r_data.schemas import (
    BackendSpec,
    DataType,
    Model,
    NamedJudge,
    Outcome,
    Recipe,
    RejectReason,
    Sample,
    Stage,
    Usage,
    digest,
)
from videop2r_data.validators import wilson

# The pilot: rows that are really built, calls and all, before the rest is paid.


TRACES = 3
MAX_CHARS = 4000


class PilotTrace(Model):
    """One question of the pilot with its answer."""

    sample_id: str
    outcome: str
    """`kept`, `rejected` or `failed`."""
    reason: str
    """`stage/reason`; empty for a kept row."""
    detail: str
    problem: str
    reference: str
    output: str
    """What the generator wrote, its first `MAX_CHARS` characters."""
    judge: str
    """The judge's explanation; empty if it was not asked."""


class Pilot(Model):
    """What a pilot showed."""

    rows: int = Field(ge=0)
    """Rows that were asked about."""
    kept: int = Field(ge=0)
    rejected: int = Field(ge=0)
    failed: int = Field(ge=0)
    unanswered: int = Field(ge=0)
    """Of the failed ones: those that got no answer from a server; a build asks them again."""
    kept_share: float = Field(ge=0, le=1)
    """Of the rows that got their answers."""
    kept_low: float = Field(ge=0, le=1)
    kept_high: float = Field(ge=0, le=1)
    """95 % interval of `kept_share` (Wilson)."""
    reasons: dict[str, int]
    """`stage/reason` -> rows that are not kept, most frequent first."""
    usd: float = Field(ge=0)
    """What it cost; its calls are in the journal and are not paid again."""
    traces: list[PilotTrace]
    """A kept row, one that step 2 dropped and one that step 3 dropped, as far as there are such."""


def pilot_of(seen: list[Result], *, usd: float) -> Pilot:
    """Sum up the results of a pilot, in pool order, which cost so many US dollars.

    Raises:
        BackendError: not one of its rows got an answer.
    """
    outcomes = Counter(result.outcome for result in seen)
    lost = [r for r in seen if r.outcome is Outcome.FAILED and r.reason in _NO_ANSWER]
    unanswered = sum(r.reason is RejectReason.CALL_FAILED for r in lost)
    if lost and not any(result.models for result in seen):
        raise BackendError(
            f"no row of the pilot got an answer ({len(lost)} of {len(seen)} asked); the last error: "
            f"{lost[-1].detail or lost[-1].reason}",
            hint="p2r-data doctor asks the servers one question each and says what to change",
        )
    reasons = Counter(f"{r.stage.value}/{r.reason.value}" for r in seen if r.stage and r.reason)
    kept = outcomes[Outcome.KEPT]
    share = wilson(kept, len(seen) - unanswered)
    return Pilot(
        rows=len(seen),
        kept=kept,
        rejected=outcomes[Outcome.REJECTED],
        failed=outcomes[Outcome.FAILED],
        unanswered=unanswered,
        kept_share=share.value or 0.0,
        kept_low=share.low or 0.0,
        kept_high=1.0 if share.high is None else share.high,
        reasons=dict(reasons.most_common()),
        usd=usd,
        traces=[_trace(result) for result in _telling(seen)],
    )


_NO_ANSWER = (RejectReason.CALL_FAILED, RejectReason.CALL_REFUSED)


def _telling(seen: list[Result]) -> list[Result]:
    """A kept row, a row dropped by step 2 and one by step 3; else rows that have a completion."""
    texts = [result for result in seen if result.completion]
    kept = [result for result in texts if result.outcome is Outcome.KEPT]
    verify = [result for result in texts if result.stage is Stage.VERIFY]
    judge = [result for result in texts if result.stage is Stage.JUDGE]
    first = [*kept[:1], *verify[:1], *judge[:1]]
    return [*first, *(result for result in texts if result not in first)][:TRACES]


def _trace(result: Result) -> PilotTrace:
    return PilotTrace(
        sample_id=result.sample.sample_id,
        outcome=result.outcome.value if result.outcome else "",
        reason=f"{result.stage.value}/{result.reason.value}" if result.stage and result.reason else "",
        detail=result.detail,
        problem=result.sample.problem,
        reference=result.sample.reference,
        output=result.completion[:MAX_CHARS],
        judge=result.judgement.explanation if result.judgement else "",
    )


# The estimate: tokens per step times rows, from text lengths and image sizes or from the pilot's calls.


_BREATHE = 1024
CHARS_PER_TOKEN = 4.0
PIXELS_PER_TOKEN = 28 * 28
FRAMES_PER_TOKEN = 2
"""Qwen2.5-VL merges two frames of a video into one row of tokens."""
GUESSED_TRACE_TOKENS = 420
GUESSED_VERDICT_TOKENS = 120
GUESSED_BLIND_TOKENS = 15
GUESSED_UNSURE = 0.15
"""Share of the rows that a cascade passes on; a pilot measures it."""
PAPER_KEPT = 162_062 / 260_000
GUESSED_VERIFIED = math.sqrt(PAPER_KEPT)
"""The paper gives only the product of the two steps' pass rates; this splits it evenly."""


class StepEstimate(Model):
    """One step of the build."""

    step: str
    model: str
    calls: int
    calls_low: int
    calls_high: int
    """95 % interval from the pilot; equal to `calls` without one."""
    input_tokens: int
    output_tokens: int
    usd: float
    usd_low: float
    usd_high: float
    priced: bool
    """False: the recipe gives no price (your own server)."""


class Estimate(Model):
    """A build, priced."""

    ok: bool
    """The estimate expects kept rows."""
    rows: int
    bad_rows: int
    pilot_rows: int
    """Pilot rows; 0: token counts are guessed from text lengths and the pixel budget."""
    pilot_kept: int
    pilot_usd: float
    """What the pilot itself cost; its calls are in the journal and are not paid again."""
    pilot: Pilot | None
    """The pilot in full."""
    kept: int
    """Rows that a build would keep."""
    steps: list[StepEstimate]
    usd: float
    usd_low: float
    usd_high: float
    notes: list[str]
    stopped: bool = False
    """Ctrl-C or SIGTERM came before the end: these are the rows seen so far."""


async def estimate(
    recipe: Recipe, place: Workspace, *, pilot: int, observer: Observer, stop: Stop | None = None
) -> Estimate:
    """Price a build.

    Args:
        place: its folders; the pilot's calls go to its journal.
        pilot: rows to really build first; 0: none.
        stop: ask it to stop early.

    Raises:
        BackendError: no row of the pilot got an answer. BusyError: a pilot beside another process in the
            same work folder. P2RError: as `build` does.
    """
    stop = stop or Stop()
    # the pilot's calls are those of a build; without one nothing is written
    lease = take_lease_now(place.work, "estimate --pilot") if pilot else nullcontext()
    with lease, Journal(place.journal, readonly=not pilot) as journal:
        parts = Parts(
            _impatient(recipe),
            place,
            journal,
            live=pilot > 0,
            batches=False,
            stop=stop,
            forgive=True,  # refusals of earlier runs are asked again: the pilot measures the servers of today
            tell=observer.wait,
        )
        try:
            observer.begin("reading the pool", None)
            pool = _Pool(pilot)
            await pool.read(parts.asked(), stop)
            async with told(parts, observer):
                found = (
                    await _from_pilot(parts, pool, observer, stop) if pilot else _from_lengths(parts, pool)
                )
        finally:
            await parts.close()
    if stop.asked:
        found = found.model_copy(
            update={"stopped": True, "notes": ["stopped early: these are the rows seen so far", *found.notes]}
        )
    return found


def _impatient(recipe: Recipe) -> Recipe:
    """The recipe with `server_wait_s` 0: a person waits for the pilot's result."""
    return recipe.with_backends(lambda spec: spec.model_copy(update={"server_wait_s": 0.0}))


class _Pool:
    """Counts the pool and draws the pilot: the rows with the smallest digests of their ids."""

    def __init__(self, pilot: int) -> None:
        self.pilot = pilot
        self.rows = self.bad = 0
        self.text_chars = 0
        self.media = dict.fromkeys(DataType, 0)
        self._drawn: list[tuple[int, int, Sample]] = []

    async def read(self, rows: Iterable[object], stop: Stop) -> None:
        """Read the whole pool, or until Ctrl-C."""
        for item in rows:
            self.see(item)
            if self.rows % _BREATHE == 0:
                await asyncio.sleep(0)
                if stop.asked:
                    return

    def see(self, item: object) -> None:
        """Count a row of the pool; a pilot may draw it."""
        self.rows += 1
        if not isinstance(item, Sample):
            self.bad += 1
            return
        self.text_chars += len(item.problem) + sum(map(len, item.options)) + len(item.reference)
        self.media[item.data_type] += 1
        if self.pilot:
            rank = -int(digest(["pilot", item.sample_id])[:15], 16)
            heapq.heappush(self._drawn, (rank, self.rows, item))
            if len(self._drawn) > self.pilot:
                heapq.heappop(self._drawn)

    @property
    def good(self) -> int:
        """Rows that can be read."""
        return self.rows - self.bad

    def needed(self, target: int | None, kept: float) -> int:
        """Rows that a build asks about to keep `target` of them, at a kept share of `kept`."""
        if target is None or kept <= 0:
            return self.good
        return min(self.good, math.ceil(target / kept))

    def drawn(self) -> list[Sample]:
        """The rows of the pilot, in the order of the pool."""
        return [sample for _, _, sample in sorted(self._drawn, key=lambda d: d[1])]


def _from_lengths(parts: Parts, pool: _Pool) -> Estimate:
    recipe = parts.recipe
    n = max(pool.good, 1)
    text = pool.text_chars / n / CHARS_PER_TOKEN
    prompts = parts.requests
    head = (len(prompts.generate_prompt.system) + len(prompts.generate_prompt.user)) / CHARS_PER_TOKEN
    frame = recipe.media.max_pixels / PIXELS_PER_TOKEN
    image = (recipe.media.image_max_pixels or recipe.media.max_pixels) / PIXELS_PER_TOKEN
    clip = frame * math.ceil(recipe.media.frames / FRAMES_PER_TOKEN)
    media = (pool.media[DataType.VIDEO] * clip + pool.media[DataType.IMAGE] * image) / n
    calls = pool.needed(recipe.target, PAPER_KEPT)
    usage = Usage(input_tokens=round(head + text + media), output_tokens=GUESSED_TRACE_TOKENS)
    steps = [_step("generate", recipe.generate.backend, calls, (calls, calls), usage)]
    seen = 1 - pool.media[DataType.TEXT] / n
    for judge, prompt_tokens in _judges(parts):
        steps += _judge_steps(judge, prompt_tokens, calls, text=text, media=media, seen=seen, recipe=recipe)
    notes = [
        "token counts are guesses from text lengths and the pixel budget: --pilot 100 measures them",
        f"{GUESSED_VERIFIED:.0%} of the traces are assumed to reach the judge (from the paper's yield)",
    ]
    if recipe.media.fps is not None and pool.media[DataType.VIDEO]:
        most = f"clips count with {recipe.media.frames} frames"
        notes.append(f"{most}, the most that media.fps allows: short ones take fewer")
    notes += _target_note(recipe, pool, calls) + _saved_notes(recipe, steps)
    return _sum(pool, steps, kept=min(round(calls * PAPER_KEPT), recipe.target or calls), notes=notes)


def _judges(parts: Parts) -> list[tuple[NamedJudge, list[int]]]:
    """Each judge with the tokens of its prompts."""
    return [
        (spec, [round((len(p.system) + len(p.user)) / CHARS_PER_TOKEN) for p in prompts_of(requests)])
        for spec, requests in parts.bench.judges
    ]


def _judge_steps(
    judge: NamedJudge, heads: list[int], calls: int, *, text: float, media: float, seen: float, recipe: Recipe
) -> list[StepEstimate]:
    """One judge, guessed.

    Args:
        judge: the judge.
        heads: tokens of its prompts.
        calls: questions that are asked about.
        text: tokens of a question.
        media: tokens of a question's frames, as the generator sees them; the mean of all questions.
        seen: share of questions with media.
        recipe: of the build.
    """
    judged = round(calls * GUESSED_VERIFIED)
    check = Usage(input_tokens=round(heads[-1] + text + 150), output_tokens=GUESSED_VERDICT_TOKENS)
    if judge.decides == "blind":
        asked = round(calls * seen)
        usage = Usage(input_tokens=round(heads[0] + text), output_tokens=GUESSED_BLIND_TOKENS)
        return [_step(judge.name, judge.backend, asked, (asked, asked), usage)]
    listing: Usage | None = None
    if judge.decides == "faithfulness":
        judged = round(judged * seen)
        frames = media / max(seen, 1e-9) * (judge.frames or recipe.media.frames) / recipe.media.frames
        check = Usage(input_tokens=round(heads[-1] + 150 + frames), output_tokens=GUESSED_VERDICT_TOKENS)
        listing = Usage(input_tokens=heads[0] + 150, output_tokens=GUESSED_VERDICT_TOKENS)
    steps = []
    for step, spec in judge.backends.items():
        asked, usage = round(judged * GUESSED_UNSURE) if step.endswith("/unsure") else judged, check
        if step == judge.name and listing:  # the first model is asked twice: it lists the claims
            mean = (check.input_tokens + listing.input_tokens) / 2
            asked, usage = 2 * judged, check.model_copy(update={"input_tokens": round(mean)})
        steps.append(_step(step, spec, asked, (asked, asked), usage))
    return steps


def _saved_notes(recipe: Recipe, steps: list[StepEstimate]) -> list[str]:
    """What each cascade saves against asking its dear model about every row."""
    found, notes = {step.step: step for step in steps}, []
    for judge in recipe.all_judges:
        if judge.unsure_to is None:
            continue
        dear, first = found[f"{judge.name}/unsure"], found[judge.name]
        rows = round(first.calls / (2 if judge.decides == "faithfulness" else 1))
        note = f"judge {judge.name}: {dear.model} is asked about {dear.calls:,} of {rows:,} rows"
        if dear.calls and dear.priced:
            note += f", which saves ${max(0.0, (rows - dear.calls) * dear.usd / dear.calls):,.2f}"
        notes.append(note)
    return notes


def _target_note(recipe: Recipe, pool: _Pool, rows: int) -> list[str]:
    if recipe.target is None:
        return []
    return [f"for the target of {recipe.target:,} kept rows about {rows:,} of {pool.good:,} are asked about"]


async def _from_pilot(parts: Parts, pool: _Pool, observer: Observer, stop: Stop) -> Estimate:
    recipe, drawn = parts.recipe, pool.drawn()
    recorders = parts.record()
    observer.begin("pilot", len(drawn))
    before = parts.journal.spending.finished_usd
    results: dict[str, Result] = {}

    async def run(sample: Sample) -> Result:
        results[sample.sample_id] = result = await parts.steps.run(sample)
        return result

    await run_pass(
        run, drawn, window=parts.window, stop=stop, on_result=lambda seen: observer.step(seen, parts)
    )
    if stop.why is not None:
        raise stop.why
    seen = [results[sample.sample_id] for sample in drawn if sample.sample_id in results]
    if not seen:
        return _from_lengths(parts, pool)
    pilot = pilot_of(seen, usd=parts.journal.spending.finished_usd - before)
    rows = pool.needed(recipe.target, pilot.kept_share)
    answered = pilot.rows - pilot.unanswered
    steps = [_measured(name, spec, recorders[name], answered, rows) for name, spec in recipe.backends.items()]
    notes = _target_note(recipe, pool, rows) + _pilot_notes(pilot) + _saved_notes(recipe, steps)
    return _sum(pool, steps, kept=round(rows * pilot.kept_share), notes=notes, pilot=pilot)


def _pilot_notes(pilot: Pilot) -> list[str]:
    if not pilot.kept:
        most = ", ".join(f"{count:,} {reason}" for reason, count in list(pilot.reasons.items())[:3])
        return [f"nothing of the pilot was kept, so that a build would likely be empty: {most}"]
    if pilot.unanswered:
        return [f"{pilot.unanswered:,} rows of the pilot got no answer: the figures are those of the others"]
    return []


def _measured(name: str, spec: BackendSpec, recorder: Recorder, rows: int, pool: int) -> StepEstimate:
    used = [a.completion.usage for _, a in recorder.calls if a is not None and a.completion is not None]
    n = max(len(used), 1)
    usage = Usage(
        input_tokens=round(sum(u.input_tokens for u in used) / n),
        output_tokens=round(sum(u.output_tokens for u in used) / n),
        cache_read_tokens=round(sum(u.cache_read_tokens for u in used) / n),
        cache_write_tokens=round(sum(u.cache_write_tokens for u in used) / n),
    )
    made = len(recorder.calls)
    asked = min(made, rows)  # rows that came to this step; each makes made / asked calls
    each = pool * made / max(asked, 1)
    share = wilson(asked, rows)
    bounds = (each, each) if asked == rows else ((share.low or 0.0) * each, (share.high or 1.0) * each)
    return _step(name, spec, round(pool * made / max(rows, 1)), (round(bounds[0]), round(bounds[1])), usage)


def _step(name: str, spec: BackendSpec, calls: int, bounds: tuple[int, int], usage: Usage) -> StepEstimate:
    each = cost_usd(usage, spec.price, batched=spec.batch)
    return StepEstimate(
        step=name,
        model=spec.model,
        calls=calls,
        calls_low=bounds[0],
        calls_high=bounds[1],
        input_tokens=calls * (usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens),
        output_tokens=calls * usage.output_tokens,
        usd=calls * each,
        usd_low=bounds[0] * each,
        usd_high=bounds[1] * each,
        priced=spec.price is not None,
    )


def _sum(
    pool: _Pool, steps: list[StepEstimate], *, kept: int, notes: list[str], pilot: Pilot | None = None
) -> Estimate:
    return Estimate(
        ok=pool.good > 0 and (pilot is None or pilot.kept > 0),
        rows=pool.rows,
        bad_rows=pool.bad,
        pilot_rows=pilot.rows if pilot else 0,
        pilot_kept=pilot.kept if pilot else 0,
        pilot_usd=pilot.usd if pilot else 0.0,
        pilot=pilot,
        kept=kept,
        steps=steps,
        usd=sum(s.usd for s in steps),
        usd_low=sum(s.usd_low for s in steps),
        usd_high=sum(s.usd_high for s in steps),
        notes=notes,
    )
