"""What is known of one source while `check` looks at it: rows, files, faults, measures."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from videop2r_data.builders.check_report import (
    BadFile,
    FileLine,
    FileWarning,
    MediaFault,
    MediaStats,
    SourceCheck,
    Spread,
    total_seconds,
)
from videop2r_data.builders.findings import Finding, State
from videop2r_data.builders.sources import BadRow
from videop2r_data.builders.trial_rows import TrialRows
from videop2r_data.errors import MediaError, P2RError
from videop2r_data.media import MediaProbe
from videop2r_data.schemas.calls import TimesKind
from videop2r_data.schemas.sample import DataType, Sample
from videop2r_data.schemas.verdict import RejectReason

EXAMPLES = 20
"""Files per reason, bad rows and warnings that a report names."""
EXAMPLE_ROWS = 5
"""Rows that a report names per file."""
LONG = 80
"""Characters of a warning above which its detail after the colon is left out of its kind."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
OnBad = Callable[[str, BadRow | BadFile], None]
OnFile = Callable[[FileLine], None]
"""Called with every file and every bad row, in the order of the pool."""


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


class Tally:
    """One source.

    Args:
        name: of the source.
        kind: of the source, or `folder`.
        on_file: see `OnFile`.
    """

    def __init__(self, name: str, kind: str, on_file: OnFile | None = None) -> None:
        self.name, self.kind = name, kind
        self.root: Path | None = None
        self.error: str | None = None
        self.note = ""
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.bad_examples: list[BadRow] = []
        self.table: dict[str, Counter[str]] = defaultdict(Counter)
        self.text_rows = 0
        # In the order of first need; the rows of a file by problem_id, which is short.
        self.files: dict[_File, list[str]] = {}
        self.bad_files: dict[int, tuple[RejectReason, str]] = {}
        self.warned: dict[int, list[str]] = {}
        self.kinds: Counter[str] = Counter()
        """Warning -> files; the first words stand for all, as the rest are this file's numbers."""
        self.times: Counter[str] = Counter()
        self.left_out = 0
        """Files of a folder that are neither clip nor image by their ending."""
        self.measures = {DataType.VIDEO: _Measures(), DataType.IMAGE: _Measures()}
        self._on_file = on_file
        self._lines: dict[int, FileLine] = {}
        self._told = 0
        self._places: list[tuple[_File, list[str]]] = []

    def read(
        self, rows: Iterable[Sample | BadRow], trial: TrialRows | None = None, on_bad: OnBad | None = None
    ) -> None:
        """Take in every row; a pool that breaks off is noted, its rows so far are kept."""
        try:
            for row in rows:
                self._add(row)
                if isinstance(row, BadRow):
                    if on_bad:
                        on_bad(self.name, row)
                    if self._on_file:
                        self._on_file(FileLine.of_row(self.name, row))
                elif trial is not None:
                    trial.see(row, self.root)
        except P2RError as error:
            self.error = str(error)

    def add_file(self, path: str, data_type: DataType) -> None:
        """A file that no row is known of: it counts as one row."""
        self.rows += 1
        self.files[path, data_type] = [path]

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
        if probe.times is not None:
            self.times[probe.times] += 1
        if probe.warnings:
            self.warned[index] = list(probe.warnings)
            self.kinds.update(warning_kind(text) for text in probe.warnings)
        self._tell(index, probe=probe)

    def failed(self, index: int, error: MediaError) -> None:
        """A file that cannot be used."""
        self.bad_files[index] = (RejectReason(error.reason), error.message)
        self._tell(index)

    def _tell(self, index: int, probe: MediaProbe | None = None) -> None:
        """Pass lines on in the order of the pool: at most as many wait as files are under way."""
        if self._on_file is None:
            return
        (path, data_type), ids = self._entry(index)
        reason, detail = self.bad_files.get(index, (None, ""))
        self._lines[index] = FileLine(
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
        while self._told in self._lines:
            self._on_file(self._lines.pop(self._told))
            self._told += 1

    def _entry(self, index: int) -> tuple[_File, list[str]]:
        if not self._places:
            self._places = list(self.files.items())
        return self._places[index]

    def result(self, on_bad: OnBad | None = None) -> SourceCheck:
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
                on_bad(self.name, self._bad_file(index, path, data_type, ids, len(ids)))
            if len(faults[reason]) < EXAMPLES:
                faults[reason].append(self._bad_file(index, path, data_type, ids, EXAMPLE_ROWS))
        return SourceCheck(
            name=self.name,
            kind=self.kind,
            media_root=str(self.root) if self.root is not None else None,
            error=self.error,
            note=self.note,
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
            left_out=self.left_out,
            times={kind: self.times[kind] for kind in get_args(TimesKind) if kind in self.times},
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

    def _bad_file(self, index: int, path: str, data_type: DataType, ids: list[str], limit: int) -> BadFile:
        reason, detail = self.bad_files[index]
        return BadFile(
            path=path,
            data_type=data_type,
            reason=reason,
            detail=detail,
            rows=len(ids),
            sample_ids=[f"{self.name}/{problem_id}" for problem_id in ids[:limit]],
        )


def warning_kind(text: str) -> str:
    """The words of a warning without its numbers, so that equal warnings are counted together.

    >>> warning_kind("its header promises 49 frames, 48 packets are there")
    'its header promises N frames, N packets are there'
    """
    return _NUMBER.sub("N", text.partition(": ")[0] if len(text) > LONG else text)
