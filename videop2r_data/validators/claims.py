"""Observations held against the clip: a text taken apart into claims, and a verdict for each from a model
that sees.

Two calls. The first, text only, lists the claims of an observation. The second has the frames and says of
each claim: supported, contradicted or unseen. Claims and verdicts meet by number, never by text: what a
claim says cannot become a verdict, and a claim without a verdict of its own is unscored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from videop2r_data.prompts import Prompt, fill
from videop2r_data.schemas import Claim, ClaimVerdict, Faithfulness
from videop2r_data.validators.judge import neutralise

MOST_CLAIMS = 40
"""Claims of one observation that are looked at; the prompt says the same number."""
_LONGEST_CLAIM = 600
_LONGEST_REPLY = 200_000
_MOST_TIMES = 64
_ITEM = re.compile(r"[ \t]*(\d{1,3})[.)][ \t]+(\S.*)")
_NONE = re.compile(r"\W*none\W*", re.IGNORECASE)
_VERDICT = re.compile(
    r'[ \t>*-]*<claim n="?(\d{1,3})"?(?: at="([^"<>\n]{0,400})")?>[ \t]*([a-z]+)[ \t.]*</claim>[ \t]*',
    re.IGNORECASE,
)
_SECONDS = re.compile(r"(?<![\w.])\d{1,6}(?:\.\d{1,4})?(?![\w.])")


def render_claims(prompt: Prompt, *, observation: str) -> str:
    """The user message of the first call."""
    return fill(prompt.user, {"observation": neutralise(observation)})


def parse_claims(reply: str) -> tuple[str, ...] | None:
    """The claims of a numbered list, in order; None if the reply is no such list.

    Numbers begin at 1 and rise by 1; a line without a number goes on with the claim before it. Lines in
    front of the list are left out. A think block is too. More than `MOST_CLAIMS` claims are cut to the first
    ones.

    >>> parse_claims("Here:\\n1. A red ball.\\n2. It rolls left.")
    ('A red ball.', 'It rolls left.')
    >>> parse_claims("NONE"), parse_claims("I see nothing wrong.")
    ((), None)
    """
    spoken = _spoken(reply)
    claims: list[str] = []
    for line in spoken.splitlines():
        item = _ITEM.fullmatch(line)
        if item is not None and int(item.group(1)) == len(claims) + 1:
            claims.append(item.group(2).strip())
        elif item is not None:
            return None  # two lists, or a hole: nobody can say which claims are meant
        elif claims and line.strip():
            claims[-1] += " " + line.strip()
    if not claims:
        return () if _NONE.fullmatch(spoken.strip()) else None
    return tuple(claim[:_LONGEST_CLAIM] for claim in claims[:MOST_CLAIMS])


def render_faithfulness(prompt: Prompt, claims: Sequence[str]) -> str:
    """The user message of the second call; each claim on one line, disarmed as a judge's data are."""
    lines = [f"{n}. {' '.join(neutralise(claim).split())}" for n, claim in enumerate(claims, 1)]
    return fill(prompt.user, {"claims": "\n".join(lines)})


def parse_faithfulness(reply: str, claims: Sequence[str], *, finish_reason: str = "stop") -> Faithfulness:
    """The verdict of each claim in the reply of the model that saw the frames; never raises, linear.

    A verdict is a line of its own. A number that has no line, an unknown word, or two lines that differ
    leaves its claim unscored; so does a number that no claim has for all of them, since the model then
    counted otherwise. A reply that was cut has the verdicts of its whole lines.

    Args:
        reply: the model's own text.
        claims: as they were numbered in the request.
        finish_reason: of the completion.

    >>> found = parse_faithfulness('<claim n="1" at="0.5">supported</claim>', ["A red ball."])
    >>> found.claims[0].verdict, found.claims[0].at, found.score
    (<ClaimVerdict.SUPPORTED: 'supported'>, (0.5,), 1.0)
    """
    lines = _spoken(reply).splitlines()
    if finish_reason == "length" and lines:
        lines.pop()
    said: dict[int, tuple[ClaimVerdict | None, tuple[float, ...]]] = {}
    for line in lines:
        match = _VERDICT.fullmatch(line)
        if match is None:
            continue
        number, word = int(match.group(1)), match.group(3).lower()
        verdict = ClaimVerdict(word) if word in ClaimVerdict._value2member_map_ else None
        if number in said and said[number][0] is not verdict:
            verdict = None
        at = _SECONDS.findall(match.group(2) or "")[:_MOST_TIMES]
        said[number] = verdict, tuple(map(float, at))
    if not said.keys() <= set(range(1, len(claims) + 1)):
        said = {}
    decided = (said.get(number, (None, ())) for number in range(1, len(claims) + 1))
    found = (
        Claim(text=text, verdict=verdict, at=at) for text, (verdict, at) in zip(claims, decided, strict=True)
    )
    return Faithfulness(claims=tuple(found))


def _spoken(reply: str) -> str:
    """The reply without the think block of a reasoning model."""
    return reply[-_LONGEST_REPLY:].rpartition("</think>")[2]
