"""Options and reference answer of a row, in every layout found in the wild."""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
from enum import StrEnum
from typing import Any, Literal

from videop2r_data.files import NumberText
from videop2r_data.schemas import RejectReason, strip_answer_tag

# Options: every layout found in the wild, turned into `"A. text"`.


MAX_OPTIONS = 26
MAX_LITERAL = 1 << 16
"""Characters of a list written as text; longer ones are refused before they are parsed."""

_LETTERED = re.compile(r"\s*\(?([A-Za-z])\s*[).:]\s*(.*)", re.DOTALL)
_NUMBERED = re.compile(r"\s*\(?(\d{1,2})\s*[).:]\s+(\S.*)", re.DOTALL)
_NAMED = re.compile(r"\s*(?:[A-Z][a-z]+ )?\(?([A-Z]|\d{1,2})(?:\)|\s*[.:])\s*(\S.*)", re.DOTALL)
"""`Sentence A: x`, `Option 1: x`, `B. x`."""
_CANONICAL = re.compile(r"([A-Z])\.")
_NOTHING = {"", "none", "null", "nan", "[]", "{}", "n/a"}


class Labels(StrEnum):
    """What the options of a row went by in the pool."""

    LETTERS = "letters"
    NUMBERS = "numbers"
    """`1. x`, counted from 1."""
    NONE = "none"


class FieldError(ValueError):
    """One field cannot be read; the text says what was got and what is allowed."""

    def __init__(self, detail: str, reason: RejectReason = RejectReason.BAD_ROW) -> None:
        super().__init__(detail)
        self.reason = reason


class OptionsError(FieldError):
    """Options that have no one reading."""


def read_options(value: Any) -> tuple[tuple[str, ...], Labels]:
    """Options as `"A. text"`, and what they went by in the pool.

    Accepted: null; a list of texts or numbers, with letters (`A. x`, `(A) x`, `A) x`, `A: x`), with numbers
    (`1. x`, from 1) or without;
    a mapping of letters to texts; a mapping with the lists `label` and `text`; any of these written as JSON
    or as a Python literal in one text (the release's reinforcement-learning file); one text with an option a
    line, or with `|` between them.

    Raises:
        OptionsError: anything else, more than 26 options, an empty one, letters on some only or out of
            order (no two readers would agree which option `B` is).

    >>> read_options(["red", "blue"])
    (('A. red', 'B. blue'), <Labels.NONE: 'none'>)
    >>> read_options("['A. red', 'B. blue']")
    (('A. red', 'B. blue'), <Labels.LETTERS: 'letters'>)
    """
    if isinstance(value, str):
        value = _from_text(value)
    if value is None or value == []:
        return (), Labels.NONE
    if isinstance(value, dict):
        value = _from_mapping(value)
    if not isinstance(value, list | tuple):
        raise OptionsError(f'"options" is {type(value).__name__}, allowed are a list, a mapping or null')
    texts = [_text(item, index) for index, item in enumerate(value)]
    if len(texts) > MAX_OPTIONS:
        raise OptionsError(f'"options" has {len(texts)} entries, at most {MAX_OPTIONS} are allowed')
    return _with_letters(texts)


def split_options(text: str, *, choice: bool = True) -> tuple[str, list[str]]:
    """A question whose last lines are its options, as question and options; no options if there are none.

    Args:
        text: the question with its options.
        choice: it is one; a question of another type may speak of `Sentence A: x` and `2. x`.

    >>> split_options("Which year?\\n(A) 1636\\n(B) 1366")
    ('Which year?', ['(A) 1636', '(B) 1366'])
    >>> split_options("Which?\\nOption 1: up\\nOption 2: down")
    ('Which?', ['1: up', '2: down'])
    """
    lines = text.rstrip().split("\n")
    for kept_back, label in enumerate((_LETTERED, _NAMED)[: 1 + choice]):
        first = len(lines)  # of named lines the first is never an option: `Note: what now?`
        while first > kept_back and label.fullmatch(lines[first - 1]):
            first -= 1
        found = [m for m in map(label.fullmatch, lines[first:]) if m]
        labels = [m.group(1).upper() for m in found]
        rises = _rises(labels) or (label is _NAMED and labels == [str(i + 1) for i in range(len(labels))])
        if len(found) > 1 and rises and any(line.strip() for line in lines[:first]):
            kept = [m.string if label is _LETTERED else m.string[m.start(1) :] for m in found]
            return "\n".join(lines[:first]).rstrip(), kept
    return text, []


