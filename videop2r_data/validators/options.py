"""The options of a question, and which of them a text names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache

from videop2r_data.schemas import LETTERS, ROBUST, Policy, label_options
from videop2r_data.validators.conclusions import is_doubtful, is_open_before, is_taken_back, letters_alone
from videop2r_data.validators.metrics import fold, has_cjk, unwrap, without_bold

# Two options are the same only if their texts are, character for character: `AA` and `Aa`, `mW` and `MW`, `5`
# and `.5` are six answers. A folded text may find an option, as long as it finds only one.


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
        wholes = [option.text for option in self._read]
        pairs = zip(self._read, self.texts if self._read else (), strict=True)
        forms = [*self._read, *((option.label, text) for option, text in pairs if text not in wholes)]
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
    read = [(m[1].casefold(), m[2].casefold(), m[3].strip()) for m in found if m is not None]
    words, marks = {word for word, _, _ in read}, {mark for _, mark, _ in read}
    if len(read) < max(2, len(wholes)) or len(words) > 1 or len(marks) < len(read):
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


# --- a claim names an option by letter, by name or by text; a rule that is not sure returns None ---

_DECOR = r"[\s\"'“”‘’*_`$\\\[\](){}:（）「」『』【】]|boxed|text|mathrm|mathbf"
_LETTER = re.compile(
    rf"(?:{_DECOR}|(?i:(?:the\s+)?\b(?:options?|choice|letter)\b)|选项|選択肢)*?"
    r"([A-Z]|\d{1,2})(?![A-Za-z0-9_'’^/=+%-]|[.,]\d)\s*(.?)",
    re.DOTALL,
)
_SMALL = re.compile(rf"(?:{_DECOR})*([a-z])(?:{_DECOR}|[.])*")
_OTHER_LETTER = re.compile(
    r"(?:\bor\b|\band\b|,|/|&|或者?|还是|和|与|、|か|または|と|も|及び?|および)\s*(?:option\s+|选项)?[(\"'*（「]*([A-Z])(?![A-Za-z0-9_'’])"
)
_CONTRAST = re.compile(
    r"[,;，、；]?\s*(?:\b(?:not|rather\s+than|instead|unlike|because|since|as|which|while|whereas|but|than|although|due\s+to|given)\b"
    r"|而不是|不是|因为|因為|由于|而非)",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\A\W*(?:(?:and/)?or|is|are|was|can|cannot|could|may|might|would|must)\b|\b(?:unsure|uncertain)\b"
    r"|\b(?:if|unless|wrong|incorrect|false|maybe|perhaps|might|may|probably|possibly)\b"
    r"|\bnot\s+(?:correct|right|true|sure|certain)\b"
    r"|\b(?:but|however|although|though)\b(?!\s+not\b)|ではな|でな|じゃな|ではあり|じゃあり|かも|とは限|不正确|不对|错|以外|之外|除外|或|間違|誤|可能|也许|吗",
    re.IGNORECASE,
)
_LEAD = re.compile(
    rf"(?:{_DECOR}|\b(?:the\s+(?:one|option|choice)\s+(?:that|which)\s+(?:\w+\s+)?|that|there\s+(?:is|are)|a|an|the)\b)*",
    re.IGNORECASE,
)
_EXPLAINS = re.compile(r"(?:because|since|as|which|rather|instead|over|due)\b")
_CONNECTS = re.compile(
    r"(?:that|and|or|not|is|was|if|unless|but|given|for|based|according|here|in|from|by|with)\b"
)
_LATEX = re.compile(r"\\(?:text|mathrm|mathbf)\b|[{}$\\]")
_CLAUSE = re.compile(r"\b(?:that|which|who)\s+(?:could|may|might)\b", re.IGNORECASE)
_MENTION = re.compile(r"\b(?:option|choice)\s+[(\"'*]*([A-Z])(?![\w'’])", re.IGNORECASE)
_VERB_END = re.compile(
    r"\s*(?:です|である|だ|でした|となります|になります|的|了)?\s*[.。!！)\]}」』”\"'*$\\]*\s*\Z"
)
_GOES_ON = re.compile(r"[A-Za-z0-9_%°+^!]|[^\W\d_\u3040-\u30ff\u4e00-\u9fff]|[.,/]\d")
_LATER = re.compile(
    r"(?:\b[Oo]ption|\b[Cc]hoice|选项|選択肢|(?:\A|\n)\s*[-*•]?)\s*[(\"'*]*([A-Z])(?![A-Za-z0-9_'’])"
)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|shows?|depicts?|(?:would|must|will|should|(?:seems?|appears?)\s+to)\s+be)\s+(?:(?:a|an|the)\s+)?[\"'“*(]*\Z|(?:是|为)[“「\"]?\Z",
    re.IGNORECASE,
)
_SETTLES = re.compile(
    r"\b(?:(?:align(?:s|ed)?|match(?:es)?|correspond(?:s|ing)?|fits?|agrees?)\s+(?:(?:more|most|very|quite)\s+)?"
    r"(?:(?:closely|well|best|directly|perfectly|exactly)\s+)?(?:(?:with|to)\s+)?"
    r"|(?:is|are|was|seems?\s+to\s+be)\s+(?:\w+\s+){0,3}?(?:characteristic|indicative|typical|example|illustration)\s+of\s+"
    r"|(?:is|are|be)\s+(?:best\s+|most\s+likely\s+)?(?:attributed|due)\s+to\s+|belongs?\s+to\s+|known\s+as\s+)"
    r"(?:(?:a|an|the)\s+)?(?:(?:\w+\s+){1,2}(?:of|behind)\s+)?(?:(?:a|an|the)\s+)?[\"'“*(]*\Z",
    re.IGNORECASE,
)
"""What ties a last sentence to one option: `aligns closely with the concept of`, `is characteristic of`."""
_SETTLED = re.compile(
    r"[\"'”*)]*\s+(?:is|are|would\s+be|must\s+be)\s+(?:clearly\s+)?the\s+(?:most|best|only|closest)\s+(?:\w+\s+){0,3}?"
    r"(?:answer|option|choice|explanation|match|fit|candidate|description|interpretation)\b",
    re.IGNORECASE,
)
_GOES_OUT = re.compile(
    r"[\"'”*)]*(?:\s*\Z|\s*[,;(]|\s+(?:which|where|that|because|as|since|in|under|due|for|from|among|with|by|based)\b)",
    re.IGNORECASE,
)
_OTHERS = re.compile(r"\bother (?:options|choices)\b", re.IGNORECASE)


def named_option(claim: str, known: OptionSet, policy: Policy = ROBUST) -> str | None:
    """The label of the one option that a claim names; None: none, several, or no telling.

    >>> pets = option_set(("A. cat", "B. dog"))
    >>> [named_option(c, pets) for c in ("B. dog, since it barks", "the dog", "B. cat", "A or B", "a mess")]
    ['B', 'B', None, None, None]
    """
    if claim in known.labels:
        return claim  # also where another option's text is this letter
    whole = by_text(claim, known) if policy.option_text_alone else None
    if (whole := whole or by_name(claim, known)) is not None:
        return whole
    letter = _LETTER.match(claim)
    if letter is not None and letter.group(1) in known.labels and _is_letter(letter, claim, known):
        return _by_letter(claim, letter, known)
    small = _SMALL.fullmatch(claim) if policy.lowercase_letter else None
    if small is not None and small.group(1).upper() in known.labels:
        return small.group(1).upper()
    texts = texts_in(claim, known)
    found = _by_text(claim, texts, known) if policy.option_text_alone else None
    return found if found is not None else _by_mention(claim, texts, known)


def _by_letter(claim: str, letter: re.Match[str], known: OptionSet) -> str | None:
    label = letter.group(1)
    texts = [o for o in texts_in(claim, known) if known.texts[known.labels[o]] not in known.labels]
    if texts and not any(same_option(other, label, known) for other in texts):
        return None  # the letter of one option beside the text of another: no telling
    rest = claim[letter.end(1) :]
    own = known.keys[known.labels[label]]
    if own and (at := even(rest).casefold().find(own)) >= 0:
        rest = even(rest)[at + len(own) :]  # what its own text says is no doubt, and names no other
    others = {m.group(1) for m in _OTHER_LETTER.finditer(_LATEX.sub(" ", rest))} & known.labels.keys()
    if any(not same_option(other, label, known) for other in others):
        return None
    return None if _TAKEN_BACK.search(rest) else label


def _is_letter(match: re.Match[str], claim: str, known: OptionSet) -> bool:
    """`A` before another word is an article, `B` of `B vitamins` part of a name, unless marked otherwise."""
    label, following = match.group(1, 2)
    if not following or not (following.isascii() and following.isalnum()):
        return True
    if "\n" in claim[match.end(1) : match.start(2)]:
        return True  # `Answer: B`, and an explanation from the next line on
    head, rest = claim[: match.start(1)].lower(), even(claim[match.end(1) :]).casefold()
    if "option" in head or "choice" in head or _EXPLAINS.match(rest):
        return True
    if label in "AI":
        return False
    own = known.keys[known.labels[label]]
    with_text = own != "" and rest.startswith(own) and not rest[len(own) :][:1].isalnum()
    return with_text or _CONNECTS.match(rest) is not None


def _find_whole(text: str, part: str) -> tuple[int, int] | None:
    """Where `part` stands as whole words; by hand, for a pattern per option would be compiled on each row."""
    at = text.find(part)
    while at >= 0:
        end = at + len(part)
        before = text[at - 1] if at else " "
        wide = not part[0].isascii()
        inside = (before.isascii() and before.isalnum()) or before in "_.,-" or _GOES_ON.match(text, end)
        if wide or not inside:
            return at, end
        at = text.find(part, at + 1)
    return None


def texts_in(claim: str, known: OptionSet) -> dict[str, tuple[int, int]]:
    """Options whose text a claim holds, with its place; a text inside a longer one does not count."""
    folded = even(claim).casefold()
    found = {label: at for label, part in known.bare if (at := _find_whole(folded, part))}
    return {
        label: (a, b)
        for label, (a, b) in found.items()
        if not any(c <= a and b <= d and (c, d) != (a, b) for c, d in found.values())
    }


def _by_text(claim: str, texts: dict[str, tuple[int, int]], known: OptionSet) -> str | None:
    """The option whose text begins the claim, an article or bracket aside, and is alone in it."""
    if not texts:
        return None
    label = next(iter(texts))
    if any(not same_option(label, other, known) for other in texts):
        return None
    folded = even(claim).casefold()
    lead = _LEAD.match(folded)
    start, end = texts[label]
    if start != (lead.end() if lead else 0):
        return None
    rest = folded[end:]
    if _VERB_END.match(rest):
        return label
    if _TAKEN_BACK.search(rest) or names_other(even(claim)[end:], label, known):
        return None
    ends = rest.lstrip(" \"'*)]}\\$").startswith((",", "(", ";", "."))
    return label if ends or _CONTRAST.match(rest) else None


def names_other(text: str, label: str, known: OptionSet) -> bool:
    """Whether a letter of another option stands alone in a text: `dog, no, C`."""
    return any(o in known.labels and not same_option(o, label, known) for o in letters_alone(text))


def _by_mention(claim: str, texts: dict[str, tuple[int, int]], known: OptionSet) -> str | None:
    """`two thirds, which is option F`: the only letter that is called an option."""
    named = {m.group(1) for m in _MENTION.finditer(claim)} & known.labels.keys()
    if len(named) != 1 or is_doubtful(claim):
        return None
    label = named.pop()
    return label if all(same_option(label, text, known) for text in texts) else None


def weighs_others(after: str, label: str, known: OptionSet) -> bool:
    """Whether the words behind a conclusion weigh other options still: it was none, or is taken back."""
    if _OTHERS.search(after):
        return False  # "the other options do not fit": they are set aside
    named = set(_LATER.findall(after)) & known.labels.keys() | texts_in(after, known).keys()
    return any(not same_option(other, label, known) for other in named)


def predicate_option(sentence: str, known: OptionSet) -> str | None:
    """The option whose text a plain statement ends in: `The animal in the video is a dog.`

    The rest of the sentence may name no other option and hold no doubt.

    >>> pets = option_set(("A. cat", "B. dog"))
    >>> [predicate_option(s, pets) for s in ("It is a dog.", "It is not a dog.", "The cat is a dog.")]
    ['B', None, None]
    """
    folded = even(sentence).casefold().rstrip(" .。!\"'*)]”」")
    ends = [(label, text) for label, text in known.bare if folded.endswith(text)]
    if not ends:
        return None
    label, text = max(ends, key=lambda found: len(found[1]))
    before = folded[: len(folded) - len(text)]
    if _COPULA.search(before) is None or is_open_before(_CLAUSE.sub("", before)) or is_taken_back(before):
        return None
    others = [other for other, same in ends if same == text] + list(texts_in(before, known))
    return label if all(same_option(label, other, known) for other in others) else None


def settled_option(sentence: str, known: OptionSet) -> str | None:
    """The option that a last sentence is tied to, without that it is called an option or stands at its end.

    It must be the only option whose text stands there, and the words around it may hold no doubt.

    >>> laws = option_set(("A. Impossibility", "B. Frustration"))
    >>> settled_option("This aligns with the concept of impossibility under contract law", laws)
    'A'
    >>> settled_option("This does not align with impossibility", laws) is None
    True
    """
    texts = texts_in(sentence, known)
    if not texts:
        return None
    label, (start, end) = next(iter(texts.items()))
    if any(not same_option(label, other, known) for other in texts):
        return None
    folded = even(sentence).casefold()
    before, after = folded[:start], folded[end:]
    if is_doubtful(_CLAUSE.sub("", before)) or is_doubtful(after):
        return None
    tied = _SETTLES.search(before[-120:]) is not None and _GOES_OUT.match(after) is not None
    return label if tied or _SETTLED.match(after) else None


# --- words behind a named option: a reason, or the rest of a yes or no ---

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
    only = all(same_option(other, label, known) for other in texts_in(text, known))
    return only and not names_other(text, label, known)


def holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as whole words."""
    at = text.find(part) if part else -1
    while at >= 0:
        end = at + len(part)
        if (at == 0 or not text[at - 1].isalnum()) and (end == len(text) or not text[end].isalnum()):
            return True
        at = text.find(part, at + 1)
    return False
