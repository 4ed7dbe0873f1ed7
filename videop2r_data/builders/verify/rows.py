"""Rows of the three configs: questions, traces re-parsed and re-scored, reasons of rejection checked."""

from __future__ import annotations

import math
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, cast, get_args

from videop2r_data.builders.verify.judged import check_judged
from videop2r_data.builders.verify.report import Code, Rules, Severity, Tally
from videop2r_data.errors import TraceError
from videop2r_data.files import Batch
from videop2r_data.schemas import (
    LETTERS,
    Check,
    DataType,
    Outcome,
    Policy,
    ProblemType,
    QuestionColumns,
    RejectReason,
    Sample,
    Score,
    ScoreReason,
    SftRow,
    Shown,
    Stage,
    TimesKind,
    TraceFault,
    TraceGrammar,
    default_grammar,
    parse_trace,
    part_fault,
    reasons_of,
    rejected_row_of,
    render_trace,
    rl_row_of,
    safe_relative_path,
    sft_row_of,
    trace_parser,
)
from videop2r_data.validators import (
    check_observation,
    holds_verdict_tag,
    score,
    think_choice,
    think_number,
    verify_completion,
)

# The question, which every config has.


HEX = re.compile(r"[0-9a-f]{64}\Z")
DATA_TYPES = {t.value for t in DataType}
_TYPES: dict[str, ProblemType] = {t.value: t for t in ProblemType}
PLAIN_PATH = r"\A[A-Za-z0-9_-][A-Za-z0-9_. -]*(?:/[A-Za-z0-9_-][A-Za-z0-9_. -]*)*\z"
"""A path that is safe beyond doubt, as RE2 writes it; Python writes `\\Z` for its last part."""
_PLAIN_PATH = re.compile(PLAIN_PATH[:-1] + "Z")
_LABEL = re.compile(r"\s*[(\[]?([A-Z])\s*[.):\]]")


class Say:
    """Reports faults of the current row."""

    def __init__(self, tally: Tally, file: str) -> None:
        self.tally = tally
        self.file = file
        self.row = 0

    def __call__(self, code: Code, field: str, got: Any, expected: Any, severity: Severity = "error") -> None:
        """One fault in one field of the row."""
        place = (self.file, self.row, field)
        self.tally.findings.add(code, *place, got=got, expected=expected, severity=severity)


RowModel = TypeVar("RowModel", bound=QuestionColumns)


@cache
def _light(model: type[RowModel]) -> Callable[[Iterable[Any]], RowModel]:
    """Make of a row's cells a tuple with the attributes of its model.

    The model itself would validate every cell, which is what the checks below do, with a place and a code.
    """
    cells = namedtuple(model.__name__, model.model_fields)  # type: ignore[misc]
    return cast("Callable[[Iterable[Any]], RowModel]", cells._make)


def rows_of(
    batch: Batch, model: type[RowModel], keep: Sequence[int] | None = None
) -> Iterator[tuple[int, RowModel]]:
    """(index in the file, row) of the kept positions, or of all; cells are read by their field names."""
    columns = [batch.columns[name] for name in model.model_fields]
    rows = zip(batch.index, map(_light(model), zip(*columns, strict=True)), strict=True)
    if keep is None or len(keep) == len(batch.index):
        return rows
    kept = set(keep)
    return (row for at, row in enumerate(rows) if at in kept)


REST = ("problem_id", "problem_type", "data_type", "solution", "data_source")
"""Columns in which a question must be the same in two configs, besides problem, options and path."""


def remember(tally: Tally, index: int, row: QuestionColumns, output: str | None = None) -> None:
    """Keep the digests of a row; `quick` hashes the same bytes of a whole batch."""
    content = "\0".join((row.problem, "\1".join(row.options), row.path, *_part_of(row)))
    rest = "\0".join([getattr(row, name) for name in REST])
    shown = content if output is None else f"{content}\0{output}"
    tally.remember(index, row.sample_id, shown, f"{content}\0{rest}")


