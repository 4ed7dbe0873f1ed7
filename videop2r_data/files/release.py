"""Open any released data set: ours, the official files, or any folder of rows; write its tables."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml
from pydantic import ValidationError

from videop2r_data.errors import SourceError
from videop2r_data.files.names import (
    CARD_NAME,
    HUB_ID,
    LOCK_NAME,
    SHARD,
    file_digest,
    is_data_file,
    read_text,
    reading_order,
)
from videop2r_data.files.rows import Batch, file_rows, first_columns, read_batches
from videop2r_data.schemas import (
    CONFIGS,
    PLAIN,
    BuildLock,
    FileLock,
    Model,
    QuestionColumns,
    TraceGrammar,
    configs_of,
    default_grammar,
    digest,
    expanded,
    read_yaml,
)

Layout = Literal["ours", "official"]
CONFIG_NAMES = tuple(CONFIGS)
_NAME = re.compile(r"(?:^|[_.-])(sft|rl|rejected)(?=$|[_.-])")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """One file of rows.

    Attributes:
        path: where it lies.
        name: relative to the release, POSIX.
        config: `sft`, `rl` or `rejected`.
        columns: as the file declares them (parquet) or its first record shows them.
        error: why it cannot be read, or empty.
    """

    path: Path
    name: str
    config: str
    columns: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Release:
    """A released data set on disk; rows are streamed, never held.

    Attributes:
        where: as the user named it.
        root: the folder.
        layout: `ours` (columns of `SftRow`, `RlRow`, `RejectedRow`) or `official` (the paper's columns).
        files: in reading order: parts and shards by number.
        revision: commit of a Hub data set, else empty.
        lock: `build.lock.json`, if it is there and valid.
        card: YAML of the README, if it is there and a mapping.
        problems: (file, what) for a lock or card that cannot be read, and missing parts.
    """

    where: str
    root: Path
    layout: Layout
    files: tuple[ReleaseFile, ...]
    revision: str = ""
    lock: BuildLock | None = None
    card: dict[str, Any] | None = None
    problems: tuple[tuple[str, str], ...] = ()

    @cached_property
    def grammar(self) -> TraceGrammar:
        """What a trace of this data set is: as its lock's recipe says, else the default."""
        try:
            return self.lock.grammar if self.lock is not None else default_grammar()
        except SourceError:
            return default_grammar()  # `verify` says what is wrong with the recipe

    @cached_property
    def models(self) -> dict[str, type[QuestionColumns]]:
        """Config -> the model of its rows."""
        return configs_of(self.grammar, PLAIN if self.lock is None else self.lock.extra)

    @property
    def configs(self) -> tuple[str, ...]:
        """Configs that have files, `sft` first."""
        return tuple(c for c in CONFIG_NAMES if any(f.config == c for f in self.files))

    def batches(
        self, config: str, columns: Sequence[str] | None = None, *, size: int = 1024
    ) -> Iterator[tuple[ReleaseFile, Batch]]:
        """Stream the rows of one config in constant memory.

        Args:
            config: `sft`, `rl` or `rejected`.
            columns: names to read, None: all. A column that a file lacks is absent from its batches.
            size: rows per batch at most.

        Raises:
            SourceError: a file is damaged.
        """
        for file in self.files:
            if file.config == config:
                if file.error:
                    raise SourceError(file.error, where=file.name)
                for batch in read_batches(file.path, columns=columns, size=size):
                    yield file, batch


def open_release(where: str | Path, *, revision: str | None = None) -> Release:
    """Find the files of a release and what is said about them.

    Args:
        where: a folder or file, or a Hub data set id (`owner/name`); a folder wins if both exist.
        revision: commit, tag or branch of a Hub data set; the commit it stands for is in the result.

    Raises:
        SourceError: nothing there, no data files, or the Hub does not give them.
    """
    path = Path(where)
    commit = ""
    if not path.exists():
        if not isinstance(where, str) or not HUB_ID.match(where):
            raise SourceError(
                "no such file or folder",
                where=str(where),
                hint="give a folder, a file or a Hub id (owner/name)",
            )
        from videop2r_data.files.hub import fetch

        path, commit = fetch(where, revision)
    root = path if path.is_dir() else path.parent
    paths = sorted(_data_files(path), key=reading_order)
    if not paths:
        raise SourceError(
            "no data files (parquet, jsonl, json, each also .gz)",
            where=str(where),
            hint="give the folder that holds data/ or the parts themselves",
        )
    card, card_problem = _read_card(root / CARD_NAME)
    lock, lock_problem = None, None
    if (root / LOCK_NAME).is_file():
        try:
            lock = read_lock(root)
        except SourceError as error:
            lock_problem = (LOCK_NAME, error.message)
    declared = _declared_configs(card)
    files = tuple(_describe(p, root, declared) for p in paths)
    known = [f for f in files if f.columns]
    official = bool(known) and not any({"sample_id", "think"} & set(f.columns) for f in known)
    return Release(
        where=str(where),
        root=root,
        layout="official" if official and lock is None else "ours",
        files=files,
        revision=commit,
        lock=lock,
        card=card,
        problems=tuple(p for p in (card_problem, lock_problem) if p),
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with their places (`file, row N`), and the commit that they came from (empty for local files).

    A row that cannot be read is the reason, as text.
    """

    rows: Iterator[tuple[str, dict[str, Any] | str]]
    revision: str = ""


def open_rows(
    where: str,
    *,
    base: Path,
    config: str,
    columns: Sequence[str] | None,
    split: str = "train",
    revision: str | None,
) -> Rows:
    """The rows of one config, streamed from wherever they lie.

    Args:
        where: a folder (built here, or the official release), one data file of any config, or a Hub data set
            id (`owner/name`); what lies on disk wins.
        base: folder that a relative path starts from.
        config: `sft`, `rl` or `rejected`; for a Hub id any name that it has.
        columns: names to read; those that a file lacks are absent from its rows. None: all.
        split: of a Hub data set.
        revision: commit, tag or branch of a Hub data set.

    Raises:
        SourceError: no such folder, file or Hub id; no file of this config; (on reading) a damaged file.
    """
    path = base / expanded(where)
    if not path.exists():
        if not HUB_ID.match(where):
            raise SourceError(
                "no such file or folder",
                where=str(path),
                hint="give a folder that p2r-data build made, a data file, a Hub id (owner/name), or demo",
            )
        from videop2r_data.files.hub import hub_rows

        return Rows(*hub_rows(where, config=config, split=split, revision=revision, columns=columns))
    if path.is_file():
        if is_data_file(path.name):
            return Rows(file_rows(path, columns))
        what = "not a data file (parquet, jsonl, json, the last two also .gz)"
        raise SourceError(what, where=str(path), hint="convert it with p2r-data build")
    declared = _declared_configs(_read_card(path / CARD_NAME)[0])
    found = [_describe(p, path, declared) for p in sorted(_data_files(path), key=reading_order)]
    files = [file for file in found if file.config == config]
    if not files:
        raise SourceError(
            f"no files of config {config!r}",
            where=str(path),
            hint=f"p2r-data build writes data/{config}-*.parquet; or name one data file",
        )
    return Rows(row for file in files for row in file_rows(file.path, columns))


def _data_files(path: Path) -> Iterator[Path]:
    folders = [folder for folder in (path, path / "data") if folder.is_dir()]
    children = (child for folder in folders for child in folder.iterdir())
    yield from (p for p in (path, *children) if is_data_file(p.name) and p.is_file())


def _describe(path: Path, root: Path, declared: dict[str, str]) -> ReleaseFile:
    name = path.relative_to(root).as_posix()
    try:
        columns, error = first_columns(path), ""
    except SourceError as problem:
        columns, error = (), problem.message
    return ReleaseFile(path, name, declared.get(name) or _config_of(path.name, columns), columns, error)


def _config_of(name: str, columns: tuple[str, ...]) -> str:
    match = _NAME.search(name.lower())
    if match:
        return match.group(1)
    if {"outcome", "stage", "reason"} <= set(columns):
        return "rejected"
    return "sft" if not columns or "output" in columns else "rl"


def _declared_configs(card: dict[str, Any] | None) -> dict[str, str]:
    """File name -> config for the plain (not globbed) data files of a card."""
    out: dict[str, str] = {}
    configs = (card or {}).get("configs")
    for entry in configs if isinstance(configs, list) else []:
        if not isinstance(entry, dict) or entry.get("config_name") not in CONFIG_NAMES:
            continue
        splits = entry.get("data_files")
        for split in splits if isinstance(splits, list) else []:
            paths = split.get("path") if isinstance(split, dict) else None
            for path in paths if isinstance(paths, list) else [paths]:
                if isinstance(path, str):
                    out[path] = entry["config_name"]
    return out


def split_card(text: str) -> tuple[str, str]:
    """(YAML between the `---` lines, body) of a card; without such lines the whole text is body."""
    plain = text.replace("\r\n", "\n")
    found = _FRONT.match(plain)
    return (found[1], plain[found.end() :]) if found else ("", plain)


def _read_card(path: Path) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    if not path.is_file():
        return None, None
    try:
        front, _ = split_card(read_text(path))
        data = read_yaml(front) if front else None
    except (OSError, ValueError, LookupError, RecursionError, yaml.YAMLError) as error:
        return None, (path.name, f"no readable YAML front matter: {error}")
    if data is not None and not isinstance(data, dict):
        return None, (path.name, f"the front matter is a {type(data).__name__}, not a mapping")
    return data, None


# The lock, and digests of the files that it lists.


def read_lock(folder: Path) -> BuildLock:
    """The lock of a data set.

    Raises:
        SourceError: there is none, or it is not valid; the first faults are named.
    """
    path = folder / LOCK_NAME
    try:
        return BuildLock.model_validate(orjson.loads(read_text(path)))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
    except (OSError, ValueError, RecursionError) as error:
        faults = str(error)
    raise SourceError(
        f"not a build lock: {faults}",
        where=str(path),
        hint="name the folder of a data set that p2r-data build wrote",
    )


def built_grammar(folder: Path) -> TraceGrammar | None:
    """What a trace is made of in a folder that a build wrote; None: no build did.

    Raises:
        ConfigError, SourceError: its lock cannot be read, or the grammar in it is none.
    """
    return read_lock(folder).grammar if (folder / LOCK_NAME).is_file() else None


def config_digest(lock: BuildLock, config: str) -> str:
    """Digest of the digests of a config's files: which rows it holds."""
    return digest(
        [
            [name, file.sha256]
            for name, file in sorted(lock.files.items())
            if (shard := SHARD.fullmatch(name)) and shard[1] == config
        ]
    )


def file_lock(path: Path, rows: int | None = None) -> FileLock:
    """What a lock says of one file.

    Args:
        path: the file.
        rows: how many it holds; None: it holds none.

    Raises:
        OSError: it cannot be read.
    """
    return FileLock(sha256=file_digest(path), bytes=path.stat().st_size, rows=rows)


# Parquet files: one explicit schema per config, shards and row groups that move little between versions.


ROW_GROUP_BYTES = 100 * 2**20
"""Text bytes of a row group: large groups let the Hub's storage deduplicate chunks across versions."""
MARKED_ROWS = 1024
"""On average one row in so many may end a row group."""
SHARD_BYTES = 1500 * 2**20
"""Text bytes of a file."""
_TOGETHER = 256
"""Rows that are put into a table together."""


class TableWriter:
    """Writes the files of one table below `folder`, with its one schema; rows have a `sample_id`.

    Args:
        row: what a row is.
        name: number of a file, from 0 -> its path below `folder`.
    """

    def __init__(self, folder: Path, row: type[Model], name: Callable[[int], str]) -> None:
        from videop2r_data.schemas import arrow_schema

        self.folder = folder
        self.name = name
        self.schema = arrow_schema(row)
        self.rows = 0
        self.shards: list[tuple[Path, int]] = []
        self._pending: list[dict[str, Any]] = []
        self._tables: list[Any] = []
        """Rows of the next row group."""
        self._group_bytes = 0
        self._shard_bytes = 0
        self._writer: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._pending.append(row)
        if len(self._pending) == _TOGETHER:
            self._pack()

    def add_table(self, rows: Any) -> None:
        """Append the rows of an Arrow table; the files are the same however rows are put into tables."""
        import pyarrow.compute as pc

        self._pack()
        texts = [column for column in rows.columns if str(column.type) == "string"]
        sizes = [pc.fill_null(pc.utf8_length(column), 0).to_pylist() for column in texts]
        start = 0
        for end, sample_id in enumerate(rows["sample_id"].to_pylist(), 1):
            self.rows += 1
            self._group_bytes += sum(size[end - 1] for size in sizes) + 256
            # A group ends at a row whose id hashes to a mark, near the wanted size: a row that is inserted or
            # removed moves no later boundary, and storage that deduplicates finds the later groups again.
            marked = zlib.crc32(sample_id.encode()) % MARKED_ROWS == 0
            if self._group_bytes >= (0.75 if marked else 1.5) * ROW_GROUP_BYTES:
                self._tables.append(rows.slice(start, end - start))
                self._flush()
                start = end
        if start < rows.num_rows:
            self._tables.append(rows.slice(start))

    def close(self) -> None:
        """Finish the last shard; a config without rows still gets a file with the schema."""
        self._pack()
        if self._tables or not self.shards:
            self._flush()
        self._end_shard()

    def _pack(self) -> None:
        import pyarrow as pa

        if self._pending:
            rows, self._pending = self._pending, []
            self.add_table(pa.Table.from_pylist(rows, schema=self.schema))

    def _flush(self) -> None:
        import pyarrow as pa

        if self._writer is None:
            self._begin_shard()
        table = pa.concat_tables([self.schema.empty_table(), *self._tables]).combine_chunks()
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._shard_bytes += self._group_bytes
        path, rows = self.shards[-1]
        self.shards[-1] = (path, rows + table.num_rows)
        self._tables, self._group_bytes = [], 0
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def _begin_shard(self) -> None:
        import pyarrow.parquet as pq

        path = self.folder / self.name(len(self.shards))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.shards.append((path, 0))
        self._shard_bytes = 0
        self._writer = pq.ParquetWriter(
            path, self.schema, compression="zstd", use_content_defined_chunking=True, write_page_index=True
        )

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
