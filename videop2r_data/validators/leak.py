"""Does an observation state the answer as an answer, or say nothing? By rule, only where the rule is sure.

A judge that reads `The correct answer is A.` finds that A follows. Such an observation passes step 3 without
a word about the clip, and what is trained on it learns to answer before it reasons. An observation that says
what is seen is never a leak, however plainly the answer follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from videop2r_data.schemas import Check, ProblemType, RejectReason
from videop2r_data.schemas.labels import label_options
from videop2r_data.validators.conclusions import MAX_CHARS, Cue, conclusions
from videop2r_data.validators.text import CJK, fold, has_cjk, words

OPENING = "Based on the question, I need to notice"
"""The words that our generating prompts ask an observation to open with [paper §8.1]; they say nothing."""
_STEMS = ("answer", "conclusion", "option", "choice", "solution", "correct", "\\boxed")
_ENGLISH = "|".join(map(re.escape, _STEMS))
MARKERS = rf"{_ENGLISH}|答|结论|結論|正解|正确|正確|正しい|选项|選項|정답"
"""One of these stands in every statement of an answer, in any case; `verify` looks for them in columns."""
_MARKER = re.compile(MARKERS, re.IGNORECASE)
FEW_CHARS = 40
"""An observation that is longer is no placeholder."""
SURE_LETTERS = FEW_CHARS + len(OPENING)
"""An observation with so many letters more than its question, options or answer have bytes says something."""
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
"""An answer that is named with words between: in an observation a hedge in front of a letter is no excuse."""
_NOT_STATED = re.compile(
    r"\b(?:if|whether|why|how|not|never|cannot|no)\b|n't\b|\bwhich\s+(?:option|choice|answer|of)\b|\bwhat\s+the\b"
    r"|[?？]",
    re.IGNORECASE,
)
"""In front of a statement, in its clause: it is asked for or ruled out, not made."""
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
    """Whether an observation may go to the judge; pure, total, linear.

    Args:
        observation: the P segment, without its tags.
        problem: the question.
        options: as in the pool; empty unless multiple choice.
        answer: the answer that was given, without its tags.
        problem_type: of the question; text that was read (OCR) may be all that there is to observe.

    Returns:
        Passed, or `leaked_answer` (the answer is stated as an answer, or is all that is said) or
        `hollow_observation` (nothing is said, or the question once more).

    >>> check_observation("A red ball rolls left.", problem="What rolls?", answer="a red ball").passed
    True
    >>> check_observation("The correct answer is A.", problem="?", options=("A. x", "B. y")).reason.value
    'leaked_answer'
    >>> check_observation("x", problem="?").reason.value
    'hollow_observation'
    """
    if _says_more(observation, problem, options, answer):
        return _stated(observation, tuple(options), answer)
    said = _said(observation)
    if problem_type != ProblemType.OCR and _is_bare_answer(said, tuple(options), answer):
        detail = f"the answer is all that is said: {observation[:200]!r}"
        return Check(reason=RejectReason.LEAKED_ANSWER, detail=detail)
    if _is_hollow(said, problem):
        detail = f"nothing is said: {observation[:200]!r}"
        return Check(reason=RejectReason.HOLLOW_OBSERVATION, detail=detail)
    return _stated(observation, tuple(options), answer)


def _says_more(observation: str, problem: str, options: Sequence[str], answer: str) -> bool:
    """Whether the letters alone are too many for a placeholder, the question or an answer; nearly always."""
    letters = len(observation.encode("ascii", "ignore").translate(None, _NO_LETTERS))
    enough = max(len(problem), len(answer), sum(map(len, options)))
    return letters > enough + SURE_LETTERS


def _stated(observation: str, options: tuple[str, ...], answer: str) -> Check:
    if not _holds_marker(observation):
        return _PASSED
    found = _statement(observation, options, answer)
    if found is None:
        return _PASSED
    return Check(reason=RejectReason.LEAKED_ANSWER, detail=f"states the answer: {found[:200]!r}")


def _holds_marker(text: str) -> bool:
    if not text.isascii():
        return _MARKER.search(text) is not None
    lower = text.lower()
    return any(stem in lower for stem in _STEMS)  # a sixth of the pattern's time


def _said(observation: str) -> str:
    """What is said behind the opening words of the template."""
    text = observation.strip()
    return text[len(OPENING) :].strip(" ,:.\n") if text.startswith(OPENING) else text


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
    """Whether all that is said is the answer, or the label of an option with or without its text."""
    text = _key(said)
    if text and text == _key(answer):
        return True
    known = _options(options)
    return bool(text) and any(
        text in (key, label, f"option {label}", f"{label} {key}".rstrip()) for label, key in known
    )


def _statement(text: str, options: tuple[str, ...], answer: str) -> str | None:
    """The first claim that states an answer; None: there is none, or none is sure."""
    text = _QUOTED.sub(_without_quotation, text)
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


def _without_quotation(match: re.Match[str]) -> str:
    """A sign that states an answer is something seen; an answer in quotation marks (`is "B"`) is none."""
    return " " if _MARKER.search(match.group()) else match.group()


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
