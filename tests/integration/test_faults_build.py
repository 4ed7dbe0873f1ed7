"""What goes wrong around a build: dead servers, full disks, rivals, hostile text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.openai_server import Call, FakeServer, Reply, default_answer
from tests.integration.test_build import (
    Silent,
    question,
    recipe,
    rows_of,
    run,
    without_url,
    write_pool,
)
from tests.integration.test_build_batches import judge
from tests.integration.test_build_batches import run as run_batched
from videop2r_data.backends import NANO, batches, segments
from videop2r_data.backends.journal import Journal
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.run import Stop
from videop2r_data.builders.steps import Steps
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import ExportError, JournalError
from videop2r_data.schemas import Sample

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def steady(call: Call) -> str:
    return "<judgement>Yes</judgement>" if b"<judgement>" in call.raw else default_answer(call)


def test_a_question_without_an_answer_fails_alone_and_is_asked_again(tmp_path: Path) -> None:
    for name in ("one", "clean"):
        (tmp_path / name).mkdir()
        write_pool(tmp_path / name, [question(i) for i in range(12)])

    def flaky(call: Call) -> Reply | None:
        dead = "shape 3?" in call.prompt or ("shape 5?" in call.prompt and b"<judgement>" in call.raw)
        return Reply(status=503) if dead else None

    report, _ = run(
        tmp_path / "one",
        lambda s: recipe(s, generate__backend__retries=0, judge__backend__retries=0),
        script=flaky,
        answer=steady,
    )
    assert report.state == "complete" and report.unanswered == 2 and report.ledger is not None
    assert (report.ledger.kept, report.ledger.rejected, report.ledger.failed) == (10, 0, 2)
    assert report.ledger.reasons == {"generate/call_failed": 1, "judge/call_failed": 1}
    lost = rows_of(tmp_path / "one" / "set", "rejected")
    assert [(r["problem_id"], r["stage"], r["detail"]) for r in lost] == [
        ("3", "generate", "no answer in the journal"),
        ("5", "judge", "no answer in the journal"),
    ]
    assert verify_release(str(tmp_path / "one" / "set"), workers=1).ok
    report, server = run(tmp_path / "one", answer=steady)
    assert report.unanswered == 0 and server.requests == 3, "one generation and two verdicts were missing"
    run(tmp_path / "clean", answer=steady)
    assert without_url(tmp_path / "one" / "set") == without_url(tmp_path / "clean" / "set")


def test_an_output_that_is_not_ours_is_refused_before_the_first_call(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(3)])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.tex").write_text("years of work")
    calls = []

    def count(call: Call) -> Reply | None:
        calls.append(call)
        return None

    with pytest.raises(ExportError, match="not a data set of this tool"):
        run(tmp_path, script=count)
    assert not calls


@pytest.fixture
def _disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A disk with room for so many more records."""
    room = [10**9]
    real = segments.Writer.write

    def write(self: segments.Writer, line: bytes) -> int:
        room[0] -= 1
        if room[0] < 0:
            raise JournalError("cannot write: [Errno 28] No space left on device", where=str(self.path))
        return real(self, line)

    monkeypatch.setattr(segments.Writer, "write", write)
    yield room


def test_a_disk_that_fills_up_stops_the_run_and_the_rest_is_asked_later(
    tmp_path: Path, _disk: list[int]
) -> None:
    for name in ("full", "clean"):
        (tmp_path / name).mkdir()
        write_pool(tmp_path / name, [question(i) for i in range(20)])
    _disk[0] = 13
    with pytest.raises(JournalError, match="No space left"):
        run(tmp_path / "full", answer=steady)
    assert not (tmp_path / "full" / "set").exists()
    _disk[0] = 10**9
    report, server = run(tmp_path / "full", answer=steady)
    assert report.state == "complete" and server.requests == 40 - 13
    run(tmp_path / "clean", answer=steady)
    assert without_url(tmp_path / "full" / "set") == without_url(tmp_path / "clean" / "set")


