"""Results that are not what was asked for: repeated, unknown, missing, cut, contradictory lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.anthropic_server import Cut, FakeAnthropic
from tests.fakes.anthropic_worker import make_requests
from tests.integration.test_anthropic_batches import Bench, run, said
from videop2r_data.errors import TransientError
from videop2r_data.schemas.calls import Message, Request

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
COUNT = 12
Mangle = Callable[[list[bytes]], list[bytes]]


def stranger(line: bytes) -> bytes:
    return json.dumps(json.loads(line) | {"custom_id": "f" * 64}).encode() + b"\n"


def expired(line: bytes) -> bytes:
    return json.dumps(json.loads(line) | {"result": {"type": "expired"}}).encode() + b"\n"


HARMLESS: dict[str, Mangle] = {
    "repeated": lambda lines: [*lines, lines[3]],
    "all repeated": lambda lines: [*lines, *reversed(lines)],
    "unknown id": lambda lines: [stranger(lines[0]), *lines],
    "blank lines": lambda lines: [b"\n", *lines, b"\n"],
    "no result": lambda lines: [
        b"{}\n",
        b"null\n",
        b'{"custom_id": 3, "result": []}\n',
        b"\xff\xfe\n",
        *lines,
    ],
    "torn line before": lambda lines: [lines[0][:40] + b"\n", *lines],
    "no newline at the end": lambda lines: [*lines[:-1], lines[-1].rstrip()],
    "other order": lambda lines: sorted(lines),
    "expired, then answered": lambda lines: [*(expired(line) for line in lines), *lines],
    "answered, then expired": lambda lines: [*lines, *(expired(line) for line in lines)],
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("cut_off", [False, True])
def test_what_is_harmless_costs_nothing(tmp_path: Path, name: str, cut_off: bool) -> None:
    """Also for a batch whose submission was cut off, which is told by its results."""

    async def work(bench: Bench) -> None:
        if cut_off:
            bench.server.fail("create", Cut(after=True))
        bench.server.mangle = HARMLESS[name]
        runner = bench.runner()
        await runner.submit(make_requests(COUNT))
        done = await bench.wait(runner)
        assert done.done and not done.trouble and bench.texts() == said(COUNT)
        assert len(bench.results) == COUNT, "each request once"
        assert bench.events().count("collected") == 1 and runner.pending_keys() == set()
        assert len(bench.server.batches) == 1 and max(bench.server.accepted_ids.values()) == 1

    run(work, tmp_path)


@pytest.mark.parametrize("cut_off", [False, True])
@pytest.mark.parametrize(
    "mangle",
    [
        lambda lines: lines[:7],
        lambda lines: [*lines[:7], lines[7][:30]],
        lambda lines: [*lines[:7], *lines[:5]],
        lambda lines: [*lines[:7], *map(stranger, lines[7:])],
        lambda lines: [*lines[:3], b"<html>\n", *lines[8:]],
    ],
    ids=[
        "cut between lines",
        "cut in a line",
        "repeated for missing",
        "unknown for missing",
        "garbage inside",
    ],
)
def test_what_the_server_lost_for_good_is_alone_asked_again(
    tmp_path: Path, mangle: Mangle, cut_off: bool
) -> None:
    async def work(bench: Bench) -> None:
        if cut_off:
            bench.server.fail("create", Cut(after=True))
        bench.server.mangle = mangle
        runner = bench.runner()
        await runner.submit(make_requests(COUNT))
        began = bench.clock.now
        assert (await bench.wait(runner)).done
        assert bench.clock.now > began + 600, "a short file is read again for ten minutes"
        assert len(bench.results) == COUNT and len(bench.texts()) == 7
        lost = [r for r in bench.results if r.completion is None]
        for one in lost:
            assert isinstance(one.error, TransientError) and one.error.maybe_billed
        bench.server.mangle = lambda lines: lines
        again = [r for r in make_requests(COUNT) if r.key in {one.key for one in lost}]
        await runner.submit(again)
        assert (await bench.wait(runner)).done
        assert bench.texts() == said(COUNT)
        assert len(bench.server.batches) == 2 and sum(bench.server.accepted_ids.values()) == COUNT + 5

    run(work, tmp_path)


def test_a_short_file_is_given_up_by_processes_that_look_once_each(tmp_path: Path) -> None:
    """As `build --no-wait` does in a loop: what one has seen, the next knows."""

    async def work(bench: Bench) -> None:
        bench.server.mangle = lambda lines: lines[:7]
        await bench.runner().submit(make_requests(COUNT))
        for _ in range(3):
            progress = await bench.runner().collect_ready(bench.results.append)
            assert not progress.done and "ended after 7 of 12" in progress.trouble[0]
            bench.clock.now += 290
        bench.server.mangle = lambda lines: lines[:9]  # more has come: the time begins anew
        assert not (await bench.runner().collect_ready(bench.results.append)).done
        bench.clock.now += 590
        assert not (await bench.runner().collect_ready(bench.results.append)).done
        bench.clock.now += 20
        assert (await bench.runner().collect_ready(bench.results.append)).done
        assert bench.events() == ["submitting", "submitted", "short", "short", "collected"]

    run(work, tmp_path)


def test_of_lines_that_disagree_the_first_answer_counts(tmp_path: Path) -> None:
    def other(line: bytes) -> bytes:
        return line.replace(b"you said", b"you sang")

    async def work(bench: Bench) -> None:
        bench.server.mangle = lambda lines: [*lines, *map(other, lines)]
        runner = bench.runner()
        await runner.submit(make_requests(3))
        assert (await bench.wait(runner)).done
        assert bench.texts() == said(3)

    run(work, tmp_path)


def test_an_orphan_that_is_partly_expired_is_adopted_and_the_rest_asked_again(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.fail("create", Cut(after=True))
        bench.server.mangle = lambda lines: [*lines, lines[0]]
        runner = bench.runner()
        await runner.submit(make_requests(COUNT))
        bench.server.outcome = lambda _key, _index: "succeeded"
        assert (await bench.wait(runner)).done
        assert bench.events() == ["submitting", "lost", "submitted", "collected"]
        assert len(bench.texts()) == 8
        expired = {r.key for r in bench.results if isinstance(r.error, TransientError)}
        assert len(expired) == 4 and not any(getattr(r.error, "maybe_billed", False) for r in bench.results)
        await runner.submit([r for r in make_requests(COUNT) if r.key in expired])
        assert (await bench.wait(runner)).done
        assert bench.texts() == said(COUNT) and sum(bench.server.accepted_ids.values()) == COUNT + 4

    outcomes = FakeAnthropic(outcome=lambda _key, index: "expired" if index % 3 == 0 else "succeeded")
    run(work, tmp_path, server=outcomes)


def test_the_better_of_two_batches_is_adopted(tmp_path: Path) -> None:
    """Somebody else's batch of the same size holds some of our requests; ours holds all of them."""

    async def work(bench: Bench) -> None:
        runner = bench.runner()
        strangers = [Request("judge", "claude-test-3-7", (Message("user", f"other {i}"),)) for i in range(6)]
        bench.server.fail("create", Cut(after=True))
        await runner.submit(make_requests(COUNT))
        (ours,) = bench.server.batches
        await bench.backends[0].submit([*make_requests(6), *strangers])
        assert (await bench.wait(runner)).done
        (adopted,) = [e for e in bench.log.batch_events() if e["event"] == "submitted"]
        assert adopted["batch_id"] == ours and bench.texts() == said(COUNT)

    run(work, tmp_path)


def test_a_batch_that_cannot_be_read_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        runner = bench.runner()
        bench.server.fail("create", Cut(after=True), Cut(after=True))
        await runner.submit(make_requests(COUNT))
        first, second = bench.server.batches

        def only_second(lines: list[bytes]) -> list[bytes]:
            keys = {json.loads(line)["custom_id"] for line in lines}
            asked: dict[str, Any] = {r["custom_id"]: r for r in bench.server.batches[second].requests}
            return lines if keys == set(asked) else lines[:1]

        bench.server.mangle = only_second
        progress = await runner.collect_ready(bench.results.append)
        assert progress.unsettled == 1 and "cannot settle" in progress.trouble[0]
        assert len(bench.texts()) == COUNT // 2 and first != second

    run(work, tmp_path, max_requests=COUNT // 2)


def test_an_answer_that_cannot_be_read_may_have_been_billed(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.server.mangle = lambda lines: [line.replace(b'"content"', b'"tnetnoc"') for line in lines]
        runner = bench.runner()
        await runner.submit(make_requests(2))
        assert (await bench.wait(runner)).done
        errors = [r.error for r in bench.results]
        assert all(isinstance(e, TransientError) and e.maybe_billed for e in errors), errors

    run(work, tmp_path)
