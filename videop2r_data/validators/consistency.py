"""Does the think segment settle on the answer that was given? By rule, and only where the rule is sure.

A good trace must never be rejected, so that everything unclear is undecided, and undecided passes: several
options in one conclusion, a negated or conditional one, or one that is taken back by the words after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from videop2r_data.schemas import ROBUST, Check, Policy, ProblemType, ProcessTrace, RejectReason, ScoreReason
from videop2r_data.schemas.labels import label_options
from videop2r_data.validators.choice import OptionSet, option_set, read_choice, same_option
from videop2r_data.validators.numbers import parse_quantity
from videop2r_data.validators.quantity import Quantity
from videop2r_data.validators.text import fold

_TAIL = 4000
_CONCLUDE = re.compile(
    r"\b(?:answer|option|choice|conclusion)\b(?:\s+to\s+th(?:e|is)\s+question)?\s*"
    r"(?:\b(?:is|should\s+be|must\s+be|has\s+to\s+be|will\s+be)\b\s*:?|[:=])|\\boxed(?=\{)",
    re.IGNORECASE,
)
_CONCLUDING = ("answer", "option", "choice", "conclusion", "\\boxed")
"""One of them stands in every match of the pattern above."""
_LAST_CHARS = 48
_LAST_WORDS = re.compile(r"\banswer (?:is|should be|must be) ([A-Z])\.?\s*\Z")
_AGREES = Check()
_MATCHES = re.compile(
    r"\b(?:match(?:es)?|corresponds?\s+to|which\s+is|settle\s+on|go\s+with)\s+(?:the\s+)?(?:option|choice|answer)\s+"
    r"[(\"'*]*([A-Z])\b",
)
_NEGATED = re.compile(r"\b(?:not|never|cannot|neither|nor|no|isn't|incorrect|wrong)\b|n't\b", re.IGNORECASE)
_IF = re.compile(
    r"\b(?:if|suppose|assum\w*|whether|unless|why|how|might|may|could|would|possib\w*|initial\w*|first)\b|"
    r"n't\b|\b(?:not|never|incorrect|wrong|no)\b",
    re.IGNORECASE,
)
_TURN = re.compile(
    r"\b(?:wait|however|but|actually|although|though|instead|hmm|reconsider|second\s+thought|alternatively|"
    r"unless|except|except|correction|mistake|no,)",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[.!?](?=\s|$|[)\"'*\]])|\n\s*\n|[。！？]")
_CONTRAST = re.compile(
    r"[,;]?\s*\b(?:not|rather\s+than|instead|unlike|because|since|as|which|while|whereas|but|than|although)\b",
    re.IGNORECASE,
)
_DECOR = r"[\s\"'“”‘’*_`$\\\[\](){}:]|boxed|text|mathrm"
_LETTER = re.compile(
    rf"(?:{_DECOR}|(?:the\s+)?(?:option|choice|letter)\b)*?([A-Z])(?![\w'’^/=+-])\s*(.?)", re.DOTALL
)
_LEAD = re.compile(
    rf"(?:{_DECOR}|\b(?:the\s+(?:one|option|choice)\s+(?:that|which)\s+(?:\w+\s+)?|that|there\s+(?:is|are)|a|an|the)\b)*",
    re.IGNORECASE,
)
_LETTER_AND_STOP = re.compile(rf"(?:{_DECOR}|[Oo]ption)*[A-Z]\.(?!\s*(?i:{_TURN.pattern}))")
_GOES_ON = re.compile(r"[\w%°]|[.,/]\d")
_ARTICLE = re.compile(r"(?:a|an|the)\s+", re.IGNORECASE)
_OTHER_LETTER = re.compile(r"(?:\bor\b|\band\b|,|/|&)\s*(?:option\s+)?[(\"'*]*([A-Z])(?![\w'’])")


_OTHERS = re.compile(r"\bother (?:options|choices)\b", re.IGNORECASE)
_NAMED_LATER = re.compile(r"(?:\b[Oo]ption|\b[Cc]hoice|(?:\A|\n)\s*[-*•]?)\s*[(\"'*]*([A-Z])(?![\w'’])")


def think_choice(think: str, options: Sequence[str]) -> str | None:
    """The label of the option that a think segment settles on, by its last conclusion; None: undecided.

    >>> opts = ["A. a wristwatch", "B. a gold ring"]
    >>> think_choice("It shines. So the answer should be the one that matches the gold ring.", opts)
    'B'
    >>> think_choice("The answer is A or B.", opts) is None
    True
    """
    known = option_set(tuple(options))
    text = think[-_TAIL:]
    last = _last_conclusion(text)
    if last is not None:
        return _settled(text, last, known, tuple(options))
    return _matched(text, known)


def _last_conclusion(text: str) -> re.Match[str] | None:
    """The last one in the text; the end is looked at first, where it nearly always is."""
    if text.isascii():  # only in ASCII does lower case hold all that the pattern's IGNORECASE finds
        lower = text.lower()
        if not any(word in lower for word in _CONCLUDING):
            return None
    last = None
    for at in (max(0, len(text) - 250), 0):
        for last in _CONCLUDE.finditer(text, at):  # noqa: B007 -- the last one is wanted
            pass
        if last is not None:
            break
    return last


def _settled(text: str, last: re.Match[str], known: OptionSet, options: tuple[str, ...]) -> str | None:
    before = _CLAUSE_END.split(text[max(0, last.start() - 160) : last.start()])[-1]
    claim, question, after = _claim(text, last.end())
    if question or _IF.search(before) or _TURN.search(after):
        return None
    label = _named(claim, known, options)
    if label is None:
        return None
    if re.search(r"\bif\b", claim) or _goes_on(after, label, known, options):
        return None
    return label


def _goes_on(after: str, label: str, known: OptionSet, options: tuple[str, ...]) -> bool:
    """Whether the words after a conclusion weigh other options still: it was none, or is taken back."""
    if _OTHERS.search(after):
        return False  # "the other options do not fit": they are set aside
    named = set(_NAMED_LATER.findall(after)) & known.labels.keys()
    named |= set(_texts_in(after, options))
    return any(not same_option(other, label, known) for other in named)


def _claim(text: str, at: int) -> tuple[str, bool, str]:
    """What a conclusion says, whether it is a question, and the words after it."""
    while at < len(text) and text[at].isspace():
        at += 1
    # "A. aldose": the stop after a letter ends no sentence; "A. Wait, no": it does
    letter = _LETTER_AND_STOP.match(text, at)
    end = _CLAUSE_END.search(text, letter.end() if letter else at)
    stop = end.start() if end else len(text)
    return text[at:stop], end is not None and end.group() == "?", text[stop + 1 :]


def _named(claim: str, known: OptionSet, options: tuple[str, ...]) -> str | None:
    texts = _texts_in(claim, options)
    letter = _LETTER.match(claim)
    if letter is not None and letter.group(1) in known.labels and _is_letter(letter, claim):
        label = letter.group(1)
        others = {m.group(1) for m in _OTHER_LETTER.finditer(claim)} & known.labels.keys()
        if any(not same_option(o, label, known) for o in others):
            return None
        if texts and not any(same_option(t, label, known) for t in texts):
            return None  # the letter of one option beside the text of another: no telling
        return label
    return _by_text(claim, texts, known)


def _is_letter(match: re.Match[str], claim: str) -> bool:
    """`A` before another word is an article and `I` a pronoun, unless marked as a letter."""
    if match.group(1) not in "AI" or not match.group(2) or match.group(2) in ".,;:)]}\"'*”’(-–—":
        return True
    head = claim[: match.start(1)].lower()
    following = claim[match.end(1) :].split()[:1]
    return "option" in head or "choice" in head or following in (["because"], ["since"], ["as"], ["which"])


@lru_cache(maxsize=8192)
def _bare_texts(options: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(label, comparable text without article) of every option with a text."""
    out = []
    for label, text in label_options(options):
        bare = _ARTICLE.sub("", fold(text).casefold().strip(" .\"'*"), count=1)
        if bare:
            out.append((label, bare))
    return tuple(out)


