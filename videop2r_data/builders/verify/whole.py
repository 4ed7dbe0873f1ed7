"""What only the whole release can show: duplicates, configs against each other, lock and card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videop2r_data.builders.release import Release
from videop2r_data.builders.verify.report import Code, Findings, Severity, nested
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.schemas.arrow import feature_info
from videop2r_data.schemas.lock import PREVIEW_CONFIG
from videop2r_data.schemas.rows import ADDED_LATER, CONFIGS

_U64 = np.dtype("<u8")
Digests = NDArray[np.uint64]


class Gathered:
    """All rows of one config: counts, and the digests with the place of each row."""

    def __init__(self) -> None:
        self.total = Tally()
        self._files: list[str] = []
        self._starts: list[int] = []
        self._held = 0

    def add(self, file: str, tally: Tally) -> None:
        """Append the tally of the next slice."""
        total = self.total
        total.rows += tally.rows
        for mine, theirs in (
            (total.table, tally.table),
            (total.outcomes, tally.outcomes),
            (total.reasons, tally.reasons),
            (total.notes, tally.notes),
        ):
            mine.update(theirs)  # type: ignore[arg-type]
        self._files.append(file)
        self._starts.append(self._held)
        self._held += len(tally.at)
        total.at.extend(tally.at)
        total.ids += tally.ids
        total.contents += tally.contents
        total.questions += tally.questions

    def ids(self) -> Digests:
        """64-bit digest of each row's id, in order."""
        return np.frombuffer(bytes(self.total.ids), _U64)

    def contents(self) -> Digests:
        """64-bit digest of each row's content, in order."""
        return np.frombuffer(bytes(self.total.contents), _U64)

    def questions(self) -> Digests:
        """64-bit digest of each row's question columns, in order."""
        return np.frombuffer(bytes(self.total.questions), _U64)

    def place(self, at: int) -> tuple[str, int]:
        """(file, row) of the row at a position."""
        part = int(np.searchsorted(self._starts, at, side="right")) - 1
        return self._files[part], self.total.at[at]


def repeats(digests: Digests) -> list[tuple[int, int]]:
    """(position, first position) of each value that stands earlier already, by position.

    >>> repeats(np.array([7, 8, 7, 7], dtype=np.uint64))
    [(2, 0), (3, 0)]
    """
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    new = np.ones(len(digests), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(digests)), 0))] if len(digests) else order
    return sorted((int(a), int(b)) for a, b in zip(order[~new], first[~new], strict=True))


def check_repeats(gathered: Mapping[str, Gathered], release: Release, findings: Findings) -> dict[str, int]:
    """Ids and contents that stand twice in one config."""
    official = release.layout == "official"
    counts: Counter[str] = Counter()
    for config, rows in gathered.items():
        kinds: list[tuple[str, Code, Digests, Severity]] = []
        kinds.append(("id", Code.DUPLICATE_ID, rows.ids(), "warning" if official else "error"))
        if config != "rejected":
            severity: Severity = "warning" if official or config == "rl" else "error"
            kinds.append(("row", Code.DUPLICATE_ROW, rows.contents(), severity))
        for name, code, digests, severity in kinds:
            twice = repeats(digests)
            counts[name] += len(twice)
            for at, first in twice:
                file, row = rows.place(at)
                where = "{}, row {}".format(*rows.place(first))
                findings.add(
                    code, file, row, _FIELD[code], got=f"as in {where}", expected="once", severity=severity
                )
    return dict(counts)


_FIELD = {Code.DUPLICATE_ID: "sample_id", Code.DUPLICATE_ROW: "output"}


def check_across(gathered: Mapping[str, Gathered], findings: Findings) -> None:
    """A question is accepted or rejected, not both; every accepted one stands in `rl`, word for word."""
    sft, rl, rejected = (gathered.get(name) for name in ("sft", "rl", "rejected"))
    if sft is None:
        return
    if rejected is not None:
        for at in np.flatnonzero(np.isin(sft.ids(), rejected.ids())).tolist():
            file, row = sft.place(at)
            findings.add(
                Code.ID_IN_TWO_CONFIGS,
                file,
                row,
                "sample_id",
                got="in sft and in rejected",
                expected="in one",
            )
    if rl is None:
        return
    order = np.argsort(rl.ids(), kind="stable")
    ids = rl.ids()[order]
    spot = np.searchsorted(ids, sft.ids())
    found = np.zeros(len(spot), dtype=bool)
    inside = spot < len(ids)
    found[inside] = ids[spot[inside]] == sft.ids()[inside]
    for at in np.flatnonzero(~found).tolist():
        findings.add(Code.NOT_IN_RL, *sft.place(at), "sample_id", got="only in sft", expected="in rl too")
    mine, theirs = sft.questions()[found], rl.questions()[order][spot[found]]
    positions = np.flatnonzero(found)
    for at in np.flatnonzero(mine != theirs).tolist():
        where = "{}, row {}".format(*rl.place(int(order[spot[positions[at]]])))
        findings.add(
            Code.QUESTION_DIFFERS,
            *sft.place(int(positions[at])),
            "sample_id",
            got=f"another question than {where}",
            expected="the same question columns",
        )


