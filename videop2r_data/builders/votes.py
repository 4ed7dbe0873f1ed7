"""One verdict of several votes: of a panel, or of the model that is asked where the others leave it open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from videop2r_data.schemas import Claim, ClaimVerdict, Faithfulness, NamedJudge, RejectReason, Sufficiency

FAITHFUL, CONTRADICTED = "faithful", "contradicted"
T = TypeVar("T")


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


def unsure(spec: NamedJudge, votes: list[Vote]) -> bool:
    """Whether a dearer model is asked: a vote is missing, two differ, or a claim is one that nobody can see;
    with `confirm`: the votes refuse, or come to nothing."""
    if spec.confirm:
        return joined(spec, votes).verdict in ("", Sufficiency.NO, CONTRADICTED)
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
    said = [vote.verdict or None for vote in panel]
    verdict = _most(said, spec.votes_needed, (Sufficiency.YES.value,), Sufficiency.NO.value) or ""
    decided = sum(vote is not None for vote in said)
    share = said.count(Sufficiency.YES) / decided if decided else None
    return next(vote for vote in panel if vote.verdict == verdict)._replace(score=share)


def _joined_claims(spec: NamedJudge, panel: list[Vote]) -> Vote:
    """Each claim by its own votes; what too few agree on is unseen."""
    claims = []
    for votes in zip(*(vote.claims for vote in panel), strict=True):
        said = [claim.verdict for claim in votes]
        verdict = _most(said, spec.votes_needed, tuple(ClaimVerdict), ClaimVerdict.UNSEEN)
        at = next((claim.at for claim in votes if claim.verdict is verdict), ())
        claims.append(Claim(text=votes[0].text, verdict=verdict, at=at))
    joined = vote_of(Faithfulness(claims=tuple(claims)), panel[0].keys)
    first = next((vote.reason for vote in panel if vote.reason), None)
    return joined if joined.verdict else joined._replace(reason=first)


def _most(said: Sequence[T | None], need: int, among: Sequence[T], otherwise: T) -> T | None:
    """What has `need` votes; `otherwise` where no missing vote could change that nothing has; else None."""
    best = max(among, key=said.count)
    if said.count(best) >= need:
        return best
    return otherwise if said.count(best) + said.count(None) < need else None
