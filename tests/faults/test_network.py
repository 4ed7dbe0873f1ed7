"""Broken exchanges: each fault alone, with the words that the user reads, and all of them at random."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.fakes.openai_server import Call
from tests.faults.proxy import BROKEN, CLEAN, HANGING, Exchange, Plan, answer
from tests.faults.world import ROWS, World, nothing_lost_nor_paid_again, telling

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WORDS = {
    "cut_before": "failed: ",
    "cut_unanswered": "failed: ",
    "cut_request": "failed: ",
    "cut_head": "failed: ",
    "cut_body": "ClientPayloadError",
    "reset_body": "failed: ",
    "short_length": "that are no JSON",
    "truncated": "that are no JSON",
    "long_length": "ClientPayloadError",
    "no_length": "that are no JSON",
    "cut_chunks": "ClientPayloadError",
    "no_http": "failed: ",
    "endless_head": "failed: ",
    "zipped": "that are no JSON",
    "html": "that are no JSON",
    "html_502": "status 502: <!DOCTYPE html>",
    "json_no_json": "that are no JSON",
    "json_nan": "that are no JSON",
    "json_null": "without choices",
    "json_nothing": "an empty body",
    "json_an_error": "the engine is dead",
    "json_deep": "that are no JSON",
    "json_no_utf8": "that are no JSON",
    **{f"status_{n}": f"status {n}: not now" for n in (408, 409, 425, 429, 500, 502, 503, 504, 529)},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_exchange_costs_a_try_and_says_what_it_was(world: World, name: str) -> None:
    """Without tries the question is asked by the next run (exit code 3); with them nobody notices."""
    stubborn = Plan(seed=3, faults=(name,), share=0.3, times=10**9)
    ended = world.build(world.out, plan=stubborn, recipe=world.recipe("no-tries", retries=0))
    assert ended.code == 3, ended.text
    assert "got no answer: run the same command again" in ended.text
    assert WORDS.get(name, "without choices") in ended.text
    assert world.proxy.met.keys() == {name}
    assert world.kept_calls(world.out) == world.proxy.given.total(), "a finished call was lost"
    # the rest comes with a fault too, once for each call
    ended = world.build(world.out, plan=Plan(seed=4, faults=(name,), share=1.0, times=1))
    assert ended.code == 0, ended.text
    nothing_lost_nor_paid_again(world)


@pytest.mark.parametrize("name", HANGING)
def test_an_answer_that_never_ends_is_given_up_at_the_deadline(world: World, name: str) -> None:
    quick = world.recipe("quick", retries=0, timeout_s=8.0)
    ended = world.build(world.out, plan=Plan(seed=3, faults=(name,), share=0.2, times=10**9), recipe=quick)
    assert ended.code == 3 and "within 8 s" in ended.text, ended.text
    assert world.kept_calls(world.out) == world.proxy.given.total()
    assert world.build(world.out).code == 0
    nothing_lost_nor_paid_again(world)


@pytest.mark.parametrize("name", sorted({*CLEAN} - {"repeat_late"}))
def test_an_answer_that_is_late_or_twice_or_badly_labelled_is_taken_once(world: World, name: str) -> None:
    ended = world.build(world.out, plan=Plan(seed=5, faults=(name,), share=1.0))
    assert ended.code == 0, ended.text
    assert world.server.requests == 2 * ROWS, "no second call"
    nothing_lost_nor_paid_again(world)


@pytest.mark.parametrize("names_calls", [False, True])
def test_an_answer_that_comes_again_is_not_taken_for_the_next_question(
    world: World, names_calls: bool
) -> None:
    """It may come in front of the next answer on its connection, on which all answers are then one behind."""
    world.server.names_calls = names_calls
    ended = world.build(world.out, plan=Plan(seed=5, faults=("repeat_late",), share=0.4))
    assert ended.code == 0, ended.text
    nothing_lost_nor_paid_again(world, beyond=world.proxy.met["repeat_late"])


def test_an_answer_to_another_question_is_told_from_the_right_one(world: World) -> None:
    """By the id of the request, which vLLM puts into the id of the answer; without that nothing would tell."""
    world.server.names_calls = True
    swapped = Plan(seed=6, faults=("swap",), share=0.3, times=10**9, after=8)
    ended = world.build(world.out, plan=swapped, recipe=world.recipe("no-tries", retries=0))
    assert ended.code == 3, ended.text
    assert "the answer belongs to another question" in ended.text
    assert world.kept_calls(world.out) == world.proxy.given.total()
    ended = world.build(world.out, plan=Plan(seed=7, faults=("swap",), share=1.0))
    assert ended.code == 0, ended.text
    nothing_lost_nor_paid_again(world)


def test_two_answers_that_change_places_are_seen_by_the_judge_alone(world: World) -> None:
    """Each comes once and whole, from a server that names no calls: nothing in the protocol tells.

    The judge reads the question with the observation. The pair is refused, and every other row is as ever.
    """
    waiting: list[tuple[Exchange, bytes]] = []

    async def cross(exchange: Exchange) -> bool:
        """The first two observations change places."""
        _, _, body = await exchange.ask()
        if b"<judgement>" in exchange.raw or len(waiting) == 2:
            await exchange.send(answer(200, body))
            return True
        waiting.append((exchange, body))
        if len(waiting) == 2:
            (one, first), (other, second) = waiting
            await one.send(answer(200, second))
            await other.send(answer(200, first))
        else:
            while len(waiting) < 2:  # noqa: ASYNC110 - the second one comes soon
                await asyncio.sleep(0.01)
        return True

    def reads(call: Call) -> str:
        """A judge that compares the observation with the question."""
        same = len(set(re.findall(r"shape (\d+)", call.prompt))) == 1
        return telling(call) if same else telling(call).replace(">Yes<", ">No<")

    world.proxy.extra["cross"] = cross
    world.server.answer = reads
    try:
        ended = world.build(world.out, plan=Plan(faults=("cross",), share=1.0))
    finally:
        world.server.answer = telling
    assert ended.code == 0, ended.text
    crossed = {re.findall(rb"shape (\d+)", exchange.body)[-1].decode() for exchange, _ in waiting}
    assert {row["problem_id"] for row in world.rows(world.out, "rejected")} == crossed | {"5"}
    for row in world.rows(world.out):
        assert f"shape {row['problem_id']}." in row["output"], "the answer to another question was kept"


@pytest.mark.parametrize("seed", range(3))
def test_everything_at_random(world: World, seed: int) -> None:
    """Half of all calls meet two faults in a row."""
    ended = world.build(world.out, plan=Plan(seed=seed, faults=(*BROKEN, *CLEAN), share=0.5, times=2))
    assert ended.code == 0, ended.text
    assert len(world.proxy.met) > 10
    nothing_lost_nor_paid_again(world, beyond=world.proxy.met["repeat_late"])
