"""Answers in a sentence: which option `It barks, so the answer is B` or `Yes, he is` settles on."""

from __future__ import annotations

import re

from videop2r_data.schemas import Policy, ScoreReason
from videop2r_data.validators.conclusions import (
    MAX_CHARS,
    Conclusion,
    Cue,
    conclusions,
    figure,
    is_doubtful,
    last_sentence,
)
from videop2r_data.validators.explaining import NO, REASON, YES, affirms, reasoned
from videop2r_data.validators.naming import (
    named_option,
    names_other,
    predicate_option,
    texts_in,
    weighs_others,
)
from videop2r_data.validators.options import OptionSet, by_name, by_text, same_option
from videop2r_data.validators.units import canonical_unit

_AFTER_YES = re.compile(
    r"\s*[,.;:!，。、；：！—–-]+\s*(?!\d)\S.*|\s+(?=because|since|as\b).*|"
    r"\s+(?:it|he|she|they|there|this|that|we|you)\s+(?:is|are|was|were|do|does|did|has|have|can|will)\b.*",
    re.DOTALL | re.IGNORECASE,
)
_LETTER = re.compile(r"[(\[]?([A-Z]|\d{1,2})[)\]]?(?=[\s,])")
_FITS = re.compile(
    r"([^\W\d_]{2,}\s(?:[A-Za-z]|\d{1,2}))\s+(?:best\s+|better\s+)?(?:matches|fits|describes|captures)\b"
)
_ARTICLE = re.compile(r"(?:a|an|the|The)\s+")
_COUNTED = re.compile(r"([-+]?\d+(?:[.,]\d+)*)\s+(\D+)")


def by_lead(text: str, known: OptionSet, policy: Policy) -> str | None:
    """An answer that begins with its option, then gives a reason: `Yes, he is.`, `dog, because it barks`."""
    if not policy.answer_phrase:
        return None
    letter = _LETTER.match(text)
    if letter is not None and letter.group(1) in known.labels and REASON.match(text, letter.end()):
        label = letter.group(1)
        return label if reasoned(text[letter.end() :], label, known) else None
    named = _FITS.match(text)
    if named is not None and (found := by_name(named.group(1), known)) is not None:
        return (
            None
            if is_doubtful(text[named.end() :]) or weighs_others(text[named.end() :], found, known)
            else found
        )
    return _by_text_first(text, known) if policy.option_text_alone else None


def _by_text_first(text: str, known: OptionSet) -> str | None:
    """The option whose text, the longest that fits, begins the answer."""
    folded, article = text.casefold(), _ARTICLE.match(text)
    starts = (article.end(), 0) if article else (0,)
    fitting = [(len(key), key, at) for key in known.folded for at in starts if folded.startswith(key, at)]
    for _, key, at in sorted(fitting, reverse=True):
        label, rest = known.folded[key], text[at + len(key) :]
        if label is None or (rest[:1].isalnum() and rest[:1].isascii()):
            continue
        if key in YES or key in NO:
            rest = rest.removeprefix("的")
            return label if _AFTER_YES.fullmatch(rest) and affirms(rest, key, known) else None
        if at and not rest.strip(" .。!"):
            return label  # `the dog`
        return label if reasoned(rest, label, known) else None
    return None


def concluded(text: str, known: OptionSet, policy: Policy) -> str | ScoreReason | None:
    """What an answer in a sentence settles on: each of its conclusions must name the one option."""
    if len(text) > MAX_CHARS:
        return None
    labels: list[str] = []
    after = ""
    for one in conclusions(text):
        if one.open:
            return None
        label = _label(one, known, policy)
        if label is not None:
            labels.append(label)
            after = one.after
        elif one.cue in (Cue.ANSWER, Cue.BOXED) or texts_in(one.claim, known):
            return None
    if not labels:
        return _stated(text, known) if policy.option_text_alone else None
    if any(not same_option(labels[0], label, known) for label in labels):
        return ScoreReason.SEVERAL_ANSWERS
    goes_on = weighs_others(after, labels[0], known) or names_other(after, labels[0], known)
    return None if goes_on else labels[0]


def _label(one: Conclusion, known: OptionSet, policy: Policy) -> str | None:
    if one.cue is not Cue.COUNT:
        whole = by_text(f"{one.claim}.{one.after}", known) if one.after and policy.option_text_alone else None
        return whole or named_option(one.claim, known, policy)  # an option's text may be of two sentences
    return counted_option(figure(one), known) if policy.option_text_alone else None


def _stated(text: str, known: OptionSet) -> str | None:
    """The option of a plain statement, `The animal is a dog.`, if the whole answer is this sentence."""
    sentence = last_sentence(text)
    whole = text.strip(" \t\n*_\"'.。!")
    if "?" in text or "？" in text or len(sentence) < len(whole) - 2:
        return None
    return predicate_option(sentence, known)


def counted_option(claim: str, known: OptionSet) -> str | None:
    """The option that is the number of `5 balls`."""
    if (label := by_text(claim, known)) is not None:
        return label
    counted = _COUNTED.fullmatch(claim.strip())
    if counted is None or not canonical_unit(counted.group(2)):
        return None
    return by_text(counted.group(1), known)
