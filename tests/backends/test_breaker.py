"""A server that answers nobody in a way that can be used is given up, with its own words."""

from __future__ import annotations

import pytest

from videop2r_data.backends import useless_verdict
from videop2r_data.backends.breaker import IN_A_ROW, Breaker, useless_trace
from videop2r_data.errors import AwayError, BackendError, P2RError
from videop2r_data.schemas.calls import Completion, FinishReason

TOO_LONG = "status 400: This model's maximum context length is 2048 tokens. However, you requested {} tokens"


def reply(text: str, *, reasoning: int = 0, finish: FinishReason = "stop") -> Completion:
    return Completion(text=text, finish_reason=finish, model="m", reasoning_chars=reasoning)


def stopped(breaker: Breaker) -> P2RError:
    with pytest.raises(BackendError) as caught:
        breaker.check()
    return caught.value


def test_equal_refusals_stop_with_the_servers_words_and_what_to_change() -> None:
    breaker = Breaker("the generate server", flags=True)
    breaker.answered(reply("fine"))
    for i in range(IN_A_ROW - 1):
        breaker.failed("refused", TOO_LONG.format(3000 + i))
        breaker.check()
    breaker.failed("refused", TOO_LONG.format(9000))
    text = str(stopped(breaker))
    assert "you requested 9000 tokens" in text and "--max-model-len" in text and "--retry refused" in text
    assert "--keep-going" in text


def test_different_refusals_count_together_until_one_request_was_answered() -> None:
    breaker = Breaker()
    for i in range(IN_A_ROW):
        breaker.failed("refused", "status 400: " + "no " * (i % 3))
    assert "status 400" in str(stopped(breaker))
    breaker = Breaker()
    breaker.answered(reply("fine"))
    for i in range(5 * IN_A_ROW):
        breaker.failed("refused", "status 400: " + "no " * (i % 3))
        breaker.check()


def test_an_answer_ends_the_row_and_keep_going_never_stops() -> None:
    breaker, tireless = Breaker(), Breaker(keep_going=True)
    for i in range(3 * IN_A_ROW):
        if i % (IN_A_ROW - 1) == 0:
            breaker.answered(reply("fine"))
        for one in (breaker, tireless):
            one.failed("refused", "no")
            one.check()
    for one in (breaker, tireless) * IN_A_ROW:
        one.failed("refused", "no")
    tireless.check()
    assert "no" in str(stopped(breaker))


def test_calls_without_an_answer_are_worth_another_run_whatever_is_asked_for() -> None:
    breaker = Breaker(keep_going=True)
    for _ in range(IN_A_ROW):
        breaker.failed("failed", "status 503: loading")
    error = stopped(breaker)
    assert isinstance(error, AwayError) and "in a row got no answer" in str(error)


@pytest.mark.parametrize(
    ("completion", "words"),
    [
        (reply(""), "look at one reply"),
        (reply(" \n", reasoning=812), "reasoning parser"),
        (reply("", reasoning=9000, finish="length"), "raise max_tokens"),
        (reply("<answer>A</answer>", reasoning=300), "reasoning parser"),
        (reply("", finish="content_filter"), "another model"),
    ],
)
def test_useless_replies_to_step_1_stop_from_the_start_on(completion: Completion, words: str) -> None:
    breaker = Breaker(read=useless_trace)
    for _ in range(IN_A_ROW):
        breaker.check()
        breaker.answered(completion)
    error = stopped(breaker)
    assert words in str(error) and not isinstance(error, AwayError)


def test_a_judge_without_verdicts_stops_and_one_that_says_no_does_not() -> None:
    for text, stops in (("I cannot say.", True), ("<judgement>No</judgement>", False)):
        breaker = Breaker(read=useless_verdict)
        for _ in range(IN_A_ROW):
            breaker.answered(reply(text))
        if stops:
            assert "without a verdict; the last: I cannot say." in str(stopped(breaker))
        else:
            breaker.check()
