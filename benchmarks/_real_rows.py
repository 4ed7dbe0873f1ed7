"""Real model outputs and real questions from a folder of samples (JSON lines), brought into one shape."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

OUTPUTS = (
    "out_*.jsonl",
    "paper_examples_observation.jsonl",
    "formats/r1v_*.jsonl",
    "formats/twgrpo_rollouts_format.jsonl",
    "formats/video_thinker_paper.jsonl",
    "formats/videochatr1_mmvu.jsonl",
    "formats/videorft3b_*.jsonl",
    "formats/vision_sr1_format.jsonl",
    "formats/visionary_r1_paper.jsonl",
    "formats/llava_cot.jsonl",
)
"""Files that hold what a model wrote."""
QUESTIONS = (
    "twgrpo_eval_*.jsonl",
    "twgrpo_nextgqa_val_mixed.jsonl",
    "videor1_eval_*.jsonl",
    "official_mmvu_validation.jsonl",
    "official_videommmu.jsonl",
    "official_vsibench.jsonl",
    "official_tempcompass.jsonl",
    "videoholmes_questions.jsonl",
)
"""Files that hold questions with options and a reference."""
_KINDS = {"multiple choice", "numerical", "regression", "OCR", "free-form"}
_TAGS = re.compile(r"</?(?:think|answer|observation|info|des|description|caption|time)>")
_LETTERED = re.compile(r"(?:(?<=\s)|(?<=>)|^)\(?([A-J])[.:)]\s+")


class Output(NamedTuple):
    """What a model wrote: the whole text, what stands before its last answer tag, and that answer."""

    file: str
    row: int
    kind: str
    reference: str | None
    options: tuple[str, ...]
    text: str
    thought: str
    answer: str


class Question(NamedTuple):
    """A multiple-choice question with its reference (without a tag)."""

    file: str
    row: str
    options: tuple[str, ...]
    reference: str


def _rows(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            lines = path.read_text(encoding="utf-8").split("\n")
            for i, line in enumerate(line for line in lines if line.strip()):
                yield str(path.relative_to(folder)), i, json.loads(line)


def read_outputs(folder: Path) -> Iterator[Output]:
    """Every output, with its question where the file holds it."""
    for file, i, row in _rows(folder, OUTPUTS):
        text = row.get("model_output") or row.get("output") or ""
        question = row.get("question", row)
        if isinstance(question, str) and question.startswith("{"):
            question = ast.literal_eval(question)
        known = question if isinstance(question, dict) else {"problem": question}
        options = tuple(known.get("options") or _options_in(str(known.get("problem", ""))))
        options = options if len(options) > 1 else ()
        reference = next(
            (row[k] for k in ("ground_truth", "reference", "answer") if k in row), known.get("solution")
        )
        reference = None if reference is None or "quality" in file else str(reference)
        thought, _, answer = text.rpartition("<answer>")
        yield Output(
            file,
            i,
            _kind(str(known.get("problem_type", "")), options, reference),
            reference,
            options,
            text,
            _TAGS.sub(" ", thought or (text if len(text) > 100 else "")).strip(),
            answer.partition("</answer>")[0].strip() if thought else "",
        )


def _kind(named: str, options: tuple[str, ...], reference: str | None) -> str:
    if named in _KINDS:
        return named
    if options or reference is None:
        return "multiple choice"
    return "numerical" if re.search(r"\d", reference) else "free-form"


def _options_in(problem: str) -> tuple[str, ...]:
    """Options that stand inside a question's text, if their letters rise from A."""
    found = list(_LETTERED.finditer(problem))
    letters = [m.group(1) for m in found]
    if not found or letters != list("ABCDEFGHIJ")[: len(letters)]:
        return ()
    ends = [*(m.start() for m in found[1:]), len(problem)]
    return tuple(problem[m.start() : end].strip(" ,\n") for m, end in zip(found, ends, strict=True))


def read_questions(folder: Path) -> Iterator[Question]:
    """Every multiple-choice question of the official and converted files."""
    for file, i, row in _rows(folder, QUESTIONS):
        if "entry" in row:
            yield from _tempcompass(file, i, row["entry"])
            continue
        options = row.get("options") or row.get("choices") or row.get("Options")
        if isinstance(options, dict):
            options = [f"{key.strip()}. {text}" for key, text in options.items() if text]
        reference = next((row[k] for k in ("solution", "ground_truth", "answer", "Answer") if k in row), "")
        reference = re.sub(r"</?answer>", "", str(reference)).strip()
        if (
            options
            and len(options) > 1
            and all(option.strip()[3:] or "." not in option for option in options)
        ):
            yield Question(file, str(i), tuple(options), reference)


def _tempcompass(file: str, i: int, entry: dict[str, Any]) -> Iterator[Question]:
    """Its options stand in the question, a line each; yes and no have none."""
    for items in entry.values():
        for n, item in enumerate(items if isinstance(items, list) else ()):
            if not isinstance(item, dict) or "answer" not in item:
                continue
            lines = tuple(item["question"].split("\n")[1:])
            if item["answer"] in lines and len(lines) > 1:
                yield Question(file, f"{i}.{n}", lines, item["answer"])
            elif item["answer"] in ("yes", "no"):
                yield Question(file, f"{i}.{n}", ("Yes", "No"), item["answer"].capitalize())
