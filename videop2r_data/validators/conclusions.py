r"""What a text concludes, in English, Chinese and Japanese: one reader for answers and for think segments.

A conclusion is a claim with a cue (`the answer is …`, `Answer: …`, `\boxed{…}`, `I choose …`, `… is correct`,
`答案是…`, `答えは…`). It stays *open*, and settles nothing, if it is asked, conditional, hedged, negated,
reported or taken back. What a claim names is read by others: an option by `naming`, a number by `numbers`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

MAX_CHARS = 4000
"""How much of the end of a text is read, so that the time is bounded for every text."""
MAX_CONCLUSIONS = 64
"""How many are looked at, the last ones: a text that holds more is no reasoning."""
_SENTENCE_CHARS = (160, 600)
"""How much of the end a last sentence is looked for in first: nearly always it is shorter."""


class Cue(StrEnum):
    """What announces a conclusion."""

    ANSWER = "answer"
    """`the answer is …`, `Answer: …`, `答案是…`, `答えは…`"""
    OPTION = "option"
    """`the best option is …`: as often said of an option that is only looked at, so that it needs a name."""
    BOXED = "boxed"
    PICK = "pick"
    """`I choose …`, `选…`"""
    RIGHT = "right"
    """`B is correct`, `B是正确的`, `Bが正解`: the claim is what stands before it."""
    COUNT = "count"
    """`there are …`, `一共有…`, `全部で…`: says a number, never an option's letter."""


class Conclusion(NamedTuple):
    """One conclusion.

    Attributes:
        cue: what announces it.
        claim: what it says, up to the end of its sentence (of `\\boxed{…}`: what the braces hold).
        open: it is asked, conditional, hedged, negated, reported, or taken back after the claim.
        after: the words behind the sentence.
    """

    cue: Cue
    claim: str
    open: bool
    after: str


_BE = (
    r"(?:\b(?:is|are|should\s+be|must\s+be|has\s+to\s+be|will\s+be|would\s+be)\b"
    r"(?:\s+(?:clearly|indeed|therefore|thus|then|obviously|definitely)\b)?[ \t]*:?|[:=])"
)
_DRESS = r"[*_\"'”’)]{0,4}"
# A pattern that begins with letters is searched many times faster than one that begins with `\b`.
_FIRST = r"(?:i(?<=\bi)|w(?<=\bw)e)(?:'d|'ll)?\s+"


class _Announced(NamedTuple):
    """The words of one cue: stems, one of which stands in every match that is ASCII, and the pattern."""

    cue: Cue
    stems: list[str]
    small: re.Pattern[str]
    """For ASCII text in lower case: much faster than a pattern that ignores case."""
    wide: re.Pattern[str]
    """For any text, with the words of Chinese and Japanese."""
    in_line: bool
    """Every match of `small` begins in the line of its first stem."""


def _announced(cue: Cue, stems: str, pattern: str, wide: str = "", *, in_line: bool = False) -> _Announced:
    small = re.compile(pattern, re.MULTILINE)
    every = re.compile(f"{pattern}|{wide}" if wide else pattern, re.MULTILINE | re.IGNORECASE)
    return _Announced(cue, stems.split(), small, every, in_line)


