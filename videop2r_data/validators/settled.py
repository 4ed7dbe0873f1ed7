"""Think-answer mismatch as a judge finds it [paper §5]: what the reasoning alone settles on, and whether the
answer is another.

The judge reads the reasoning and, for a question with options, their list; never the answer, the observation
or the media. The rule that decides the same for nothing is `thinks_otherwise`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import Prompt, fill
from videop2r_data.schemas import ROBUST, AnswerForm, Policy, ProblemType, ScoreReason
from videop2r_data.validators.checks import near
from videop2r_data.validators.choice import read_choice
from videop2r_data.validators.judge import EDGES, Offered, last_verdict, neutralise, options_shown
from videop2r_data.validators.metrics import fold
from videop2r_data.validators.numbers import parse_quantity
from videop2r_data.validators.options import OptionSet, option_set, same_option

NOTHING = "No"
"""The paper's word for reasoning that settles on no answer. A reply says NONE: an option may be called No."""
FORMS: tuple[AnswerForm, ...] = ("option", "number", "reading")
"""Answers that can be compared one to one; two wordings of a free text, spans and boxes cannot."""
_NOTHING = ("none", "no")
_LONGEST = 2_000


class Settled(NamedTuple):
    """What a judge says of one think segment.

    Attributes:
        option: label of an option; a number or a text as the judge wrote it; `NOTHING`; None: no verdict.
        words: those before the verdict: the place that settles it.
    """

    option: str | None
    words: str = ""


def asks_what_is_settled(prompt: Prompt, problem_type: ProblemType) -> bool:
    """Whether a judge with this prompt is asked about such questions: a prompt with hints names its types."""
    return problem_type.traits.form in FORMS and (not prompt.hints or problem_type.value in prompt.hints)


def render_settled(
    prompt: Prompt, *, think: str, options: Sequence[str], problem: str, problem_type: ProblemType
) -> str:
    """The user message that shows reasoning; each of its lines begins with `| `, so that none ends its frame.

    Raises:
        ConfigError: the prompt has no place for the reasoning.
    """
    if "{think}" not in prompt.user:
        raise ConfigError(
            "a prompt about reasoning needs the field {think} in its user section",
            where=prompt.name,
            hint="a judge of conclusion needs prompt: think-option-v1, or a file with the same fields",
        )
    fields = {
        "think": "\n".join(f"| {line}" for line in neutralise(think.strip()).split("\n")),
        "options": options_shown(tuple(" ".join(option.split()) for option in options)),
        "problem": neutralise(problem),
        "hint": prompt.hints.get(problem_type.value, ""),
    }
    return fill(prompt.user, fields)


def parse_settled(
    reply: str, *, problem_type: ProblemType, options: Sequence[str], finish_reason: str = "stop"
) -> Settled:
    """The option that a judge's own reply names, by the rules of `parse_judgement`; never raises, linear.

    Of a question with options one of them counts, by its letter, its text or both, and nothing else; of the
    other types one number or one text. `NONE` is no answer.

    >>> kind, options = ProblemType.MULTIPLE_CHOICE, ("A. cat", "B. dog")
    >>> replies = [f"It says so. <judgement>{word}</judgement>" for word in ("B", "NONE", "C")]
    >>> [parse_settled(reply, problem_type=kind, options=options).option for reply in replies]
    ['B', 'No', None]
    """
    form = problem_type.traits.form
    return Settled(*last_verdict(reply, _offered(form, tuple(options)), finish_reason))


@lru_cache(maxsize=4096)
def _offered(form: AnswerForm, options: tuple[str, ...]) -> Offered[str]:
    if form != "option":
        return Offered(_number if form == "number" else _text, lambda _: ())
    known = option_set(options)
    labels = "|".join(known.labels)
    # an option that is named in words behind a verdict
    says = re.compile(
        r"\b(?i:judge?ment|verdict|answer|option)\b[\s*_`\"']*(?i:is|:|should\s+be|must\s+be)?"
        rf"[\s*_`\"':(]*({labels})\b(?!')|^[ \t*_`\"'(]*({labels})[ \t*_`\"'.!)]*$",
        re.MULTILINE,
    )
    return Offered(partial(_option, known=known), lambda text: (m[1] or m[2] for m in says.finditer(text)))


def _option(word: str, known: OptionSet) -> str | None:
    if word.casefold() in _NOTHING:
        # an option may be called so: nobody can say then which of the two is meant
        return None if known.folded.get(word.casefold(), "") != "" else NOTHING
    return read_choice(word, known).label if 0 < len(word) <= _LONGEST else None


def _number(word: str) -> str | None:
    if word.casefold() in _NOTHING:
        return NOTHING
    return None if isinstance(parse_quantity(word), ScoreReason) else word


def _text(word: str) -> str | None:
    if word == _NOTHING[0].upper():
        return NOTHING
    return word if 0 < len(word) <= _LONGEST else None


def settles_elsewhere(
    settled: str, answer: str, problem_type: ProblemType, options: Sequence[str], policy: Policy = ROBUST
) -> bool | None:
    """Whether `Settled.option` is another answer than the one given (without its tags); `NOTHING` is none.
    None: the answer cannot be read, or not be compared.

    >>> settles_elsewhere("B", "A. cat", ProblemType.MULTIPLE_CHOICE, ("A. cat", "B. dog"))
    True
    """
    form, answer = problem_type.traits.form, answer.strip()
    if form == "option":
        known = option_set(tuple(options))
        label = read_choice(answer, known, policy).label
        if label is None:
            return None
        return settled != NOTHING and not same_option(settled, label, known)
    if form == "number":
        given, found = parse_quantity(answer, policy), parse_quantity(settled, policy)
        if isinstance(given, ScoreReason):
            return None
        return not isinstance(found, ScoreReason) and not near(given, found)
    if form != "reading" or not answer:
        return None
    said, given_text = (fold(text).strip(EDGES).casefold() for text in (settled, answer))
    return settled != NOTHING and said != given_text
