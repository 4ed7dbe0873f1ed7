"""Progress of a build: a live line on a terminal, a line now and then when piped."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from videop2r_data.backends.breaker import equal_words
from videop2r_data.builders.assemble import Parts
from videop2r_data.builders.run import Tally
from videop2r_data.cli.verbosity import Level, level

PIPED_EVERY_S = 15.0
WAIT_APART_S = 1.0
LIVE_EVERY_S = 0.1


class BuildProgress:
    """Shows how a build goes on; an `Observer`.

    Args:
        console: where to; stderr, so that stdout stays for results.
        quiet: show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self._live = console.is_terminal and not quiet
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, note="")
        self._what = ""
        self._total: int | None = None
        self._shown = 0.0
        self._told: dict[str, float] = {}
        """What was said about waiting, without its numbers, and when."""

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bar.stop()

    def begin(self, what: str, total: int | None) -> None:
        """A phase begins."""
        self._what, self._total = what, total
        self._bar.reset(self._task, total=total, description=what, note="")
        self._shown = time.monotonic() - (PIPED_EVERY_S / 2)
        if not self._live and not self.quiet:
            self.console.print(f"{what} ..." if total is None else f"{what}: {total:,} questions")

    def step(self, tally: Tally, parts: Parts) -> None:
        """One more question is done."""
        now = time.monotonic()
        if self.quiet or now - self._shown < (LIVE_EVERY_S if self._live else PIPED_EVERY_S):
            return
        self._shown = now
        note = f"kept {tally.kept:,} rejected {tally.rejected:,} failed {tally.failed:,}"
        spent = parts.journal.spending.finished_usd
        if spent:
            note += f" ${spent:,.2f}"
        if self._live:
            self._bar.update(self._task, completed=tally.rows, description=self._what, note=note)
        else:
            total = "?" if self._total is None else f"{self._total:,}"
            self.console.print(f"{self._what}: {tally.rows:,}/{total}, {note}")

    def wait(self, message: str) -> None:
        """Nothing to do but to wait: a batch, or a server that does not answer."""
        verbose = level() is Level.VERBOSE  # each of them, not the last one
        if self._live and not verbose:
            self._bar.update(self._task, description="waiting", note=message)
            return
        if not self.quiet and (verbose or self._is_news(message)):
            self.console.print(f"waiting: {message}", soft_wrap=True, markup=False)

    def _is_news(self, message: str) -> bool:
        """Something else than a moment ago, or the same after a while; never two lines in a second."""
        now, words = time.monotonic(), equal_words(message)
        if now - self._told.get(words, -PIPED_EVERY_S) < PIPED_EVERY_S:
            return False
        if now - max(self._told.values(), default=-WAIT_APART_S) < WAIT_APART_S:
            return False
        self._told[words] = now
        return True
