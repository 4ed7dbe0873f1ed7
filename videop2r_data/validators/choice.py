"""Which option an answer names: letters come from the row's own options, and any doubt is a refusal."""

from __future__ import annotations

import re
from typing import NamedTuple

from videop2r_data.schemas import ROBUST, Policy, ScoreReason
from videop2r_data.validators.conclusions import is_doubtful
from videop2r_data.validators.explaining import DOUBT, explains, holds, labels_in, reasoned
from videop2r_data.validators.naming import names_other
from videop2r_data.validators.options import (
    EDGES,
    OptionSet,
    by_name,
    by_text,
    even,
    is_text,
    same_option,
    text_key,
)
from videop2r_data.validators.sentences import by_lead, concluded
from videop2r_data.validators.text import unwrap, without_bold

_LONE = re.compile(r"[(\[{<]?\s*([A-Za-z]|\d{1,2})\s*[)\]}>]?\s*[.:,;)、。]?")
_LED = re.compile(
    r"[(\[{]?\s*([A-Za-z]|\d{1,2})\s*(?:[)\]}]\s*[.:,-]?|[.:,、]|\s[-=]+(?=\s))\s*(\S.*)|([A-Z]|\d{1,2})\s+(\S.*)",
    re.DOTALL,
)
_IN_BRACKETS = re.compile(r"\(([^()]+)\)[.。]?|\[([^\[\]]+)\][.。]?")
_LABEL_LAST = re.compile(r"(\S.*?)\s*[(\[]([A-Z]|\d{1,2})[)\]][.。]?", re.DOTALL)
"""`dog (B)`."""
_NAME_LED = re.compile(
    r"([^\W\d_]{2,}?\s*[(\[]?\s*(?:[A-Za-z]|\d{1,2}))\s*[)\]]?\s*(?:[.:)、,]\s*(\S.*)?)?", re.DOTALL
)
_PHRASE = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:i\s+(?:think|believe)\s+)?(?:it\s+is|it's)\s+(?=option|choice|answer)|"
    r"(?:(?:the|my)\s+)?(?:(?:final|correct|right|best|most\s+\w+)\s+)?(?:answer|option|choice)"
    r"(?:\s+(?:is|should\s+be|would\s+be|must\s+be)|\s*[:=]|(?=\s+[(\[]?(?-i:[A-Z])[)\]]?\.?\Z))\s*:?\s*)?(?:(?:option|choice|letter)\s+|选项|選択肢)?",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\s+is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice|one))?\s*[.!]?\s*\Z|です。?\Z",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not|isn't|is\s+not|neither|nor|never|except|anything\s+but|cannot|can't|wrong|incorrect|false|without)\b",
    re.IGNORECASE,
)
_JOINT = re.compile(r"\s*(?:\bor\b|\band\b|/|,|;|&|\+|\||或|和|、|\s)\s*", re.IGNORECASE)


class Choice(NamedTuple):
    """The label that was named, or None with the reason."""

    label: str | None
    reason: ScoreReason


_CONFLICT = Choice(None, ScoreReason.CONFLICTING_TEXT)


def read_choice(text: str, known: OptionSet, policy: Policy = ROBUST) -> Choice:
    """Which option an answer names.

    >>> from videop2r_data.validators.options import option_set
    >>> known = option_set(("A. cat", "B. dog"))
    >>> [read_choice(t, known).label for t in ("(B)", "B. dog", "dog", "B. cat", "A or B", "not A", "Bird")]
    ['B', 'B', 'B', None, None, None, None]
    >>> read_choice("It barks, so the answer is B.", known).label
    'B'
    """
    if text in known.labels:
        return Choice(text, ScoreReason.MATCH)
    if len(text) > 400 + 4 * max(map(len, known.keys), default=0):
        return Choice(None, ScoreReason.TOO_LONG)
    if policy.option_text_alone and (label := known.exact.get(text.strip())) is not None:
        return Choice(label, ScoreReason.MATCH)
    plain = bare_text(text)
    if not plain or not plain.strip(EDGES + ".!()[]{}*_$"):
        return Choice(None, ScoreReason.EMPTY_ANSWER)
    found = _read(plain, known, policy)
    if found is None and policy.answer_phrase:
        found = _read_phrase(plain, known, policy) or _read_sentence(text, plain, known, policy)
    return Choice(None, _why_not(_without_phrase(plain, policy), known)) if found is None else found


def bare_text(text: str) -> str:
    """An answer without bold, quotes, boxes and mathematics around it, folded."""
    text = without_bold(unwrap(even(text))).strip()
    for mark in ("**", "__"):
        text = text.removeprefix(mark).removesuffix(mark).strip() if text.count(mark) == 1 else text
    for mark in "*_":
        if len(text) > 2 and text[0] == text[-1] == mark and mark not in text[1:-1]:
            text = text[1:-1].strip()
    return text


def _without_phrase(text: str, policy: Policy) -> str:
    """Without `The answer is`, `Option` and `is correct`, where the policy reads them."""
    if not policy.answer_phrase:
        return text
    lead = _PHRASE.match(text)
    return bare_text(_TAIL.sub("", text[lead.end() :] if lead else text)) or text


