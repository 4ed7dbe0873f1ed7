"""Rows of one file of Parquet, JSON lines or a JSON list, in batches or one by one, in constant memory."""

from __future__ import annotations

import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

import orjson

from videop2r_data.errors import SourceError, first_line
from videop2r_data.files.json_rows import CHUNK_BYTES, RAW_CHARS, JsonRows, RawRow
from videop2r_data.files.opening import BOMB_FLOOR, open_pool_file, refuse_bomb

MAX_RECORD_BYTES = 64 * 2**20
"""A longer record is refused: a stream that never closes its first object must not fill the memory."""
_CHUNK = 1 << 18
"""Bytes of JSON that are read at once."""
_BUFFER = 1 << 18
"""Bytes of Parquet read ahead per column: a row group is streamed, never held as a whole."""


class _Missing:
    """Marks a cell that its record does not have."""

    def __repr__(self) -> str:
        return "(missing)"


MISSING = _Missing()


@dataclass(slots=True)
class Batch:
    """Some consecutive rows as columns.

    Attributes:
        start: index in the file of the first row.
        rows: how many.
        columns: name -> values, one per row; a cell that its record lacks is `MISSING`.
        bad: (row index in the file, what is wrong) for records that are no JSON objects; they stand in no
            column, and `index` tells which rows do.
        index: row index in the file of each value.
    """

    start: int
    rows: int
    columns: dict[str, list[Any]]
    index: Sequence[int]
    bad: list[tuple[int, str]] = field(default_factory=list)


Row = dict[str, Any]


def file_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Row | str]]:
    """The rows of one file, one by one, with their places.

    Args:
        path: Parquet, JSON lines or a JSON list, the last two also gzip.
        columns: Parquet only: names to read, None: all.

    Yields:
        The place (`file, row N` from 0, or `file, line N` from 1), and the row, or why it is none.

    Raises:
        SourceError: not a data file, or a damaged one.
    """
    if path.name.endswith(".parquet"):
        for start, part in record_batches(path, columns=columns):
            with _sound(path.name):
                rows = part.to_pylist()
            for at, row in enumerate(rows, start):
                yield f"{path.name}, row {at}", row
        return
    for record in json_records(path):
        place = f"line {record.line}" if record.line else f"row {record.index}"
        yield f"{path.name}, {place}", record.value if record.value is not None else record.fault


def json_records(path: Path) -> Iterator[RawRow]:
    """Each record of a file of JSON; lines and lists are told apart by the first character.

    A repeated field counts with its last value, and `NaN` is read: another tool wrote the file, and what it
    holds is what is to be checked.

    Raises:
        SourceError: the file is damaged, or cut off, or text stands behind its list.
    """
    with open_pool_file(path) as stream:
        head = _first_character(stream, path)
        if head == b"[":
            yield from JsonRows(
                stream,
                where=str(path),
                chunk_bytes=_CHUNK,
                max_row_chars=MAX_RECORD_BYTES,
                exact=False,
                unique=False,
                one_list=True,
            )
        elif head:
            yield from _lines(stream, path)


def _first_character(stream: BufferedReader, path: Path) -> bytes:
    """The first character that is no white space, which is left in the stream; empty: there is none."""
    try:
        while chunk := stream.peek(CHUNK_BYTES):
            text = chunk.removeprefix(BOM_UTF8).lstrip()
            if text:
                return text[:1]
            stream.read(len(chunk))
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    return b""


def _lines(stream: BufferedReader, path: Path) -> Iterator[RawRow]:
    """JSON lines; blank ones are skipped, and have a line number but no index."""
    index = number = 0
    try:
        while line := stream.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if len(line) > MAX_RECORD_BYTES:
                raise SourceError(f"line {number} is longer than {MAX_RECORD_BYTES:,} bytes", where=str(path))
            if line.strip():
                yield _line(line, index, number)
                index += 1
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _line(text: bytes, index: int, number: int) -> RawRow:
    fault = ""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(text)  # accepts the NaN and Infinity that Python's own writer leaves
        except (ValueError, RecursionError):
            value = None
            fault = "not JSON"
    if isinstance(value, dict):
        return RawRow(index, value, line=number)
    raw = text[:RAW_CHARS].decode("utf-8", "replace")
    fault = fault or f"a {type(value).__name__}, not a JSON object"
    return RawRow(index, None, f"{fault}: {raw[:80].rstrip()}", raw, number)


def _unreadable(path: Path, error: BaseException) -> SourceError:
    return SourceError(
        f"cannot be read to its end: {error}",
        where=path.name,
        hint="it is damaged or cut off: fetch it again",
    )


def first_columns(path: Path) -> tuple[str, ...]:
    """Columns of a file: its schema, or the keys of its first record.

    Raises:
        SourceError: the file cannot be read or holds no records.
    """
    if path.name.endswith(".parquet"):
        return tuple(parquet_file(path).schema_arrow.names)
    for batch in read_batches(path, size=1):
        return tuple(batch.columns)
    return ()