def check_lock(
    release: Release,
    gathered: Mapping[str, Gathered],
    file_rows: Mapping[str, int],
    digests: Mapping[str, str],
    findings: Findings,
) -> None:
    """Files, rows and ledger of the lock against what is there."""
    lock = release.lock
    if lock is None:
        return
    for name, entry in lock.files.items():
        if name not in digests:
            findings.add(Code.FILE_MISSING, name, got="no such file", expected="a file, as in the lock")
        elif digests[name] != entry.sha256 and digests[name]:
            findings.add(Code.FILE_DIGEST, name, field="sha256", got=digests[name], expected=entry.sha256)
        if entry.rows is not None and name in file_rows and file_rows[name] != entry.rows:
            findings.add(
                Code.LOCK_ROWS, name, field="rows", got=f"{file_rows[name]:,}", expected=f"{entry.rows:,}"
            )
    for file in release.files:
        if file.name not in lock.files:
            findings.add(
                Code.FILE_UNLISTED, file.name, got="a data file", expected="none that the lock does not list"
            )
    _check_ledger(lock.ledger, gathered, findings)


def _check_ledger(ledger: Any, gathered: Mapping[str, Gathered], findings: Findings) -> None:
    empty = Tally()
    sft = gathered["sft"].total if "sft" in gathered else empty
    rejected = gathered["rejected"].total if "rejected" in gathered else empty
    pairs: list[tuple[str, Any, Any]] = [
        ("rows_in", ledger.rows_in, ledger.kept + ledger.rejected + ledger.failed),
        ("kept", ledger.kept, sft.rows),
    ]
    if "rejected" in gathered or ledger.rejected + ledger.failed:
        pairs.append(("rejected + failed", ledger.rejected + ledger.failed, rejected.rows))
        pairs += [(name, getattr(ledger, name), rejected.outcomes[name]) for name in ("rejected", "failed")]
        pairs.append(
            ("reasons", dict(sorted(ledger.reasons.items())), dict(sorted(rejected.reasons.items())))
        )
    table = nested(Counter({(d, p): n for d, row in ledger.table.items() for p, n in row.items() if n}))
    pairs.append(("table", table, nested(sft.table)))
    for name, said, counted in pairs:
        if said != counted:
            findings.add(
                Code.LEDGER,
                "build.lock.json",
                field=f"ledger.{name}",
                got=_unlike(said, counted),
                expected=_unlike(counted, said),
            )


def _unlike(one: Any, other: Any) -> Any:
    """The part of a mapping in which it differs from another; other values as they are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: one.get(key) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}
    return one


def check_card(release: Release, gathered: Mapping[str, Gathered], findings: Findings) -> None:
    """Counts and features of the card's `dataset_info`: `datasets` enforces them for every user."""
    if release.layout == "official" or release.card is None:
        return
    infos = release.card.get("dataset_info")
    if infos is None:
        return
    for info in infos if isinstance(infos, list) else [infos]:
        config = info.get("config_name") if isinstance(info, dict) else None
        if config == PREVIEW_CONFIG:
            continue  # a push made it for the viewer of the Hub; its rows are those of `sft`
        if config not in CONFIGS:
            findings.add(
                Code.CARD_INVALID, "README.md", field="dataset_info", got=config, expected=" | ".join(CONFIGS)
            )
            continue
        rows = gathered[config].total.rows if config in gathered else 0
        said = _counts(info.get("splits"))
        if said is None:
            findings.add(
                Code.CARD_INVALID,
                "README.md",
                field=f"{config}.splits",
                got=info.get("splits"),
                expected="counts",
            )
        elif said != rows:
            findings.add(
                Code.CARD_COUNT, "README.md", field=f"{config}.num_examples", got=said, expected=rows
            )
        features = info.get("features")
        later = ADDED_LATER.get(config, {})
        want = feature_info(CONFIGS[config])
        earlier = [info for info in want if info["name"] not in later]
        if features is not None and features not in (want, earlier):
            findings.add(
                Code.CARD_FEATURES,
                "README.md",
                field=f"{config}.features",
                got=features,
                expected="those of the row model",
            )


def _counts(splits: Any) -> int | None:
    if not isinstance(splits, Sequence) or isinstance(splits, str):
        return None
    numbers = [s.get("num_examples") if isinstance(s, dict) else None for s in splits]
    known = [n for n in numbers if isinstance(n, int)]
    return sum(known) if len(known) == len(numbers) else None
