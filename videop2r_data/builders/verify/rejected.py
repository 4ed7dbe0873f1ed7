"""Rows of `rl` and `rejected`: the question, and for a rejected one that its reason holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from videop2r_data.builders.verify.question import HEX, QUESTION, Say, check_question, rows_of
from videop2r_data.builders.verify.report import Code
from videop2r_data.builders.verify.rules import Rules
from videop2r_data.builders.verify.sft import rescore
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.files.rows import Batch
from videop2r_data.schemas.trace import segment_spans
from videop2r_data.schemas.verdict import Outcome, Stage, TraceFault, reasons_of

_FAULTS = {f.value for f in TraceFault}
_STAGE_REASONS: dict[str, set[str]] = {
    stage.value: {reason.value for reason in reasons_of(stage)} for stage in Stage
}


def check_rl(batch: Batch, keep: Sequence[int] | None, file: str, rules: Rules, tally: Tally) -> None:
    """Rows of `rl`: the question, and that its reference can be scored against."""
    say = Say(tally, file)
    for row in rows_of(batch, QUESTION, keep):
        _question_row(say, row, rules, tally, usable=True)


def _question_row(say: Say, row: tuple[Any, ...], rules: Rules, tally: Tally, *, usable: bool) -> None:
    say.row, sample_id, problem_id, problem, problem_type, data_type, options, solution, path, origin = row
    tally.table[data_type, problem_type] += 1
    if not usable:
        return  # a pool row that could not be read: its fields are as it was found, its id may be another's
    kind, reference = check_question(
        say, problem_type, data_type, options=options, solution=solution, path=path
    )
    if kind is not None and reference is not None:
        got = rescore(kind, reference, reference, options, rules.spec.policy)
        if got.value is None:
            expected = f"a reference of type {problem_type}: {got.detail}"
            say(Code.BAD_REFERENCE, "solution", solution, expected)
    content = "\0".join((problem, "\1".join(options), path))
    rest = "\0".join((problem_id, problem_type, data_type, solution, origin))
    tally.remember(say.row, sample_id, content, f"{content}\0{rest}")


_REJECTED = (
    "outcome",
    "stage",
    "reason",
    "output",
    "reward",
    "attempt",
    "generation_key",
    "judge_key",
    "synthetic",
)


def check_rejected(batch: Batch, keep: Sequence[int] | None, file: str, rules: Rules, tally: Tally) -> None:
    """Rows of `rejected`: the reason is one of its stage, and the output shows it."""
    say = Say(tally, file)
    for row in rows_of(batch, QUESTION + _REJECTED, keep):
        outcome, stage, reason, output, reward, _, generation_key, judge_key, synthetic = row[10:]
        _question_row(say, row[:10], rules, tally, usable=stage != Stage.POOL.value)
        tally.outcomes[outcome] += 1
        tally.reasons[f"{stage}/{reason}"] += 1
        if outcome not in (Outcome.REJECTED.value, Outcome.FAILED.value):
            say(Code.BAD_REASON, "outcome", outcome, "rejected | failed")
        elif reason not in _STAGE_REASONS.get(stage, ()):
            known = sorted(_STAGE_REASONS.get(stage, ())) or [s.value for s in Stage]
            say(Code.BAD_REASON, "reason" if stage in _STAGE_REASONS else "stage", f"{stage}/{reason}", known)
        else:
            _check_reason(say, rules, reason, output, reward)
        for name, key in (("generation_key", generation_key), ("judge_key", judge_key)):
            if key and not HEX.match(key):
                say(Code.BAD_KEY, name, key, "64 hexadecimal digits, or empty")
        if rules.synthetic is not None and synthetic is not rules.synthetic:
            say(Code.SYNTHETIC, "synthetic", synthetic, f"{rules.synthetic}, as in the recipe")


def _check_reason(say: Say, rules: Rules, reason: str, output: str, reward: float | None) -> None:
    if reward is not None and not 0.0 <= reward <= 1.0:
        say(Code.BAD_VALUE, "reward", reward, "0 to 1, or null")
        return
    if reason in _FAULTS:
        fault = segment_spans(output).fault
        if fault is None or fault.value != reason:
            say(Code.REASON_DIFFERS, "reason", reason, f"{fault}, the fault of this output")
    elif reason in ("insufficient", "no_verdict", "low_score"):
        fault = segment_spans(output).fault
        if fault is not None:
            say(Code.REASON_DIFFERS, "reason", reason, f"{fault}, the fault of this output")
        elif reward is None or (reward < rules.spec.threshold) != (reason == "low_score"):
            side = "below" if reason == "low_score" else "not below"
            say(Code.REASON_DIFFERS, "reward", reward, f"a score {side} {rules.spec.threshold}")
