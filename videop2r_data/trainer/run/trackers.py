"""wandb, TensorBoard and trackio, for those who ask for them; each is imported only then."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.trainer.run.runlog import Row, Watcher


class _Scalars:
    """Sends the numbers of each row; subclasses know to whom."""

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
    """wandb and trackio speak alike: `init`, then `log`."""

    def __init__(self, module: str, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._module = _need(module)
        more: dict[str, Any] = {"dir": str(folder), "resume": "allow"} if module == "wandb" else {}
        self._run = self._module.init(project=project, name=folder.name, config=dict(config), **more)

    def send(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)


TRACKERS = ("tensorboard", "trackio", "wandb")


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
    """Import a tracker; TensorBoard's own noise stays off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return importlib.import_module(module)
    except ImportError:
        error = MissingExtraError(module, "train")
        error.hint = f"run: pip install {module}"
        raise error from None
