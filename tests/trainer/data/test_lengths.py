from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.data.test_examples import parquet
from videop2r_data.schemas import load_grammar
from videop2r_data.trainer.lengths import measure_lengths

EMPTY: dict[str, Any] = {
    "lock": 1, "prompts": {}, "sources": [], "models": {}, "versions": {}, "files": {},
    "ledger": {"rows_in": 0, "kept": 0, "rejected": 0, "failed": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("think-answer", "<think>so it is</think>\n<answer>B</answer>", {"reasoning": 4}),
        (
            "vision-sr1",
            "<description>a red disc</description><think>so</think>\\boxed{B}",
            {"perception": 3, "reasoning": 2},
        ),
    ],
)
def test_lengths_follow_the_trace_of_the_data(
    tmp_path: Path, name: str, text: str, expected: dict[str, int]
) -> None:
    lock = EMPTY | {"recipe": {"trace": load_grammar(name).model_dump(mode="json")}}
    (tmp_path / "build.lock.json").write_text(json.dumps(lock))
    parquet(
        tmp_path / "data" / "sft-00000.parquet",
        [{"observation": "", "process": "", "output": text}],
    )
    found = measure_lengths(tmp_path, perception=(1, 9), reasoning=(1, 9))
    assert {one.process: one.percentiles[50] for one in found.processes} == expected
    assert found.rows == 1 and all(one.within == 1.0 for one in found.processes)
