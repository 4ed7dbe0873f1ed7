"""Rows of the paper's official release, or of a folder with its columns.

What its columns hold is documented only in words, so where two readings are plausible both pass and the
report says how often each was seen: `answer` is the reference or the model's answer, segments come with or
without their tags, white space around segments is free, and cells may be text (in the RL files `options`,
`reward` and `select` are).
"""

from __future__ import annotations

import ast
import math
import re
from typing import Any

import orjson

from videop2r_data.builders.verify.report import Code, Rules, Tally
from videop2r_data.builders.verify.rows import Say, check_question, note_leak, rescore
from videop2r_data.files import MISSING, Batch
from videop2r_data.schemas import ROBUST, ProblemType, segment_spans, strip_answer_tag
from videop2r_data.validators import check_observation

TEXTS = ("problem", "solution", "path", "data_type", "problem_type")
TRACE = ("observation", "process", "output")
COLUMNS = (
    *TEXTS,
    *TRACE,
    "options",
    "answer",
    "data_source",
    "problem_id",
    "reward",
    "select",
    "clean_version",
)
REQUIRED = {"sft": (*TEXTS, "options", *TRACE, "reward"), "rl": (*TEXTS, "options"), "rejected": TEXTS}
TOLERANCE = 5e-3
"""Between a reward and its recomputation: how its metrics were implemented or rounded is not said."""
MAX_OPTIONS_TEXT = 100_000
_PLAIN_PROCESS = re.compile(r"<think>([^<]*)</think>\s*<answer>([^<]*)</answer>\Z")
_TAGS = re.compile(r"</?(?:observation|think|answer)>")


def check_official(batch: Batch, config: str, file: str, rules: Rules, tally: Tally) -> None:
    """Rows of one file; `rl` is unfiltered, so that a low reward or a broken trace is no fault there."""
    say = Say(tally, file)
    names = [name for name in COLUMNS if name in batch.columns]
    absent = [name for name in REQUIRED[config] if name not in batch.columns]
    for name in absent:
        say.row = batch.start
        tally.findings.add(
            Code.BAD_VALUE, file, batch.start, name, got=MISSING, expected="a value", count=len(batch.index)
        )
    if absent:
        return
    for at, *values in zip(batch.index, *(batch.columns[name] for name in names), strict=True):
        say.row = at
        _check_row(say, dict(zip(names, values, strict=True)), config, rules)


def _check_row(say: Say, row: dict[str, Any], config: str, rules: Rules) -> None:
    options = parse_options(row.get("options", []))
    if not _has_types(say, row, config, options):
        return
    assert options is not None
    tally, problem_type, solution = say.tally, row["problem_type"], row["solution"]
    tally.table[row["data_type"], problem_type] += 1
    if not solution.lstrip().startswith("<answer>"):
        tally.notes[f"{config}: solution without its tag"] += 1
        solution = f"<answer>{solution}</answer>"
    kind, reference = check_question(
        say, problem_type, row["data_type"], options=options, solution=solution, path=row["path"]
    )
    output = row.get("output")
    if isinstance(output, str) and (config == "sft" or output.strip()):
        answer = _check_segments(say, row, output, config)
        if answer is not None and kind is not None and isinstance(row.get("observation"), str):
            bare, problem = _bare(row["observation"]), row["problem"]
            leak = check_observation(bare, problem=problem, options=options, answer=answer, problem_type=kind)
            note_leak(say, config, leak)
        if answer is not None and kind is not None and reference is not None:
            _check_answer(say, row, config, answer, reference)
            _check_reward(
                say, row, config, kind=kind, answer=answer, reference=reference, options=options, rules=rules
            )
    question = "\0".join((row["problem"], "\1".join(options), row["path"]))
    tally.remember(say.row, str(row.get("problem_id", "")), f"{question}\0{output}", question)


def _has_types(say: Say, row: dict[str, Any], config: str, options: list[str] | None) -> bool:
    sound = True
    for name in REQUIRED[config]:
        if name not in ("options", "reward") and not isinstance(row[name], str):
            say(Code.BAD_VALUE, name, row[name], "text")
            sound = False
    if options is None:
        say(Code.BAD_OPTIONS, "options", row["options"], "a list of texts, or such a list as text")
        sound = False
    return sound


