"""All figures of a data set: data from one pass, JSON and PNG of each, the index of their folder."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import Field, ValidationError

from videop2r_data.cards.figures.copies import CopiesData, CopyWatch, copies_caption, draw_copies
from videop2r_data.cards.figures.counts import (
    FunnelData,
    SourcesData,
    TableData,
    draw_funnel,
    draw_sources,
    draw_table,
    funnel_caption,
    sources_caption,
    table_caption,
)
from videop2r_data.cards.figures.media import MediaData, draw_media, media_caption
from videop2r_data.cards.figures.projection import (
    LEAST,
    ProjectionData,
    draw_projection,
    need_sklearn,
    need_umap,
    project,
    projection_caption,
)
from videop2r_data.cards.figures.stats import Readable, Stats, Tally, count_release
from videop2r_data.cards.figures.text import Crossed, Opened, Sampled
from videop2r_data.cards.figures.words import (
    CloudData,
    GroupsData,
    TellingData,
    WordsData,
    cloud_caption,
    draw_cloud,
    draw_groups,
    draw_telling,
    draw_words,
    groups_caption,
    telling_caption,
    words_caption,
)
from videop2r_data.errors import ExportError
from videop2r_data.plots import DARK, LIGHT, SHOWN, Look, need_matplotlib, png_bytes
from videop2r_data.schemas import Model

# The index of a folder: a card shows figures from it and reads no figure's data.

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
            f"no index of figures: {str(error).splitlines()[0]}",
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


# The data of each figure, after one pass over the rows that feeds all of them.

SAMPLE = 2_000
"""Rows in the projection by default."""


@dataclass(frozen=True)
class FigureOptions:
    """Settings of the figures.

    Attributes:
        sample: rows in the projection.
        seed: of the sample, the split and the projection.
        model: folder of a transformers model for the embeddings; None: TF-IDF and SVD.
    """

    sample: int = SAMPLE
    seed: int = 0
    model: Path | None = None


class Gathered(NamedTuple):
    """Everything counted in one pass over a data set."""

    tally: Tally
    stats: Stats
    crossed: Crossed
    opened: Opened
    sampled: Sampled
    copied: CopyWatch


def gather(release: Readable, options: FigureOptions) -> Gathered:
    """Stream a data set once and count what all figures need.

    Raises:
        SourceError: a file is damaged.
    """
    crossed, opened, copied = Crossed(), Opened(), CopyWatch()
    sampled = Sampled(options.sample, options.seed)
    tally = count_release(release, [crossed, opened, sampled, copied])
    return Gathered(tally, tally.stats(), crossed, opened, sampled, copied)


def figure_data(name: str, found: Gathered, options: FigureOptions) -> Model | str:
    """The data of a figure, or a sentence that says why it has none.

    Raises:
        KeyError: no figure of this name.
    """
    return _DATA[name](found, options)


def _table(found: Gathered, _: FigureOptions) -> Model | str:
    if not found.crossed.counts:
        return f"no rows in {found.tally.main}"
    return TableData.of(found.tally.main, found.crossed.counts)


def _sources(found: Gathered, _: FigureOptions) -> Model | str:
    if not found.crossed.counts:
        return f"no rows in {found.tally.main}"
    return SourcesData.of(found.tally.main, found.crossed.counts)


def _funnel(found: Gathered, _: FigureOptions) -> Model | str:
    if "rejected" not in found.stats.rows:
        return "the release has no config rejected: what was lost, and why, is not known"
    if not found.stats.funnel:
        return "no row was rejected"
    return FunnelData.of(found.stats.rows.get("sft", 0), found.stats.funnel)


def _lengths(found: Gathered, _: FigureOptions) -> Model | str:
    p, r = (found.tally.words[name].lengths for name in ("perception", "reasoning"))
    return WordsData.of(found.tally.main, p, r) if p or r else _no_texts(found)


def _groups(found: Gathered, _: FigureOptions) -> Model | str:
    data = GroupsData.of(found.tally.main, found.stats.perception_by, found.stats.reasoning_by)
    return data if data.groups else _no_texts(found)


def _words(found: Gathered, _: FigureOptions) -> Model | str:
    data = CloudData.of(found.tally.main, *_word_counts(found))
    return data if data.perception or data.reasoning else _no_texts(found)


def _telling(found: Gathered, _: FigureOptions) -> Model | str:
    data = TellingData.of(found.tally.main, *_word_counts(found))
    return data if data.perception and data.reasoning else _no_texts(found)


def _word_counts(found: Gathered) -> tuple[Counter[str], Counter[str]]:
    p, r = (found.opened.without(n, found.tally.words[n].counts()) for n in ("perception", "reasoning"))
    return p, r


def _projection(found: Gathered, options: FigureOptions) -> Model | str:
    pairs, seen = found.sampled.pairs(), found.sampled.seen
    if len(pairs) < LEAST:
        return f"{seen:,} rows with perception and reasoning; at least {LEAST} are needed"
    return project(found.tally.main, pairs, seen=seen, seed=options.seed, model=options.model)


def _copies(found: Gathered, _: FigureOptions) -> Model | str:
    data = CopiesData.of(found.tally.main, found.stats.near_duplicates, found.copied.copies())
    return data if data.columns else f"no texts in {found.tally.main}"


def _media(found: Gathered, _: FigureOptions) -> Model | str:
    if not found.tally.frames:
        return f"the rows of {found.tally.main} do not say which frames were seen"
    return MediaData.of(found.tally.main, found.tally.frames, found.tally.seconds)


def _no_texts(found: Gathered) -> str:
    return f"the rows of {found.tally.main} hold no perception and no reasoning"


_DATA: dict[str, Callable[[Gathered, FigureOptions], Model | str]] = {
    "table": _table,
    "sources": _sources,
    "funnel": _funnel,
    "lengths": _lengths,
    "lengths-by-group": _groups,
    "words": _words,
    "telling-words": _telling,
    "projection": _projection,
    "near-copies": _copies,
    "media": _media,
}


# The files: for each figure its data as JSON, then a light and a dark PNG drawn from that JSON.


class _Kind(NamedTuple):
    title: str
    data: Any
    draw: Callable[[Any, Look], Any]
    caption: Callable[[Any], str]


KINDS: dict[str, _Kind] = {
    "table": _Kind("Composition", TableData, draw_table, table_caption),
    "sources": _Kind("Sources", SourcesData, draw_sources, sources_caption),
    "funnel": _Kind("From questions to accepted rows", FunnelData, draw_funnel, funnel_caption),
    "lengths": _Kind("Length of perception and reasoning", WordsData, draw_words, words_caption),
    "lengths-by-group": _Kind(
        "Length by modality, problem type and source",
        GroupsData,
        draw_groups,
        groups_caption,
    ),
    "words": _Kind("Words of perception and reasoning", CloudData, draw_cloud, cloud_caption),
    "telling-words": _Kind("Words that tell the two apart", TellingData, draw_telling, telling_caption),
    "projection": _Kind(
        "Map of perception and reasoning",
        ProjectionData,
        draw_projection,
        projection_caption,
    ),
    "near-copies": _Kind("Near-copies", CopiesData, draw_copies, copies_caption),
    "media": _Kind("Frames and durations", MediaData, draw_media, media_caption),
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
    """Check the extras before a long count, not after it."""
    need_matplotlib()
    need_sklearn()
    if options.model is not None:
        need_umap()


def _write(folder: Path, name: str, data: Model) -> FigureEntry:
    """Write the JSON of a figure and its two PNGs."""
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
    """Files of a folder's index that have a figure's own name: nothing else may be deleted."""
    try:
        index = read_figures(folder)
    except ExportError:
        return []
    own = {file for name in KINDS for file in (f"{name}.png", f"{name}-dark.png", f"{name}.json")}
    return [f for entry in index.figures for f in (entry.light, entry.dark, entry.data) if f in own]


def redraw(folder: Path) -> FigureIndex:
    """Draw every figure of a folder anew from its JSON, with index and captions.

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