def _find_whole(text: str, part: str) -> tuple[int, int] | None:
    """Where `part` stands as whole words; by hand, for a pattern per option would be compiled on each row."""
    at = text.find(part)
    while at >= 0:
        end = at + len(part)
        before = text[at - 1] if at else " "
        if not (before.isalnum() or before in "_.,-") and not _GOES_ON.match(text, end):
            return at, end
        at = text.find(part, at + 1)
    return None


def _texts_in(claim: str, options: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Options whose text the claim holds, with its place; a text inside a longer one does not count."""
    folded = fold(claim).casefold()
    found = {label: at for label, part in _bare_texts(options) if (at := _find_whole(folded, part))}
    return {
        label: (a, b)
        for label, (a, b) in found.items()
        if not any(c <= a and b <= d and (c, d) != (a, b) for c, d in found.values())
    }


def _by_text(claim: str, texts: dict[str, tuple[int, int]], known: OptionSet) -> str | None:
    if not texts:
        return None
    label = next(iter(texts))
    if any(not same_option(label, other, known) for other in texts):
        return None
    folded = fold(claim).casefold()
    lead = _LEAD.match(folded)
    start = texts[label][0]
    if start != (lead.end() if lead else 0) or _NEGATED.search(folded[:start]):
        return None
    rest = folded[texts[label][1] :].strip(" .\"'*)]}\\$")
    return label if not rest or rest.startswith((",", "(", ";")) or _CONTRAST.match(rest) else None


def _matched(text: str, known: OptionSet) -> str | None:
    """`… matches option C` in the very last sentence."""
    if not any(word in text for word in ("option", "choice", "answer")):
        return None  # one of them stands in every match below
    sentence = next((s for s in reversed(_CLAUSE_END.split(text)) if s.strip()), "")
    named = {m.group(1) for m in _MATCHES.finditer(sentence)}
    every = set(re.findall(r"\b[Oo]ption\s+([A-Z])\b", sentence))
    if len(named | every) != 1 or _IF.search(sentence):
        return None
    label = next(iter(named | every))
    return label if named and label in known.labels else None


def think_number(think: str) -> Quantity | None:
    """The number of a think segment's last `the answer is N`; None: undecided.

    >>> think_number("3 and 4, so the answer is 7.").value
    Fraction(7, 1)
    """
    text = think[-_TAIL:]
    last = _last_conclusion(text)
    if last is None:
        return None
    before = _CLAUSE_END.split(text[max(0, last.start() - 160) : last.start()])[-1]
    claim, question, after = _claim(text, last.end())
    if question or _IF.search(before) or _TURN.search(after) or after.strip():
        return None
    number = parse_quantity(claim if last.group() != "\\boxed" else last.group() + claim)
    return None if isinstance(number, ScoreReason) else number


def check_consistency(
    trace: ProcessTrace,
    problem_type: ProblemType | str,
    options: Sequence[str] = (),
    *,
    policy: Policy = ROBUST,
) -> Check:
    """Whether think and answer agree; undecided passes.

    Multiple choice: the option of `think_choice` against the answer's. Numerical and regression: the number
    of the last `the answer is N`, equal within half a step of whichever is printed less exactly.
    """
    kind = ProblemType(problem_type)
    if kind is ProblemType.MULTIPLE_CHOICE:
        if _ends_in(trace.think, trace.answer.strip()):
            return _AGREES
        known = option_set(tuple(options))
        answer = read_choice(trace.answer.strip(), known, policy).label
        thought = think_choice(trace.think, options) if answer is not None else None
        if answer is None or thought is None or same_option(answer, thought, known):
            return _AGREES
        return _mismatch(thought, answer)
    if kind in (ProblemType.NUMERICAL, ProblemType.REGRESSION):
        given, number = parse_quantity(trace.answer.strip(), policy), think_number(trace.think)
        if isinstance(given, ScoreReason) or number is None or _near(given, number):
            return _AGREES
        return _mismatch(str(float(number.value)), str(float(given.value)))
    return _AGREES


def _ends_in(think: str, letter: str) -> bool:
    """Whether the last words are `answer is X.`, X being the answer: no later conclusion can say otherwise.

    Nearly every good trace ends so; the full rule would pass it too, at ten times the price.
    """
    last = _LAST_WORDS.search(think[-_LAST_CHARS:])
    return last is not None and last.group(1) == letter


def _mismatch(thought: str, answer: str) -> Check:
    return Check(
        reason=RejectReason.THINK_ANSWER_MISMATCH,
        detail=f"think settles on {thought!r}, the answer is {answer!r}"[:300],
    )


def _near(a: Quantity, b: Quantity) -> bool:
    """Equal, one the rounding of the other, or in different units (not compared)."""
    if a.unit and b.unit and a.unit != b.unit:
        return True
    try:
        x, y = float(a.value), float(b.value)
    except OverflowError:
        return True  # undecided
    steps = [1.0 if q.step is None else float(q.step) for q in (a, b)]
    whole = all(q.step is None for q in (a, b))
    return (
        x == y if whole and x.is_integer() and y.is_integer() else abs(x - y) <= max(steps) / 2 * (1 + 1e-9)
    )
