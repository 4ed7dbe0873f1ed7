"""All figures of a data set: data from one pass, JSON and PNG of each, the index of their folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from videop2r_data.cards.figures.copies import CopiesData, CopyWatch
from videop2r_data.cards.figures.counts import FigureData, FunnelData, SourcesData, TableData
from videop2r_data.cards.figures.index import INDEX, FigureEntry, FigureIndex, Omitted, read_figures
from videop2r_data.cards.figures.media import MediaData
from videop2r_data.cards.figures.projection import LEAST, ProjectionData, need_sklearn, need_umap, project
from videop2r_data.cards.figures.segments import SegmentsData
from videop2r_data.cards.figures.stats import Stats, Tally, count_release
from videop2r_data.cards.figures.text import Crossed, Opened, Sampled
from videop2r_data.cards.figures.words import CloudData, GroupsData, TellingData, WordsData
from videop2r_data.errors import ExportError
from videop2r_data.files import Release
from videop2r_data.plots import DARK, LIGHT, need_matplotlib, png_bytes
from videop2r_data.schemas import Model, default_grammar

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

    @property
    def config(self) -> str:
        """Whose rows were counted: `sft`, or `rl` without it."""
        return self.tally.main

    @property
    def no_texts(self) -> str:
        """Why there is no figure of words."""
        return f"the rows of {self.config} hold no perception and no reasoning"

    def words(self) -> list[Counter[str]]:
        """Word -> count of perception and of reasoning, without the openings that the prompt asks for."""
        return [self.opened.without(name, words.counts()) for name, words in self.tally.words.items()]


def gather(release: Release, options: FigureOptions) -> Gathered:
    """Stream a data set once and count what all figures need."""
    crossed, opened, copied = Crossed(), Opened(), CopyWatch()
    sampled = Sampled(options.sample, options.seed)
    tally = count_release(release, [crossed, opened, sampled, copied])
    return Gathered(tally, tally.stats(), crossed, opened, sampled, copied)


# Each of these gives the data of a figure, or a sentence that says why there are none.


def _table(found: Gathered, _: FigureOptions) -> FigureData | str:
    counts = found.crossed.counts
    return TableData.of(found.config, counts) if counts else f"no rows in {found.config}"


def _sources(found: Gathered, _: FigureOptions) -> FigureData | str:
    counts = found.crossed.counts
    return SourcesData.of(found.config, counts) if counts else f"no rows in {found.config}"


def _funnel(found: Gathered, _: FigureOptions) -> FigureData | str:
    if "rejected" not in found.stats.rows:
        return "the release has no config rejected: what was lost, and why, is not known"
    if not found.stats.funnel:
        return "no row was rejected"
    return FunnelData.of(found.stats.rows.get("sft", 0), found.stats.funnel)


def _lengths(found: Gathered, _: FigureOptions) -> FigureData | str:
    p, r = (words.lengths for words in found.tally.words.values())
    return WordsData.of(found.config, p, r) if p or r else found.no_texts


def _segments(found: Gathered, _: FigureOptions) -> FigureData | str | None:
    grammar = found.tally.grammar
    if grammar == default_grammar():
        return None  # `lengths` shows its segments
    data = SegmentsData.of(found.config, grammar, found.stats.segment_words)
    return data if data.segments else f"the rows of {found.config} hold no segments"


def _groups(found: Gathered, _: FigureOptions) -> FigureData | str:
    data = GroupsData.of(found.config, found.stats.perception_by, found.stats.reasoning_by)
    return data if data.groups else found.no_texts


def _words(found: Gathered, _: FigureOptions) -> FigureData | str:
    data = CloudData.of(found.config, *found.words())
    return data if data.perception or data.reasoning else found.no_texts


def _telling(found: Gathered, _: FigureOptions) -> FigureData | str:
    data = TellingData.of(found.config, *found.words())
    return data if data.perception and data.reasoning else found.no_texts


def _projection(found: Gathered, options: FigureOptions) -> FigureData | str:
    pairs, seen = found.sampled.pairs(), found.sampled.seen
    if len(pairs) < LEAST:
        return f"{seen:,} rows with perception and reasoning; at least {LEAST} are needed"
    return project(found.config, pairs, seen=seen, seed=options.seed, model=options.model)


def _copies(found: Gathered, _: FigureOptions) -> FigureData | str:
    data = CopiesData.of(found.config, found.stats.near_duplicates, found.copied.copies())
    return data if data.columns else f"no texts in {found.config}"


def _media(found: Gathered, _: FigureOptions) -> FigureData | str:
    if not found.tally.frames:
        return f"the rows of {found.config} do not say which frames were seen"
    return MediaData.of(found.config, found.tally.frames, found.tally.seconds)


# The files: for each figure its data as JSON, then a light and a dark PNG drawn from that JSON.


class Kind(NamedTuple):
    """One figure: its data, and how they are counted."""

    data: type[FigureData]
    of: Callable[[Gathered, FigureOptions], FigureData | str | None]
    """None: traces of this form have no such figure."""


KINDS = {
    "table": Kind(TableData, _table),
    "sources": Kind(SourcesData, _sources),
    "funnel": Kind(FunnelData, _funnel),
    "lengths": Kind(WordsData, _lengths),
    "segments": Kind(SegmentsData, _segments),
    "lengths-by-group": Kind(GroupsData, _groups),
    "words": Kind(CloudData, _words),
    "telling-words": Kind(TellingData, _telling),
    "projection": Kind(ProjectionData, _projection),
    "near-copies": Kind(CopiesData, _copies),
    "media": Kind(MediaData, _media),
}
"""Name of a figure -> what it shows, in the order in which a card shows them."""


def make_figures(
    release: Release,
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
    need_matplotlib()  # the extras, before a long count and not after it
    need_sklearn()
    if chosen.model is not None:
        need_umap()
    progress("counting")
    gathered = gather(release, chosen)
    folder.mkdir(parents=True, exist_ok=True)
    old = set(_files(folder))
    figures, omitted = [], []
    for name, kind in KINDS.items():
        progress(kind.data.title.lower())
        data = kind.of(gathered, chosen)
        if isinstance(data, str):
            omitted.append(Omitted(name=name, title=kind.data.title, why=data))
        elif data is not None:
            figures.append(_write(folder, name, data))
    stats = gathered.stats
    index = FigureIndex(where=stats.where, rows=stats.rows, figures=figures, omitted=omitted)
    (folder / INDEX).write_bytes(_json(index))
    for name in old - set(_files(folder)):
        (folder / name).unlink(missing_ok=True)
    return stats, index


def _write(folder: Path, name: str, data: FigureData) -> FigureEntry:
    """Write the JSON of a figure and its two PNGs."""
    from PIL import Image

    light, dark, record = _names(name)
    (folder / record).write_bytes(_json(data))
    for file, look in ((light, LIGHT), (dark, DARK)):
        (folder / file).write_bytes(png_bytes(data.draw(look)))
    with Image.open(folder / light) as picture:
        width, height = picture.size
    return FigureEntry(
        name=name,
        title=data.title,
        caption=data.caption(),
        light=light,
        dark=dark,
        data=record,
        width=width,
        height=height,
    )


def _json(record: Model) -> bytes:
    return orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"


def _names(name: str) -> tuple[str, str, str]:
    return f"{name}.png", f"{name}-dark.png", f"{name}.json"


def _files(folder: Path) -> list[str]:
    """Files of a folder's index that have a figure's own name: nothing else may be deleted."""
    try:
        index = read_figures(folder)
    except ExportError:
        return []
    own = {file for name in KINDS for file in _names(name)}
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
            told = f"not the data of this figure: {error.errors()[0]['msg']}"
            raise ExportError(told, where=str(path)) from None
        figures.append(_write(folder, entry.name, data))
    index = index.model_copy(update={"figures": figures})
    (folder / INDEX).write_bytes(_json(index))
    return index