def check_question(
    say: Say, problem_type: str, data_type: str, *, options: list[str], solution: str, path: str
) -> tuple[ProblemType | None, str | None]:
    """What every config says of its question.

    Returns:
        Type and reference, each None where it cannot be told.
    """
    kind = _TYPES.get(problem_type)
    if kind is None:
        say(Code.UNKNOWN_PROBLEM_TYPE, "problem_type", problem_type, " | ".join(_TYPES))
    if data_type not in DATA_TYPES:
        say(Code.UNKNOWN_DATA_TYPE, "data_type", data_type, " | ".join(sorted(DATA_TYPES)))
    reference = inner_answer(solution)
    if reference is None:
        say(Code.BAD_SOLUTION, "solution", solution, "<answer>…</answer>, once and not blank")
    fault = options_fault(kind, options)
    if fault:
        say(Code.BAD_OPTIONS, "options", options, fault)
        reference = None  # without valid options the reference has no meaning: no second finding
    if path and not _PLAIN_PATH.match(path):
        try:
            safe_relative_path(path)
        except ValueError:
            say(Code.UNSAFE_PATH, "path", path, "a relative POSIX path that stays in its root")
    if (data_type == "text") != (path == "") and data_type in DATA_TYPES:
        say(Code.PATH_AND_DATA_TYPE, "path", path, "empty for text, else a file")
    return kind, reference


def _part_of(row: Any) -> tuple[str, ...]:
    """The part of its clip that a question is about, as texts; nothing where its data set has no parts."""
    return (f"{row.start_s}", f"{row.end_s}") if hasattr(row, "start_s") else ()


def _check_question(say: Say, row: Any) -> tuple[ProblemType | None, str | None]:
    if hasattr(row, "start_s") and row.data_type in DATA_TYPES:
        fault = part_fault(row.start_s, row.end_s, DataType(row.data_type))
        if fault:
            say(Code.BAD_VALUE, "start_s", [row.start_s, row.end_s], f"a part of a clip: {fault}")
    return check_question(
        say, row.problem_type, row.data_type, options=row.options, solution=row.solution, path=row.path
    )


def kind_of(problem_type: str) -> ProblemType | None:
    """The type of this name, if there is one."""
    return _TYPES.get(problem_type)


def inner_answer(solution: str) -> str | None:
    """The reference inside its one tag, or None if it is not well formed.

    >>> inner_answer("<answer> A </answer>"), inner_answer("A")
    ('A', None)
    """
    text = solution.strip()
    if not (text.startswith("<answer>") and text.endswith("</answer>")):
        return None
    inner = text[8:-9].strip()
    return None if not inner or "<answer>" in inner or "</answer>" in inner else inner


def options_fault(kind: ProblemType | None, options: list[str]) -> str:
    """What is wrong with the options of a question, or an empty text."""
    if kind is None or kind.traits.form != "option":
        return ""
    if len(options) < 2:
        return "2 options or more"
    labels = [match.group(1) for option in options if (match := _LABEL.match(option))]
    if "" in map(str.strip, options):
        return "no blank option"
    if labels and (len(labels) != len(options) or len(set(labels)) != len(labels)):
        return "a different letter before each option"
    return ""


# `sft`: traces re-parsed, answers re-scored, every field against every other.


TOLERANCE = 1e-9
"""Between a reward and its recomputation."""
_LEADS = [f"{letter}." for letter in LETTERS]
_PLAIN_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?\Z")
_RIGHT = Score(value=1.0, reason=ScoreReason.MATCH)
_SAID_ELSEWHERE = (RejectReason.LOW_SCORE, RejectReason.UNSCORABLE, RejectReason.BAD_REFERENCE)
TIMES = get_args(TimesKind)
_FRAMES_OF = {"text": 0, "image": 1}
"""Frames of a row by data type; a clip has one or more."""


def check_sft(batch: Batch, keep: Sequence[int] | None, file: str, rules: Rules, tally: Tally) -> None:
    """Rows of `sft`: re-parsed, re-scored, every field against every other."""
    say = Say(tally, file)
    for index, row in rows_of(batch, sft_row_of(rules.grammar, rules.extra), keep):
        check_row(say, rules, index, row)
        tally.table[row.data_type, row.problem_type] += 1
        remember(tally, index, row, row.output)


