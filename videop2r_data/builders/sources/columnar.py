"""Rows out of Parquet and Arrow files, batch by batch; what is nested or embedded comes as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videop2r_data.errors import SourceError

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
            first = [i for i, name in enumerate(names) if name not in names[:i]]
            yield from batch.select(first).to_pylist(maps_as_pydicts="lossy")


def _is_parquet(path: Path) -> bool:
    return path.suffix in (".parquet", ".pq")


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        meta = file.metadata
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
