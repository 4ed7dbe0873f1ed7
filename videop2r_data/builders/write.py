"""From the journal to the data set's folder: the pipeline once more, with no call, in pool order."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.backends import Journal
from videop2r_data.builders.assemble import Parts, Watcher
from videop2r_data.builders.export import DatasetWriter
from videop2r_data.builders.run import Result, Tally, bad_row, rejected_row, rl_row, sft_row
from videop2r_data.builders.sources import PoolDigest
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import ExportError, SourceError
from videop2r_data.files import AGREEMENT_NAME, CARD_NAME, FIGURES_NAME, LOCK_NAME, read_lock
from videop2r_data.schemas import (
    BadRow,
    BuildLock,
    Ledger,
    Outcome,
    Recipe,
    RejectReason,
    Sample,
    SourceLock,
    Stage,
    StepModel,
)
from videop2r_data.version import __version__

VERSIONED = ("av", "jiwer", "numpy", "pillow", "pyarrow", "rapidfuzz", "rouge-score")
"""Packages that can change a byte of the output."""


_BREATHE = 256


async def write_dataset(
    recipe: Recipe,
    place: Workspace,
    *,
    card: Callable[[Path], object],
    observer: Watcher,
    out: Path | None = None,
    admit: Callable[[Ledger], None] = lambda _: None,
) -> BuildLock:
    """Write the folder from the journal: same recipe and journal, same bytes.

    Args:
        recipe: what was built.
        place: where its journal and sources lie.
        card: writes `README.md` into the finished folder, from its files only.
        observer: is told of progress.
        out: another folder than `place.out`.
        admit: raises if a set with this ledger must not replace what stands there.

    Raises:
        ExportError: the folder is not ours, the disk is full, or the ledger does not add up.
    """
    try:
        return await _write(recipe, place, card, observer, out=out or place.out, admit=admit)
    except OSError as error:
        raise ExportError(
            f"cannot write the data set: {error}",
            where=str(out or place.out),
            hint="the old data set, if there was one, is untouched; free some space and run the same command",
        ) from None


async def _write(
    recipe: Recipe,
    place: Workspace,
    card: Callable[[Path], object],
    observer: Watcher,
    *,
    out: Path,
    admit: Callable[[Ledger], None],
) -> BuildLock:
    with Journal(place.journal, readonly=True) as journal, DatasetWriter(out) as writer:
        parts = Parts(recipe, place, journal, live=False)
        pass_ = _Pass(parts, writer)
        observer.begin("writing", None)
        await pass_.run(observer)
        lock = pass_.lock(writer)
        admit(lock.ledger)
        (writer.staging / LOCK_NAME).write_bytes(
            orjson.dumps(lock.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
            + b"\n"
        )
        measured = place.out / AGREEMENT_NAME  # human labels of the judge: a build cannot make these
        if measured.is_file():
            shutil.copyfile(measured, writer.staging / AGREEMENT_NAME)
        if (place.out / CARD_NAME).is_file():  # text that a person added to the card stays
            shutil.copyfile(place.out / CARD_NAME, writer.staging / CARD_NAME)
        if (place.out / FIGURES_NAME).is_dir():  # the card shows them if their digests match the rows
            shutil.copytree(place.out / FIGURES_NAME, writer.staging / FIGURES_NAME)
        card(writer.staging)
        writer.commit()
    return lock


class _Pass:
    """Counts and writes every question once, in pool order."""

    def __init__(self, parts: Parts, writer: DatasetWriter) -> None:
        self.parts = parts
        self.writer = writer
        self.tally = Tally()
        self.rows_in = 0
        self.surplus = 0
        self.table: dict[str, Counter[str]] = {}
        self.served: dict[str, Counter[str]] = {}
        self.digests = {s.name: PoolDigest() for s in parts.recipe.sources}

    async def run(self, observer: Watcher) -> None:
        target = self.parts.recipe.target
        for item in self.parts.pool():
            self.digests[item.source].update(item)
            if target is not None and self.tally.kept >= target:
                self.surplus += 1
                continue
            self.rows_in += 1
            if isinstance(item, Sample):
                result = settled(await self.parts.steps.run(item))
                self.put(result)
                self.tally.add(result)
            else:
                self.put_bad(item)
                self.tally.add(item)
            observer.step(self.tally, self.parts)
            if self.rows_in % _BREATHE == 0:
                await asyncio.sleep(0)

    def put(self, result: Result) -> None:
        synthetic = self.parts.recipe.synthetic
        for step, model in result.models.items():
            self.served.setdefault(step, Counter())[model] += 1
        if result.stage is not Stage.MEDIA:
            self.writer.configs["rl"].add(rl_row(result.sample))
        if result.outcome is Outcome.KEPT:
            self.writer.configs["sft"].add(sft_row(result, synthetic=synthetic))
            kind = self.table.setdefault(result.sample.data_type.value, Counter())
            kind[result.sample.problem_type.value] += 1
        else:
            self.writer.configs["rejected"].add(rejected_row(result, synthetic=synthetic))

    def put_bad(self, bad: BadRow) -> None:
        self.writer.configs["rejected"].add(bad_row(bad, synthetic=self.parts.recipe.synthetic))

    def lock(self, writer: DatasetWriter) -> BuildLock:
        files = writer.close()
        recipe, tally = self.parts.recipe, self.tally
        ledger = Ledger(
            rows_in=self.rows_in,
            kept=tally.kept,
            rejected=tally.rejected,
            failed=tally.failed,
            surplus=self.surplus,
            reasons=dict(sorted(tally.reasons.items())),
            table={k: dict(sorted(v.items())) for k, v in sorted(self.table.items())},
        )
        check_ledger(ledger, {name: config.rows for name, config in writer.configs.items()})
        asked = {"generate": recipe.generate.backend.model}
        if recipe.judge is not None:
            asked["judge"] = recipe.judge.backend.model
        return BuildLock(
            recipe=locked_recipe(recipe),
            prompts=self.parts.requests.prompts(),
            sources=[
                SourceLock(name=name, rows=digest.rows, sha256=digest.hexdigest())
                for name, digest in self.digests.items()
            ],
            models={
                step: StepModel(asked=model, served=dict(sorted(self.served.get(step, Counter()).items())))
                for step, model in asked.items()
            },
            versions={"videop2r-data": __version__} | {name: version(name) for name in VERSIONED},
            ledger=ledger,
            files=files,
        )


def settled(result: Result) -> Result:
    """A result without outcome becomes a failure: the journal lacks its answer, the next run asks again."""
    if result.outcome is not None:
        return result
    return replace(
        result, outcome=Outcome.FAILED, reason=RejectReason.CALL_FAILED, detail="no answer in the journal"
    )


def check_ledger(ledger: Ledger, written: dict[str, int]) -> None:
    """Rows in = kept + rejected + failed, and the files hold just these.

    Raises:
        ExportError: they do not add up.
    """
    out = ledger.kept + ledger.rejected + ledger.failed
    if ledger.rows_in != out or written["sft"] != ledger.kept or written["rejected"] != out - ledger.kept:
        raise ExportError(
            f"the ledger does not add up: {ledger.rows_in} rows in, {ledger.kept} kept + {ledger.rejected} "
            f"rejected + {ledger.failed} failed, {written['sft']} + {written['rejected']} rows written"
        )


_HOST_SETTINGS = (
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout_s",
    "retries",
    "server_wait_s",
)


def locked_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the lock keeps it: without the settings that change no byte of the output."""
    data: dict[str, Any] = recipe.model_dump(mode="json")
    data.pop("max_cost")
    for setting in ("workers", "buffer_mb"):
        data["media"].pop(setting, None)
    for step in ("generate", "judge"):
        if data[step] is not None:
            for setting in _HOST_SETTINGS:
                data[step]["backend"].pop(setting)
    return data


