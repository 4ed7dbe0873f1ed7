"""Labelled answers: real completions labelled by hand, and others right or wrong by construction."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._real_rows import Output, read_outputs
from benchmarks.graders import forms
from benchmarks.graders.rows import Row, lines, read_rows, row_of_output

LABELS = Path(__file__).with_name("labels.tsv")
_SEED = 20261121


@dataclass(frozen=True)
class Answer:
    """A completion with its question, and whether a careful reader takes it for right.

    Attributes:
        group: `hand`: a real completion against its reference; `read`: a real completion against the answer
            that was read out of it by hand; `made`: right or wrong by construction.
        kind: what the answer is: letter, letters, number, estimate, text, ratings.
    """

    id: str
    group: str
    kind: str
    form: str
    problem_type: str
    options: tuple[str, ...]
    reference: str
    completion: str
    right: bool
    problem: str = ""
    task: str = ""
    doc: dict[str, Any] = field(default_factory=dict)


def all_answers(samples: Path) -> list[Answer]:
    """Every labelled answer, in one order for ever."""
    return [*hand_answers(samples), *made_answers(samples)]


def write(answers: list[Answer], path: Path) -> None:
    """One JSON object a line: what the graders in other environments read."""
    path.write_text("".join(json.dumps(asdict(a)) + "\n" for a in answers), encoding="utf-8")


# --- by construction ---


def made_answers(samples: Path) -> Iterator[Answer]:
    """Answers in documented forms to real questions; the same for the same samples."""
    rng = random.Random(_SEED)
    rows = list(read_rows(samples))
    letters = [r for r in rows if r.problem_type == "multiple choice" and len(r.reference) == 1]
    several = [r for r in rows if r.problem_type == "multiple choice" and len(r.reference) > 1]
    numbers = [r for r in rows if r.problem_type == "numerical"]
    estimates = [r for r in rows if r.problem_type == "regression"]
    texts = [r for r in rows if r.problem_type == "free-form"]
    plan = [
        ("letter", forms.choice_answers(letters, rng, 24)),
        ("letters", forms.several_answers(several, rng)),
        ("number", forms.number_answers(numbers, rng, 24)),
        ("estimate", forms.regression_answers(estimates, rng)),
        ("text", forms.text_answers(texts, rng)),
    ]
    for kind, answers in plan:
        for n, (row, made) in enumerate(answers):
            yield _made(f"made/{kind}/{n}/{row.id}", kind, row, made)


def _made(key: str, kind: str, row: Row, made: forms.Made) -> Answer:
    return Answer(
        key,
        "made",
        kind,
        made.form,
        row.problem_type,
        row.options,
        row.reference,
        made.completion,
        made.right,
        row.problem,
        row.task,
        row.doc,
    )


# --- by hand ---
#
# A line of the labels: file#row, digest of the completion, the answer as it was read (letters, a number or a
# word; `-`: the completion gives none; `?`: it was not written down), and right, wrong or unclear against the
# reference (`.`: the samples have no reference).


def hand_answers(samples: Path) -> Iterator[Answer]:
    """Real completions with the labels of a reader.

    Raises:
        ValueError: a completion is not the one that was labelled.
    """
    outputs = {f"{o.file.removesuffix('.jsonl')}#{o.row}": o for o in _outputs(samples)}
    for line in LABELS.read_text(encoding="utf-8").splitlines()[1:]:
        key, digest_, read, verdict = line.split("\t")
        output = outputs.get(key)
        if output is None or digest(output.text) != digest_:
            raise ValueError(
                f"{LABELS.name}: {key}: the samples hold no completion with the digest {digest_}"
            )
        raw = lines(samples / output.file)[output.row]
        if verdict in ("right", "wrong"):
            yield _hand(key, "hand", output, raw, str(output.reference), verdict == "right")
        if read not in "-?" and verdict != "right":
            yield _hand(key, "read", output, raw, read, True)
        if read not in "-?" and verdict in ("right", "."):
            yield _hand(key, "read", output, raw, _another(read, output), False)


def digest(text: str) -> str:
    """First 16 digits of the sha256 of a completion."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _outputs(samples: Path) -> Iterator[Output]:
    yield from read_outputs(samples)
    file = "formats/videor1fork_bbox_between.jsonl"
    for i, raw in enumerate(lines(samples / file)):
        yield Output(file, i, "free-form", None, (), raw["output"], "", "")


def _hand(key: str, group: str, output: Output, raw: Any, reference: str, right: bool) -> Answer:
    reference = raw["solution"] if output.reference is None and "solution" in raw else reference
    reference = reference.removeprefix("<answer>").removesuffix("</answer>").strip()
    options = tuple(output.options)
    kind, problem_type = "text", "free-form"
    if "quality" in output.file:
        kind = "ratings"
    elif re.fullmatch(r"[A-Z](, [A-Z])*", reference):
        kind, problem_type = "letter" if len(reference) == 1 else "letters", "multiple choice"
        options = options or tuple(f"{x}. option {x}" for x in "ABCDEFGH")
    elif any(c.isdigit() for c in reference):
        kind, problem_type = "number", "numerical"
    row = row_of_output(output.file, raw, reference)
    return Answer(
        f"{group}/{key}/{reference[:8]}",
        group,
        kind,
        f"real: {output.file.removesuffix('.jsonl')}",
        problem_type,
        options,
        reference,
        output.text,
        right,
        row.problem if row else "",
        row.task if row else "",
        row.doc if row else {},
    )


def _another(read: str, output: Output) -> str:
    """A reference that the answer read by hand is wrong against."""
    if re.fullmatch(r"[A-Z](, [A-Z])*", read):
        return next(x for x in "ABCDE"[: len(output.options) or 5] if x not in read)
    return f"{float(read) + 1:g}" if read.replace(".", "").isdigit() else "landscape"
