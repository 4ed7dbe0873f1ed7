"""Which option an answer names: letters come from the row's own options, and any doubt is a refusal."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from videop2r_data.schemas import ROBUST, Policy, ScoreReason
from videop2r_data.schemas.labels import LETTERS, label_options
from videop2r_data.validators.numbers import unwrap
from videop2r_data.validators.text import fold

_EDGES = " \t\"'“”‘’`*_$.,;:!。，、"
_LONE = re.compile(r"[(\[{<]?\s*([A-Za-z]|\d{1,2})\s*[)\]}>]?\s*[.:,;)、。]?")
_LED = re.compile(
    r"[(\[{]?\s*([A-Za-z]|\d{1,2})\s*(?:[)\]}]\s*[.:,-]?|[.:,、]|\s[-=]+(?=\s))\s*(\S.*)|([A-Z]|\d{1,2})\s+(\S.*)",
    re.DOTALL,
)
_PHRASE = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:i\s+(?:think|believe)\s+)?(?:it\s+is|it's)\s+(?=option|choice|answer)|"
    r"(?:(?:the|my)\s+)?(?:(?:final|correct|right|best|most\s+\w+)\s+)?(?:answer|option|choice)"
    r"(?:\s+(?:is|should\s+be|would\s+be|must\s+be)|\s*[:=])\s*:?\s*)?(?:(?:option|choice|letter)\s+)?",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\s+is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice|one))?\s*[.!]?\s*", re.IGNORECASE
)
_NEGATION = re.compile(
    r"\b(?:not|isn't|is\s+not|neither|nor|never|except|anything\s+but|cannot|can't|wrong|incorrect|false|without)\b",
    re.IGNORECASE,
)
_JOINT = re.compile(r"\s*(?:\bor\b|\band\b|/|,|;|&|\+|\||或|和|、|\s)\s*", re.IGNORECASE)
_DOUBT = re.compile(
    r"\b(?:not|or|neither|nor|never|except|unless|but|however|cannot|maybe|perhaps|either|instead)\b|n't\b",
    re.IGNORECASE,
)


class Choice(NamedTuple):
    """The label that was named, or None with the reason."""

    label: str | None
    reason: ScoreReason


class OptionSet(NamedTuple):
    """The options of one question, ready to be looked up.

    Attributes:
        labels: label -> index.
        keys: comparable text per option.
        by_text: comparable text -> labels that carry it (two options may read the same).
    """

    labels: dict[str, int]
    keys: tuple[str, ...]
    by_text: dict[str, tuple[str, ...]]


def text_key(text: str) -> str:
    """Text as options are compared: folded, no case, no quotes, bold or stop at the edges."""
    return fold(text).casefold().strip(_EDGES)


@lru_cache(maxsize=8192)
def option_set(options: tuple[str, ...]) -> OptionSet:
    """Labels and comparable texts; without options every letter is a label that has no text."""
    if not options:
        return OptionSet({c: i for i, c in enumerate(LETTERS)}, ("",) * len(LETTERS), {})
    read = label_options(options)
    keys = tuple(text_key(o.text) or fold(o.text) for o in read)
    by_text: dict[str, tuple[str, ...]] = {}
    for option, key in zip(read, keys, strict=True):
        if key:
            by_text[key] = (*by_text.get(key, ()), option.label)
    return OptionSet({o.label: i for i, o in enumerate(read)}, keys, by_text)


def same_option(a: str, b: str, known: OptionSet) -> bool:
    """Whether two labels are one, or stand for the same text."""
    if a == b:
        return True
    i, j = known.labels.get(a), known.labels.get(b)
    return i is not None and j is not None and known.keys[i] != "" and known.keys[i] == known.keys[j]


def read_choice(text: str, known: OptionSet, policy: Policy = ROBUST) -> Choice:
    """Which option a short answer names.

    >>> known = option_set(("A. cat", "B. dog"))
    >>> [read_choice(t, known).label for t in ("(B)", "B. dog", "dog", "B. cat", "A or B", "not A", "Bird")]
    ['B', 'B', 'B', None, None, None, None]
    """
    if text in known.labels:
        return Choice(text, ScoreReason.MATCH)
    if len(text) > 400 + 4 * max(map(len, known.keys), default=0):
        return Choice(None, ScoreReason.TOO_LONG)
    text = unwrap(fold(text)).strip(" \t\n*_")
    if not text or not text.strip(_EDGES + "()[]{}"):
        return Choice(None, ScoreReason.EMPTY_ANSWER)
    found = _read(text, known, policy)
    if found is None and policy.answer_phrase:
        lead = _PHRASE.match(text)
        bare = _TAIL.sub("", text[lead.end() :] if lead else text)
        bare = unwrap(bare).strip(" *_")
        if bare and bare != text:
            found = _read(bare, known, policy)
            text = bare
    if found is not None:
        return found
    return Choice(None, _why_not(text, known))


def _read(text: str, known: OptionSet, policy: Policy) -> Choice | None:
    lone = _LONE.fullmatch(text)
    if lone is not None and (label := _label(lone.group(1), known, policy)) is not None:
        return Choice(label, ScoreReason.MATCH)
    key = text_key(text)
    same = known.by_text.get(key)
    if same is None and key == "":
        same = known.by_text.get(fold(text))
    if same is not None:
        return Choice(same[0], ScoreReason.MATCH) if policy.option_text_alone else None
    led = _LED.fullmatch(text)
    if led is None:
        return None
    spaced = led.group(1) is None
    label = _label(led.group(3) if spaced else led.group(1), known, policy)
    if label is None:
        return None
    return _beside(label, text_key(led.group(4) if spaced else led.group(2)), known, spaced)


def _label(raw: str, known: OptionSet, policy: Policy) -> str | None:
    if raw in known.labels:
        return raw
    upper = raw.upper()
    return upper if policy.lowercase_letter and upper in known.labels else None


def _beside(label: str, key: str, known: OptionSet, spaced: bool) -> Choice | None:
    """A letter with text beside it: its own text, a part of it, or its own text with an explanation."""
    own = known.keys[known.labels[label]]
    if key == own:
        return Choice(label, ScoreReason.MATCH)
    if key in known.by_text:
        return Choice(None, ScoreReason.CONFLICTING_TEXT)
    if spaced or not own:
        return None
    others = [k for k in known.by_text if k != own]
    if _holds(own, key) and not any(_holds(k, key) for k in others):
        return Choice(label, ScoreReason.MATCH)  # a cut-off copy of its own text
    if key.startswith(own) and not key[len(own)].isalnum():
        rest = key[len(own) :]
        if any(_holds(k, rest) for k in others):
            return Choice(None, ScoreReason.CONFLICTING_TEXT)
        if not _DOUBT.search(rest) and not re.match(r"[.,:/-]?\d", rest):
            return Choice(label, ScoreReason.MATCH)
    return None


def _holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as whole words."""
    at = text.find(part) if part else -1
    while at >= 0:
        end = at + len(part)
        if (at == 0 or not text[at - 1].isalnum()) and (end == len(text) or not text[end].isalnum()):
            return True
        at = text.find(part, at + 1)
    return False


def _why_not(text: str, known: OptionSet) -> ScoreReason:
    parts = [p.strip("()[]{}.* ") for p in _JOINT.split(text[:200])]
    if parts[:1] in (["either"], ["both"]):
        parts = parts[1:]
    if len(parts) == 1 and len(text) <= 10 and text.isupper():
        parts = list(text)
    named = [p for p in parts if p in known.labels or p.casefold() in known.by_text]
    if len(set(named)) > 1 and len(named) == len(parts):
        return ScoreReason.SEVERAL_ANSWERS
    if _NEGATION.search(text) and (named or any(_holds(text.casefold(), k) for k in known.by_text)):
        return ScoreReason.NEGATED_ANSWER
    led = _LED.fullmatch(text)
    if led and led.group(1) and led.group(1).upper() in known.labels:
        key = text_key(led.group(2))
        own = known.keys[known.labels[led.group(1).upper()]]
        if any(_holds(key, k) for k in known.by_text if k != own):
            return ScoreReason.CONFLICTING_TEXT
    return ScoreReason.NOT_AN_OPTION
