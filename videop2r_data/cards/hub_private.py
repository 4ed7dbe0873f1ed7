"""What would become public that may not be meant to: folders of this machine and addresses of servers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

_LOCAL = re.compile(r"(?:/|~|[A-Za-z]:\\|file:).+")
_ADDRESS = re.compile(
    r"https?://(?!(?:[\w-]+\.)*(?:huggingface\.co|arxiv\.org|github\.com|w3\.org)(?:[/:]|\Z)).+"
)
_KEY = r"(?:api[_-]?key|key|token|access_token|secret|password|sig)"
_SECRET = re.compile(
    rf"(?:https?|wss?|ftp|s3)://(?:[^/?#\s]*@|[^?#\s]*\?(?:[^#\s]*&)?{_KEY}=).*", re.IGNORECASE | re.DOTALL
)
"""An address with a user and password in it, or a key in its query."""
_MAX_JSON = 1_000_000
"""Bytes above which a JSON file is no settings: a tokenizer, an index."""


def addresses_in(value: Any, where: str) -> Iterator[str]:
    """Each local folder and each server, with its place.

    >>> list(addresses_in({"sources": [{"path": "/home/me/pool.json"}], "model": "Qwen/Qwen2.5-VL"}, "lock"))
    ['lock: sources.0.path is /home/me/pool.json']
    """
    yield from (f"{where}: {place} is {text}" for place, text in _strings(value, "", _LOCAL, _ADDRESS))


def secrets_in(value: Any) -> Iterator[str]:
    """The place of each address that holds a password or a key; the address itself is not told.

    >>> list(secrets_in({"base_url": "https://me:secret@models.example/v1"}))
    ['base_url']
    """
    yield from (place for place, _ in _strings(value, "", _SECRET))


def addresses_in_file(path: Path, name: str) -> Iterator[str]:
    """The same for a small JSON file; larger ones and other files are not looked into."""
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
