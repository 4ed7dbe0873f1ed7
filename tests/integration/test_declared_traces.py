"""A build of every packaged grammar, and of a user's own: over HTTP, verified, reproduced, loaded."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import Call, FakeServer, default_answer
from tests.integration.test_build import Silent, digests, question, recipe, rows_of, write_pool
from videop2r_data.builders.pipeline import build
from videop2r_data.builders.replay import reproduce
from videop2r_data.builders.verify import verify_release, verify_traces
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import ConfigError
from videop2r_data.recipes import recipe_text
from videop2r_data.schemas import (
    GroupSpec,
    Recipe,
    Role,
    SegmentSpec,
    TraceGrammar,
    load_grammar,
    packaged_grammars,
    parse_recipe,
    trace_parser,
)
from videop2r_data.schemas.grammar import parse_grammar

pytestmark = pytest.mark.integration

# Written from docs/traces.md: four segments, three streams.
OWN = r"""
trace: 1
name: look-plan-check
segments:
  - {name: scene, role: perception, tag: scene, after: "\n"}
  - {name: plan, role: other, stream: planning, tag: plan, required: false}
  - {name: steps, role: reasoning, tag: [steps, step]}
  - {name: result, role: answer, boxed: true}
"""
GRAMMARS = [load_grammar(name) for name in packaged_grammars()] + [parse_grammar(OWN, where="own.yaml")]


def content(spec: SegmentSpec, mark: str) -> str:
    if spec.holds:
        return "00:01-00:05"
    return {
        Role.PERCEPTION: f"Based on the question, I need to notice shape {mark}.",
        Role.REASONING: f"Based on the observations, shape {mark} settles it, so the answer is A.",
        Role.ANSWER: "A",
        Role.OTHER: "B" if spec.boxed else f"first look at shape {mark}",
    }[spec.role]


def write(grammar: TraceGrammar, mark: str, *, rounds: int = 2) -> str:
    """A trace of a grammar: every segment, groups twice where they may repeat."""
    parts = []
    for part in grammar.segments:
        specs = part.group if isinstance(part, GroupSpec) else (part,)
        times = 1 if not isinstance(part, GroupSpec) or part.max == 1 else rounds
        parts += [(spec.name, content(spec, mark)) for _ in range(times) for spec in specs]
    return trace_parser(grammar).render(parts)


def answers(grammar: TraceGrammar) -> Any:
    def answer(call: Call) -> str:
        if b"<judgement>" in call.raw:
            return default_answer(call)
        mark = hashlib.sha256(call.raw).hexdigest()[:12]
        text = write(grammar, mark)
        return text[:-4] if b"question 3" in call.raw else text  # one broken trace

    return answer


def declared(server: FakeServer, grammar: TraceGrammar) -> Recipe:
    """A recipe of the grammar; without a judge where the judge has no perception to read."""
    update: dict[str, Any] = {"trace": grammar}
    if not grammar.of_role(Role.PERCEPTION):
        update["judge"] = None
    return Recipe.model_validate(dict(recipe(server).model_copy(update=update)))


def test_a_judge_with_nothing_to_read_is_refused() -> None:
    text = recipe_text("demo") + "\ntrace: open-o3\n"
    with pytest.raises(ConfigError, match="no perception segment to read"):
        parse_recipe(text, where="r.yaml")


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.name)
def test_a_declared_trace_is_built_verified_and_reproduced(tmp_path: Path, grammar: TraceGrammar) -> None:
    write_pool(tmp_path, [question(i, problem=f"question {i}, please?") for i in range(12)])

    async def main() -> Any:
        async with FakeServer(answer=answers(grammar)) as server:
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            made = declared(server, grammar)
            report = await build(made, place, observer=Silent(), card=write_dataset_card)
            asked, first = server.requests, digests(place.out)
            again = await build(made, place, observer=Silent(), card=write_dataset_card)
            assert (again.calls_made, server.requests) == (0, asked) and digests(place.out) == first
            same = await reproduce(place, card=write_dataset_card, observer=Silent())
            assert same.same, same.causes
            return report

    report = asyncio.run(main())
    kept = rows_of(tmp_path / "set", "sft")
    broken = [row for row in rows_of(tmp_path / "set", "rejected") if row["stage"] == "verify"]
    assert report.ledger.rows_in == 12 and len(kept) >= 8
    assert len(broken) == 1 and "question 3" in broken[0]["problem"]
    for row in kept:
        assert row["output"] == trace_parser(grammar).render(trace_parser(grammar).parse(row["output"]))
        assert row["answer"] == "A" or grammar.name == "videoauto-r1"
        if grammar.name != "videop2r":
            assert [cell["name"] for cell in row["segments"]] == [
                p.name for p in trace_parser(grammar).parse(row["output"])
            ]
            assert all(row[name] for name in grammar.single if name not in ("observation", "think", "answer"))
    lock = json.loads((tmp_path / "set" / "build.lock.json").read_text())
    assert ("trace" in lock["recipe"]) == (grammar.name != "videop2r")
    found = verify_release(str(tmp_path / "set"), workers=1)
    assert found.ok, found.findings
    read = verify_traces(tmp_path / "set" / "data" / "sft-00000.parquet", grammar)
    assert (read.traces, read.rows) == (len(kept), len(kept)) and read.ok


def test_verify_finds_a_segment_that_was_changed(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    grammar = load_grammar("visionary-r1")
    write_pool(tmp_path, [question(i) for i in range(4)])

    async def main() -> None:
        async with FakeServer(answer=answers(grammar)) as server:
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            made = recipe(server).model_copy(update={"trace": grammar})
            await build(made, place, observer=Silent(), card=write_dataset_card)

    asyncio.run(main())
    path = tmp_path / "set" / "data" / "sft-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["info"] += " And more."
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    codes = {
        (found.code, found.places[0].field)
        for found in verify_release(str(tmp_path / "set"), workers=1).findings
    }
    assert ("segment_differs", "info") in codes
