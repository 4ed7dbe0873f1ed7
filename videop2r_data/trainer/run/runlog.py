"""What a run leaves behind while it goes on: one JSON line per step, always; trackers on demand.

`metrics.jsonl` is the truth: curves, model card and comparisons are drawn from it. On resume, lines of steps
after the checkpoint are cut off, so that the file is that of a run that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import orjson

from videop2r_data.errors import ConfigError

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"

Row = Mapping[str, Any]


@runtime_checkable
class Watcher(Protocol):
    """Somebody who looks on: a progress line, a tracker, a test. It is called in the main process only."""

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
        """Something a person wants to know: a checkpoint, a skipped clip."""


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
        """Append one line and hand it to the system at once: a crash of the program loses none.

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
    """Metrics and samples of one run, and those who look on.

    Args:
        folder: the run's.
        watchers: told of every row.
        upto: the step that the run resumes from, or None for a run without a past.
        main: False in all processes but the first: then nothing is written or told.
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
    """Keep the lines up to a step; through a second file, so that a crash leaves the first one whole."""
    kept = [row for row in read_lines(path) if not isinstance(row.get("step"), int) or row["step"] <= upto]
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in kept))
    draft.replace(path)


def _finite(row: Row) -> dict[str, Any]:
    for name, value in row.items():
        if isinstance(value, float) and not -float("inf") < value < float("inf"):
            raise ValueError(f"{name} is {value}: the run has diverged, or a metric divides by nothing")
    return dict(row)
