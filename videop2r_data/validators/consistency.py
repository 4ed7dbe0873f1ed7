"""Does the think segment settle on the answer that was given? By rule, and only where the rule is sure.

A good trace must never be rejected, so that everything unclear is undecided, and undecided passes: several
options in one conclusion, a negated or conditional one, or one that is taken back by the words after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from videop2r_data.schemas import ROBUST, Check, Policy, ProblemType, ProcessTrace, RejectReason, ScoreReason
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
from videop2r_data.validators.naming import (
    named_option,
    predicate_option,
    settled_option,
    texts_in,
    weighs_others,
)
from videop2r_data.validators.numbers import parse_quantity
from videop2r_data.validators.options import OptionSet, option_set, same_option
from videop2r_data.validators.quantity import Quantity
from videop2r_data.validators.units import same_unit

_NEAR = 400
"""How far from the end the last conclusion is looked for first: nearly always it stands there."""
_LAST_CHARS = 48
_LAST_WORDS = re.compile(r"\banswer (?:is|should be|must be) ([A-Z])\.?\s*\Z")
_AGREES = Check()
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
_STEMS = ("option", "choice", "answer")


def think_choice(think: str, options: Sequence[str]) -> str | None:
    """The label of the option that a think segment settles on, by its last conclusion; None: undecided.

    Without any, the last sentence counts, if it draws a conclusion that ends in one option.

    >>> opts = ["A. a wristwatch", "B. a gold ring"]
    >>> think_choice("It shines. So the answer should be the one that matches the gold ring.", opts)
    'B'
    >>> think_choice("The answer is A or B.", opts) is None
    True
    """
    known = option_set(tuple(options))
    last = _last_conclusion(think, known)
    if last is None or _says_nothing(last, known):
        return _last_statement(last_sentence(think), known)
    label = None if last.open else named_option(last.claim, known)
    if label is None or not weighs_others(last.after, label, known):
        return label
    return _last_statement(last_sentence(think), known) if last.cue is Cue.OPTION else None


def _says_nothing(last: Conclusion, known: OptionSet) -> bool:
    """`The correct answer should be the one that fits.`, followed by the sentence that names it."""
    quiet = last.cue is not Cue.BOXED and not last.open and last.after.strip() != ""
    return quiet and not letters_alone(last.claim) and not texts_in(last.claim, known)


def _last_conclusion(think: str, known: OptionSet | None) -> Conclusion | None:
    """The last one that says something; what only looks at an option (`each option is …`) is passed over."""
    for text in (think[-_NEAR:], think[-MAX_CHARS:]) if len(think) > _NEAR else (think,):
        for one in reversed(conclusions(text, counts=False)):
            if one.cue in (Cue.ANSWER, Cue.BOXED) or (known is not None and named_option(one.claim, known)):
                return one
    return None


def _last_statement(sentence: str, known: OptionSet) -> str | None:
    """The option of a last sentence that never says `the answer is`."""
    lower = sentence.lower()
    if any(word in lower for word in _STEMS):
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
    if a.unit and b.unit and not same_unit(a.unit, b.unit):
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
