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
from videop2r_data.trainer.run.redraw import redrawn
from videop2r_data.trainer.run.rollouts import Roller, Rollouts
from videop2r_data.trainer.run.session import Fed, feed

DRAWN = "drawn-{}.json"  # in a checkpoint: [seed, ids, finished, logps] of what waits in one process


class Drawn(NamedTuple):
    """What was drawn for a step, perhaps with other questions in it, and how long that took."""

    fed: Fed
    rollouts: Rollouts
    reading: Reading | None
    seconds: float


class Draws:
    """The batches of a run, and the rollouts and readings of each; close it."""

    def __init__(self, roller: Roller, alarms: Alarms) -> None:
        self.roller, self.alarms, self.session = roller, alarms, roller.session
        self._feed = feed(self.session)
        self._following: Fed | None = None
        self._job: Future[Drawn] | None = None
        self._pool = ThreadPoolExecutor(1, "rollouts") if self.session.recipe.rl.ahead else None
        if self._pool is not None:
            # the completions of all processes: another number of them may go on
            folder = self.session.checkpoints.same
            for path in sorted(folder.glob(DRAWN.format("*"))) if folder else ():
                rows = orjson.loads(path.read_bytes())
                roller.known |= {seed: RolledOut(*one) for seed, *one in rows}
            self.session.checkpoints.beside = self._save

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

    def sync(self) -> None:
        """Wait for what is being drawn, in all processes; then the engine gets the weights of now."""
        if self._job is not None:
            wait([self._job])
        self.session.accelerator.wait_for_everyone()
        self.roller.drawer.sync(self.session.engine.model)

    def close(self) -> None:
        """Wait for what is being drawn, and let the decoders end."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._feed.close()

    def _draw(self, fed: Fed, shown: Callable[[Fed], Shown | None]) -> Drawn:
        began = time.perf_counter()
        self.roller.drawn = {}
        rollouts = self.roller.roll(fed)
        fed = redrawn(self.roller, fed, rollouts)
        reading = self.alarms.draw(fed, rollouts, shown(fed))
        return Drawn(fed, rollouts, reading, time.perf_counter() - began)

    def _save(self, folder: Path) -> None:
        """Write the completions that wait for the next step into a checkpoint, once they are drawn."""
        if self._job is not None and self._job.exception() is None:
            rows = [(seed, one.ids, one.finished, one.logps) for seed, one in self.roller.drawn.items()]
            name = DRAWN.format(f"{self.session.accelerator.process_index:04d}")
            (folder / name).write_bytes(orjson.dumps(rows))
