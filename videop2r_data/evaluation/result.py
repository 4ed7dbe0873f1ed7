"""The result of an evaluation, made of its journal alone: rows as Parquet, `result.json`, a page, tables."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson

from videop2r_data.backends import Journal, cost_usd
from videop2r_data.benchmarks import RowCounts, count_faults
from videop2r_data.builders import (
    VERSIONED,
    FolderWriter,
    Made,
    Parts,
    Tally,
    Workspace,
    locked_settings,
)
from videop2r_data.builders.sources import PoolDigest, open_source
from videop2r_data.errors import ConfigError, ExportError
from videop2r_data.evaluation.figures import Counts
from videop2r_data.evaluation.pools import chosen, selection
from videop2r_data.evaluation.questions import Questions, bad_row
from videop2r_data.files import TableWriter
from videop2r_data.schemas import (
    BadRow,
    Benchmark,
    BenchmarkResult,
    EvalPlan,
    EvalPool,
    EvalResult,
    EvalRow,
    Expected,
    Sample,
    Took,
    validate_settings,
)
from videop2r_data.version import __version__

if TYPE_CHECKING:
    from videop2r_data.builders import Observer

RESULT, TABLES, PAGE = "result.json", "README.md", "gallery.html"
RESULT_FOLDER = Made(
    "result", RESULT, re.compile(rf"{re.escape(RESULT)}|{TABLES}|{re.escape(PAGE)}|rows(/.*)?"), ("rows",)
)
_BREATHE = 64


async def write_result(
    plan: EvalPlan,
    place: Workspace,
    *,
    observer: Observer,
    least: int = 0,
    paths: Mapping[str, str] = MappingProxyType({}),
) -> EvalResult:
    """Write the folder from the journal: same plan, rows and journal, same bytes.

    Args:
        plan: what was asked.
        place: where it goes, with the work folder of the evaluation.
        observer: is told how far it is.
        least: answered questions below which nothing is written.
        paths: question -> where its clip lay when it was asked about.

    Raises:
        ExportError: the folder is not ours, cannot be written, or lacks answers.
    """
    # what shows a result is loaded when there is one
    from videop2r_data.evaluation.page import write_page
    from videop2r_data.evaluation.tables import render_tables

    try:
        with (
            Journal(place.journal, readonly=True) as journal,
            FolderWriter(place.out, partial(_tables, plan), RESULT_FOLDER) as writer,
        ):
            observer.begin("writing", None)
            # a model that may write anything: its breaker is never asked here
            parts = Parts(plan.recipe, place, journal, live=False, free=True, also=plan.also)
            made = _Pass(plan, parts, writer, paths)
            result = await made.run(observer)
            answered = sum(one.answered for one in result.benchmarks)
            if answered < least:
                raise ExportError(
                    f"of {least:,} answers of this result the journal and the rows now give {answered:,}",
                    where=str(place.journal),
                    hint="nothing was replaced; is it the journal of this evaluation, and are its benchmarks "
                    "the same rows? p2r-train eval with its plan asks what is missing",
                )
            form = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
            (writer.staging / RESULT).write_bytes(orjson.dumps(result.model_dump(mode="json"), option=form))
            (writer.staging / TABLES).write_text(render_tables(result), encoding="utf-8")
            found = {name: pool.source.media_root for name, pool in made.pools.items()}
            roots = {name: root for name, root in found.items() if root is not None}
            write_page(writer.staging / PAGE, place.out, result, plan, roots)
            writer.commit()
            return result
    except OSError as error:
        raise ExportError(
            f"cannot write the result: {error}",
            where=str(place.out),
            hint="the old result, if there was one, is untouched; free some space and run the same command",
        ) from None


def _below(folder: Path) -> str:
    """The results one folder deeper, where an evaluation of a run puts them."""
    found = sorted(path.parent for path in folder.glob(f"*/{RESULT}"))
    return f": {', '.join(map(str, found[:3]))}{', ...' if len(found) > 3 else ''}" if found else ""


def read_result(folder: Path) -> EvalResult:
    """The result in a folder.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / RESULT
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no result of an evaluation: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            hint=f"name a folder that p2r-train eval wrote{_below(folder)}",
        ) from None
    return validate_settings(data, EvalResult, where=str(path), what="result")


def _tables(plan: EvalPlan, folder: Path) -> Mapping[str, TableWriter]:
    def file(name: str, number: int) -> str:
        return f"rows/{name}{f'-{number}' if number else ''}.parquet"

    return {pool.name: TableWriter(folder, EvalRow, partial(file, pool.name)) for pool in plan.benchmarks}


class _Pool:
    """One benchmark, while its rows pass by."""

    def __init__(self, plan: EvalPlan, pool: EvalPool, declared: Benchmark, place: Workspace) -> None:
        self.pool, self.declared = pool, declared
        self.source = open_source(pool.source, base=place.base, demo_root=place.demo)
        self.counts = Counts(plan, (*declared.aggregates, *pool.aggregates), pool.is_whole)
        self.digest, self.read = PoolDigest(), RowCounts()
        self.bad = Counter[str]()
        self.calls = self.nano_usd = 0

    def result(
        self, file: str, sha256: str, seconds: Mapping[str, float], *, priced: bool
    ) -> BenchmarkResult:
        """What its rows come to."""
        pool, counts, source = self.pool, self.counts, self.source
        layout = str(getattr(source, "layout", ""))
        expected = self.declared.expects(layout) if layout and pool.demo is None else Expected()
        return BenchmarkResult(
            name=pool.name,
            title=self.declared.title if layout else pool.name,
            revision=str(getattr(source, "commit", "")) or pool.revision or "",
            layout=layout,
            rows_expected=expected.rows,
            rows_found=self.digest.rows,
            rows_bad=dict(sorted(self.bad.items())),
            rows_differ=count_faults(expected, self.read) if pool.is_whole else (),
            selection=selection(pool),
            questions=counts.questions,
            answered=counts.answered,
            failed=dict(sorted(counts.failed.items())),
            examples=dict(sorted(counts.examples.items())),
            unscored=counts.unscored,
            figures=counts.figures(),
            told=counts.told(),
            faithful=counts.belonging.result(),
            sent=counts.measured_behind(),
            calls=self.calls,
            usd=self.nano_usd / 1e9 if priced else None,
            took=Took.of(seconds[key] for key in counts.keys if key in seconds),
            pool_sha256=self.digest.hexdigest(),
            file=file,
            file_sha256=sha256,
        )


