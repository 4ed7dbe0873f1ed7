"""What a run writes while it goes on, who watches it, and how it is asked to stop.

`metrics.jsonl` gets one JSON line per step and is the source of curves, model card and comparisons. On resume
the lines of steps after the checkpoint are cut off, so that the file equals that of a run that was never
stopped.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import orjson

from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.trainer.settings.parts import TRACKERS


class Stop:
    """Whether the run was asked to end; loops look at it between steps.

    >>> stop = Stop()
    >>> stop.asked
    False
    >>> stop.ask()
    >>> stop.asked
    True
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self) -> None:
        """Ask the run to end after the step under way."""
        self.asked = True


@contextmanager
def on_signals(stop: Stop, tell: Callable[[str], None]) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`: the step under way is finished and saved. A second one raises
    KeyboardInterrupt.

    Args:
        stop: set by the first signal.
        tell: called with one line for people.

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


METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"

Row = Mapping[str, Any]


@runtime_checkable
class Watcher(Protocol):
    """Told of a run's progress: a progress line, a tracker, a test. Called in the main process only."""

    def begin(self, stage: str, step: int, steps: int) -> None:
        """The run starts or goes on.

        Args:
            stage: `sft` or `rl`.
            step: steps that are done already.
            steps: steps of the whole run.
        """

    def row(self, row: Row) -> None:
        """One line of `metrics.jsonl`."""

    def note(self, text: str) -> None:
        """A message for people: a checkpoint, a skipped clip."""


class LineFile:
    """An append-only file of JSON lines.

    Args:
        path: the file; made when the first line comes.
        upto: drop the lines whose `step` is greater (a run that goes on); None: keep all.

    Raises:
        ConfigError: a line that was there before is no JSON object (a torn last line is dropped quietly).
    """

    def __init__(self, path: Path, *, upto: int | None = None) -> None:
        self.path = path
        if upto is not None and path.exists():
            _cut(path, upto)

    def add(self, row: Row) -> None:
        """Append one line and close the file: a crash of the program loses no line.

        Raises:
            ValueError: a value is not finite; JSON has no such number.
        """
        line = orjson.dumps(_finite(row), option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(line)

    def rows(self) -> list[dict[str, Any]]:
        """All lines, in order; [] if there is no file."""
        return read_lines(self.path)


class RunLog:
    """Metrics and samples of one run, and its watchers.

    Args:
        folder: the run's.
        watchers: told of every row.
        upto: the step that the run resumes from, or None for a run without a past.
        main: True in the first process; the others write and tell nothing.
    """

    def __init__(
        self, folder: Path, watchers: Sequence[Watcher] = (), *, upto: int | None = None, main: bool = True
    ) -> None:
        self.main = main
        self.watchers = tuple(watchers) if main else ()
        cut = upto if main else None
        self.metrics = LineFile(folder / METRICS, upto=cut)
        self.samples = LineFile(folder / SAMPLES, upto=cut)

    def begin(self, stage: str, step: int, steps: int) -> None:
        """The run starts or goes on."""
        for watcher in self.watchers:
            watcher.begin(stage, step, steps)

    def row(self, row: Row) -> None:
        """Write and tell one line of metrics."""
        if self.main:
            self.metrics.add(row)
        for watcher in self.watchers:
            watcher.row(row)

    def sample(self, row: Row) -> None:
        """Write one sampled completion."""
        if self.main:
            self.samples.add(row)

    def note(self, text: str) -> None:
        """Tell something."""
        for watcher in self.watchers:
            watcher.note(text)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; [] if there is none. A torn last line (a crash) is left out.

    Raises:
        ConfigError: another line is no JSON object.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = orjson.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except ValueError as error:
            if number == len(lines):
                break
            raise ConfigError(
                f"not a JSON object: {error}",
                where=f"{path}, line {number}",
                hint="restore or delete the file",
            ) from None
        rows.append(row)
    return rows


def _cut(path: Path, upto: int) -> None:
    """Keep the lines up to a step; written beside and renamed, so that a crash loses no line."""
    kept = [row for row in read_lines(path) if not isinstance(row.get("step"), int) or row["step"] <= upto]
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in kept))
    draft.replace(path)


def _finite(row: Row) -> dict[str, Any]:
    for name, value in row.items():
        if isinstance(value, float) and not -float("inf") < value < float("inf"):
            raise ValueError(f"{name} is {value}: the run has diverged, or a metric divides by nothing")
    return dict(row)


# Trackers; each library is imported only where it is asked for.


class _Scalars:
    """Sends the numbers of each row through `send` of a subclass."""

    def begin(self, stage: str, step: int, steps: int) -> None:
        """Nothing to send."""

    def row(self, row: Row) -> None:
        """Send one row under its step."""
        numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}
        self.send(numbers, int(row.get("step", 0)))

    def note(self, text: str) -> None:
        """Nothing to send."""

    def send(self, numbers: Mapping[str, float], step: int) -> None:
        """Send numbers of one step."""
        raise NotImplementedError


class _Tensorboard(_Scalars):
    def __init__(self, folder: Path) -> None:
        _need("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def send(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class _Logger(_Scalars):
    """wandb and trackio, which have the same interface: `init`, then `log`."""

    def __init__(self, module: str, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._module = _need(module)
        more: dict[str, Any] = {"dir": str(folder), "resume": "allow"} if module == "wandb" else {}
        self._run = self._module.init(project=project, name=folder.name, config=dict(config), **more)

    def send(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)


def make_trackers(
    names: tuple[str, ...], *, project: str, folder: Path, config: Mapping[str, Any]
) -> list[Watcher]:
    """The trackers that were asked for, ready.

    Args:
        names: of `TRACKERS`.
        project: the name that runs are grouped under.
        folder: the run's; its name is the run's name.
        config: the recipe, plain values.

    Raises:
        MissingExtraError: a tracker is not installed.
        ConfigError: an unknown name.
    """
    made: list[Watcher] = []
    for name in names:
        if name == "tensorboard":
            made.append(_Tensorboard(folder))
        elif name in TRACKERS:
            made.append(_Logger(name, project, folder, config))
        else:
            raise ConfigError(f"no tracker {name!r}, there are: {', '.join(TRACKERS)}", where="trackers")
    return made


def _need(module: str) -> Any:
    """Import a tracker's library; TensorFlow's start-up messages are silenced."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return importlib.import_module(module)
    except ImportError:
        error = MissingExtraError(module, "train")
        error.hint = f"run: pip install {module}"
        raise error from None
