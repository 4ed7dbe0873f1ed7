"""The verdict in a judge's own reply: the last one, if it is among those on offer; else none [paper §7.1].

An honest reply is read whatever its ornaments; a reply that may mean either verdict has none. The row is then
unscored, after the judge was asked once more in a stricter form (`backends.judge_requests`).
"""

from __future__ import annotations

import re
from itertools import pairwise

from videop2r_data.schemas import Judgement, Sufficiency
from videop2r_data.validators.judge import holds_verdict_tag

MAX_REPLY = 200_000
"""Characters of a reply that are looked at, counted from its end."""
_INSIDE_CHARS = 2_000

_TAG = re.compile(r"<\s*(/?)\s*judge?ment\s*(>?)", re.IGNORECASE)
_CLOSING = re.compile(r"(?:\s*<\s*/\s*judge?ment\s*>)+", re.IGNORECASE)
_ORNAMENT = re.compile(r"</?\s*(?:b|strong|i|em|u|p|br|code)\s*/?>", re.IGNORECASE)
_EDGES = " \t\r\n*_`\"'“”‘’.!()[]{}"
_VERDICTS = {"yes": Sufficiency.YES, "no": Sufficiency.NO}
_REASONED = re.compile(r"(yes|no)[\s*_`\"'”’)\]]*[,.;:!\n–—-]", re.IGNORECASE)
"""A verdict with its reason in the same tag: `Yes, the colour is stated`."""
_UNDECIDED = re.compile(
    r"\b(?:but|however|though|although|unless|if|maybe|perhaps|possibly|partly|partially|unsure|uncertain|not\s+sure|"
    r"cannot\s+(?:say|tell|decide)|either|or\s+(?:yes|no))\b"
    r"|\b(?:yes|no)\b(?=\s*(?:[^\w\s]|\Z))",
    re.IGNORECASE,
)
"""What takes such a reason back, or another verdict in it (`no other ball` is none)."""
_MENU = re.compile(r"(?:[\s,;*`\"'/|•·–-]|\bor\b|\band\b|\b[0-9ab][.)])*", re.IGNORECASE)
"""What stands between the choices of a menu, and nothing else."""
_SUPPOSED = re.compile(
    r"\b(?:could|would|might|may|can(?:not|'t|’t)?|should)\b[^.!?\n]{0,40}?"
    r"\b(?:say|answer|judge|conclude|reply|give|choose|write|be|call)\b"
    r"|\b(?:if|whether|unless|either|instead\s+of|rather\s+than)\b|\bnot\W*\Z",
    re.IGNORECASE,
)
"""A sentence that supposes a verdict, or rules it out, instead of giving it."""
_RULED_OUT = re.compile(
    r"(?:\b(?:not|never|cannot)|n['’]t)\s+(?:be\s+)?(?:(?:say|answer|judge|conclude|reply|give|choose|write|call)\s+)?"
    r"(?:(?:a|an|the|it)\s+)?[*_`\"'“‘(]*\Z",
    re.IGNORECASE,
)
"""The words that end where a verdict begins, and rule it out: `I cannot say <judgement>Yes</judgement>.`"""
_SAID = re.compile(
    r"(?<!correct )(?<!right )(?<!reference )(?<!given )(?<!stated )(?<!expected )"
    r"\b(?:judge?ment|verdict|answer)\b[\s*_`\"']*(?:is|:|should\s+be|must\s+be)[\s*_`\"':]*(yes|no)\b"
    r"|^[ \t*_`\"']*+(yes|no)[ \t*_`\"'.!]*+$",
    re.IGNORECASE | re.MULTILINE,
)
"""A verdict in words. `The correct answer is No` is none: the question's own answer may be No."""

_Pair = tuple[re.Match[str], re.Match[str]]


