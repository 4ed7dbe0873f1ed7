"""One question of an evaluation, stage by stage: answered, answered without media, judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import eq
from typing import TYPE_CHECKING, Any

from videop2r_data.backends import Loader
from videop2r_data.builders import (
    Asks,
    Held,
    Parts,
    RequestBuilder,
    Result,
    Ruling,
    question_prompt,
    unusable,
)
from videop2r_data.errors import MediaError, TransientError
from videop2r_data.evaluation.faithful import by_judge, by_rule, lacks, token_counter, with_answer
from videop2r_data.evaluation.grading import Grader
from videop2r_data.evaluation.pools import declarations
from videop2r_data.schemas import (
    BadRow,
    DataType,
    EvalPlan,
    EvalRow,
    MediaRecord,
    Outcome,
    RejectReason,
    Reply,
    Request,
    Sample,
    SegmentCell,
    Stage,
    TagCell,
    Trace,
    reasons_of,
)
from videop2r_data.validators import count_words

if TYPE_CHECKING:
    from videop2r_data.evaluation.examine import Exam


@dataclass(eq=False)
class Question:
    """One question under way.

    Attributes:
        sample: the question.
        held: its media.
        media: what the model saw of them; None before that, and where there is nothing to see.
        reply: what the model answered; None before that.
        trace: the segments of the completion, as far as it has any; None: no completion.
        columns: what the stages found out: columns of `EvalRow`.
        open: the error of a call that got no answer; the next run asks again.
    """

    sample: Sample
    held: Held
    media: MediaRecord | None = None
    reply: Reply | None = None
    trace: Trace | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    open: str = ""

    def row(self) -> EvalRow:
        """The question as a row of the result."""
        sample, media, trace = self.sample, self.media, self.trace
        assert self.reply is not None
        parts = trace.parts if trace is not None else ()
        return _row(
            benchmark=sample.source,
            problem_id=sample.problem_id,
            sample_id=sample.sample_id,
            problem=sample.problem,
            problem_type=sample.problem_type.value,
            data_type=sample.data_type.value,
            options=list(sample.options),
            reference=sample.reference,
            path=sample.path,
            start_s=sample.start_s,
            end_s=sample.end_s,
            tags=_cells(sample.tags),
            reply=self.reply,
            segments=[SegmentCell(name=part.name, text=part.text) for part in parts],
            segment_words=[count_words(part.text) for part in parts],
            frame_indices=list(media.indices) if media else [],
            frame_times_s=list(media.times_s) if media else [],
            frame_width=media.width if media else 0,
            frame_height=media.height if media else 0,
            **self.columns,
        )


_EMPTY: dict[str, Any] = {
    "problem": "", "problem_type": "", "data_type": "", "options": [], "reference": "", "path": "",
    "start_s": None, "end_s": None, "tags": [], "blind": None, "segments": [], "well_formed": None,
    "fault": "", "segment_words": [], "segment_tokens": [], "frame_indices": [], "frame_times_s": [],
    "frame_width": 0, "frame_height": 0, "mismatch_rule": None, "think_option": None, "mismatch_judge": None,
    "judgements": [], "claims": [], "examined": [],
}  # fmt: skip


def _row(**columns: Any) -> EvalRow:
    return EvalRow(**_EMPTY | columns)


def _cells(tags: Mapping[str, str]) -> list[TagCell]:
    return [TagCell(name=name, value=value) for name, value in sorted(tags.items())]


def bad_row(bad: BadRow) -> EvalRow:
    """The row of a question that cannot be read: it counts as wrong."""
    reply = Reply(
        text="", finish="", failed=bad.reason.value, detail=bad.detail, answer=None, place="", score=0.0,
        reason=bad.reason.value, input_tokens=0, output_tokens=0, key="",
    )  # fmt: skip
    return _row(
        benchmark=bad.source,
        problem_id=bad.problem_id,
        sample_id=bad.sample_id,
        problem=bad.raw,
        tags=_cells(bad.tags),
        reply=reply,
    )


Stage_ = Callable[[Question], Awaitable[None]]
"""One stage: asks what it has to ask, and notes what it found out in the question."""


class Questions:
    """Takes the questions of a plan through their stages; every call goes through a caller of `parts`.

    A further stage is one more entry of `stages`: it sees what the earlier ones found, and adds columns.

    Raises:
        ConfigError: a prompt is missing, or does not fit.
    """

    def __init__(self, plan: EvalPlan, parts: Parts) -> None:
        self.plan, self.parts = plan, parts
        self._tokens = token_counter(plan.tokenizer)
        base, recipe = parts.place.base, plan.recipe
        self.grader = Grader(plan, declarations(plan, base))
        self._hints = {pool.name: pool.hint for pool in plan.benchmarks}
        self._asking = parts.requests
        stages: list[Stage_] = [self.answer]
        if plan.question_only:
            prompt = question_prompt(plan.question_only_prompt, base, plan.trace)
            self._blind = RequestBuilder(recipe, base, prompt=prompt, purpose="blind")
            stages.append(self.answer_blind)
        if recipe.judges:
            stages.append(self.judge)
        self._exam: Exam | None = None
        if plan.exam is not None:
            from videop2r_data.evaluation.examine import Exam

            self._exam = Exam(plan.exam, self)
            stages.append(self._exam.sit)
        self.stages: tuple[Stage_, ...] = tuple(stages)

    @property
    def generator(self) -> Asks:
        """What the model that is evaluated is asked through."""
        return self.parts.steps.generator

    def prompts(self) -> dict[str, str]:
        """Prompt -> sha256."""
        found = self.parts.prompts() | (self._exam.prompts() if self._exam is not None else {})
        blind = [self._blind.generate_prompt] if self.plan.question_only else []
        return dict(sorted((found | {p.name: p.sha256 for p in blind}).items()))

    async def run(self, sample: Sample) -> Result:
        """Ask everything about one question; the result says how far that came."""
        return self.result(await self.ask(sample))

    def result(self, question: Question) -> Result:
        """How far a question came, as a build counts it: `KEPT` is answered."""
        sample, reply = question.sample, question.reply
        assert reply is not None
        if question.open:
            return Result(sample, Outcome.FAILED, Stage.GENERATE, RejectReason.CALL_FAILED, question.open)
        if not reply.failed:
            return Result(sample, Outcome.KEPT)
        reason = RejectReason(reply.failed)
        stage = Stage.MEDIA if reason in reasons_of(Stage.MEDIA) else Stage.GENERATE
        return Result(sample, Outcome.FAILED, stage, reason, reply.detail)

    async def ask(self, sample: Sample) -> Question:
        """One question after all stages.

        Raises:
            AuthError, BudgetError: the run must stop.
        """
        with self.parts.media.hold(sample) as held:
            question = Question(sample, held)
            for stage in self.stages:
                await stage(question)
        return question

    async def reply(
        self, question: Question, asks: Asks, request: Request, frames: Loader | None = None
    ) -> Reply:
        """Ask, and grade what comes back; for any stage whose answer is one to the question."""
        sample, grader = question.sample, self.grader
        try:
            answer = await asks.ask(request, frames)
        except TransientError as error:
            question.open = error.message
            return grader.lacking(sample, RejectReason.CALL_FAILED, "no answer", request.key)
        if answer is None:
            question.open = "no answer"
            return grader.lacking(sample, RejectReason.CALL_FAILED, "no answer", request.key)
        completion = answer.completion
        if completion is None:
            return grader.lacking(sample, RejectReason.CALL_REFUSED, answer.refused, request.key)
        if (why := unusable(completion)) is not None:
            return grader.lacking(sample, *why, request.key, said=completion.text)
        return grader.grade(sample, request, completion)

    async def seen(
        self, question: Question, held: Held, ask: Callable[[MediaRecord | None], Awaitable[Reply]]
    ) -> Reply:
        """What `ask` makes of the media; media that cannot be read are an answer that is lacking."""
        try:
            return await held.asked(ask)
        except MediaError as error:
            reason = RejectReason(error.reason)
            if reason is RejectReason.CALL_FAILED:
                question.open = error.message
            return self.grader.lacking(question.sample, reason, error.message)

    # --- stages ---

    async def answer(self, question: Question) -> None:
        """The answer of the model, from the media."""

        async def ask(media: MediaRecord | None) -> Reply:
            question.media = media
            request = self._asking.generate(self.shown(question.sample), media, 0)
            return await self.reply(question, self.generator, request, question.held.loader(media))

        question.reply = await self.seen(question, question.held, ask)
        if not question.reply.failed:
            form = self.grader.form(question.reply.text)
            found = Trace.made_of(self.plan.trace, form.parts)
            trace = question.trace = with_answer(found, question.reply.answer)
            question.columns |= {
                "well_formed": form.well_formed,
                "fault": form.fault,
                "mismatch_rule": by_rule(question.sample, trace, self.plan),
                "segment_tokens": [self._tokens(part.text) for part in form.parts] if self._tokens else [],
            }

    async def answer_blind(self, question: Question) -> None:
        """The same model without the media, by a prompt of its own; what a text row has is its text."""
        if question.sample.data_type is DataType.TEXT:
            question.columns["blind"] = question.reply
            return
        request = self._blind.generate(self.shown(question.sample), None, 0)
        question.columns["blind"] = await self.reply(question, self.generator, request)

    async def judge(self, question: Question) -> None:
        """What the judges say of what there is of a trace; each is asked only about what it reads."""
        trace, judging = question.trace, self.parts.steps.judging
        if trace is None:
            return
        ruling = Ruling()
        for judge in self.plan.judges:
            if lacks(judge, trace):
                continue
            alone = partial(eq, judge)
            try:
                ruling = await judging.rule(ruling, question.sample, trace, asks=alone)
            except MediaError:
                continue  # the frames for a judge that sees are gone; those of the answer were there
            if ruling.outcome is not Outcome.KEPT:
                question.open = ruling.detail
                ruling.outcome = Outcome.KEPT  # of this judge alone; the others are asked all the same
        judged = ruling.judged
        question.columns |= {"judgements": list(judged.judgements), "claims": list(judged.claims)}
        question.columns |= by_judge(judged.judgements)

    def shown(self, sample: Sample) -> Sample:
        """The question as the model reads it: with what its benchmark says beside it."""
        hints = (self.grader.benchmarks[sample.source].hint(sample), self._hints[sample.source])
        words = "\n".join(filter(None, (*hints, sample.problem)))
        return sample.model_copy(update={"problem": words}) if words != sample.problem else sample
