"""`p2r-data overlap`: read both sides, compare them, write what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import orjson

from videop2r_data.builders.overlap.compare import Comparison, OverlapRow, by_identity
from videop2r_data.builders.overlap.identity import Namespaces, load_namespaces
from videop2r_data.builders.overlap.sides import Opened, Side, open_sides
from videop2r_data.builders.run import Stop
from videop2r_data.errors import ConfigError, SourceError, StoppedError
from videop2r_data.files import OVERLAP_NAME
from videop2r_data.schemas import Overlap, OverlapBench, Shared, Signal

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
    """

    pool: str
    against: Sequence[str]
    out: Path
    media: Mapping[str, Path] = field(default_factory=dict)
    namespaces: Path | None = None


async def find_overlap(settings: OverlapSettings, *, progress: Progress, stop: Stop) -> Overlap:
    """Compare a pool with evaluation sets; writes `overlap.json` and `rows.parquet`.

    Raises:
        ConfigError, SourceError: a side cannot be opened or read.
        StoppedError: asked to stop; what was read of clips is kept.
    """
    work = settings.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    namespaces = load_namespaces(settings.namespaces)
    (pool,) = open_sides(settings.pool, media=settings.media, work=work)
    opened = [
        one
        for said in settings.against
        for one in open_sides(said, media=settings.media, work=work, apart=True)
    ]
    _names_differ(opened)
    left = await _read(pool, namespaces, progress, stop)
    found = []
    for one in opened:
        right = await _read(one, namespaces, progress, stop)
        progress(f"comparing with {right.name}", 0, None)
        await _breathe(stop)
        compared = Comparison(left, right)
        compared.link("identity", by_identity(left, right), _nameless(left, right))
        compared.compare_texts()
        await _breathe(stop)
        found.append(compared)
    report = _report(left, [one.report() for one in found])
    _write(settings.out, report, (row for one in found for row in one.rows()))
    return report


def _names_differ(sides: Iterable[Opened]) -> None:
    names = [side.name for side in sides]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two evaluation sets are called {', '.join(twice)}", hint="--against NAME=WHAT gives a name"
        )


async def _breathe(stop: Stop) -> None:
    """Let signals and the display have their turn.

    Raises:
        StoppedError: asked to stop.
    """
    await asyncio.sleep(0)
    if stop.asked:
        raise StoppedError("stopped before everything was compared")


async def _read(opened: Opened, namespaces: Namespaces, progress: Progress, stop: Stop) -> Side:
    side = Side(opened)
    what = f"reading {opened.name}"
    progress(what, 0, None)
    for count in side.take(opened.rows, namespaces):
        await _breathe(stop)
        progress(what, count, None)
    if not len(side):
        raise SourceError(
            f"none of its {side.bad:,} rows can be read",
            where=opened.name,
            hint="name it by a recipe whose source says how, and look with p2r-data check",
        )
    progress(what, len(side), len(side))
    return side


def _nameless(*sides: Side) -> tuple[list[int], list[int]]:
    """Clips whose names say nothing, on both sides."""
    mine, theirs = ([clip for clip, ids in enumerate(side.identities) if not ids] for side in sides)
    return mine, theirs


def _report(pool: Side, benches: list[OverlapBench]) -> Overlap:
    looked = tuple(signal for signal in SIGNALS if all(signal in bench.bench for bench in benches))
    return Overlap(
        pool=pool.name,
        rows=len(pool),
        bad=pool.bad,
        sources=pool.facts,
        files=dict(pool.files),
        looked=looked,
        benches=benches,
        statement=" ".join(_statement(bench, looked) for bench in benches),
    )


_WORDS: dict[Signal, str] = {
    "identity": "are about a clip or image of the pool by the id in its name",
    "file": "are about a file that the pool has too, byte for byte",
    "frames": "are about a clip or image whose frames are in the pool",
    "text": "are worded as a question of the pool is, whatever it is about",
    "both": "ask about a clip of the pool what the pool asks about it",
}


def _statement(bench: OverlapBench, looked: Sequence[Signal]) -> str:
    """What was found, what was not looked at, and what nobody can say."""
    parts = [f"{_of(bench.bench[signal], signal)} {_WORDS[signal]}" for signal in looked]
    text = f"Of the {bench.rows:,} rows of {bench.name} that could be read, {'; '.join(parts)}."
    missing = [signal for signal in SIGNALS if signal not in looked]
    if missing:
        text += f" Not looked for: {', '.join(missing)}."
    return text


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
