"""Text before it is compared: folding, words, characters of scripts without spaces."""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from functools import lru_cache
from typing import Literal

CJK = (
    "\u3040-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Inside of a character class: scripts that are written without spaces."""
_CJK_CHAR = re.compile(f"[{CJK}]")
_CJK_PUNCT = "\u3000-\u303f\uff01-\uff0f\uff1a-\uff1f\uff3b-\uff40\uff5b-\uff65"
_UNIT = re.compile(f"[{CJK}]|[^\\s{CJK}{_CJK_PUNCT}]+")
_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII)
_BRACKETS = str.maketrans(
    dict.fromkeys("‹〈⟨《❮❬˂≺⧼﹤＜", "<")
    | dict.fromkeys("›〉⟩》❯❭˃≻⧽﹥＞", ">")
    | {"∕": "/", "⁄": "/", "╱": "/"}
)
_HOMOGLYPHS = str.maketrans("аеосрхѕіјԁɡυтмпνοєϳ", "aeocpxsijdgutmnvoej")
_ENTITY_ROUNDS = 3
_WRAPS = (("\\boxed{", "}"), ("\\text{", "}"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("$$", "$$"),
          ("$", "$"), ("`", "`"), ('"', '"'), ("“", "”"), ("'", "'"))  # fmt: skip


_MARKS_IN_A_ROW = 30
"""Combining characters in a row that any real text has at most [Unicode UAX #15, Stream-Safe Text Format]."""
_SUSPICIOUS = re.compile(rf"[^\w\s!-~]{{{_MARKS_IN_A_ROW + 1}}}")
_JOINER = "\u034f"


def normalised(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """A Unicode normal form, in linear time.

    Sorting a run of combining characters takes `unicodedata` quadratic time: 100 KB of mixed accents keep it
    busy for a minute. A run of more than 30 is cut by U+034F, as the Stream-Safe Text Format of Unicode
    UAX #15 does; no real text holds one.

    >>> normalised("NFKC", "\uff21\u0065\u0301") == "A\u00e9"
    True
    """
    if _SUSPICIOUS.search(text) is not None:
        text = _long_runs().sub(rf"\g<0>{_JOINER}", text)
    return unicodedata.normalize(form, text)


@lru_cache(maxsize=1)
def _long_runs() -> re.Pattern[str]:
    """Runs of characters that decompose to one that combines; built when first needed."""
    every = map(chr, range(0x300, sys.maxunicode + 1))
    marks = "".join(c for c in every if unicodedata.combining(unicodedata.normalize("NFKD", c)[0]))
    return re.compile(f"[{marks}]{{{_MARKS_IN_A_ROW}}}")


def drop_format(text: str) -> str:
    """Without zero-width, bidirectional and other format characters (category Cf)."""
    if text.isascii():
        return text
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def fold(text: str) -> str:
    r"""NFKC, no zero-width characters, white space collapsed; case is kept.

    >>> fold("  （Ａ）\u200b\n x ")
    '(A) x'
    """
    if not text.isascii():
        text = drop_format(normalised("NFKC", text))
    return " ".join(text.split())


def unwrap(text: str) -> str:
    """Without `$…$`, `\\boxed{…}`, bold, quotes around the whole."""
    # Wrappers nest (`$\boxed{"A"}$`); six layers are more than any model prints.
    for _ in range(6):
        text = text.strip()
        for left, right in _WRAPS:
            if len(text) > len(left) + len(right) - 1 and text.startswith(left) and text.endswith(right):
                inner = text[len(left) : len(text) - len(right)]
                if left not in inner and (right != "}" or inner.count("{") == inner.count("}")):
                    text = inner
                    break
        else:
            return text
    return text


_BOLD = re.compile(r"(?<![\w*])(\*\*|__)(?=\S)([^*_\n]+?)(?<=\S)\1(?![\w*])")


def without_bold(text: str) -> str:
    """Without the marks of bold words; `2**3` and a mark that stands alone stay.

    >>> without_bold("**A. an **offer**"), without_bold("2**3 = 8")
    ('**A. an offer', '2**3 = 8')
    """
    return _BOLD.sub(r"\2", text) if "**" in text or "__" in text else text


def unmask_markup(text: str) -> str:
    """Text in which a tag that only looks like one is one: entities, look-alike characters, zero-width.

    For detection, never for display.

    >>> unmask_markup("＜judge\u200bment&gt;")
    '<judgement>'
    """
    # `&amp;lt;` needs two rounds; more than three are no accident, and `judge._plain` has a rule for them.
    for _ in range(_ENTITY_ROUNDS):
        if "&" not in text:
            break
        text = html.unescape(text)
    if text.isascii():
        return text
    # Translate before and after: NFKC turns some look-alikes into others that the table knows.
    text = drop_format(normalised("NFKC", text.translate(_BRACKETS)))
    return text.translate(_BRACKETS).translate(_HOMOGLYPHS)


def has_cjk(text: str) -> bool:
    """Whether any Chinese, Japanese or Korean character stands in the text."""
    return not text.isascii() and _CJK_CHAR.search(text) is not None


def count_words(text: str) -> int:
    """Words of a segment: runs between white space; each CJK character is a word of its own.

    >>> count_words("a red ball"), count_words("红色的球。"), count_words("共 3 个")
    (3, 4, 3)
    """
    return len(text.split()) if text.isascii() else len(_UNIT.findall(text))


def ocr_units(text: str) -> list[str]:
    """What a word error is counted in: words between white space, single characters for CJK."""
    return text.split() if text.isascii() else _CJK_CHAR.sub(r" \g<0> ", text).split()


def words(text: str) -> list[str]:
    """Letters and digits with their combining marks, lower case, any script; CJK by character."""
    text = text.lower()
    return (_ASCII_WORD if text.isascii() else _word_of_any_script()).findall(text)


def marked_words(text: str) -> list[str]:
    """Words as `words`, with the symbols that are part of what a word or a number means.

    These are the sign and the point of a number, the `++` and `#` of a name, the `+` and `-` of a grade or a
    blood group, and comparisons.

    >>> marked_words("C++ is at -5, not 1,000.50: A- for x <= 3")
    ['c++', 'is', 'at', '-5', 'not', '1000.5', 'a-', 'for', 'x', '≤', '3']
    """
    text = text.lower().translate(_MINUS)
    if not text.isascii():
        text = _OPTIONAL_VOWELS.sub("", text)
    found = []
    for match in _marked_word(text.isascii()).finditer(text):
        token = match.group()
        # `1,000.50` and `1000.5` are one number: no thousands separator, no trailing zeros.
        if match.lastgroup == "number":
            whole, point, decimals = token.replace(",", "").partition(".")
            token = whole + (point + decimals.rstrip("0")).rstrip(".")
        found.append(_COMPARISONS.get(token, token))
    return found


_MINUS = str.maketrans("−﹣", "--")
_COMPARISONS = {"<=": "≤", ">=": "≥", "!=": "≠"}
_OPTIONAL_VOWELS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u064b-\u0652\u0670]")
"""Points of Hebrew and Arabic, which the same word may be written with or without."""


def _marked_pattern(word: str) -> re.Pattern[str]:
    return re.compile(
        rf"[{CJK}]|(?P<number>(?:(?<![\w.)])-)?\d+(?:,\d{{3}})*(?:\.\d+)?)(?![^\W_])"
        r"|\b[a-z]{1,2}[+-](?=\s|\Z|[.,;:)])"
        rf"|{word}(?:\+\+|\#)?|[<>!]=|[<>](?![a-z/])|[≤≥≠]"
    )


@lru_cache(maxsize=2)
def _marked_word(ascii_only: bool) -> re.Pattern[str]:
    return _marked_pattern(r"[^\W_]+" if ascii_only else _word_of_any_script().pattern)


@lru_cache(maxsize=1)
def _word_of_any_script() -> re.Pattern[str]:
    """A CJK character, or a letter or digit and all that follow, vowel signs and accents included.

    `\\w` leaves combining marks out, which would make words of Hindi and others equal that differ in a vowel.
    """
    marks, first = "", -1
    # `re` has no class for combining marks (category M): collect their ranges once.
    for code in range(0x300, 0x20000):
        mark = unicodedata.category(chr(code))[0] == "M"
        if mark and first < 0:
            first = code
        elif not mark and first >= 0:
            marks += f"{chr(first)}-{chr(code - 1)}"
            first = -1
    return re.compile(f"[{CJK}]|[^\\W_{CJK}](?:[^\\W_{CJK}]|[{marks}])*")
