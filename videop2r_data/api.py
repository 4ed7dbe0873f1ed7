"""What a notebook needs: build a data set, load it, check it, look at a sample, ask a judge.

Every function can be called where an event loop runs already, as it does in a notebook; `build_async` and
`judge_async` are for code that has its own. Foreseen errors are `P2RError`s with a hint.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from videop2r_data.backends import (
    Caller,
    Journal,
    JudgeRequests,
    Money,
    ask_verdict,
    make_backend,
    make_breaker,
    make_caller,
)
from videop2r_data.builders import (
    BuildReport,
    Observer,
    OnRay,
    Parts,
    SampleView,
    Tally,
    Workspace,
    backend_of,
    in_words,
    look_up,
)
from videop2r_data.builders import build as run_build
from videop2r_data.builders.verify import VerifyReport, verify_release
from videop2r_data.cards import write_dataset_card
from videop2r_data.cards.card import as_written
from videop2r_data.errors import ConfigError, RefusedError, SourceError
from videop2r_data.files import open_rows, read_lock
from videop2r_data.recipes import read_recipe
from videop2r_data.schemas import (
    Backend,
    Judgement,
    JudgeSpec,
    Recipe,
    Request,
    judges_of_text,
    strip_answer_tag,
    validate_settings,
)

T = TypeVar("T")
Tell = Callable[[str], None]
JudgeSettings = JudgeSpec | Recipe | Mapping[str, Any] | str | Path
"""A judge as in a recipe (`{"kind": "openai", "model": …, "base_url": …}` is enough); or a recipe, a file or
packaged name of one, or a folder that `build` wrote: then a judge of that recipe."""

_JUDGED = ("problem", "solution", "observation")
_EVERY = 50
"""Questions between two lines of progress."""


def build(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    work: str | Path | None = None,
    limit: int | None = None,
    wait: bool = True,
    executor: OnRay | None = None,
    tell: Tell | None = None,
) -> BuildReport:
    """Build a data set, or go on with a build that was stopped: every finished call is kept.

    Args:
        recipe: a recipe, its settings as a mapping, a YAML file, or the name of a packaged one (`demo`).
        out: folder of the data set; None: the recipe's name, in the current folder.
        work: folder of the journal, or its URL in a store; None: beside `out`, with the ending `.build`.
        limit: take only so many rows of each source.
        wait: wait for batches at the server; else return with the state `waiting`, and a later call goes on.
        executor: who decodes and asks: `OnRay(actors=…, gpus=…)` for a Ray cluster; None: this process.
        tell: is told of progress in lines of text; `print` will do.

    Returns:
        The state (`complete`, `waiting`, `over_budget` …), the counts of the ledger and what was spent.

    Raises:
        P2RError: the recipe, a source, a server or the folder cannot be used.
    """
    return _run(build_async(recipe, out, work=work, limit=limit, wait=wait, executor=executor, tell=tell))


async def build_async(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    work: str | Path | None = None,
    limit: int | None = None,
    wait: bool = True,
    executor: OnRay | None = None,
    tell: Tell | None = None,
) -> BuildReport:
    """`build` as a coroutine."""
    found, base = _recipe(recipe)
    if limit is not None:
        sources = [source.model_dump(mode="json") | {"limit": limit} for source in found.sources]
        settings = found.model_dump(mode="json") | {"sources": sources}
        found = validate_settings(settings, Recipe, where=found.name, what="recipe")
    place = Workspace.at(Path(out or found.name), base=base, work=work)
    return await run_build(
        found, place, observer=_Telling(tell), card=write_dataset_card, wait=wait, executor=executor
    )


def load(
    where: str | Path,
    config: str = "sft",
    *,
    columns: Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
) -> list[dict[str, Any]]:
    """The rows of a data set, all in memory.

    Args:
        where: a folder that `build` wrote or an official release, a file of Parquet or JSON, or a Hub id.
        config: `sft` (accepted traces), `rl` (questions) or `rejected`; columns: docs/data-format.md.
        columns: names to read; None: all.
        split, revision: of a Hub data set.

    Raises:
        SourceError: nothing there, or a file or a row is damaged.
    """
    return list(iter_rows(where, config, columns=columns, split=split, revision=revision))


def iter_rows(
    where: str | Path,
    config: str = "sft",
    *,
    columns: Sequence[str] | None = None,
    split: str = "train",
    revision: str | None = None,
) -> Iterator[dict[str, Any]]:
    """The same rows as `load`, one by one in constant memory."""
    found = open_rows(
        str(where), base=Path.cwd(), config=config, columns=columns, split=split, revision=revision
    )
    for place, row in found.rows:
        if isinstance(row, str):
            raise SourceError(row, where=place)
        yield row


def verify(where: str | Path, *, revision: str | None = None, workers: int = 1) -> VerifyReport:
    """Check every row of a released data set against itself, its lock, its card and the scorers.

    Args:
        where: a folder, a file or a Hub id.
        revision: of a Hub data set.
        workers: processes; 1 is this one. More are spawned: a script then needs `if __name__ == "__main__":`.

    Returns:
        `ok`, and the findings by code with the places where they are.

    Raises:
        SourceError: no data set there.
    """
    return verify_release(str(where), revision=revision, workers=workers, as_written=as_written)


def look(where: str | Path, sample: str = "", *, work: str | Path | None = None) -> SampleView:
    """One question of a data set that was built here: its trace, its verdicts, and every call behind them.

    Args:
        where: folder of the data set; its journal lies beside it.
        sample: `sample_id` or `problem_id`; empty: the first of the pool.
        work: folder of the journal, if it lies elsewhere.

    Raises:
        ConfigError: no such data set or sample, or its journal is gone.
    """
    place = Workspace.of(Path(where), work=None if work is None else Path(work))
    return _run(look_up(place, sample))


def judge(
    rows: Sequence[Mapping[str, Any]],
    by: JudgeSettings,
    *,
    name: str | None = None,
    journal: str | Path | None = None,
) -> list[Judgement]:
    """Ask a judge whether each answer follows from its observation alone [paper §7.1].

    Args:
        rows: as `load` gives them; needed are `problem`, `solution` and `observation`, for multiple choice
            `options` too.
        by: which judge, see `JudgeSettings`. Kind `demo` answers for its own world only.
        name: which of the judges of a recipe; of one with a panel, which model: `NAME/1`, `NAME/2`,
            `NAME/unsure`. None: the recipe has one model that judges sufficiency.
        journal: folder in which answers are kept: what was asked once is not paid again. That of a build
            (`my-set.build/journal`) holds the answers of its judge. None: not kept.

    Returns:
        One verdict for each row, in order, with the judge's words. The verdict is None where the reply held
        none; the judge was then asked a second time in a stricter form.

    Raises:
        ConfigError: the settings, the prompt or a row lack something.
        RefusedError: the server refused a row.
        BackendError: the server cannot be reached, or does not accept the key.
    """
    return _run(judge_async(rows, by, name=name, journal=journal))


async def judge_async(
    rows: Sequence[Mapping[str, Any]],
    by: JudgeSettings,
    *,
    name: str | None = None,
    journal: str | Path | None = None,
) -> list[Judgement]:
    """`judge` as a coroutine."""
    spec, base, backend = _judge(by, name)
    requests = JudgeRequests(spec, base)
    made = [_judge_request(requests, row) for row in rows]
    with (
        tempfile.TemporaryDirectory(prefix="p2r-judge-") as scratch,
        Journal(Path(journal or scratch)) as kept,
    ):
        caller = make_caller(
            spec.backend,
            backend,
            "judge",
            journal=kept,
            money=Money(kept, None),
            breaker=make_breaker("judge"),
            forgive=True,
        )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_verdict(caller, request)) for request in made]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await caller.close()
    return [task.result() for task in tasks]


async def _verdict(caller: Caller, request: Request) -> Judgement:
    found = await ask_verdict(caller.ask, request)
    if found.value is None:
        said = found.answer.refused if found.answer is not None else ""
        raise RefusedError(f"the judge did not answer: {said or 'its reply was filtered'}")
    return found.value


def _judge_request(requests: JudgeRequests, row: Mapping[str, Any]) -> Request:
    missing = [name for name in _JUDGED if not isinstance(row.get(name), str)]
    if missing:
        raise ConfigError(
            f"a row without {', '.join(missing)}; it has {', '.join(map(str, row)) or 'nothing'}",
            hint=f"judge rows of config sft, or mappings with {', '.join(_JUDGED)} (and options)",
        )
    return requests.request(
        problem=row["problem"],
        options=row.get("options") or (),
        answer=strip_answer_tag(row["solution"]),
        observation=row["observation"],
    )


def _judge(by: JudgeSettings, name: str | None) -> tuple[JudgeSpec, Path, Backend]:
    """A judge's settings, the folder that its prompt's path starts from, and its backend."""
    if isinstance(by, Mapping):
        data = dict(by) if "backend" in by else {"backend": dict(by)}
        by = validate_settings(data, JudgeSpec, where="judge", what="settings of a judge")
    if isinstance(by, JudgeSpec):
        if name is not None:
            raise ConfigError(
                "name chooses among the judges of a recipe, and these are the settings of one judge",
                hint="leave name away, or give the recipe",
            )
        return by, Path.cwd(), make_backend(by.backend)
    if not isinstance(by, Recipe) and Path(by).is_dir():
        place = Workspace.of(Path(by))
        recipe = read_lock(place.out).read_recipe()
    else:
        recipe, base = _recipe(by)
        place = Workspace.at(Path(recipe.name), base=base)
    judge, *others = judges_of_text(recipe.all_judges, name, where=recipe.name)
    if others:
        names = ", ".join(one.name for one in (judge, *others))
        raise ConfigError(
            f"{1 + len(others)} models judge sufficiency",
            where=recipe.name,
            hint=f"give name, one of: {names}",
        )
    return judge, place.base, backend_of(recipe, place, judge.backend)


def _recipe(recipe: Recipe | Mapping[str, Any] | str | Path) -> tuple[Recipe, Path]:
    """A recipe, and the folder that its paths are relative to."""
    if isinstance(recipe, Recipe):
        return recipe, Path.cwd()
    if isinstance(recipe, Mapping):
        return validate_settings(dict(recipe), Recipe, where="recipe", what="recipe"), Path.cwd()
    return read_recipe(str(recipe))


class _Telling(Observer):
    """Tells of a build in lines."""

    def __init__(self, tell: Tell | None) -> None:
        super().__init__()
        self._tell = tell or (lambda line: None)

    def begin(self, what: str, total: int | None) -> None:
        """Tell that a step begins."""
        super().begin(what, total)
        self._tell(what if total is None else f"{what}: {total:,} questions")

    def step(self, tally: Tally, parts: Parts) -> None:
        """Tell how far it is, every so many rows."""
        super().step(tally, parts)
        if tally.rows % _EVERY == 0:
            self._tell(in_words(self.now()))

    def wait(self, message: str) -> None:
        """Tell what the build waits for."""
        super().wait(message)
        self._tell(f"waiting: {message}")


def _run(main: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also where an event loop runs already: then in a thread with its own.

    Ctrl-C (a notebook's stop button) cancels the coroutine, waits for its clean end and is raised again.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main)
    done: Future[T] = Future()
    started: Future[Callable[[], object]] = Future()

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await main

    def work() -> None:
        try:
            done.set_result(asyncio.run(cancellable()))
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            done.set_exception(error)

    thread = threading.Thread(target=work, name="videop2r-data", daemon=True)
    thread.start()
    try:
        return done.result()
    except KeyboardInterrupt:
        started.result()()
        thread.join()
        raise