def check_row(say: Say, rules: Rules, index: int, row: SftRow) -> None:
    """One row, as `rows_of` gives it."""
    say.row = index
    kind, reference = _check_question(say, row)
    check_trace(say, row, rules.grammar)
    _check_reward(say, rules, row, kind, reference)
    if kind is not None:
        leak = check_observation(
            row.observation, problem=row.problem, options=row.options, answer=row.answer, problem_type=kind
        )
        if not rules.own or not rules.spec.checks_leaks:
            note_leak(say, "sft", leak)
        if rules.own and not _surely_passes(rules, kind, row, leak):
            _verify_step(say, rules, row, kind)
    check_calls(say, rules, row)
    if rules.extra.judged:
        check_judged(say, rules, row, kept=True)
    check_frames(say, row)
    check_origin(say, row)


def _check_reward(
    say: Say, rules: Rules, row: SftRow, kind: ProblemType | None, reference: str | None
) -> None:
    if not 0.0 <= row.reward <= 1.0:
        say(Code.BAD_VALUE, "reward", row.reward, "0 to 1")
    elif row.reward < rules.spec.threshold:
        say(Code.BELOW_THRESHOLD, "reward", row.reward, f"{rules.spec.threshold} or more")
    elif kind is not None and reference is not None:
        got = rescore(kind, row.answer, reference, row.options, rules.spec.policy)
        if got.value is None:
            expected = f"a reference of type {kind.value}: {got.detail}"
            say(Code.BAD_REFERENCE, "solution", row.solution, expected)
        elif abs(got.value - row.reward) > TOLERANCE:
            say(Code.REWARD_DIFFERS, "reward", row.reward, f"{got.value} ({got.reason.value})")


def rescore(kind: ProblemType, answer: str, reference: str, options: list[str], policy: Policy) -> Score:
    """The score of an answer; plain right answers are recognised without calling the scorer.

    An answer that is its reference to the letter, one of the plain labels `A.`, `B.` ... of its options or a
    plain number, scores 1 in both profiles: a test compares this with the scorer.
    """
    if answer == reference:
        grader = kind.traits.grader
        if grader == "choice":
            leads = [option[:2] for option in options]
            if answer + "." in leads and leads == _LEADS[: len(leads)]:
                return _RIGHT
        elif grader == "number" and _PLAIN_NUMBER.match(answer):
            return _RIGHT
    return score(kind, prediction=answer.strip(), reference=reference, options=tuple(options), policy=policy)


def note_leak(say: Say, config: str, leak: Check) -> None:
    """Count an observation that no rule of this release forbids, and that the profile `robust` would drop."""
    if leak.reason is RejectReason.LEAKED_ANSWER:
        say.tally.notes[f"{config}: observation states the answer"] += 1
    elif leak.reason is RejectReason.HOLLOW_OBSERVATION:
        say.tally.notes[f"{config}: observation says nothing"] += 1


def _surely_passes(rules: Rules, kind: ProblemType, row: SftRow, leak: Check) -> bool:
    """Whether the recipe's optional checks cannot drop this row, so that they need not be run."""
    if (
        rules.bounded
        or rules.grammar != default_grammar()
        or row.output.count("<") != 6
        or holds_verdict_tag(row.output)
    ):
        return False
    if rules.spec.checks_leaks and leak.reason is not None:
        return False
    return not rules.spec.checks_consistency or passes_consistency(kind, row.think, row.answer, row.options)


def passes_consistency(kind: ProblemType, think: str, answer: str, options: list[str]) -> bool:
    """Whether the think segment surely does not settle on another answer; False: ask the verify step."""
    form = kind.traits.form
    if form == "number":
        return think_number(think) is None
    if form != "option":
        return True
    concluded = think_choice(think, tuple(options))
    return concluded is None or concluded == answer


def _verify_step(say: Say, rules: Rules, row: Any, kind: ProblemType) -> None:
    """The recipe's own verify step once more, for what no other check says."""
    # not validated again: the fields were looked at one by one
    sample = Sample.model_construct(
        sample_id=row.sample_id,
        problem_id=row.problem_id,
        problem=row.problem,
        problem_type=kind,
        data_type=row.data_type,
        options=tuple(row.options),
        solution=row.solution,
        path=row.path,
        data_source=row.data_source,
        source="",
        row=say.row,
    )
    if rules.extra.clips:
        shown = Shown(row.clip_s, row.clip_frames)
    else:
        start_s = getattr(row, "start_s", None)
        shown = Shown.by_frames(row.frame_indices, row.frame_times_s, row.times, start_s=start_s)
    verified = verify_completion(row.output, sample, rules.spec, rules.grammar, shown)
    reason = verified.check.reason
    if verified.trace is not None and reason is not None and reason not in _SAID_ELSEWHERE:
        got = f"{reason.value}: {verified.check.detail}"
        say(Code.VERIFY_STEP, "output", got, "what the recipe lets pass")


