"""Verdicts of judges beside the marks of people, as `judge-eval` writes them, for the rows they speak of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from videop2r_data.cards.gallery_rows import Entry
from videop2r_data.errors import SourceError
from videop2r_data.schemas import HumanLabel, Model


class JudgedLine(Model):
    """A line of `verdicts.jsonl`: what one judge said of one label."""

    judge: str
    model: str
    label: HumanLabel
    sufficient: bool | None
    """None: unscored."""
    why: str
    latency_s: float | None


def read_verdicts(path: Path) -> list[JudgedLine]:
    """All lines of a file of verdicts.

    Raises:
        SourceError: it cannot be read, a line is no verdict, or there is none.
    """
    found: list[JudgedLine] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    found.append(_read(line, f"{path}, line {number}"))
    except OSError as error:
        raise SourceError(f"cannot read the verdicts: {error}", where=str(path)) from None
    if not found:
        raise SourceError("no verdict in it", where=str(path), hint="give verdicts.jsonl of judge-eval")
    return found


def by_words(lines: Sequence[JudgedLine]) -> dict[tuple[str, ...], list[JudgedLine]]:
    """Verdicts by the sample and the exact words that they are about, in order."""
    found: dict[tuple[str, ...], list[JudgedLine]] = {}
    for line in lines:
        label = line.label
        words = (label.problem, *label.options, label.reference, label.observation)
        found.setdefault((label.sample_id, *words), []).append(line)
    return found


def words_of(entry: Entry) -> tuple[str, ...]:
    """The key of an entry in `by_words`."""
    return (entry.sample_id, entry.problem, *entry.options, entry.reference, entry.observation or "")


def differs(line: JudgedLine) -> bool:
    """Whether a judge contradicts the person; an unscored verdict does not."""
    return line.sufficient is not None and line.sufficient is not line.label.sufficient


def _read(line: bytes, where: str) -> JudgedLine:
    try:
        return JudgedLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise SourceError(
            f"no verdict: {field}: {first['msg']}", where=where, hint="give verdicts.jsonl of judge-eval"
        ) from None
