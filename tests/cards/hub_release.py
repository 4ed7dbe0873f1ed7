"""A small finished data set with its real card, for the tests of the Hub."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.builders.release_rows import Rows, lock_of, valid_rows, write_card, write_lock
from videop2r_data.schemas.lock import FileLock
from videop2r_data.schemas.rows import CONFIGS, arrow_schema


def write_release(folder: Path, rows: Rows | None = None, *, sft_shards: int = 1) -> Path:
    """Our layout with lock and card; `sft` in so many shards."""
    rows = rows or valid_rows()
    files: dict[str, FileLock] = {}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for config, all_rows in rows.items():
        shards = sft_shards if config == "sft" else 1
        for number in range(shards):
            mine = all_rows[len(all_rows) * number // shards : len(all_rows) * (number + 1) // shards]
            name = f"data/{config}-{number:05d}.parquet"
            files[name] = shard(folder / name, config, mine)
    lock = lock_of(rows, files)
    write_lock(folder, lock)
    write_card(folder, lock)
    return folder


def shard(path: Path, config: str, rows: list[dict[str, Any]]) -> FileLock:
    """As the build writes them."""
    table = pa.Table.from_pylist(rows, schema=arrow_schema(CONFIGS[config]))
    pq.write_table(table, path, compression="zstd", use_content_defined_chunking=True, write_page_index=True)
    data = path.read_bytes()
    return FileLock(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), rows=len(rows))


def changed_rows() -> Rows:
    """The valid rows with one word of one observation changed everywhere it stands."""
    rows = valid_rows()
    row = rows["sft"][0]
    old, new = row["observation"], row["observation"] + " Then the light goes out."
    row["observation"] = new
    row["output"] = row["output"].replace(old, new)
    return rows
