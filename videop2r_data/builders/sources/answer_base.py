"""What a pool's index answers count from: read from the pool as a whole, never from one row or one share."""

from __future__ import annotations

from collections.abc import Iterable

from videop2r_data.builders.sources.normalise import Normaliser
from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import RawRow

_HINT = "set `answer_base` of this source: 0 or 1, or `text` if the numbers are the texts of options"


def read_base(rows: Iterable[RawRow], normalise: Normaliser, where: str) -> int:
    """0 or 1: what the index answers of a pool count from.

    An answer 0 can only count from 0, one as high as its number of options only from 1. Rows whose number is
    the text of an option, or printed before one, say nothing.

    Args:
        rows: the whole pool, whatever share of it is read afterwards.
        normalise: tells the index answers.
        where: name for messages.

    Raises:
        SourceError: the answers say both, or leave it open.
    """
    zero: tuple[int, int, int] | None = None
    top: tuple[int, int, int] | None = None
    between: tuple[int, int, int] | None = None
    seen = 0
    for raw in rows:
        found = normalise.index_answer(raw.value) if raw.value is not None else None
        if found is None or not 0 <= found[0] <= found[1]:
            continue
        seen += 1
        told = (raw.index, *found)
        if found[0] == 0:
            zero = zero or told
        elif found[0] == found[1]:
            top = top or told
        else:
            between = between or told
    if zero and top:
        raise SourceError(
            f"answers are whole numbers that count from 0 ({_told(zero)}) and from 1 ({_told(top)})",
            where=where,
            hint=_HINT,
        )
    if between and not zero and not top:
        raise SourceError(
            f"{seen:,} answers are whole numbers that may count from 0 or from 1 ({_told(between)}): none is "
            "0, and none is as high as its number of options",
            where=where,
            hint=_HINT,
        )
    return 1 if top else 0


def _told(found: tuple[int, int, int]) -> str:
    row, answer, options = found
    return f"row {row}: answer {answer} of {options} options"
