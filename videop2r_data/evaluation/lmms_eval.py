"""Answers for lmms-eval 0.7 and its graders.

They look for a letter anywhere in a completion, so that what a model saw counts as its answer; given the
answer alone they are right. Nothing of lmms-eval is imported: what is written are logs as it writes them.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.result import read_result
from videop2r_data.schemas import BenchmarkResult, EvalResult, EvalRow, ProblemType
from videop2r_data.validators import option_set, read_choice

NO_ANSWER = "???"
"""Stands for no answer: no letter, number or word, and not empty, which some of its graders leave out."""
_TIME = "0101_0000"
"""from_log reads a time of this form; a log of ours has none, so that equal results give equal files."""


def plain_answer(
    answer: str | None, problem_type: str, options: Sequence[str], *, in_words: bool = False
) -> str:
    """An answer as lmms-eval's graders take it for what it is.

    Args:
        answer: as it was read out of a completion.
        in_words: of a choice the text of the option, not its letter.

    Returns:
        One option, or the answer as it stands for other types; `NO_ANSWER` for everything that is none.

    >>> plain_answer("(B) dog", "multiple choice", ["A. cat", "B. dog"])
    'B'
    >>> plain_answer("A or B", "multiple choice", ["A. cat", "B. dog"])
    '???'
    """
    if not answer or not answer.strip():
        return NO_ANSWER
    if problem_type != ProblemType.MULTIPLE_CHOICE.value:
        return answer.strip()
    known = option_set(tuple(options))
    label = read_choice(answer, known).label
    if label is None:
        return NO_ANSWER
    return known.texts[known.labels[label]] if in_words else label


@dataclass
class Exported:
    """What became of one benchmark.

    Attributes:
        tasks: task of lmms-eval -> questions.
        unanswered: questions whose answer stands as `NO_ANSWER`.
        outside: questions that no task of lmms-eval asks.
        no_log: why from_log gets nothing; empty: it does.
    """

    benchmark: str
    tasks: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    outside: int = 0
    no_log: str = ""


def export_logs(folder: Path, out: Path) -> list[Exported]:
    """Write the answers of a result as lmms-eval logs them.

    `out/MODEL/TASK.json` is what its model `from_log` reads; `out/MODEL/samples_TASK.jsonl` has the layout of
    its own logger: `filtered_resps` is the answer that was read, `resps` the whole completion.

    Args:
        folder: of a result, as `p2r-train eval` writes it.
        out: a new or empty folder.

    Raises:
        ConfigError: no result, `out` holds something, or no benchmark of the result is one of lmms-eval's.
    """
    result = read_result(folder)
    must_be_new(out)
    target = out / (re.sub(r"[^\w.-]+", "__", result.model).strip(".") or "model")
    done = [_export(folder, result, one, target) for one in result.benchmarks]
    if not any(one.tasks for one in done):
        told = "; ".join(f"{one.benchmark}: {one.no_log or 'no question of its tasks'}" for one in done)
        raise ConfigError(f"nothing to export: {told}", where=str(folder))
    return done


def _export(folder: Path, result: EvalResult, one: BenchmarkResult, target: Path) -> Exported:
    asked = {pool.get("name"): pool.get("benchmark", "") for pool in result.plan.get("benchmarks", ())}
    name = asked.get(one.name)
    there = load_benchmark(name).lmms_eval if name in packaged_benchmarks() else None
    if there is None:
        return Exported(one.name, no_log="lmms-eval has no task for it")
    from videop2r_data.evaluation.page import read_rows  # not in the environment of lmms-eval

    done, samples = Exported(one.name), defaultdict[str, list[dict[str, Any]]](list)
    for row in read_rows(folder, result.model_copy(update={"benchmarks": (one,)})):
        tags = {tag.name: tag.value for tag in row.tags}
        task = there.name(tags)
        if not task:
            done.outside += 1
            continue
        options, in_words = row.options, there.in_words(tags)
        answer = plain_answer(row.reply.answer, row.problem_type, options, in_words=in_words)
        done.tasks[task] += 1
        done.unanswered += answer == NO_ANSWER
        samples[task].append(_sample(len(samples[task]), row, answer))
    done.no_log = _unplaced(one, there.layout, done.outside)
    for task, some in samples.items():
        write(target / f"samples_{task}.jsonl", "".join(as_json(sample) + "\n" for sample in some))
        if not done.no_log:
            write(target / f"{task}.json", as_json(_log(task, some, result.model)) + "\n")
    return done


def _unplaced(one: BenchmarkResult, layout: str, outside: int) -> str:
    """Why the place of a row here is not the number of its document there; empty: it is."""
    if one.layout != layout:
        ours = one.layout or "an unknown one"
        return f"lmms-eval's data set has the layout {layout}, and the rows here have {ours}"
    if one.selection:
        return f"from_log needs an answer to every question, and these are {one.selection}"
    if one.rows_bad and outside:
        return "rows that cannot be read belong to no task, so that the places behind them are open"
    return ""


def _sample(doc_id: int, row: EvalRow, answer: str) -> dict[str, Any]:
    """A line of lmms-eval's own log; behind `doc_hash`, what it does not have."""
    return {
        "doc_id": doc_id,
        "target": row.reference,
        "filtered_resps": answer,
        "resps": [row.reply.text],
        "input": row.problem,
        "token_counts": [{"output_tokens": row.reply.output_tokens}],
        "doc_hash": "",
        "sample_id": row.sample_id,
        **row.reply.model_dump(include={"answer", "place", "score", "reason"}),
    }


def _log(task: str, samples: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """What `from_log` reads: it takes `logs[i].resps[0][0]` as the response to document `doc_id`."""
    logs = [
        {"doc_id": one["doc_id"], "target": one["target"], "resps": [[one["filtered_resps"]]]}
        | {"completion": one["resps"][0]}
        for one in samples
    ]
    args = {"model": model, "model_args": "", "limit": None}
    return {"args": args, "model_configs": {"task": task}, "time": _TIME, "logs": logs}


def as_json(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def must_be_new(out: Path) -> None:
    """Refuse a folder that holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("it holds something already", where=str(out), hint="name a new folder")
