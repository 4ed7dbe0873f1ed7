"""Any data set: local files of every common layout, and data sets streamed from the Hub by `datasets`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from videop2r_data.builders.sources.base import Source, numbered_through
from videop2r_data.builders.sources.normalise import embedded_media, value_of
from videop2r_data.builders.sources.tables import TableRows, column_names, embed_media, read_columnar
from videop2r_data.errors import SourceError, first_line
from videop2r_data.files import (
    CARD_NAME,
    FORMATS,
    MAX_ROW_CHARS,
    JsonRows,
    RawRow,
    format_of,
    locate,
    no_such_path,
    open_pool_file,
    pool_files,
)
from videop2r_data.schemas import SourceSpec

# Local files: which ones make up a data set, by its layout and split, and how their rows are read.


_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
_WORDS = re.compile(r"[A-Za-z0-9]+")
_PACKED = (".tar", ".zip", ".tgz", ".tar.gz")
_NO_POOL = {"dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json"}


@dataclass(frozen=True)
class LocalFiles:
    """A local data set, and the folder that its paths are relative to unless the recipe names one."""

    files: tuple[Path, ...]
    media_root: Path

    def headers(self) -> Iterator[tuple[Path, list[str]]]:
        """(file, column names) of each file with a header."""
        for path in self.files:
            form = format_of(path)
            if form == "columnar":
                yield path, column_names(path)
            elif form == "table":
                with open_pool_file(path) as stream, closing(_table(stream, path)) as table:
                    yield path, list(table.columns)


def read_file(path: Path, *, max_row_chars: int = MAX_ROW_CHARS) -> Iterator[RawRow]:
    """The rows of one file, by its ending; `max_row_chars` of a row of JSON.

    Raises:
        SourceError: the ending is not known, or the file cannot be read (on).
    """
    form = format_of(path)
    if form == "columnar":
        yield from (RawRow(index, value) for index, value in enumerate(read_columnar(path)))
        return
    if not form:
        known = ", ".join(FORMATS)
        raise SourceError(
            f"a file of type {path.suffix!r}, known are {known}, all but the last three also with .gz",
            where=str(path),
            hint="give the file the ending of what it is, or convert it",
        )
    with open_pool_file(path) as stream:
        if form == "table":
            with closing(_table(stream, path)) as table:
                yield from table
        else:
            # Numbers as `datasets` gives them, so that a pool reads the same here and from the Hub.
            yield from JsonRows(stream, where=str(path), exact=False, max_row_chars=max_row_chars)


def find_local(place: Path, *, split: str, where: str) -> LocalFiles | None:
    """The files of a local data set.

    A file is itself. A folder is, in this order: media with a `metadata` file beside them (`imagefolder`), in
    the folder or in a folder of the split's name; or all files of one known ending in the folder, below
    `data/`, or anywhere below, those of the split where their names say one.

    Returns:
        None: a folder of archives, which is left to the `datasets` library.

    Raises:
        SourceError: no data file, files of several endings, none of the split.
    """
    if place.is_file():
        return LocalFiles((place,), place.parent)
    for folder in (place / split, place):
        found = [p for p in _files_in(folder) if p.stem.partition(".")[0] == "metadata"]
        if found:
            return LocalFiles((found[0],), folder)
    for files in (_files_in(place), _files_in(place / "data", deep=True), _files_in(place, deep=True)):
        if files:
            return LocalFiles(_of_split(_of_one_format(files, where), place, split, where), place)
    there = sorted(p.name for p in place.iterdir())
    if any(name.endswith(_PACKED) for name in there):
        return None
    raise SourceError(
        f"no data file in the folder (known endings: {', '.join(FORMATS)}); there are: "
        f"{', '.join(there[:8]) or 'none'}{' ...' if len(there) > 8 else ''}",
        where=where,
        hint="name the folder or the file that holds the questions",
    )


def saved_by_datasets(place: Path, *, split: str, where: str) -> LocalFiles | None:
    """The files of a data set, if `save_to_disk` wrote this folder; of several splits one.

    Raises:
        SourceError: it has no such split, or does not list its files.
    """
    if (place / "state.json").is_file():
        return LocalFiles(_listed(place), place)
    listed = place / "dataset_dict.json"
    if not listed.is_file():
        return None
    try:
        splits = [str(name) for name in orjson.loads(listed.read_bytes())["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"cannot be read: {error}", where=str(listed), hint="save the data set anew"
        ) from None
    if split not in splits or not (place / split).is_dir():
        raise _no_split(split, splits, where)
    return LocalFiles(_listed(place / split), place)


def _listed(folder: Path) -> tuple[Path, ...]:
    """The Arrow files that `state.json` names, which lie beside it."""
    state = folder / "state.json"
    try:
        names = [str(one["filename"]) for one in orjson.loads(state.read_bytes())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"cannot be read: {error}", where=str(state), hint="save the data set anew"
        ) from None
    files = tuple(folder / name for name in names)
    bad = next((p for p in files if p.name != p.relative_to(folder).as_posix() or not p.is_file()), None)
    if bad is not None or not files:
        raise SourceError(
            f"names the file {bad.name!r}, which does not lie beside it" if bad else "names no file",
            where=str(state),
            hint="save the data set anew",
        )
    return files


def _table(stream: BinaryIO, path: Path) -> TableRows:
    return TableRows(stream, where=str(path), delimiter="\t" if ".tsv" in path.suffixes else None)


def _files_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """Files of known endings, sorted; hidden ones and those that tools write about a data set are none."""
    if not folder.is_dir():
        return []
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        p
        for p in found
        if format_of(p)
        and p.name not in _NO_POOL
        and not any(part.startswith((".", "_")) for part in p.relative_to(folder).parts)
        and p.is_file()
    )


def _of_one_format(files: list[Path], where: str) -> list[Path]:
    endings = sorted({Path(p.name.removesuffix(".gz")).suffix.lower() for p in files})
    if len(endings) > 1:
        named = ", ".join(p.name for p in files[:6])
        raise SourceError(
            f"data files of several kinds: {named}{' ...' if len(files) > 6 else ''}",
            where=where,
            hint="name one file, or several of one kind by a glob, e.g. path: folder/*.csv",
        )
    return files


def _of_split(files: list[Path], place: Path, split: str, where: str) -> tuple[Path, ...]:
    splits = [_split_of(p.relative_to(place)) for p in files]
    if not any(splits):
        return tuple(files)
    chosen = tuple(p for p, its in zip(files, splits, strict=True) if its == split)
    if not chosen:
        raise _no_split(split, sorted({its for its in splits if its}), where)
    return chosen


def _split_of(path: Path) -> str:
    """The split that a file's name or folders say; empty if they say none."""
    shard = _SHARD.fullmatch(path.name.partition(".")[0])
    words = {word.lower() for word in _WORDS.findall(str(path.with_suffix("")))}
    known = next((name for name, all_of in _SPLIT_WORDS.items() if words & set(all_of)), "")
    return known or (shard.group(1) if shard else "")


