"""One verdict of several votes: of a panel, or of the model that is asked where the others leave it open."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from videop2r_data.schemas import Claim, ClaimVerdict, Faithfulness, NamedJudge, RejectReason, Sufficiency

FAITHFUL, CONTRADICTED = "faithful", "contradicted"
ANSWERED, UNANSWERED = "answered", "unanswered"


class Vote(NamedTuple):
    """What one model said.

    Attributes:
        verdict: empty: none.
        detail: its words, or why there is no verdict.
        keys: of the requests that decided.
        reason: why there is no verdict.
        score: of its answer or its claims.
        claims: with its verdicts.
    """

    verdict: str
    detail: str = ""
    keys: tuple[str, ...] = ()
    reason: RejectReason | None = None
    score: float | None = None
    claims: tuple[Claim, ...] = ()


def unsure(votes: list[Vote]) -> bool:
    """Whether votes leave it open: a missing one, two that differ, or a claim that nobody can see."""
    said = {vote.verdict for vote in votes}
    verdicts = [[claim.verdict for claim in vote.claims] for vote in votes]
    differ = len(said) > 1 or any(one != verdicts[0] for one in verdicts)
    return differ or "" in said or ClaimVerdict.UNSEEN in verdicts[0]


def vote_of(found: Faithfulness, keys: tuple[str, ...]) -> Vote:
    """The verdict on an observation by those on its claims."""
    if found.score is None:
        missing = sum(claim.verdict is None for claim in found.claims)
        detail = f"{missing} of {len(found.claims)} claims without a verdict"
        return Vote("", detail, keys, RejectReason.NO_VERDICT, None, found.claims)
    wrong = "; ".join(claim.text for claim in found.contradicted)
    return Vote(CONTRADICTED if wrong else FAITHFUL, wrong, keys, None, found.score, found.claims)


def joined(spec: NamedJudge, votes: list[Vote]) -> Vote:
    """One vote of several: that of the model asked when unsure, if it has a verdict; else by their number."""
    size = 1 + len(spec.panel)
    if len(votes) > size and votes[-1].verdict:
        return votes[-1]
    panel = votes[:size]
    if len(panel) == 1:
        return panel[0]
    if spec.decides == "faithfulness":
        return _joined_claims(spec, panel)
    count = Counter(vote.verdict for vote in panel)
    yes, no, missing = count[Sufficiency.YES], count[Sufficiency.NO], count[""]
    share = yes / (yes + no) if yes + no else None
    verdict = ""
    if yes >= spec.votes_needed:
        verdict = Sufficiency.YES.value
    elif yes + missing < spec.votes_needed:
        verdict = Sufficiency.NO.value
    return next(vote for vote in panel if vote.verdict == verdict)._replace(score=share)


def _joined_claims(spec: NamedJudge, panel: list[Vote]) -> Vote:
    """Each claim by its own votes; what too few agree on is unseen."""
    claims = [_claim(votes, spec.votes_needed) for votes in zip(*(v.claims for v in panel), strict=True)]
    joined = vote_of(Faithfulness(claims=tuple(claims)), panel[0].keys)
    first = next((vote.reason for vote in panel if vote.reason), None)
    return joined if joined.verdict else joined._replace(reason=first)


def _claim(votes: tuple[Claim, ...], need: int) -> Claim:
    count = Counter(claim.verdict for claim in votes if claim.verdict is not None)
    missing = len(votes) - count.total()
    verdict = next((verdict for verdict, n in count.items() if n >= need), None)
    if verdict is None and max(count.values(), default=0) + missing < need:
        verdict = ClaimVerdict.UNSEEN
    at = next((claim.at for claim in votes if claim.verdict is verdict), ())
    return Claim(text=votes[0].text, verdict=verdict, at=at)
