"""The card against the files: what `datasets` reads of it, and what `p2r-data build` writes there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from videop2r_data.builders.verify.report import Code, Findings
from videop2r_data.builders.verify.whole import Gathered
from videop2r_data.errors import SourceError
from videop2r_data.files.release import CARD, Release
from videop2r_data.files.rows import parquet_file
from videop2r_data.schemas.lock import PREVIEW_CONFIG, BuildLock
from videop2r_data.schemas.rows import ADDED_LATER, CONFIGS, feature_info

_DIGEST = re.compile(r"content sha256 ([0-9a-f]{64})")
"""In the description of each config, since `datasets` caches a local folder under a key made of it."""
_LONGEST_PATTERN = 300


def made_here(card: Mapping[str, Any] | None) -> bool:
    """Whether a card says of itself that `p2r-data build` wrote it."""
    return any(_DIGEST.search(str(entry.get("description", ""))) for entry in _dicts(card, "configs"))


def check_card(release: Release, gathered: Mapping[str, Gathered], findings: Findings) -> None:
    """What a loader takes from the card: `datasets` enforces it for every user."""
    if release.layout == "official":
        return
    if release.card is None:
        if release.lock is not None and not any(name == CARD for name, _ in release.problems):
            there = (release.root / CARD).is_file()
            findings.add(
                Code.CARD_INVALID if there else Code.CARD_MISSING,
                CARD,
                got="no YAML front matter" if there else "no such file",
                expected="the card: without it `datasets` takes all configs for one",
            )
        return
    _Card(release, release.card, findings).check(gathered)


class _Card:
    """One card, with what it is held against."""

    def __init__(self, release: Release, card: dict[str, Any], findings: Findings) -> None:
        self.release = release
        self.card = card
        self.findings = findings
        self.lock: BuildLock | None = release.lock
        self.files = {config: [f for f in release.files if f.config == config] for config in release.configs}

    def add(self, code: Code, field: str, *, got: object, expected: object) -> None:
        self.findings.add(code, CARD, field=field, got=got, expected=expected)

    def check(self, gathered: Mapping[str, Gathered]) -> None:
        entries = self._by_name("configs")
        infos = self._by_name("dataset_info")
        if entries or self.lock is not None:
            self._configs(entries)
        for name, info in infos.items():
            if name in CONFIGS:
                self._info(name, info, entries.get(name), gathered)
            elif name != PREVIEW_CONFIG:  # a push made it for the viewer of the Hub, of rows of `sft`
                self.add(Code.CARD_INVALID, "dataset_info", got=name, expected=" | ".join(CONFIGS))
        if self.lock is not None:
            for config in self.files.keys() - infos.keys():
                self.add(Code.CARD_INVALID, f"dataset_info.{config}", got="none", expected="an entry")

    def _by_name(self, key: str) -> dict[Any, dict[str, Any]]:
        """The entries of a list by their config; one that is none, or stands twice, is a fault."""
        listed = self.card.get(key)
        if listed is None:
            return {}
        entries = listed if isinstance(listed, list) else [listed]
        found: dict[Any, dict[str, Any]] = {}
        for entry in entries:
            name = entry.get("config_name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name in found:
                self.add(Code.CARD_INVALID, key, got=name, expected="each config once")
            else:
                found[name] = entry
        return found

    # configs: which files a loader takes

    def _configs(self, entries: Mapping[str, dict[str, Any]]) -> None:
        for config in CONFIGS:
            if config in entries:
                self._files_of(config, entries[config])
            elif config in self.files:
                self.add(Code.CARD_CONFIG, f"configs.{config}", got="not declared", expected="an entry")
        if self.lock is None:
            return
        default = [name for name, entry in entries.items() if entry.get("default") is True]
        if default != ["sft"]:
            self.add(Code.CARD_CONFIG, "configs.default", got=default, expected="sft alone")
        for config in self.files.keys() & entries.keys():
            said = _DIGEST.search(str(entries[config].get("description", "")))
            want = self.lock.config_digest(config)
            if said is None or said[1] != want:
                self.add(
                    Code.CARD_CONFIG,
                    f"configs.{config}.description",
                    got="no digest of its files" if said is None else said[1],
                    expected=f"content sha256 {want}: else loaders give cached older rows",
                )

    def _files_of(self, config: str, entry: dict[str, Any]) -> None:
        taken = Counter(
            file.name
            for _, pattern in _patterns(entry)
            for file in self.release.files
            if fnmatchcase(file.name, pattern)
        )
        there = {file.name for file in self.files.get(config, ())}
        if taken != Counter(there) or not there:
            self.add(
                Code.CARD_CONFIG,
                f"configs.{config}.data_files",
                got=", ".join(sorted(taken.elements())) or "no file",
                expected=", ".join(sorted(there)) or "a config that has files",
            )

    # dataset_info: what a loader compares them with

    def _info(
        self,
        config: str,
        info: dict[str, Any],
        entry: dict[str, Any] | None,
        gathered: Mapping[str, Gathered],
    ) -> None:
        rows = gathered[config].total.rows if config in gathered else 0
        said = _counts(info.get("splits"))
        if said is None:
            self.add(Code.CARD_INVALID, f"{config}.splits", got=info.get("splits"), expected="counts")
        elif said != rows:
            self.add(Code.CARD_COUNT, f"{config}.num_examples", got=said, expected=rows)
        elif entry is not None:
            named, split = {s.get("name") for s in info["splits"]}, {s for s, _ in _patterns(entry)}
            if named != split:
                self.add(Code.CARD_INVALID, f"{config}.splits", got=_listed(named), expected=_listed(split))
        self._features(config, info.get("features"))
        if self.lock is not None:
            self._sizes(config, info)

    def _features(self, config: str, features: object) -> None:
        want = feature_info(CONFIGS[config])
        later = ADDED_LATER.get(config, {})
        earlier = [info for info in want if info["name"] not in later]
        if features is None and self.lock is None:
            return
        if features not in (want, earlier):
            self.add(
                Code.CARD_FEATURES,
                f"{config}.features",
                got=features,
                expected="those of the row model",
            )

    def _sizes(self, config: str, info: dict[str, Any]) -> None:
        """Bytes: with far too many a loader says that the disk is full."""
        assert self.lock is not None
        files = self.files.get(config, [])
        known = {name: entry.bytes for name, entry in self.lock.files.items()}
        try:
            if any(known.get(file.name) != file.path.stat().st_size for file in files):
                return  # told of the file itself
            text, held = _bytes_of([file.path for file in files])
        except (SourceError, OSError):
            return  # told of the file itself
        splits = info["splits"] if isinstance(info.get("splits"), list) else []
        split_bytes = [s.get("num_bytes") for s in splits if isinstance(s, dict)]
        for field, said, want in (
            ("num_bytes", split_bytes, [text] * len(split_bytes)),
            ("download_size", info.get("download_size"), held),
            ("dataset_size", info.get("dataset_size"), text),
        ):
            if said != want:
                self.add(Code.CARD_COUNT, f"{config}.{field}", got=said, expected=want)


def _bytes_of(paths: list[Any]) -> tuple[int, int]:
    """Bytes of the columns, unpacked, and of the files."""
    text = 0
    for path in paths:
        with parquet_file(path) as file:
            meta = file.metadata
            text += sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    return text, sum(path.stat().st_size for path in paths)


def _patterns(entry: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """(split, pattern of files) of a config."""
    splits = entry.get("data_files")
    for split in splits if isinstance(splits, list) else [splits]:
        if isinstance(split, str):
            yield "train", split
            continue
        if not isinstance(split, dict):
            continue
        paths = split.get("path")
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str) and len(path) <= _LONGEST_PATTERN:
                yield split.get("split"), path


def _listed(names: set[Any]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"


def _dicts(card: Mapping[str, Any] | None, key: str) -> list[dict[str, Any]]:
    value = (card or {}).get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _counts(splits: Any) -> int | None:
    if not isinstance(splits, list) or not all(isinstance(s, dict) for s in splits):
        return None
    numbers: list[Any] = [s.get("num_examples") for s in splits]
    known = [n for n in numbers if isinstance(n, int)]
    return sum(known) if known and len(known) == len(numbers) else None
