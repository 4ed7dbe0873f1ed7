"""The options of one question, ready to be looked up: by label, by name, by text.

Two options are the same only if their texts are, character for character: `AA` and `Aa`, `mW` and `MW`, `5`
and `.5` are six answers. A folded text may find an option, as long as it finds only one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from videop2r_data.schemas.labels import LETTERS, label_options
from videop2r_data.validators.text import fold, has_cjk, unwrap, without_bold

EDGES = " \t\"'“”‘’`,;:、，：；"
_RAISED = str.maketrans({c: f"^{i}" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")} | {"⁻": "^-", "−": "-"})
_STOPS = re.compile(r"(?:[.。]|(?<=[^\W\d_]{2})[!！]|(?<=[)\]\"”’'])[!！])+\Z")
"""Marks that end a sentence. After one letter or a digit `!` is a factorial."""
_PLAIN = re.compile(r"[A-Za-z0-9 ]*")
_DOTS = re.compile(r"\A[.…]+(?!\d)")
_NAMED = re.compile(
    r"\s*([^\W\d_]{2,})(?:\s+|(?<=[^\x00-\x7f]))[(\[]?\s*([A-Za-z]|\d{1,2})\s*[)\]]?\s*[:.)：、](?!\d)\s*(\S.*)",
    re.DOTALL,
)
"""`Caption A: …`, `Option 1: …`, `选项A：…`: a name of the option's own before its text."""
_ARTICLE = re.compile(r"(?:a|an|the)\s+", re.IGNORECASE)


class OptionSet(NamedTuple):
    """The options of one question.

    Attributes:
        labels: label -> index.
        names: name that an option carries in its text (`caption a`, `2` of `Option 2:`), folded -> label.
        texts: text of each option, without label and name, as the pool has it.
        keys: the same, folded (see `text_key`).
        bare: (label, folded text without its article) of each option that has a text.
        exact, spaced, folded: raw text, text in plain characters, folded text -> label; None: several options
            that differ have this text.
    """

    labels: dict[str, int]
    names: dict[str, str]
    texts: tuple[str, ...]
    keys: tuple[str, ...]
    bare: tuple[tuple[str, str], ...]
    exact: dict[str, str | None]
    spaced: dict[str, str | None]
    folded: dict[str, str | None]


def text_key(text: str) -> str:
    """Text as an option is looked up: folded, without case, quotes, bold, and the stop of its sentence.

    >>> text_key("**Dog.**"), text_key(".5"), text_key("n!"), text_key("10²")
    ('dog', '.5', 'n!', '10^2')
    """
    if _PLAIN.fullmatch(text):
        return " ".join(text.split()).lower()  # nothing to take off: the same, at a tenth of the time
    whole = unwrap(without_bold(even(text).casefold()))
    bare = _DOTS.sub("", _STOPS.sub("", whole.strip(EDGES)).strip(EDGES))
    return bare or whole


def even(text: str) -> str:
    """Folded, but raised digits stay raised: `10²` is not `102`."""
    return fold(text if text.isascii() else text.translate(_RAISED))


@lru_cache(maxsize=8192)
def option_set(options: tuple[str, ...]) -> OptionSet:
    """Labels, names and texts; without options every letter is a label that has no text."""
    if not options:
        none: dict[str, str | None] = {}
        blank = ("",) * len(LETTERS)
        return OptionSet({c: i for i, c in enumerate(LETTERS)}, {}, blank, blank, (), none, none, none)
    read = label_options(options)
    labels = {option.label: i for i, option in enumerate(read)}
    wholes = tuple(option.text for option in read)
    names, texts = _names(wholes, tuple(labels))
    forms = [(option.label, whole) for option, whole in zip(read, wholes, strict=True)]
    forms += [(option.label, text) for option, text in zip(read, texts, strict=True) if text not in wholes]
    same = {label: texts[i] for label, i in labels.items()}
    exact, spaced, folded = (_index(forms, same, key) for key in (str, even, text_key))
    keys = tuple(map(text_key, texts))
    bare = [(label, _ARTICLE.sub("", keys[i], count=1)) for label, i in labels.items()]
    return OptionSet(labels, names, texts, keys, tuple(b for b in bare if b[1]), exact, spaced, folded)


def _names(wholes: tuple[str, ...], labels: tuple[str, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The names that all options carry, and the texts behind them; none if one option has none."""
    found = [_NAMED.fullmatch(whole) for whole in wholes]
    read = [
        (m.group(1).casefold(), m.group(2).casefold(), m.group(3).strip()) for m in found if m is not None
    ]
    if (
        len(read) < max(2, len(wholes))
        or len({r[0] for r in read}) > 1
        or len({r[1] for r in read}) < len(read)
    ):
        return {}, wholes
    names = {}
    for label, (word, mark, _) in zip(labels, read, strict=True):
        names[f"{word}{mark}" if has_cjk(word) else f"{word} {mark}"] = label
        if mark.isdigit() and mark not in labels:
            names[mark] = label
    return names, tuple(text for _, _, text in read)


def _index(
    forms: Iterable[tuple[str, str]], same: dict[str, str], key: Callable[[str], str]
) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for label, text in forms:
        if not (at := key(text)):
            continue
        first = found.setdefault(at, label)
        if first is not None and same[first] != same[label]:
            found[at] = None
    return found


def same_option(a: str, b: str, known: OptionSet) -> bool:
    """Whether two labels are one, or stand for the very same text."""
    if a == b:
        return True
    i, j = known.labels.get(a), known.labels.get(b)
    return i is not None and j is not None and known.texts[i] != "" and known.texts[i] == known.texts[j]


def by_text(text: str, known: OptionSet) -> str | None:
    """The option that a text is the text of: as it stands, then folded, as long as it is one option's.

    >>> genes = option_set(("A. AA", "B. Aa", "C. dominant"))
    >>> by_text("Aa", genes), by_text("aa", genes), by_text("Dominant.", genes)
    ('B', None, 'C')
    """
    text = text.strip()
    for index, key in ((known.exact, str), (known.spaced, even), (known.folded, text_key)):
        if (at := key(text)) in index:
            return index[at]
    return None


def is_text(text: str, known: OptionSet) -> bool:
    """Whether a text is that of at least one option, folded."""
    return text_key(text) in known.folded


def by_name(text: str, known: OptionSet) -> str | None:
    """The option that a name (`Caption A`, `Option 2`, `2`) belongs to."""
    if not known.names or len(text) > 40:
        return None
    return known.names.get(text_key(text).strip("()[]{} "))
