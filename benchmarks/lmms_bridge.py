"""The bridge to lmms-eval: what its own graders make of answers that were exported, question by question.

    benchmarks/graders/setup.sh VENVS
    python -m benchmarks.lmms_bridge SAMPLES VENVS [--write]

SAMPLES is a folder of real model outputs and benchmark questions, which is not part of this repository. Each
question gets a whole trace with the right and one with a wrong option; real outputs and other documented
forms are added. They become rows of a result, the result is exported, and lmms-eval 0.7.3 grades the export
twice: its tasks' graders on each answer, and its model `from_log` from beginning to end, beside its tasks as
`export-lmms --tasks` writes them, on whole completions. Its data sets cannot be fetched without the Hub: its
tasks are given these questions in the layout of their data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks._blank import blank
from benchmarks.graders.answers import Answer, all_answers, write
from benchmarks.graders.rows import read_rows

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "graders.md"
_BEGIN, _END = "<!-- bridge -->", "<!-- end of bridge -->"
_BENCHMARKS = {
    "mvbench": "mvbench",
    "mmvu": "mmvu",
    "video_mmmu": "videommmu",
    "videomme": "video-mme",
    "video_holmes": "video-holmes",
    "tomato": "tomato",
    "longvideobench": "longvideobench",
    "mlvu_dev": "mlvu-dev",
    "vsibench": "vsi-bench",
    "tempcompass": "tempcompass",
}
"""Beginning of a task's name -> benchmark."""
_PARTS = {
    "mvbench_action_antonym": "action_antonym",
    "video_mmmu_adaptation": "Adaptation",
    "video_mmmu_comprehension": "Comprehension",
    "video_mmmu_perception": "Perception",
    "tempcompass_multi_choice": "multi-choice",
    "tempcompass_yes_no": "yes_no",
    "tempcompass_caption_matching": "caption_matching",
}
"""Task -> config of its data set."""


_TRACE = (
    "<observation>Based on the question, I need to notice Building {wrong} behind a man.</observation>"
    "<think>Based on the observations, A and B differ. A man walks by.</think><answer>{given}</answer>"
)


def questions(samples: Path) -> list[Answer]:
    """Answers to questions of lmms-eval's tasks: right and wrong traces, real outputs, other forms."""
    found = [answer for answer in all_answers(samples) if answer.task]
    for row in read_rows(samples):
        wrong = _wrong(row.reference, row.options)
        for right, given in ((True, row.reference), (False, wrong)):
            found.append(
                Answer(
                    id=f"trace/{row.id}/{right}",
                    group="made",
                    kind="letter" if row.options else "other",
                    form="trace",
                    problem_type=row.problem_type,
                    options=row.options,
                    reference=row.reference,
                    completion=_TRACE.format(wrong=wrong[:1], given=given),
                    right=right,
                    problem=row.problem,
                    task=row.task,
                    doc=row.doc,
                )
            )
    return [answer for answer in found if benchmark_of(answer.task)]


def _wrong(reference: str, options: tuple[str, ...]) -> str:
    if options:
        return next(option[0] for option in options if option[0] != reference)
    return f"{float(reference) * 3 + 1:g}" if re.fullmatch(r"-?[\d.]+", reference) else "a red bicycle"


def benchmark_of(task: str) -> str:
    """The declared benchmark of a task; empty if there is none."""
    return next((name for part, name in _BENCHMARKS.items() if task.startswith(part)), "")


# --- a result out of answers ---


@dataclass(frozen=True)
class Asked:
    """An answer, what it is worth here, and the text that stands for it in the export."""

    answer: Answer
    score: float | None
    given: str = ""