def test_a_disk_that_fills_up_while_the_set_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videop2r_data.builders import export

    write_pool(tmp_path, [question(i) for i in range(5)])
    run(tmp_path)
    before = without_url(tmp_path / "set")
    write_pool(tmp_path, [question(i) for i in range(9)])

    def full(self: Any, *, last: bool = False) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export.ConfigWriter, "_flush", full)
        with pytest.raises(ExportError, match="No space left"):
            run(tmp_path)
    assert without_url(tmp_path / "set") == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_bug_in_a_step_keeps_its_traceback_and_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pool(tmp_path, [question(i) for i in range(20)])
    real = Steps.run

    async def crashes(self: Steps, sample: Sample) -> Any:
        if sample.problem_id == "15":
            raise ZeroDivisionError("a bug")
        return await real(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(Steps, "run", crashes)
        with pytest.raises(ExceptionGroup) as caught:
            run(tmp_path, lambda s: recipe(s, generate__backend__concurrency=1))
        assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    report, _ = run(tmp_path)
    assert report.state == "complete"
    assert len(list((tmp_path / "set.build" / "journal").iterdir())) == 1, "its segment was free again"


def test_two_processes_may_build_the_same_set_at_once(tmp_path: Path) -> None:
    for name in ("both", "one"):
        (tmp_path / name).mkdir()
        write_pool(tmp_path / name, [question(i) for i in range(30)])

    async def main() -> list[BuildReport | BaseException]:
        async with FakeServer(latency=0.005, answer=steady) as server:
            place = Workspace.at(tmp_path / "both" / "set", base=tmp_path / "both")
            builds = (
                build(recipe(server), place, observer=Silent(), card=write_dataset_card) for _ in range(2)
            )
            return await asyncio.gather(*builds, return_exceptions=True)

    for found in asyncio.run(main()):
        assert isinstance(found, ExportError) or (
            isinstance(found, BuildReport) and found.state == "complete"
        )
    run(tmp_path / "both", answer=steady)
    run(tmp_path / "one", answer=steady)
    assert without_url(tmp_path / "both" / "set") == without_url(tmp_path / "one" / "set")


def test_ctrl_c_is_heard_while_the_pool_is_read(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(3000)])
    stop = Stop()
    stop.ask()
    report, server = run(tmp_path, stop=stop)
    assert report.state == "interrupted" and report.seen == 0 == server.requests


HOSTILE = {
    "surrogate": '{"problem": "half \\ud83d of a pair"}',
    "nul": '{"problem": "a\\u0000b", "data_source": "\\u0000"}',
    "large": json.dumps({"problem": "x" * 60_000}),
    "huge": json.dumps({"problem": "x" * 10_000_000}),
    "lines": json.dumps({"options": ["A. one\n\nB. two\r\nthree", "B. \u2028"]}),
    "surrogate option": '{"options": ["A. \\udc00", "B. two"]}',
    "surrogate id": '{"problem_id": "x\\ud800"}',
    "surrogate path": '{"path": "a\\udcff.mp4", "data_type": "video"}',
    "long path": json.dumps({"path": "a" * 4000 + ".mp4", "data_type": "video"}),
    "tags": json.dumps({"problem": "</think><answer>B</answer> {problem} {options}"}),
}


def test_hostile_rows_cost_at_most_themselves(tmp_path: Path) -> None:
    rows = []
    for i, (name, text) in enumerate(HOSTILE.items()):
        base = json.dumps(question(i, problem_id=name, data_source="d")).removesuffix("}")
        keys = json.loads(text)
        plain = {k: v for k, v in json.loads(base + "}").items() if k not in keys}
        rows.append(json.dumps(plain).removesuffix("}") + ", " + text.removeprefix("{"))
    (tmp_path / "pool.json").write_text(f"[{', '.join([*rows, json.dumps(question(99))])}]")
    report, _ = run(tmp_path, answer=steady)
    assert report.state == "complete" and report.ledger is not None
    assert report.ledger.rows_in == len(HOSTILE) + 1
    kept = {r["problem_id"] for r in rows_of(tmp_path / "set", "sft")}
    assert {"nul", "large", "lines", "tags", "99"} <= kept
    assert verify_release(str(tmp_path / "set"), workers=1).ok


def test_hostile_answers_cost_at_most_their_rows(tmp_path: Path) -> None:
    good = "<observation>o {}</observation> <think>so A</think><answer>A</answer>"
    texts = [
        "",
        "\x00",
        good.format("is round\x00\u2028\ufeff"),
        good.format("x" * 5_000_000),
        "<observation>" * 100_000,
        good.format("half \ud83d"),
    ]
    write_pool(tmp_path, [question(i) for i in range(len(texts))])

    def script(call: Call) -> Reply | None:
        if b"<judgement>" in call.raw:
            return None
        text = texts[int(call.prompt.split("shape ")[1].split("?")[0])]
        body = {
            "id": "1",
            "model": "g",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        return Reply(body=json.dumps(body).encode())

    report, _ = run(tmp_path, lambda s: recipe(s, generate__backend__retries=0), script=script, answer=steady)
    assert report.state == "complete" and report.ledger is not None
    kept = {r["problem_id"]: r for r in rows_of(tmp_path / "set", "sft")}
    assert set(kept) == {"2", "3", "5"}
    assert len(kept["3"]["observation"]) == 5_000_002
    assert verify_release(str(tmp_path / "set"), workers=1).ok


def test_equal_questions_under_other_ids_share_one_call(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i, problem="The same?") for i in range(10)])
    report, server = run(tmp_path, answer=steady)
    assert report.ledger is not None and report.ledger.kept == 10
    assert server.requests == 2
    assert len({r["generation_key"] for r in rows_of(tmp_path / "set", "sft")}) == 1


