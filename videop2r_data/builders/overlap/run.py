"""`p2r-data overlap`: read both sides, compare them, write what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from videop2r_data.backends import Journal
from videop2r_data.builders.overlap.clips import ClipFiles, same_files, same_frames, same_keys
from videop2r_data.builders.overlap.compare import Comparison, OverlapRow
from videop2r_data.builders.overlap.identity import Namespaces, load_namespaces
from videop2r_data.builders.overlap.looks import LOOKS
from videop2r_data.builders.overlap.sides import Side, open_sides
from videop2r_data.builders.run import Stop
from videop2r_data.errors import ConfigError, SourceError, StoppedError
from videop2r_data.files import OVERLAP_NAME
from videop2r_data.media import DecodePool
from videop2r_data.schemas import SIGNALS, MediaSpec, Overlap, OverlapEffect

ROWS_NAME = "rows.parquet"
Progress = Callable[[str, int, int | None], None]
"""Told what is done, how much of it, and of how much, if that is known."""
Effects = Callable[[Comparison], list[OverlapEffect]]
"""What rows that overlap make of scores."""


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
    """

    pool: str
    against: Sequence[str]
    out: Path
    media: Mapping[str, Path] = field(default_factory=dict)
    namespaces: Path | None = None
    frames: bool = False
    workers: int = 0
    most_frames: int = LOOKS.frames


async def find_overlap(
    settings: OverlapSettings, *, progress: Progress, stop: Stop, effects: Effects | None = None
) -> Overlap:
    """Compare a pool with evaluation sets; writes `overlap.json` and `rows.parquet`.

    Raises:
        ConfigError, SourceError: a side cannot be opened or read; no frames could be compared, and were to
            be (what else was found is written).
        StoppedError: asked to stop; what was read of clips is kept.
    """
    work = settings.out / "work"
    (pool,) = open_sides(settings.pool, media=settings.media, work=work)
    sides = [open_sides(said, media=settings.media, work=work, apart=True) for said in settings.against]
    benches = [bench for some in sides for bench in some]
    _check_names(pool, benches, settings.media)
    work.mkdir(parents=True, exist_ok=True)
    run = _Run(settings, load_namespaces(settings.namespaces), progress, stop)
    with Journal(work / "journal") as journal:
        mine = ClipFiles(await run.read(pool), journal, run.looks)
        found = [
            await run.compare(mine, ClipFiles(await run.read(bench), journal, run.looks)) for bench in benches
        ]
    reports = [one.report() for one in found]
    if effects is not None:
        pairs = zip(reports, found, strict=True)
        reports = [report.model_copy(update={"effects": effects(one)}) for report, one in pairs]
    report = Overlap(
        pool=pool.name,
        rows=len(pool),
        bad=pool.bad,
        sources=pool.facts,
        files=pool.files,
        looked=tuple(signal for signal in SIGNALS if any(signal in bench.bench for bench in reports)),
        benches=reports,
    )
    _write(settings.out, report, (row for one in found for row in one.rows()))
    if settings.frames and not any("frames" in one.bench and one.bench["frames"].known for one in reports):
        raise SourceError(
            f"no frames of {pool.name} could be compared; what else was found is in {settings.out}",
            hint="name the folders of the clips: --media NAME=DIR; p2r-data check DIR looks at the files",
        )
    return report


def _check_names(pool: Side, benches: list[Side], media: Mapping[str, Path]) -> None:
    names = [bench.name for bench in benches]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        told = f"two evaluation sets are called {', '.join(twice)}"
        raise ConfigError(told, hint="--against NAME=WHAT gives a name")
    sources = {source for side in (pool, *benches) for source in side.roots}
    for name, folder in media.items():
        if name and name not in sources:
            there = f"there are {', '.join(sorted(sources))}"
            raise ConfigError(f"no source or evaluation set is called {name!r}", where="--media", hint=there)
        if not folder.is_dir():
            raise ConfigError(
                "no such folder", where=f"--media {folder}", hint="name the folder of the clips"
            )


@dataclass
class _Run:
    """One comparison under way."""

    settings: OverlapSettings
    namespaces: Namespaces
    progress: Progress
    stop: Stop

    @property
    def looks(self) -> MediaSpec:
        """How the frames of a clip are sampled."""
        return LOOKS.model_copy(update={"frames": self.settings.most_frames})

    async def tell(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Show how far something is, and let signals have their turn."""
        self.progress(what, done, total)
        await asyncio.sleep(0)
        if self.stop.asked:
            raise StoppedError("stopped before everything was compared")

    async def read(self, side: Side) -> Side:
        """Read the rows of a side; SourceError: there is none."""
        for count in side.take(self.namespaces):
            await self.tell(f"reading {side.name}", count)
        await self.tell(f"reading {side.name}", len(side), len(side))
        if not len(side):
            raise SourceError(
                f"none of its {side.bad:,} rows can be read",
                where=side.name,
                hint="name it by a recipe whose source says how, and look with p2r-data check",
            )
        return side

    async def compare(self, pool: ClipFiles, bench: ClipFiles) -> Comparison:
        """Compare by every signal for which both sides have something."""
        compared, what = Comparison(pool.side, bench.side), f"comparing with {bench.side.name}"
        names = pool.side.names, bench.side.names
        compared.link("identity", same_keys(*names), names)
        await self.tell(what)
        if pool.sizes and bench.sizes:
            links = await same_files(pool, bench, self.tell)
            compared.link("file", links, (pool.sizes, bench.sizes))
            if self.settings.frames:
                async with DecodePool(self.looks, want="array", workers=self.settings.workers) as decoders:
                    await pool.sample(decoders, self.tell)
                    await bench.sample(decoders, self.tell)
                links = await same_frames(pool, bench, self.tell)
                compared.link("frames", links, (pool.seen, bench.seen))
        compared.compare_texts()
        await self.tell(what)
        return compared


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