def _no_split(split: str, there: list[str], where: str) -> SourceError:
    return SourceError(
        f"no split {split!r}; there are: {', '.join(there)}",
        where=where,
        hint="set `split` of this source in the recipe",
    )


# The source itself: local files where the path has some, else `datasets` streams from the Hub.


HUB = "hf://datasets/"
"""In front of a Hub id that could be taken for a local path."""
_PEEK = 1000
"""Rows that are looked at for the first media of a pool."""


class DatasetSource(Source):
    """Kind `dataset`; nothing is downloaded or cached as a whole, media columns stay undecoded.

    Media that the rows themselves hold are written to `embedded_root`.

    Raises:
        SourceError: no such file, folder, data set, configuration, split or column; or its data cannot be
            read (on).
    """

    def __init__(
        self, spec: SourceSpec, *, base: Path, media_root: Path | None, embedded_root: Path | None = None
    ) -> None:
        self._place = locate(spec.path, base)
        self._embedded_root = embedded_root
        self._looked = False
        self.commit = ""
        """Of the Hub, once rows were read from there."""
        where = f"source {spec.name!r}, {spec.path}"
        self._on_hub = is_hub_id(spec, self._place)
        self._local = None if self._on_hub else self._find(spec, base, where)
        if media_root is None and self._local is not None:
            media_root = self._local.media_root
        elif media_root is None and not self._on_hub:
            media_root = self._place
        super().__init__(spec, media_root)

    def _find(self, spec: SourceSpec, base: Path, where: str) -> LocalFiles | None:
        if not self._place.exists():
            files = pool_files(spec.path, base, name=spec.name)  # a glob, or the error that names the nearest
            return LocalFiles(tuple(files), files[0].parent)
        saved = saved_by_datasets(self._place, split=spec.split, where=where)
        if saved is not None:
            return saved
        if self._place.is_dir() and (spec.config is not None or _has_configs(self._place)):
            return None
        return find_local(self._place, split=spec.split, where=where)

    @property
    def media_root(self) -> Path | None:
        """Folder that `Sample.path` is relative to; media that rows hold are written to one of their own."""
        if not self._looked and self._embedded_root is not None:
            self._looked = True
            # What a build wrote from the Hub is known without asking it again.
            written = self._on_hub and self._embedded_root.is_dir()
            if written or self._holds_media():
                self.embed = partial(embed_media, self._embedded_root)
        return self._media_root if self.embed is None else self._embedded_root

    def headers(self) -> Iterator[tuple[str, Sequence[str]]]:
        """The columns of each file that has a header, or those that `datasets` knows."""
        if self._local is not None:
            for path, names in self._local.headers():
                yield str(path), [*names, *self._also(names)]
            return
        with _errors(self.where):
            names = self._stream.column_names
        if names is not None:
            yield self.spec.path, names

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows as the files or `datasets` give them."""
        local = self._local
        rows = self._streamed() if local is None else numbered_through(local.files, read_file)
        for raw in rows:
            if raw.value is not None:
                for column in self._also(raw.value):
                    raw.value[column] = raw.value["file_name"]
            yield raw

    def _also(self, names: Collection[str]) -> list[str]:
        """What `datasets` calls the column `file_name` of a folder of media, where the recipe does so too."""
        column = self.spec.columns.path
        known = column in ("image", "video") and column not in names and "file_name" in names
        return [column] if known and column is not None else []

    def _holds_media(self) -> bool:
        """Whether the first media of the pool stand in its rows."""
        column = self.spec.columns.path
        if column is None or (self._local is not None and format_of(self._local.files[0]) != "columnar"):
            return False
        for raw, _ in zip(self.raw_rows(), range(_PEEK), strict=False):
            got = value_of(raw.value, column) if raw.value is not None else None
            got = got[0] if isinstance(got, list | tuple) and got else got
            data, path = embedded_media(got)
            if data or path:
                return bool(data)
        return False

    def _streamed(self) -> Iterator[RawRow]:
        with _errors(self.where) as at:
            for index, value in enumerate(self._stream):
                at.row = index
                yield RawRow(index, value)

    @cached_property
    def _stream(self) -> Any:
        """The data set as `datasets` streams it, opened once and read as often as is asked for."""
        import datasets
        from huggingface_hub import constants

        from videop2r_data.files import hub_commit

        spec = self.spec
        path = spec.path.removeprefix(HUB) if self._on_hub else str(self._place)
        # `datasets` would ask for a name that is not there half a dozen times; offline it looks in its cache.
        if self._on_hub and not constants.HF_HUB_OFFLINE:
            self.commit = hub_commit(path, spec.revision, where=self.where)
        # By the commit: a branch may have moved since it was looked up.
        revision = self.commit or spec.revision
        rows = datasets.load_dataset(path, spec.config, split=spec.split, revision=revision, streaming=True)
        return rows.decode(False) if rows.features is not None else rows


class _errors:  # noqa: N801 - used as a statement
    """Turn any exception of `datasets` and its dependencies into a SourceError with the last row read."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.row = -1

    def __enter__(self) -> _errors:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, SourceError) or not isinstance(error, Exception):
            return
        raise SourceError(
            f"{type(error).__name__}: {first_line(error)}",
            where=f"{self.where}, after row {self.row}" if self.row >= 0 else self.where,
            hint="check path, config, split and revision of this source",
        ) from error


def is_hub_id(spec: SourceSpec, place: Path) -> bool:
    """Whether a path means the Hub: `owner/name` that is nothing here and looks like nothing that could be.

    Raises:
        SourceError: it can only be meant as a file or folder, and is not there.
    """
    path = spec.path
    if path.startswith(HUB):
        return True
    if place.exists() or any(c in path for c in "*?["):
        return False
    parts = Path(path).parts
    local = path.startswith((".", "/", "~")) or len(parts) != 2 or bool(format_of(place))
    if local or place.parent.is_dir():
        raise (
            no_such_path("no such file or folder", place, name=spec.name)
            if local
            else SourceError(
                f"no {parts[1]!r} in the folder {place.parent}",
                where=f"source {spec.name!r}, {place}",
                hint=f"correct `path`; for the data set of that name on the Hub write {HUB}{path}",
            )
        )
    return True


def _has_configs(folder: Path) -> bool:
    """Whether a card in the folder says which files make which split: then `datasets` reads it."""
    try:
        text = (folder / CARD_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    return any(line.startswith("configs:") for line in head.splitlines())
