"""What ends a run in the middle: a key that is revoked, money that is used up, judges that do not judge."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from tests.fakes.openai_server import Call
from tests.faults.proxy import Exchange, Plan, answer
from tests.faults.world import PASS, ROWS, UNDER_WAY, Gate, World, nothing_lost_nor_paid_again, telling
from videop2r_data.builders.run import Stop
from videop2r_data.errors import P2RError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("status", "words"), [(401, "check the key in $P2R_FAULTS_KEY"), (403, "check the key")]
)
def test_a_key_that_is_revoked_in_the_middle_stops_the_run(
    world: World, gate: Gate, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    """The other calls under way come back and are kept, and no further call goes out; a new key goes on.

    The call that is refused gives its place free while others wait for one, and none of them may take it.
    """
    monkeypatch.setenv("P2R_FAULTS_KEY", "sk-revoked-0123456789")
    body = b'{"error": {"message": "Incorrect API key provided: sk-revoked-0123456789"}}'
    refused: list[str] = []
    stopping, ask = threading.Event(), Stop.ask

    def listen(stop: Stop, why: P2RError | None = None) -> None:
        ask(stop, why)
        stopping.set()

    async def revoke(exchange: Exchange) -> bool:
        """One judgement is refused; when the run knows, the others come back."""
        if not refused and b"<judgement>" in exchange.raw:
            refused.append(exchange.digest)
            await exchange.send(answer(status, body))
            return True
        while not stopping.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)
        return False

    monkeypatch.setattr(Stop, "ask", listen)
    gate.then, gate.opens_when_full = revoke, True
    keyed = world.recipe("keyed", api_key_env="P2R_FAULTS_KEY")
    ended = world.build(world.out, plan=world.proxy.plan, recipe=keyed)
    assert ended.code == 1, ended.text
    assert f"status {status}: Incorrect API key provided: ***" in ended.text and words in ended.text
    assert "sk-revoked" not in ended.text
    assert world.server.requests == PASS + UNDER_WAY, "no call went out after the first refusal"
    assert world.kept_calls(world.out) == world.proxy.given.total() == PASS + UNDER_WAY - 1
    assert world.build(world.out).code == 0
    nothing_lost_nor_paid_again(world)


PRICE = {"input": 20.0, "output": 60.0}
"""US dollars per million tokens."""


def test_a_bad_network_does_not_carry_the_bill_over_the_limit(world: World) -> None:
    """Answers that the server gave and nobody got are money too: it counts against the limit."""
    limit, priced = 0.6, world.recipe("priced", price=PRICE)
    plan = Plan(seed=9, faults=("cut_body", "cut_unanswered", "html_502", "truncated"), share=0.5)
    ended = world.build(world.out, "--max-cost", str(limit), plan=plan, recipe=priced)
    assert ended.code == 4 and "Over budget" in ended.text and "raise --max-cost" in ended.text, ended.text
    assert "for calls that never came back" in ended.text
    tokens = world.server.stats()["tokens"]
    bill = (tokens["prompt_tokens"] * PRICE["input"] + tokens["completion_tokens"] * PRICE["output"]) / 1e6
    assert 0 < bill <= limit
    assert 0 < world.kept_calls(world.out) == world.proxy.given.total() < 2 * ROWS
    assert world.build(world.out).code == 0
    nothing_lost_nor_paid_again(world)


def echo(call: Call) -> str:
    """A judge that gives its question back."""
    return call.prompt if b"<judgement>" in call.raw else telling(call)


def test_a_judge_that_echoes_its_question_has_judged_nothing(world: World) -> None:
    """The forms that its question shows are no verdict; the rows are asked again when it is mended."""
    world.server.answer = echo
    try:
        ended = world.build(world.out)
    finally:
        world.server.answer = telling
    assert ended.code == 1 and "No row was accepted" in ended.text, ended.text
    assert "--retry no_verdict asks again" in ended.text
    reasons = {row["reason"] for row in world.rows(world.out, "rejected")}
    assert reasons == {"no_verdict"}
    ended = world.build(world.out, "--retry", "no_verdict")
    assert ended.code == 0, ended.text
    assert world.digests(world.out) == world.clean


def test_a_judge_that_always_says_yes_is_seen_in_the_figures(world: World) -> None:
    """It is believed, since each of its verdicts is one: the report shows that it refused nothing."""
    world.server.answer = lambda call: telling(call).replace(">No<", ">Yes<")
    try:
        ended = world.build(world.out, "--json")
    finally:
        world.server.answer = telling
    report = json.loads(ended.stdout)
    assert ended.code == 0 and report["ledger"]["reasons"] == {}
    assert report["ledger"]["kept"] == ROWS