def _read_phrase(text: str, known: OptionSet, policy: Policy) -> Choice | None:
    """`The answer is B`, `Option B`, `B is correct`, and nothing else."""
    bare = _without_phrase(text, policy)
    return _read(bare, known, policy) if bare != text else None


def _read_sentence(text: str, plain: str, known: OptionSet, policy: Policy) -> Choice | None:
    found = by_lead(plain, known, policy) or concluded(text, known, policy)
    if found is None:
        return None
    return Choice(None, found) if isinstance(found, ScoreReason) else Choice(found, ScoreReason.MATCH)


def _read(text: str, known: OptionSet, policy: Policy) -> Choice | None:
    lone = _LONE.fullmatch(text)
    if lone is not None and lone.group(1) in known.labels:
        return Choice(lone.group(1), ScoreReason.MATCH)
    if is_text(text, known):
        label = by_text(text, known)
        if label is not None:
            return Choice(label, ScoreReason.MATCH) if policy.option_text_alone else None
    if lone is not None and (label := _label(lone.group(1), known, policy)) is not None:
        return Choice(label, ScoreReason.MATCH)
    if (named := _by_name(text, known)) is not None:
        return named
    led = _LED.fullmatch(text)
    if led is not None:
        spaced = led.group(1) is None
        label = _label(led.group(3) if spaced else led.group(1), known, policy)
        if label is not None:
            return _beside(label, led.group(4) if spaced else led.group(2), known, spaced)
    last = _LABEL_LAST.fullmatch(text)
    if last is not None and last.group(2) in known.labels and is_text(last.group(1), known):
        return _beside(last.group(2), last.group(1), known, spaced=True)
    return None


def _label(raw: str, known: OptionSet, policy: Policy) -> str | None:
    if raw in known.labels:
        return raw
    if raw in known.names:
        return known.names[raw]
    upper = raw.upper()
    return upper if policy.lowercase_letter and upper in known.labels else None


def _by_name(text: str, known: OptionSet) -> Choice | None:
    """`Caption A`, `Option 2: its own text`."""
    if not known.names or (led := _NAME_LED.fullmatch(text)) is None:
        return None
    label = by_name(led.group(1), known)
    if label is None:
        return None
    return (
        Choice(label, ScoreReason.MATCH)
        if led.group(2) is None
        else _beside(label, led.group(2), known, False)
    )


def _beside(label: str, text: str, known: OptionSet, spaced: bool) -> Choice | None:
    """A label with words beside it: its own text or name, a part of it, or its text with an explanation."""
    bracketed = None if is_text(text, known) else _IN_BRACKETS.fullmatch(text.strip())
    if bracketed is not None and is_text(inner := bracketed.group(1) or bracketed.group(2), known):
        text = inner  # `B (dog)`
    own, key = known.keys[known.labels[label]], text_key(text)
    named = known.exact.get(text.strip())
    if named is None and key != own:
        named = by_text(text, known) or by_name(text, known)
    if named is not None:
        return Choice(label, ScoreReason.MATCH) if same_option(named, label, known) else _CONFLICT
    if key == own:
        return Choice(label, ScoreReason.MATCH)
    if is_text(text, known):
        return _CONFLICT
    return None if spaced or not own else _explained(label, text, key, known)


def _explained(label: str, text: str, key: str, known: OptionSet) -> Choice | None:
    own = known.keys[known.labels[label]]
    others = [k for k, other in known.folded.items() if other is None or not same_option(other, label, known)]
    others = [k for k in others if k != own]
    if holds(own, key) and not any(holds(k, key) for k in others):
        return Choice(label, ScoreReason.MATCH)  # a cut-off copy of its own text
    begins = key.startswith(own) and not key[len(own)].isalnum()
    rest = key[len(own) :] if begins else key
    if any(holds(rest, k) for k in others if not holds(own, k)):
        return _CONFLICT
    if begins:
        plain = even(text)
        behind = plain[plain.casefold().find(own) + len(own) :]
        sure = explains(rest, own, label, known) and not names_other(behind, label, known)
    else:
        inside = holds(key, own) and not DOUBT.search(key) and not is_doubtful(key)
        sure = reasoned(text, label, known) or (inside and not labels_in(text, label, known))
    return Choice(label, ScoreReason.MATCH) if sure else None


def _why_not(text: str, known: OptionSet) -> ScoreReason:
    parts = [p.strip("()[]{}.* ") for p in _JOINT.split(text[:200])]
    if parts[:1] in (["either"], ["both"]):
        parts = parts[1:]
    if len(parts) == 1 and len(text) <= 10 and text.isupper():
        parts = list(text)
    named = [p for p in parts if p in known.labels or p.casefold() in known.folded]
    if len(set(named)) > 1 and len(named) == len(parts):
        return ScoreReason.SEVERAL_ANSWERS
    if _NEGATION.search(text) and (named or any(holds(text.casefold(), k) for k in known.folded)):
        return ScoreReason.NEGATED_ANSWER
    led = _LED.fullmatch(text)
    if led and led.group(1) and led.group(1).upper() in known.labels:
        key = text_key(led.group(2))
        own = known.keys[known.labels[led.group(1).upper()]]
        if any(holds(key, k) for k in known.folded if k != own):
            return ScoreReason.CONFLICTING_TEXT
    return ScoreReason.NOT_AN_OPTION
