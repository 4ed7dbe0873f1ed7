"""The card and the lock of a release against its files, its rows and each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from videop2r_data.builders.verify.report import Code, Findings, Gathered, Tally, nested
from videop2r_data.errors import SourceError
from videop2r_data.files import (
    CARD_NAME,
    LOCK_NAME,
    PREVIEW_CONFIG,
    Release,
    config_digest,
    file_digest,
    parquet_file,
    read_text,
)
from videop2r_data.schemas import (
    ADDED_LATER,
    CONFIGS,
    LOCK_VERSION,
    BuildLock,
    Stage,
    feature_info,
)

# The card: what `datasets` reads of its front matter, and the tables that `p2r-data build` writes there.


_DIGEST = re.compile(r"content sha256 ([0-9a-f]{64})")
"""In the description of each config, since `datasets` caches a local folder under a key made of it."""
_LONGEST_PATTERN = 300


def check_card(release: Release, gathered: Mapping[str, Gathered], findings: Findings) -> None:
    """What a loader takes from the card: `datasets` enforces it for every user."""
    if release.layout == "official":
        return
    if release.card is None:
        if release.lock is not None and not any(name == CARD_NAME for name, _ in release.problems):
            code, got = Code.CARD_MISSING, "no such file"
            if (release.root / CARD_NAME).is_file():
                code, got = Code.CARD_INVALID, "no YAML front matter"
            expected = "the card: without it `datasets` takes all configs for one"
            findings.add(code, CARD_NAME, got=got, expected=expected)
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
        """Note a finding on a field of the card."""
        self.findings.add(code, CARD_NAME, field=field, got=got, expected=expected)

    def check(self, gathered: Mapping[str, Gathered]) -> None:
        """Hold the card against the rows that were read."""
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
            want = config_digest(self.lock, config)
            if said is None or said[1] != want:
                got = "no digest of its files" if said is None else said[1]
                expected = f"content sha256 {want}: else loaders give cached older rows"
                self.add(Code.CARD_CONFIG, f"configs.{config}.description", got=got, expected=expected)

    def _files_of(self, config: str, entry: dict[str, Any]) -> None:
        taken = Counter(
            file.name
            for _, pattern in _patterns(entry)
            for file in self.release.files
            if fnmatchcase(file.name, pattern)
        )
        there = {file.name for file in self.files.get(config, ())}
        if taken != Counter(there) or not there:
            got = ", ".join(sorted(taken.elements())) or "no file"
            expected = ", ".join(sorted(there)) or "a config that has files"
            self.add(Code.CARD_CONFIG, f"configs.{config}.data_files", got=got, expected=expected)

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
            splits = {s.get("name") for s in info["splits"]}, {s for s, _ in _patterns(entry)}
            if splits[0] != splits[1]:
                named, loaded = (", ".join(sorted(map(str, names))) or "none" for names in splits)
                self.add(Code.CARD_INVALID, f"{config}.splits", got=named, expected=loaded)
        self._features(config, info.get("features"))
        if self.lock is not None:
            self._sizes(config, info)

    def _features(self, config: str, features: object) -> None:
        want = feature_info(self.release.models[config])
        later = ADDED_LATER.get(config, {})
        earlier = [info for info in want if info["name"] not in later]
        if features is None and self.lock is None:
            return
        if features not in (want, earlier):
            self.add(
                Code.CARD_FEATURES, f"{config}.features", got=features, expected="those of the row model"
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


def _counts(splits: Any) -> int | None:
    if not isinstance(splits, list) or not all(isinstance(s, dict) for s in splits):
        return None
    numbers: list[Any] = [s.get("num_examples") for s in splits]
    known = [n for n in numbers if isinstance(n, int)]
    return sum(known) if known and len(known) == len(numbers) else None


# The lock: against the files, the rows and the card, and against itself.


_LOCK_ROW = re.compile(r"^\| lock \| sha256 `([0-9a-f]{64})` \|$", re.MULTILINE)
"""Where a card says of which lock it was made."""
NO_LOCK = (
    f"no {LOCK_NAME}: the rows are held against themselves, each other and the card; that no file and no "
    "row is missing, and by which recipe they were made, cannot be told"
)


def check_lock(
    release: Release,
    gathered: Mapping[str, Gathered],
    file_rows: Mapping[str, int],
    digests: Mapping[str, str],
    findings: Findings,
) -> None:
    """Files, rows, ledger, sources and models of the lock against what is there."""
    lock = release.lock
    if lock is None:
        listed = (release.card or {}).get("configs")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        made_here = any(_DIGEST.search(str(entry.get("description", ""))) for entry in entries)
        if made_here and not any(name == LOCK_NAME for name, _ in release.problems):
            expected = "the lock of the build that wrote the card"
            findings.add(Code.LOCK_MISSING, LOCK_NAME, got="no such file", expected=expected)
        return
    if lock.lock != LOCK_VERSION:
        findings.add(Code.LOCK_INVALID, LOCK_NAME, field="lock", got=lock.lock, expected=LOCK_VERSION)
    _check_files(release, lock, file_rows, digests, findings)
    _check_card_row(release, findings)
    for field, said, counted in [*_ledger(lock, gathered), *_origin(lock)]:
        if said != counted:
            got, expected = _unlike(said, counted), _unlike(counted, said)
            findings.add(Code.LEDGER, LOCK_NAME, field=field, got=got, expected=expected)


def _check_files(
    release: Release,
    lock: BuildLock,
    file_rows: Mapping[str, int],
    digests: Mapping[str, str],
    findings: Findings,
) -> None:
    for name, entry in lock.files.items():
        if name not in digests:
            findings.add(Code.FILE_MISSING, name, got="no such file", expected="a file, as in the lock")
            continue
        size = (release.root / name).stat().st_size
        if digests[name] != entry.sha256 and digests[name]:
            findings.add(Code.FILE_DIGEST, name, field="sha256", got=digests[name], expected=entry.sha256)
        elif size != entry.bytes:
            findings.add(Code.FILE_DIGEST, name, field="bytes", got=size, expected=entry.bytes)
        if name in file_rows and file_rows[name] != entry.rows:
            told = "none" if entry.rows is None else f"{entry.rows:,}"
            findings.add(Code.LOCK_ROWS, name, field="rows", got=f"{file_rows[name]:,}", expected=told)
    for file in release.files:
        if file.name not in lock.files:
            findings.add(
                Code.FILE_UNLISTED, file.name, got="a data file", expected="none that the lock does not list"
            )


def _check_card_row(release: Release, findings: Findings) -> None:
    """The card names the lock that it was made of: any change of the lock shows here."""
    card, lock = release.root / CARD_NAME, release.root / LOCK_NAME
    try:
        made_of = _LOCK_ROW.search(read_text(card).replace("\r\n", "\n"))
        digest = file_digest(lock)
    except (OSError, ValueError):
        return
    if made_of is not None and made_of[1] != digest:
        expected = f"{made_of[1]}, as the card says"
        findings.add(Code.LOCK_DIGEST, LOCK_NAME, field="sha256", got=digest, expected=expected)


Pair = tuple[str, Any, Any]
"""Field of the lock, what it says, what was counted."""


def _ledger(lock: BuildLock, gathered: Mapping[str, Gathered]) -> list[Pair]:
    ledger, empty = lock.ledger, Tally()
    sft = gathered["sft"].total if "sft" in gathered else empty
    rejected = gathered["rejected"].total if "rejected" in gathered else empty
    pairs: list[Pair] = [
        ("ledger.rows_in", ledger.rows_in, ledger.kept + ledger.rejected + ledger.failed),
        ("ledger.kept", ledger.kept, sft.rows),
    ]
    if "rejected" in gathered or ledger.rejected + ledger.failed:
        pairs.append(("ledger.rejected + failed", ledger.rejected + ledger.failed, rejected.rows))
        for name in ("rejected", "failed"):
            pairs.append((f"ledger.{name}", getattr(ledger, name), rejected.outcomes[name]))
        reasons = dict(sorted(ledger.reasons.items()))
        pairs.append(("ledger.reasons", reasons, dict(sorted(rejected.reasons.items()))))
    table = nested(Counter({(d, p): n for d, row in ledger.table.items() for p, n in row.items() if n}))
    pairs.append(("ledger.table", table, nested(sft.table)))
    if "rl" in gathered and "rejected" in gathered:
        # rows of `rl`: every question whose row and media could be read
        unread = sum(
            n for reason, n in rejected.reasons.items() if reason.split("/")[0] in (Stage.POOL, Stage.MEDIA)
        )
        pairs.append(("rows of rl", gathered["rl"].total.rows, sft.rows + rejected.rows - unread))
    return pairs


def _origin(lock: BuildLock) -> list[Pair]:
    """Sources and models against the recipe of the same lock."""
    ledger, recipe = lock.ledger, lock.recipe
    pairs: list[Pair] = [
        ("sources.rows", sum(source.rows for source in lock.sources), ledger.rows_in + ledger.surplus)
    ]
    listed = recipe.get("sources")
    if not isinstance(listed, list) or not isinstance(recipe.get("generate"), dict):
        return pairs  # no recipe, which is told elsewhere
    wanted = [source.get("name") for source in listed if isinstance(source, dict)]
    pairs.append(("sources", [source.name for source in lock.sources], wanted))
    try:
        asked = {step: spec.model for step, spec in lock.read_recipe().backends.items()}
    except ValidationError:
        return pairs
    pairs.append(("models", {step: model.asked for step, model in lock.models.items()}, asked))
    return pairs


def _unlike(one: Any, other: Any) -> Any:
    """The part of a mapping in which it differs from another; other values as they are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: one.get(key) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}
    return one
