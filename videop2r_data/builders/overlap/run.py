"""`p2r-data overlap`: read both sides, compare them, write what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import get_args

import orjson

from videop2r_data.backends import Journal
from videop2r_data.builders.overlap.clips import ClipFiles, Tell, same_files, same_frames
from videop2r_data.builders.overlap.compare import Comparison, OverlapRow, by_identity
from videop2r_data.builders.overlap.effect import effects, read_results
from videop2r_data.builders.overlap.identity import Namespaces, load_namespaces
from videop2r_data.builders.overlap.looks import LOOKS, MOST_FRAMES
from videop2r_data.builders.overlap.sides import Opened, Side, open_sides
from videop2r_data.builders.run import Stop
from videop2r_data.errors import ConfigError, SourceError, StoppedError
from videop2r_data.files import OVERLAP_NAME
from videop2r_data.media import DecodePool
from videop2r_data.schemas import MediaSpec, Overlap, OverlapBench, Shared, Signal

ROWS_NAME = "rows.parquet"
SIGNALS: tuple[Signal, ...] = get_args(Signal)
Progress = Callable[[str, int, int | None], None]
"""Told what is done, how much of it, and of how much, if that is known."""


@dataclass(frozen=True)
class OverlapSettings:
    """What is compared with what, and how.

    Attributes:
        pool: recipe, data set, file, folder or Hub id.
        against: the same, of evaluation sets.
        out: folder of the report, and of what is kept between runs.
        media: source -> folder of its clips; "" stands for all sources.
        namespaces: file with namespaces of one's own.
        frames: read every clip and compare frames too.
        workers: decoder processes; 0: one per core.
        most_frames: of a clip; with more, cuts of longer ones are found.
        results: folders of `p2r-train eval`, to see what the rows that overlap make of the scores.
    """

    pool: str
    against: Sequence[str]
    out: Path
    media: Mapping[str, Path] = field(default_factory=dict)
    namespaces: Path | None = None
    frames: bool = False
    workers: int = 0
    results: Sequence[Path] = ()
    most_frames: int = MOST_FRAMES

    @property
    def looks(self) -> MediaSpec:
        """How the frames of a clip are sampled."""
        return LOOKS.model_copy(update={"frames": self.most_frames})


async def find_overlap(settings: OverlapSettings, *, progress: Progress, stop: Stop) -> Overlap:
    """Compare a pool with evaluation sets; writes `overlap.json` and `rows.parquet`.

    Raises:
        ConfigError, SourceError: a side cannot be opened or read.
        StoppedError: asked to stop; what was read of clips is kept.
    """
    work = settings.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    media = settings.media
    (pool,) = open_sides(settings.pool, media=media, work=work)
    sides = (open_sides(said, media=media, work=work, apart=True) for said in settings.against)
    benches = list(chain.from_iterable(sides))
    names = [bench.name for bench in benches]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        told = f"two evaluation sets are called {', '.join(twice)}"
        raise ConfigError(told, hint="--against NAME=WHAT gives a name")
    results = read_results(settings.results)
    with Journal(work / "journal") as journal:
        run = _Run(settings, load_namespaces(settings.namespaces), progress, stop)
        left = await run.read(pool)
        files = ClipFiles(left, journal, settings.looks)
        found = []
        for bench in benches:
            right = await run.read(bench)
            found.append(await run.compare(left, files, right, ClipFiles(right, journal, settings.looks)))
    reports = [one.report().model_copy(update={"effects": list(effects(one, results))}) for one in found]
    report = _report(left, reports)
    _write(settings.out, report, (row for one in found for row in one.rows()))
    return report


@dataclass
class _Run:
    """One comparison under way."""

    settings: OverlapSettings
    namespaces: Namespaces
    progress: Progress
    stop: Stop

    def telling(self, what: str) -> Tell:
        """Shows how far something is, and lets signals have their turn; StoppedError: asked to stop."""

        async def tell(done: int, total: int | None) -> None:
            self.progress(what, done, total)
            await asyncio.sleep(0)
            if self.stop.asked:
                raise StoppedError("stopped before everything was compared")

        return tell

    async def read(self, opened: Opened) -> Side:
        """Read one side whole."""
        side, tell = Side(opened), self.telling(f"reading {opened.name}")
        for count in side.take(opened.rows, self.namespaces):
            await tell(count, None)
        await tell(len(side), len(side))
        if not len(side):
            raise SourceError(
                f"none of its {side.bad:,} rows can be read",
                where=opened.name,
                hint="name it by a recipe whose source says how, and look with p2r-data check",
            )
        return side

    async def compare(self, pool: Side, mine: ClipFiles, bench: Side, theirs: ClipFiles) -> Comparison:
        """The pool beside one evaluation set, in every way that was asked for."""
        compared, tell = Comparison(pool, bench), self.telling(f"comparing with {bench.name}")
        compared.link("identity", by_identity(pool, bench), _nameless(pool, bench))
        await tell(0, None)
        if mine.any and theirs.any:
            links = await same_files(mine, theirs, self.telling(f"comparing files with {bench.name}"))
            compared.link("file", links, (mine.missing, theirs.missing))
            if self.settings.frames:
                async with DecodePool(
                    self.settings.looks, want="array", workers=self.settings.workers
                ) as decoders:
                    await mine.sample(decoders, self.telling(f"reading the clips of {pool.name}"))
                    await theirs.sample(decoders, self.telling(f"reading the clips of {bench.name}"))
                links = await same_frames(mine, theirs, self.telling(f"comparing frames with {bench.name}"))
                compared.link("frames", links, (mine.unseen, theirs.unseen))
        compared.compare_texts()
        await tell(0, None)
        return compared


def _nameless(*sides: Side) -> tuple[list[int], list[int]]:
    """Clips whose names say nothing, on both sides."""
    mine, theirs = ([clip for clip, ids in enumerate(side.identities) if not ids] for side in sides)
    return mine, theirs


def _report(pool: Side, benches: list[OverlapBench]) -> Overlap:
    looked = tuple(signal for signal in SIGNALS if any(signal in bench.bench for bench in benches))
    return Overlap(
        pool=pool.name,
        rows=len(pool),
        bad=pool.bad,
        sources=pool.facts,
        files=dict(pool.files),
        looked=looked,
        benches=benches,
        statement=" ".join(map(_statement, benches)),
    )


_WORDS: dict[Signal, str] = {
    "identity": "are about a clip or image of the pool by the id in its name",
    "file": "are about a file that the pool has too, byte for byte",
    "frames": "are about a clip or image whose frames are in the pool",
    "text": "are worded as a question of the pool is, whatever it is about",
    "both": "ask about a clip of the pool what the pool asks about it",
}


def _statement(bench: OverlapBench) -> str:
    """What was found, what was not looked at, and what nobody can say."""
    parts = [f"{_of(found, signal)} {_WORDS[signal]}" for signal, found in _ordered(bench.bench).items()]
    text = f"Of the {bench.rows:,} rows of {bench.name} that could be read, {'; '.join(parts)}."
    missing = [signal for signal in SIGNALS if signal not in bench.bench]
    if missing:
        text += f" Not looked for: {', '.join(missing)}."
    return text


def _ordered(counts: Mapping[Signal, Shared]) -> dict[Signal, Shared]:
    return {signal: counts[signal] for signal in SIGNALS if signal in counts}


def _of(shared: Shared, signal: Signal) -> str:
    told = f"{shared.found:,}"
    if signal in ("text", "both") and shared.found:
        told += f" ({shared.same:,} with the same words)"
    if shared.known < shared.rows:
        told += f" of the {shared.known:,} that can be compared"
    return told


def _write(out: Path, report: Overlap, rows: Iterable[OverlapRow]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = OverlapRow._fields
    schema = pa.schema([(name, pa.float64() if name == "score" else pa.string()) for name in names])
    table = pa.Table.from_pylist([row._asdict() for row in rows], schema=schema)
    part = out / f"{ROWS_NAME}.part"
    pq.write_table(table, part, compression="zstd")
    part.replace(out / ROWS_NAME)
    form = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (out / OVERLAP_NAME).write_bytes(orjson.dumps(report.model_dump(mode="json"), option=form))
