"""Answers for lmms-eval 0.7 and its graders.

They look for a letter anywhere in a completion, so that what a model saw counts as its answer; given the
answer alone they are right. Nothing of lmms-eval is imported: what is written are logs as it writes them.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any

from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.result import read_result
from videop2r_data.files import file_rows
from videop2r_data.schemas import (
    Benchmark,
    BenchmarkResult,
    EvalResult,
    EvalRow,
    ProblemType,
)
from videop2r_data.validators import option_set, read_choice

NO_ANSWER = "???"
"""Stands for no answer: no letter, number or word, and not empty, which some of its graders leave out."""
_TIME = "0101_0000"
"""from_log reads a time of this form; a log of ours has none, so that equal results give equal files."""
_NO_NAME = re.compile(r"[^\w.-]+")


def plain_answer(answer: str | None, problem_type: str, options: Sequence[str], form: str = "letter") -> str:
    """An answer as lmms-eval's graders take it for what it is.

    Args:
        answer: as it was read out of a completion.
        form: of a choice: its letter, or the text of the option.

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
    return label if form == "letter" else known.texts[known.labels[label]]


# --- logs of answers, for its model from_log and for people ---


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
    tasks: dict[str, int] = field(default_factory=dict)
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
    target = out / (_NO_NAME.sub("__", result.model).strip(".") or "model")
    done = [_export(folder, result, one, target) for one in result.benchmarks]
    if not any(one.tasks for one in done):
        told = "; ".join(f"{one.benchmark}: {one.no_log or 'no question of its tasks'}" for one in done)
        raise ConfigError(f"nothing to export: {told}", where=str(folder))
    return done


def _export(folder: Path, result: EvalResult, one: BenchmarkResult, target: Path) -> Exported:
    done = Exported(one.name)
    benchmark = _declared(result, one)
    if benchmark is None or benchmark.lmms_eval is None:
        done.no_log = "lmms-eval has no task for it"
        return done
    logs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for place, raw in chain.from_iterable(map(file_rows, _files(folder / one.file))):
        if isinstance(raw, str):
            raise ConfigError(f"a damaged row: {raw}", where=f"{folder}, {place}")
        row = EvalRow.model_validate(raw)
        tags = {tag.name: tag.value for tag in row.tags} | {"problem_type": row.problem_type}
        task, form = _task_of(benchmark, tags)
        if not task:
            done.outside += 1
            continue
        answer = plain_answer(row.reply.answer, row.problem_type, row.options, form)
        done.tasks[task] = done.tasks.get(task, 0) + 1
        done.unanswered += answer == NO_ANSWER
        logs[task].append(_sample(len(logs[task]), row, answer))
    done.no_log = _unplaced(one, benchmark, done)
    for task, samples in logs.items():
        write(target / f"samples_{task}.jsonl", "".join(as_json(sample) + "\n" for sample in samples))
        if not done.no_log:
            write(target / f"{task}.json", as_json(_log(task, samples, result)) + "\n")
    return done


def _files(first: Path) -> Iterator[Path]:
    """The file of rows, and those that follow it where one was not enough."""
    yield first
    numbered = (first.with_name(f"{first.stem}-{n}{first.suffix}") for n in count(1))
    yield from takewhile(Path.is_file, numbered)


def _declared(result: EvalResult, one: BenchmarkResult) -> Benchmark | None:
    pools = {pool.get("name"): pool for pool in result.plan.get("benchmarks", ())}
    name = pools.get(one.name, {}).get("benchmark")
    return load_benchmark(name) if name in packaged_benchmarks() else None


def _task_of(benchmark: Benchmark, tags: Mapping[str, str]) -> tuple[str, str]:
    assert benchmark.lmms_eval is not None
    found = ((task.name(tags), task.answer) for task in benchmark.lmms_eval.tasks)
    # tags are values of rows, and the name becomes that of a file
    return next((one for one in found if one[0] and not _NO_NAME.search(one[0])), ("", ""))


def _unplaced(one: BenchmarkResult, benchmark: Benchmark, done: Exported) -> str:
    """Why the place of a row here is not the number of its document there; empty: it is."""
    assert benchmark.lmms_eval is not None
    if one.layout != benchmark.lmms_eval.layout:
        layouts = benchmark.lmms_eval.layout, one.layout or "an unknown one"
        return "lmms-eval's data set has the layout {}, and the rows here have {}".format(*layouts)
    if one.selection:
        return f"from_log needs an answer to every question, and these are {one.selection}"
    if one.rows_bad and done.outside:
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
        "answer": row.reply.answer,
        "place": row.reply.place,
        "score": row.reply.score,
        "reason": row.reply.reason,
    }


def _log(task: str, samples: list[dict[str, Any]], result: EvalResult) -> dict[str, Any]:
    """What `from_log` reads: it takes `logs[i].resps[0][0]` as the response to document `doc_id`."""
    return {
        "args": {"model": result.model, "model_args": "", "limit": None},
        "model_configs": {"task": task},
        "time": _TIME,
        "logs": [
            {
                "doc_id": s["doc_id"],
                "target": s["target"],
                "resps": [[s["filtered_resps"]]],
                "completion": s["resps"][0],
            }
            for s in samples
        ],
    }


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
