"""The result of an evaluation, made of its journal alone: rows as Parquet, `result.json`, a page, tables."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
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
from videop2r_data.evaluation.questions import Question, Questions, bad_row
from videop2r_data.files import TableWriter
from videop2r_data.schemas import (
    BadRow,
    BenchmarkResult,
    EvalPlan,
    EvalPool,
    EvalResult,
    EvalRow,
    Expected,
    FileLock,
    Sample,
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


async def write_result(plan: EvalPlan, place: Workspace, *, observer: Observer, least: int = 0) -> EvalResult:
    """Write the folder from the journal: same plan, rows and journal, same bytes.

    Args:
        plan: what was asked.
        place: where it goes, with the work folder of the evaluation.
        observer: is told how far it is.
        least: answered questions below which nothing is written.

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
            made = _Pass(plan, parts, writer)
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
            roots = {name: s.media_root for name, s in made.sources.items() if s.media_root is not None}
            write_page(writer.staging / PAGE, place.out, result, plan, roots)
            writer.commit()
            return result
    except OSError as error:
        raise ExportError(
            f"cannot write the result: {error}",
            where=str(place.out),
            hint="the old result, if there was one, is untouched; free some space and run the same command",
        ) from None


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
            hint="name a folder that p2r-train eval wrote",
        ) from None
    return validate_settings(data, EvalResult, where=str(path), what="result")


def _tables(plan: EvalPlan, folder: Path) -> Mapping[str, TableWriter]:
    def file(name: str, number: int) -> str:
        return f"rows/{name}{f'-{number}' if number else ''}.parquet"

    return {pool.name: TableWriter(folder, EvalRow, partial(file, pool.name)) for pool in plan.benchmarks}


class _Pass:
    """Takes every question once more through its stages, with no call, in the order of the benchmarks."""

    def __init__(self, plan: EvalPlan, parts: Parts, writer: FolderWriter) -> None:
        self.plan, self.parts, self.writer = plan, parts, writer
        self.recorders = parts.record()
        self.questions = Questions(plan, parts)
        place, declared = parts.place, self.questions.grader.benchmarks
        self.counts = {
            pool.name: Counts(plan, (*declared[pool.name].aggregates, *pool.aggregates))
            for pool in plan.benchmarks
        }
        self.digests = {pool.name: PoolDigest() for pool in plan.benchmarks}
        self.read = {pool.name: RowCounts() for pool in plan.benchmarks}
        self.sources = {
            pool.name: open_source(pool.source, base=place.base, demo_root=place.demo)
            for pool in plan.benchmarks
        }
        self.bad = {pool.name: Counter[str]() for pool in plan.benchmarks}
        self.calls: Counter[str] = Counter()
        self.usd: Counter[str] = Counter()
        self.served: Counter[str] = Counter()

    async def run(self, observer: Observer) -> EvalResult:
        """Ask every question and write what came of it."""
        tally = Tally()
        for row in self._asked():
            if isinstance(row, BadRow):
                tally.add(row)
                self.bad[row.source][row.reason.value] += 1
                self._put(bad_row(row))
            else:
                question = await self.questions.ask(row)
                tally.add(self.questions.result(question))
                self._bill(row.source)
                self._put(question.row())
            observer.step(tally, self.parts)
            if tally.rows % _BREATHE == 0:
                await asyncio.sleep(0)
        files = self.writer.close()
        return EvalResult(
            name=self.plan.name,
            plan=locked_settings(self.plan),
            model=self.plan.backend.model,
            served=dict(sorted(self.served.items())),
            prompts=self.questions.prompts(),
            versions={"videop2r-data": __version__} | {name: version(name) for name in VERSIONED},
            benchmarks=tuple(self._benchmark(pool, files) for pool in self.plan.benchmarks),
        )

    def _asked(self) -> Iterator[Sample | BadRow]:
        """The rows that are asked; all of them are counted."""
        wanted = chosen(self.plan, self.parts.place)
        for source in self.sources.values():
            source.check()
        for name, source in self.sources.items():
            for row in source.rows():
                self.digests[name].update(row)
                self.read[name].add(row)
                if wanted(row):
                    yield row

    def _put(self, row: EvalRow) -> None:
        self.counts[row.benchmark].add(row)
        self.writer.configs[row.benchmark].add(row.model_dump(mode="json"))

    def _bill(self, benchmark: str) -> None:
        """Count the answers behind one question."""
        specs = self.parts.backends
        for step, recorder in self.recorders.items():
            for _, answer in recorder.calls:
                if answer is None or (completion := answer.completion) is None:
                    continue
                self.calls[benchmark] += 1
                if step == "generate":
                    self.served[completion.model] += 1
                if (price := specs[step].price) is not None:
                    nano = round(cost_usd(completion.usage, price, batched=completion.batched) * 1e9)
                    self.usd[benchmark] += nano
            recorder.calls.clear()

    def _benchmark(self, pool: EvalPool, files: Mapping[str, FileLock]) -> BenchmarkResult:
        counts, rows = self.counts[pool.name], self.digests[pool.name]
        declared, source = self.questions.grader.benchmarks[pool.name], self.sources[pool.name]
        layout = str(getattr(source, "layout", ""))
        expected = declared.expects(layout) if layout and pool.demo is None else Expected()
        differ = count_faults(expected, self.read[pool.name]) if pool.is_whole else ()
        file = f"rows/{pool.name}.parquet"
        priced = any(spec.price is not None for spec in self.parts.backends.values())
        return BenchmarkResult(
            name=pool.name,
            title=declared.title if layout else pool.name,
            revision=str(getattr(source, "commit", "")) or pool.revision or "",
            layout=layout,
            rows_expected=expected.rows,
            rows_found=rows.rows,
            rows_bad=dict(sorted(self.bad[pool.name].items())),
            rows_differ=differ,
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
            calls=self.calls[pool.name],
            usd=self.usd[pool.name] / 1e9 if priced else None,
            pool_sha256=rows.hexdigest(),
            file=file,
            file_sha256=files[file].sha256,
        )


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


__all__ = ["Question", "all_failed", "plan_in", "read_result", "write_result"]
