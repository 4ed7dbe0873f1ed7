from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.trainer.judging.questions import item, question
from videop2r_data.backends.caller import Answer
from videop2r_data.backends.judge_requests import Asked, ask_verdict
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.calls import Completion, FinishReason, Request
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.verdict import Judgement
from videop2r_data.trainer.judging.base import JudgeItem, Reason
from videop2r_data.trainer.judging.model import PerceptionJudge, Way, verdict
from videop2r_data.trainer.settings.rl import JudgingSpec


def spec(**backend: object) -> JudgingSpec:
    settings = {"kind": "openai", "model": "j", "base_url": "http://localhost:1/v1", **backend}
    return JudgingSpec(kind="backend", backend=BackendSpec.model_validate(settings))


def judge(settings: JudgingSpec) -> Way:
    return PerceptionJudge(settings, cache=Path("nowhere")).ways["sufficiency"]


def test_a_request_shows_question_answer_and_observation_but_no_media() -> None:
    about = question(problem="Which?", options=("A. cat", "B. dog"), reference="B")
    request = judge(spec()).request(JudgeItem(about, "A dog barks."))
    text = request.messages[-1].text
    assert "Which?" in text and "A. cat" in text and "B. dog" in text and "A dog barks." in text
    assert request.media is None and not any(message.media for message in request.messages)
    assert request.purpose == "judge"


def test_equal_content_is_one_key_and_settings_that_shape_an_answer_are_part_of_it() -> None:
    key = judge(spec()).request(item("x")).key
    assert judge(spec(concurrency=3, timeout_s=1.0)).request(item("x")).key == key
    assert judge(spec()).request(item("y")).key != key
    assert judge(spec(model="k")).request(item("x")).key != key
    assert judge(spec(revision="r")).request(item("x")).key != key
    assert judge(spec(extra={"body": {"top_k": 1}})).request(item("x")).key != key


def test_a_prompt_that_cannot_judge_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="observation"):
        judge(spec().model_copy(update={"prompt": "generate-v1"}))
    mine = tmp_path / "mine.txt"
    mine.write_text("=== user ===\n{problem} {answer} {observation}\n")
    request = judge(spec().model_copy(update={"prompt": str(mine)})).request(item("seen"))
    assert request.messages[0].text == "Which disc moves? the red disc seen"


def asked(answer: Answer | None) -> Asked[Judgement]:
    async def ask(request: Request) -> Answer | None:
        return answer

    return asyncio.run(ask_verdict(ask, judge(spec()).request(item("x"))))


@pytest.mark.parametrize(
    ("reply", "finish", "sufficient", "reason"),
    [
        ("So. <judgement>Yes</judgement>", "stop", True, Reason.JUDGED),
        ("So. <judgement>No</judgement>", "stop", False, Reason.JUDGED),
        ("So. <judgement>Y", "length", None, Reason.NO_VERDICT),
        ("<judgement>Yes</judgement>", "content_filter", None, Reason.REFUSED),
    ],
)
def test_verdicts(reply: str, finish: FinishReason, sufficient: bool | None, reason: Reason) -> None:
    judged = verdict(asked(Answer(Completion(text=reply, finish_reason=finish, model="j"))), cached=True)
    assert (judged.sufficient, judged.reason, judged.cached) == (sufficient, reason, True)


def test_no_answer_is_refused() -> None:
    assert verdict(asked(Answer(None, "too long")), cached=False).detail == "too long"
    assert verdict(asked(None), cached=False).reason is Reason.REFUSED
