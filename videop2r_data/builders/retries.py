"""Ask again what came to nothing: refused calls, empty replies, unreadable files, lost batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast, get_args

from videop2r_data.backends import (
    Answer,
    BatchRunner,
    Journal,
    asked_again,
    batch_scope,
    lacks_its_start,
    make_batches,
    own_words,
)
from videop2r_data.builders.run import Result, Stop, Tally
from videop2r_data.builders.steps import Parts
from videop2r_data.builders.workspace import Shard, Workspace, take_lease_now
from videop2r_data.errors import ConfigError, RefusedError
from videop2r_data.schemas import Outcome, Recipe, RejectReason, Request, Sample, Stage
from videop2r_data.validators import parse_judgement

if TYPE_CHECKING:
    from videop2r_data.builders.news import Observer

# Give up a batch that its server no longer has, so that its requests can be asked again.


def abandon_batch(recipe: Recipe, place: Workspace, batch_id: str) -> int:
    """Journal that a batch is given up; its possible cost stays in the budget.

    Only a person can decide this: to a program a wrong key looks the same as a batch that was deleted.

    Returns:
        Requests that the next run asks again.

    Raises:
        ConfigError: the recipe has no batches, or no open batch has this id.
        BusyError: a build works in this folder.
    """
    place.need_folder("--abandon-batch")
    specs = {step: spec for step, spec in recipe.backends.items() if spec.batch}
    if not specs:
        raise ConfigError("no step of this recipe is asked in batches", where=recipe.name)
    with take_lease_now(place.work, "build --abandon-batch"), Journal(place.journal) as journal:
        for step, spec in specs.items():
            runner = BatchRunner(make_batches(spec), journal, scope=batch_scope(step))
            with suppress(RefusedError):
                return runner.abandon(batch_id, why="given up by hand")
    message = f"no open batch has the id {batch_id!r}"
    raise ConfigError(message, where=str(place.journal), hint="look at the id again")


# `--retry`: the journal is replayed, and each answer of the kinds asked for that cost its row its place is
# withdrawn, so that the next pass finds it unanswered. A row that a later try made good loses nothing; what
# was withdrawn and gets no answer in this run is asked by the next one, without a flag.


RetryKind = Literal["refused", "empty", "filtered", "no_verdict", "media", "decoder"]
"""What can be tried again, in this order: calls that the server refused; replies without text, or whose first
part was taken for reasoning; replies that the model or a filter declined; judge's replies without a verdict;
files that could not be used, for whatever reason; files whose decoder died, ran out of time or of memory."""
RETRY_KINDS: tuple[RetryKind, ...] = get_args(RetryKind)
_DECODER = (
    RejectReason.DECODE_CRASH,
    RejectReason.DECODE_KILLED,
    RejectReason.DECODE_MEMORY,
    RejectReason.DECODE_TIMEOUT,
)
_BREATHE = 256


@dataclass
class Found:
    """What can be asked again.

    Attributes:
        rows: kind -> questions that it cost their place; a question may count under several.
        keys: of the calls and files to withdraw.
    """

    rows: Counter[str] = field(default_factory=Counter)
    keys: dict[str, None] = field(default_factory=dict)


def parse_kinds(text: str) -> tuple[RetryKind, ...]:
    """Read `refused,media` or `all`.

    Raises:
        ConfigError: an unknown kind.

    >>> parse_kinds("media, refused")
    ('media', 'refused')
    """
    names = [name.strip().replace("-", "_") for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return RETRY_KINDS
    unknown = [name for name in names if name not in RETRY_KINDS]
    if unknown or not names:
        raise ConfigError(
            f"nothing of this kind can be tried again: {', '.join(unknown) or repr(text)}",
            where="--retry",
            hint=f"there are: {', '.join(RETRY_KINDS)}, all",
        )
    return tuple(cast("RetryKind", name) for name in names)


async def find_retries(
    recipe: Recipe,
    place: Workspace,
    journal: Journal,
    kinds: Collection[RetryKind],
    *,
    observer: Observer,
    stop: Stop | None = None,
    shard: Shard | None = None,
) -> Found:
    """Replay the journal and gather what is of these kinds; nothing is changed.

    Args:
        journal: what was answered; may be open for reading only.
        shard: look at this share of the pool only.
    """
    found = Found()
    parts = Parts(recipe, place, journal, live=False, shard=shard)
    recorders = parts.record().values()
    tally = Tally()
    observer.begin("looking for what to ask again", None)
    for item in parts.pool():
        if isinstance(item, Sample):
            result = await parts.steps.run(item)
            calls = [call for recorder in recorders for call in recorder.calls]
            _note(found, kinds, parts, result, calls)
            tally.add(result)
            for recorder in recorders:
                recorder.calls.clear()
        else:
            tally.add(item)
        observer.step(tally, parts)
        if tally.rows % _BREATHE == 0:
            await asyncio.sleep(0)
        if stop is not None and stop.asked:
            break
    return found


async def reopen(
    recipe: Recipe,
    place: Workspace,
    journal: Journal,
    kinds: Collection[RetryKind],
    *,
    observer: Observer,
    stop: Stop,
    shard: Shard | None = None,
) -> dict[str, int]:
    """Withdraw what `find_retries` finds; returns kind -> questions."""
    found = await find_retries(recipe, place, journal, kinds, observer=observer, stop=stop, shard=shard)
    if stop.asked:
        return {}
    for key in found.keys:
        journal.withdraw(key)
    return {kind: found.rows[kind] for kind in RETRY_KINDS if kind in kinds}


Calls = list[tuple[Request, Answer | None]]


def _note(found: Found, kinds: Collection[RetryKind], parts: Parts, result: Result, calls: Calls) -> None:
    """Add the calls or the file for which a question was not kept."""
    if result.outcome is Outcome.KEPT:
        return
    if result.stage is not Stage.MEDIA:
        silent = result.reason is RejectReason.NO_VERDICT
        listed = _call_kinds(calls, parts.recipe.trace.opening, silent=silent)
        hit = [(key, kind) for key, kind in listed if kind in kinds]
    elif result.reason is RejectReason.CALL_FAILED:
        return  # no answer about the file yet: the next run looks at it anyway
    else:
        fits: tuple[RetryKind, ...] = ("media", "decoder") if result.reason in _DECODER else ("media",)
        files = [media.key(result.sample) for media in parts.media_steps]
        hit = [(key, kind) for key in files for kind in fits if kind in kinds]
    found.rows.update({kind for _, kind in hit})
    found.keys.update((key, None) for key, _ in hit)


def _call_kinds(calls: Calls, opening: str, *, silent: bool) -> Iterator[tuple[str, RetryKind]]:
    """`silent`: the row was lost for want of a verdict."""
    read = {request.key for request, answer in calls if _has_verdict(request, answer)}
    for request, answer in calls:
        kind = _kind(request, answer, opening, silent=silent)
        if kind == "no_verdict" and asked_again(request).key in read:
            continue  # the stricter form of the question brought the verdict
        if kind is not None:
            yield request.key, kind


def _kind(request: Request, answer: Answer | None, opening: str, *, silent: bool) -> RetryKind | None:
    if answer is None:
        return None
    completion = answer.completion
    if completion is None:
        return "refused"
    if completion.finish_reason == "content_filter":
        return "filtered"
    if not completion.text.strip():
        return "empty"
    if request.purpose == "judge":
        return None if _has_verdict(request, answer) else "no_verdict"
    if request.purpose in ("claims", "faithfulness", "conclusion"):
        return "no_verdict" if silent else None  # whether something lacks one, the reply alone does not say
    if request.purpose == "blind":
        return None
    return "empty" if lacks_its_start(completion, opening) else None


def _has_verdict(request: Request, answer: Answer | None) -> bool:
    own = own_words(answer, request) if request.purpose == "judge" else None
    return own is not None and parse_judgement(own.text, finish_reason=own.finish_reason).verdict is not None
