"""`check` and `doctor`: look at all that a build needs before anything is spent."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import get_args

from videop2r_data.builders.checks.needs import Calls, look_at_servers, look_at_setup
from videop2r_data.builders.checks.report import (
    BadFile,
    CheckReport,
    DoctorReport,
    FileLine,
    FileWarning,
    Finding,
    Measures,
    MediaFault,
    SourceCheck,
    State,
    no_error,
)
from videop2r_data.builders.checks.trial import TrialRows
from videop2r_data.builders.sources import open_source
from videop2r_data.builders.steps import Wanted
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import MediaError, P2RError
from videop2r_data.files import file_size, kind_by_ending, resolve_media
from videop2r_data.media import DecodePool, MediaKind, MediaProbe
from videop2r_data.schemas import (
    BadRow,
    DataType,
    MediaSpec,
    Recipe,
    RejectReason,
    Sample,
    SourceSpec,
    TimesKind,
)

# The tally of one source while its rows and files are looked at.


EXAMPLES = 20
"""Files per reason, bad rows and warnings that a report names."""
EXAMPLE_ROWS = 5
"""Rows that a report names per file."""
LONG = 80
"""Characters of a warning above which its detail after the colon is left out of its kind."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
OnFile = Callable[[FileLine], None]
"""Called with every file and every bad row, in the order of the pool."""


_File = tuple[str, DataType]


