"""What only the whole release can show: duplicates, and configs against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from videop2r_data.builders.verify.report import Code, Findings, Severity
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.files.release import Release

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
