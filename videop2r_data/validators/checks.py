"""Checks by rule beside the score: the observation leaks the answer; the think segment contradicts it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from videop2r_data.schemas import (
    ROBUST,
    Check,
    Policy,
    ProblemType,
    ProcessTrace,
    RejectReason,
    ScoreReason,
    label_options,
)
from videop2r_data.validators.choice import read_choice
from videop2r_data.validators.conclusions import (
    MAX_CHARS,
    Conclusion,
    Cue,
    conclusions,
    figure,
    is_doubtful,
    last_sentence,
    letters_alone,
)
from videop2r_data.validators.metrics import CJK, fold, has_cjk, words
from videop2r_data.validators.numbers import Quantity, parse_quantity
from videop2r_data.validators.options import (
    OptionSet,
    named_option,
    option_set,
    predicate_option,
    same_option,
    settled_option,
    texts_in,
    weighs_others,
)
from videop2r_data.validators.units import same_unit

# --- the observation: does it state the answer as an answer, or say nothing? ---
#
# Both checks of this module reject only where a rule is sure. A judge that reads `The correct answer is A.`
# finds that A follows: such an observation passes step 3 without a word about the clip, and a model trained
# on it learns to answer before it reasons. An observation that says what is seen is never a leak, however
# plainly the answer follows from it.

OPENING = "Based on the question, I need to notice"
"""The words that the generating prompts ask an observation to open with [paper §8.1]; no content."""
_STEMS = ("answer", "conclusion", "option", "choice", "solution", "correct", "\\boxed")
_ENGLISH = "|".join(map(re.escape, _STEMS))
ANSWER_MARKERS = rf"{_ENGLISH}|答|结论|結論|正解|正确|正確|正しい|选项|選項|정답"
"""Every statement of an answer holds one of these, in any case; `verify` searches whole columns for them."""
_MARKER = re.compile(ANSWER_MARKERS, re.IGNORECASE)
FEW_CHARS = 40
"""Characters; a longer observation is no placeholder."""
SURE_LETTERS = FEW_CHARS + len(OPENING)
"""Letters by which an observation must exceed question, options and answer to count as content unread."""
_STATES = (Cue.ANSWER, Cue.OPTION, Cue.BOXED, Cue.RIGHT)
_NAMES_OPTION = re.compile(
    r"\b(?:match(?:es|ing)?|aligns?\s+with|closest\s+to|corresponds?\s+to|corresponding\s+to|consistent\s+with|points?\s+to|supports?|indicates?|"
    r"confirms?|which\s+is|making)\s+(?:the\s+)?(?:option|choice|answer)\s+[(\"'*]*([A-Z]|\d{1,2})\b"
    r"|\b(?:option|choice|answer)\s+[(\"'*]*([A-Z]|\d{1,2})[)\"'*]*\s+(?:is|seems|appears|looks)\s+(?:to\s+be\s+)?"
    r"(?:the\s+)?(?:correct|right|best|answer)\b"
    r"|选项?\s*([A-Z])\s*(?:是)?正确|정답은\s*([A-Z])",
    re.IGNORECASE,
)
_LOOSELY = re.compile(
    r"\b(?i:answer|solution|(?:correct|right|best)\s+(?:response|solution|choice|option))\b[^.!?\n]{0,40}?"
    r"\b(?i:is|be|becomes)\b[^.!?\n]{0,16}?(?<![\w'’])(?:[Oo]ption\s+)?[(\"'*]*([A-Z])"
    r"(?=[)\"'*]*(?:[.!,;:]|\s*\Z|\s+(?:because|since|as)\b))",
)
"""`the answer … is … B`, with words between: in an observation, a hedge before the letter is a leak too."""
_NOT_STATED = re.compile(
    r"\b(?:if|whether|why|how|not|never|cannot|no)\b|n't\b|\bwhich\s+(?:option|choice|answer|of)\b|\bwhat\s+the\b"
    r"|[?？]",
    re.IGNORECASE,
)
"""Words in the clause before a statement that ask for the answer or rule it out: no leak."""
_QUOTED = re.compile(
    r"\"[^\"]{1,300}\"|(?<!\w)'[^'\n]{1,300}'(?!\w)|“[^”]{1,300}”|‘[^’]{1,300}’|「[^」]{1,300}」|『[^』]{1,300}』"
)
_CLAUSE_END = re.compile(r"[.!?](?=\s|\Z|[)\"'*\]])|\n|[。！？;；]")
_PLACEHOLDERS = """
    n na none null nil nothing todo tbd unknown empty observation observations here text content see video
    image clip frames above below the a an i no