def check_trace(say: Say, row: SftRow, grammar: TraceGrammar) -> None:
    """The output is a canonical trace of the grammar, and what it says stands in its columns."""
    try:
        trace = parse_trace(row.output, grammar)
    except TraceError as error:
        got = f"{error.fault} at character {error.at}: {error.message}"
        say(Code.TRACE_FAULT, "output", got, f"a trace of the grammar {grammar.name}")
        return
    for name, expected in trace.columns().items():
        have = getattr(row, name)
        if have != expected:
            say(Code.SEGMENT_DIFFERS, name, have, expected)
    canonical = render_trace(trace)
    if row.output != canonical:
        say(Code.NOT_CANONICAL, "output", row.output, canonical)


def check_calls(say: Say, rules: Rules, row: SftRow) -> None:
    """Verdict, keys of the calls, attempt and the synthetic mark."""
    allowed = {True: ("Yes",), False: ("",), None: ("Yes", "")}[rules.judge]
    if row.judgement not in allowed:
        say(Code.JUDGEMENT, "judgement", row.judgement, " or ".join(map(repr, allowed)))
    if not HEX.match(row.generation_key):
        say(Code.BAD_KEY, "generation_key", row.generation_key, "64 hexadecimal digits")
    if row.judge_key and not HEX.match(row.judge_key):
        say(Code.BAD_KEY, "judge_key", row.judge_key, "64 hexadecimal digits")
    elif row.judgement in allowed and bool(row.judge_key) != bool(row.judgement):
        say(Code.JUDGEMENT, "judge_key", row.judge_key, "a key with a judgement, none without")
    if row.attempt < 0:
        say(Code.BAD_VALUE, "attempt", row.attempt, "0 or more")
    _check_synthetic(say, rules, row.synthetic)


def _check_synthetic(say: Say, rules: Rules, synthetic: bool) -> None:
    if rules.synthetic is not None and synthetic is not rules.synthetic:
        say(Code.SYNTHETIC, "synthetic", synthetic, f"{rules.synthetic}, as in the recipe")


def check_origin(say: Say, row: SftRow) -> None:
    """Where a clip's times come from, and how much of its file was not there."""
    known = ("", *TIMES) if row.data_type == "video" else ("",)
    if row.data_type in DATA_TYPES and row.times not in known:
        say(Code.FRAMES, "times", row.times, " or ".join(map(repr, known)))
    if row.media_missing is not None and not 0 <= row.media_missing <= 1:
        say(Code.FRAMES, "media_missing", row.media_missing, "0 to 1, or null")


def check_frames(say: Say, row: Any) -> None:
    """Sampled frames: as many times as indices, both increasing; none for text, one for an image."""
    indices, times, data_type, fps = row.frame_indices, row.frame_times_s, row.data_type, row.source_fps
    count = len(indices)
    if count != len(times):
        say(Code.FRAMES, "frame_times_s", f"{len(times)} times", f"{count}, one per frame index")
    elif count > 1 and not (increasing(indices) and increasing(times)):
        say(Code.FRAMES, "frame_times_s", f"{indices} at {times}", "both strictly increasing")
    elif count and (indices[0] < 0 or not 0 <= times[0] < math.inf):
        say(Code.FRAMES, "frame_indices", f"{indices[0]} at {times[0]} s", "0 or more")
    elif data_type in DATA_TYPES and count != _FRAMES_OF.get(data_type, count or 1):
        say(Code.FRAMES, "frame_indices", f"{count} frames", f"what fits {data_type}")
    if count > 1 and hasattr(row, "start_s") and data_type == "video":
        start, end = row.start_s or 0.0, math.inf if row.end_s is None else row.end_s
        if not (round(start, 6) <= times[0] and times[-1] <= round(end, 6)):
            say(Code.FRAMES, "frame_times_s", f"{times[0]} to {times[-1]}", f"within {start} to {end}")
    if fps is not None and not 0 < fps < math.inf:
        say(Code.FRAMES, "source_fps", fps, "more than 0, or null")
    media = row.media_sha256
    if media and not HEX.match(media):
        say(Code.BAD_KEY, "media_sha256", media, "64 hexadecimal digits")
    elif data_type in DATA_TYPES and (data_type == "text") != (media == ""):
        say(Code.BAD_KEY, "media_sha256", media, "empty for text, else a digest")


