"""Fetch a released data set at one commit, and check every file against its digest and the lock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import orjson
from pydantic import Field

from videop2r_data.cards.card.metadata import PREVIEW_NAME
from videop2r_data.cards.hub.check import PICTURE, RECORD, folder_faults, unfit
from videop2r_data.cards.hub.client import Hub, Place, Watch, in_parallel, no_watch
from videop2r_data.cards.hub.plan import LocalFile, RemoteFile, list_files
from videop2r_data.errors import HubError, SourceError
from videop2r_data.files import LOCK_NAME, SHARD, missing_parts, read_lock
from videop2r_data.schemas import Model

NOTE = ".cache/p2r-pull.json"
"""Note in a pulled folder: repository, commit and files."""
REFUSED = ".cache/p2r-refused"
"""Folder of files that arrived and were refused."""
_TEXT = re.compile(rf"README\.md|LICENSE.*|NOTICE.*|CITATION.*|CHANGELOG\.md|{RECORD}|{PICTURE}")
_ROWS = re.compile(r"(?:data/)?[\w.-]+\.(?:parquet|jsonl|json|jsonl\.gz|json\.gz)")


class PullReport(Model):
    """What a pull did."""

    repo: str
    commit: str
    folder: str
    ours: bool
    """Built by this tool: lock, ledger and card were checked too."""
    files: int
    bytes: int
    fetched: int
    """Files that were not already here."""
    fetched_bytes: int
    removed: tuple[str, ...]
    """Files of another revision that were deleted."""
    rows: dict[str, int] = Field(default_factory=dict)
    """Config -> verified rows."""
    faults: int | None = None
    """Kinds of faults that `verify` found; None: the rows were not verified."""


def pull_dataset(
    repo: str, dest: Path, *, hub: Hub, revision: str | None = None, watch: Watch = no_watch
) -> PullReport:
    """Bring a folder to the state of a data set on the Hub: texts and rows, without media.

    An interrupted pull is resumed: whole files are not fetched again. Every file is checked against the
    digest that the Hub lists, and a data set of this tool against its own lock, ledger and card.

    Args:
        repo: `owner/name`: built by this tool, the official release, or any set of Parquet or JSON files.
        dest: new, empty, or pulled from the same repository before; another revision replaces what was there.
        hub: where.
        revision: commit, tag or branch.
        watch: called with progress.

    Raises:
        HubError: the folder holds something else, a part is missing, a file differs from the release, or the
            Hub cannot be read.
    """
    place = Place.find(hub, repo, revision)
    commit = place.commit
    wanted = wanted_files(repo, list_files(hub, repo, "dataset", commit))
    targets = {name: _inside(dest, name) for name in wanted}
    before = _claim(dest, repo, commit, wanted)
    todo = {name: file for name, file in wanted.items() if not file.is_at(targets[name])}
    total, done = sum(file.bytes for file in todo.values()), 0
    for name in in_parallel(lambda name: download(place, name, dest), todo):
        done += todo[name].bytes
        watch(name, done, total)
    for name, file in todo.items():
        if not file.is_at(targets[name]):
            _put_aside(dest, [name])
            raise HubError(
                "what arrived is not what the Hub lists", where=name, hint="run the same command again"
            )
    removed = _remove_stale(dest, before - wanted.keys())
    _claim(dest, repo, commit, wanted, done=True)
    if LOCK_NAME in wanted:
        _check(dest, wanted)
    return PullReport(
        repo=repo,
        commit=commit,
        folder=str(dest),
        ours=LOCK_NAME in wanted,
        files=len(wanted),
        bytes=sum(file.bytes for file in wanted.values()),
        fetched=len(todo),
        fetched_bytes=total,
        removed=removed,
    )


def _check(dest: Path, wanted: Mapping[str, RemoteFile]) -> None:
    """Check a pulled data set against its own lock; files with faults are moved where no loader reads them.

    Raises:
        HubError: something disagrees.
        SourceError: the lock cannot be read.
    """
    try:
        lock = read_lock(dest)
    except SourceError:
        _put_aside(dest, [LOCK_NAME])
        raise
    if faults := folder_faults(dest, lock):
        moved = _put_aside(dest, sorted({fault.file for fault in faults} & wanted.keys()))
        done = (
            f"put aside, in {dest / REFUSED}: {', '.join(moved)}; tell whoever published it" if moved else ""
        )
        raise unfit(dest, faults, done)


def _put_aside(dest: Path, names: Iterable[str]) -> list[str]:
    """Move refused files to `REFUSED`, for people to look at; returns those that were there."""
    moved = []
    for name in names:
        path = _inside(dest, name)
        if path.is_file():
            target = dest / REFUSED / name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            moved.append(name)
    return moved


def wanted_files(repo: str, files: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
    """Card, lock, figures and rows of a data set; of one with a lock only its shards are rows.

    Raises:
        HubError: there are no rows, or a part that the other parts' names announce is missing.
    """
    ours = LOCK_NAME in files
    rows = SHARD if ours else _ROWS
    found = {
        name: file
        for name, file in sorted(files.items())
        if name == LOCK_NAME
        or (ours and name == PREVIEW_NAME)
        or _TEXT.fullmatch(name)
        or rows.fullmatch(name)
    }
    if not any(rows.fullmatch(name) and name != LOCK_NAME for name in found):
        raise HubError("no rows in this data set (parquet, jsonl, json, each also .gz)", where=repo)
    for stem, number in missing_parts(found):
        raise HubError(f"part {number} of {stem} is missing: its other parts' names announce it", where=repo)
    return found


def _claim(
    dest: Path, repo: str, commit: str, wanted: Mapping[str, RemoteFile], *, done: bool = False
) -> set[str]:
    """Write the note of a folder, before the first byte and after the last; returns the files noted before.

    Raises:
        HubError: the folder is neither new nor pulled from this repository. A build is never overwritten,
            even one that was made in a pulled folder: its lock is not among those noted.
    """
    note = dest / NOTE
    try:
        noted = orjson.loads(note.read_bytes())
        was, files, locks = str(noted["repo"]), {str(n) for n in noted["files"]}, list(noted["locks"])
    except (OSError, ValueError, TypeError, KeyError):
        was, files, locks = "", set(), []
    if was != repo and dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        what = f"it was pulled from {was}" if was else "it holds files that were not pulled"
        raise HubError(f"the folder is not free: {what}", where=str(dest), hint="name another folder")
    if (dest / LOCK_NAME).is_file() and LocalFile(dest / LOCK_NAME).git_oid not in locks:
        what = "it was built or changed since it was pulled"
        raise HubError(f"the folder is not free: {what}", where=str(dest), hint="name another folder")
    new = [wanted[LOCK_NAME].oid] if LOCK_NAME in wanted else []
    fresh = {
        "repo": repo,
        "commit": commit,
        "files": sorted(wanted) if done else sorted(files | set(wanted)),
        "locks": new if done else [*locks, *new],
    }
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_bytes(orjson.dumps(fresh))
    return files


def _inside(dest: Path, name: str) -> Path:
    target = dest / name
    if not target.resolve().is_relative_to(dest.resolve()):
        raise HubError("a link leads out of the folder", where=str(target), hint="name another folder")
    return target


def download(place: Place, name: str, dest: Path) -> str:
    """Fetch one file of a commit into a folder; returns its name."""
    from huggingface_hub import hf_hub_download

    ask = partial(
        hf_hub_download,
        place.repo,
        name,
        repo_type="dataset",
        revision=place.commit,
        local_dir=dest,
        token=place.hub.token or False,
        endpoint=place.hub.endpoint,
        force_download=(dest / name).exists(),
    )
    place.hub.call(ask, f"{place.repo}: {name}")
    return name


def _remove_stale(dest: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Delete files of another revision, whose rows would be loaded too; returns them. Other files stay."""
    gone = [name for name in sorted(names) if _inside(dest, name).is_file()]
    for name in gone:
        (dest / name).unlink()
    return tuple(gone)