"""
_PLACEHOLDER = frozenset(_PLACEHOLDERS.split())
_TOKEN = re.compile(f"[{CJK}]|[^\\W{CJK}]+(?:[.,]\\d+)*")
_NO_LETTERS = bytes(code for code in range(256) if not chr(code).isalpha() or code > 127)
_PASSED = Check()


def check_observation(
    observation: str,
    *,
    problem: str,
    options: Sequence[str] = (),
    answer: str = "",
    problem_type: ProblemType | str | None = None,
) -> Check:
    """Check that an observation neither states the answer nor is empty of content; total, linear time.

    Args:
        observation: the P segment, without its tags.
        problem: the question.
        options: as in the pool; empty unless multiple choice.
        answer: the answer that was given, without its tags.
        problem_type: of the question; text that was read (OCR) may be all that there is to observe.

    Returns:
        Passed; `leaked_answer`: the observation states the answer as an answer, or is nothing but the answer;
        `hollow_observation`: it is a placeholder, or repeats the question.

    >>> check_observation("A red ball rolls left.", problem="What rolls?", answer="a red ball").reason is None
    True
    >>> check_observation("The correct answer is A.", problem="?", options=("A. x", "B. y")).reason.value
    'leaked_answer'
    >>> check_observation("x", problem="?").reason.value
    'hollow_observation'
    """
    # Nearly every row has too many letters to be a placeholder, the question or the answer; a byte table
    # counts them far faster than words can be read.
    letters = len(observation.encode("ascii", "ignore").translate(None, _NO_LETTERS))
    if letters <= max(len(problem), len(answer), sum(map(len, options))) + SURE_LETTERS:
        said = observation.strip()
        if said.startswith(OPENING):
            said = said[len(OPENING) :].strip(" ,:.\n")
        read = problem_type is not None and ProblemType(problem_type).traits.form == "reading"
        if not read and _is_bare_answer(said, tuple(options), answer):
            detail = f"the answer is all that is said: {observation[:200]!r}"
            return Check(reason=RejectReason.LEAKED_ANSWER, detail=detail)
        if _is_hollow(said, problem):
            detail = f"nothing is said: {observation[:200]!r}"
            return Check(reason=RejectReason.HOLLOW_OBSERVATION, detail=detail)
    found = _statement(observation, tuple(options), answer)
    if found is None:
        return _PASSED
    return Check(reason=RejectReason.LEAKED_ANSWER, detail=f"states the answer: {found[:200]!r}")


def _is_hollow(said: str, problem: str) -> bool:
    found = words(said)
    if not has_cjk(said):
        if sum(map(len, found)) < 2 and not said.strip(" .()").isdigit():
            return True
        if len(said) <= FEW_CHARS and all(word in _PLACEHOLDER for word in found):
            return True
    question = words(problem)
    return len(found) > 2 and found == question[-len(found) :]


def _is_bare_answer(said: str, options: tuple[str, ...], answer: str) -> bool:
    """Whether the observation is only the answer, or only an option's label, with or without its text."""
    text = _key(said)
    if text and text == _key(answer):
        return True
    known = _options(options)
    return bool(text) and any(
        text in (key, label, f"option {label}", f"{label} {key}".rstrip()) for label, key in known
    )


def _statement(text: str, options: tuple[str, ...], answer: str) -> str | None:
    """The first claim that surely states an answer, or None."""
    lower = text.lower()
    # in ASCII text the stems do, in a sixth of the pattern's time
    if not (any(stem in lower for stem in _STEMS) if text.isascii() else _MARKER.search(text)):
        return None
    # A quotation with an answer marker (a sign in the clip) goes; others stay (`the answer is "B"`).
    text = _QUOTED.sub(lambda m: " " if _MARKER.search(m.group()) else m.group(), text)
    for begin in range(0, len(text), MAX_CHARS):
        for found in conclusions(text[begin : begin + MAX_CHARS], counts=False):
            if found.open or found.cue not in _STATES:
                continue
            if found.cue is Cue.BOXED or _claims(found.claim, options, answer):
                return found.claim
    labels = {label for label, _ in _options(options)}
    for match in chain(_NAMES_OPTION.finditer(text), _LOOSELY.finditer(text)):
        label = next(group for group in match.groups() if group)
        before = _CLAUSE_END.split(text[max(0, match.start() - 160) : match.start()])[-1]
        if label.casefold() in labels and _NOT_STATED.search(before) is None:
            return match.group()
    return None


