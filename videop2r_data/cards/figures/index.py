"""The index of a folder of figures: a card shows figures from it and reads no figure's data."""

from __future__ import annotations

import html
from pathlib import Path

from pydantic import Field

from videop2r_data.errors import ExportError, first_line
from videop2r_data.plots import SHOWN
from videop2r_data.schemas import Model

INDEX = "index.json"
_MAX_BYTES = 64 * 2**20


class FigureEntry(Model):
    """One figure on disk; file names are relative to the folder of the index."""

    name: str
    title: str
    caption: str
    """Shown below the figure, and its alternative text."""
    light: str
    dark: str
    data: str
    width: int
    """Pixels; a card shows half of them."""
    height: int


class Omitted(Model):
    """A figure that was not drawn, and why."""

    name: str
    title: str
    why: str


class FigureIndex(Model):
    """`index.json` of a folder of figures."""

    where: str
    """The data set, as it was named."""
    rows: dict[str, int]
    """Config -> rows."""
    figures: list[FigureEntry] = Field(default_factory=list)
    omitted: list[Omitted] = Field(default_factory=list)


def read_figures(folder: Path) -> FigureIndex:
    """The index of a folder that `make_figures` wrote.

    Raises:
        ExportError: there is none, it cannot be read, or a file that it names is not there.
    """
    path = folder / INDEX
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES:,} bytes")
        index = FigureIndex.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(
            f"no index of figures: {first_line(error)}",
            where=str(path),
            hint=f"p2r-data stats DATASET --figures {folder} writes it",
        ) from None
    for entry in index.figures:
        for name in (entry.light, entry.dark, entry.data):
            if Path(name).name != name or not (folder / name).is_file():
                raise ExportError("a figure that the index names is not there", where=str(folder / name))
    return index


def picture(entry: FigureEntry, *, prefix: str = "") -> str:
    """HTML of one figure for a card: light or dark with the page, its caption below.

    Args:
        entry: of the index.
        prefix: before the file names: empty, `figures/`, or an address that ends in a slash.
    """
    light, dark = (html.escape(prefix + name) for name in (entry.light, entry.dark))
    caption = html.escape(entry.caption.replace("`", ""))
    wide = round(entry.width * SHOWN)
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
        f'  <img src="{light}" width="{wide}" alt="{caption}">\n</picture>\n\n*{caption}*\n'
    )