def parquet_file(path: Path) -> Any:
    """Open a parquet file.

    Raises:
        SourceError: it is none, or it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=_BUFFER)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"not a readable parquet file: {first_line(error, 200)}", where=path.name) from None
    refuse_packed(file.metadata, path)
    return file


def refuse_packed(meta: Any, path: Path) -> None:
    """Refuse a Parquet file that unpacks to absurd sizes, before a row is read.

    Raises:
        SourceError: a bomb, by what the file says of itself.
    """
    # of columns pyarrow is not asked: a damaged one ends the process
    unpacked = sum(meta.row_group(n).total_byte_size for n in range(meta.num_row_groups))
    refuse_bomb(unpacked, path.stat().st_size, str(path), "Parquet")


def refuse_large_row(batch: Any, path: Path) -> None:
    """Refuse a record batch with a row of absurd size, whatever the file says of itself.

    Raises:
        SourceError: one row has many times the bytes of the whole file.
    """
    if batch.nbytes > BOMB_FLOOR:  # equal cells may be stored once: only single rows tell
        largest = max(batch.slice(at, 1).nbytes for at in range(batch.num_rows))
        refuse_bomb(largest, path.stat().st_size, str(path), "columnar")


def read_batches(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    size: int = 1024,
    groups: Sequence[int] | None = None,
    rows: range | None = None,
) -> Iterator[Batch]:
    """Stream one file.

    Args:
        path: the file.
        columns: names wanted, None: all.
        size: rows per batch at most.
        groups: parquet only: row groups to read; `rows` then counts from the first row of the file.
        rows: parquet only: row indices wanted, inside of `groups`.

    Raises:
        SourceError: damaged, truncated, or not of its format.
    """
    if path.name.endswith(".parquet"):
        for start, part in record_batches(path, columns=columns, size=size, groups=groups, rows=rows):
            yield as_batch(start, part, path.name)
        return
    wanted = set(columns) if columns is not None else None
    start, at = 0, -1
    records, index, bad = [], [], []
    for record in json_records(path):
        at = record.index
        if record.value is not None:
            records.append(record.value)
            index.append(at)
        else:
            bad.append((at, record.fault))
        if at + 1 - start >= size:
            yield Batch(start, at + 1 - start, _transpose(records, wanted), index, bad)
            start, records, bad, index = at + 1, [], [], []
    if index or bad:
        yield Batch(start, at + 1 - start, _transpose(records, wanted), index, bad)


def _transpose(records: list[dict[str, Any]], wanted: set[str] | None) -> dict[str, list[Any]]:
    names = dict.fromkeys(chain.from_iterable(records))
    columns = [name for name in names if wanted is None or name in wanted]
    return {name: [record.get(name, MISSING) for record in records] for name in columns}


def record_batches(
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    size: int = 1024,
    groups: Sequence[int] | None = None,
    rows: range | None = None,
) -> Iterator[tuple[int, Any]]:
    """Stream a parquet file as Arrow: (index in the file of the first row, record batch); see `read_batches`.

    Raises:
        SourceError: the file is damaged. That texts are UTF-8 shows only when they are read.
    """
    file = parquet_file(path)
    names = [n for n in file.schema_arrow.names if columns is None or n in columns]
    before = 0
    if groups is not None:
        before = sum(file.metadata.row_group(g).num_rows for g in range(groups[0]))
    with closing(file), _sound(path.name):
        for record_batch in file.iter_batches(
            batch_size=size, row_groups=groups, columns=names, use_threads=False
        ):
            refuse_large_row(record_batch, path)
            start, count = before, record_batch.num_rows
            before += count
            if rows is None:
                yield start, record_batch
                continue
            low, high = max(start, rows.start), min(start + count, rows.stop)
            if low < high:
                yield low, record_batch.slice(low - start, high - low)
            if high == rows.stop:
                break  # what follows is another slice's


@contextmanager
def _sound(where: str) -> Iterator[None]:
    """What Arrow finds wrong in a file becomes a `SourceError`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"damaged parquet file: {first_line(error, 200)}", where=where) from None


def as_batch(start: int, part: Any, where: str) -> Batch:
    """A record batch as Python values.

    Raises:
        SourceError: a text is not UTF-8.
    """
    with _sound(where):
        data = {name: values_of(part.column(i)) for i, name in enumerate(part.schema.names)}
    return Batch(start, part.num_rows, data, range(start, start + part.num_rows))


def values_of(array: Any) -> list[Any]:
    """Python values of an Arrow array; strings and flat lists by way of numpy, several times faster."""
    import pyarrow as pa

    kind = array.type
    if array.null_count:
        return cast("list[Any]", array.to_pylist())
    if pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type):
        flat, offsets = values_of(array.flatten()), array.offsets.to_numpy()
        base = int(offsets[0])
        ends = (offsets - base).tolist()
        return [flat[a:b] for a, b in pairwise(ends)]
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return cast("list[Any]", array.to_numpy(zero_copy_only=False).tolist())
    return cast("list[Any]", array.to_pylist())
