"""Where real clips and real rows lie, if this machine has them."""

from __future__ import annotations

import os
from pathlib import Path


def _shared(name: str) -> Path | None:
    root = Path(os.environ.get("P2R_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    folder = root / name
    return folder if folder.is_dir() else None


def media_dir() -> Path | None:
    """Folder of real clips, whole and broken; None where there is none."""
    return _shared("media")


def samples_dir() -> Path | None:
    """Folder of real rows and real model outputs; None where there is none."""
    return _shared("samples")
