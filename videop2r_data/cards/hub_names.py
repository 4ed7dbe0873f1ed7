"""What a data set's repository holds besides its rows: clips, and the config `preview`."""

from __future__ import annotations

from typing import Any

from videop2r_data.schemas import PREVIEW_CONFIG as PREVIEW

__all__ = ["MEDIA", "PREVIEW", "PREVIEW_FEATURES", "PREVIEW_FILES", "PREVIEW_NAME", "TEXT_COLUMNS"]

MEDIA = "media"
"""Folder of the clips: `media/<source>/<path of the row>`."""
PREVIEW_NAME = "preview/train-00000.parquet"
"""Its one file: apart from `data/`, so that no pattern of another config takes it along."""
PREVIEW_FILES = "preview/train-*.parquet"
TEXT_COLUMNS = ("sample_id", "problem", "solution", "observation", "think", "answer")
"""Columns of `sft` that it repeats."""
PREVIEW_FEATURES: list[dict[str, Any]] = [
    {"name": "image", "dtype": "image"},
    {"name": "video", "dtype": "video"},
    *({"name": name, "dtype": "string"} for name in TEXT_COLUMNS),
]
"""As `datasets` and the viewer of the Hub read it; the cells of the first two hold bytes and a name."""
