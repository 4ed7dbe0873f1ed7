"""The perception examination [paper §5]: any model answers each question from its text alone, with the media,
and with an observation in place of the media.

The observation is that of the answer under evaluation, or that of another result. What the third way gains
over the first is what the observation tells; what it gains over the second, it tells better than the clip.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from videop2r_data.backends import judge_request, to_model
from videop2r_data.builders import question_prompt
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.questions import Question, Questions
from videop2r_data.prompts import load_prompt, render_generate
from videop2r_data.schemas import (
    DataType,
    ExamSpec,
    MediaRecord,
    NamedReply,
    Part,
    ProblemType,
    Reply,
    Request,
    Sample,
    Shows,
    Trace,
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
        alone = question_prompt(spec.prompt, base)
        told = load_prompt(spec.observation_prompt, base=base)
        for kind in ProblemType:
            render_generate(told, problem="?", options=(), problem_type=kind, observation="?")
        self._alone, self._told = alone, told
        other = base / spec.observations if spec.observations else None
        self._observations = None if other is None else observations_in(other)

    async def sit(self, question: Question) -> None:
        """Ask one question in every way that there is; what has no media has nothing to examine."""
        if question.sample.data_type is DataType.TEXT:
            return
        found = []
        for shown in self.spec.shown:
            observation = self._observation(question) if shown == "observation" else None
            if observation is None or observation.strip():
                reply = await self._answer(question, shown, observation)
                found.append(NamedReply(shown=shown, model=self.spec.backend.model, reply=reply))
        question.columns["examined"] = found

    def _observation(self, question: Question) -> str:
        if self._observations is not None:
            return self._observations.get(question.sample.sample_id, "")
        return question.trace.observation if question.trace is not None else ""

    def prompts(self) -> dict[str, str]:
        """Prompt -> sha256."""
        return {prompt.name: prompt.sha256 for prompt in (self._alone, self._told)}

    async def _answer(self, question: Question, shown: Shows, observation: str | None) -> Reply:
        questions, judging = self.questions, self.questions.parts.steps.judging
        request = self._request(question.sample, observation, media=shown == "media")
        asks, view = judging.asks[STEP], judging.views[STEP]
        if shown != "media":
            return await questions.reply(question, asks, request)
        with view.hold(question.sample) as held:

            async def ask(media: MediaRecord | None) -> Reply:
                assert media is not None
                seen = replace(request, media=media, media_encoding=view.spec.wire_of(media.passthrough))
                return await questions.reply(question, asks, seen, held.loader(media))

            return await questions.seen(question, held, ask)

    def _request(self, sample: Sample, observation: str | None, *, media: bool) -> Request:
        prompt = self._alone if observation is None else self._told
        text = render_generate(
            prompt,
            problem=self.questions.shown(sample).problem,
            options=sample.options,
            problem_type=sample.problem_type,
            observation=None if observation is None else neutralise(observation),
        )
        request = judge_request(self.spec, STEP, prompt, text, media=media)
        return to_model(request, self.spec.backend)


def observations_in(folder: Path) -> dict[str, str]:
    """Question -> observation of the answers of a result.

    Raises:
        ConfigError: no result there, or a file of it is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from videop2r_data.evaluation.result import read_result

    result = read_result(folder)
    grammar = TraceGrammar.model_validate(result.plan.get("trace") or default_grammar())
    found: dict[str, str] = {}
    for benchmark in result.benchmarks:
        try:
            rows = pq.read_table(folder / benchmark.file, columns=["sample_id", "segments"]).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(
                f"the rows of this result cannot be read: {error}",
                where=str(folder / benchmark.file),
                hint="evaluate that model again, or name another folder in exam.observations",
            ) from None
        for row in rows:
            parts = [Part(cell["name"], cell["text"]) for cell in row["segments"]]
            found[row["sample_id"]] = Trace.made_of(grammar, parts).observation
    return found
