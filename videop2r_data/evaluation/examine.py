"""The perception examination [paper §5]: any model answers each question from its text alone, with the media,
with an observation in their place, and with both.

The observation is that of the answer under evaluation, or that of another result. What the third way gains
over the first is what the observation tells; what it gains over the second, it tells better than the clip.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from videop2r_data.backends import judge_request, to_model
from videop2r_data.builders import Held, question_prompt
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.faithful import trace_of
from videop2r_data.evaluation.questions import Question, Questions
from videop2r_data.prompts import render_generate
from videop2r_data.schemas import (
    DataType,
    ExamSpec,
    MediaRecord,
    NamedReply,
    Reply,
    Shows,
    TraceGrammar,
    default_grammar,
)
from videop2r_data.validators import neutralise

STEP: Literal["exam"] = "exam"
"""The examinee among those who are asked."""


class Exam:
    """The stage that examines; every answer is read and scored as that of the evaluated model.

    Args:
        spec: who is asked, and how.
        questions: of the plan, for their prompts' hints and their grading.

    Raises:
        ConfigError: a prompt is missing or does not fit, or there are no such observations.
    """

    def __init__(self, spec: ExamSpec, questions: Questions) -> None:
        self.spec, self.questions = spec, questions
        base = questions.parts.place.base
        self._alone = question_prompt(spec.prompt, base)
        self._told = question_prompt(spec.observation_prompt, base, observation="?")
        self._observations = observations_in(base / spec.observations) if spec.observations else None

    def prompts(self) -> dict[str, str]:
        """Prompt -> sha256."""
        return {prompt.name: prompt.sha256 for prompt in (self._alone, self._told)}

    async def sit(self, question: Question) -> None:
        """Ask one question in every way that there is; what has no media has nothing to examine."""
        sample = question.sample
        if sample.data_type is DataType.TEXT:
            return
        if self._observations is not None:
            observation = self._observations.get(sample.sample_id, "")
        else:
            observation = question.trace.observation if question.trace is not None else ""
        found = []
        with self.questions.parts.steps.judging.views[STEP].hold(sample) as held:
            for shown in self.spec.shown:
                if observation.strip() or shown not in ("observation", "both"):
                    reply = await self._answer(question, shown, observation, held)
                    found.append(NamedReply(shown=shown, model=self.spec.backend.model, reply=reply))
        question.columns["examined"] = found

    async def _answer(self, question: Question, shown: Shows, observation: str, held: Held) -> Reply:
        questions, judging = self.questions, self.questions.parts.steps.judging
        asks, spec, sees = judging.asks[STEP], judging.views[STEP].spec, shown in ("media", "both")
        sample = questions.shown(question.sample)
        prompt = self._told if shown in ("observation", "both") else self._alone
        text = render_generate(
            prompt,
            problem=sample.problem,
            options=sample.options,
            problem_type=sample.problem_type,
            observation=neutralise(observation) if prompt is self._told else None,
        )
        request = to_model(judge_request(self.spec, STEP, prompt, text, media=sees), self.spec.backend)
        if not sees:
            return await questions.reply(question, asks, request)

        async def ask(media: MediaRecord | None) -> Reply:
            assert media is not None
            seen = replace(request, media=media, media_encoding=spec.wire_of(media.passthrough))
            return await questions.reply(question, asks, seen, held.loader(media))

        return await questions.seen(question, held, ask)


def observations_in(folder: Path) -> dict[str, str]:
    """Question -> observation of the answers of a result.

    Raises:
        ConfigError: no result there, or a file of it is missing.
    """
    import pyarrow as pa

    from videop2r_data.evaluation.page import read_rows
    from videop2r_data.evaluation.result import read_result

    result = read_result(folder)
    grammar = TraceGrammar.model_validate(result.plan.get("trace") or default_grammar())
    try:
        return {row.sample_id: trace_of(row, grammar).observation for row in read_rows(folder, result)}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(
            f"the rows of this result cannot be read: {error}",
            where=str(folder),
            hint="evaluate that model again, or name another folder in exam.observations",
        ) from None