def _claims(claim: str, options: tuple[str, ...], answer: str) -> bool:
    """Whether a claim names an option, by label or by text, or the answer that was given."""
    key = _key(claim)
    if not key or re.match(
        r"(?:not|unclear|unknown|hidden|what|which|how|in|on|at|based|found|visible)\b", key
    ):
        return False
    found = f" {key} "
    given = _key(answer)
    if given and f" {given} " in found:
        return True
    first = re.sub(r"^(?:option|choice|letter|the option|the choice) ", "", key).partition(" ")[0]
    return any(first == label or (text and f" {text} " in found) for label, text in _options(options))


@lru_cache(maxsize=8192)
def _options(options: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(label, comparable text) of each option."""
    return tuple((o.label.casefold(), _key(o.text)) for o in label_options(options))


def _key(text: str) -> str:
    """Text as it is compared here: words, numbers and CJK characters, no case, one space between them."""
    return " ".join(_TOKEN.findall(fold(text).casefold()))


# --- the think segment: does it settle on the answer that was given? ---
#
# A good trace must never be rejected, so whatever is unclear is undecided, and undecided passes: several
# options in one conclusion, a negated or conditional conclusion, or one taken back by the words after it.

_NEAR = 400
"""Characters at the end that are searched first: nearly every last conclusion stands there."""
_LAST_CHARS = 48
_LAST_WORDS = re.compile(r"\banswer (?:is|should be|must be) ([A-Z])\.?\s*\Z")
_MATCHES = re.compile(
    r"\b(?:match(?:es)?|correspond(?:s|ing)?\s+(?:\w+\s+)?(?:to|with)|align(?:s|ing)?\s+(?:\w+\s+){0,2}(?:to|with)|"
    r"consistent\s+with|which\s+is|settle\s+on|go\s+with)\s+"
    r"(?:the\s+)?(?:(?:\w+\s+){1,3}(?:in|of|by)\s+)?(?:option|choice|answer)\s+[(\"'*]*(?-i:([A-Z]))\b",
    re.IGNORECASE,
)
_OPTION = re.compile(r"\b(?:option|choice)\s+[(\"'*]*(?-i:([A-Z]))(?![\w'’])", re.IGNORECASE)
_LETTER_LAST = re.compile(
    r"\bthe\s+(?:most|best|only|correct|closest|right)\b[^,;:]{0,120}?\b(?:answer|option|choice|statement|explanation|"
    r"description|match|interpretation|reason|conclusion|fit)\b[^,;:]{0,60}?\b(?:is|would\s+be|must\s+be|should\s+be)\s*:?\s*"
    r"[(\"'*]*(?-i:([A-Z]))[)\"'*]*(?:\.?\s*\Z|,\s*(?:as|since|because)\b)",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"\A\W*(?:therefore|thus|hence|consequently|accordingly|in\s+(?:conclusion|summary)|overall|so\b|to\s+(?:conclude|summarize)|"
    r"given|considering|based\s+on|from\s+(?:this|these|the)|因此|所以|综上|总之|したがって|よって)|\bthe\s+most\s+\w+",
    re.IGNORECASE,
)
_CHOICE_STEMS = ("option", "choice", "answer")


def think_choice(think: str, options: Sequence[str]) -> str | None:
    """The label of the option that a think segment settles on, by its last conclusion; None: undecided.

    Where no conclusion is announced, the last sentence counts, if it ends in one option.

    >>> opts = ["A. a wristwatch", "B. a gold ring"]
    >>> think_choice("It shines. So the answer should be the one that matches the gold ring.", opts)
    'B'
    >>> think_choice("The answer is A or B.", opts) is None
    True
    """
    known = option_set(tuple(options))
    last = _last_conclusion(think, known)
    if last is None:
        return _last_statement(last_sentence(think), known)
    # A conclusion may name no option yet: `The correct answer should be the one that fits.`
    quiet = last.cue is not Cue.BOXED and not last.open and last.after.strip() != ""
    if quiet and not letters_alone(last.claim) and not texts_in(last.claim, known):
        return _last_statement(last_sentence(think), known)
    label = None if last.open else named_option(last.claim, known)
    if label is None or not weighs_others(last.after, label, known):
        return label
    return _last_statement(last_sentence(think), known) if last.cue is Cue.OPTION else None


def _last_conclusion(think: str, known: OptionSet | None) -> Conclusion | None:
    """The last conclusion, without those that only describe an option (`each option is …`)."""
    for text in (think[-_NEAR:], think[-MAX_CHARS:]) if len(think) > _NEAR else (think,):
        for one in reversed(conclusions(text, counts=False)):
            if one.cue in (Cue.ANSWER, Cue.BOXED) or (known is not None and named_option(one.claim, known)):
                return one
    return None


def _last_statement(sentence: str, known: OptionSet) -> str | None:
    """The option that a last sentence settles on without saying `the answer is`."""
    lower = sentence.lower()
    # A pattern that ignores case reads `ſ` as `s`, a search in lower case does not.
    if not sentence.isascii() or any(word in lower for word in _CHOICE_STEMS):
        matches, every = _MATCHES.search(sentence), set(_OPTION.findall(sentence))
        if matches is not None:
            only = every | {matches.group(1)}
            sure = len(only) == 1 and only <= known.labels.keys() and not is_doubtful(sentence)
            return only.pop() if sure else None
    letter = _LETTER_LAST.search(sentence)
    if letter is not None:
        before = re.sub(r"most\s+incorrect", "", sentence[: letter.start(1)], flags=re.IGNORECASE)
        return letter.group(1) if letter.group(1) in known.labels and not is_doubtful(before) else None
    found = predicate_option(sentence, known) if _CONCLUDES.search(sentence) else None
    return found or settled_option(sentence, known)


def think_number(think: str) -> Quantity | None:
    """The number of a think segment's last `the answer is N`; None: undecided.

    >>> think_number("3 and 4, so the answer is 7.").value
    Fraction(7, 1)
    """
    last = _last_conclusion(think, None)
    if last is None or last.open or last.after.strip(" \t\n\\)]}$*.。"):
        return None
    number = parse_quantity(figure(last))
    return None if isinstance(number, ScoreReason) else number


def check_consistency(
    trace: ProcessTrace,
    problem_type: ProblemType | str,
    options: Sequence[str] = (),
    *,
    policy: Policy = ROBUST,
) -> Check:
    """Check that the think segment settles on the given answer; undecided passes.

    Multiple choice: the option of `think_choice` against the answer's. Numerical and regression: the number
    of the last `the answer is N`, equal within half a step of whichever is printed less exactly.
    """
    form = ProblemType(problem_type).traits.form
    if form == "option":
        # Nearly every good trace ends in `answer is X.`, X being the answer, and no later conclusion can say
        # otherwise: the full rule would pass it too, at ten times the price.
        last = _LAST_WORDS.search(trace.think[-_LAST_CHARS:])
        if last is not None and last.group(1) == trace.answer.strip():
            return _PASSED
        known = option_set(tuple(options))
        answer = read_choice(trace.answer.strip(), known, policy).label
        thought = think_choice(trace.think, options) if answer is not None else None
        if answer is None or thought is None or same_option(answer, thought, known):
            return _PASSED
        settled, said = thought, answer
    elif form == "number":
        given, number = parse_quantity(trace.answer.strip(), policy), think_number(trace.think)
        if isinstance(given, ScoreReason) or number is None or near(given, number):
            return _PASSED
        settled, said = str(float(number.value)), str(float(given.value))
    else:
        return _PASSED
    detail = f"think settles on {settled!r}, the answer is {said!r}"[:300]
    return Check(reason=RejectReason.THINK_ANSWER_MISMATCH, detail=detail)


def thinks_otherwise(
    trace: ProcessTrace,
    problem_type: ProblemType | str,
    options: Sequence[str] = (),
    *,
    policy: Policy = ROBUST,
) -> bool | None:
    """Whether the think segment concludes another answer than the one given [method §5], by the rule.

    None for types without options or numbers, and where think concludes nothing, or the answer is no option.
    """
    form = ProblemType(problem_type).traits.form
    if form == "option":
        label = read_choice(trace.answer.strip(), option_set(tuple(options)), policy).label
        decided = label is not None and think_choice(trace.think, options) is not None
    else:
        decided = form == "number" and think_number(trace.think) is not None
    if not decided:
        return None
    return check_consistency(trace, problem_type, options, policy=policy).reason is not None


def near(a: Quantity, b: Quantity) -> bool:
    """Equal, one the rounding of the other, or in different units (not compared)."""
    if a.unit and b.unit and not same_unit(a.unit, b.unit):
        return True
    try:
        x, y = float(a.value), float(b.value)
    except OverflowError:
        return True  # undecided
    if a.step is None and b.step is None and x.is_integer() and y.is_integer():
        return x == y
    step = max(1.0 if q.step is None else float(q.step) for q in (a, b))
    return abs(x - y) <= step / 2 * (1 + 1e-9)
