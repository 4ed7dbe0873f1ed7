"""A resumed build of a large pool asks at once for what is missing, and counts what it need not look at again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes.openai_server import Call, FakeServer, Reply, default_answer
from tests.integration.test_build import Silent, digests, question, recipe, run, write_pool
from videop2r_data.backends import Journal
from videop2r_data.builders import finished, pipeline
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.retries import RetryKind
from videop2r_data.builders.run import Result, Stop, Tally
from videop2r_data.builders.steps import Steps
from videop2r_data.builders.workspace import Shard, Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import SourceError
from videop2r_data.schemas import Sample

pytestmark = pytest.mark.integration
ROWS, STOPPED = 60, 40


class Looked:
    """The questions that a live pass took through the steps."""

    def __init__(self) -> None:
        self.samples: list[str] = []

    def take(self) -> list[str]:
        found, self.samples = sorted(self.samples), []
        return found


@pytest.fixture(autouse=True)
def looked(monkeypatch: pytest.MonkeyPatch) -> Looked:
    """Pools of a few rows count as large."""
    found, steps = Looked(), Steps.run

    async def noted(self: Steps, sample: Sample) -> Result:
        result = await steps(self, sample)
        if self.media.sampler is not None:
            found.samples.append(sample.sample_id)
        return result

    monkeypatch.setattr(Steps, "run", noted)
    monkeypatch.setattr(pipeline, "KEPT_CHARS", 5_000)
    return found


class Counts(Silent):
    """Keeps what the pass counted last, or stops the build after some questions."""

    last: tuple[Any, ...] = ()
    writing = False

    def begin(self, what: str, total: int | None) -> None:
        super().begin(what, total)
        self.writing = what == "writing"

    def step(self, tally: Tally, parts: Any) -> None:
        if not self.writing:
            reasons = {reason: count for reason, count in tally.reasons.items() if count}
            self.last = tally.rows, tally.kept, tally.rejected, tally.failed, tally.waiting, reasons
        super().step(tally, parts)


def answers(call: Call) -> Reply | None:
    """Questions 7 and 17 are refused, 9 gets no answer."""
    if any(f"shape {n}?" in call.prompt for n in (7, 17)):
        return Reply(status=400)
    return Reply(status=500) if "shape 9?" in call.prompt else None


def stop_early(folder: Path, looked: Looked, **settings: Any) -> list[str]:
    """Finish some of the questions; which were looked at."""
    stop = Stop()
    watch = Counts(stop, STOPPED)
    report, _ = run(folder, partial(recipe, **settings), stop=stop, observer=watch, script=answers)
    assert report.state == "interrupted" and STOPPED <= report.seen < ROWS - 5
    return looked.take()


def go_on(folder: Path, looked: Looked, **settings: Any) -> tuple[list[str], FakeServer]:
    """Finish the build: which questions were looked at; the counts and bytes are those of one run."""
    watch, whole = Counts(), Counts()
    report, server = run(folder, partial(recipe, **settings), observer=watch, script=answers)
    found = looked.take()
    other, _ = run(folder, partial(recipe, **settings), out="whole", observer=whole, script=answers)
    looked.take()
    assert watch.last == whole.last and watch.last[0] == ROWS == report.seen
    assert digests(folder / "set/data") == digests(folder / "whole/data") and report.ledger == other.ledger
    shutil.rmtree(folder / "whole")
    shutil.rmtree(folder / "whole.build")
    assert report.ledger is not None and report.ledger.rows_in == ROWS
    assert report.ledger.kept + report.ledger.rejected + report.ledger.failed == ROWS
    return found, server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool with ids that come again, rows that come again and one that cannot be read."""
    rows = [question(i) for i in range(ROWS)]
    rows[20], rows[50] = question(20, problem_id=3), question(50, problem_id=3)
    rows[30], rows[55] = rows[2], rows[12]
    rows[35] = question(35, problem_type="?")
    write_pool(tmp_path, rows)
    return tmp_path


def test_finished_questions_are_counted_and_not_looked_at(folder: Path, looked: Looked) -> None:
    first = stop_early(folder, looked)
    second, _ = go_on(folder, looked)
    assert set(first) & set(second) <= {"pool/9"} <= set(second), "it got no answer, and is asked again"
    assert len(set(first) | set(second)) == ROWS - 3, "but two repeated rows and one that cannot be read"
    assert go_on(folder, looked)[0] == ["pool/9"], "and of a finished build nothing but that"


def test_the_pool_is_counted_while_calls_are_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "COUNT_S", 0)
    seen: list[int | None] = []

    class Watch(Counts):
        def step(self, tally: Tally, parts: Any) -> None:
            super().step(tally, parts)
            seen.append(None if self.writing else parts.total)

        def begin(self, what: str, total: int | None) -> None:
            super().begin(what, total)
            assert total is None, "no call waits for the count"

    run(folder, observer=Watch(), latency=0.1)
    assert ROWS in seen