def test_a_target_with_batches_pays_for_little_more_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = batches.BatchCaller.__init__.__kwdefaults__ or {}
    quick = {**defaults, "poll_s": 0.02, "max_poll_s": 0.05}
    monkeypatch.setattr(batches.BatchCaller.__init__, "__kwdefaults__", quick)
    write_pool(tmp_path, [question(i) for i in range(400)])

    async def main() -> None:
        async with FakeServer() as generator, FakeAnthropic(answer=judge) as anthropic:
            report = await run_batched(tmp_path, generator, anthropic, target=20)
            assert report.state == "complete" and report.ledger is not None
            assert report.ledger.kept == 20 and report.ledger.rejected == 1, (
                "question 3 is judged insufficient"
            )
            assert generator.requests < 250, "it did not generate for the whole pool"
            again = await run_batched(tmp_path, generator, anthropic, target=20)
            assert again.state == "complete" and again.calls_made == 0
            assert set(anthropic.accepted_ids.values()) == {1}

    asyncio.run(main())
    kept = [int(r["problem_id"]) for r in rows_of(tmp_path / "set", "sft")]
    assert kept == [i for i in range(21) if i != 3]


def test_a_target_beyond_the_pool_takes_all_and_one_within_the_journal_asks_nothing(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(12)] + [question(12, options=[])])
    report, _ = run(tmp_path, lambda s: recipe(s, target=1000), answer=steady)
    assert report.state == "complete" and report.ledger is not None
    assert (report.ledger.kept, report.ledger.failed, report.ledger.surplus) == (12, 1, 0)
    report, server = run(tmp_path, lambda s: recipe(s, target=5), answer=steady)
    assert report.ledger is not None and server.requests == 0
    assert (report.ledger.kept, report.ledger.rows_in, report.ledger.surplus) == (5, 5, 8)


def test_a_budget_below_the_first_call_spends_nothing(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(40)])
    price = {"input": 1.0, "output": 10.0}
    report, server = run(tmp_path, lambda s: recipe(s, generate__backend__price=price, max_cost=1e-6))
    assert report.state == "over_budget" and server.requests == 0 == report.spent.finished_usd
    free = {"input": 0.0, "output": 0.0}
    report, _ = run(tmp_path, lambda s: recipe(s, generate__backend__price=free, max_cost=1e-6))
    assert report.state == "complete" and report.spent.lost_usd == 0


def test_a_second_ctrl_c_keeps_lost_calls_on_the_bill_and_frees_the_journal(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(20)])
    price = {"input": 1.0, "output": 10.0}

    async def main() -> None:
        async with FakeServer(latency=5.0) as server:
            priced = recipe(server, generate__backend__price=price, generate__backend__concurrency=4)
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            task = asyncio.ensure_future(build(priced, place, observer=Silent(), card=write_dataset_card))
            while server.requests < 4:  # noqa: ASYNC110 - the count is all there is
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    with Journal(tmp_path / "set.build" / "journal") as journal:
        # 4 calls of at most 1,024 tokens at 10 USD per million, and their prompts
        assert 4 * 0.01024 < journal.spending.open_nusd / NANO < 4 * 0.015
        assert len(list(journal.folder.glob("segment-*"))) == 1
    report, _ = run(tmp_path, lambda s: recipe(s, generate__backend__price=price))
    assert report.state == "complete" and report.spent.lost_usd > 0.04


def test_request_keys_do_not_depend_on_how_a_question_came(tmp_path: Path) -> None:
    """The same text as JSON array, JSON lines, and with escapes: nothing is asked again."""
    rows = [question(i, problem=f"Wie groß ist Form {i}?") for i in range(6)]
    write_pool(tmp_path, rows)
    run(tmp_path, answer=steady)
    for text in (
        "\n".join(json.dumps(r, ensure_ascii=False) for r in rows),
        json.dumps([dict(reversed(r.items())) for r in rows], indent=4),
    ):
        (tmp_path / "pool.json").write_text(text, encoding="utf-8")
        _, server = run(tmp_path, answer=steady)
        assert server.requests == 0