def increasing(values: Sequence[float]) -> bool:
    """Strictly increasing; False with a NaN, True for none or one.

    >>> increasing([1, 2, 4]), increasing([1, 1]), increasing([1.0, float("nan"), 3.0])
    (True, False, False)
    """
    return all(map(float.__lt__, map(float, values), map(float, values[1:])))


# `rl` and `rejected`: the question, and for a rejected row whether its reason holds.


_FAULTS = {f.value for f in TraceFault}
_STAGE_REASONS: dict[str, set[str]] = {
    stage.value: {reason.value for reason in reasons_of(stage)} for stage in Stage
}


def check_rl(batch: Batch, keep: Sequence[int] | None, file: str, rules: Rules, tally: Tally) -> None:
    """Rows of `rl`: the question, and that its reference can be scored against."""
    say = Say(tally, file)
    for index, row in rows_of(batch, rl_row_of(rules.extra), keep):
        _question_row(say, rules, index, row, usable=True)


def _question_row(say: Say, rules: Rules, index: int, row: QuestionColumns, *, usable: bool) -> None:
    say.row = index
    say.tally.table[row.data_type, row.problem_type] += 1
    if not usable:
        return  # an unreadable pool row: its fields are raw and its id may belong to another row
    kind, reference = _check_question(say, row)
    if kind is not None and reference is not None:
        got = rescore(kind, reference, reference, row.options, rules.spec.policy)
        if got.value is None:
            expected = f"a reference of type {row.problem_type}: {got.detail}"
            say(Code.BAD_REFERENCE, "solution", row.solution, expected)
    remember(say.tally, index, row)


def check_rejected(batch: Batch, keep: Sequence[int] | None, file: str, rules: Rules, tally: Tally) -> None:
    """Rows of `rejected`: the reason is one of its stage, and the output shows it."""
    say = Say(tally, file)
    for index, row in rows_of(batch, rejected_row_of(rules.extra), keep):
        stage, reason = row.stage, row.reason
        _question_row(say, rules, index, row, usable=stage != Stage.POOL.value)
        tally.outcomes[row.outcome] += 1
        tally.reasons[f"{stage}/{reason}"] += 1
        if row.outcome not in (Outcome.REJECTED.value, Outcome.FAILED.value):
            say(Code.BAD_REASON, "outcome", row.outcome, "rejected | failed")
        elif reason not in _STAGE_REASONS.get(stage, ()):
            known = sorted(_STAGE_REASONS.get(stage, ())) or [s.value for s in Stage]
            say(Code.BAD_REASON, "reason" if stage in _STAGE_REASONS else "stage", f"{stage}/{reason}", known)
        else:
            _check_reason(say, rules, reason, row.output, row.reward)
        for name, key in (("generation_key", row.generation_key), ("judge_key", row.judge_key)):
            if key and not HEX.match(key):
                say(Code.BAD_KEY, name, key, "64 hexadecimal digits, or empty")
        _check_synthetic(say, rules, row.synthetic)
        if rules.extra.judged:
            check_judged(say, rules, row, kept=False)


def _check_reason(say: Say, rules: Rules, reason: str, output: str, reward: float | None) -> None:
    if reward is not None and not 0.0 <= reward <= 1.0:
        say(Code.BAD_VALUE, "reward", reward, "0 to 1, or null")
        return
    if reason in _FAULTS:
        fault = trace_parser(rules.grammar).spans(output).fault
        if fault is None or fault.value != reason:
            say(Code.REASON_DIFFERS, "reason", reason, f"{fault}, the fault of this output")
    elif reason in ("insufficient", "no_verdict", "contradicted", "unsupported", "low_score"):
        fault = trace_parser(rules.grammar).spans(output).fault
        if fault is not None:
            say(Code.REASON_DIFFERS, "reason", reason, f"{fault}, the fault of this output")
        elif reward is None or (reward < rules.spec.threshold) != (reason == "low_score"):
            side = "below" if reason == "low_score" else "not below"
            say(Code.REASON_DIFFERS, "reward", reward, f"a score {side} {rules.spec.threshold}")
