"""Sets of the default trace and of one judge keep their bytes: those that older code wrote.

The digests were made by running this file with the code of commit 9450ca6, which knew no other trace and no
list of judges. They change only with the versions of pyarrow and Pillow that are pinned, or with a decision
that docs/guarantees.md and the changelog tell.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import Call, FakeServer, default_answer
from tests.integration.test_build import Silent, question, recipe, write_pool
from videop2r_data.builders.pipeline import build
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card

pytestmark = pytest.mark.integration

SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAADgAAAA4CAIAAAAn5KxJAAAAZElEQVR42u3ZsQ3AIAwAQYwyQmomoWKSjMYk1BmGIbJCIqUB3deW"
    "fJJLR6l3WqGcFgkUFBQUFBR0b+jxfnTM6/f17exODwoKCgoKCgoKCgoKCgoKCrorNHzuQEFBQUFBQUE/9AAeZwW1GDe/dQAAAABJ"
    "RU5ErkJggg=="
)
"""A picture of 56 x 56 pixels, as base64 of a PNG file."""
FILES = {
    "data/rejected-00000.parquet": "fbe61c04c8cf75615ac668e38f55786ee73dff707d7fc828105d1929ebe1903b",
    "data/rl-00000.parquet": "07b0a517e4afe09e27e79a3e6247a692d814f40827e8ff3fe82868ffe3531d16",
    "data/sft-00000.parquet": "94bae9e6c17693ddcd83ccd52bdab1be9b7767d38e461db1fe3b0af46e74dbab",
}
KEYS = "f1412caf827c85fb03e8daf0459e2db17330a7c26e8152f131b0cf00c681700b"
"""sha256 over the sorted keys of the journal: of 12 questions and their judges' calls."""


def answer(call: Call) -> str:
    """Good traces, wrong ones, one that is none; insufficient observations."""
    if b"<judgement>" in call.raw and b"question 4" in call.raw:
        return "Nothing of that is said.\n<judgement>No</judgement>"
    if b"<judgement>" not in call.raw and b"question 3" in call.raw:
        return "<think>no observation</think><answer>A</answer>"
    return default_answer(call)


def test_the_default_trace_keeps_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "square.png").write_bytes(base64.b64decode(SQUARE))
    seen: list[dict[str, Any]] = [{}, {"data_type": "image", "path": "square.png"}]
    rows = [question(i, problem=f"question {i}, please?", **seen[i % 2]) for i in range(12)]
    write_pool(tmp_path, rows)

    async def main() -> Workspace:
        async with FakeServer(answer=answer) as server:
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            await build(recipe(server), place, observer=Silent(), card=write_dataset_card)
            return place

    place = asyncio.run(main())
    files = {
        str(path.relative_to(place.out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.out.rglob("*.parquet"))
    }
    lines = [
        json.loads(line)
        for part in sorted(place.journal.glob("*.jsonl"))
        for line in part.read_text().splitlines()
    ]
    keys = sorted({line["key"] for line in lines if "key" in line})
    assert len(keys) == 24
    assert files == FILES
    assert hashlib.sha256("".join(keys).encode()).hexdigest() == KEYS
