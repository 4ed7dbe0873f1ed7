"""Figures of a data set: one pass, then for each figure its data as JSON and a light and a dark PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from videop2r_data.cards import figure_cloud as cloud
from videop2r_data.cards import figure_copies as copies
from videop2r_data.cards import figure_funnel as funnel
from videop2r_data.cards import figure_media as media
from videop2r_data.cards import figure_projection as projected
from videop2r_data.cards import figure_sources as sources
from videop2r_data.cards import figure_table as table
from videop2r_data.cards import figure_telling as telling
from videop2r_data.cards import figure_words as words
from videop2r_data.cards.figures_data import FigureOptions, figure_data, gather
from videop2r_data.cards.figures_index import INDEX, FigureEntry, FigureIndex, Omitted, read_figures
from videop2r_data.cards.projection import ProjectionData, need_sklearn, need_umap
from videop2r_data.cards.stats import Readable, Stats
from videop2r_data.errors import ExportError
from videop2r_data.plots.frame import need_matplotlib, png_bytes
from videop2r_data.plots.palette import DARK, LIGHT, Look
from videop2r_data.schemas import Model


class _Kind(NamedTuple):
    title: str
    data: Any
    draw: Callable[[Any, Look], Any]
    caption: Callable[[Any], str]


KINDS: dict[str, _Kind] = {
    "table": _Kind("Composition", table.TableData, table.draw_table, table.table_caption),
    "sources": _Kind("Sources", sources.SourcesData, sources.draw_sources, sources.sources_caption),
    "funnel": _Kind(
        "From questions to accepted rows", funnel.FunnelData, funnel.draw_funnel, funnel.funnel_caption
    ),
    "lengths": _Kind(
        "Length of perception and reasoning", words.WordsData, words.draw_words, words.words_caption
    ),
    "lengths-by-group": _Kind(
        "Length by modality, problem type and source",
        words.GroupsData,
        words.draw_groups,
        words.groups_caption,
    ),
    "words": _Kind(
        "Words of perception and reasoning", cloud.CloudData, cloud.draw_cloud, cloud.cloud_caption
    ),
    "telling-words": _Kind(
        "Words that tell the two apart", telling.TellingData, telling.draw_telling, telling.telling_caption
    ),
    "projection": _Kind(
        "Map of perception and reasoning",
        ProjectionData,
        projected.draw_projection,
        projected.projection_caption,
    ),
    "near-copies": _Kind("Near-copies", copies.CopiesData, copies.draw_copies, copies.copies_caption),
    "media": _Kind("Frames and durations", media.MediaData, media.draw_media, media.media_caption),
}
"""Name of a figure -> how it is made, in the order in which a card shows them."""


def make_figures(
    release: Readable,
    folder: Path,
    options: FigureOptions | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Stats, FigureIndex]:
    """Draw all figures of a data set.

    Args:
        release: our layout, the official one, or any rows with their columns; streamed once.
        folder: gets `NAME.png`, `NAME-dark.png`, `NAME.json` and `index.json`; figures of an earlier run that
            are not drawn anew are removed.
        options: size of the sample, seed, embedding model.
        progress: is told what comes next.

    Returns:
        The same `Stats` as `compute_stats`, and the index.

    Raises:
        MissingExtraError: the extra `report` (with a model: `train` too) is not installed; nothing is read.
        ConfigError: the folder of the model holds none.
        SourceError: a file is damaged.
    """
    chosen = options or FigureOptions()
    _need_extra(chosen)
    progress("counting")
    gathered = gather(release, chosen)
    index = FigureIndex(where=gathered.stats.where, rows=gathered.stats.rows)
    folder.mkdir(parents=True, exist_ok=True)
    old = set(_files(folder))
    figures, omitted = [], []
    for name, kind in KINDS.items():
        progress(kind.title.lower())
        data = figure_data(name, gathered, chosen)
        if isinstance(data, str):
            omitted.append(Omitted(name=name, title=kind.title, why=data))
        else:
            figures.append(_write(folder, name, data))
    index = index.model_copy(update={"figures": figures, "omitted": omitted})
    (folder / INDEX).write_bytes(_json(index))
    for name in old - set(_files(folder)):
        (folder / name).unlink(missing_ok=True)
    return gathered.stats, index


def _need_extra(options: FigureOptions) -> None:
    """Refuse before an hour of counting, not after it."""
    need_matplotlib()
    need_sklearn()
    if options.model is not None:
        need_umap()


def _write(folder: Path, name: str, data: Model) -> FigureEntry:
    """The JSON of a figure and its two PNGs."""
    from PIL import Image

    kind = KINDS[name]
    entry = FigureEntry(
        name=name,
        title=kind.title,
        caption=kind.caption(data),
        light=f"{name}.png",
        dark=f"{name}-dark.png",
        data=f"{name}.json",
        width=1,
        height=1,
    )
    (folder / entry.data).write_bytes(_json(data))
    for file, look in ((entry.light, LIGHT), (entry.dark, DARK)):
        (folder / file).write_bytes(png_bytes(kind.draw(data, look)))
    with Image.open(folder / entry.light) as picture:
        return entry.model_copy(update={"width": picture.width, "height": picture.height})


def _json(record: Model) -> bytes:
    return orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"


def _files(folder: Path) -> list[str]:
    """Files of figures that the index of a folder names, as far as they are ours to remove."""
    try:
        index = read_figures(folder)
    except ExportError:
        return []
    own = {file for name in KINDS for file in (f"{name}.png", f"{name}-dark.png", f"{name}.json")}
    return [f for entry in index.figures for f in (entry.light, entry.dark, entry.data) if f in own]


def redraw(folder: Path) -> FigureIndex:
    """Draw every figure of a folder anew from its JSON alone; index and captions follow.

    Raises:
        ExportError: the index or the data of a figure cannot be read.
        MissingExtraError: the extra `report` is not installed.
    """
    need_matplotlib()
    index = read_figures(folder)
    figures = []
    for entry in index.figures:
        path = folder / entry.data
        if entry.name not in KINDS:
            raise ExportError(f"no figure {entry.name!r}", where=str(folder / INDEX))
        try:
            data = KINDS[entry.name].data.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ExportError(
                f"not the data of this figure: {error.errors()[0]['msg']}", where=str(path)
            ) from None
        figures.append(_write(folder, entry.name, data))
    index = index.model_copy(update={"figures": figures})
    (folder / INDEX).write_bytes(_json(index))
    return index