def write_result(folder: Path, answers: list[Answer]) -> dict[str, list[Asked]]:
    """The folder of a result with these answers; task -> what is in it, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from videop2r_data.evaluation import TaskReader
    from videop2r_data.schemas import EvalRow, arrow_schema

    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    asked: dict[str, list[Asked]] = defaultdict(list)
    for answer in sorted(answers, key=lambda a: a.task):
        name = benchmark_of(answer.task)
        row = _eval_row(answer, TaskReader(name, part=_PARTS.get(answer.task, "")).sample(answer.doc), name)
        rows[name].append(row.model_dump(mode="json"))
        asked[answer.task].append(Asked(answer, row.reply.score))
    (folder / "rows").mkdir(parents=True)
    for name, some in rows.items():
        table = pa.Table.from_pylist(some, schema=arrow_schema(EvalRow))
        pq.write_table(table, folder / "rows" / f"{name}.parquet")
    result = _result({name: len(some) for name, some in rows.items()})
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return asked


def _eval_row(answer: Answer, sample: Any, name: str) -> Any:
    """The row of an evaluation: read and scored as an evaluation does it."""
    from videop2r_data.benchmarks import load_benchmark
    from videop2r_data.schemas import EvalRow, Reply, TagCell
    from videop2r_data.validators import read_reply, score

    kind, options = sample.problem_type, sample.options
    found = read_reply(answer.completion, problem_type=kind, options=options)
    worth = score(kind, prediction=found.answer or "", reference=sample.reference, options=options)
    value = worth.value
    if load_benchmark(name).metric(kind) == "mean_relative_accuracy":
        value = _relative(found.answer, sample.reference)
    reply = Reply(
        text=answer.completion,
        finish="stop",
        failed="",
        detail="",
        answer=found.answer,
        place=found.place,
        score=value,
        reason=worth.reason.value,
        input_tokens=0,
        output_tokens=0,
        key="",
    )
    said: dict[str, Any] = {
        "benchmark": name,
        "problem_id": answer.id,
        "sample_id": f"{name}/{answer.id}",
        "problem": sample.problem,
        "problem_type": kind.value,
        "data_type": "video",
        "options": list(options),
        "reference": sample.reference,
        "tags": [TagCell(name=k, value=v) for k, v in sorted(sample.tags.items())],
        "reply": reply,
    }
    return EvalRow(**blank(EvalRow) | said)


def _relative(answer: str | None, reference: str) -> float:
    from videop2r_data.validators import mean_relative_accuracy

    try:
        return mean_relative_accuracy(float(answer or "nan"), float(reference))
    except ValueError:
        return 0.0


def _result(counts: dict[str, int]) -> dict[str, Any]:
    from videop2r_data.benchmarks import load_benchmark
    from videop2r_data.schemas import BenchmarkResult, EvalResult

    some = []
    for name, n in counts.items():
        declared = load_benchmark(name).lmms_eval
        assert declared is not None
        said: dict[str, Any] = {"name": name, "title": name, "layout": declared.layout, "selection": ""}
        said |= {"rows_found": n, "questions": n, "answered": n, "file": f"rows/{name}.parquet"}
        some.append(BenchmarkResult.model_validate(blank(BenchmarkResult) | said))
    plan = {"benchmarks": [{"name": name, "benchmark": name} for name in counts]}
    told = {"name": "bridge", "plan": plan, "model": "samples", "benchmarks": tuple(some)}
    return EvalResult.model_validate(blank(EvalResult) | told).model_dump(mode="json")


# --- what lmms-eval makes of it ---


def read_export(out: Path, asked: dict[str, list[Asked]]) -> dict[str, list[Asked]]:
    """The answers with the texts that were exported for them."""
    found = {}
    for task, some in asked.items():
        lines = (out / f"samples_{task}.jsonl").read_text(encoding="utf-8").splitlines()
        given = [json.loads(line)["filtered_resps"] for line in lines]
        found[task] = [replace(one, given=text) for one, text in zip(some, given, strict=True)]
    return found


def graded(asked: dict[str, list[Asked]], venvs: Path, folder: Path) -> dict[str, dict[str, float | None]]:
    """What the graders of lmms-eval's tasks give: whole completions and exported answers, by id."""
    every = [one for some in asked.values() for one in some]
    python, script = venvs / "lmms" / "bin" / "python", ROOT / "benchmarks" / "graders" / "lmms.py"
    found: dict[str, dict[str, float | None]] = {}
    source, target = folder / "answers.jsonl", folder / "verdicts.jsonl"
    for what in ("whole", "exported"):
        given = [a.answer if what == "whole" else replace(a.answer, completion=a.given) for a in every]
        write(given, source)
        subprocess.run([python, script, source, target], check=True)
        said = map(json.loads, target.read_text(encoding="utf-8").splitlines())
        found[what] = {v["id"]: v["value"] for v in said if v["grader"].endswith("default")}
    return found


def from_log(
    asked: dict[str, list[Asked]], out: Path, venvs: Path, folder: Path
) -> dict[str, tuple[float, float]]:
    """lmms-eval run from beginning to end, with no model.

    Returns:
        Task -> what it prints of the exported answers, and what the same task prints of the whole completions
        as `write_tasks` makes it.
    """
    tasks, logs, ours = folder / "tasks", folder / "logs", folder / "tasks" / "ours"
    python = venvs / "lmms" / "bin" / "python"
    env = os.environ | {"HF_HOME": str(folder / "hf"), "PYTHONPATH": str(ROOT)}
    env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    write = "import sys, pathlib, videop2r_data.evaluation as e; e.write_tasks(pathlib.Path(sys.argv[1]))"
    subprocess.run([python, "-c", write, ours], check=True, env=env)
    logs.mkdir()
    for task, some in asked.items():
        docs = tasks / f"{task}.jsonl"
        docs.write_text("".join(json.dumps(one.answer.doc) + "\n" for one in some), encoding="utf-8")
        theirs = re.search(r"(?m)^include: \"(.*)\"", (ours / f"p2r_{task}.yaml").read_text())
        assert theirs
        split = re.search(r"(?m)^test_split:\s*(\w+)", _with_defaults(Path(theirs[1])))
        assert split
        log = json.loads((out / f"{task}.json").read_text(encoding="utf-8"))
        # a task with the name of one of theirs is not taken, and its data set would be asked of the Hub
        for name, include in (("bridge_", theirs[1]), ("bridge_p2r_", ours / f"p2r_{task}.yaml")):
            (tasks / f"{name}{task}.yaml").write_text(
                f"include: {include}\ntask: {name}{task}\ndataset_path: json\ndataset_name: null\n"
                f"dataset_kwargs: {{data_files: {{{split[1]}: {docs}}}}}\n"
            )
            log["model_configs"]["task"] = name + task
            if name == "bridge_p2r_":
                log["logs"] = [one | {"resps": [[one["completion"]]]} for one in log["logs"]]
            (logs / f"{name}{task}.json").write_text(json.dumps(log), encoding="utf-8")
    names = ",".join(f"{name}{task}" for task in asked for name in ("bridge_", "bridge_p2r_"))
    command: list[str | Path] = [
        python,
        "-m",
        "lmms_eval",
        "--model",
        "from_log",
        "--model_args",
        f"logs={logs}",
        "--tasks",
        names,
    ]
    command += ["--include_path", tasks, "--output_path", folder / "out"]
    subprocess.run(command, check=True, env=env, capture_output=True, text=True)
    results = json.loads(next((folder / "out").rglob("*_results.json")).read_text(encoding="utf-8"))[
        "results"
    ]
    return {
        task: (_headline(results[f"bridge_{task}"]), _headline(results[f"bridge_p2r_{task}"]))
        for task in asked
    }


