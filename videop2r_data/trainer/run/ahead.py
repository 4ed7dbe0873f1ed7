"""When the rollouts of a step are drawn: in it, or one step ahead of it (`rl.ahead`).

One step ahead, with theta_k the weights after k updates:

    step k, main thread:  wait for its rollouts, theta_k to the engine -> verdicts, update: theta_k+1
    thread of rollouts:                                                   draw those of step k+1 by theta_k

So rollouts are one update old when they are trained on, never more; those of steps 0 and 1 are both drawn by
theta_0. A judge is asked as each of them ends. A checkpoint after k steps holds the completions that wait for
step k, by seed, because the weights that drew them are gone: a run that goes on trains on the same ones.
Nothing in the thread is collective: what all processes must do together is done in the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import orjson

from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.run.alarms import Alarms, Reading, Shown
from videop2r_data.trainer.run.between import Tick
from videop2r_data.trainer.run.redraw import Redrawn, redrawn
from videop2r_data.trainer.run.rollouts import Roller
from videop2r_data.trainer.run.session import Fed, feed

DRAWN = "drawn-{:04d}.json"
"""In a checkpoint: [seed, ids, finished, logps] of each completion that waits in one process."""


class Drawn(NamedTuple):
    """What was drawn for a step; `seconds`: how long that took."""

    fresh: Redrawn
    reading: Reading | None
    seconds: float


class Draws:
    """The batches of a run, and the rollouts of each; close it.

    Args:
        roller: draws and grades.
        alarms: may draw beside it.
    """

    def __init__(self, roller: Roller, alarms: Alarms) -> None:
        self.roller, self.alarms, self.session = roller, alarms, roller.session
        self._feed = feed(self.session)
        self._following: Fed | None = None
        self._job: Future[Drawn] | None = None
        self._pool = ThreadPoolExecutor(1, "rollouts") if self.session.recipe.rl.ahead else None
        if self._pool is not None:
            roller.known = _waiting(self.session.checkpoints.same)
            self.session.checkpoints.beside = self.save

    def __iter__(self) -> Iterator[Fed]:
        """The batches of the remaining steps, each to be given to `take`."""
        while (fed := self._following or next(self._feed, None)) is not None:
            self._following = None
            yield fed

    def take(self, fed: Fed, tick: Tick) -> Drawn:
        """The rollouts of a step; one step ahead those of the following one are begun."""
        with tick.timed("rollout"):
            drawn = self._draw(fed, self.alarms.shown) if self._job is None else self._job.result()
        if self._pool is not None:
            self._job, self.roller.known = None, {}
            tick.parts["drawn"] = drawn.seconds
            with tick.timed("data"):
                self._following = next(self._feed, None)
            if self._following is not None:
                with tick.timed("sync"):
                    self.sync()
                shown = self.alarms.shown(self._following)
                self._job = self._pool.submit(self._draw, self._following, lambda _: shown)
        return drawn

    def done(self, tick: Tick) -> None:
        """The update is made: the engine gets the weights, unless it draws."""
        if self._pool is None:
            with tick.timed("sync"):
                self.sync()

    def sync(self) -> None:
        """Wait for what is being drawn, in all processes; then the engine gets the weights of now."""
        if self._job is not None:
            wait([self._job])
        self.session.accelerator.wait_for_everyone()
        self.roller.drawer.sync(self.session.engine.model)

    def save(self, folder: Path) -> None:
        """Write the completions that wait for the next step into a checkpoint, once they are drawn."""
        if self._job is None or self._job.exception() is not None:
            return
        rows = [(seed, one.ids, one.finished, one.logps) for seed, one in self.roller.drawn.items()]
        name = DRAWN.format(self.session.accelerator.process_index)
        (folder / name).write_bytes(orjson.dumps(rows))

    def close(self) -> None:
        """Wait for what is being drawn, and let the decoders end."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._feed.close()

    def _draw(self, fed: Fed, shown: Callable[[Fed], Shown | None]) -> Drawn:
        began = time.perf_counter()
        self.roller.drawn = {}
        rollouts = self.roller.roll(fed)
        redraws = self.session.recipe.rl.redraws
        fresh = redrawn(self.roller, fed, rollouts) if redraws else Redrawn(fed, rollouts)
        reading = self.alarms.draw(fresh.fed, fresh.rollouts, shown(fresh.fed))
        return Drawn(fresh, reading, time.perf_counter() - began)


def _waiting(checkpoint: Path | None) -> dict[int, RolledOut]:
    """The completions that a checkpoint holds, of all processes: another number of them may go on."""
    found: dict[int, RolledOut] = {}
    for path in sorted(checkpoint.glob(DRAWN.format(0).replace("0000", "*"))) if checkpoint else ():
        found |= {seed: RolledOut(*one) for seed, *one in orjson.loads(path.read_bytes())}
    return found
