r"""The answer of any completion: a whole trace of any grammar, tags, a sentence, a box, a bare letter.

The answer segment of a whole trace goes before everything; then answer tags outside of observation and
think; then the text behind the last segment (all of a text without tags): a box, words that announce an
answer, the bare answer. A trace that was cut before its answer has none: nothing is looked for inside of
an observation or of reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from videop2r_data.schemas import (
    BOX,
    READING,
    Place,
    Policy,
    ProblemType,
    ScoreReason,
    TraceGrammar,
    default_grammar,
    parse_trace,
    trace_parser,
)
from videop2r_data.validators.answers import (
    READERS,
    Asked,
    Found,
    answer_key,
    held_answer,
    read_answer,
    said_plainly,
)
from videop2r_data.validators.checks import think_choice
from videop2r_data.validators.choice import bare_text, by_lead
from videop2r_data.validators.conclusions import (
    MAX_CHARS,
    Conclusion,
    Cue,
    conclusions,
    figure,
    is_open_before,
    last_sentence,
)
from videop2r_data.validators.metrics import drop_format, unwrap
from videop2r_data.validators.options import OptionSet, named_option, text_key, weighs_others
from videop2r_data.validators.scorer import offered

_HALF_A_TAG = re.compile(r"</?[A-Za-z]*\Z")
_SUMS_UP = re.compile(r"\b(?:so|thus|therefore|hence|total|altogether|overall)\b", re.IGNORECASE)
_MEASURES = re.compile(
    r".*\b(?:is|are|was|were|measures?|equals?|spans?|to\s+be)\s+(.+)", re.IGNORECASE | re.DOTALL
)
_MORE_WORDS = re.compile(r"\b(?!sec|min|from)[A-Za-z]{4,}")
_LED = re.compile(r"[(\[]?([A-Z]|\d{1,2})[)\].:]+\s*(\S.*)", re.DOTALL)
_DIGIT = re.compile(r"\d")
_LABEL = re.compile(
    r"(?:\A|(?<=\n))[\s*_#]*(?:(?:the|my)\s+)?(?:final\s+|correct\s+)?answer[\s*_]*[:：][\s*_]*|(?:答案|答え)[:：]\s*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|「([^」\n]{1,200})」")
_SAYS = re.compile(r"\b(?:says?|reads?|text|words?|written|shows?)\b|写|書", re.IGNORECASE)
_MAX_LINES = 64


class Reading(NamedTuple):
    """The answer that a completion gives.

    Attributes:
        answer: as `score` takes it: of an option its label, several as `A, C`; None: there is none to read.
        place: where it was found: `segment` (answer segment of a whole trace), `tag` (answer tag of a text
            that is none), `cue` (words announce it), `boxed`, `bare` (nothing but the answer); "" for None.
        reason: why there is no answer; None if there is one.
    """

    answer: str | None
    place: Place
    reason: ScoreReason | None


def read_reply(
    text: str,
    *,
    problem_type: ProblemType | str,
    options: Sequence[str] = (),
    grammar: TraceGrammar | None = None,
    policy: Policy = READING,
    cut: bool = False,
) -> Reading:
    r"""Read the answer of a completion; never raises on any string, linear in its length.

    `score(problem_type, prediction=reading.answer or "", ...)` is what the completion is worth.

    Args:
        text: the completion, whatever the model wrote.
        problem_type: of the question, or its value.
        options: of a multiple-choice question, as in the pool.
        grammar: of the traces that the model was asked for; None: the default one.
        policy: what counts, see `Policy`; with the profile `paper` an answer stays as it is written.
        cut: the completion hit its token limit, so that its last word or number may be half of one.

    Raises:
        ValueError: `problem_type` is no problem type.

    >>> pets = ["A. cat", "B. dog"]
    >>> read_reply("<think>A cat?</think>The answer is B.", problem_type="multiple choice", options=pets)[:2]
    ('B', 'cue')
    >>> read_reply("<observation>Building B", problem_type="multiple choice", options=pets).reason.value
    'no_answer'
    """
    asked = Asked(ProblemType(problem_type).traits.form, tuple(options), policy, cut)
    spans = trace_parser(grammar or default_grammar()).spans(text)
    if spans.fault is None:
        return _settle([parse_trace(text, grammar).answer], "segment", asked)
    # An answer that a grammar wants in front of the reasoning stands, whatever became of the reasoning.
    boxes = [text[p.start : p.end] for p in spans.pieces if text.startswith(BOX.open, p.open)]
    text = drop_format(text)
    found = offered(text, policy, grammar)
    # A model that forgets to close its reasoning ends in its answer; behind a quoted one there are words.
    late = [found.late] if not cut else []
    answers = [answer for answer in found.answers or found.early or late if answer.strip()]
    if answers:
        if found.rest is None:
            answers[-1] = _HALF_A_TAG.sub("", answers[-1])
        return _settle(answers, "tag", asked, half=cut and found.rest is None)
    rest = _HALF_A_TAG.sub("", found.rest or "").strip()
    if rest:
        return _free(rest, asked)
    if found.answers or found.early:
        return _none(ScoreReason.EMPTY_ANSWER)
    return _settle(boxes[-1:], "boxed", asked) if boxes else _none(ScoreReason.NO_ANSWER)


def _none(reason: ScoreReason) -> Reading:
    return Reading(None, "", reason)


def _settle(texts: list[str], place: Place, asked: Asked, *, half: bool = False) -> Reading:
    """The reading of answers that a completion marks as such: they must say the same."""
    if half and texts[-1].rstrip()[-1:].isalnum():
        if asked.form != "option":
            return _none(ScoreReason.NO_ANSWER)
        texts[-1] = _whole_label(texts[-1].strip(), asked.known)
    found = [read_answer(text, asked) for text in dict.fromkeys(reversed(texts))]
    if len({answer_key(one, asked) for one in found}) > 1:
        return _none(ScoreReason.SEVERAL_ANSWERS)
    last = found[0]
    return _none(last) if isinstance(last, ScoreReason) else Reading(last, place, None)


def _whole_label(text: str, known: OptionSet) -> str:
    """The label of an option whose text was cut: `B. do`."""
    led = _LED.fullmatch(text)
    label = known.labels.get(led.group(1)) if led else None
    own = "" if label is None else known.keys[label]
    return led.group(1) if led and own.startswith(text_key(led.group(2))) else text


# --- text without answer tags: the whole of it, what it announces, a last line of its own ---


def _free(text: str, asked: Asked) -> Reading:
    if asked.form not in READERS:
        return _free_text(text, asked)
    if asked.cut and asked.form != "option" and text[-1:].isalnum():
        return _none(ScoreReason.NO_ANSWER)
    if asked.policy.profile == "paper":
        return Reading(text, "bare", None)
    said = _announced(text, asked)
    if said is not None and said.answer is not None and asked.form != "option":
        return said
    whole = read_answer(text, asked)
    if not isinstance(whole, ScoreReason):
        return Reading(whole, _place(text, asked), None)
    return said or _own_line(text, asked) or _stated(text, asked) or _none(whole)


def _place(text: str, asked: Asked) -> Place:
    """Where the answer stands in a text that reads as one."""
    said = conclusions(text, counts=asked.form == "number")
    if said and said[-1].cue is Cue.BOXED:
        return "boxed"
    held = held_answer(text) is not None
    lead = asked.form == "option" and by_lead(bare_text(text), asked.known, asked.policy)
    if asked.form in ("interval", "box"):
        plain = text[:1] in "[{(`" or not _MORE_WORDS.search(text)
    else:
        plain = not isinstance(read_answer(text, asked.plain), ScoreReason)
    return "bare" if lead or (plain and not said and not held) else "cue"


def _announced(text: str, asked: Asked) -> Reading | None:
    """What the conclusions of a text say: those that are not taken back must agree, and the last is one."""
    found: list[tuple[Conclusion, Found]] = []
    for one in conclusions(said_plainly(text[-MAX_CHARS:]), counts=False):
        claim = _claimed(one, asked)
        if one.cue in (Cue.ANSWER, Cue.BOXED) or not isinstance(claim, ScoreReason):
            found.append((one, claim))
    if not found:
        return None
    closed = [claim for one, claim in found if one.cue is Cue.BOXED or not one.open]
    settled = {answer_key(claim, asked) for claim in closed if not isinstance(claim, ScoreReason)}
    last, claim = found[-1]
    if len(settled) > 1:
        return _none(ScoreReason.SEVERAL_ANSWERS)
    if last.open or isinstance(claim, ScoreReason):
        return None
    if asked.form == "option" and weighs_others(last.after, claim, asked.known):
        return None
    return Reading(claim, "boxed" if last.cue is Cue.BOXED else "cue", None)


def _claimed(one: Conclusion, asked: Asked) -> Found:
    found: Found = ScoreReason.NO_ANSWER
    for claim in dict.fromkeys((one.claim, *one.claim.splitlines()[:1])):
        if asked.form == "option":
            found = named_option(claim, asked.known, asked.policy) or ScoreReason.NOT_AN_OPTION
        else:
            part = figure(one._replace(claim=claim)) if asked.form == "number" else claim
            found = read_answer(part, asked.plain)
        if not isinstance(found, ScoreReason):
            break
    return found


def _own_line(text: str, asked: Asked) -> Reading | None:
    """The first or last line, if it is nothing but an answer, and no other line is nothing but another."""
    plain = asked.plain
    lines = [line for line in text[-MAX_CHARS:].splitlines() if line.strip()]
    found = [read_answer(line, plain) for line in (*lines[:1], *lines[1:][-_MAX_LINES:])]
    given = [one for one in (found[-1], found[0]) if not isinstance(one, ScoreReason)]
    if len(found) < 2 or not given:
        return None
    if len({answer_key(one, plain) for one in found if not isinstance(one, ScoreReason)}) > 1:
        return None
    return Reading(given[0], "bare", None)


def _stated(text: str, asked: Asked) -> Reading | None:
    """What a last sentence states without any word for an answer."""
    found: str | None = None
    if asked.form == "option":
        found = None if conclusions(text, counts=False) else think_choice(text, asked.options)
    elif asked.form == "number":
        found = _stated_number(text, asked)
    return Reading(found, "cue", None) if found is not None else None


def _stated_number(text: str, asked: Asked) -> str | None:
    """`So in total there are 5 chairs`; `The table is about 120 cm`, if no other number stands before it."""
    sentence = last_sentence(text)
    sums_up = _SUMS_UP.search(sentence) is not None
    claims = [sentence] if sums_up else []
    measured = _MEASURES.fullmatch(sentence)
    if measured is not None:
        before = sentence[: measured.start(1)]
        other = before if sums_up else text[: text.rfind(measured.group(1))]
        if not _DIGIT.search(other) and not is_open_before(before):
            claims.append(measured.group(1))
    found = [one for claim in claims if not isinstance(one := read_answer(claim, asked), ScoreReason)]
    return found[0] if found else None


def _free_text(text: str, asked: Asked) -> Reading:
    """Text that is asked for as text: behind its label, in its box, in quotation marks, else all of it."""
    if asked.policy.profile == "paper":
        return Reading(text, "bare", None)
    labels = list(_LABEL.finditer(text))
    if labels:
        rest = text[labels[-1].end() :].strip(" \n*_")
        return Reading(rest, "cue", None) if rest else _none(ScoreReason.EMPTY_ANSWER)
    said = [one for one in conclusions(text, counts=False) if one.cue in (Cue.ANSWER, Cue.BOXED)]
    if said and not said[-1].open and said[-1].claim.strip():
        boxed = said[-1].cue is Cue.BOXED
        return Reading(unwrap(said[-1].claim), "boxed" if boxed else "cue", None)
    quoted = [next(filter(None, one)) for one in _QUOTED.findall(text)]
    if asked.form == "reading" and len(quoted) == 1 and _SAYS.search(text):
        return Reading(quoted[0], "cue", None)
    return Reading(text, "bare", None)
