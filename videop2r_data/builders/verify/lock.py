"""The lock against the files, the rows and the card, and against itself."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from videop2r_data.builders.verify.card import made_here
from videop2r_data.builders.verify.report import Code, Findings, nested
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.builders.verify.whole import Gathered
from videop2r_data.files.release import CARD, LOCK, MAX_TEXT_BYTES, Release
from videop2r_data.schemas.lock import LOCK_VERSION, BuildLock
from videop2r_data.schemas.verdict import Stage

_LOCK_ROW = re.compile(r"^\| lock \| sha256 `([0-9a-f]{64})` \|$", re.MULTILINE)
"""Where a card says of which lock it was made."""
NO_LOCK = (
    f"no {LOCK}: the rows are held against themselves, each other and the card; that no file and no row is "
    "missing, and by which recipe they were made, cannot be told"
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
        if made_here(release.card) and not any(name == LOCK for name, _ in release.problems):
            findings.add(
                Code.LOCK_MISSING,
                LOCK,
                got="no such file",
                expected="the lock of the build that wrote the card",
            )
        return
    if lock.lock != LOCK_VERSION:
        findings.add(Code.LOCK_INVALID, LOCK, field="lock", got=lock.lock, expected=LOCK_VERSION)
    _check_files(release, lock, file_rows, digests, findings)
    _check_card_row(release, findings)
    for field, said, counted in [*_ledger(lock, gathered), *_origin(lock)]:
        if said != counted:
            findings.add(
                Code.LEDGER, LOCK, field=field, got=_unlike(said, counted), expected=_unlike(counted, said)
            )


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
    card, lock = release.root / CARD, release.root / LOCK
    try:
        text = card.read_text(encoding="utf-8") if card.stat().st_size <= MAX_TEXT_BYTES else ""
        made_of = _LOCK_ROW.search(text.replace("\r\n", "\n"))
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return
    if made_of is not None and made_of[1] != digest:
        findings.add(
            Code.LOCK_DIGEST, LOCK, field="sha256", got=digest, expected=f"{made_of[1]}, as the card says"
        )


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
    asked = {
        step: recipe[step]["backend"].get("model")
        for step in ("generate", "judge")
        if isinstance(recipe.get(step), dict) and isinstance(recipe[step].get("backend"), dict)
    }
    pairs.append(("models", {step: model.asked for step, model in lock.models.items()}, asked))
    return pairs


def _unlike(one: Any, other: Any) -> Any:
    """The part of a mapping in which it differs from another; other values as they are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: one.get(key) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}
    return one
