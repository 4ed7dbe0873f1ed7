"""Options of a multiple-choice question: every layout found in the wild, turned into `"A. text"`."""

from __future__ import annotations

import ast
import itertools
import json
import re
from enum import StrEnum
from typing import Any

MAX_OPTIONS = 26
MAX_LITERAL = 1 << 16
"""Characters of a list written as text; longer ones are refused before they are parsed."""

_LETTERED = re.compile(r"\s*\(?([A-Za-z])\s*[).:]\s*(.*)", re.DOTALL)
_NUMBERED = re.compile(r"\s*\(?(\d{1,2})\s*[).:]\s+(\S.*)", re.DOTALL)
_CANONICAL = re.compile(r"([A-Z])\.")
_NOTHING = {"", "none", "null", "nan", "[]", "{}", "n/a"}


class Labels(StrEnum):
    """What the options of a row went by in the pool."""

    LETTERS = "letters"
    NUMBERS = "numbers"
    """`1. x`, counted from 1."""
    NONE = "none"


class OptionsError(ValueError):
    """Options that have no one reading; the text says what was got and what is allowed."""


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


def split_options(text: str) -> tuple[str, list[str]]:
    """A question whose last lines are its options, as question and options; no options if there are none.

    >>> split_options("Which year?\\n(A) 1636\\n(B) 1366")
    ('Which year?', ['(A) 1636', '(B) 1366'])
    """
    lines = text.rstrip().split("\n")
    first = len(lines)
    while first > 0 and _LETTERED.fullmatch(lines[first - 1]):
        first -= 1
    found = lines[first:]
    letters = [m.group(1).upper() for m in map(_LETTERED.fullmatch, found) if m]
    if len(found) < 2 or not _rises(letters) or not any(line.strip() for line in lines[:first]):
        return text, []
    return "\n".join(lines[:first]).rstrip(), found


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
    if len(texts) > 1 and all(letters):
        raise OptionsError(f'"options" have the letters {", ".join(letters)}: they must rise from A')
    if letters[:1] == ["A"] and any(a == b for a, b in zip(letters[1:], expected[1:], strict=True)):
        raise OptionsError('some "options" have a letter and some do not')
    return _joined(expected, texts), Labels.NONE


def _rises(letters: list[str]) -> bool:
    return letters[:1] == ["A"] and all(a < b for a, b in itertools.pairwise(letters))


def _joined(letters: list[str], texts: list[str]) -> tuple[str, ...]:
    return tuple(f"{letter}. {text.strip()}" for letter, text in zip(letters, texts, strict=True))


def option_letter(option: str) -> str:
    """The letter of a canonical option."""
    return option[:1]


def option_text(option: str) -> str:
    """The text of a canonical option, without its letter."""
    return option[2:].strip()
