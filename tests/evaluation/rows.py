"""Rows of a result for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._blank import blank
from videop2r_data.schemas import EvalRow, Reply, TagCell


def timeless(path: Path) -> bytes:
    """A file of a result without what the tables say of the clock, which is in no other file."""
    return re.sub(rb"- seconds of an answer: .*", b"", path.read_bytes())


def eval_row(
    benchmark: str,
    answer: str | None,
    *,
    options: Sequence[str] = (),
    problem_type: str = "multiple choice",
    tags: Mapping[str, str] | None = None,
    text: str = "",
) -> EvalRow:
    """One question of an evaluation with this answer."""
    reply = Reply(
        text=text, finish="stop", failed="", detail="", answer=answer, place="tag" if answer else "", score=0.0,
        reason="", input_tokens=0, output_tokens=0, key="",
    )  # fmt: skip
    cells = [TagCell(name=name, value=value) for name, value in (tags or {}).items()]
    said: dict[str, Any] = {"benchmark": benchmark, "problem_id": "1", "sample_id": f"{benchmark}/1"}
    said |= {
        "problem": "Which?",
        "problem_type": problem_type,
        "data_type": "video",
        "options": list(options),
    }
    return EvalRow(**blank(EvalRow) | said | {"reference": "A", "tags": cells, "reply": reply})
