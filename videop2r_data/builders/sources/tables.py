"""Rows out of Parquet, Arrow, CSV and TSV files in constant memory; media embedded in them become files."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from videop2r_data.errors import SourceError
from videop2r_data.files import MAX_ROW_CHARS, RAW_CHARS, RawRow, refuse_large_row, refuse_packed

# Parquet and Arrow, batch by batch; nested and embedded values come as plain Python.


BATCH_BYTES = 16 << 20
"""Unpacked bytes that are aimed at per batch: rows with embedded media may have megabytes each."""
MAX_BATCH = 1024


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet or Arrow file, in order; a name may stand twice.

    Raises:
        SourceError: the file is damaged, cut off or of another kind.
    """
    with _errors(path):
        if _is_parquet(path):
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        with _open_arrow(path) as reader:
            return list(reader.schema.names)


def read_columnar(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet or Arrow file as plain values; of columns with one name the first.

    Raises:
        SourceError: the file is damaged, cut off or of another kind.
    """
    with _errors(path):
        for batch in _parquet(path) if _is_parquet(path) else _arrow(path):
            names = batch.schema.names
            batch.validate(full=True)  # a damaged offset would be followed out of the file's memory
            refuse_large_row(batch, path)
            first = [i for i, name in enumerate(names) if name not in names[:i]]
            yield from batch.select(first).to_pylist(maps_as_pydicts="lossy")


def _is_parquet(path: Path) -> bool:
    return path.suffix in (".parquet", ".pq")


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        meta = file.metadata
        refuse_packed(meta, path)
        size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        each = size // max(1, meta.num_rows)
        yield from file.iter_batches(batch_size=min(MAX_BATCH, max(1, BATCH_BYTES // max(1, each))))


def _arrow(path: Path) -> Iterator[Any]:
    with _open_arrow(path) as reader:
        batches = (
            (reader.get_batch(i) for i in range(reader.num_record_batches))
            if hasattr(reader, "num_record_batches")
            else reader
        )
        for batch in batches:
            for start in range(0, batch.num_rows, 64):
                yield batch.slice(start, 64)


@contextmanager
def _open_arrow(path: Path) -> Iterator[Any]:
    """An Arrow file in either of its forms: with a footer, or a stream as `datasets` writes it."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        magic = source.read(6)
        source.seek(0)
        with pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source) as reader:
            yield reader


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        kind = "Parquet" if _is_parquet(path) else "Arrow"
        head = _head(path)
        what = f"is no whole {kind} file: {lines[0][:200]}"
        hint = "it is damaged or cut off: fetch it again"
        if head.lstrip()[:1] in (b"<", b"{", b"["):
            begin = head[:20].decode("latin-1")
            hint = f"it begins with {begin!r}: a web page or JSON was saved under this name"
        elif head.startswith(b"version https://git-lfs"):
            hint = "it is a Git LFS pointer: git lfs pull"
        elif not head:
            what, hint = "the file is empty", "fetch it again"
        raise SourceError(what, where=str(path), hint=hint) from None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


# CSV and TSV: a header, then one row a record; a record that does not fit costs only itself.


DELIMITERS = ",\t;|"
_ESCAPED = re.compile("[\ud800-\udfff]")
"""Bytes that are no UTF-8, as `surrogateescape` reads them."""


