"""What must hold before publishing: a whole folder that agrees with its lock and card, nothing private."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from videop2r_data.cards.card.dataset import card_head
from videop2r_data.cards.card.facts import ledger_faults
from videop2r_data.errors import HubError, first_line
from videop2r_data.files import CARD_NAME, LOCK_NAME, SHARD, config_digest, file_digest, read_lock, read_text
from videop2r_data.schemas import CONFIGS, BuildLock

PICTURE = r"(?:figures|assets)/[\w.-]+\.(?:png|svg|webp|json)"
RECORD = r"(?:croissant|judge-agreement|overlap|stats)\.json"
"""Files beside the rows that a push may write and a pull may fetch, as patterns of their full paths."""

# A folder is held against its lock and card before a push and after a pull.

_SHOWN = 8
"""Faults named in one message."""


class Fault(NamedTuple):
    """One disagreement, and the file that has it."""

    file: str
    what: str


def check_folder(folder: Path) -> BuildLock:
    """Hold every file against the lock, the ledger against the files, and the card against both.

    Returns:
        The lock.

    Raises:
        HubError: something disagrees; the first faults are named.
        SourceError: the lock cannot be read.
    """
    lock = read_lock(folder)
    if faults := folder_faults(folder, lock):
        raise unfit(folder, faults)
    return lock


def folder_faults(folder: Path, lock: BuildLock) -> list[Fault]:
    """Every disagreement: files with the lock, ledger with files, card with both."""
    return [*_files(folder, lock), *_ledger(lock), *_card(folder, lock)]


def unfit(folder: Path, faults: list[Fault], done: str = "") -> HubError:
    """The error that names the first faults.

    Args:
        folder: the data set.
        faults: at least one.
        done: what was done about them, shown instead of the usual hint.
    """
    more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    told = "\n  ".join(f"{fault.file}: {fault.what}" for fault in faults[:_SHOWN])
    return HubError(
        f"the data set is not the one that its lock describes:\n  {told}{more}",
        where=str(folder),
        hint=done
        or "build it anew (the journal makes that free), or fetch it anew, then run the command again",
    )


def _of(name: str) -> str:
    match = SHARD.fullmatch(name)
    return match.group(1) if match else ""


def _files(folder: Path, lock: BuildLock) -> Iterator[Fault]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, known in sorted(lock.files.items()):
        if not SHARD.fullmatch(name):
            yield Fault(name, "the lock names a file that is no shard")
            continue
        path = folder / name
        if not path.is_file():
            yield Fault(name, "missing")
        elif path.stat().st_size != known.bytes:
            yield Fault(name, f"{path.stat().st_size:,} bytes, the lock says {known.bytes:,}")
        elif file_digest(path) != known.sha256:
            yield Fault(name, "its sha256 is not the lock's")
        else:
            try:
                rows = pq.read_metadata(path).num_rows
            except (pa.ArrowException, OSError) as error:
                yield Fault(name, f"not a readable parquet file: {first_line(error)}")
                continue
            if rows != known.rows:
                yield Fault(name, f"{rows:,} rows, the lock says {known.rows}")
    for path in sorted((folder / "data").glob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        if SHARD.fullmatch(name) and name not in lock.files:
            yield Fault(name, "not in the lock, so of another build")


def _rows(lock: BuildLock, config: str) -> int:
    return sum(file.rows or 0 for name, file in lock.files.items() if _of(name) == config)


def _ledger(lock: BuildLock) -> Iterator[Fault]:
    rows = {config: _rows(lock, config) for config in dict.fromkeys(map(_of, lock.files)) if config}
    yield from (Fault(LOCK_NAME, f"ledger: {what}") for what in ledger_faults(lock.ledger, rows))


def _card(folder: Path, lock: BuildLock) -> Iterator[Fault]:
    path = folder / CARD_NAME
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        yield Fault(CARD_NAME, f"{error}")
        return
    head = card_head(text)
    if head is None:
        yield Fault(CARD_NAME, "no YAML front matter")
        return
    entries = {e.get("config_name"): e for e in _dicts(head.get("configs"))}
    counts = {
        e.get("config_name"): sum(s.get("num_examples", 0) for s in _dicts(e.get("splits")))
        for e in _dicts(head.get("dataset_info"))
    }
    for config in CONFIGS:
        if not any(_of(name) == config for name in lock.files):
            continue
        # `datasets` caches a local folder under its card's entry: without the digest it would serve old rows
        wanted = config_digest(lock, config)
        if config not in entries:
            yield Fault(CARD_NAME, f"config {config!r} is not declared")
        elif not any(wanted in str(value) for value in entries[config].values()):
            lacks = f"config {config!r} lacks its files' digest {wanted[:12]}"
            yield Fault(CARD_NAME, f"{lacks}: users would see old rows")
        if counts.get(config) != _rows(lock, config):
            told = f"{counts.get(config)} rows of {config!r}"
            yield Fault(CARD_NAME, f"{told}, its files hold {_rows(lock, config):,}")


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# What a push would make public by accident: local folders, addresses of servers, keys inside of addresses.

_LOCAL = re.compile(r"(?:/|~|[A-Za-z]:\\|file:).+")
_ADDRESS = re.compile(
    r"https?://(?!(?:[\w-]+\.)*(?:huggingface\.co|arxiv\.org|github\.com|w3\.org)(?:[/:]|\Z)).+"
)
_KEY = r"(?:api[_-]?key|key|token|access_token|secret|password|sig)"
_SECRET = re.compile(
    rf"(?:https?|wss?|ftp|s3)://(?:[^/?#\s]*@|[^?#\s]*\?(?:[^#\s]*&)?{_KEY}=).*", re.IGNORECASE | re.DOTALL
)
"""An address that holds a user and password, or a key in its query."""
_MAX_JSON = 1_000_000
"""Bytes above which a JSON file holds no settings but a tokenizer or an index."""


def addresses_in(value: Any, where: str) -> Iterator[str]:
    """Local folders and servers among the strings of a value, each with its place.

    >>> list(addresses_in({"sources": [{"path": "/home/me/pool.json"}], "model": "Qwen/Qwen2.5-VL"}, "lock"))
    ['lock: sources.0.path is /home/me/pool.json']
    """
    yield from (f"{where}: {place} is {text}" for place, text in _strings(value, "", _LOCAL, _ADDRESS))


def secrets_in(value: Any) -> Iterator[str]:
    """Places of the addresses that hold a password or a key; the addresses themselves are not named.

    >>> list(secrets_in({"base_url": "https://me:secret@models.example/v1"}))
    ['base_url']
    """
    yield from (place for place, _ in _strings(value, "", _SECRET))


def addresses_in_file(path: Path, name: str) -> Iterator[str]:
    """`addresses_in` of a small JSON file; nothing for larger files and other kinds."""
    if path.suffix != ".json" or path.stat().st_size > _MAX_JSON:
        return
    try:
        value = orjson.loads(path.read_bytes())
    except ValueError:
        return
    yield from addresses_in(value, name)


def _strings(value: Any, place: str, *wanted: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(inner, f"{place}.{key}" if place else str(key), *wanted)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{place}.{number}" if place else str(number), *wanted)
    elif isinstance(value, str) and any(p.fullmatch(value) for p in wanted):
        yield place, value