def test_a_pool_that_breaks_off_ends_the_build_while_it_is_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "COUNT_S", 0)
    path = folder / "pool.json"
    path.write_text(path.read_text()[:-20])
    watch = Counts()
    with pytest.raises(SourceError, match="ends inside"):
        run(folder, partial(recipe, concurrency=2), observer=watch, latency=0.5)
    assert watch.last == () or watch.last[0] < ROWS // 2, "it does not go on until the pass comes there"


@pytest.mark.parametrize(
    "settings",
    [
        {"generate__attempts": 2},
        {"generate__max_tokens": 700},
        {"verify": {"policy": {"profile": "paper"}}},
        {"judge__prompt": "own.txt"},
    ],
    ids=str,
)
def test_another_recipe_or_prompt_voids_what_was_finished(
    folder: Path, looked: Looked, settings: dict[str, Any]
) -> None:
    if "judge__prompt" in settings:
        text = (Path(finished.__file__).parents[1] / "prompts/judge-v1.txt").read_text()
        (folder / "own.txt").write_text(text)
        stop_early(folder, looked, **settings)
        (folder / "own.txt").write_text(text.replace("\n", " \n", 1))
    else:
        stop_early(folder, looked)
    found, _ = go_on(folder, looked, **settings)
    assert len(found) == ROWS - 3


@pytest.mark.parametrize("what", ["gone", "cut", "damaged", "answered otherwise", "retry"])
def test_whatever_happens_to_the_journal_the_bytes_are_those_of_one_run(
    folder: Path, looked: Looked, what: str
) -> None:
    """Where an answer of a skipped question is missing, the same run looks at every question."""
    stop_early(folder, looked)
    segment = next((folder / "set.build/journal").glob("segment-*.jsonl"))
    data, everyone = segment.read_bytes(), ROWS - 3
    if what == "gone":
        segment.unlink()
    elif what == "cut":
        segment.write_bytes(data[: data.rindex(b'{"key')])
        everyone = 1
    elif what == "damaged":
        segment.write_bytes(data.replace(b"shape", b"shade", 1))
    elif what == "answered otherwise":  # merged with the journal of another machine, whose answer comes first
        first = next(line for line in data.splitlines() if b"observation" in line)
        key, body = json.loads(first)["key"], json.loads(first)["data"]
        with Journal(folder / "other") as other:
            other.put_call(key, body | {"text": body["text"].replace("shape", "form")}, nusd=0)
            name = other.segment
        shutil.copyfile(folder / "other" / name, segment.with_name("segment-000000-x.jsonl"))
        report, _ = run(folder, script=answers)
        assert report.unanswered == 1 and len(set(looked.take())) == everyone
        assert report.calls_made
        return
    else:
        kinds: list[RetryKind] = ["refused"]
        run(folder, retry=kinds, script=answers)
        assert len(looked.take()) == everyone
        return
    found = go_on(folder, looked)[0]
    assert len(set(found)) == everyone if everyone > 1 else found


@pytest.mark.parametrize("what", ["withdrawn", "damaged"])
def test_a_share_asks_again_for_what_the_journal_lost(folder: Path, what: str) -> None:
    """No export follows that would notice: the share itself looks at every question."""

    def share(script: Any = answers) -> BuildReport:
        async def main() -> BuildReport:
            async with FakeServer(script=script) as fake:
                place, card = Workspace.at(folder / "set", base=folder), write_dataset_card
                return await build(recipe(fake), place, observer=Silent(), card=card, shard=Shard(1, 1))

        return asyncio.run(main())

    assert share().calls_made and share(()).calls_made == 2, "question 9 and its judgement"
    assert share(()).calls_found == 0, "all is finished, and nothing is looked at"
    with Journal(folder / "set.build/journal") as journal:
        key = next(key.hex() for key in journal._calls if "refused" in (journal.call(key.hex()) or {}))
        path = folder / "set.build/journal" / journal.segment
        if what == "withdrawn":  # by a run with --retry that was killed before it could ask
            journal.withdraw(key)
    if what == "damaged":
        path.write_bytes(path.read_bytes().replace(b"refused", b"refuted", 1))
        path.with_suffix(".idx").unlink(missing_ok=True)
    again = share(())
    assert again.state == "shard_complete" and again.calls_made == 2, "the question and its judgement"


