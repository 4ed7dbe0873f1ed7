"""Rows of one file as columns, in batches and in constant memory: Parquet, JSON lines, JSON lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import orjson

from videop2r_data.errors import SourceError
from videop2r_data.files.json_records import raw_records
from videop2r_data.schemas import AGREEMENT_NAME, CROISSANT_NAME

_SUFFIXES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz")
_BUFFER = 1 << 18
"""Bytes read ahead per column: a row group is streamed, never held as a whole."""
_NOT_ROWS = {
    "build.lock.json",
    AGREEMENT_NAME,
    CROISSANT_NAME,
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
}


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


def is_data_file(name: str) -> bool:
    """Whether a file of this name holds rows."""
    return name.endswith(_SUFFIXES) and name not in _NOT_ROWS and not name.startswith(".")


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
        return pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=_BUFFER)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"not a readable parquet file: {_line(error)}", where=path.name) from None


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
        yield from _parquet_batches(path, columns, size, groups, rows)
        return
    wanted = set(columns) if columns is not None else None
    start, records, bad = 0, [], []
    index: list[int] = []
    at = 0
    for at, raw in enumerate(raw_records(path)):
        record = raw if isinstance(raw, dict) else _load(raw)
        if isinstance(record, dict):
            records.append(record)
            index.append(at)
        else:
            bad.append((at, f"{type(record).__name__}: {str(raw)[:80]}"))
        if at + 1 - start >= size:
            yield Batch(start, at + 1 - start, _transpose(records, wanted), index, bad)
            start, records, bad, index = at + 1, [], [], []
    if index or bad:
        yield Batch(start, at + 1 - start, _transpose(records, wanted), index, bad)


def _transpose(records: list[dict[str, Any]], wanted: set[str] | None) -> dict[str, list[Any]]:
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record))
    return {
        name: [record.get(name, MISSING) for record in records]
        for name in names
        if wanted is None or name in wanted
    }


def _load(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(raw)  # accepts the NaN and Infinity that Python's own writer leaves
    except (ValueError, RecursionError):
        return None


def _parquet_batches(
    path: Path, columns: Sequence[str] | None, size: int, groups: Sequence[int] | None, rows: range | None
) -> Iterator[Batch]:
    for start, part in record_batches(path, columns=columns, size=size, groups=groups, rows=rows):
        yield as_batch(start, part, path.name)


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
    import pyarrow as pa

    file = parquet_file(path)
    names = [n for n in file.schema_arrow.names if columns is None or n in columns]
    before = 0
    if groups is not None:
        before = sum(file.metadata.row_group(g).num_rows for g in range(groups[0]))
    try:
        for record_batch in file.iter_batches(
            batch_size=size, row_groups=groups, columns=names, use_threads=False
        ):
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
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"damaged parquet file: {_line(error)}", where=path.name) from None
    finally:
        file.close()


def as_batch(start: int, part: Any, where: str) -> Batch:
    """A record batch as Python values.

    Raises:
        SourceError: a text is not UTF-8.
    """
    import pyarrow as pa

    try:
        data = {name: values_of(part.column(i)) for i, name in enumerate(part.schema.names)}
    except (pa.ArrowException, ValueError) as error:
        raise SourceError(f"damaged parquet file: {_line(error)}", where=where) from None
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


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
