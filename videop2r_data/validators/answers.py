"""One answer, of each form: what the scorers read stays as it is, the rest is written as they read it.

So an answer is worth in an evaluation what it is worth in a build and in training, and what only a reader of
completions understands (`five chairs`, `about 3 m`, a start and an end in two sentences) is not lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from videop2r_data.schemas import Policy, ScoreReason
from videop2r_data.validators.choice import read_choice, read_several
from videop2r_data.validators.conclusions import conclusions, figure, last_sentence
from videop2r_data.validators.geometry import marked_interval, parse_box, parse_interval
from videop2r_data.validators.metrics import fold, without_bold
from videop2r_data.validators.numbers import MAX_NUMBER_CHARS, Quantity, parse_quantity, read_number_words
from videop2r_data.validators.options import OptionSet, option_set, text_key

_NOISE = re.compile(
    r"<\|[A-Za-z_]{1,24}\|>|</?s>|[\x00-\x08\x0b-\x1f\x7f]|[\u2600-\u27bf\U0001f300-\U0001faff]\ufe0f?"
)
"""Tokens of chat formats, control characters, and pictures beside the words."""
_SAYS_SO = re.compile(
    r"\s*(?:(?:so|thus|therefore|hence),?\s+)?(?:the|my)\s+(?:(?:final|correct|best)\s+)?answer\s+is:?\s+(?!not\b)(.+?)\.?\s*",
    re.IGNORECASE,
)
"""A text announced in one line: `The answer is El Niño.`"""
_FENCE = re.compile(r"\A```\w*\n(.*?)\n?```\Z", re.DOTALL)
_LIST = re.compile(r"(?:\A|(?<=\n))[ \t]*(?:[-*>•]|#{1,6})[ \t]+")
_TOLD = tuple(
    (re.compile(pattern, re.IGNORECASE), plain)
    for pattern, plain in (
        (
            r"\A(?:based\s+on|according\s+to|in|from)\s+the\s+(?:video|clip|frame|image|foot)\w*[^,.]{0,30},\s+",
            "",
        ),
        (r"(\b(?:is|be)\s+)(?:most\s+likely|likely|probably)\s+", r"\1"),
        (r"\bI(?:'d|\s+would|\s+will)\s+say\s+(?:that\s+)?", ""),
        (r"\bI\s+(?:think|believe|guess)\s+(?:that\s+)?(?:it\s+is|it's)\s+", "The answer is "),
        (r"\A(?:it\s+is|it's)\s+(?=[(\[]?(?-i:[A-Z])\W*\Z)", "The answer is "),
        (r"\bit's\s+", "It is "),
        (r"\bthe\s+(?:correct|right|best)\s+\w+\s+is\s+", "the answer is "),
        (r"\b(answer|option|choice)\s+[-–—]\s+", r"\1: "),
        (r",?\s+but\s+(?=(?:option\s+)?[(\[]?(?-i:[A-Z])[)\]]?\s+(?:is|fits|matches)\b)", ". "),
        (r"\bthere\s+(?:appears?|seems?)\s+to\s+be\b", "there are"),
        (r"\bthere\s+(?:is|are|were)\s+no\s+(?=[a-z])", "there are 0 "),
        (r"(?:最佳|最合适的?|最好的?)选项", "正确选项"),
    )
)
"""Words that leave an answer what it is, though they read as a doubt, or as none."""
_ABOUT = re.compile(
    r"(?:\b(?:approximately|approx\.|about|around|roughly|circa)\s+|[~≈∼]\s*)(?=[\w.$])", re.IGNORECASE
)
_SHOWN = re.compile(
    r"\s+(?:is|are|was|were|can\s+be)\s+(?:visible|shown|present|seen|in|on|at)\b[^\d]*\Z", re.IGNORECASE
)
_SUM = re.compile(r"[\d\s.+×*/()-]+=\s*([^=]+)")
_SEVERAL = re.compile(r"[,;，；、&\n]|\band\b|[和与及と]|\A[A-Z]{2,26}\Z", re.IGNORECASE)
"""What stands between several answers: blanks alone do not (`A dog`)."""
_ANSWER_KEYS = ("answer", "final_answer", "choice")
_MAX_CHARS = 4000


class Asked(NamedTuple):
    """What was asked: the form of the answer, the options, what counts, and whether the text was cut."""

    form: str
    options: tuple[str, ...]
    policy: Policy
    cut: bool

    @property
    def known(self) -> OptionSet:
        """The options, read."""
        return option_set(self.options)

    @property
    def plain(self) -> Asked:
        """The same, for an answer without a sentence around it."""
        return self._replace(policy=self.policy.model_copy(update={"answer_phrase": False}))


Found = str | ScoreReason
"""An answer, or why there is none."""


def answer_key(found: Found, asked: Asked) -> object:
    """What two answers are compared by."""
    if isinstance(found, ScoreReason) or asked.form == "option":
        return found
    if asked.form == "number" and isinstance(number := parse_quantity(found, asked.policy), Quantity):
        return number.value, number.unit
    if asked.form == "interval":
        return parse_interval(found)
    return parse_box(found) if asked.form == "box" else text_key(found)


def read_answer(text: str, asked: Asked) -> Found:
    """The answer that a text is, as the scorers take it; else why it is none."""
    text = text.strip()
    if asked.policy.profile == "paper":
        return text
    read = READERS.get(asked.form)
    if read is None:
        said = _SAYS_SO.fullmatch(text) if asked.policy.answer_phrase else None
        return said.group(1) if said else text
    first = read(text, asked)
    if isinstance(first, ScoreReason):
        for form in _forms(text):
            if not isinstance(found := read(form, asked), ScoreReason):
                return found
    return first


def _forms(text: str) -> Iterator[str]:
    """Other forms of an answer, each with less around it."""
    plain = without_bold(_LIST.sub("", _FENCE.sub(r"\1", _NOISE.sub("", text[:_MAX_CHARS]).strip()))).strip()
    if plain != text:
        yield plain
    held = held_answer(plain)
    if held is not None:
        yield held
    if (claim := said_plainly(plain)) != plain:
        yield claim


def said_plainly(text: str) -> str:
    """A text without the words that leave its answer what it is.

    >>> said_plainly("Based on the video, the answer is most likely B.")
    'the answer is B.'
    """
    for pattern, plain in _TOLD:
        text = pattern.sub(plain, text)
    return text


def held_answer(text: str) -> str | None:
    """The answer in a JSON object, `{"answer": "B"}`."""
    if text[:1] != "{":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    keys = [key for key in _ANSWER_KEYS if key in value] if isinstance(value, dict) else []
    given = value[keys[0]] if keys else None
    return given if given is None or isinstance(given, str) else json.dumps(given)


def _option(text: str, asked: Asked) -> Found:
    named = read_choice(text, asked.known, asked.policy)
    if named.label is not None:
        return named.label
    several = read_several(text, asked.known, asked.policy) if _SEVERAL.search(text) else None
    if several is None or len(several) == len(asked.known.labels):
        return named.reason if several is None else ScoreReason.SEVERAL_ANSWERS  # a list of all says nothing
    return ", ".join(label for label in asked.known.labels if label in several)


def _number(text: str, asked: Asked) -> Found:
    first = parse_quantity(text, asked.policy.model_copy(update={"number_words": False}))
    if isinstance(first, Quantity):
        return text
    forms = [text] if len(text) <= MAX_NUMBER_CHARS else []
    said = [one for one in conclusions(text) if not one.open] if forms and asked.policy.answer_phrase else []
    # Of a count among other sentences there is no telling whether it counts all.
    if len(said) == 1 and len(last_sentence(text)) > len(text) - 4:
        forms.append(figure(said[0]))
    for form in forms:
        exact = _ABOUT.sub("", _SUM.sub(r"\1", _SHOWN.sub("", fold(form))), count=1).strip(' .。!*_"')
        if asked.policy.number_words:
            exact = read_number_words(exact)
        if isinstance(parse_quantity(exact, asked.plain.policy), Quantity):
            return exact
    return first


def _interval(text: str, asked: Asked) -> Found:
    found = parse_interval(text)
    if not isinstance(found, ScoreReason):
        return text
    marked = marked_interval(text)
    return found if marked is None else f"[{marked[0]!r}, {marked[1]!r}]"


def _box(text: str, asked: Asked) -> Found:
    found = parse_box(text)
    return found if isinstance(found, ScoreReason) else text


READERS: dict[str, Callable[[str, Asked], Found]] = {
    "option": _option,
    "number": _number,
    "interval": _interval,
    "box": _box,
}
