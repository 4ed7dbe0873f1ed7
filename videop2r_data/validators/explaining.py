"""What may stand behind an option that was named: a reason, or the rest of a yes or no."""

from __future__ import annotations

import re

from videop2r_data.validators.conclusions import is_taken_back
from videop2r_data.validators.naming import names_other, texts_in
from videop2r_data.validators.options import OptionSet, same_option

DOUBT = re.compile(
    r"\b(?:not|or|neither|nor|never|except|unless|but|however|cannot|maybe|perhaps|either|instead)\b|n't\b",
    re.IGNORECASE,
)
REASON = re.compile(
    r"\s*[,;.\u2014\u2013-]?\s*\b(?:because|since|as|due\s+to)\b|\s*[,，、。]?\s*(?:因为|因為|由于|なぜなら)",
    re.IGNORECASE,
)
_MORE_LABELS = re.compile(r"(?<![A-Za-z0-9_'’])[(\[]?([A-Z]|\d{1,2})(?:[)\].:,;、]|\s*\Z)")
_DIGIT = re.compile(r"[.,:/-]?\d")
YES = frozenset({"yes", "true", "是", "是的", "はい", "对"})
NO = frozenset({"no", "false", "否", "不是", "いいえ", "不"})
_UNSURE = re.compile(
    r"\b(?:or|but|however|maybe|perhaps|though|although|unless|except|if|might|may|could|possibly|"
    r"wrong|incorrect|not\s+(?:sure|certain|right|correct|true))\b|[?？]"
    r"|但|不过|可能|也许|如果|还是|或|しかし|かも|もし|だが",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\b(?:no|not|never|none|nobody|nothing|cannot|neither|nor|false|wrong|incorrect|untrue)\b|n't\b|不|没|沒|非|未|ない|ません|なく",
    re.IGNORECASE,
)


def explains(rest: str, own: str, label: str, known: OptionSet) -> bool:
    """Whether the words behind an option's own text take nothing back and go to no other option."""
    if labels_in(rest.upper(), label, known) or _DIGIT.match(rest):
        return False
    if own in YES or own in NO:
        return affirms(rest, own, known)
    return DOUBT.search(rest) is None and _UNSURE.search(rest) is None and not is_taken_back(rest)


def affirms(rest: str, own: str, known: OptionSet) -> bool:
    """Whether the words behind yes or no say the same: a negation does behind `No`, and not behind `Yes`."""
    folded = rest.casefold()
    if _UNSURE.search(rest) or any(holds(folded, k) for k in known.folded if k != own and k not in NO):
        return False
    return own in NO or _NOT.search(rest) is None


def labels_in(text: str, label: str, known: OptionSet) -> bool:
    """Whether labels of other options stand in a text, marked as such (`B.`, `(B)`) or at its end."""
    return any(m in known.labels and not same_option(m, label, known) for m in _MORE_LABELS.findall(text))


def reasoned(text: str, label: str, known: OptionSet) -> bool:
    """`because it barks`: a reason that holds no doubt and no other option."""
    if REASON.match(text) is None or _UNSURE.search(text):
        return False
    others = texts_in(text, known)
    return not names_other(text, label, known) and all(same_option(other, label, known) for other in others)


def holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as whole words."""
    at = text.find(part) if part else -1
    while at >= 0:
        end = at + len(part)
        if (at == 0 or not text[at - 1].isalnum()) and (end == len(text) or not text[end].isalnum()):
            return True
        at = text.find(part, at + 1)
    return False