def parse_options(value: Any) -> list[str] | None:
    """Options as a list, a JSON text or the text of a Python list; None if it is none of them.

    >>> parse_options("['A. x', 'B. y']"), parse_options(None), parse_options(3)
    (['A. x', 'B. y'], [], None)
    """
    if value is None or value is MISSING:
        return []
    if isinstance(value, str):
        text = value.strip()
        if text in ("", "[]", "None", "null"):
            return []
        value = _parse_list(text)
    if isinstance(value, list) and all(isinstance(option, str) for option in value):
        return value
    return None


def _parse_list(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    if len(text) > MAX_OPTIONS_TEXT or not text.startswith("["):
        return None
    try:
        return ast.literal_eval(text)  # literals only: nothing is run
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def parse_reward(value: Any) -> float | None:
    """A number, or a text of one; None if it is neither or not finite.

    >>> parse_reward("0.75"), parse_reward("nan"), parse_reward(True)
    (0.75, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bare(text: Any) -> str:
    """A segment without tags and without the white space around its parts."""
    return " ".join(_TAGS.sub(" ", text).split()) if isinstance(text, str) else ""


def _check_segments(say: Say, row: dict[str, Any], output: str, config: str) -> str | None:
    """The model's answer if the output is a trace; its segments are compared with the columns."""
    plain = _PLAIN_PROCESS.match(row["process"]) if isinstance(row.get("process"), str) else None
    if (
        plain
        and output.count("<") == 6
        and output == f"<observation>{row['observation']}</observation> {plain[0]}"
    ):
        segments = (row["observation"], plain[1], plain[2])
        if "" not in map(str.strip, segments):
            return plain[2]  # six tags, all of them the template's own: nothing else to parse
    spans = segment_spans(output)
    if spans.fault is not None or not (spans.observation and spans.think and spans.answer):
        if config == "sft":
            fault = f"{spans.fault} at character {spans.at}"
            say(Code.TRACE_FAULT, "output", fault, "a trace of three segments")
        else:
            say.tally.notes["rl: output is no trace of three segments"] += 1
        return None
    observation, think, answer = (
        output[s.start : s.end] for s in (spans.observation, spans.think, spans.answer)
    )
    if _bare(row.get("observation")) != _bare(observation):
        _differs(say, config, "observation", row.get("observation"), observation)
    process, bare_think = row.get("process"), _bare(think)
    if _bare(process) == f"{bare_think} {_bare(answer)}":
        pass
    elif _bare(process) == bare_think:
        say.tally.notes[f"{config}: process holds the think segment alone"] += 1
    else:
        _differs(say, config, "process", process, f"<think>{think}</think><answer>{answer}</answer>")
    return answer


def _differs(say: Say, config: str, field: str, got: Any, expected: str) -> None:
    say(Code.SEGMENT_DIFFERS, field, got, expected, "error" if config == "sft" else "warning")


def _check_answer(say: Say, row: dict[str, Any], config: str, answer: str, reference: str) -> None:
    column = row.get("answer", MISSING)
    if column is MISSING:
        return
    text = strip_answer_tag(column) if isinstance(column, str) else str(column)
    if text == reference:
        say.tally.notes[f"{config}: answer holds the reference"] += 1
    elif text == answer.strip():
        say.tally.notes[f"{config}: answer holds the model's answer"] += 1
    else:
        _differs(
            say, config, "answer", column, f"the reference {reference!r} or the model's answer {answer!r}"
        )


def _check_reward(
    say: Say,
    row: dict[str, Any],
    config: str,
    *,
    kind: ProblemType,
    answer: str,
    reference: str,
    options: list[str],
    rules: Rules,
) -> None:
    """The reward is the score by the paper's graders or by ours; a difference is a warning."""
    value = row.get("reward", MISSING)
    if config == "rl" and value in (MISSING, None, "", "None"):
        return
    reward = parse_reward(value)
    if reward is None:
        say(Code.BAD_VALUE, "reward", value, "a finite number, or a text of one")
        return
    if config == "sft" and reward < rules.spec.threshold:
        say(Code.BELOW_THRESHOLD, "reward", reward, f"{rules.spec.threshold} or more")
        return
    seen = []
    for policy in (rules.spec.policy, ROBUST):
        got = rescore(kind, answer, reference, options, policy)
        if got.value is not None and abs(got.value - reward) <= TOLERANCE:
            return
        seen.append(got)
    if all(got.value is None for got in seen):
        say(Code.BAD_REFERENCE, "solution", reference, f"a reference of type {kind.value}", "warning")
        return
    say(Code.REWARD_DIFFERS, "reward", reward, " or ".join(f"{got.value}" for got in seen), "warning")