def _from_text(text: str) -> Any:
    """A list or mapping written as text; nothing is evaluated."""
    text = text.strip()
    if text.lower() in _NOTHING:
        return None
    if len(text) > MAX_LITERAL:
        raise OptionsError(f'"options" is a text of {len(text)} characters, at most {MAX_LITERAL} are read')
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    for between in ("\n", "|"):
        parts = [part.strip() for part in text.split(between)]
        if sum(map(bool, parts)) > 1 and not text.startswith(("[", "{", "('", '("')):
            return [part for part in parts if part or between == "|"]
    raise OptionsError(
        f'"options" is the text {text[:80]!r}: no list in JSON or Python, no lines, nothing between `|`'
    )


def _from_mapping(value: dict[Any, Any]) -> list[Any]:
    """`{"A": "x"}`, `{"label": ["A"], "text": ["x"]}`; numbers stand in their own order."""
    if set(value) == {"label", "text"} and all(isinstance(v, list | tuple) for v in value.values()):
        if len(value["label"]) != len(value["text"]):
            raise OptionsError('"options" has lists "label" and "text" of different lengths')
        pairs = list(zip(value["label"], value["text"], strict=True))
    else:
        # Arrow structs give every row all letters of the column, null where a row has fewer options; and
        # pools that mix types give open questions letters with nothing behind them.
        pairs = [(key, text) for key, text in value.items() if text is not None]
        while pairs and pairs[-1][1] == "":
            pairs.pop()
    keys = [str(key).strip().upper() for key, _ in pairs]
    if all(len(key) == 1 and "A" <= key <= "Z" for key in keys):
        if len(set(keys)) != len(keys):
            raise OptionsError(f'"options" has a letter twice: {", ".join(keys)}')
        return [f"{key}. {_text(text, key)}" for key, (_, text) in sorted(zip(keys, pairs, strict=True))]
    if all(key.isascii() and key.isdigit() and len(key) <= 3 for key in keys):
        numbers = [int(key) for key in keys]
        if len(set(numbers)) != len(numbers):
            raise OptionsError(f'"options" has a number twice: {", ".join(keys)}')
        order = sorted(range(len(pairs)), key=numbers.__getitem__)  # JSON with sorted keys has 10 before 2
        return [pairs[i][1] for i in order]
    raise OptionsError(f'"options" is a mapping with the keys {keys[:6]}, allowed are letters or numbers')


def _text(item: Any, place: object) -> str:
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        raise OptionsError(f'"options" entry {place} is {type(item).__name__}, allowed are text and numbers')
    text = str(item)
    if not text.strip():
        raise OptionsError(f'"options" entry {place} is empty')
    return text


def _one_beginning(texts: list[str]) -> bool:
    """Whether all begin alike and glued, as formulas do (`R.L at C = ...`): such a letter is no label."""
    return len({text[:3] for text in texts}) == 1 and texts[0][2:3].isalnum()


def _with_letters(texts: list[str]) -> tuple[tuple[str, ...], Labels]:
    canonical = [m.group(1) for m in map(_CANONICAL.match, texts) if m]
    if len(canonical) == len(texts) and _rises(canonical):
        return tuple(texts), Labels.LETTERS
    expected = [chr(ord("A") + i) for i in range(len(texts))]
    lettered = [_LETTERED.fullmatch(text) for text in texts]
    letters = [m.group(1).upper() if m else "" for m in lettered]
    if all(letters) and _rises(letters):
        return _joined(letters, [m.group(2) for m in lettered if m]), Labels.LETTERS
    numbered = [m for m in map(_NUMBERED.fullmatch, texts) if m]
    if [m.group(1) for m in numbered] == [str(i + 1) for i in range(len(texts))]:
        return _joined(expected, [m.group(2) for m in numbered]), Labels.NUMBERS
    if len(texts) > 1 and all(letters) and not _one_beginning(texts):
        raise OptionsError(f'"options" have the letters {", ".join(letters)}: they must rise from A')
    if letters[:1] == ["A"] and any(a == b for a, b in zip(letters[1:], expected[1:], strict=True)):
        raise OptionsError('some "options" have a letter and some do not')
    return _joined(expected, texts), Labels.NONE


def _rises(letters: list[str]) -> bool:
    return letters[:1] == ["A"] and all(a < b for a, b in itertools.pairwise(letters))


def _joined(letters: list[str], texts: list[str]) -> tuple[str, ...]:
    return tuple(f"{letter}. {text.strip()}" for letter, text in zip(letters, texts, strict=True))


