"""Open any released data set: ours, the paper's official files, or a folder of rows with their columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml
from pydantic import ValidationError

from videop2r_data.errors import SourceError
from videop2r_data.files.rows import Batch, first_columns, is_data_file, read_batches
from videop2r_data.schemas import BuildLock

CARD, LOCK = "README.md", "build.lock.json"
Layout = Literal["ours", "official"]
CONFIG_NAMES = ("sft", "rl", "rejected")
MAX_TEXT_BYTES = 64 * 2**20
"""A card or a lock above it is refused unread."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?\Z")
_NAME = re.compile(r"(?:^|[_.-])(sft|rl|rejected)(?=$|[_.-])")
_PART = re.compile(r"\A(.*)\.part(\d{1,4})of(\d{1,4})\.")
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
    notes: tuple[str, ...] = field(default=())

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
        if not isinstance(where, str) or not _HUB_ID.match(where):
            raise SourceError(
                "no such file or folder",
                where=str(where),
                hint="give a folder, a file or a Hub id (owner/name)",
            )
        from videop2r_data.files.hub import fetch

        path, commit = fetch(where, revision)
    root = path if path.is_dir() else path.parent
    paths = sorted(_data_files(path), key=_reading_order)
    if not paths:
        raise SourceError(
            "no data files (parquet, jsonl, json, each also .gz)",
            where=str(where),
            hint="give the folder that holds data/ or the parts themselves",
        )
    card, card_problem = _read_card(root / CARD)
    lock, lock_problem = _read_lock(root / LOCK)
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


def missing_parts(files: Sequence[ReleaseFile]) -> list[tuple[str, int]]:
    """Parts that the names of the others announce: (name without part, number)."""
    seen: dict[tuple[str, int], set[int]] = {}
    for file in files:
        match = _PART.match(file.name)
        if match:
            seen.setdefault((match.group(1), int(match.group(3))), set()).add(int(match.group(2)))
    return [
        (stem, number)
        for (stem, of), have in sorted(seen.items())
        for number in range(1, of + 1)
        if number not in have
    ]


def _data_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        if is_data_file(path.name):
            yield path
        return
    for folder in (path, path / "data"):
        if folder.is_dir():
            for child in folder.iterdir():
                if is_data_file(child.name) and child.is_file():
                    yield child


def _reading_order(path: Path) -> list[Any]:
    """Names with their numbers as numbers: part 10 comes after part 9."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", path.as_posix()) if p]


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


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"larger than {MAX_TEXT_BYTES:,} bytes")
    return path.read_text(encoding="utf-8")


def _read_card(path: Path) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    if not path.is_file():
        return None, None
    try:
        match = _FRONT.match(_read_text(path).replace("\r\n", "\n"))
        data = yaml.safe_load(match.group(1)) if match else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        return None, (path.name, f"no readable YAML front matter: {error}")
    if data is not None and not isinstance(data, dict):
        return None, (path.name, f"the front matter is a {type(data).__name__}, not a mapping")
    return data, None


def _read_lock(path: Path) -> tuple[BuildLock | None, tuple[str, str] | None]:
    if not path.is_file():
        return None, None
    try:
        return BuildLock.model_validate(orjson.loads(_read_text(path))), None
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        return None, (path.name, f"not a build lock: {lines}")
    except (OSError, ValueError, RecursionError) as error:
        return None, (path.name, f"not a build lock: {error}")
