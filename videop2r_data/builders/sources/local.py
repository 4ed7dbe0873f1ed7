"""Which files a local data set is made of, by its layout and its split, and how their rows are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import orjson

from videop2r_data.builders.sources.columnar import column_names, read_columnar
from videop2r_data.builders.sources.table import TableRows
from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import JsonRows, RawRow
from videop2r_data.files.opening import open_pool_file

FORMATS = {
    ".csv": "table",
    ".tsv": "table",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "columnar",
    ".pq": "columnar",
    ".arrow": "columnar",
}
"""Ending of a file, without `.gz` -> how it is read."""
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
    """A local data set.

    Attributes:
        files: read one after the other.
        media_root: folder that paths of its rows are relative to, unless the recipe names one.
    """

    files: tuple[Path, ...]
    media_root: Path

    def headers(self) -> Iterator[tuple[Path, list[str]]]:
        """Each file that says what its columns are, before its first row, and the columns."""
        for path in self.files:
            form = format_of(path)
            if form == "columnar":
                yield path, column_names(path)
            elif form == "table":
                with open_pool_file(path) as stream, closing(_table(stream, path)) as table:
                    yield path, list(table.columns)

    def rows(self) -> Iterator[RawRow]:
        """The rows of all files, numbered through.

        Raises:
            SourceError: a file cannot be read (on).
        """
        start = 0
        for path in self.files:
            index = -1
            for row in read_file(path):
                index = row.index
                yield row if start == 0 else replace(row, index=start + index)
            start += index + 1


def format_of(path: Path) -> str:
    """How a file is read: `table`, `json`, `columnar`, or "" if its ending is none that is known."""
    return FORMATS.get(Path(path.name.removesuffix(".gz")).suffix.lower(), "")


def read_file(path: Path) -> Iterator[RawRow]:
    """The rows of one file, by its ending.

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
            yield from JsonRows(stream, where=str(path), exact=False)


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
