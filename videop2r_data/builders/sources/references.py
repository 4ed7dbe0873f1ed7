"""The reference answer of a row: out of whatever the pool holds, and which option it means."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from videop2r_data.builders.sources.jsonstream import NumberText
from videop2r_data.builders.sources.options import Labels, option_letter, option_text
from videop2r_data.schemas.reasons import RejectReason
from videop2r_data.schemas.sample import strip_answer_tag

MAX_TEXT = 1 << 16
"""Characters of one field: a longer question is damage, and would be paid for at a model."""
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")


class FieldError(ValueError):
    """One field cannot be read."""

    def __init__(self, detail: str, reason: RejectReason = RejectReason.BAD_ROW) -> None:
        super().__init__(detail)
        self.reason = reason


def read_reference(got: Any, column: str) -> str | int:
    """The reference without its tag; a whole number stays one, it may be an index."""
    bad = RejectReason.BAD_REFERENCE
    if isinstance(got, list | tuple) and len(got) == 1 and isinstance(got[0], str):
        got = got[0]
    if isinstance(got, bool) or got is None:
        raise FieldError(f'"{column}" is {got}, a reference answer is needed', bad)
    if isinstance(got, int):
        return got
    if isinstance(got, float):
        if not math.isfinite(got):
            raise FieldError(f'"{column}" is {got}, a finite number is needed', bad)
        return repr(int(got)) if got.is_integer() and abs(got) < 2**53 else repr(got)
    if isinstance(got, list | tuple) and got and all(_is_number(x) for x in got) and len(got) <= 4:
        return json.dumps([float(x) if isinstance(x, NumberText) else x for x in got])
    if not isinstance(got, str):
        raise FieldError(
            f'"{column}" is {type(got).__name__}, allowed are text, a number or a list of numbers', bad
        )
    if len(got) > MAX_TEXT:
        raise FieldError(f'"{column}" is {len(got)} characters long, at most {MAX_TEXT} are allowed', bad)
    text = strip_answer_tag(got)
    if not text:
        raise FieldError(f'"{column}" is empty, a reference answer is needed', bad)
    if "<answer>" in text or "</answer>" in text:
        raise FieldError(f'"{column}" has more than one answer tag: {text[:80]!r}', bad)
    return str(text)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | NumberText) or (isinstance(value, float) and math.isfinite(value))


def option_meant(reference: str | int, options: tuple[str, ...], labels: Labels) -> str:
    """The reference of a multiple-choice row as its letter, whatever way the pool names the option.

    A letter of the row is taken as it is; else the text of one option; else the number that is printed before
    one; a whole number beside options without numbers is an index from 0. Two readings that differ make the
    reference bad: a wrong label would be worse than a lost row.
    """
    bad = RejectReason.BAD_REFERENCE
    letters = [option_letter(option) for option in options]
    text = str(reference).strip()
    by_text = [x for x, o in zip(letters, options, strict=True) if option_text(o).lower() == text.lower()]
    by_number = _by_number(text, labels, letters, is_index=isinstance(reference, int))
    if isinstance(reference, int) or by_number:
        readings = {*by_text, *by_number}
        if len(readings) != 1:
            found = " and ".join(sorted(readings)) or "none"
            raise FieldError(f"the number {text} can mean these options: {found}; use letters", bad)
        return readings.pop()
    match = _LETTER.fullmatch(text)
    letter = match.group(1).upper() if match else ""
    if letter in letters:
        if labels is not Labels.LETTERS and by_text and by_text != [letter]:
            raise FieldError(f"{text!r} is both a letter and the text of option {by_text[0]}", bad)
        return letter
    return by_text[0] if len(by_text) == 1 else text


def _by_number(text: str, labels: Labels, letters: list[str], *, is_index: bool) -> list[str]:
    """The option that a number counts to: from 1 when the pool prints numbers, else from 0."""
    if not text.isascii() or not text.isdigit() or len(text) > 3:
        return []
    place = int(text) - 1 if labels is Labels.NUMBERS else int(text)
    counts = labels is Labels.NUMBERS or is_index
    return [letters[place]] if counts and 0 <= place < len(letters) else []
