"""The reference answer of a row: out of whatever the pool holds, and which option it means."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

from videop2r_data.builders.sources.options import Labels, option_letter, option_text
from videop2r_data.files.json_rows import NumberText
from videop2r_data.schemas.sample import strip_answer_tag
from videop2r_data.schemas.verdict import RejectReason

MAX_TEXT = 1 << 16
"""Characters of one field: a longer question is damage, and would be paid for at a model."""
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_NUMBERS = re.compile(r"\d{1,2}(?:\s*[,;]\s*\d{1,2})+")
_LIST = re.compile(r"\[\d{1,2}(?:, \d{1,2})+\]")
"""Whole numbers that stood in a list, as `read_reference` prints them."""


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
    letters = (
        [x for x in got if isinstance(x, str) and _LETTER.fullmatch(x)]
        if isinstance(got, list | tuple)
        else []
    )
    if len(letters) > 1 and len(letters) == len(got):
        got = ", ".join(letters)  # the letters of several options that are right together
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


AnswerBase = Literal[0, 1, "text"] | None
"""What a whole number is: an index from 0, one from 1, an option's text; None: as the whole pool says."""


def option_meant(
    reference: str | int,
    options: tuple[str, ...],
    labels: Labels,
    *,
    answer_base: AnswerBase = None,
    counted_from: int = 0,
) -> str:
    """The reference of a multiple-choice row as its letter, whatever way the pool names the option.

    A letter of the row is taken as it is; else the text of one option; else the number that is printed before
    one; else a whole number is an index. Two readings that differ make the reference bad: a wrong label would
    be worse than a lost row.

    Args:
        reference: a whole number stays one, it may be an index.
        options: canonical, `"A. text"`.
        labels: what the options went by in the pool.
        answer_base: what the recipe says of whole numbers; with it there is one reading.
        counted_from: what the pool as a whole says, where the recipe says nothing.

    Raises:
        FieldError: no reading, or two.
    """
    letters = [option_letter(option) for option in options]
    text = str(reference).strip()
    number = whole_number(text)
    by_text = _by_text(text, letters, options)
    if answer_base is not None and number is not None:
        return _as_the_recipe_says(number, by_text, letters, answer_base)
    if _LIST.fullmatch(text):
        base = 1 if labels is Labels.NUMBERS else counted_from if _numeric(options) else None
        return _several(text, letters, options, answer_base, base)
    by_number: list[str] = []
    if labels is Labels.NUMBERS and not by_text and _NUMBERS.fullmatch(text):
        several = [_nth(int(part), letters, 1) for part in re.split(r"[,;]", text)]
        return ", ".join(found[0] for found in several) if all(several) else text
    if labels is Labels.NUMBERS:
        by_number = _nth(number, letters, 1)
    elif isinstance(reference, int) or index_meant(reference, options, labels) is not None:
        by_number = _nth(number, letters, counted_from) if by_text or not _numeric(options) else []
    if isinstance(reference, int) or by_number:
        readings = {*by_text, *by_number}
        if len(readings) != 1:
            found = " and ".join(sorted(readings)) or "none"
            raise _bad(f"the number {text} can mean these options: {found}; use letters, or set answer_base")
        return readings.pop()
    match = _LETTER.fullmatch(text)
    letter = match.group(1).upper() if match else ""
    if letter in letters:
        if labels is not Labels.LETTERS and by_text and by_text != [letter]:
            raise _bad(f"{text!r} is both a letter and the text of option {by_text[0]}")
        return letter
    return by_text[0] if len(by_text) == 1 else text


def _several(
    text: str,
    letters: list[str],
    options: tuple[str, ...],
    answer_base: AnswerBase,
    base: int | None,
) -> str:
    """The letters of a list of whole numbers: as the recipe says, else as both readings say.

    Without `base` the list stays as it is: no text is a number, and what the indexes count from is not known.
    """
    numbers = [int(part) for part in text.strip("[]").split(",")]
    by_text = [_by_text(str(number), letters, options) for number in numbers]
    if answer_base is not None:
        found = [
            _as_the_recipe_says(n, t, letters, answer_base) for n, t in zip(numbers, by_text, strict=True)
        ]
        return ", ".join(found)
    if base is None:
        return text
    indexed = [_nth(number, letters, base) for number in numbers]
    readings = {", ".join(sorted(one for (one,) in each)) for each in (by_text, indexed) if _each(each)}
    if len(readings) != 1:
        told = " and ".join(sorted(readings)) or "none"
        raise _bad(f"the numbers {text} can mean these options: {told}; use letters, or set answer_base")
    return readings.pop()


def _each(found: list[list[str]]) -> bool:
    return all(len(one) == 1 for one in found)


def index_meant(reference: str | int, options: tuple[str, ...], labels: Labels) -> int | None:
    """The whole number of a reference that can be nothing but an index: no option has it as text or label.

    Beside options that are numbers themselves it may as well be a wrong text, and says nothing.
    """
    text = str(reference).strip()
    number = whole_number(text)
    if number is None or labels is Labels.NUMBERS or _numeric(options):
        return None
    return None if _by_text(text, [option_letter(o) for o in options], options) else number


def _as_the_recipe_says(number: int, by_text: list[str], letters: list[str], base: int | str) -> str:
    if base == "text":
        if len(by_text) != 1:
            raise _bad(f"the number {number} is the text of {len(by_text)} options, and answer_base is text")
        return by_text[0]
    found = _nth(number, letters, int(base))
    if not found:
        raise _bad(f"the index {number} of {len(letters)} options, counted from {base} (answer_base)")
    return found[0]


def _bad(detail: str) -> FieldError:
    return FieldError(detail, RejectReason.BAD_REFERENCE)


def whole_number(reference: str | int) -> int | None:
    """A whole number of at most three digits, else None.

    >>> whole_number("12"), whole_number(-1), whole_number("1.0")
    (12, None, None)
    """
    text = str(reference).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else None


def _numeric(options: tuple[str, ...]) -> bool:
    return any(whole_number(option_text(option)) is not None for option in options)


def _by_text(text: str, letters: list[str], options: tuple[str, ...]) -> list[str]:
    """The options with this text; those in another case count where none has it exactly."""
    texts = [option_text(option) for option in options]
    exact = [letter for letter, one in zip(letters, texts, strict=True) if one == text]
    return exact or [x for x, one in zip(letters, texts, strict=True) if one.lower() == text.lower()]


def _nth(number: int | None, letters: list[str], base: int) -> list[str]:
    return [letters[number - base]] if number is not None and base <= number < base + len(letters) else []
