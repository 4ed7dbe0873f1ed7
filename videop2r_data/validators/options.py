"""The options of one question, ready to be looked up: by label, by name, by text.

Two options are the same only if their texts are, character for character: `AA` and `Aa`, `mW` and `MW`, `5`
and `.5` are six answers. A folded text may find an option, as long as it finds only one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache

from videop2r_data.schemas import LETTERS, label_options
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


class OptionSet:
    """The options of one question; everything but the labels is made when it is first asked for.

    Most answers are a label, and a pool of 260,000 questions is read through here.

    Attributes:
        labels: label -> index; without options every letter is a label that has no text.
    """

    def __init__(self, options: tuple[str, ...]) -> None:
        self._read = label_options(options) if options else ()
        names = [option.label for option in self._read] if options else LETTERS
        self.labels: dict[str, int] = {label: i for i, label in enumerate(names)}

    @cached_property
    def _named(self) -> tuple[dict[str, str], tuple[str, ...]]:
        if not self._read:
            return {}, ("",) * len(self.labels)
        return _names(tuple(option.text for option in self._read), tuple(self.labels))

    @property
    def names(self) -> dict[str, str]:
        """Name that an option carries in its text (`caption a`, `2` of `Option 2:`), folded -> label."""
        return self._named[0]

    @property
    def texts(self) -> tuple[str, ...]:
        """Text of each option, without label and name, as the pool has it."""
        return self._named[1]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The texts, folded (see `text_key`)."""
        return tuple(map(text_key, self.texts))

    @cached_property
    def bare(self) -> tuple[tuple[str, str], ...]:
        """(label, folded text without its article) of each option that has a text."""
        bare = [(label, _ARTICLE.sub("", self.keys[i], count=1)) for label, i in self.labels.items()]
        return tuple(one for one in bare if one[1])

    @cached_property
    def exact(self) -> dict[str, str | None]:
        """Raw text -> label; None: several options that differ have this text."""
        return self._index(str)

    @cached_property
    def spaced(self) -> dict[str, str | None]:
        """Text in plain characters -> label; None as above."""
        return self._index(even)

    @cached_property
    def folded(self) -> dict[str, str | None]:
        """Folded text -> label; None as above."""
        return self._index(text_key)

    def _index(self, key: Callable[[str], str]) -> dict[str, str | None]:
        """The texts with and without their names, in the form that `key` gives."""
        wholes = tuple(option.text for option in self._read)
        forms = [(option.label, whole) for option, whole in zip(self._read, wholes, strict=True)]
        pairs = zip(self._read, self.texts if self._read else (), strict=True)
        forms += [(option.label, text) for option, text in pairs if text not in wholes]
        found: dict[str, str | None] = {}
        for label, text in forms:
            if not (at := key(text)):
                continue
            first = found.setdefault(at, label)
            if first is not None and self.texts[self.labels[first]] != self.texts[self.labels[label]]:
                found[at] = None
        return found


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
    """The options of one question, kept for the next answer to it."""
    return OptionSet(options)


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
