"""News of a run: what is known of it, in a small file in the work folder that other processes read."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from videop2r_data.backends import is_held
from videop2r_data.builders.run import Tally
from videop2r_data.builders.steps import Parts
from videop2r_data.builders.workspace import Shard
from videop2r_data.errors import P2RError
from videop2r_data.schemas import Model, visible_line

EVERY_S, OLD_S, RATE_S = 1.0, 3.0, 60.0
"""Seconds between two writes, until news is no sign of life any more, and those that a rate is of."""
Line = Annotated[str, AfterValidator(visible_line)]
"""Words of a server, or of a file that is not ours, made to steer nothing."""
Count = Annotated[int, Field(ge=0, le=10**12)]
_LONGEST_S = 1e11


class Progress(Model, frozen=False, validate_assignment=True):
    """What is known of a run, or of the shares of one, added up."""

    lease: str = Field("build", pattern=r"^(build|share-\d+-of-\d+)$")
    """What the process has of the work."""
    process: Line = ""
    at: float = Field(0.0, ge=0.0, le=_LONGEST_S)
    """When this was written, in seconds since 1970."""
    state: Line = "running"
    """That, `failed`, or of a build's report; a reader may find it `killed`, or `stopped or busy`."""
    phase: Line = "starting"
    total: Count = 0
    """Questions of the pool; 0: not counted yet."""
    counts: dict[Line, Count] = Field(default_factory=dict)
    """Questions done in this pass: `kept`, `rejected`, `failed`, and `waiting` for a batch."""
    reasons: dict[Line, Count] = Field(default_factory=dict)
    made: dict[Line, Count] = Field(default_factory=dict)
    """In this run: answers `found` in the journal, files to `decode`, calls of each step."""
    per_min: dict[Line, float] = Field(default_factory=dict)
    """`rows`, and the names of `made` -> how many in a minute."""
    left_s: float | None = Field(None, ge=0.0, le=_LONGEST_S)
    """Seconds until the last question at this rate; None: not known."""
    spent_usd: float = 0.0
    """Finished calls of all runs."""
    limit_usd: float | None = None
    waits_for: Line = ""
    last_error: Line = ""


def in_words(run: Progress, kept: str = "kept") -> str:
    """How far a run is; `kept` is the word for a success."""
    rows, counts, rate = sum(run.counts.values()), run.counts, run.per_min.get("rows", 0.0)
    limit = "" if run.limit_usd is None else f" of ${run.limit_usd:,.2f}"
    said = [
        f"{run.phase}: {rows:,}" + (f"/{run.total:,}" if run.total else ""),
        f"{kept} {counts.get('kept', 0) / rows:.1%}" if rows else "",
        f"failed {counts['failed']:,}" if counts.get("failed") else "",
        f"{rate:,.0f}/min" if rate else "",
        "" if run.left_s is None else f"{timedelta(seconds=round(run.left_s))} left",
        f"${run.spent_usd:,.2f}{limit}" if run.spent_usd or limit else "",
    ]
    return ", ".join(filter(None, said))


