"""One paid call, done right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from videop2r_data.backends.caller import Answer, Caller, Turns, call_with_retries
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.limiter import AdaptiveLimiter
from videop2r_data.backends.money import Money, reserve_usd
from videop2r_data.errors import AuthError, BudgetError, MediaError, RefusedError, TransientError
from videop2r_data.schemas.calls import Completion, Frames, Message, Request, SamplingParams, Usage
from videop2r_data.schemas.judges import Price

PRICE = Price(input=1.0, output=10.0)
# 100 output tokens at most: 0.001 USD; the prompt is a few bytes and a template's allowance
PARAMS = SamplingParams(max_tokens=100)


def ask(text: str) -> Request:
    return Request("generate", "m", (Message("user", text),), PARAMS)


class Scripted:
    """A backend with scripted answers: exceptions are raised, texts returned; then it repeats the last."""

    usage = Usage(input_tokens=10, output_tokens=20)

    name = "scripted"
    model = "m"
    wants: Literal["none", "encoded", "array"] = "none"

    def __init__(self, *script: str | Exception, delay: float = 0.0) -> None:
        self.script = list(script)
        self.delay = delay
        self.calls = 0
        self.started = self.closed = 0

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.closed += 1

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        self.calls += 1
        await asyncio.sleep(self.delay)
        item = self.script[0] if len(self.script) == 1 else self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        return Completion(text=item, finish_reason="stop", model="m-1", usage=self.usage)


def caller(
    journal: Journal, backend: Scripted | None, *, max_cost: float | None = None, retries: int = 2
) -> Caller:
    money = Money(journal, max_cost)
    limiter = AdaptiveLimiter(4)
    return Caller(backend, journal=journal, money=money, limiter=limiter, price=PRICE, retries=retries)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(seconds: float) -> None:
        assert seconds >= 0

    defaults = {**(call_with_retries.__kwdefaults__ or {}), "sleep": at_once}
    monkeypatch.setattr(call_with_retries, "__kwdefaults__", defaults)


def run(
    folder: Path, backend: Scripted | None, *requests: Request, **settings: object
) -> list[Answer | None]:
    async def main() -> list[Answer | None]:
        with Journal(folder) as journal:
            one = caller(journal, backend, **settings)  # type: ignore[arg-type]
            try:
                return list(await asyncio.gather(*(one.ask(r) for r in requests)))
            finally:
                await one.close()

    return asyncio.run(main())


def text_of(answer: Answer | None) -> str:
    assert answer is not None and answer.completion is not None
    return answer.completion.text


def test_an_answer_is_found_again_without_a_backend(tmp_path: Path) -> None:
    backend = Scripted("yes")
    (made,) = run(tmp_path, backend, ask("a"))
    (found,) = run(tmp_path, None, ask("a"))
    (unknown,) = run(tmp_path, None, ask("b"))
    assert made == found and text_of(found) == "yes"
    assert unknown is None
    assert backend.calls == 1 and backend.started == backend.closed == 1


def test_answers_whose_tokens_nobody_counted_cost_what_was_written_ahead(tmp_path: Path) -> None:
    lost = TransientError("cut off", maybe_billed=True)
    backend = Scripted(lost, "yes", "yes", "yes", "yes")
    backend.usage = Usage()
    with pytest.raises(BudgetError):
        run(tmp_path, backend, *map(ask, "abcd"), max_cost=0.0035)
    with Journal(tmp_path, readonly=True) as journal:
        each = round(reserve_usd(ask("a"), PRICE) * 1e9)
        # three calls went out, the first of which was cut off
        assert (journal.spending.finished_nusd, journal.spending.open_nusd) == (2 * each, each)
        assert backend.calls == 3


def test_a_run_that_finds_everything_starts_no_backend(tmp_path: Path) -> None:
    run(tmp_path, Scripted("yes"), ask("a"))
    second = Scripted("no")
    assert text_of(run(tmp_path, second, ask("a"))[0]) == "yes"
    assert second.started == second.calls == second.closed == 0


def test_equal_requests_in_flight_share_one_call(tmp_path: Path) -> None:
    backend = Scripted("yes", delay=0.01)
    answers = run(tmp_path, backend, *[ask("a")] * 5, ask("b"))
    assert [text_of(a) for a in answers] == ["yes"] * 6
    assert backend.calls == 2


def test_a_refusal_is_remembered_and_costs_nothing(tmp_path: Path) -> None:
    backend = Scripted(RefusedError("too long"))
    for _ in range(2):
        assert run(tmp_path, backend, ask("a")) == [Answer(None, "too long")]
    assert backend.calls == 1
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.total_nusd == 0


def test_transient_errors_are_tried_again_and_then_told(tmp_path: Path) -> None:
    assert text_of(run(tmp_path, Scripted(TransientError("503"), TransientError("503"), "yes"), ask("a"))[0])
    with pytest.raises(TransientError, match=r"gave up after 3 tries: 503 \(3x\)"):
        run(tmp_path, Scripted(TransientError("503")), ask("b"))


def test_the_money_of_finished_calls_is_exact(tmp_path: Path) -> None:
    run(tmp_path, Scripted("yes"), ask("a"), ask("b"))
    with Journal(tmp_path, readonly=True) as journal:
        # 2 calls of 10 input tokens at 1 USD and 20 output tokens at 10 USD per million
        assert journal.spending.finished_nusd == 2 * (10 * 1_000 + 20 * 10_000)
        assert journal.spending.open_nusd == 0


@pytest.mark.parametrize(
    ("error", "kept_open"),
    [
        (TransientError("429", rate_limited=True), False),
        (TransientError("timed out", maybe_billed=True), True),
        (AuthError("wrong key"), False),
    ],
)
def test_only_calls_that_may_be_billed_stay_on_the_bill(
    tmp_path: Path, error: Exception, kept_open: bool
) -> None:
    with pytest.raises(type(error)):
        run(tmp_path, Scripted(error), ask("a"), retries=0)
    with Journal(tmp_path, readonly=True) as journal:
        assert (journal.spending.open_nusd > 0) is kept_open


def test_the_budget_refuses_before_it_would_be_passed_also_after_a_restart(tmp_path: Path) -> None:
    # each call reserves a little over 0.001 USD and costs 0.00021 USD
    backend = Scripted("yes")
    made = 0
    for i in range(40):
        try:
            run(tmp_path, backend, ask(str(i)), max_cost=0.005)
            made += 1
        except BudgetError as error:
            assert "--max-cost" in str(error)
            break
    with Journal(tmp_path, readonly=True) as journal:
        spent = journal.spending.total_nusd
    assert made == backend.calls < 40
    assert 0.0037e9 < spent <= 0.005e9, "used up to the point where one more might not fit"


def test_lost_calls_count_against_the_budget(tmp_path: Path) -> None:
    lost = Scripted(TransientError("cut", maybe_billed=True))
    for i in range(2):
        with pytest.raises(TransientError):
            run(tmp_path, lost, ask(str(i)), max_cost=0.0025, retries=0)
    with pytest.raises(BudgetError):
        run(tmp_path, Scripted("yes"), ask("x"), max_cost=0.0025)


def test_pixels_are_asked_for_only_when_a_call_is_made(tmp_path: Path) -> None:
    asked: list[str] = []

    def load(name: str) -> Callable[[], object]:
        async def frames() -> None:
            asked.append(name)

        return frames

    async def main() -> None:
        with Journal(tmp_path) as journal:
            one = caller(journal, Scripted("yes"))
            for name in ("first", "second"):
                await one.ask(ask("a"), load(name))  # type: ignore[arg-type]

    asyncio.run(main())
    assert asked == ["first"]


def test_a_small_budget_is_used_up_although_calls_under_way_hold_more(tmp_path: Path) -> None:
    """Each call holds a little over 0.001 USD and costs 0.00021: four at once hold all of 0.005."""
    backend = Scripted("yes", delay=0.001)
    with pytest.raises(BudgetError):
        run(tmp_path, backend, *(ask(str(i)) for i in range(40)), max_cost=0.005)
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.open_nusd == 0
        assert 0.0037e9 < journal.spending.total_nusd <= 0.005e9


def test_text_that_no_file_can_hold_is_kept_as_every_run_will_read_it(tmp_path: Path) -> None:
    (made,) = run(tmp_path, Scripted("a\ud800b\x00\u2028"), ask("a"))
    (found,) = run(tmp_path, None, ask("a"))
    assert made == found and text_of(found) == "a?b\x00\u2028"
    (made,) = run(tmp_path, Scripted(RefusedError("no \udfff")), ask("b"))
    assert made == run(tmp_path, None, ask("b"))[0] == Answer(None, "no ?")


def test_pixels_that_fail_cost_only_the_question_that_has_them(tmp_path: Path) -> None:
    """Equal requests share a call, but each has its own file: one that vanished must not fail the other."""

    async def gone() -> Frames:
        await asyncio.sleep(0.001)
        raise MediaError("gone", reason="media_missing")

    async def there() -> Frames:
        return None  # type: ignore[return-value]

    async def main() -> list[object]:
        with Journal(tmp_path) as journal:
            one = caller(journal, Scripted("yes", delay=0.001))
            loads = (gone, there, gone, there)
            found = await asyncio.gather(*(one.ask(ask("a"), load) for load in loads), return_exceptions=True)
            return list(found)

    found = asyncio.run(main())
    assert isinstance(found[0], MediaError)
    assert [text_of(a) for a in found if isinstance(a, Answer)][:2] == ["yes"] * 2


def test_a_bug_behind_a_shared_call_is_not_paid_for_by_each_who_waits(tmp_path: Path) -> None:
    backend = Scripted(RuntimeError("a bug"), delay=0.01)

    async def main() -> list[object]:
        with Journal(tmp_path) as journal:
            one = caller(journal, backend)
            return list(await asyncio.gather(*(one.ask(ask("a")) for _ in range(5)), return_exceptions=True))

    assert [type(found) for found in asyncio.run(main())] == [RuntimeError] * 5
    assert backend.calls == 1


def test_pixels_that_one_asker_cannot_load_do_not_fail_the_other(tmp_path: Path) -> None:
    backend = Scripted("yes", delay=0.01)

    async def gone() -> Frames:
        await asyncio.sleep(0.001)
        raise MediaError("gone", reason="media_missing")

    async def there() -> Frames:
        return None  # type: ignore[return-value]

    async def main() -> list[object]:
        with Journal(tmp_path) as journal:
            one = caller(journal, backend)
            asked = (one.ask(ask("a"), load) for load in (gone, there, there))
            return list(await asyncio.gather(*asked, return_exceptions=True))

    first, second, third = asyncio.run(main())
    assert isinstance(first, MediaError)
    assert isinstance(second, Answer) and second == third and backend.calls == 1


def test_an_error_that_stops_the_run_names_the_server(tmp_path: Path) -> None:
    """A recipe has two: a key that one of them does not take is looked for at the right one."""
    with pytest.raises(AuthError, match=r"^the server: status 401: no") as found:
        run(tmp_path, Scripted(AuthError("status 401: no")), ask("a"))
    assert found.value.message == "status 401: no"


def test_an_answer_that_waits_for_its_turn_is_in_the_journal(tmp_path: Path) -> None:
    """And still holds its permit: who waits with an answer in hand is under way."""

    class Held(Turns):
        async def take(self) -> None:
            await asyncio.Event().wait()

    async def held() -> tuple[int, int]:
        with Journal(tmp_path) as journal:
            made = caller(journal, Scripted("yes"))
            made.turns = Held()
            task = asyncio.create_task(made.ask(ask("a")))
            for _ in range(100):
                await asyncio.sleep(0)
            assert journal.has_call(ask("a").key) and not task.done()
            under_way = made.limiter.in_flight
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return under_way, made.limiter.in_flight

    assert asyncio.run(held()) == (1, 0)
    with Journal(tmp_path) as journal:
        assert text_of(asyncio.run(caller(journal, None).ask(ask("a")))) == "yes"
