"""The gallery of a data set: every row on one page, its clip beside its question, to look at and to mark."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from videop2r_data.cards.gallery_frames import Sheet, draw_sheets, spec_of
from videop2r_data.cards.gallery_media import Clip, beside, copy_clips, find_clips, linked
from videop2r_data.cards.gallery_page import render_page
from videop2r_data.cards.gallery_payload import Payload, make_payload
from videop2r_data.cards.gallery_rows import Entry, count_rows, read_entries
from videop2r_data.cards.gallery_verdicts import JudgedLine, by_words, differs, words_of
from videop2r_data.cards.stats import Readable
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import BuildLock, Model, digest

PAGE = "index.html"
LIMIT = 10_000
"""Rows of a page, unless more are asked for."""
FramesOf = Callable[[str, str, str], tuple[Sequence[int], Sequence[float]] | None]
"""(source, path, data type) -> indices and times in seconds of the sampled frames, or None."""


Tell = Callable[[str, int, int], None]
"""Hears (step, done, all)."""


class Release(Readable, Protocol):
    """A release with what is said about it; `builders.release.Release` is one."""

    @property
    def lock(self) -> BuildLock | None:
        """Of a data set that was built here."""
        ...


class GalleryReport(Model):
    """What was written."""

    page: str
    rows: int
    """Of the data set."""
    shown: int
    """On the page."""
    clips: int
    clips_missing: int
    """Not under their media root, or no root is known."""
    copied_bytes: int
    sheets: int
    """Clips whose sampled frames stand in the page."""
    bytes: int
    """Of the page."""
    judged: int
    """Rows with verdicts of judges."""
    disagreements: int
    """Rows on which a judge contradicts the person."""
    unmatched: int
    """Labels whose words are on no row of the page."""


@dataclass
class Gallery:
    """A page in its parts, ready to be written and to be served.

    Attributes:
        payload: rows, clips and what is said of them.
        clips: every media file of its rows.
        links: source -> address of its media, seen from the file.
        report: figures; `page` and `bytes` are set when it is written.
    """

    title: str
    payload: Payload
    clips: list[Clip]
    links: dict[str, str]
    figures: dict[str, int] = field(default_factory=dict)

    def page(self, *, served: bool = False) -> str:
        """The document, for a file or for the server."""
        roots = beside(self.clips) if served else self.links
        head = {**self.payload.head, "bases": roots}
        return render_page(self.title, head, self.payload.chunks, served=served)


def make_gallery(
    release: Release,
    out: Path,
    *,
    roots: Mapping[str, Path],
    limit: int = LIMIT,
    verdicts: Sequence[JudgedLine] = (),
    copy_media: bool = False,
    sheets: int = 0,
    frames_of: FramesOf = lambda source, path, kind: None,
    tell: Tell = lambda what, done, total: None,
) -> Gallery:
    """Gather everything that a page shows; copies are made here, the page itself by `write_gallery`.

    Args:
        release: the data set; it is only read.
        out: folder of the page.
        roots: source -> media root; the empty name stands for every other source.
        limit: rows at most; of more an even share is shown, and every row with a verdict besides.
        verdicts: lines of `verdicts.jsonl`.
        copy_media: copy the clips beside the page instead of linking to where they lie.
        sheets: longer side in pixels of small pictures of the sampled frames, put into the page; 0: none.
        frames_of: knows the sampled frames of clips whose rows do not say.
        tell: hears (step, done, all).

    Raises:
        ConfigError: the page would lie in the data set, or `out` cannot be written.
        SourceError: the data set cannot be read.
    """
    judged = by_words(verdicts)
    total = sum(count_rows(release).values())
    always = frozenset(line.label.sample_id for line in verdicts)
    entries = list(read_entries(release, limit=limit, total=total, always=always))
    clips = find_clips(entries, roots)
    copied = copy_clips(clips, out) if copy_media else 0
    drawn = _sheets(release, clips, sheets, tell) if sheets else {}
    matched = {words: judged[words] for entry in entries if (words := words_of(entry)) in judged}
    about = _about(release, entries) | {
        "total": total,
        "judges": sorted({line.judge for line in verdicts}),
        "unmatched": len(judged) - len(matched),
    }
    return Gallery(
        title=f"{about['title']} · gallery",
        payload=make_payload(about, entries, clips, judged=matched, sheets=drawn, frames_of=frames_of),
        clips=clips,
        links=beside(clips) if copy_media else linked(clips, roots, out),
        figures={
            "rows": total,
            "shown": len(entries),
            "clips": len(clips),
            "clips_missing": sum(clip.file is None for clip in clips),
            "copied_bytes": copied,
            "sheets": len(drawn),
            "judged": len(matched),
            "disagreements": sum(any(map(differs, lines)) for lines in matched.values()),
            "unmatched": len(judged) - len(matched),
        },
    )


def write_gallery(gallery: Gallery, out: Path) -> GalleryReport:
    """Write `index.html`; the same bytes for the same data set and settings.

    Raises:
        ConfigError: `out` cannot be written.
    """
    text = gallery.page().encode("utf-8")
    path = out / PAGE
    try:
        out.mkdir(parents=True, exist_ok=True)
        part = out / f".{PAGE}.part"
        part.write_bytes(text)
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write the page: {error}", where=str(path), hint="choose another folder with --out"
        ) from None
    return GalleryReport(page=str(path), bytes=len(text), **gallery.figures)


def _sheets(release: Release, clips: Sequence[Clip], side: int, tell: Tell) -> dict[int, Sheet]:
    recipe = release.lock.recipe if release.lock else None
    drawn, _ = asyncio.run(
        draw_sheets(clips, spec_of(recipe), side=side, tell=lambda done, total: tell("frames", done, total))
    )
    return drawn


def _about(release: Release, entries: Sequence[Entry]) -> dict[str, Any]:
    name = _name(release)
    return {"name": name, "title": _title(release, name), "digest": _identity(release, entries)}


def _name(release: Release) -> str:
    if release.lock is not None and isinstance(release.lock.recipe.get("name"), str):
        return str(release.lock.recipe["name"])
    return Path(release.where).resolve().name


def _title(release: Release, name: str) -> str:
    title = release.lock.recipe.get("title") if release.lock is not None else None
    return title if isinstance(title, str) and title else name


def _identity(release: Release, entries: Sequence[Entry]) -> str:
    """What marks are kept under: the files of the data set, so that a rebuilt one starts afresh."""
    if release.lock is not None:
        return digest({name: file.sha256 for name, file in release.lock.files.items()})
    return digest([[entry.sample_id, entry.problem, entry.observation or ""] for entry in entries])
