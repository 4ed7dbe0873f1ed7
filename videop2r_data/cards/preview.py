"""The config `preview`: a few accepted rows with their clips inside, for the viewer of the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from videop2r_data.cards.card_licence import passes_on
from videop2r_data.cards.card_rows import SourceFacts
from videop2r_data.cards.hub_names import TEXT_COLUMNS
from videop2r_data.errors import MediaError
from videop2r_data.files.media_roots import resolve_media

MAX_CLIP = 8 * 2**20
"""Bytes of one clip: a page that shows them has to stay light."""
MAX_TOTAL = 64 * 2**20
"""Bytes of all clips."""
_READ = 5_000
"""Accepted rows that are looked at."""


def write_preview(
    folder: Path, to: Path, rows: int, roots: Mapping[str, Path], sources: Iterable[SourceFacts]
) -> int:
    """Write the parquet file; the same rows and clips give the same bytes.

    Taken are the first rows of each data type in turn, each clip once, whose source lets whole media be
    passed on, whose file is here and not too large.

    Args:
        folder: the data set.
        to: the file to write.
        rows: at most so many.
        roots: source name -> media root on this machine.
        sources: of its rows, with the licences of their media.

    Returns:
        How many rows it has; 0: none could be taken, and nothing was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    free = {(source.pool, source.data_source) for source in sources if passes_on(source)}
    held = {(source.pool, source.data_source) for source in sources if not passes_on(source)}
    taken: list[dict[str, Any]] = []
    total = 0
    for row in _in_turn(_rows(folder)):
        if len(taken) == rows:
            break
        key = (row["sample_id"].partition("/")[0], row["data_source"])
        file = _file(row, roots) if key in free - held else None
        if file is None or total + file.stat().st_size > MAX_TOTAL:
            continue
        total += file.stat().st_size
        cell = {"bytes": file.read_bytes(), "path": Path(row["path"]).name}
        media = {kind: cell if row["data_type"] == kind else None for kind in ("image", "video")}
        taken.append(media | {name: row[name] for name in TEXT_COLUMNS})
    if taken:
        blob = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        kinds = [("image", blob), ("video", blob), *((name, pa.string()) for name in TEXT_COLUMNS)]
        to.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(taken, schema=pa.schema(kinds)), to, compression="zstd")
    return len(taken)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The first accepted rows with media, each file once."""
    import pyarrow.parquet as pq

    columns = [*TEXT_COLUMNS, "path", "data_type", "data_source"]
    seen: set[tuple[str, str]] = set()
    read = 0
    for path in sorted((folder / "data").glob("sft-*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns, batch_size=500):
                for row in batch.to_pylist():
                    key = (row["sample_id"].partition("/")[0], row["path"])
                    if row["path"] and key not in seen:
                        seen.add(key)
                        yield row
                read += batch.num_rows
                if read >= _READ:
                    return


def _in_turn(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row of each data type and source after the other."""
    queues: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        queues.setdefault((row["data_type"], row["data_source"]), []).append(row)
    for group in zip_longest(*queues.values()):
        yield from (row for row in group if row is not None)


def _file(row: dict[str, Any], roots: Mapping[str, Path]) -> Path | None:
    root = roots.get(row["sample_id"].partition("/")[0])
    if root is None or row["data_type"] not in ("image", "video"):
        return None
    try:
        file = resolve_media(root, row["path"])
    except MediaError:
        return None
    return file if file.is_file() and file.stat().st_size <= MAX_CLIP else None
