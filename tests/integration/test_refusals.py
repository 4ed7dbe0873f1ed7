"""A run must never look like success when it is none: refusals, empty replies, and what is written then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import Call, FakeServer, Reply, default_answer
from tests.integration.test_build import Silent, digests, question, recipe, rows_of, without_url, write_pool
from videop2r_data.backends.breaker import IN_A_ROW
from videop2r_data.backends.journal import Journal
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.replay import reproduce
from videop2r_data.builders.retries import RETRY_KINDS, RetryKind, find_retries, parse_kinds
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.cli.build import exit_code, show_report
from videop2r_data.cli.common import out_console
from videop2r_data.errors import BackendError, ConfigError
from videop2r_data.schemas.recipe import Recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
WORDS = "This model's maximum context length is 2048 tokens. However, you requested 5213 tokens."


def refusing(call: Call) -> Reply:
    return Reply(status=400, body=json.dumps({"error": {"message": WORDS}}).encode())


def saying(content: str | None, **message: Any) -> Reply:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": content, **message},
    }
    return Reply(body=json.dumps({"id": "1", "model": "g", "choices": [choice]}).encode())


def steady(call: Call) -> str:
    return "<judgement>Yes</judgement>" if b"<judgement>" in call.raw else default_answer(call)


def run(
    folder: Path,
    make: Callable[[FakeServer], Recipe] = recipe,
    *,
    options: dict[str, Any] | None = None,
    **server: Any,
) -> tuple[BuildReport, FakeServer]:
    async def main() -> tuple[BuildReport, FakeServer]:
        async with FakeServer(**{"answer": steady, **server}) as fake:
            place = Workspace.at(folder / "set", base=folder)
            report = await build(
                make(fake), place, observer=Silent(), card=write_dataset_card, **(options or {})
            )
            return report, fake

    return asyncio.run(main())


def could_retry(folder: Path) -> dict[str, int]:
    """What the dry question says."""

    async def main() -> dict[str, int]:
        place = Workspace.at(folder / "set", base=folder)
        note = json.loads((place.work / "workspace.json").read_bytes())
        with Journal(place.journal, readonly=True) as journal:
            made = Recipe.model_validate(note["recipe"])
            found = await find_retries(made, place, journal, RETRY_KINDS, observer=Silent())
            return dict(found.rows)

    return asyncio.run(main())


def printed(report: BuildReport, capsys: pytest.CaptureFixture[str]) -> str:
    made = Recipe.model_validate(
        {
            "name": "set",
            "sources": [{"name": "p", "kind": "video-r1", "path": "x", "media_root": "."}],
            "generate": {"backend": {"kind": "demo", "model": "m"}},
        }
    )
    show_report(report, made, out_console())
    return capsys.readouterr().out


def test_a_server_that_refuses_everything_stops_the_run_with_its_words(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(300)])
    with pytest.raises(BackendError) as caught:
        run(tmp_path, script=refusing)
    text = str(caught.value)
    assert WORDS in text and "--max-model-len" in text and "--retry refused" in text
    assert not (tmp_path / "set").exists()
    asked = could_retry(tmp_path)
    assert IN_A_ROW <= asked["refused"] < 2 * IN_A_ROW, "the rest was not asked"
    report, server = run(tmp_path, options={"retry": ("refused",)})
    assert report.state == "complete" and report.ledger is not None and report.ledger.kept == 300
    assert report.retried == {"refused": asked["refused"]} and server.requests == 600
    assert exit_code(report) == 0


def test_refusals_are_kept_until_they_are_asked_again_and_the_replay_is_the_same(tmp_path: Path) -> None:
    """One server refuses seven rows; mended, only those are asked, and the set is that of a server without fault."""
    for name in ("mended", "clean"):
        (tmp_path / name).mkdir()
        write_pool(tmp_path / name, [question(i) for i in range(40)])

    def picky(call: Call) -> Reply | None:
        number = int(call.prompt.split("shape ")[1].split("?")[0]) if b"<judgement>" not in call.raw else -1
        return refusing(call) if number % 6 == 3 else None

    first, _ = run(tmp_path / "mended", script=picky)
    assert first.ledger is not None and first.ledger.reasons == {"generate/call_refused": 7}
    assert exit_code(first) == 0 and WORDS in first.examples["call_refused"]
    again, server = run(tmp_path / "mended")
    assert server.requests == 0 and again.ledger == first.ledger
    third, server = run(tmp_path / "mended", options={"retry": parse_kinds("refused,media")})
    assert third.retried == {"refused": 7, "media": 0} and server.requests == 14
    assert third.ledger is not None and third.ledger.kept == 40
    run(tmp_path / "clean")
    assert without_url(tmp_path / "mended" / "set") == without_url(tmp_path / "clean" / "set")

    async def same() -> bool:
        place = Workspace.of(tmp_path / "mended" / "set")
        return (await reproduce(place, card=write_dataset_card, observer=Silent())).same

    assert asyncio.run(same())


def test_what_is_asked_again_and_gets_no_answer_is_asked_by_the_next_run(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(6)])
    run(tmp_path, script=refusing)

    def away(call: Call) -> Reply:
        return Reply(status=503)

    report, _ = run(
        tmp_path,
        lambda s: recipe(s, generate__backend__retries=0),
        script=away,
        options={"retry": ("refused",)},
    )
    assert report.unanswered == 6 and exit_code(report) == 3
    report, server = run(tmp_path)
    assert report.ledger is not None and report.ledger.kept == 6 and server.requests == 12


EMPTY: dict[str, tuple[Reply, str]] = {
    "null": (saying(None), "look at one reply"),
    "reasoning": (saying(None, reasoning_content="It is round. " * 9), "reasoning parser"),
    "swallowed": (
        saying("<answer>A</answer>", reasoning_content="<observation>It is round"),
        "reasoning parser",
    ),
    "no content at all": (
        Reply(body=b'{"choices":[{"finish_reason":"stop","message":{"role":"assistant"}}]}'),
        "look at one reply",
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_replies_without_text_stop_the_run_from_the_start_on(tmp_path: Path, name: str) -> None:
    reply, words = EMPTY[name]
    write_pool(tmp_path, [question(i) for i in range(100)])
    with pytest.raises(BackendError, match="in a row came back") as caught:
        run(tmp_path, script=lambda call: reply)
    assert words in str(caught.value) and "--retry empty" in str(caught.value)
    report, _ = run(tmp_path, options={"retry": ("empty",)})
    assert report.ledger is not None and report.ledger.kept == 100


def test_a_judge_that_refuses_or_never_decides_stops_the_run(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(100)])

    def refusing_judge(call: Call) -> Reply | None:
        return refusing(call) if b"BEGIN OBSERVATION" in call.raw else None

    with pytest.raises(BackendError, match=r"the judge server: .* were refused"):
        run(tmp_path, script=refusing_judge)
    with pytest.raises(BackendError, match="came back without a verdict"):
        run(tmp_path, answer=lambda call: "Hm." if b"BEGIN OBSERVATION" in call.raw else default_answer(call))
    could = could_retry(tmp_path)
    assert could["no_verdict"] > 0 and could["refused"] > 0
    report, _ = run(tmp_path, options={"retry": RETRY_KINDS})
    assert report.ledger is not None and report.ledger.kept == 100


def test_keep_going_takes_the_rows_as_they_are(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(100)])

    def picky(call: Call) -> Reply | None:
        return refusing(call) if "shape 9" not in call.prompt and b"<judgement>" not in call.raw else None

    with pytest.raises(BackendError):
        run(tmp_path, script=picky)
    report, _ = run(tmp_path, script=picky, options={"keep_going": True})
    assert report.ledger is not None
    assert (report.ledger.kept, report.ledger.reasons["generate/call_refused"]) == (11, 89)


def test_a_set_without_a_row_is_an_error_and_replaces_none_that_has_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pool(tmp_path, [question(i) for i in range(20)])
    report, _ = run(tmp_path, script=refusing)
    assert report.state == "complete" and report.ledger is not None and report.ledger.kept == 0
    assert exit_code(report) == 1
    text = printed(report, capsys)
    assert "No row was accepted" in text and "load_dataset" not in text
    assert WORDS in text and "--retry refused" in text and "--max-model-len" in text
    run(tmp_path, options={"retry": ("refused",)})
    good = digests(tmp_path / "set")
    other = lambda s: recipe(s, generate__backend__model="other")  # noqa: E731
    report, _ = run(tmp_path, other, script=refusing)
    assert report.state == "withheld" and exit_code(report) == 1 and digests(tmp_path / "set") == good
    text = printed(report, capsys)
    assert "the data set of 20 accepted rows stays as it was" in text and "load_dataset" not in text
    report, _ = run(tmp_path, other, script=refusing, options={"replace": True})
    assert report.state == "withheld" and digests(tmp_path / "set") == good, "never by one without rows"


def test_a_set_that_lost_most_rows_to_a_server_replaces_the_old_one_only_on_demand(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(30)])
    run(tmp_path)
    good = digests(tmp_path / "set")

    def picky(call: Call) -> Reply | None:
        return refusing(call) if b"<judgement>" not in call.raw and "shape 2" not in call.prompt else None

    other = lambda s: recipe(s, generate__backend__model="other")  # noqa: E731
    report, _ = run(tmp_path, other, script=picky)
    assert report.state == "withheld" and "--replace" in report.withheld and digests(tmp_path / "set") == good
    report, _ = run(tmp_path, other, script=picky, options={"replace": True})
    assert report.state == "complete" and len(rows_of(tmp_path / "set", "sft")) == 11
    write_pool(tmp_path, [question(i) for i in range(20, 24)])
    report, _ = run(tmp_path, other)
    assert report.state == "complete", "a smaller pool is no loss"


def test_empty_replies_have_a_reason_of_their_own_and_another_try_may_fare_better(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(12)])

    def often_empty(call: Call) -> Reply | None:
        cold = b"<judgement>" not in call.raw and call.body["temperature"] == 0
        return saying("") if cold and call.prompt.split("shape ")[1][0] in "135" else None

    report, _ = run(tmp_path, script=often_empty)
    assert report.ledger is not None
    assert report.ledger.reasons == {"generate/completion_empty": 5}, "1, 3, 5, 10 and 11"
    assert verify_release(str(tmp_path / "set"), workers=1).ok
    report, server = run(tmp_path, lambda s: recipe(s, generate__attempts=2), script=often_empty)
    assert report.ledger is not None and report.ledger.kept == 12 and server.requests == 10
    report, server = run(tmp_path, lambda s: recipe(s, generate__attempts=2), options={"retry": ("empty",)})
    assert server.requests == 0 and report.retried == {"empty": 0}, "those rows are kept by their second try"


@pytest.mark.parametrize(
    ("text", "kinds"), [("all", RETRY_KINDS), ("no-verdict, media", ("no_verdict", "media"))]
)
def test_kinds_of_retry(text: str, kinds: tuple[RetryKind, ...]) -> None:
    assert parse_kinds(text) == kinds


@pytest.mark.parametrize("text", ["", "refusd", "refused,sound"])
def test_an_unknown_kind_names_those_there_are(text: str) -> None:
    with pytest.raises(ConfigError, match="refused, empty, filtered"):
        parse_kinds(text)