class SourceTally:
    """One source of a kind, or a `folder`."""

    def __init__(self, name: str, kind: str, on_file: OnFile | None = None) -> None:
        self.name, self.kind = name, kind
        self.root: Path | None = None
        self.error: str | None = None
        self.note = ""
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.bad_examples: list[BadRow] = []
        self.table: dict[str, Counter[str]] = defaultdict(Counter)
        # In the order of first need; the rows of a file are kept by problem_id, which is short.
        self.files: dict[_File, list[str]] = {}
        self.bad_files: dict[int, tuple[RejectReason, str]] = {}
        self.warned: dict[int, list[str]] = {}
        self.kinds: Counter[str] = Counter()
        """Warning -> files; the first words stand for all, as the rest are this file's numbers."""
        self.times: Counter[str] = Counter()
        self.left_out = 0
        """Files of a folder that are neither clip nor image by their ending."""
        self.measures = {DataType.VIDEO: Measures(), DataType.IMAGE: Measures()}
        self._begins: dict[_File, list[tuple[float, int, str]]] = defaultdict(list)
        """Where the parts begin that rows are about, with the place and the problem_id of the row."""
        self.outside: dict[int, BadRow] = {}
        """Rows about a part that lies outside of their clip."""
        self._on_file = on_file
        self._lines: dict[int, list[FileLine]] = {}
        self._told = 0

    def read(
        self,
        rows: Iterable[Sample | BadRow],
        trial: TrialRows | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        """Take in every row; a pool that breaks off is noted, its rows so far are kept."""
        try:
            for row in rows:
                self.rows += 1
                if wanted is not None and not wanted(row):
                    continue
                if isinstance(row, BadRow):
                    self._add_bad(row)
                    continue
                self.table[row.data_type.value][row.problem_type.value] += 1
                if row.data_type is not DataType.TEXT:
                    self.files.setdefault((row.path, row.data_type), []).append(row.problem_id)
                if row.start_s is not None:
                    part = (row.start_s, row.row, row.problem_id)
                    self._begins[row.path, row.data_type].append(part)
                if trial is not None:
                    trial.see(row, self.root)
        except P2RError as error:
            self.error = str(error)

    def _add_bad(self, row: BadRow) -> None:
        self.bad[row.reason.value] += 1
        if len(self.bad_examples) < EXAMPLES:
            self.bad_examples.append(row)
        if self._on_file:
            self._on_file(self._row_line(row))

    def _row_line(self, row: BadRow) -> FileLine:
        ids = [row.sample_id] if row.sample_id else []
        told = {"reason": row.reason.value, "detail": row.detail, "row": row.row, "sample_ids": ids}
        return FileLine(what="row", source=self.name, ok=False, **told)

    def found(self, index: int, data_type: DataType, probe: MediaProbe) -> None:
        """A usable file."""
        self.measures[data_type].add(probe)
        if probe.times is not None:
            self.times[probe.times] += 1
        if probe.warnings:
            self.warned[index] = list(probe.warnings)
            self.kinds.update(warning_kind(text) for text in probe.warnings)
        self._tell(index, self._outside(index, probe), probe=probe)

    def _outside(self, index: int, probe: MediaProbe) -> list[BadRow]:
        """The rows about a part that begins when the clip has ended."""
        if not self._begins:
            return []
        file, reason, end = self._places[index][0], RejectReason.MEDIA_OUTSIDE, probe.duration_s
        found = []
        for start_s, row, name in self._begins.pop(file, ()):
            if end is not None and start_s >= end > 0:
                detail = f"the part from {start_s:g} s lies outside of {file[0]}, which ends at {end:g} s"
                bad = BadRow(source=self.name, row=row, problem_id=name, reason=reason, detail=detail)
                found.append(bad)
        self.outside |= {bad.row: bad for bad in found}
        return found

    def failed(self, index: int, error: MediaError) -> None:
        """A file that cannot be used."""
        self.bad_files[index] = (RejectReason(error.reason), error.message)
        self._tell(index)

    def _tell(self, index: int, rows: Iterable[BadRow] = (), *, probe: MediaProbe | None = None) -> None:
        """Pass lines on in the order of the pool: at most as many wait as files are under way."""
        if self._on_file is None:
            return
        (path, data_type), ids = self._places[index]
        reason, detail = self.bad_files.get(index, (None, ""))
        line = FileLine(
            what="file",
            source=self.name,
            path=path,
            data_type=data_type,
            ok=reason is None,
            reason=reason.value if reason else "",
            detail=detail,
            rows=len(ids),
            sample_ids=[f"{self.name}/{problem_id}" for problem_id in ids],
            probe=probe,
        )
        self._lines[index] = [line, *map(self._row_line, rows)]
        while self._told in self._lines:
            for told in self._lines.pop(self._told):
                self._on_file(told)
            self._told += 1

    @cached_property
    def _places(self) -> list[tuple[_File, list[str]]]:
        return list(self.files.items())  # all rows are read before the first file is looked at

    def _first_bad(self) -> list[BadRow]:
        return [*self.bad_examples, *(self.outside[row] for row in sorted(self.outside))][:EXAMPLES]

    def result(self) -> SourceCheck:
        """Everything in the order of the pool, whatever order the files were finished in."""
        faults: dict[RejectReason, list[BadFile]] = defaultdict(list)
        files, rows = Counter[RejectReason](), Counter[RejectReason]()
        warnings: list[FileWarning] = []
        bad = self.bad + Counter(row.reason.value for row in self.outside.values())
        for index, ((path, data_type), ids) in enumerate(self.files.items()):
            if index in self.warned and len(warnings) < EXAMPLES:
                warnings.append(FileWarning(path=path, warnings=self.warned[index]))
            if index not in self.bad_files:
                continue
            reason, detail = self.bad_files[index]
            files[reason] += 1
            rows[reason] += len(ids)
            if len(faults[reason]) < EXAMPLES:
                shown = [f"{self.name}/{problem_id}" for problem_id in ids[:EXAMPLE_ROWS]]
                faults[reason].append(
                    BadFile(
                        path=path,
                        data_type=data_type,
                        reason=reason,
                        detail=detail,
                        rows=len(ids),
                        sample_ids=shown,
                    )
                )
        return SourceCheck(
            name=self.name,
            kind=self.kind,
            media_root=str(self.root) if self.root is not None else None,
            error=self.error,
            note=self.note,
            rows=self.rows,
            bad_rows=dict(bad.most_common()),
            bad_examples=self._first_bad(),
            table={kind: dict(sorted(types.items())) for kind, types in sorted(self.table.items())},
            files=len(self.files),
            files_ok=len(self.files) - len(self.bad_files),
            rows_ok=self.rows - bad.total() - rows.total(),
            faults=[
                MediaFault(reason=reason, files=files[reason], rows=rows[reason], examples=faults[reason])
                for reason in sorted(files, key=lambda r: (-files[r], r.value))
            ],
            videos=self.measures[DataType.VIDEO].stats(),
            images=self.measures[DataType.IMAGE].stats(),
            warned=len(self.warned),
            left_out=self.left_out,
            times={kind: n for kind in get_args(TimesKind) if (n := self.times.get(kind))},
            warning_kinds=dict(self.kinds.most_common()),
            warnings=warnings,
        )

    def finding(self) -> Finding:
        """The rows alone, in one line."""
        bad = self.bad.total()
        told = f"source {self.name}: {self.rows:,} rows, {bad:,} of them cannot be used"
        if self.error is not None:
            message, _, hint = self.error.partition("\n")
            return Finding(
                about="pool",
                state="error",
                message=message if message.startswith("source ") else f"source {self.name}: {message}",
                hint=" ".join(hint.split()) or "p2r-data check reads it in full",
            )
        state: State = "warning" if bad else "ok"
        hint = "p2r-data check names them and their reasons" if bad else ""
        return Finding(about="pool", state=state, message=told, hint=hint)


def warning_kind(text: str) -> str:
    """The words of a warning without its numbers, so that equal warnings are counted together.

    >>> warning_kind("its header promises 49 frames, 48 packets are there")
    'its header promises N frames, N packets are there'
    """
    return _NUMBER.sub("N", text.partition(": ")[0] if len(text) > LONG else text)


# The four commands: a recipe with everything it needs, its servers, its pool, or a folder of media.


Progress = Callable[[str, int, int], None]
"""Called with source name, files done, files in all, after each file."""


async def check_recipe(
    recipe: Recipe,
    place: Workspace,
    *,
    deep: bool = False,
    calls: Calls = "one-frame",
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    on_file: OnFile | None = None,
) -> CheckReport:
    """Check rows, media, settings and servers; a fault in one part does not hide the others.

    Args:
        deep: decode every frame of every file.
        calls: what to ask the servers; see `Calls`.
        tell: is told what is being waited for.
        on_file: is given every file and every bad row, in the order of the pool.

    Raises:
        ConfigError: no decoder process can be started here.
    """
    rows = TrialRows()
    report = await check_pool(
        recipe,
        base=place.base,
        demo_root=place.demo,
        deep=deep,
        progress=progress,
        on_file=on_file,
        trial=rows,
    )
    setup = look_at_setup(recipe, place, rows=rows.good)
    servers = await look_at_servers(recipe, place, rows, calls=calls, tell=tell)
    return report.joined(setup, servers)


async def doctor(
    recipe: Recipe, place: Workspace, *, calls: Calls = "full", tell: Callable[[str], None] = lambda _: None
) -> DoctorReport:
    """Settings and servers, with the requests of a real build; of the media only those that a request needs.

    Nothing is written to the workspace but a demo world, if the recipe asks for one. `tell` is told what is
    being waited for.
    """
    rows = TrialRows()
    tell("reading the pool")
    tallies = [SourceTally(spec.name, spec.kind) for spec in recipe.sources]
    for spec, tally in zip(recipe.sources, tallies, strict=True):
        _read(tally, spec, base=place.base, demo_root=place.demo, trial=rows)
    setup = look_at_setup(recipe, place, rows=rows.good)
    setup += [tally.finding() for tally in tallies]
    servers = await look_at_servers(recipe, place, rows, calls=calls, tell=tell)
    return DoctorReport(
        ok=no_error(setup) and all(server.ok for server in servers),
        setup=setup,
        servers=servers,
        calls_usd=sum(call.usd for server in servers for call in server.calls),
    )


async def check_pool(
    recipe: Recipe,
    *,
    base: Path,
    demo_root: Path | None = None,
    deep: bool = False,
    progress: Progress | None = None,
    on_file: OnFile | None = None,
    trial: TrialRows | None = None,
    wanted: Wanted | None = None,
    opened: int | None = None,
) -> CheckReport:
    """Read every source and look once at every media file that its rows need.

    Memory grows by about 250 bytes a row and 300 bytes a file (260,000 rows over 100,000 files: 100 MB).
    The report does not depend on the number of decoder processes. Files are looked at with PyAV, whatever
    decoder the recipe names.

    Args:
        base: folder of the recipe.
        demo_root: where demo worlds lie or are written.
        deep: decode every frame: finds damage inside complete files, at about 100 times the work.
        on_file: called with every file and every bad row, in the order of the pool; the report itself names
            only the first of each kind.
        trial: takes in the rows that a trial call may be about.
        wanted: rows whose media are looked at; None: all.
        opened: files of each source that are opened, evenly spaced; the others are only looked for. None:
            all of them.

    Raises:
        ConfigError: no decoder process can be started here.
    """
    checks = []
    async with _probes(recipe.media) as pool:
        for spec in recipe.sources:
            tally = SourceTally(spec.name, spec.kind, on_file)
            _read(tally, spec, base=base, demo_root=demo_root, trial=trial, wanted=wanted)
            await _probe_all(tally, pool, deep=deep, progress=progress, opened=opened)
            checks.append(tally.result())
    return CheckReport.of(checks, deep=deep)


async def check_folder(
    folder: Path, *, deep: bool = False, progress: Progress | None = None, on_file: OnFile | None = None
) -> CheckReport:
    """Look at every clip and image of a folder and of those in it, without a recipe.

    What a file is, is told by its ending; hidden files and other endings are left out and counted.

    Raises:
        ConfigError: no decoder process can be started here.
    """
    tally = SourceTally(folder.resolve().name or "folder", "folder", on_file)
    tally.root = folder
    for path in sorted(folder.rglob("*")):
        shown = path.relative_to(folder)
        if any(part.startswith(".") for part in shown.parts) or not path.is_file():
            continue
        if (kind := kind_by_ending(path)) is not None:
            tally.rows += 1  # a file without known rows counts as one
            tally.files[shown.as_posix(), kind] = [shown.as_posix()]
        else:
            tally.left_out += 1
    if not tally.files:
        tally.error = "no clip and no image in it\n  name a folder of media, or the YAML file of a recipe"
    async with _probes(MediaSpec()) as pool:
        await _probe_all(tally, pool, deep=deep, progress=progress)
    return CheckReport.of([tally.result()], deep=deep)


def _probes(media: MediaSpec) -> DecodePool:
    """Decoder processes for probes: those are made by PyAV, so that a missing decord hides no other fault."""
    return DecodePool(media.model_copy(update={"decoder": "pyav"}), want="encoded")


def _read(
    tally: SourceTally,
    spec: SourceSpec,
    *,
    base: Path,
    demo_root: Path | None,
    trial: TrialRows | None,
    wanted: Wanted | None = None,
) -> None:
    try:
        source = open_source(spec, base=base, demo_root=demo_root)
        tally.root = source.media_root
    except P2RError as error:
        tally.error = str(error)
        return
    tally.read(source.rows(), trial, wanted)
    tally.note = source.note


async def _probe_all(
    tally: SourceTally,
    pool: DecodePool,
    *,
    deep: bool,
    progress: Progress | None,
    opened: int | None = None,
) -> None:
    """Look at every file of a source, as many at a time as there are decoder processes."""
    of = len(tally.files)
    todo = iter(enumerate(tally.files))
    done = 0

    async def worker() -> None:
        """Look at one file after the other until none is left."""
        nonlocal done
        for index, (path, data_type) in todo:
            try:
                file = _file(tally.root, path)
                if opened is None or (index + 1) * opened // of > index * opened // of:
                    tally.found(index, data_type, await pool.probe(file, _kind(data_type), deep))
                else:
                    file_size(file, pool.spec.limits)
            except MediaError as error:
                tally.failed(index, error)
            done += 1
            if progress:
                progress(tally.name, done, len(tally.files))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(pool.workers, len(tally.files))):
                group.create_task(worker())
    except BaseExceptionGroup as group:  # one cause is enough, and callers know its type
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None


def _kind(data_type: DataType) -> MediaKind:
    return "video" if data_type is DataType.VIDEO else "image"


def _file(root: Path | None, path: str) -> Path:
    if root is None:
        raise MediaError(
            "the source has no media_root: set it in the recipe",
            reason=RejectReason.MEDIA_MISSING,
            where=path,
        )
    return resolve_media(root, path)