class TableRows:
    """Iterate over the rows of one file, then close it; every value is a text, an empty cell is None.

    Args:
        stream: binary, UTF-8, read once to its end.
        where: name for messages.
        delimiter: None: the one of comma, tab, semicolon and bar that the header has most of.

    Attributes:
        columns: the header, in order.

    Raises:
        SourceError: the file is empty, has no header, or ends inside of a quoted cell (while iterating).

    >>> table = TableRows(io.BytesIO(b"q;a\\nWhy?;B\\n"), where="pool.csv")
    >>> table.columns, [row.value for row in table]
    (('q', 'a'), [{'q': 'Why?', 'a': 'B'}])
    """

    def __init__(self, stream: BinaryIO, *, where: str, delimiter: str | None = None) -> None:
        self._where = where
        # surrogateescape: bytes that are no UTF-8 spoil their own row, not the file.
        self._text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        csv.field_size_limit(MAX_ROW_CHARS)
        try:
            first = self._text.readline(MAX_ROW_CHARS)
            while first and not first.strip():
                first = self._text.readline(MAX_ROW_CHARS)
        except (OSError, EOFError, zlib.error) as error:
            self._fail(f"cannot be read: {error}", "the file is damaged or cut off: fetch it again")
        if not first:
            self._fail("the file is empty", "a table begins with a header: the names of its columns")
        if delimiter is None:
            delimiter = max(DELIMITERS, key=first.count) if any(d in first for d in DELIMITERS) else ","
        self._lines = _Lines(self._text, first)
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            self.columns = tuple(name.strip() for name in self._next() or ())
        except csv.Error as error:
            self._fail(
                f"the header is no row of a table: {error}", "a table begins with names of its columns"
            )
        self._lines.seen = ""

    def close(self) -> None:
        """Close the file."""
        self._text.close()

    def __iter__(self) -> Iterator[RawRow]:
        index = 0
        while True:
            line = self._reader.line_num + 1
            try:
                cells = self._next()
            except csv.Error as error:
                yield self._bad(index, f"line {line}: not a row of a table: {error}")
            else:
                if cells is None:
                    return
                if not cells:
                    continue  # a blank line
                yield self._row(index, line, cells)
            index += 1

    def _next(self) -> list[str] | None:
        """The next record; None at the end."""
        began = self._reader.line_num + 1
        try:
            return next(self._reader, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                self._fail(
                    f"ends inside of a quoted cell that began in the row at line {began}",
                    'it is cut off, or a quotation mark (") there is not closed',
                )
            raise
        except (OSError, EOFError, zlib.error) as error:
            self._fail(
                f"cannot be read on after line {self._reader.line_num}: {error}",
                "the file is damaged or cut off: fetch it again",
            )

    def _row(self, index: int, line: int, cells: list[str]) -> RawRow:
        if len(cells) != len(self.columns):
            return self._bad(
                index,
                f"line {line}: {len(cells)} cells, the header has {len(self.columns)} columns; a cell that "
                "holds a delimiter stands in quotation marks",
            )
        raw = self._lines.seen
        if "\0" in raw:
            return self._bad(index, f"line {line}: holds a NUL character, which no text has")
        if not raw.isascii() and _ESCAPED.search(raw):
            return self._bad(
                index,
                f"line {line}: bytes that are no UTF-8; if the file comes from Excel or Windows: "
                "iconv -f WINDOWS-1252 -t UTF-8",
            )
        value = {name: cell if cell.strip() else None for name, cell in zip(self.columns, cells, strict=True)}
        self._lines.seen = ""
        return RawRow(index, value)

    def _bad(self, index: int, fault: str) -> RawRow:
        raw, self._lines.seen = self._lines.seen[:RAW_CHARS], ""
        return RawRow(index, None, fault, raw)

    def _fail(self, message: str, hint: str) -> NoReturn:
        self.close()
        raise SourceError(message, where=self._where, hint=hint)


class _Lines:
    """The lines of a file, the first of them already read; keeps those of the record under way."""

    def __init__(self, text: io.TextIOWrapper, first: str) -> None:
        self._text = text
        self._first = first
        self.seen = ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line, self._first = self._first or self._text.readline(MAX_ROW_CHARS), ""
        if not line:
            raise StopIteration
        if len(self.seen) < MAX_ROW_CHARS:
            self.seen += line
        return line


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


def embed_media(root: Path, data: bytes) -> str:
    """Path of these bytes below a folder of media files named by their content; they lie there afterwards.

    The names depend on nothing but the bytes: a second pass, another share of the pool or another host give
    the same rows, and a file can be checked against its own name.

    Raises:
        SourceError: the file is not there and cannot be written.
    """
    relative = embedded_path(data)
    target = root / relative
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