class Observer:
    """Is told how a run is getting on, and knows what there is to tell; displays are made of it."""

    def __init__(self) -> None:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self.said = Progress(process=f"{os.getpid()} on {socket.gethostname()} since {since}")
        self._parts: Parts | None = None
        self._tally = Tally()
        self._marks = deque([(time.monotonic(), Counter[str]())])

    def begin(self, what: str, total: int | None) -> None:
        """A phase begins; `total` questions if known."""
        self._tally = Tally()
        self._marks = deque([(time.monotonic(), Counter(self.now().made))])
        self.said.phase, self.said.total = what, total or self.said.total

    def step(self, tally: Tally, parts: Parts) -> None:
        """One more question is done."""
        self._tally = tally
        if self.said.waits_for:
            self.said.waits_for = ""
        if not parts.journal.readonly:  # the parts that write the data set make no calls
            self._parts = parts

    def wait(self, message: str) -> None:
        """The build waits; `message` says for what."""
        self.said.waits_for = message

    def now(self) -> Progress:
        """What is known now."""
        said, tally, clock = self.said, self._tally, time.monotonic()
        said.at, said.left_s, said.reasons = time.time(), None, dict(tally.reasons)
        said.counts = {name: getattr(tally, name) for name in ("kept", "rejected", "failed", "waiting")}
        if (parts := self._parts) is not None:
            said.total = said.total or parts.total or 0
            said.made = {name: caller.made for name, caller in parts.judges.items()}
            said.made |= {"generate": parts.generator.made, "found": sum(c.found for c in parts.callers)}
            said.made["decode"] = sum(media.decoded for media in parts.media_steps)
            said.spent_usd, said.limit_usd = parts.journal.spending.finished_usd, parts.recipe.max_cost
        while len(self._marks) > 1 and clock - self._marks[1][0] >= RATE_S:
            self._marks.popleft()
        done, (since, then) = Counter(said.made) + Counter(rows=tally.rows), self._marks[0]
        self._marks.append((clock, done))
        if said.state != "running":
            said.per_min = {}
            return said
        said.last_error, minutes = tally.last_error, max(clock - since, 1e-3) / 60
        said.per_min = {name: (count - then[name]) / minutes for name, count in done.items()}
        left = [said.total - tally.rows] if said.total else []
        if parts is not None and parts.recipe.target is not None and tally.kept:  # at the yield so far
            left.append((parts.recipe.target - tally.kept) * tally.rows // tally.kept)
        if left and (rate := said.per_min.get("rows")):
            said.left_s = min(max(0, min(left)) / rate * 60, _LONGEST_S)
        return said

    @contextmanager
    def in_file(self, work: Path, shard: Shard | None) -> Iterator[None]:
        """Keep the file in a work folder up to date while the body runs; how it ended is the last news."""
        said, self.said.state = self.said, "running"
        said.lease = f"share-{shard.index}-of-{shard.count}" if shard else "build"
        path = work / f"progress-{said.lease}.json"

        def write() -> None:
            with suppress(OSError):  # a full disk is told by the journal
                path.with_suffix(".part").write_text(self.now().model_dump_json(), encoding="utf-8")
                path.with_suffix(".part").replace(path)

        async def keep() -> None:
            while True:
                write()
                await asyncio.sleep(EVERY_S)

        keeping = asyncio.ensure_future(keep())
        try:
            yield
        except BaseException as error:
            said.state = "failed" if isinstance(error, Exception) else "interrupted"
            said.last_error, said.waits_for = type(error).__name__, ""
            if isinstance(error, P2RError):
                said.last_error = f"{error.where}: {error.message}" if error.where else error.message
            raise
        finally:
            keeping.cancel()
            write()


def read_news(work: Path) -> list[Progress]:
    """What each process of the last run in a folder wrote last; what is no news is left out."""
    found = []
    for path in sorted(work.glob("progress-*.json")):
        with suppress(OSError, ValidationError):
            news = Progress.model_validate_json(path.read_bytes())
            if news.state == "running" and time.time() - news.at > OLD_S:
                news.state = (
                    "stopped or busy" if is_held(work / "leases" / f"{news.lease}.lock") else "killed"
                )
                news.per_min, news.left_s = {}, None
            found.append(news)
    found.sort(key=lambda one: one.at)
    return [one for one in found if one.lease.rpartition("-")[2] == found[-1].lease.rpartition("-")[2]]


def add_up(shares: Sequence[Progress]) -> Progress:
    """Shares as one run; the best informed of them knows the money of all."""
    run = shares[-1].model_copy()
    run.state, run.total = ", ".join(sorted({one.state for one in shares})), sum(one.total for one in shares)
    run.left_s = max(one.left_s or 0.0 for one in shares) or None
    run.spent_usd = max(one.spent_usd for one in shares)
    for name in ("counts", "reasons", "made", "per_min"):
        each = [getattr(one, name) for one in shares]
        setattr(run, name, {key: sum(one.get(key, 0) for one in each) for one in each for key in one})
    return run
