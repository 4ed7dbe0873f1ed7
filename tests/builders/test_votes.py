"""A panel's verdict: by the number of votes, whatever their order."""

from __future__ import annotations

from itertools import product

import pytest

from videop2r_data.builders.votes import CONTRADICTED, FAITHFUL, Vote, joined, unsure, vote_of
from videop2r_data.schemas import BackendSpec, Claim, ClaimVerdict, Faithfulness, NamedJudge, RejectReason

S, C, U = ClaimVerdict.SUPPORTED, ClaimVerdict.CONTRADICTED, ClaimVerdict.UNSEEN
BACKEND = BackendSpec(kind="demo", model="m")


def judge(decides: str, size: int, need: int | None = None) -> NamedJudge:
    data = {
        "name": "j",
        "decides": decides,
        "backend": BACKEND,
        "panel": (BACKEND,) * (size - 1),
        "need": need,
    }
    return NamedJudge.model_validate(data)


def vote(*verdicts: ClaimVerdict | None) -> Vote:
    claims = tuple(Claim(text=f"claim {n}", verdict=verdict) for n, verdict in enumerate(verdicts))
    return vote_of(Faithfulness(claims=claims), ("0" * 64,))


@pytest.mark.parametrize("need", [1, 2, 3])
def test_every_panel_of_three_on_sufficiency(need: int) -> None:
    """Yes takes `need` votes; No is said as soon as these cannot come; else a missing vote decides."""
    for words in product(("Yes", "No", ""), repeat=3):
        votes = [Vote(word, keys=("k",), reason=None if word else RejectReason.NO_VERDICT) for word in words]
        yes, missing = words.count("Yes"), words.count("")
        expected = "Yes" if yes >= need else "" if yes + missing >= need else "No"
        found = joined(judge("sufficiency", 3, need), votes)
        assert found.verdict == expected and (found.reason is None) == bool(expected)


def test_every_panel_of_three_on_a_claim() -> None:
    for said in product((S, C, U, None), repeat=3):
        found = joined(judge("faithfulness", 3), [vote(one) for one in said])
        top = max(said.count(one) for one in (S, C, U))
        winner: ClaimVerdict | None = None if None in said else U
        if top >= 2:
            (winner,) = (one for one in (S, C, U) if said.count(one) >= 2)
        assert found.claims[0].verdict is winner
        assert found.verdict == {C: CONTRADICTED, None: ""}.get(winner, FAITHFUL)


def test_claims_are_voted_on_one_by_one() -> None:
    votes = [vote(S, C), vote(S, S), vote(C, S)]
    spec = judge("faithfulness", 3)
    found = joined(spec, votes)
    assert found.verdict == FAITHFUL and found.score == 1.0  # each model found a fault, no two the same
    assert unsure(spec, votes) and not unsure(spec, [vote(S, C)] * 3) and unsure(spec, [vote(S, U)])


def test_a_refusal_is_confirmed_and_a_difference_is_not() -> None:
    spec = judge("faithfulness", 3).model_copy(update={"unsure_to": BACKEND, "confirm": True})
    refused = [vote(S, C), vote(S, C), vote(S, S)]
    assert unsure(spec, refused) and not unsure(spec, [vote(S, C), vote(S, S), vote(C, S)])
    assert unsure(spec, [vote(None)] * 3)
    assert joined(spec, [*refused, vote(S, S)]).verdict == FAITHFUL
    assert joined(spec, [*refused, vote(C, S)]).verdict == CONTRADICTED
    assert (
        joined(spec, [*refused, vote(None, None)]).verdict == CONTRADICTED
    )  # nobody to confirm it: it stands
    spec = judge("sufficiency", 1).model_copy(update={"unsure_to": BACKEND, "confirm": True})
    yes, no = Vote("Yes", keys=("k",)), Vote("No", keys=("k",))
    assert unsure(spec, [no]) and not unsure(spec, [yes])
    assert joined(spec, [no, yes]).verdict == "Yes"


def test_the_model_that_is_asked_when_unsure_decides_if_it_can() -> None:
    panel = [vote(S), vote(C), vote(S)]
    spec = judge("faithfulness", 3)
    assert joined(spec, [*panel, vote(C)]).verdict == CONTRADICTED
    assert joined(spec, [*panel, vote(None)]).verdict == FAITHFUL
