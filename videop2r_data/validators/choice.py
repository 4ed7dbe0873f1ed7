"""Which option, or options, an answer names; any doubt is a refusal."""

from __future__ import annotations

import re
from typing import NamedTuple

from videop2r_data.schemas import ROBUST, Policy, ScoreReason
from videop2r_data.validators.conclusions import (
    MAX_CHARS,
    Conclusion,
    Cue,
    conclusions,
    figure,
    is_doubtful,
    last_sentence,
)
from videop2r_data.validators.metrics import unwrap, without_bold
from videop2r_data.validators.options import (
    DOUBT,
    EDGES,
    NO,
    REASON,
    YES,
    OptionSet,
    affirms,
    by_name,
    by_text,
    even,
    explains,
    holds,
    is_text,
    labels_in,
    named_option,
    names_other,
    predicate_option,
    reasoned,
    same_option,
    text_key,
    texts_in,
    weighs_others,
)
from videop2r_data.validators.units import canonical_unit

# --- answers in a sentence: `It barks, so the answer is B`, `Yes, he is` ---

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
        rest = text[named.end() :]
        return None if is_doubtful(rest) or weighs_others(rest, found, known) else found
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
        label = _concluded_label(one, known, policy)
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


def _concluded_label(one: Conclusion, known: OptionSet, policy: Policy) -> str | None:
    if one.cue is not Cue.COUNT:
        whole = by_text(f"{one.claim}.{one.after}", known) if one.after and policy.option_text_alone else None
        return whole or named_option(one.claim, known, policy)  # an option's text may be of two sentences
    if not policy.option_text_alone:
        return None
    # the option that is the number of `5 balls`
    claim = figure(one)
    if (label := by_text(claim, known)) is not None:
        return label
    counted = _COUNTED.fullmatch(claim.strip())
    return by_text(counted.group(1), known) if counted and canonical_unit(counted.group(2)) else None


def _stated(text: str, known: OptionSet) -> str | None:
    """The option of a plain statement, `The animal is a dog.`, if the whole answer is this sentence."""
    sentence = last_sentence(text)
    asks = "?" in text or "？" in text
    longer = len(sentence) < len(text.strip(" \t\n*_\"'.。!")) - 2
    return None if asks or longer else predicate_option(sentence, known)


# --- one option: letters come from the row's own options, and any doubt gives no option ---

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
    # The plain letter, as nearly every trained model prints it: no pattern is run.
    if text in known.labels:
        return Choice(text, ScoreReason.MATCH)
    # An answer that is an option with an explanation stays below; what is longer is no answer.
    if len(text) > 400 + 4 * max(map(len, known.keys), default=0):
        return Choice(None, ScoreReason.TOO_LONG)
    if policy.option_text_alone and (label := known.exact.get(text.strip())) is not None:
        return Choice(label, ScoreReason.MATCH)
    plain = bare_text(text)
    if not plain or not plain.strip(EDGES + ".!()[]{}*_$"):
        return Choice(None, ScoreReason.EMPTY_ANSWER)
    if (found := _read(plain, known, policy)) is not None:
        return found
    bare = _without_phrase(plain) if policy.answer_phrase else plain
    # `The answer is B`, `Option B`, `B is correct`, and nothing else
    if bare != plain and (found := _read(bare, known, policy)) is not None:
        return found
    told = (by_lead(plain, known, policy) or concluded(text, known, policy)) if policy.answer_phrase else None
    if isinstance(told, ScoreReason):
        return Choice(None, told)
    return Choice(told, ScoreReason.MATCH) if told else Choice(None, _why_not(bare, known))


def bare_text(text: str) -> str:
    """An answer without bold, quotes, boxes and mathematics around it, folded."""
    text = without_bold(unwrap(even(text))).strip()
    for mark in ("**", "__"):
        text = text.removeprefix(mark).removesuffix(mark).strip() if text.count(mark) == 1 else text
    for mark in "*_":
        if len(text) > 2 and text[0] == text[-1] == mark and mark not in text[1:-1]:
            text = text[1:-1].strip()
    return text


def _without_phrase(text: str) -> str:
    """Without `The answer is`, `Option` and `is correct`."""
    lead = _PHRASE.match(text)
    return bare_text(_TAIL.sub("", text[lead.end() :] if lead else text)) or text


def _read(text: str, known: OptionSet, policy: Policy) -> Choice | None:
    lone = _LONE.fullmatch(text)
    if lone is not None and lone.group(1) in known.labels:
        return Choice(lone.group(1), ScoreReason.MATCH)
    if (label := by_text(text, known)) is not None and is_text(text, known):
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
    if label is None or led.group(2) is None:
        return None if label is None else Choice(label, ScoreReason.MATCH)
    return _beside(label, led.group(2), known, False)


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
    others = [k for k, o in known.folded.items() if k != own and not (o and same_option(o, label, known))]
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


# --- several options: `A, C`, `A and C`, `AC`, `A. cat, C. bird`; in any order, but never `or` ---

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
    single = read_choice(text, known, policy).label
    labels = _labels(text, known, policy) if single is None else {single}
    if labels is None and policy.answer_phrase:
        said = conclusions(text)
        labels = _labels(said[0].claim, known, policy) if len(said) == 1 and not said[0].open else None
    if labels is None:
        return None
    # twins are one: the first label that carries this very text
    every = known.labels
    return frozenset(next(first for first in every if same_option(first, one, known)) for one in labels)


def _labels(text: str, known: OptionSet, policy: Policy) -> set[str] | None:
    text = bare_text(re.sub(r"\s*\n\s*", ", ", text.strip())).strip(" .。")
    if text[:1] == "[" and text[-1:] == "]" and "[" not in text[1:]:
        text = text[1:-1]
    text = _VERB.sub("", text[_LEAD.match(text).end() :])  # type: ignore[union-attr] # it matches every text
    parts = [part for part in _PARTS.split(text) if part]
    if len(parts) == 1:
        parts = text.split()
    if len(parts) == 1 and _RUN.fullmatch(text) and len(set(text)) == len(text):
        plain_letters = all(len(label) == 1 and label.isalpha() for label in known.labels)
        parts = list(text) if known.bare and plain_letters else parts
    plain = policy.model_copy(update={"answer_phrase": False})
    read = [read_choice(part, known, plain).label for part in parts]
    labels = {label for label in read if label is not None}
    return labels if read and None not in read else None
