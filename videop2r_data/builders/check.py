"""Look at every row and every media file of a recipe before anything is spent."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from videop2r_data.builders.check_report import (
    BadFile,
    CheckReport,
    FileWarning,
    MediaFault,
    MediaStats,
    SourceCheck,
    Spread,
    total_seconds,
)
from videop2r_data.builders.sources import BadRow, Source, open_source
from videop2r_data.errors import MediaError, SourceError
from videop2r_data.media import DecodePool, MediaProbe, resolve_media
from videop2r_data.schemas.reasons import RejectReason
from videop2r_data.schemas.recipe import Recipe, SourceSpec
from videop2r_data.schemas.sample import DataType, Sample

__all__ = ["CheckReport", "Progress", "check_pool"]

EXAMPLES = 20
"""Files per reason, bad rows and warnings that a report names."""
EXAMPLE_ROWS = 5
"""Rows that a report names per file."""

Progress = Callable[[str, int, int], None]
"""Called with source name, files done, files in all, after each file."""


async def check_pool(
    recipe: Recipe,
    *,
    base: Path,
    demo_root: Path | None = None,
    deep: bool = False,
    progress: Progress | None = None,
    on_bad: Callable[[str, BadRow | BadFile], None] | None = None,
) -> CheckReport:
    """Read every source and look once at every media file that its rows need.

    Memory grows by about 250 bytes a row and 300 bytes a file (260,000 rows over 100,000 files: 100 MB).
    The report does not depend on the number of decoder processes.

    Args:
        recipe: what to check; its media settings give the limits.
        base: folder of the recipe.
        demo_root: where demo worlds lie or are written.
        deep: decode every frame: finds damage inside complete files, at about 100 times the work.
        progress: see `Progress`.
        on_bad: called with the source's name and every bad row and bad file, the latter with all its rows;
            the report itself names only the first of each kind.

    Raises:
        ConfigError: no decoder process can be started here.
        MissingExtraError: the recipe's decoder is not installed.
    """
    checks: list[SourceCheck] = []
    async with DecodePool(recipe.media, want="encoded") as pool:
        for spec in recipe.sources:
            tally = _Tally(spec)
            tally.read(base, demo_root, on_bad)
            await _probe_all(tally, pool, deep=deep, progress=progress)
            checks.append(tally.result(on_bad))
    return CheckReport.of(checks, deep=deep)


@dataclass
class _Measures:
    """Numbers of the usable files of one kind, 8 bytes each."""

    bytes: int = 0
    width: array[float] = field(default_factory=lambda: array("d"))
    height: array[float] = field(default_factory=lambda: array("d"))
    frames: array[float] = field(default_factory=lambda: array("d"))
    duration_s: array[float] = field(default_factory=lambda: array("d"))
    fps: array[float] = field(default_factory=lambda: array("d"))

    def add(self, probe: MediaProbe) -> None:
        self.bytes += probe.file_bytes
        self.width.append(probe.width)
        self.height.append(probe.height)
        self.frames.append(probe.frames)
        if probe.duration_s is not None:
            self.duration_s.append(probe.duration_s)
        if probe.fps is not None:
            self.fps.append(probe.fps)

    def stats(self) -> MediaStats | None:
        width, height, frames = Spread.of(self.width), Spread.of(self.height), Spread.of(self.frames)
        if width is None or height is None or frames is None:
            return None
        return MediaStats(
            files=len(self.width),
            bytes=self.bytes,
            width=width,
            height=height,
            frames=frames,
            duration_s=Spread.of(self.duration_s),
            fps=Spread.of(self.fps),
            total_s=total_seconds(self.duration_s),
        )


_File = tuple[str, DataType]


class _Tally:
    """What is known of one source while it is looked at."""

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        self.source: Source | None = None
        self.error: str | None = None
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.bad_examples: list[BadRow] = []
        self.table: dict[str, Counter[str]] = defaultdict(Counter)
        self.text_rows = 0
        # In the order of first need; the rows of a file by problem_id, which is short.
        self.files: dict[_File, list[str]] = {}
        self.bad_files: dict[int, tuple[RejectReason, str]] = {}
        self.warned: dict[int, list[str]] = {}
        self.measures = {DataType.VIDEO: _Measures(), DataType.IMAGE: _Measures()}

    def read(
        self, base: Path, demo_root: Path | None, on_bad: Callable[[str, BadRow | BadFile], None] | None
    ) -> None:
        """Take in every row; a pool that breaks off is noted, its rows so far are kept."""
        try:
            self.source = open_source(self.spec, base=base, demo_root=demo_root)
            for row in self.source.rows():
                self._add(row)
                if on_bad and isinstance(row, BadRow):
                    on_bad(self.spec.name, row)
        except SourceError as error:
            self.error = str(error)

    def _add(self, row: Sample | BadRow) -> None:
        self.rows += 1
        if isinstance(row, BadRow):
            self.bad[row.reason.value] += 1
            if len(self.bad_examples) < EXAMPLES:
                self.bad_examples.append(row)
            return
        self.table[row.data_type.value][row.problem_type.value] += 1
        if row.data_type is DataType.TEXT:
            self.text_rows += 1
        else:
            self.files.setdefault((row.path, row.data_type), []).append(row.problem_id)

    def found(self, index: int, data_type: DataType, probe: MediaProbe) -> None:
        """A usable file."""
        self.measures[data_type].add(probe)
        if probe.warnings:
            self.warned[index] = list(probe.warnings)

    def failed(self, index: int, error: MediaError) -> None:
        """A file that cannot be used."""
        self.bad_files[index] = (RejectReason(error.reason), error.message)

    def result(self, on_bad: Callable[[str, BadRow | BadFile], None] | None) -> SourceCheck:
        """Everything in the order of the pool, whatever order the files were finished in."""
        faults: dict[RejectReason, list[BadFile]] = defaultdict(list)
        files: Counter[RejectReason] = Counter()
        rows: Counter[RejectReason] = Counter()
        warnings: list[FileWarning] = []
        for index, ((path, data_type), ids) in enumerate(self.files.items()):
            if index in self.warned and len(warnings) < EXAMPLES:
                warnings.append(FileWarning(path=path, warnings=self.warned[index]))
            if index not in self.bad_files:
                continue
            reason, _ = self.bad_files[index]
            files[reason] += 1
            rows[reason] += len(ids)
            if on_bad:
                on_bad(self.spec.name, self._bad_file(index, path, data_type, ids, len(ids)))
            if len(faults[reason]) < EXAMPLES:
                faults[reason].append(self._bad_file(index, path, data_type, ids, EXAMPLE_ROWS))
        root = self.source.media_root if self.source else None
        return SourceCheck(
            name=self.spec.name,
            kind=self.spec.kind,
            media_root=str(root) if root is not None else None,
            error=self.error,
            rows=self.rows,
            bad_rows=dict(self.bad.most_common()),
            bad_examples=self.bad_examples,
            table={kind: dict(sorted(types.items())) for kind, types in sorted(self.table.items())},
            files=len(self.files),
            files_ok=len(self.files) - len(self.bad_files),
            rows_ok=self.rows - self.bad.total() - rows.total(),
            faults=[
                MediaFault(reason=reason, files=files[reason], rows=rows[reason], examples=faults[reason])
                for reason in sorted(files, key=lambda r: (-files[r], r.value))
            ],
            videos=self.measures[DataType.VIDEO].stats(),
            images=self.measures[DataType.IMAGE].stats(),
            warned=len(self.warned),
            warnings=warnings,
        )

    def _bad_file(self, index: int, path: str, data_type: DataType, ids: list[str], limit: int) -> BadFile:
        reason, detail = self.bad_files[index]
        return BadFile(
            path=path,
            data_type=data_type,
            reason=reason,
            detail=detail,
            rows=len(ids),
            sample_ids=[f"{self.spec.name}/{problem_id}" for problem_id in ids[:limit]],
        )


async def _probe_all(tally: _Tally, pool: DecodePool, *, deep: bool, progress: Progress | None) -> None:
    """Look at every file of a source, as many at a time as there are decoder processes."""
    todo = iter(enumerate(tally.files))
    done = 0

    async def worker() -> None:
        nonlocal done
        for index, (path, data_type) in todo:
            try:
                tally.found(index, data_type, await _probe(tally.source, pool, path, data_type, deep=deep))
            except MediaError as error:
                tally.failed(index, error)
            done += 1
            if progress:
                progress(tally.spec.name, done, len(tally.files))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(pool.workers, len(tally.files))):
                group.create_task(worker())
    except BaseExceptionGroup as group_error:  # one cause is enough, and callers know its type
        raise _first(group_error) from None


async def _probe(
    source: Source | None, pool: DecodePool, path: str, data_type: DataType, *, deep: bool
) -> MediaProbe:
    root = source.media_root if source else None
    if root is None:
        raise MediaError(
            "the source has no media_root: set it in the recipe",
            reason=RejectReason.MEDIA_MISSING,
            where=path,
        )
    file = resolve_media(root, path)
    return await pool.probe(file, "video" if data_type is DataType.VIDEO else "image", deep)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    return next(_leaves(group))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