# The reference answer: read from any layout, and resolved to the option that it means.


MAX_TEXT = 1 << 16
"""Characters of one field: a longer question is damage, and would be paid for at a model."""
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_NUMBERS = re.compile(r"\d{1,2}(?:\s*[,;]\s*\d{1,2})+")
_LIST = re.compile(r"\[\d{1,2}(?:, \d{1,2})+\]")
"""Whole numbers that stood in a list, as `read_reference` prints them."""


def read_reference(got: Any, column: str) -> str | int:
    """The reference without its tag; a whole number stays one, it may be an index."""
    bad = RejectReason.BAD_REFERENCE
    if isinstance(got, list | tuple) and len(got) == 1 and isinstance(got[0], str | list):
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


AnswerBase = Literal[0, 1, "text", "letter"] | None
"""What a whole number is: an index from 0, one from 1, an option's text; None: as the whole pool says.
`letter`: answers are letters."""


def option_meant(
    reference: str | int,
    options: tuple[str, ...],
    labels: Labels,
    *,
    answer_base: AnswerBase = None,
    counted_from: int = 0,
) -> str:
    """The letter of a multiple-choice reference: from a letter, a text, a printed number or an index.

    A letter of the row is taken as it is; else the text of one option; else the number that is printed before
    one; else a whole number is an index. Two readings that differ make the reference bad: a wrong label would
    be worse than a lost row.

    Args:
        options: canonical, `"A. text"`.
        answer_base: what the recipe says of whole numbers; with it there is one reading. With `letter` an
            option with its label, `B. x` or `Option 2: x`, means the option too.
        counted_from: what the pool as a whole says, where the recipe says nothing.

    Raises:
        FieldError: no reading, or two.
    """
    letters = [option[0] for option in options]
    text = str(reference).strip()
    number = whole_number(text)
    match = _LETTER.fullmatch(text)
    letter = match.group(1).upper() if match else ""
    if answer_base == "letter" and (labelled := _labelled(letter, text, options)):
        return labelled
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
    if letter in letters:
        if labels is not Labels.LETTERS and by_text and by_text != [letter]:
            raise _bad(f"{text!r} is both a letter and the text of option {by_text[0]}")
        return letter
    return by_text[0] if len(by_text) == 1 else text


def _labelled(letter: str, text: str, options: tuple[str, ...]) -> str:
    """The letter, if it is that of an option; else of the option that the text is, label included."""
    whole = _NAMED.fullmatch(text)
    for place, option in enumerate(options):
        names = (option[0], str(place + 1))
        if letter == option[0] or (whole and whole[1] in names and whole[2] == option[2:].strip()):
            return option[0]
    return ""


def _several(
    text: str, letters: list[str], options: tuple[str, ...], answer_base: AnswerBase, base: int | None
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
    clear = (found for found in (by_text, indexed) if all(len(one) == 1 for one in found))
    readings = {", ".join(sorted(one for (one,) in found)) for found in clear}
    if len(readings) != 1:
        told = " and ".join(sorted(readings)) or "none"
        raise _bad(f"the numbers {text} can mean these options: {told}; use letters, or set answer_base")
    return readings.pop()


def index_meant(reference: str | int, options: tuple[str, ...], labels: Labels) -> int | None:
    """The whole number of a reference that can be nothing but an index: no option has it as text or label.

    Beside options that are numbers themselves it may as well be a wrong text, and says nothing.
    """
    text = str(reference).strip()
    number = whole_number(text)
    if number is None or labels is Labels.NUMBERS or _numeric(options):
        return None
    return None if _by_text(text, [option[0] for option in options], options) else number


def _as_the_recipe_says(number: int, by_text: list[str], letters: list[str], base: int | str) -> str:
    if base in ("text", "letter"):
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
    return any(whole_number(option[2:].strip()) is not None for option in options)


def _by_text(text: str, letters: list[str], options: tuple[str, ...]) -> list[str]:
    """The options with this text; those in another case count where none has it exactly."""
    texts = [option[2:].strip() for option in options]
    if text in texts:
        return [letter for letter, one in zip(letters, texts, strict=True) if one == text]
    lower = text.lower()
    return [letter for letter, one in zip(letters, texts, strict=True) if one.lower() == lower]


def _nth(number: int | None, letters: list[str], base: int) -> list[str]:
    return [letters[number - base]] if number is not None and base <= number < base + len(letters) else []
