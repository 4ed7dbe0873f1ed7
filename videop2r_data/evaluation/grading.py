"""What a completion says, and what it is worth: its answer, its score, its form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from videop2r_data.errors import TraceError
from videop2r_data.schemas import (
    Benchmark,
    Completion,
    EvalPlan,
    Part,
    RejectReason,
    Reply,
    Request,
    Sample,
    Score,
    Trace,
    parse_trace,
)
from videop2r_data.validators import read_reply, score


class Form(NamedTuple):
    """How a completion is built.

    Attributes:
        well_formed: it has the form that was asked for; None: none was.
        fault: why not.
        parts: the segments that it has.
    """

    well_formed: bool | None
    fault: str
    parts: tuple[Part, ...]


class Grader:
    """Reads and grades the completions of a plan; pure."""

    def __init__(self, plan: EvalPlan, benchmarks: Mapping[str, Benchmark]) -> None:
        self.plan, self.benchmarks = plan, benchmarks

    def score(self, sample: Sample, answer: str) -> Score:
        """What an answer is worth."""
        return score(
            sample.problem_type,
            prediction=answer,
            reference=sample.solution,
            options=sample.options,
            policy=self.plan.scoring,
            metric=self.benchmarks[sample.source].metric(sample.problem_type),
        )

    def grade(self, sample: Sample, request: Request, completion: Completion) -> Reply:
        """A completion with its answer and its score."""
        read = read_reply(
            completion.text,
            problem_type=sample.problem_type,
            options=sample.options,
            grammar=self.plan.trace,
            policy=self.plan.scoring,
            cut=completion.finish_reason == "length",
        )
        found = self.score(sample, read.answer or "")
        why = found.reason if read.reason is None or found.value is None else read.reason
        usage = completion.usage
        return Reply(
            text=completion.text,
            finish=completion.finish_reason,
            failed="",
            detail="",
            answer=read.answer,
            place=read.place,
            score=found.value,
            reason=why.value,
            input_tokens=usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
            key=request.key,
        )

    def lacking(
        self, sample: Sample, reason: RejectReason, detail: str, key: str = "", *, said: str = ""
    ) -> Reply:
        """No completion, or none with anything to read: worth 0, unless the reference cannot be used."""
        return Reply(
            text=said,
            finish="",
            failed=reason.value,
            detail=detail,
            answer=None,
            place="",
            score=None if self.score(sample, "").value is None else 0.0,
            reason=reason.value,
            input_tokens=0,
            output_tokens=0,
            key=key,
        )

    def form(self, text: str) -> Form:
        """The segments of a completion, and whether they are what was asked for."""
        if self.plan.style == "plain":
            return Form(None, "", ())
        found = Trace.found_in(text, self.plan.trace)
        # thought and answer alone: what parses behind an observation of one character
        whole = text if self.plan.style == "process" else f"<observation>-</observation>{text}"
        try:
            parse_trace(whole, self.plan.trace)
        except TraceError as error:
            return Form(False, str(error.fault), found.parts)
        return Form(True, "", found.parts)