_BEFORE_CLAIM = (
    _announced(
        Cue.ANSWER,
        "answer conclusion",
        rf"\b(?:answers?|conclusion)\b{_DRESS}(?:\s+to\s+th(?:e|is)\s+question)?\s*{_DRESS}\s*{_BE}"
        r"|^[ \t#*_]*(?:(?:final|correct)\s+)?answer[ \t*_]*$",
        r"(?:答案|结论|結論|正解|正答|答え|こたえ|解答|回答|正确选项|正确的选项)"
        r"(?:应该|应当|应|就|确实|显然|当然|最终|明确)?(?:是|为|為|选|：|:|は|=)[：:]?",
        in_line=True,
    ),
    _announced(Cue.OPTION, "option choice", rf"\b(?:option|choice)\b{_DRESS}\s*{_BE}", in_line=True),
    _announced(Cue.BOXED, "\\boxed", r"\\boxed\s*(?=\{)", in_line=True),
    _announced(
        Cue.PICK,
        "choose chose select pick go settle opt",
        rf"{_FIRST}(?:(?:would|will|should|therefore|thus)\s+)*"
        r"(?:choose|chose|select|pick|go\s+with|settle\s+on|opt\s+for)\b",
        r"(?<![不别首待挑精])(?:选择?|選)(?=\s*(?:选项)?\s*[（(「“\"]?(?-i:[A-Z])(?![A-Za-z]))",
    ),
    _announced(
        Cue.COUNT,
        "there see count saw total",
        rf"\bthere\s+(?:is|are|was|were)\b|{_FIRST}(?:can\s+)?(?:see|count|counted|saw)\b|\b(?:a|the)\s+total\s+of\b",
        r"(?:一共|总共|總共|共计|总计|合计|共)(?:有|是|为)?|有(?=\s*\d)|(?:全部で|合計で?|合わせて)(?=\s*\d)",
    ),
)
_BEFORE_OPTION = tuple(announced for announced in _BEFORE_CLAIM if announced.cue is not Cue.COUNT)
_BEHIND_CLAIM = (
    _announced(
        Cue.RIGHT,
        "correct right best",
        r"is(?<=\bis)\s+(?:(?:clearly|indeed)\s+)?(?:the\s+)?(?:correct|right|best)\b(?:\s+(?:answer|option|choice|one)\b)?",
        r"是?最?(?:正确|正確|合适)(?:的|答案|选项)*|(?:が|は)(?:正解|正しい|正答)",
    ),
    _announced(Cue.PICK, "を", r"を選(?=[びぶ])"),
)
_SUBJECT = re.compile(
    r"(?<![A-Za-z0-9_'’])[(（「\"'*]{0,3}(?:[A-Z]|\d{1,2})[)）」\"'*]{0,3}(?:[.:]\s+[^.!?。]{1,200})?\s*\Z"
)
"""What stands before a verdict: `B`, `(B)`, `B: dog`."""
_BEFORE_SUBJECT = re.compile(
    r"(?:\A|[^A-Za-z0-9\s]|\n|\b(?:option|choice|answer|letter|label|so|thus|therefore|hence|then|that|think|believe|and)"
    r"|[^\x00-\x7f])\s*\Z",
    re.IGNORECASE,
)
"""What may stand before it: `so B`, `option B`; `plan B` and `vitamin B` are names of other things."""
_STOP = re.compile(
    r"[.!?\n。！？](?:(?<=[。！？])|(?<=\n)\s*\n|(?<=[.!?])(?=\s|$|[)\"'*\]])"
    r"(?<!\bMr.)(?<!\bDr.)(?<!\bMs.)(?<!\bSt.)(?<!\bvs.)(?<!\bMrs.)(?!(?<=\bNo\.)\s\d))"
)
_LETTER_STOP = re.compile(
    r"[\s\"'“(*_`$\\\[{（「]*(?:[Oo]ption\s+|[Cc]hoice\s+)?[\"'(*{（]*(?:[A-Z]|\d{1,2})\.(?=\s+(\w+))"
)
_BEGINS = re.compile(
    r"(?:So|Therefore|Thus|Hence|It|This|That|These|He|She|They|There|Because|Since|Given|I|We|[B-Z])\b"
)
"""Words that begin a sentence behind `The answer is B.`, and letters of other options."""
_PART = re.compile(
    r"[,;:，；：、]|\s[–—-]+\s|\b(?:so|thus|hence|therefore|consequently|then)\b|所以|因此|故|よって|したがって|ので|から",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|suppose|supposing|assum\w*|whether|unless|otherwise|wonder|say|says|said|claims?|claimed|"
    r"initial\w*|first|doubt|thought|used\s+to|untrue|(?:impossible|unlikely|improbable)\s+that)\b"
    r"|如果|假如|假设|倘若|要是|是否|除非|有人说|怀疑|以为|最初|起初|要么|问题是|もし|仮に|なら|かどうか",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:not|never|no|cannot|neither|nor|except|incorrect|wrong|false|might|may|could|possib\w*|perhaps|maybe|probably|why|how)\b"
    r"|n't\b|不|没|沒|非|未|可能|也许|或许|大概|恐怕|似乎|错|錯|おそらく|たぶん|多分|かも|ない|ません|間違|誤",
    re.IGNORECASE,
)
_TURN = re.compile(
    r"\b(?:wait|however|but|actually|although|though|instead|hmm|reconsider|second\s+thought|alternatively|"
    r"unless|except|correction|mistake|no(?=,)|sorry|i\s+mean|or\s+rather|or\s+not(?=\s*(?:[.!?…]|$)))\b"
    r"|\b(?:that|this|it|which)\s+(?:is|was|would\s+be|cannot\s+be|can't\s+be)\s+(?:wrong|incorrect|false|not\s+(?:correct|right|true))\b"
    r"|等等|等一下|不对|错了|違う|違います|やっぱり|但|然而|不过|其实|实际上|しかし|だが|けれど|でも|ただし|待って|実は|いや[、，]",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\s*(?:,?\s*\b(?:because|since|as|due\s+to|given|rather\s+than|instead\s+of|whereas)\b|,\s*not\b|,?\s*which\s+is\b(?!\s+(?:wrong|incorrect|false|not)\b)"
    r"|[,，、]?\s*(?:因为|因為|由于|而不是|なぜなら)).*",
    re.IGNORECASE | re.DOTALL,
)
_PLACE = re.compile(
    r"\s(?:(?:in|on|at|inside|within|during|throughout)\s+(?:the|this|that|a|an|total|all|front)|visible|shown|present|"
    r"altogether|overall)\b(?![^\0]*(?:\d|\b(?:and|or|plus|but|then|left|more|less)\b)).*",
    re.IGNORECASE | re.DOTALL,
)
"""Where something is counted, as long as nothing is counted in another place."""
_BEFORE_FIGURE = re.compile(r"\A(?:(?:exactly|only|just|a\s+total\s+of|in\s+total)\s+)+", re.IGNORECASE)
_ENDING = re.compile(
    r"(?:です|である|だ|でした|となります|になります|あります|ある|います|いる|了)?\s*[.。]?\s*\Z"
)
_ALONE = re.compile(
    r"(?<![A-Za-z0-9_'’])(?:[B-HJ-Z]|A(?!\s[a-z])|A(?=\s(?:is|was|and|or|does|fits|matches|seems)\b))(?![A-Za-z0-9_'’])"
)
_JOINS = re.compile(r"[\\)\]}$*\s]*(?:,\s*)?(?:/|&|(?:or|and)\b)", re.IGNORECASE)
_ENDS_OPEN = re.compile(
    r"では?な|では?あり|じゃな|じゃあり|かもしれ|と(?:は|も)?(?:限|言|仮定|思(?:って|った|われ))|かどうか|というの|は間違|でしょう"
    r"|(?:[,，、;；]|(?<=[A-Za-z0-9]))\s*(?:但|可能|也许|大概|或许|恐怕|应该不|不一定|不确定|要么|是否|这是错|是错)"
)
"""Japanese negates and hedges at the end of a sentence, Chinese may."""
_ASKS = re.compile(r"(?:[?？]|吗|嗎|呢|么|ですか|ますか|だろうか|でしょうか)\s*[。.]?\s*\Z")


def conclusions(text: str, *, counts: bool = True) -> list[Conclusion]:
    r"""All conclusions in the last 4,000 characters of a text, in order.

    Args:
        text: an answer, a think segment or an observation.
        counts: those that only say a number, too (`there are …`); they never name an option.

    >>> [(c.claim, c.open) for c in conclusions("If it barks, the answer is B. So the answer is \\boxed{A}.")]
    [('B', True), ('\\boxed{A}', False), ('A', False)]
    >>> conclusions("根据视频，答案是B。")[0].claim
    'B'
    """
    # What is concluded stands at the end; the cut also bounds the time.
    text = text[-MAX_CHARS:]
    found = [_from(text, *one) for one in _matches(text, _BEFORE_CLAIM if counts else _BEFORE_OPTION)]
    for cue, match in _matches(text, _BEHIND_CLAIM):
        subject = _SUBJECT.search(text, max(0, match.start() - 210), match.start())
        if subject and _BEFORE_SUBJECT.search(text[max(0, subject.start() - 24) : subject.start()]):
            found.append(_about(text, cue, subject, match.end()))
    return [one for _, one in sorted(found, key=lambda placed: placed[0])]


def _matches(text: str, known: tuple[_Announced, ...]) -> list[tuple[Cue, re.Match[str]]]:
    """The last cues of a text, in order."""
    found: list[tuple[Cue, re.Match[str]]] = []
    lower = text.lower()
    for words in known:
        if not text.isascii():
            found += ((words.cue, match) for match in words.wide.finditer(text))
            continue
        # A stem stands in every match, so a search for them spares most of the patterns on most texts.
        first = min((at for stem in words.stems if (at := lower.find(stem)) >= 0), default=-1)
        if first >= 0:
            begin = lower.rfind("\n", 0, first) + 1 if words.in_line else 0
            found += ((words.cue, match) for match in words.small.finditer(lower, begin))
    return sorted(found, key=lambda announced: announced[1].start())[-MAX_CONCLUSIONS:]


def figure(conclusion: Conclusion) -> str:
    r"""The part of a claim in which a number stands: without its reason, its place and its closing verb.

    >>> [figure(c) for c in conclusions("There are 5 balls in the box.")]
    ['5 balls']
    """
    claim = _PLACE.sub("", _REASON.sub("", conclusion.claim, count=1), count=1)
    claim = _BEFORE_FIGURE.sub("", claim, count=1)
    return _ENDING.sub("", claim).strip(" \t\n\"'“”‘’`*_")


def is_taken_back(after: str) -> bool:
    """Whether the words behind a conclusion turn it round (`wait`, `however`, `但是`, `しかし`)."""
    return _TURN.search(after) is not None


def is_doubtful(words: str) -> bool:
    """Whether words hold a condition, a negation, a hedge or a turn, in any of the three languages."""
    return any(pattern.search(words) for pattern in (_CONDITION, _DOUBT, _TURN))


def letters_alone(text: str) -> list[str]:
    """Capital letters that stand alone and may name options; articles and pronouns do not.

    >>> letters_alone("A man and I choose B, not C.")
    ['B', 'C']
    """
    return _ALONE.findall(text)


def last_sentence(text: str) -> str:
    """The last sentence that holds anything, without what surrounds it.

    >>> last_sentence("It barks. So it is 3.5 m long.\\n")
    'So it is 3.5 m long'
    """
    # Splitting all of a long text to keep its last sentence would be most of the work.
    for chars in (*_SENTENCE_CHARS, MAX_CHARS):
        parts = _STOP.split(text[-chars:])
        if len(text) > chars:
            parts[0] = ""  # it may begin before what is read
        found = next((part.strip() for part in reversed(parts) if part.strip(" \t\n*_\"')]}$\\")), "")
        if found:
            return found
    return text[-MAX_CHARS:].strip() if len(text) > MAX_CHARS else ""


def _from(text: str, cue: Cue, match: re.Match[str]) -> tuple[int, Conclusion]:
    """The conclusion behind a cue."""
    begin = match.end()
    while begin < len(text) and text[begin].isspace():
        begin += 1
    if cue is Cue.BOXED:
        claim, behind = _braced(text, begin)
        end, asks = _sentence_end(text, behind)
        asks = asks or _goes_on(text[behind:end])
        after = text[behind:].lstrip("\\)]}$*. \n")
    else:
        end, asks = _sentence_end(text, _past_label(text, begin))
        claim, after = text[begin:end].strip(), text[end + 1 :]
    is_open = asks or _leaves_open(claim) or _is_open(text, match.start(), after)
    return match.start(), Conclusion(cue, claim, is_open, after)


def _goes_on(rest: str) -> bool:
    """Whether the rest of a sentence doubts what stands before it, or goes to another option."""
    return (
        is_doubtful(rest) or _leaves_open(rest) or bool(letters_alone(rest)) or _JOINS.match(rest) is not None
    )


def _about(text: str, cue: Cue, subject: re.Match[str], behind: int) -> tuple[int, Conclusion]:
    """The conclusion before a verdict: `B is correct`."""
    end, asks = _sentence_end(text, behind)
    rest, after = text[behind:end], text[end + 1 :]
    is_open = asks or _goes_on(rest) or _is_open(text, subject.start(), after)
    return subject.start(), Conclusion(cue, subject.group().strip(), is_open, after)


def _leaves_open(claim: str) -> bool:
    return _ASKS.search(claim) is not None or _ENDS_OPEN.search(claim) is not None


def _is_open(text: str, start: int, after: str) -> bool:
    # A condition belongs to its own sentence; 160 characters reach to the start of nearly every one.
    before = _STOP.split(text[max(0, start - 160) : start])[-1]
    return is_open_before(before) or is_taken_back(after)


def is_open_before(before: str) -> bool:
    """Whether the words before a claim leave it open: a condition, or a doubt in their last part.

    >>> is_open_before("If it does not purr, it is "), is_open_before("It does not purr, so it is ")
    (True, False)
    """
    return _CONDITION.search(before) is not None or _DOUBT.search(_PART.split(before)[-1]) is not None


def _past_label(text: str, at: int) -> int:
    """Behind the stop of `A.` in `A. aldose`, which ends no sentence; the stop in `A. Wait, no` does."""
    label = _LETTER_STOP.match(text, at)
    if label is None or _TURN.match(label.group(1)) or _BEGINS.match(label.group(1)):
        return at
    return label.end()


def _sentence_end(text: str, at: int) -> tuple[int, bool]:
    stop = _STOP.search(text, at)
    return (len(text), False) if stop is None else (stop.start(), stop.group() in "?？")


def _braced(text: str, at: int) -> tuple[str, int]:
    """What stands between the brace at `at` and the one that closes it, and where the text goes on."""
    depth = 0
    for i in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[at + 1 : i], i + 1
    return text[at + 1 :], len(text)
