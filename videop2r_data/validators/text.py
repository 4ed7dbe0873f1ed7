"""Text before it is compared: folding, words, characters of scripts without spaces."""

from __future__ import annotations

import html
import re
import unicodedata

_CJK = (
    "\u3040-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_CJK_CHAR = re.compile(f"[{_CJK}]")
_CJK_PUNCT = "\u3000-\u303f\uff01-\uff0f\uff1a-\uff1f\uff3b-\uff40\uff5b-\uff65"
_UNIT = re.compile(f"[{_CJK}]|[^\\s{_CJK}{_CJK_PUNCT}]+")
_WORD = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_BRACKETS = str.maketrans(
    dict.fromkeys("‹〈⟨《❮❬˂≺⧼﹤＜", "<")
    | dict.fromkeys("›〉⟩》❯❭˃≻⧽﹥＞", ">")
    | {"∕": "/", "⁄": "/", "╱": "/"}
)
_HOMOGLYPHS = str.maketrans("аеосрхѕіјԁɡυтмпνοєϳ", "aeocpxsijdgutmnvoej")
_ENTITY_ROUNDS = 3


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
        text = drop_format(unicodedata.normalize("NFKC", text))
    return " ".join(text.split())


def unmask_markup(text: str) -> str:
    """Text in which a tag that only looks like one is one: entities, look-alike characters, zero-width.

    For detection, never for display.

    >>> unmask_markup("＜judge\u200bment&gt;")
    '<judgement>'
    """
    for _ in range(_ENTITY_ROUNDS):
        if "&" not in text:
            break
        text = html.unescape(text)
    if text.isascii():
        return text
    text = drop_format(unicodedata.normalize("NFKC", text.translate(_BRACKETS)))
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
    """Letters and digits only, lower case, any script; CJK by character."""
    return _WORD.findall(text.lower())