def _with_defaults(path: Path) -> str:
    default = path.parent / "_default_template_yaml"
    return path.read_text() + ("\n" + default.read_text() if default.is_file() else "")


def _headline(values: dict[str, Any]) -> float:
    """The first metric of a task, as a share."""
    value = next(float(v) for k, v in values.items() if isinstance(v, int | float) and "stderr" not in k)
    return value / 100 if value > 1 else value


# --- the table ---


def why(one: Asked, theirs: float | None) -> str:
    """The known cause of a difference; empty: there is none."""
    from videop2r_data.evaluation import NO_ANSWER

    if one.given == NO_ANSWER:
        return f"no answer: the grader {'takes A' if theirs else 'draws a letter, or asks a model'}"
    if one.answer.problem_type == "free-form":
        return "open question: words in common here, one text inside the other there"
    if one.answer.problem_type == "numerical":
        return "number: as printed here, rounded to two decimals there"
    return ""


def table(
    asked: dict[str, list[Asked]],
    grades: dict[str, dict[str, float | None]],
    printed: dict[str, tuple[float, float]],
) -> tuple[list[str], list[str]]:
    """The rows of the table, and every difference without a known cause."""
    heads = (
        "benchmark",
        "task of lmms-eval",
        "questions",
        "differ: whole completion",
        "differ: exported answer",
        "of these explained",
        "mean here",
        "mean there",
        "`from_log` prints",
        "`p2r_` task prints",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    open_: list[str] = []
    causes: Counter[tuple[str, str]] = Counter()
    for task, some in sorted(asked.items(), key=lambda pair: benchmark_of(pair[0])):
        whole = sum(grades["whole"].get(one.answer.id) != one.score for one in some)
        differ = [
            (one, theirs) for one in some if (theirs := grades["exported"].get(one.answer.id)) != one.score
        ]
        for one, theirs in differ:
            cause = why(one, theirs)
            causes[benchmark_of(task), cause] += 1
            if not cause:
                open_.append(f"{task} {one.answer.id}: {one.score} here, {theirs} there, given {one.given!r}")
        explained = sum(bool(why(*pair)) for pair in differ)
        mean = sum(one.score or 0 for one in some) / len(some)
        there = sum(grades["exported"].get(one.answer.id) or 0 for one in some) / len(some)
        counts = f"{len(some)} | {whole} | {len(differ)} | {explained}"
        figures = " | ".join(f"{value:.4f}" for value in (mean, there, *printed[task]))
        lines.append(f"| {benchmark_of(task)} | {task} | {counts} | {figures} |")
    lines += ["", "| benchmark | cause of a difference | n |", "|---|---|---|"]
    lines += [f"| {name} | {cause or 'not explained'} | {n} |" for (name, cause), n in sorted(causes.items())]
    return lines, open_


def main() -> int:
    """Export, grade, compare; 1 if a difference has no known cause."""
    from videop2r_data.evaluation import export_logs

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("venvs", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into docs/graders.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = write_result(folder / "result", questions(args.samples))
        done = export_logs(folder / "result", folder / "export")
        print("\n".join(f"no log: {one.benchmark}: {one.no_log}" for one in done if one.no_log), end="")
        out = folder / "export" / "samples"
        asked = read_export(out, asked)
        grades = graded(asked, args.venvs, folder)
        printed = from_log(asked, out, args.venvs, folder)
    lines, open_ = table(asked, grades, printed)
    print("\n".join([*lines, "", f"{len(open_)} differences without a known cause", *open_]))
    if args.write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
        text = "\n".join(lines)
        PAGE.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")
    return int(bool(open_))


if __name__ == "__main__":
    raise SystemExit(main())