# A good data set is not replaced by one that has lost its rows to a server or a disk.


class PoorSetError(ExportError):
    """The existing data set is not replaced; `ledger` is that of the new set."""

    def __init__(self, message: str, ledger: Ledger, *, where: Path) -> None:
        super().__init__(
            message, where=str(where), hint="mend what the reasons say, then run the same command"
        )
        self.ledger = ledger


def admit(ledger: Ledger, out: Path, *, replace: bool = False) -> None:
    """Refuse to replace a data set by a much poorer one.

    A set without an accepted row replaces none that has some. Nor does one that keeps less than half of the
    rows, where rows that could not be looked at (refused, unanswered, unreadable) make up half of the loss.

    Args:
        ledger: of the new set.
        out: where it goes.
        replace: a set that lost most of its rows may go there (one without rows never).

    Raises:
        PoorSetError: it may not go there.
    """
    old = _kept(out)
    if old == 0:
        return
    stands = "a data set" if old is None else f"the data set of {old:,} accepted rows"
    if ledger.kept == 0:
        raise PoorSetError(f"no row was accepted: {stands} stays as it was", ledger, where=out)
    if old is None or replace:
        return
    lost = old - ledger.kept
    if ledger.kept * 2 < old and ledger.failed * 2 >= lost:
        raise PoorSetError(
            f"only {ledger.kept:,} rows were accepted and {ledger.failed:,} could not be looked at: {stands} "
            "stays as it was (--replace puts the new one in its place)",
            ledger,
            where=out,
        )


def _kept(out: Path) -> int | None:
    """Accepted rows of the existing data set: 0 if there is none, None if it has no readable lock."""
    if not (out / LOCK_NAME).is_file():
        return 0
    try:
        return read_lock(out).ledger.kept
    except SourceError:
        return None
