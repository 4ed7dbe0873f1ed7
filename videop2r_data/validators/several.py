"""Answers of several options: `A, C`, `A and C`, `AC`, `A. cat, C. bird`; in any order, but never `or`."""

from __future__ import annotations

import re

from videop2r_data.schemas import ROBUST, Policy
from videop2r_data.validators.choice import bare_text, read_choice
from videop2r_data.validators.conclusions import MAX_CHARS, conclusions
from videop2r_data.validators.options import OptionSet, same_option

_PARTS = re.compile(r"\s*(?:[,;，；、&]\s*(?:and\b)?|\band\b|和|与|及|と)\s*", re.IGNORECASE)
_LEAD = re.compile(r"(?:both\s+)?(?:(?:options?|choices?|letters?)\s+)?(?:both\s+)?", re.IGNORECASE)
_VERB = re.compile(r"(?:です|である|だ|\s+are\s+(?:both\s+|all\s+)?(?:correct|right|true))?\s*[.。]?\s*\Z")
_RUN = re.compile(r"[A-Z]{2,26}")


def read_several(text: str, known: OptionSet, policy: Policy = ROBUST) -> frozenset[str] | None:
    """The labels that an answer gives, one or more; None if any part of it is none, or is in doubt.

    Letters run together (`AC`) only where every label is a letter of the row's own options.

    >>> from videop2r_data.validators.options import option_set
    >>> four = option_set(("A. cat", "B. dog", "C. bird", "D. fish"))
    >>> [sorted(read_several(t, four) or ()) for t in ("C and A", "AC", "A. cat, C. bird", "A or C", "A, E")]
    [['A', 'C'], ['A', 'C'], ['A', 'C'], [], []]
    """
    if len(text) > MAX_CHARS:
        return None
    one = read_choice(text, known, policy).label
    if one is not None:
        return frozenset({_first(one, known)})
    for words in _stated(text, policy):
        labels = _labels(words, known, policy)
        if labels is not None:
            return frozenset(_first(label, known) for label in labels)
    return None


def _stated(text: str, policy: Policy) -> list[str]:
    """The answer as it stands; then what its only conclusion says."""
    found = conclusions(text) if policy.answer_phrase else []
    return [text, found[0].claim] if len(found) == 1 and not found[0].open else [text]


def _labels(text: str, known: OptionSet, policy: Policy) -> set[str] | None:
    text = bare_text(re.sub(r"\s*\n\s*", ", ", text.strip())).strip(" .。")
    if text[:1] == "[" and text[-1:] == "]" and "[" not in text[1:]:
        text = text[1:-1]
    text = _VERB.sub("", text[_LEAD.match(text).end() :])  # type: ignore[union-attr] # it matches every text
    parts = [part for part in _PARTS.split(text) if part]
    if len(parts) == 1:
        spaced = text.split()
        parts = spaced if len(spaced) > 1 else _run_together(text, known)
    plain = policy.model_copy(update={"answer_phrase": False})
    read = [read_choice(part, known, plain).label for part in parts]
    labels = {label for label in read if label is not None}
    return labels if read and None not in read else None


def _run_together(text: str, known: OptionSet) -> list[str]:
    sure = known.bare and all(len(label) == 1 and label.isalpha() for label in known.labels)
    return list(text) if sure and _RUN.fullmatch(text) and len(set(text)) == len(text) else [text]


def _first(label: str, known: OptionSet) -> str:
    """The first label that carries this very text: twins are one."""
    return next((other for other in known.labels if same_option(other, label, known)), label)
