"""Rows of a data set as plain mappings: a built folder, one file, a Hub id. Nothing is interpreted here."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from videop2r_data.errors import SourceError

if TYPE_CHECKING:
    from videop2r_data.trainer.data.specs import DataSpec

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?\Z")
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
_BATCH = 1024
_NUMBERS = re.compile(r"(\d+)")
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with their places (`file, row N`), and the commit that they came from (empty for local files)."""

    rows: Iterator[tuple[str, Any]]
    revision: str = ""


def open_rows(spec: DataSpec, base: Path) -> Rows:
    """The rows of a source, streamed.

    Raises:
        SourceError: no such folder, file or Hub id; no file of this config; (on reading) a damaged file.
    """
    path = spec.folder(base)
    if path is None:
        if not HUB_ID.match(spec.source):
            raise SourceError(
                "no such file or folder",
                where=str(base / spec.source),
                hint="give a folder that p2r-data build made, a data file, a Hub id (owner/name), or demo",
            )
        return _hub(spec)
    files = [path] if path.is_file() else config_files(path, spec.config)
    if not files:
        raise SourceError(
            f"no files of config {spec.config!r}",
            where=str(path),
            hint=f"p2r-data build writes data/{spec.config}-*.parquet; or name one data file",
        )
    return Rows(row for file in files for row in _file_rows(file))


def config_files(folder: Path, config: str) -> list[Path]:
    """`<config>-*.parquet` (or `.jsonl`, `.json`, also `.gz`) under `data/` or in the folder, by number."""
    for place in (folder / "data", folder):
        if place.is_dir():
            found = [
                p
                for p in place.iterdir()
                if p.name.startswith(f"{config}-") and _kind(p.name) and p.is_file()
            ]
            if found:
                return sorted(found, key=_reading_order)
    return []


def _reading_order(path: Path) -> list[tuple[int, str]]:
    """Numbers in names as numbers: part 10 comes after part 9."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in _NUMBERS.split(path.name) if p]


def _kind(name: str) -> str:
    plain = name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return "parquet"
    return "lines" if plain.endswith(".jsonl") else "list" if plain.endswith(".json") else ""


def _file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    kind = _kind(path.name)
    if kind == "parquet":
        return _parquet(path)
    if kind == "lines":
        return _lines(path)
    if kind == "list":
        return _list(path)
    raise SourceError(
        "not a data file (parquet, jsonl, json, the last two also .gz)",
        where=str(path),
        hint="convert it with p2r-data build",
    )


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = 0
    try:
        with pq.ParquetFile(path) as file:
            names = [n for n in file.schema_arrow.names if n in COLUMNS]
            for batch in file.iter_batches(batch_size=_BATCH, columns=names, use_threads=False):
                for row in batch.to_pylist():
                    yield f"{path.name}, row {at}", row
                    at += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"damaged parquet file: {_line(error)}", where=f"{path}, row {at}") from None


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            for at, line in enumerate(file):
                if line.strip():
                    yield f"{path.name}, line {at + 1}", _json(line)
    except (OSError, EOFError) as error:
        raise SourceError(f"cannot be read: {error}", where=str(path)) from None


def _list(path: Path) -> Iterator[tuple[str, Any]]:
    """One JSON array, held as a whole: the official parts are a few hundred MB each."""
    try:
        data = path.read_bytes()
        rows = orjson.loads(gzip.decompress(data) if path.name.endswith(".gz") else data)
    except (OSError, EOFError, ValueError) as error:
        raise SourceError(f"cannot be read: {_line(error)}", where=str(path)) from None
    if not isinstance(rows, list):
        raise SourceError(f"a {type(rows).__name__}, not a list of rows", where=str(path))
    yield from ((f"{path.name}, row {at}", row) for at, row in enumerate(rows))


def _json(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _hub(spec: DataSpec) -> Rows:
    """Through `datasets`, at one commit, so that another day reads the same rows."""
    from datasets import load_dataset

    commit = _commit(spec)
    try:
        rows = load_dataset(spec.source, name=spec.config, split=spec.split, revision=commit)
    except Exception as error:  # noqa: BLE001 - the Hub's clients raise a dozen unrelated kinds
        raise SourceError(
            f"cannot be loaded: {_line(error)}",
            where=f"{spec.source}@{commit[:12]}, config {spec.config!r}, split {spec.split!r}",
            hint="check the id, --config, --split and --revision, and your access (hf auth whoami)",
        ) from None
    rows = rows.select_columns([n for n in rows.column_names if n in COLUMNS])
    return Rows(((f"{spec.source}, row {at}", row) for at, row in enumerate(rows)), commit)


def _commit(spec: DataSpec) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(spec.source, revision=spec.revision).sha
    except Exception as error:  # noqa: BLE001 - as above
        if spec.revision and re.fullmatch(r"[0-9a-f]{40}", spec.revision):
            return spec.revision  # a full commit needs no look-up: the cache may hold it
        raise SourceError(
            f"no such folder here, and the Hub does not give it: {_line(error)}",
            where=spec.source,
            hint="check the id and your connection; with a full commit as revision the local cache is enough",
        ) from None
    return str(commit or spec.revision)


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
