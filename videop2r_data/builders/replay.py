"""Read a finished build back from its journal: show a sample, rebuild the set, report planted defects."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from videop2r_data.backends import FileLock, Journal
from videop2r_data.builders.export import write_dataset
from videop2r_data.builders.judging import Recorder
from videop2r_data.builders.news import Observer
from videop2r_data.builders.run import Result
from videop2r_data.builders.steps import MAX_TEMPERATURE, Parts, demo_source
from videop2r_data.builders.workspace import Workspace, busy_writing
from videop2r_data.demo import DemoReport, evaluate
from videop2r_data.errors import ConfigError
from videop2r_data.files import CARD_NAME, LOCK_NAME, file_digest, read_lock, shards
from videop2r_data.schemas import (
    BadRow,
    BuildLock,
    ClaimCell,
    JudgementCell,
    Model,
    Outcome,
    Recipe,
    Sample,
    Stage,
    visible,
)

# `show`: one sample with its question, its verdicts and the calls behind them.


class CallView(Model):
    """One call of a sample."""

    key: str
    purpose: str
    model: str
    served: str
    messages: list[dict[str, Any]]
    params: dict[str, Any]
    answer: str
    refused: str
    finish_reason: str
    usage: dict[str, int]


class SampleView(Model):
    """Everything that is known of one sample."""

    sample: dict[str, Any]
    outcome: str
    stage: str
    reason: str
    detail: str
    attempt: int
    score: float | None = None
    score_reason: str = ""
    judgement: str = ""
    judge_explanation: str = ""
    judgements: tuple[JudgementCell, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Of each judge of a list that was asked."""
    claims: tuple[ClaimCell, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Of the first judge that sees."""
    segments: dict[str, str] = Field(default_factory=dict)
    media: dict[str, Any] | None = None
    calls: list[CallView] = Field(default_factory=list)

    @property
    def said(self) -> list[tuple[str, str]]:
        """What a list of judges said, and of what: the judge's name or `claim`, and words for people."""
        found = []
        for one in self.judgements:
            votes = (
                f" ({', '.join(vote or 'no verdict' for vote in one.votes)})" if len(one.votes) > 1 else ""
            )
            detail = f": {one.detail}" if one.detail else ""
            found.append((one.judge, f"{one.verdict or 'no verdict'}{votes}{detail}"))
        return found + [("claim", f"{one.verdict or 'no verdict'}: {one.text}") for one in self.claims]

    def __str__(self) -> str:
        """For people, as `print` shows it: question, outcome, segments, and one line for each call."""
        at = f" at {self.stage}: {self.reason}" if self.reason else ""
        score = "" if self.score is None else f", score {self.score:g}"
        judged = f", judged {self.judgement}" if self.judgement else ""
        lines = [f"{self.sample.get('sample_id', '')}: {self.outcome}{at}{score}{judged}"]
        lines += [visible(str(self.sample.get("problem", ""))), *map(visible, self.sample.get("options", []))]
        lines.append(f"reference: {visible(str(self.sample.get('solution', '')))}")
        lines += [f"{name}: {visible(text)}" for name, text in self.segments.items()]
        lines += [f"{name}: {visible(words)}" for name, words in self.said]
        for call in self.calls:
            lines.append(
                f"{call.purpose} by {call.served or call.model}: {visible(call.answer or call.refused)}"
            )
        return "\n".join(filter(None, lines))


async def look_up(place: Workspace, wanted: str) -> SampleView:
    """Replay one sample, by its sample_id or problem_id; empty: the first row of the pool.

    Raises:
        ConfigError: there is no such sample.
    """
    recipe = locked(read_lock(place.out), place.out)
    with Journal(place.journal, readonly=True) as journal:
        parts = Parts(recipe, place, journal, live=False)
        item = _find(parts, wanted)
        if isinstance(item, BadRow):
            raw = {"source": item.source, "row": item.row, "problem_id": item.problem_id, "raw": item.raw}
            reason = item.reason.value
            return SampleView(
                sample=raw, outcome="failed", stage="pool", reason=reason, detail=item.detail, attempt=0
            )
        recorders = parts.record()
        return _view(await parts.steps.run(item), list(recorders.values()))


def _find(parts: Parts, wanted: str) -> Sample | BadRow:
    for item in parts.pool():
        if wanted in ("", item.sample_id, item.problem_id):
            return item
    raise ConfigError(
        f"no sample {wanted!r} in the pool",
        hint="sample_id and problem_id stand in every row of the data set",
    )


def _view(result: Result, recorders: list[Recorder]) -> SampleView:
    return SampleView(
        sample=result.sample.model_dump(mode="json"),
        outcome=result.outcome.value if result.outcome else "waiting",
        stage=result.stage.value if result.stage else "",
        reason=result.reason.value if result.reason else "",
        detail=result.detail,
        attempt=result.attempt,
        score=result.score.value if result.score else None,
        score_reason=result.score.reason.value if result.score else "",
        judgement=(result.judgement.verdict or "no verdict") if result.judgement else "",
        judge_explanation=result.judgement.explanation if result.judgement else "",
        judgements=result.judged.judgements,
        claims=result.judged.claims,
        segments=result.trace.model_dump() if result.trace else {},
        media=result.media.model_dump(mode="json") if result.media else None,
        calls=[
            CallView(
                key=request.key,
                purpose=request.purpose,
                model=request.model,
                served=answer.completion.model if answer and answer.completion else "",
                messages=[{"role": m.role, "text": m.text, "media": m.media} for m in request.messages],
                params=request.params.canonical(),
                answer=answer.completion.text if answer and answer.completion else "",
                refused=answer.refused if answer else "not in the journal",
                finish_reason=answer.completion.finish_reason if answer and answer.completion else "",
                usage=answer.completion.usage.model_dump() if answer and answer.completion else {},
            )
            for recorder in recorders
            for request, answer in recorder.calls
        ],
    )


# `reproduce`: the data set once more from its lock and journal, every file compared by digest.


class FileComparison(Model):
    """One file of the data set."""

    path: str
    locked: str | None
    """sha256 in the lock; None for the lock itself and the card, which it does not list."""
    found: str | None
    """sha256 of the file that lies in the folder; None: missing."""
    rebuilt: str | None
    """sha256 of the file that was made anew; None: not made."""

    @property
    def same(self) -> bool:
        """Whether all of them agree."""
        return self.found is not None and self.found == self.rebuilt and self.locked in (None, self.found)


class ReproduceReport(Model):
    """How the rebuilt folder compares."""

    same: bool
    files: list[FileComparison]
    causes: list[str]
    """Other differences that may be the cause: prompts, sources, versions, missing calls."""


async def reproduce(
    place: Workspace, *, card: Callable[[Path], object], observer: Observer
) -> ReproduceReport:
    """Rebuild `place.out` beside its journal (or in a temporary folder if that is read-only) and compare.

    Raises:
        SourceError: there is no valid lock.
        ExportError: another process reproduces this data set now.
    """
    lock = read_lock(place.out)
    recipe = locked(lock, place.out)
    with _scratch(place.work) as rebuilt:
        new = await write_dataset(recipe, place, card=card, observer=observer, out=rebuilt)
        files = _compare(place.out, rebuilt, lock)
    same = all(f.same for f in files)
    return ReproduceReport(same=same, files=files, causes=[] if same else _causes(lock, new))


def locked(lock: BuildLock, folder: Path) -> Recipe:
    """The recipe that a lock holds.

    Raises:
        ConfigError: it is not valid.
    """
    try:
        return lock.read_recipe()
    except ValidationError as error:
        raise ConfigError(
            f"the lock's recipe is not valid: {error}",
            where=str(folder / LOCK_NAME),
            hint="fetch the file again, or use the version that wrote it: the lock names it",
        ) from None


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """A folder for the rebuilt set; leftovers of a killed run are deleted."""
    if not os.access(work, os.W_OK):
        with tempfile.TemporaryDirectory(prefix="p2r-reproduce-") as folder:
            yield Path(folder) / "reproduced"
        return
    rebuilt = work / "reproduced"
    if (lock := FileLock.take(work / "reproduce.lock")) is None:
        raise busy_writing(rebuilt)
    shutil.rmtree(rebuilt, ignore_errors=True)
    try:
        yield rebuilt
    finally:
        shutil.rmtree(rebuilt, ignore_errors=True)
        lock.release()


def _compare(out: Path, rebuilt: Path, lock: BuildLock) -> list[FileComparison]:
    names = set(lock.files) | {LOCK_NAME, CARD_NAME}
    names |= {p.relative_to(rebuilt).as_posix() for p in rebuilt.rglob("*") if p.is_file()}
    found = []
    for name in sorted(names):
        locked = lock.files[name].sha256 if name in lock.files else None
        here, anew = (file_digest(p) if p.is_file() else None for p in (out / name, rebuilt / name))
        found.append(FileComparison(path=name, locked=locked, found=here, rebuilt=anew))
    return found


def _causes(old: BuildLock, new: BuildLock) -> list[str]:
    causes = []
    for name in sorted(old.prompts.keys() | new.prompts.keys()):
        if name not in old.prompts:
            causes.append(f"prompt {name}: the version that wrote the lock did not have it")
        elif old.prompts[name] != new.prompts.get(name):
            causes.append(f"prompt {name}: its text is another one now")
    for was, now in zip(old.sources, new.sources, strict=True):  # of one recipe
        if was != now:
            causes.append(f"source {was.name}: {was.rows:,} rows then, {now.rows:,} now, or other content")
    if old.left_out != new.left_out:
        causes.append("leave_out: the file lists other rows now")
    for name in sorted(old.versions.keys() | new.versions.keys()):
        if old.versions.get(name) != new.versions.get(name):
            causes.append(f"{name}: {old.versions.get(name)} then, {new.versions.get(name)} now")
    missing = sum(n for r, n in new.ledger.reasons.items() if r.endswith("/call_failed"))
    missing -= sum(n for r, n in old.ledger.reasons.items() if r.endswith("/call_failed"))
    if missing > 0:
        causes.append(f"{missing:,} questions have no answer in this journal")
    return causes


# The demo's world knows which defects it planted: what each step caught, and what it should have.


def demo_report(place: Workspace) -> DemoReport:
    """Precision and recall of each step.

    Raises:
        ConfigError: the data set was not made from a demo world.
    """
    recipe = locked(read_lock(place.out), place.out)
    world = demo_source(recipe)
    if world is None:
        raise ConfigError("no source of kind demo", where=str(place.out), hint="run: p2r-data build demo")
    spec = recipe.generate
    outcomes, temperatures = [], {}
    for row in _rows(place.out, world):
        name, stage = row["problem_id"], row["stage"]
        outcomes.append((name, Outcome(row["outcome"]), Stage(stage) if stage else None, row["reason"]))
        temperatures[name] = min(spec.temperature + row["attempt"] * spec.temperature_step, MAX_TEMPERATURE)
    profile = recipe.verify.policy.profile
    return evaluate(
        place.demo / world,
        outcomes,
        profile,
        temperatures=temperatures,
        grammar=recipe.trace,
        seeing=any(j.decides == "faithfulness" and j.does == "filter" for j in recipe.all_judges),
    )


def _rows(out: Path, world: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    kept = {"outcome": "kept", "stage": "", "reason": ""}
    for config, absent in (("sft", kept), ("rejected", {})):
        columns = ["problem_id", "sample_id", "attempt", *(kept.keys() - absent.keys())]
        for path in shards(out, config):
            for row in pq.read_table(path, columns=columns).to_pylist():
                if row["sample_id"].startswith(f"{world}/"):
                    yield row | absent