class _Pass:
    """Takes every question once more through its stages, with no call, in the order of the benchmarks."""

    def __init__(self, plan: EvalPlan, parts: Parts, writer: FolderWriter, paths: Mapping[str, str]) -> None:
        self.plan, self.parts, self.writer, self.paths = plan, parts, writer, paths
        self.recorders = parts.record()
        self.questions = Questions(plan, parts)
        declared = self.questions.grader.benchmarks
        self.pools = {
            pool.name: _Pool(plan, pool, declared[pool.name], parts.place) for pool in plan.benchmarks
        }
        self.served: Counter[str] = Counter()

    async def run(self, observer: Observer) -> EvalResult:
        """Write every row; the result says what they come to."""
        tally = Tally()
        for row in self._asked():
            pool = self.pools[row.source]
            if isinstance(row, BadRow):
                tally.add(row)
                pool.bad[row.reason.value] += 1
                graded = bad_row(row)
            else:
                question = await self.questions.ask(row)
                tally.add(self.questions.result(question))
                self._bill(pool)
                graded = question.row()
            pool.counts.add(graded)
            self.writer.configs[row.source].add(graded.model_dump(mode="json"))
            observer.step(tally, self.parts)
            if tally.rows % _BREATHE == 0:
                await asyncio.sleep(0)
        files = self.writer.close()
        priced = any(spec.price is not None for spec in self.parts.backends.values())
        seconds = read_seconds(self.parts.place.work)
        places = {name: f"rows/{name}.parquet" for name in self.pools}
        return EvalResult(
            name=self.plan.name,
            plan=locked_settings(self.plan),
            model=self.plan.backend.model,
            served=dict(sorted(self.served.items())),
            prompts=self.questions.prompts(),
            versions={"videop2r-data": __version__} | {name: version(name) for name in VERSIONED},
            benchmarks=tuple(
                pool.result(places[name], files[places[name]].sha256, seconds, priced=priced)
                for name, pool in self.pools.items()
            ),
        )

    def _asked(self) -> Iterator[Sample | BadRow]:
        """The rows that are asked; all of them are counted."""
        wanted = chosen(self.plan, self.parts.place)
        for pool in self.pools.values():
            pool.source.check()
        for pool in self.pools.values():
            for read in pool.source.rows():
                # of several places of a clip the one where it lay when it was asked about
                path = self.paths.get(read.sample_id) if isinstance(read, Sample) else None
                row = read.model_copy(update={"path": path}) if path else read
                pool.digest.update(row)
                pool.read.add(row)
                if wanted(row):
                    yield row

    def _bill(self, pool: _Pool) -> None:
        """Count the answers behind one question."""
        for step, recorder in self.recorders.items():
            for _, answer in recorder.calls:
                if answer is None or (completion := answer.completion) is None:
                    continue
                pool.calls += 1
                self.served[completion.model] += step == "generate"
                if (price := self.parts.backends[step].price) is not None:
                    pool.nano_usd += round(
                        cost_usd(completion.usage, price, batched=completion.batched) * 1e9
                    )
            recorder.calls.clear()


def paths_in(folder: Path, result: EvalResult) -> dict[str, str]:
    """Question -> its clip, of the benchmarks of a result whose rows are still there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, str] = {}
    declared = {pool["name"] for pool in result.plan["benchmarks"] if pool.get("kind") == "benchmark"}
    for one in result.benchmarks:
        with suppress(OSError, pa.ArrowException):
            if one.name in declared:
                table = pq.read_table(folder / one.file, columns=["sample_id", "path"])
                found |= zip(*(column.to_pylist() for column in table.columns), strict=True)
    return found


# How long calls took is noted beside the journal, as they end, and is no part of a result.


SECONDS = "seconds.tsv"
"""In the work folder: key and seconds of each answered request."""


def read_seconds(work: Path) -> dict[str, float]:
    """Request -> seconds of its call, of all runs; a line that a crash cut is left out."""
    found: dict[str, float] = {}
    with suppress(OSError):
        for line in (work / SECONDS).read_text("utf-8", errors="replace").splitlines():
            key, _, seconds = line.partition("\t")
            with suppress(ValueError):
                found[key] = float(seconds)
    return found


def all_failed(result: EvalResult) -> bool:
    """Whether no question of any benchmark got an answer."""
    return not any(benchmark.answered for benchmark in result.benchmarks)


def plan_in(result: EvalResult, changes: Mapping[str, Any]) -> EvalPlan:
    """The plan of a result, with other settings of scoring.

    Raises:
        ConfigError: they do not fit.
    """
    data = result.plan | dict(changes)
    return validate_settings(data, EvalPlan, where="the plan of the result", what="plan")
