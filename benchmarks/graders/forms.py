"""The forms in which models print answers, and wrong answers that graders take for right ones."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.graders.rows import Row, bare

_SEEN = "<observation>Based on the question, I need to notice what the clip shows. {seen}</observation>"
_THINK = "<think>Based on the observations, {thought}</think>"
_TRACE = f"{_SEEN}\n{_THINK}<answer>{{answer}}</answer>"


class Made(NamedTuple):
    """One answer: the form, the completion, and whether it is right."""

    form: str
    completion: str
    right: bool


class _Options(NamedTuple):
    """The option to answer with, and another one."""

    letter: str
    text: str
    other: str
    other_text: str
    listed: str


_WHOLE: dict[str, str] = {
    "trace": "{letter}",
    "trace, letter and text": "{letter}. {text}",
    "trace, brackets": "({letter})",
    "trace, text alone": "{text}",
    "trace, boxed": "\\boxed{{{letter}}}",
    "trace, announced": "The answer is {letter}.",
}
"""What stands in the answer tag of a whole process-aware completion."""

_FORMS: dict[str, str] = {
    "bare letter": "{letter}",
    "letter and stop": "{letter}.",
    "brackets": "({letter})",
    "half bracket": "{letter})",
    "letter and text": "{letter}. {text}",
    "lower-case letter": "{low}",
    "bold": "**{letter}**",
    "text alone": "{text}",
    "announced": "The answer is {letter}.",
    "announced with text": "The correct answer is ({letter}) {text}.",
    "answer and colon": "Answer: {letter}",
    "answer in capitals": "Let me look at the frames once more.\n\nANSWER: {letter}",
    "final answer": "The frames show it from the side.\n\nFinal Answer: {letter}",
    "therefore": "First, I look at the start of the clip. Therefore, the final answer is: {letter}.",
    "best option": "Best option: ({letter})",
    "bold announcement": "**Answer:** {letter}",
    "boxed": "I compare the options with the clip.\n\n\\[ \\boxed{{{letter}}} \\]",
    "Chinese": "根据视频内容，答案是{letter}。",
    "Chinese, choose": "综上所述，应选{letter}。",
    "Japanese": "映像から判断すると、答えは{letter}です。",
    "think, answer": "<think>Let me think. Option {other} looks possible at first, hmm. A second look at the "
    "frames settles it.</think>\n<answer>{letter}</answer>",
    "closing mark only": "Okay, the clip has several parts. I go through them.\n</think>\n\n{letter}",
    "quoted tag in think": "<think>I could write <answer>{other}</answer>, but the frames say something "
    "else.</think><answer>{letter}</answer>",
    "answer not closed": "<think>The clip is short.</think>\n<answer>{letter}",
    "changed mind": "The answer is {other}. Wait, no. I looked again: the answer is {letter}.",
    "trace, all options discussed": "<observation>Based on the question, I need to notice the order of "
    "events.</observation><think>The options are:\n{listed}\nThe last part of the clip decides.</think>"
    "<answer>{letter}</answer>",
    "description, think, box": "<description>A clip with people in it.</description><think>One of the "
    "options fits.</think>\\boxed{{{letter}}}",
    "loop of captions": "<time>00:00-00:05</time> <caption>People walk.</caption> <think>Not yet clear."
    "</think> <time>00:05-00:09</time> <caption>They stop.</caption> <think>Now it is.</think> "
    "<answer>{letter}</answer>",
}
"""The whole completion; right if the option is."""

_WRONG: dict[str, str] = {
    "two letters": "{letter} or {other}",
    "trace, two letters": "<think>Both fit.</think><answer>{letter} or {other}</answer>",
    "negated": "It is not {letter}.",
    "trace, negated": "<think>One is ruled out.</think><answer>The answer is not {letter}</answer>",
    "letter beside another's text": "<think>So.</think><answer>{letter}. {other_text}</answer>",
    "all options": "{listed}",
    "cut off in think": "<think>Let me see. Option {letter} looks right so far, but I have to check the",
    "asked, not answered": "Could the answer be {letter}? I cannot tell from these frames",
    "nothing in the tag": "<think>The answer could be {letter}.</think><answer></answer>",
    "changed mind away": "The answer is {letter}. Wait, no. I looked again: the answer is {other}.",
}
"""Never right, although the right option stands in it."""

_WORDS = {
    "A": "A closer view would be needed to answer this.",
    "B": "Based on the frames, I am unable to answer.",
    "C": "Cannot be determined from the video.",
    "D": "Data is missing for this question.",
    "E": "Everything in the clip is too dark to see.",
}
"""No answers, each beginning with the letter that a careless reader takes for one."""


def choice_answers(rows: list[Row], rng: random.Random, each: int) -> Iterator[tuple[Row, Made]]:
    """`each` answers of every form, half of them right where the form may be right."""
    for form in [*_WHOLE, *_FORMS, *_WRONG]:
        for i, row in enumerate(rng.sample(rows, each)):
            right = i % 2 == 0
            one = _pick(row, rng, right or form in _WRONG)
            if "text" in form and not _plain(one):
                continue
            if form in _WHOLE:
                answer = _WHOLE[form].format(**one._asdict())
                seen = f"A sign on Building {one.other} is visible, and a Type {one.other} label."
                text = _TRACE.format(seen=seen, thought="one option fits best.", answer=answer)
            else:
                text = {**_FORMS, **_WRONG}[form].format(**one._asdict(), low=one.letter.lower())
            yield row, Made(form, text, right and form not in _WRONG)
    for letter, words in _WORDS.items():
        found = [row for row in rows if row.reference == letter]
        for row in rng.sample(found, min(each // 3, len(found))):
            yield row, Made("words that begin with the letter", words, False)


def _pick(row: Row, rng: random.Random, right: bool) -> _Options:
    texts = dict(zip("ABCDEFGHIJKLMN", bare(row.options), strict=False))
    wrong = [letter for letter in texts if letter != row.reference]
    letter = row.reference if right else rng.choice(wrong)
    other = rng.choice([x for x in texts if x != letter])
    if not right and rng.random() < 0.5:
        other = row.reference  # the right option is what the completion decides against
    return _Options(letter, texts[letter], other, texts[other], "\n".join(row.options))


def _plain(one: _Options) -> bool:
    """Whether the texts name one option and no letter, so that right and wrong are certain."""
    return all(len(text) > 3 and re.search(r"[a-z]{3}", text) for text in (one.text, one.other_text))


# --- several letters ---

_SEVERAL = {
    "several, comma": (", ", True),
    "several, and": (" and ", True),
    "several, no blank": (",", True),
    "several, or": (" or ", False),
}


def several_answers(rows: list[Row], rng: random.Random) -> Iterator[tuple[Row, Made]]:
    """Questions with several answers: the set, a part of it, too many, an alternative."""
    for row in rows:
        letters = row.reference.split(", ")
        for form, (joined, right) in _SEVERAL.items():
            given = letters[::-1]
            yield row, Made(form, f"<think>All of these.</think><answer>{joined.join(given)}</answer>", right)
        yield row, Made("several, one missing", f"<answer>{letters[0]}</answer>", False)
        more = [option[0] for option in row.options if option[0] not in letters]
        if more:
            given = sorted([*letters, rng.choice(more)])
            yield row, Made("several, one too many", f"<answer>{', '.join(given)}</answer>", False)


# --- numbers ---

_PLAIN = re.compile(r"(-?\d+(?:\.\d+)?)(.*)")


def number_answers(rows: list[Row], rng: random.Random, each: int) -> Iterator[tuple[Row, Made]]:
    """Numbers as they are printed, and near misses."""
    known = [row for row in rows if _PLAIN.fullmatch(row.reference)]
    for form, make in _NUMBERS.items():
        for row in rng.sample(known, min(each, len(known))):
            match = _PLAIN.fullmatch(row.reference)
            assert match
            made = make(match[1], match[2].strip())
            if made is not None:
                yield row, Made(form, made[0], made[1])


def _scaled(number: str, factor: int) -> str:
    return f"{float(number) * factor:g}"


def _shifted(number: str) -> str:
    """The number with its last printed digit raised by one."""
    decimals = len(number.partition(".")[2])
    return f"{float(number) + 10**-decimals:.{decimals}f}"


_UNITS = {"°": "cm", "cm": "m", "": "%", "π": "", "m": "cm"}
_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_Make = Callable[[str, str], tuple[str, bool] | None]
_NUMBERS: dict[str, _Make] = {
    "trace": lambda n, u: (_TRACE.format(seen="There are 17 signs.", thought="so.", answer=n + u), True),
    "bare": lambda n, u: (n + u, True),
    "unit left out": lambda n, u: (f"<answer>{n}</answer>", True) if u == "°" else None,
    "announced": lambda n, u: (f"I add them up. The answer is {n}{u}.", True),
    "boxed": lambda n, u: (f"Then 3 + 4 = 7, and so on.\n\n\\boxed{{{n}{u}}}", True),
    "dollars": lambda n, u: (f"<think>So.</think><answer>${n}{u}$</answer>", True),
    "point zero": lambda n, u: (f"<answer>{n}.0{u}</answer>", True) if "." not in n else None,
    "plus sign": lambda n, u: (f"<answer>+{n}{u}</answer>", True),
    "sentence": lambda n, u: (f"<answer>The result is {n}{u}</answer>", True),
    "number word": lambda n, u: (
        (f"<answer>{_NAMES[int(n)]}</answer>", True) if not u and n.isdigit() and int(n) <= 10 else None
    ),
    "last digit off": lambda n, u: (f"<answer>{_shifted(n)}{u}</answer>", False),
    "last digit off, announced": lambda n, u: (f"The answer is {_shifted(n)}{u}.", False),
    "sign": lambda n, u: (f"<answer>-{n}{u}</answer>", False) if float(n) else None,
    "ten times": lambda n, u: (f"<answer>{_scaled(n, 10)}{u}</answer>", False),
    "another unit": lambda n, u: (f"<answer>{n} {_UNITS[u]}</answer>", False) if _UNITS.get(u) else None,
    "two numbers": lambda n, u: (f"<answer>{n}{u} or {_shifted(n)}{u}</answer>", False),
    "number in think only": lambda n, u: (f"<think>It may be {n}{u}.</think><answer></answer>", False),
    "not a number": lambda n, u: ("<answer>nan</answer>", False),
    "cut off": lambda n, u: (f"<think>That gives {n}{u} so far, now I", False),
}


def regression_answers(rows: list[Row], rng: random.Random) -> Iterator[tuple[Row, Made]]:
    """Estimates: the very number, and answers that are far off."""
    for row in rows:
        n = row.reference
        yield row, Made("trace", _TRACE.format(seen="A room with 3 doors.", thought="so.", answer=n), True)
        yield row, Made("bare", n, True)
        yield row, Made("announced", f"The answer is {n}.", True)
        yield row, Made("boxed", f"\\boxed{{{n}}}", True)
        yield row, Made("three times", f"<answer>{_scaled(n, 3)}</answer>", False)
        yield row, Made("sign", f"<answer>-{n}</answer>", False)
        yield row, Made("infinite", "<answer>inf</answer>", False)
        yield row, Made("not a number", "<answer>nan</answer>", False)
        far = _scaled(n, 5)
        seen = f"About {n} of them at first sight."
        yield row, Made("right in observation", _TRACE.format(seen=seen, thought="so.", answer=far), False)


# --- text ---


def text_answers(rows: list[Row], rng: random.Random) -> Iterator[tuple[Row, Made]]:
    """Short texts: the reference in several dresses, that of another question, none, its negation."""
    for row in rows:
        text = row.reference
        words = set(re.findall(r"\w+", text.lower()))
        strangers = [r.reference for r in rows if not words & set(re.findall(r"\w+", r.reference.lower()))]
        yield row, Made("trace", _TRACE.format(seen="A lecture.", thought="so.", answer=text), True)
        yield row, Made("bare", text, True)
        yield row, Made("stop", f"{text}.", True)
        yield row, Made("bold", f"<answer>**{text}**</answer>", True)
        yield row, Made("announced", f"<answer>The answer is {text}.</answer>", True)
        if strangers:
            yield row, Made("another's answer", f"<answer>{rng.choice(strangers)}</answer>", False)
            yield row, Made("another's answer, bare", rng.choice(strangers), False)
        yield row, Made("empty", "", False)
        yield row, Made("nothing in the tag", f"<think>Perhaps {text}.</think><answer></answer>", False)
        yield row, Made("negated", f"<answer>It is not {text}.</answer>", False)
        yield row, Made("cut off", f"<think>Is it {text}? I have to look at the", False)