def test_a_share_keeps_nothing_of_the_questions_of_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of a hundred would hold a hundred times what it works on."""
    made: list[finished.Finished] = []
    real = finished.Finished.__init__

    def init(self: finished.Finished, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(finished.Finished, "__init__", init)

    async def main() -> BuildReport:
        async with FakeServer() as fake:
            place, card = Workspace.at(folder / "set", base=folder), write_dataset_card
            return await build(recipe(fake), place, observer=Silent(), card=card, shard=Shard(1, 4))

    assert 0 < asyncio.run(main()).seen < ROWS / 2
    assert [one._under_way for one in made] == [{}]


def test_a_file_that_was_changed_is_looked_at_again(tmp_path: Path, looked: Looked) -> None:
    rows = [question(i, data_type="image", path=f"{i}.png") for i in range(12)]
    for i in range(12):
        Image.new("RGB", (28, 28), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "5.png").unlink()
    write_pool(tmp_path, rows)
    run(tmp_path)
    assert len(looked.take()) == 12
    run(tmp_path)
    assert looked.take() == []
    for i in (3, 5):
        Image.new("RGB", (56, 28), (200, 0, i)).save(tmp_path / f"{i}.png")
    os.utime(tmp_path / "7.png", ns=(1, 1))
    report, server = run(tmp_path)
    assert looked.take() == ["pool/3", "pool/5", "pool/7"]
    assert len(server.counts) == 4 == report.calls_made


@pytest.mark.parametrize("meanwhile", ["gone", "another"])
def test_a_file_that_comes_back_is_looked_at_again(tmp_path: Path, looked: Looked, meanwhile: str) -> None:
    """With its old size and time, as on a disk that is mounted again: what lay there meanwhile counts no longer."""
    write_pool(tmp_path, [question(i, data_type="image", path=f"{i}.png") for i in range(12)])
    for i in range(12):
        Image.new("RGB", (28, 28), (i, 0, 0)).save(tmp_path / f"{i}.png")
    run(tmp_path)
    before, looked_at = digests(tmp_path / "set/data"), looked.take()
    for name in ("3.png", "5.png"):
        (tmp_path / name).rename(tmp_path / f"{name}.away")
        if meanwhile == "another":
            Image.new("RGB", (56, 28), (200, 0, 0)).save(tmp_path / name)
    run(tmp_path)
    assert looked.take() == ["pool/3", "pool/5"] and digests(tmp_path / "set/data") != before
    for name in ("3.png", "5.png"):
        (tmp_path / f"{name}.away").rename(tmp_path / name)
    report, _ = run(tmp_path)
    assert looked.take() == ["pool/3", "pool/5"] and len(looked_at) == 12
    assert digests(tmp_path / "set/data") == before and report.calls_made == 0
    run(tmp_path)
    assert looked.take() == []


def test_a_judges_second_question_without_an_answer_is_asked_by_the_next_run(folder: Path) -> None:
    """The first reply, without a verdict, stands in the rows, and the build does not say that all is well."""

    def answer(call: Call) -> str:
        again = "Reply with exactly one line" in call.prompt
        return "Perhaps." if "<judgement>" in call.prompt and not again else default_answer(call)

    def away(call: Call) -> Reply | None:
        again = "Reply with exactly one line" in call.prompt
        return Reply(status=500) if again and call.digest[0] in "012" else None

    make = partial(recipe, judge__backend__retries=0)
    first, _ = run(folder, make, answer=answer, script=away)
    assert first.ledger is not None and first.unanswered == first.ledger.reasons["judge/no_verdict"] > 3
    second, _ = run(folder, make, answer=answer)
    whole, _ = run(folder, make, out="whole", answer=answer)
    assert second.calls_made == first.unanswered and second.unanswered == 0
    assert digests(folder / "set/data") == digests(folder / "whole/data") and second.ledger == whole.ledger


def test_a_target_counts_what_is_finished_in_pool_order(folder: Path, looked: Looked) -> None:
    stop_early(folder, looked, target=45)
    watch, whole = Counts(), Counts()
    report, _ = run(folder, partial(recipe, target=45), observer=watch, script=answers)
    assert len(looked.take()) < 20
    other, _ = run(folder, partial(recipe, target=45), out="whole", observer=whole, script=answers)
    assert digests(folder / "set/data") == digests(folder / "whole/data")
    assert report.ledger == other.ledger and report.ledger is not None and report.ledger.kept == 45


def test_rows_that_move_in_the_pool_are_known_and_new_ones_asked(folder: Path, looked: Looked) -> None:
    run(folder, script=answers)
    looked.take()
    rows = json.loads((folder / "pool.json").read_text())
    write_pool(folder, [question(100), *reversed(rows), question(101)])
    report, server = run(folder, script=answers)
    assert {"pool/100", "pool/101", "pool/9"} <= set(looked.take())
    assert report.seen == ROWS + 2 == report.ledger.rows_in if report.ledger else False
    assert report.calls_made == 4, server.counts
