"""A reply without a verdict is asked for once more; whatever comes of the second call, the row has one fate."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from videop2r_data.backends.caller import Answer
from videop2r_data.backends.judge_requests import (
    USELESS,
    ConclusionRequests,
    JudgeRequests,
    answer_variant,
    ask_settled,
    ask_verdict,
    asked_again,
    useless_verdict,
)
from videop2r_data.errors import AuthError, P2RError, TransientError
from videop2r_data.schemas import NamedJudge, ProblemType, Sufficiency
from videop2r_data.schemas.calls import Completion, FinishReason, Request
from videop2r_data.schemas.judges import BackendSpec, JudgeSpec

SPEC = JudgeSpec(backend=BackendSpec(kind="openai", model="j", base_url="http://localhost:1/v1"))
REQUEST = JudgeRequests(SPEC).request(problem="?", options=(), answer="4", observation="four discs")
AGAIN = asked_again(REQUEST).key


def said(text: str, finish: FinishReason = "stop") -> Answer:
    return Answer(Completion(text=text, finish_reason=finish, model="j"))


class Judge:
    """Answers the two forms of a request, and counts."""

    def __init__(self, first: Answer | None, second: Answer | P2RError | None = None) -> None:
        self.first, self.second = first, second
        self.keys: list[str] = []

    async def ask(self, request: Request) -> Answer | None:
        self.keys.append(request.key)
        if request.key == REQUEST.key:
            return self.first
        if isinstance(self.second, P2RError):
            raise self.second
        return self.second


def test_a_verdict_needs_one_call() -> None:
    judge = Judge(said("So. <judgement>No</judgement>"))
    found = asyncio.run(ask_verdict(judge.ask, REQUEST))
    assert judge.keys == [REQUEST.key] == [found.request.key]
    assert found.value is not None and found.value.verdict is Sufficiency.NO


def test_the_stricter_form_says_the_same_and_more() -> None:
    again = asked_again(REQUEST)
    assert again.key != REQUEST.key and again.params == REQUEST.params
    assert again.messages[0] == REQUEST.messages[0]
    assert again.messages[1].text.startswith(REQUEST.messages[1].text + "\n\n")


@pytest.mark.parametrize(
    ("first", "finish"), [("It is there.", "stop"), ("<judgement>Yes</judgement> as", "length")]
)
def test_a_lost_verdict_is_found_by_the_second_call(first: str, finish: FinishReason) -> None:
    judge = Judge(said(first, finish), said("<judgement>Yes</judgement>"))
    found = asyncio.run(ask_verdict(judge.ask, REQUEST))
    assert judge.keys == [REQUEST.key, AGAIN] and found.request.key == AGAIN
    assert found.value is not None and found.value.verdict is Sufficiency.YES
    assert len(found.answers) == 2


@pytest.mark.parametrize(
    "second", [said("Perhaps."), Answer(None, "refused"), said("", "content_filter"), TransientError("away")]
)
def test_when_the_second_call_helps_no_more_the_first_reply_stands(second: Answer | P2RError) -> None:
    found = asyncio.run(ask_verdict(Judge(said("Perhaps."), second).ask, REQUEST))
    assert found.request.key == REQUEST.key and found.value is not None
    assert found.value.verdict is None and found.value.explanation == "Perhaps."


def test_what_stops_a_run_stops_it() -> None:
    with pytest.raises(AuthError):
        asyncio.run(ask_verdict(Judge(said("Perhaps."), AuthError("no key")).ask, REQUEST))


def test_a_batch_waits_for_its_second_call_and_a_replay_does_not() -> None:
    waiting = asyncio.run(ask_verdict(Judge(said("Perhaps.")).ask, REQUEST))
    assert waiting.answer is None and waiting.value is None and waiting.request.key == AGAIN
    replayed = asyncio.run(ask_verdict(Judge(said("Perhaps.")).ask, REQUEST, waits=False))
    assert replayed.value is not None and replayed.request.key == REQUEST.key


@pytest.mark.parametrize("first", [None, Answer(None, "too long"), said("x", "content_filter")])
def test_without_a_reply_nothing_is_asked_again(first: Answer | None) -> None:
    judge = Judge(first)
    found = asyncio.run(ask_verdict(judge.ask, REQUEST))
    assert judge.keys == [REQUEST.key] and found.value is None and found.answer is first


def test_settings_that_change_what_is_asked_are_in_the_key_and_those_of_loading_are_not() -> None:
    def variant(kind: str, **settings: Any) -> str:
        base = {"kind": kind, "model": "m", "base_url": "http://localhost:1/v1"}
        return answer_variant(BackendSpec.model_validate(base | settings))

    assert variant("openai") == variant("vllm", extra={"max_model_len": 4096}) == ""
    assert variant("openai", extra={"max_tokens_field": "max_completion_tokens"}) == ""
    body = variant("openai", extra={"body": {"top_k": 1}})
    assert body and body != variant("openai", extra={"video": "frames"})
    assert variant("transformers", revision="r") == variant("openai", revision="r") != ""


KIND, OPTIONS = ProblemType.MULTIPLE_CHOICE, ("A. cat", "B. dog")


class Reader(Judge):
    """The same for a judge of reasoning."""

    def __init__(self, *said: str) -> None:
        super().__init__(None)
        self.said = list(said)

    async def ask(self, request: Request) -> Answer | None:
        self.keys.append(request.key)
        return said(self.said.pop(0))


def test_what_reasoning_settles_on_is_asked_for_once_more() -> None:
    spec = NamedJudge(name="think", decides="conclusion", backend=SPEC.backend)
    assert spec.prompt == "think-option-v1" and spec.does == "record"
    requests = ConclusionRequests(spec)
    request = requests.request(think="So the dog.", problem="?", options=OPTIONS, problem_type=KIND)
    assert request.purpose == "conclusion" and request.media is None
    reader = Reader("It is the dog.", "<judgement>B</judgement>")
    found = asyncio.run(ask_settled(reader.ask, request, KIND, OPTIONS))
    assert reader.keys == [request.key, asked_again(request).key] and found.value == ("B", "")
    silent = asyncio.run(ask_settled(Reader("Hm.", "Hm.").ask, request, KIND, OPTIONS))
    assert silent.value == (None, "Hm.") and silent.request is request
    assert requests.asks(KIND) and not requests.asks(ProblemType.FREE_FORM)


def test_a_judge_of_reasoning_that_answers_off_its_form_is_of_no_use() -> None:
    read = USELESS["conclusion"]
    for text, kind in (("The dog.", "no_verdict"), ("", "empty"), ("<judgement>NONE</judgement>", None)):
        completion = Completion(text=text, finish_reason="stop", model="j")
        found = read(completion)
        assert (found and found[0]) == kind
    assert useless_verdict(Completion(text="<judgement>B</judgement>", finish_reason="stop", model="j"))
