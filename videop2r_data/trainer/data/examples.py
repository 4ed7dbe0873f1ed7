"""Questions to train on, read from a built data set: bad rows are skipped and counted, never fatal."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.schemas import DataType, ProblemType, digest

if TYPE_CHECKING:
    from videop2r_data.demo import SceneSample
    from videop2r_data.trainer.data.specs import DataSpec

COLUMNS = (
    "sample_id",
    "problem_id",
    "problem",
    "problem_type",
    "data_type",
    "options",
    "solution",
    "path",
    "output",
    "process",
)
"""What is read; ours and the official release share these names."""
_LOOKED_FOR = 32
"""Files that are looked for before training starts: when all are missing, the media root is wrong."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its reference, its media and, for SFT, what to learn.

    Attributes:
        sample_id: unique in its data set.
        problem: the question.
        options: as in the pool: `"A. text"`; empty unless multiple choice.
        problem_type: decides the metric.
        data_type: video, image or text.
        path: absolute and under its media root; None for text and for the demo stream.
        reference: the right answer, without its tag.
        target: the completion to learn; None for RL.
        scene: the exact truth behind a demo question, for its judge (and its pixels, when there is no file).
    """

    sample_id: str
    problem: str
    options: tuple[str, ...]
    problem_type: ProblemType
    data_type: DataType
    path: Path | None
    reference: str
    target: str | None
    scene: SceneSample | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """One row or example that was left out.

    Attributes:
        sample_id: its id, or file and row when it could not be read that far.
        reason: a `RejectReason` or `TraceFault` value, or one of `trainer.data.collate`.
        detail: file, row, field and what is wrong, for people.
    """

    sample_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class ExampleSet(Sequence[Example]):
    """All examples of a data set, in memory.

    Attributes:
        examples: the good ones, in the order of the files.
        skipped: the others.
        sha256: of the content of the good ones, paths and pixels left out.
        revision: commit of a Hub data set, else empty.
    """

    examples: tuple[Example, ...]
    skipped: tuple[Skip, ...] = ()
    sha256: str = ""
    revision: str = ""
    reasons: Counter[str] = field(default_factory=Counter)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        return self.examples[index]

    def __len__(self) -> int:
        return len(self.examples)


def read_examples(spec: DataSpec, *, base: Path | None = None) -> Sequence[Example]:
    """Read the examples of a data set; the demo stream comes back as an endless, lazy sequence.

    Args:
        spec: what to read.
        base: folder that relative paths start from; None: the current one.

    Returns:
        An `ExampleSet`, or a `demo_stream.DemoStream` for `source: demo`.

    Raises:
        SourceError: nothing can be read, or every row is bad.
        ConfigError: no media root is known, or none of its first files is there.
    """
    if spec.is_demo:
        from videop2r_data.trainer.data.demo_stream import DemoStream

        return DemoStream(spec)
    from videop2r_data.files.release import open_rows
    from videop2r_data.trainer.data.roots import find_roots
    from videop2r_data.trainer.data.rows import RowReader

    base = base or Path()
    source = open_rows(
        spec.source,
        base=base,
        config=spec.config,
        columns=COLUMNS,
        split=spec.split,
        revision=spec.revision,
    )
    reader = RowReader(spec, find_roots(spec, base))
    stop = None if spec.limit is None else spec.start + spec.limit
    good: list[Example] = []
    bad: list[Skip] = []
    for where, row in islice(source.rows, spec.start, stop):
        read = reader.read(where, row)
        if isinstance(read, Skip):
            bad.append(read)
        else:
            good.append(read)
    _check_any(spec, good, bad)
    _check_media_root(good)
    return ExampleSet(
        tuple(good), tuple(bad), content_digest(good), source.revision, Counter(s.reason for s in bad)
    )


def content_digest(examples: Sequence[Example]) -> str:
    """sha256 over what is asked and learnt, independent of where the files lie: 64 hexadecimal digits."""
    state = hashlib.sha256()
    for e in examples:
        row = [e.sample_id, e.problem, e.options, e.problem_type, e.data_type, e.reference, e.target]
        state.update(digest(row).encode())
    return state.hexdigest()


def _check_any(spec: DataSpec, good: list[Example], bad: list[Skip]) -> None:
    if good:
        return
    if bad:
        first = bad[0]
        raise SourceError(
            f"none of {len(bad)} rows can be used; the first: {first.reason}: {first.detail}",
            where=spec.source,
            hint=f"read it as another config than {spec.config!r}, or convert it with p2r-data build",
        )
    raise SourceError(
        f"no rows from row {spec.start} on",
        where=f"{spec.source}, config {spec.config!r}",
        hint="lower start",
    )


def _check_media_root(good: Sequence[Example]) -> None:
    """Missing files cost their examples one by one; all of them missing is a wrong flag."""
    paths: Iterator[Path] = (e.path for e in good if e.path is not None)
    first = list(islice(paths, _LOOKED_FOR))
    if first and not any(path.is_file() for path in first):
        raise ConfigError(
            f"none of the first {len(first)} media files is there",
            where=str(first[0]),
            hint="name the folder that the rows' `path` is relative to with --media-root (data.media_root)",
        )
