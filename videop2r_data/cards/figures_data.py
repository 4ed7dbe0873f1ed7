"""What the figures of a data set show: one pass, then the data of each, or why there is nothing to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from videop2r_data.cards import figure_cloud as cloud
from videop2r_data.cards import figure_copies as copies
from videop2r_data.cards import figure_funnel as funnel
from videop2r_data.cards import figure_media as media
from videop2r_data.cards import figure_sources as sources
from videop2r_data.cards import figure_table as table
from videop2r_data.cards import figure_telling as telling
from videop2r_data.cards import figure_words as words
from videop2r_data.cards.projection import LEAST, project
from videop2r_data.cards.stats import Readable, Stats, Tally, count_release
from videop2r_data.cards.stats_copies import CopyWatch
from videop2r_data.cards.stats_gather import Crossed, Opened, Sampled
from videop2r_data.schemas import Model

SAMPLE = 2_000
"""Rows in the projection."""


@dataclass(frozen=True)
class FigureOptions:
    """What can be chosen.

    Attributes:
        sample: rows in the projection.
        seed: of the sample, the split and the projection.
        model: folder of a transformers model for the embeddings; None: TF-IDF and SVD.
    """

    sample: int = SAMPLE
    seed: int = 0
    model: Path | None = None


class Gathered(NamedTuple):
    """What one pass over a data set left behind."""

    tally: Tally
    stats: Stats
    crossed: Crossed
    opened: Opened
    sampled: Sampled
    copied: CopyWatch


def gather(release: Readable, options: FigureOptions) -> Gathered:
    """Go through a data set once and hold what all figures need.

    Raises:
        SourceError: a file is damaged.
    """
    crossed, opened, copied = Crossed(), Opened(), CopyWatch()
    sampled = Sampled(options.sample, options.seed)
    tally = count_release(release, [crossed, opened, sampled, copied])
    return Gathered(tally, tally.stats(), crossed, opened, sampled, copied)


def figure_data(name: str, found: Gathered, options: FigureOptions) -> Model | str:
    """What a figure shows, or in words why there is nothing to show.

    Raises:
        KeyError: no figure of this name.
    """
    return _DATA[name](found, options)


def _table(found: Gathered, _: FigureOptions) -> Model | str:
    if not found.crossed.counts:
        return f"no rows in {found.tally.main}"
    return table.TableData.of(found.tally.main, found.crossed.counts)


def _sources(found: Gathered, _: FigureOptions) -> Model | str:
    if not found.crossed.counts:
        return f"no rows in {found.tally.main}"
    return sources.SourcesData.of(found.tally.main, found.crossed.counts)


def _funnel(found: Gathered, _: FigureOptions) -> Model | str:
    if "rejected" not in found.stats.rows:
        return "the release has no config rejected: what was lost, and why, is not known"
    if not found.stats.funnel:
        return "no row was rejected"
    return funnel.FunnelData.of(found.stats.rows.get("sft", 0), found.stats.funnel)


def _lengths(found: Gathered, _: FigureOptions) -> Model | str:
    p, r = (found.tally.words[name].lengths for name in ("perception", "reasoning"))
    return words.WordsData.of(found.tally.main, p, r) if p or r else _no_texts(found)


def _groups(found: Gathered, _: FigureOptions) -> Model | str:
    data = words.GroupsData.of(found.tally.main, found.stats.perception_by, found.stats.reasoning_by)
    return data if data.groups else _no_texts(found)


def _words(found: Gathered, _: FigureOptions) -> Model | str:
    data = cloud.CloudData.of(found.tally.main, *_word_counts(found))
    return data if data.perception or data.reasoning else _no_texts(found)


def _telling(found: Gathered, _: FigureOptions) -> Model | str:
    data = telling.TellingData.of(found.tally.main, *_word_counts(found))
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
    data = copies.CopiesData.of(found.tally.main, found.stats.near_duplicates, found.copied.copies())
    return data if data.columns else f"no texts in {found.tally.main}"


def _media(found: Gathered, _: FigureOptions) -> Model | str:
    if not found.tally.frames:
        return f"the rows of {found.tally.main} do not say which frames were seen"
    return media.MediaData.of(found.tally.main, found.tally.frames, found.tally.seconds)


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
