"""Configs of `accelerate launch` for one and several machines; paths, because accelerate reads files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["accelerate_configs"]


def accelerate_configs() -> dict[str, Path]:
    """Name -> file of every packaged config, in alphabetical order.

    >>> "cpu-2proc" in accelerate_configs()
    True
    """
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
