"""What a run writes while it goes on, who watches it, and how it is asked to stop.

`metrics.jsonl` gets one JSON line per step and is the source of curves, model card and comparisons. On resume
the lines of steps after the checkpoint are cut off, so that the file equals that of a run that was never
stopped.
"""

from __future__ import annotations

import importlib
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import orjson

from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.trainer.look import curves
from videop2r_data.trainer.look.curves import METRICS, SAMPLES


class Stop:
    """Whether the run was asked to end; loops look at it between steps."""

    asked = False

    def ask(self) -> None:
        """Ask the run to end after the step under way."""
        self.asked = True


@contextmanager
def on_signals(stop: Stop, tell: Callable[[str], None]) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, with one line for people: the step under way is finished and saved. A
    second one raises KeyboardInterrupt.

    Only the main thread of a process may use it; earlier handlers are restored at the end.
    """

    def heard(_number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.ask()
        tell(
            "finishing this step, then saving; again to stop at once (work since the last checkpoint is lost)"
        )

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Row = Mapping[str, Any]


@runtime_checkable
class Watcher(Protocol):
    """Told of a run's progress: a progress line, a tracker, a test. Called in the main process only."""

    def begin(self, stage: str, step: int, steps: int) -> None:
        """The run (`sft` or `rl`) starts, or goes on after a step; `steps` has the whole run."""

    def row(self, row: Row) -> None:
        """One line of `metrics.jsonl`."""

    def note(self, text: str) -> None:
        """A message for people: a checkpoint, a skipped clip."""


class RunLog:
    """Metrics and samples of one run, and its watchers, whose methods it has.

    Args:
        watchers: told of every row.
        upto: the step that the run resumes from: later lines are dropped; None: a run without a past.
        main: True in the first process; the others write and tell nothing.
    """

    def __init__(
        self, folder: Path, watchers: Sequence[Watcher] = (), *, upto: int | None = None, main: bool = True
    ) -> None:
        self.folder, self.main = folder, main
        self.watchers = list(watchers) if main else []
        if upto is not None and main:
            for name in (METRICS, SAMPLES):
                _cut(folder / name, upto)

    def begin(self, stage: str, step: int, steps: int) -> None:
        """As of a `Watcher`."""
        for watcher in self.watchers:
            watcher.begin(stage, step, steps)

    def row(self, row: Row) -> None:
        """Write and tell one line of metrics."""
        self._add(METRICS, row)
        for watcher in self.watchers:
            watcher.row(row)

    def sample(self, row: Row) -> None:
        """Write one sampled completion."""
        self._add(SAMPLES, row)

    def note(self, text: str) -> None:
        """As of a `Watcher`."""
        for watcher in self.watchers:
            watcher.note(text)

    def _add(self, name: str, row: Row) -> None:
        """Append one line and close the file: a crash of the program loses no line."""
        if not self.main:
            return
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                # JSON has no such number
                raise ValueError(f"{key} is {value}: the run has diverged, or a metric divides by nothing")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("ab") as file:
            file.write(orjson.dumps(dict(row), option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; [] if there is none. A torn last line (a crash) is left out.

    Raises:
        ConfigError: another line is no JSON object.
    """
    rows, damaged = curves.read_lines(path) if path.exists() else ([], [])
    if damaged:
        where = f"{path}, line {damaged[0]}"
        raise ConfigError("not a JSON object", where=where, hint="restore or delete the file")
    return rows


def _cut(path: Path, upto: int) -> None:
    if path.exists():
        rows = [r for r in read_lines(path) if not isinstance(r.get("step"), int) or r["step"] <= upto]
        replace_file(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside it, and rename it: after a crash it is as before, or whole."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(data)
    draft.replace(path)


# Trackers; each library is imported only where it is asked for.


class _Tracker:
    """Sends the numbers of each row, with their step, to a library."""

    def __init__(self, send: Callable[..., object]) -> None:
        self._send = send

    def row(self, row: Row) -> None:
        """As of a `Watcher`."""
        numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}
        self._send(numbers, step=int(row.get("step", 0)))

    def begin(self, stage: str, step: int, steps: int) -> None:
        """Nothing to send."""

    def note(self, text: str) -> None:
        """Nothing to send."""


def make_trackers(names: tuple[str, ...], *, folder: Path, config: Mapping[str, Any]) -> list[Watcher]:
    """The trackers (of `TRACKERS`) that were asked for; `config` is the recipe as plain values.

    Raises:
        MissingExtraError: a tracker is not installed.
    """
    made: list[Watcher] = []
    for name in names:
        if name == "tensorboard":
            made.append(_Tracker(_tensorboard(folder)))
        else:  # wandb and trackio have the same interface: `init`, then `log`
            more: dict[str, Any] = {"dir": str(folder), "resume": "allow"} if name == "wandb" else {}
            run = _need(name).init(project="videop2r", name=folder.name, config=dict(config), **more)
            made.append(_Tracker(run.log))
    return made


def _tensorboard(folder: Path) -> Callable[..., object]:
    _need("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def send(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return send


def _need(module: str) -> Any:
    """Import a tracker's library; TensorFlow's start-up messages are silenced."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return importlib.import_module(module)
    except ImportError:
        error = MissingExtraError(module, "train")
        error.hint = f"run: pip install {module}"
        raise error from None
