"""What a source gives: `Sample` or `BadRow` row by row, embedded media as files, the digest of its pool."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from videop2r_data.errors import SourceError
from videop2r_data.schemas import Model, RejectReason, Sample, canonical_bytes


class BadRow(Model):
    """A row of a pool that cannot become a `Sample`: counted, kept, never fatal."""

    source: str
    """Name of the recipe's source."""
    row: int
    """0-based index in its source."""
    problem_id: str = ""
    """As far as it could be read."""
    reason: RejectReason
    """`BAD_ROW`, `DUPLICATE_ID`, `UNSAFE_PATH` or `BAD_REFERENCE`."""
    detail: str
    """Field, what was got, what is allowed."""
    raw: str = ""
    """Start of the row, for a person to find it."""

    @property
    def sample_id(self) -> str:
        """Unique in the pool: `<source>/<problem_id>@<row>`; `@` keeps it apart from ids of good rows."""
        return f"{self.source}/{self.problem_id}@{self.row}"


@runtime_checkable
class Source(Protocol):
    """One pool of questions, opened."""

    @property
    def name(self) -> str:
        """As in the recipe."""
        ...

    @property
    def media_root(self) -> Path | None:
        """Folder that `Sample.path` is relative to; None: no folder was named and none lies near."""
        ...

    @property
    def note(self) -> str:
        """What was read from the pool as a whole and the recipe does not say; empty if there is nothing."""
        ...

    def check(self) -> None:
        """Hold the recipe's columns against those of the pool, before the first row.

        Raises:
            SourceError: a column that every row needs, or that the recipe names, is not there.
        """
        ...

    def rows(self) -> Iterator[Sample | BadRow]:
        """All rows in the order of the pool, in constant memory; may be called again.

        Raises:
            SourceError: the pool as a whole cannot be read (on); the good rows before that were given.
        """
        ...

    def sha256(self) -> str:
        """Digest of the rows: that of the last complete pass, else a pass is made for it."""
        ...


def content(sample: Sample) -> dict[str, Any]:
    """What makes a question itself, without its place: equal content, same question."""
    return {
        "problem_id": sample.problem_id,
        "problem": sample.problem,
        "problem_type": sample.problem_type.value,
        "data_type": sample.data_type.value,
        "options": list(sample.options),
        "solution": sample.solution,
        "path": sample.path,
        "data_source": sample.data_source,
    }


class PoolDigest:
    """sha256 over the canonical rows of a pool, in order, built up while they stream by.

    >>> PoolDigest().hexdigest()[:8]
    'e3b0c442'
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0

    def update(self, row: Sample | BadRow) -> None:
        """Take one row in: content and id of a good one, place and text of a bad one."""
        if isinstance(row, BadRow):
            record = {"bad": row.reason.value, "row": row.row, "problem_id": row.problem_id, "raw": row.raw}
        else:
            record = content(row) | {"sample_id": row.sample_id}
        self._hash.update(canonical_bytes(record) + b"\n")
        self.rows += 1

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()


# Media inside the rows become files, each under the digest of its bytes and written once.


_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (8, b"AVI ", ".avi"),
    (0, b"BM", ".bmp"),
    (0, b"II*\x00", ".tif"),
    (0, b"MM\x00*", ".tif"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftypheic", ".heic"),
    (4, b"ftypqt", ".mov"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (0, b"FLV", ".flv"),
)


class EmbeddedMedia:
    """A folder of media files named by their content.

    The names depend on nothing but the bytes: a second pass, another share of the pool or another host give
    the same rows, and a file can be checked against its own name.

    Args:
        root: the folder; it is made with the first file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, data: bytes) -> str:
        """Path of these bytes below the folder; they lie there afterwards.

        Raises:
            SourceError: the file is not there and cannot be written.
        """
        relative = embedded_path(data)
        target = self.root / relative
        try:
            if target.is_file() and target.stat().st_size == len(data):
                return relative
            target.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may write the same file: each a part of its own, and the last one stays.
            handle, part = tempfile.mkstemp(dir=target.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(part).chmod(0o644)
                Path(part).replace(target)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise SourceError(
                f"the media of a row cannot be written: {error}",
                where=str(target),
                hint="free some space, or choose another work folder with --work",
            ) from None
        return relative


def embedded_path(data: bytes) -> str:
    """Where bytes lie below a folder of embedded media; their kind is told by their first bytes.

    >>> embedded_path(b"GIF89a")[-4:]
    '.gif'
    """
    digest = hashlib.sha256(data).hexdigest()
    suffix = next((end for at, sign, end in _MAGIC if data[at : at + len(sign)] == sign), ".bin")
    return f"{digest[:2]}/{digest}{suffix}"
