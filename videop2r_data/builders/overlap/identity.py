"""Which clip a row is about, as its names say: ids in file names, each inside its namespace."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from videop2r_data.schemas import Model, Sample, parse_yaml, read_settings

_FILE = "namespaces.yaml"
_MOST = 300
"""Characters of a path that are read; a longer one has no id."""
_PLAIN = re.compile("[^a-z0-9]")
_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "dev": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""Words of a folder or a source -> the split that they say."""


class Identity(NamedTuple):
    """One id of a clip, and the part of it that its name holds, in seconds."""

    namespace: str
    id: str
    start_s: float | None = None
    end_s: float | None = None


def _with_id(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if "id" not in pattern.groupindex:
        raise ValueError("it has no group `id`: (?P<id>...)")
    return pattern


class Rule(Model):
    """One form of a name."""

    read: Annotated[re.Pattern[str], AfterValidator(_with_id)]
    where: tuple[str, ...] = ()
    at: Literal["name", "path", "source"] = "name"

    def find(self, path: str, source: str) -> re.Match[str] | None:
        """Where the rule fits, if it does."""
        if self.at == "name":
            return self.read.fullmatch(path.rpartition("/")[2].rpartition(".")[0])
        return self.read.search(path if self.at == "path" else source)


class Namespace(Model):
    """Ids that mean the same clip wherever they stand."""

    name: str
    rules: tuple[Rule, ...] = Field(min_length=1)
    splits: dict[str, tuple[int, int]] = Field(default_factory=dict)


class Namespaces:
    """A table of namespaces, as it reads rows."""

    def __init__(self, spaces: Iterable[Namespace]) -> None:
        self._spaces = tuple(spaces)
        self._splits = {space.name: space.splits for space in self._spaces}
        self._rules_for = lru_cache(4096)(self._find_rules)

    def identities(self, row: Sample) -> tuple[Identity, ...]:
        """What the names of a row say, one id of each namespace at most; empty: unknown."""
        found: dict[str, Identity] = {}
        if not row.path or len(row.path) > _MOST:
            return ()
        source = row.data_source[:_MOST]
        for name, rule in self._rules_for(_words(row.path, source, row.source)):
            if name not in found and (match := rule.find(row.path, source)) is not None:
                cut = match.groupdict()
                start, end = (float(at) if at else None for at in (cut.get("start"), cut.get("end")))
                found[name] = Identity(name, match["id"], start, end)
        return tuple(found.values())

    def split(self, row: Sample, identity: Identity) -> str:
        """Which part of its set a clip is of, by its number or the words of its folders; empty: unknown."""
        for name, (first, last) in self._splits[identity.namespace].items():
            if identity.id.isdecimal() and first <= int(identity.id) <= last:
                return name
        words = re.findall("[a-z]+", f"{row.path.rpartition('/')[0]} {row.data_source[:_MOST]}".lower())
        return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), "")

    def _find_rules(self, words: frozenset[str]) -> list[tuple[str, Rule]]:
        """The rules for a file, by the words around it."""
        return [
            (space.name, rule)
            for space in self._spaces
            for rule in space.rules
            if not rule.where or any(fnmatchcase(word, one) for word in words for one in rule.where)
        ]


def _words(path: str, *names: str) -> frozenset[str]:
    """What patterns of `where` are held against: folders, and parts of names."""
    parts = "/".join((path.rpartition("/")[0], *names)).lower().split("/")
    return frozenset(filter(None, (_PLAIN.sub("", part) for part in parts)))


class _Table(Model):
    namespaces: tuple[Namespace, ...]


def load_namespaces(path: Path | None = None) -> Namespaces:
    """The packaged table, behind that of a file of one's own.

    Raises:
        ConfigError: the file is missing or not valid.
    """
    own = [(read_settings(path, what="table of namespaces"), str(path))] if path is not None else []
    texts = [*own, ((files(__package__) / _FILE).read_text(encoding="utf-8"), _FILE)]
    valid = "the packaged one is an example: videop2r_data/builders/overlap/namespaces.yaml"
    tables = (parse_yaml(text, _Table, where=at, what="table", valid=valid, allowed="") for text, at in texts)
    return Namespaces(space for table in tables for space in table.namespaces)