def parse_judgement(reply: str, *, finish_reason: str = "stop") -> Judgement:
    """The verdict in a judge's own reply; never raises, linear.

    The last `<judgement>…</judgement>` counts; upper case, the spelling `judgment` and white space inside of
    a tag make no difference. It must hold Yes or No: any case; bold, quotes, brackets or a full stop around
    the word are ignored, and a reason may follow behind a comma. A doubled closing tag changes nothing. There
    is no verdict if

    - the two on offer merely stand side by side: an echo of the menu (`… or …`, a list, one below the other);
    - the last one is supposed rather than given (`I could say <judgement>Yes</judgement>, but …`),
      or ruled out by the words in front of it (`I cannot say <judgement>Yes</judgement>.`);
    - anything else like a judgement tag comes after it, or words after it state the other verdict;
    - it stands in a think block. A think block in front (of a reasoning model) is left out;
    - the reply was cut at its token limit, and the verdict is not the last line, complete and alone.

    Args:
        reply: the judge's own text.
        finish_reason: of the completion; `length` is a reply that was cut.

    >>> parse_judgement("It says so. <judgement>Yes</judgement>").verdict
    <Sufficiency.YES: 'Yes'>
    >>> parse_judgement("<judgement>Yes or No</judgement>").verdict is None
    True
    """
    reply = reply[-MAX_REPLY:]
    thought, _, spoken = reply.rpartition("</think>")
    if spoken.lstrip().startswith("<think>"):
        return Judgement(verdict=None, explanation=reply.strip())
    tags = list(_TAG.finditer(spoken))
    pairs = [(a, b) for a, b in pairwise(tags) if _is_pair(a, b)]
    if not pairs:
        return Judgement(verdict=None, explanation=(spoken or thought).strip())
    start, end = pairs[-1]
    verdict = _inside(spoken, pairs[-1])
    doubled = _CLOSING.match(spoken, end.end())
    after = spoken[doubled.end() if doubled else end.end() :]
    before = spoken[: start.start()]
    if (
        holds_verdict_tag(after)
        or any(_other(m, verdict) for m in _SAID.finditer(after))
        or (len(pairs) > 1 and _is_menu(spoken, pairs[-2], pairs[-1]))
        or _is_supposed(before, after)
        or _RULED_OUT.search(_line_before(before)[-80:]) is not None
        or (finish_reason == "length" and not _closes(before, after))
    ):
        verdict = None
    return Judgement(verdict=verdict, explanation=before.strip())


def _is_pair(a: re.Match[str], b: re.Match[str]) -> bool:
    return bool(not a.group(1) and a.group(2) and b.group(1) and b.group(2))


def _inside(text: str, pair: _Pair) -> Sufficiency | None:
    """The verdict between two tags; None if there is none, or more than one."""
    word = _ORNAMENT.sub(" ", text[pair[0].end() : pair[1].start()]).strip(_EDGES)
    plain = _VERDICTS.get(word.casefold())
    if plain is not None or len(word) > _INSIDE_CHARS:
        return plain
    reasoned = _REASONED.match(word)
    if reasoned is None or _UNDECIDED.search(word, reasoned.end()):
        return None
    return _VERDICTS[reasoned.group(1).casefold()]


def _is_menu(text: str, one: _Pair, other: _Pair) -> bool:
    """Whether two verdicts that differ, or that are joined by `or`, are merely named side by side."""
    between = text[one[1].end() : other[0].start()]
    if _MENU.fullmatch(between) is None:
        return False
    return _inside(text, one) is not _inside(text, other) or bool(between.strip())


def _is_supposed(before: str, after: str) -> bool:
    """Whether a sentence goes on behind the verdict that began with a `could`, an `if` or a `not`."""
    rest = after.split("\n", 1)[0].strip(_EDGES)
    return bool(rest) and _SUPPOSED.search(_line_before(before)) is not None


def _line_before(before: str) -> str:
    return before[max(before.rfind("\n"), before.rfind(". "), before.rfind("! "), before.rfind("? ")) + 1 :]


def _closes(before: str, after: str) -> bool:
    """Whether the verdict is the last line of a reply, and alone on it."""
    return not after.strip(_EDGES) and not before[before.rfind("\n") + 1 :].strip(_EDGES)


def _other(said: re.Match[str], verdict: Sufficiency | None) -> bool:
    return _VERDICTS[(said.group(1) or said.group(2)).casefold()] is not verdict
