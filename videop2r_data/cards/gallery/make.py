"""The gallery of a data set: its rows as the page's data, made and written."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from videop2r_data.cards.gallery.media import (
    Clip,
    Sheet,
    beside,
    copy_clips,
    draw_sheets,
    find_clips,
    linked,
    spec_of,
)
from videop2r_data.cards.gallery.page import render_page
from videop2r_data.cards.gallery.rows import (
    OUTCOMES,
    Entry,
    JudgedLine,
    by_words,
    count_rows,
    differs,
    read_entries,
    words_of,
)
from videop2r_data.cards.gallery.trace import (
    KINDS,
    about_trace,
    canonical_segments,
    rounds_of,
    segments_in,
    values_in,
)
from videop2r_data.errors import ConfigError
from videop2r_data.files import Release
from videop2r_data.schemas import (
    WHOLE,
    ClaimVerdict,
    Focus,
    Model,
    Role,
    Stage,
    TraceGrammar,
    default_grammar,
    digest,
)

# The page's data: a head with the columns that list and filters need, parsed at once, and the rows in chunks,
# parsed when they are looked at. So a page of 10,000 rows opens fast.

CHUNK = 128
"""Rows per chunk."""
TEASER = 140
"""Characters of a question in the list."""
FramesOf = Callable[[str, str, Focus, str], tuple[Sequence[int], Sequence[float]] | None]
"""(source, path, part, data type) -> indices and times in seconds of the sampled frames, or None."""
MOST_VALUES = 64
"""Values of a further filter at most."""
JUDGED, DIFFERS, UNSCORED = 1, 2, 4
"""Bits of the column `judged`."""


@dataclass(frozen=True, slots=True)
class Payload:
    """`head` and `chunks` as JSON values; `chunks[i]` holds `CHUNK` rows from `i * CHUNK` on."""

    head: dict[str, Any]
    chunks: list[dict[str, Any]]


def make_payload(
    about: Mapping[str, Any],
    entries: Sequence[Entry],
    clips: Sequence[Clip],
    *,
    judged: Mapping[tuple[str, ...], Sequence[JudgedLine]],
    sheets: Mapping[int, Sheet],
    frames_of: FramesOf,
    grammar: TraceGrammar | None = None,
) -> Payload:
    """Make the page's data; only the addresses of media depend on the machine, nothing on the time.

    Args:
        about: name, title and digest of the data set.
        entries: the rows, in order.
        clips: their media files.
        judged: verdicts by `words_of` an entry.
        sheets: sheets of frames by index of the clip.
        frames_of: gives the sampled frames of clips whose rows do not have them.
        grammar: what a trace of these rows is made of; None: the default.
    """
    form = grammar or default_grammar()
    places = {clip.place: i for i, clip in enumerate(clips)}
    # the sampled frames of a clip are the same for every question about it, or about this part of it
    known: dict[int, tuple[Sequence[int], Sequence[float]]] = {
        places[e.place]: (e.frames, e.times_s) for e in entries if e.frames and e.path
    }
    columns = _columns(entries, places, judged)
    rows = []
    for entry in entries:
        row = _row(entry, form)
        at = places.get(entry.place, -1)
        if at >= 0 and not entry.frames:
            found = known.get(at) or frames_of(*entry.place, entry.data_type)
            if found is not None:
                known[at] = found
                row["frames"], row["times"] = list(found[0]), _rounded(found[1])
        lines = judged.get(words_of(entry), ())
        if lines:
            row["verdicts"] = _verdicts(lines)
        rows.append(row)
    chunks = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        used = set(columns["clip"][start : start + CHUNK])
        pictures = {str(i): sheets[i].as_json() for i in sorted(used) if i in sheets}
        chunks.append({"rows": part, "sheets": pictures} if pictures else {"rows": part})
    head = {
        **about,
        "version": 1,
        "chunk": CHUNK,
        "outcomes": list(OUTCOMES),
        "stages": [stage.value for stage in Stage],
        "clips": [[clip.source, clip.path, clip.address] for clip in clips],
        **columns,
        **about_trace(form),
        **_further(entries, form),
    }
    return Payload(head, chunks)


def _columns(
    entries: Sequence[Entry],
    places: Mapping[tuple[str, str, Focus], int],
    judged: Mapping[tuple[str, ...], Sequence[JudgedLine]],
) -> dict[str, Any]:
    # repeated texts become numbers, in the order of their first use
    types, kinds, sources, reasons = (defaultdict[str, int](count().__next__) for _ in range(4))
    return {
        "id": [e.sample_id for e in entries],
        "teaser": [" ".join(e.problem[: 2 * TEASER].split())[:TEASER] for e in entries],
        "outcome": [OUTCOMES.index(e.outcome) for e in entries],
        "type": [types[e.problem_type] for e in entries],
        "kind": [kinds[e.data_type] for e in entries],
        "source": [sources[e.source] for e in entries],
        "reason": [reasons[f"{e.stage}/{e.reason}"] if e.reason else -1 for e in entries],
        "reward": [e.reward for e in entries],
        "clip": [places.get(e.place, -1) for e in entries],
        "markable": [int(e.observation is not None) for e in entries],
        "judged": [_bits(judged.get(words_of(e), ())) for e in entries],
        "types": list(types),
        "kinds": list(kinds),
        "sources": list(sources),
        "reasons": list(reasons),
    }


_CLAIMS = (
    "no claim",
    "all claims supported",
    "a claim cannot be seen",
    "a claim is contradicted",
    "unscored",
)
"""What the claims of a row come to; the last of these that holds, but that an unscored one says nothing of
the others."""


def _claimed(entry: Entry) -> int:
    said = {claim.verdict for claim in entry.claims}
    if not said or ClaimVerdict.CONTRADICTED in said:
        return 3 if said else 0
    return 4 if None in said else 2 if ClaimVerdict.UNSEEN in said else 1


def _further(entries: Sequence[Entry], grammar: TraceGrammar) -> dict[str, Any]:
    """Columns for filters that only some data sets have."""
    found: dict[str, Any] = {}
    if grammar != default_grammar():
        forms = defaultdict[str, int](count().__next__)
        names = [segments_in(e.parts) for e in entries]
        found["form"] = [forms[", ".join(dict.fromkeys(each))] for each in names]
        found["forms"] = list(forms)
        found["rounds"] = [rounds_of(each, grammar) for each in names]
    titles = dict.fromkeys(name for e in entries for name in e.tags)
    if tags := [one for title in titles if (one := _tag(title, entries))]:
        found["tags"] = tags
    if any(e.claims for e in entries):
        found |= {"claimed": list(map(_claimed, entries)), "claims": list(_CLAIMS)}
    return found


def _tag(name: str, entries: Sequence[Entry]) -> dict[str, Any] | None:
    """The column of a further filter; None: its values are too many to choose from, or all the same."""
    values = sorted({e.tags[name] for e in entries if name in e.tags})
    if not 1 < len(values) <= MOST_VALUES:
        return None
    places = {value: at for at, value in enumerate(values)}
    return {"title": name, "names": values, "of": [places.get(e.tags.get(name, ""), -1) for e in entries]}


def _row(entry: Entry, grammar: TraceGrammar) -> dict[str, Any]:
    """One row as JSON, without empty fields."""
    parts: list[list[Any]] = [list(part) for part in entry.parts]
    for part, shown in zip(parts, entry.parts, strict=True):
        if values := values_in(shown, grammar):
            part[2:] = [shown[2] if len(shown) > 2 else shown[0], values]
    canonical = canonical_segments(entry.parts) if grammar == default_grammar() else None
    first = next((part[1] for part in entry.parts if part[0] == KINDS[Role.ANSWER]), "")
    row: dict[str, Any] = {
        "problem": entry.problem,
        "options": list(entry.options),
        "reference": entry.reference,
        "observation": entry.observation,
        "trace": list(canonical) if canonical else None,
        "parts": None if canonical else parts,
        "answer": entry.answer if entry.answer != first else None,
        "detail": entry.detail,
        "attempt": entry.attempt,
        "judgement": entry.judgement,
        "why": entry.why,
        "frames": list(entry.frames),
        "times": _rounded(entry.times_s),
        "fps": entry.fps,
        "sha256": entry.media_sha256,
        "generation": entry.generation_key,
        "judging": entry.judge_key,
        "synthetic": entry.synthetic or None,
        "part": None if entry.focus.part == WHOLE.part else entry.focus.part,
        "claims": [[c.text, c.verdict.value if c.verdict else "", _rounded(c.at)] for c in entry.claims],
    }
    if canonical and canonical[0] == entry.observation:
        del row["observation"]  # the page takes it from the trace
    return {name: value for name, value in row.items() if value not in (None, "", [])}


def _verdicts(lines: Sequence[JudgedLine]) -> dict[str, Any]:
    label = lines[0].label
    return {
        "sufficient": label.sufficient,
        "reviewer": label.reviewer,
        **({"question": label.question} if label.question != "sufficiency" else {}),
        "note": label.note,
        "judges": [
            line.model_dump(include={"judge", "model", "sufficient", "why"}) | {"seconds": line.latency_s}
            for line in lines
        ],
    }


def _bits(lines: Sequence[JudgedLine]) -> int:
    bits = JUDGED if lines else 0
    bits |= DIFFERS if any(map(differs, lines)) else 0
    return bits | (UNSCORED if any(line.sufficient is None for line in lines) else 0)


def _rounded(times: Sequence[float]) -> list[float]:
    return [round(t, 4) for t in times]


# From a release to the written page.

PAGE = "index.html"
LIMIT = 10_000
"""Rows of a page by default."""
Tell = Callable[[str, int, int], None]
"""Called with progress: (step, done, all)."""


class GalleryReport(Model):
    """What was written."""

    page: str
    rows: int
    """Of the data set."""
    shown: int
    """On the page."""
    clips: int
    clips_missing: int
    """Clips that are not under their media root, or whose root is not known."""
    copied_bytes: int
    sheets: int
    """Clips whose sampled frames are in the page."""
    bytes: int
    """Of the page."""
    judged: int
    """Rows with verdicts of judges."""
    disagreements: int
    """Rows on which a judge contradicts the human label."""
    unmatched: int
    """Labels whose words are those of no row of the page."""


@dataclass
class Gallery:
    """A page in its parts, ready to be written and to be served.

    Attributes:
        title: of the window.
        payload: the page's data.
        clips: every media file of its rows.
        links: source -> address of its media, relative to the page.
        figures: the counts of `GalleryReport`.
    """

    title: str
    payload: Payload
    clips: list[Clip]
    links: dict[str, str]
    figures: dict[str, int] = field(default_factory=dict)

    def page(self, *, served: bool = False) -> str:
        """The HTML document, for a file or for `GalleryServer`."""
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
    frames_of: FramesOf = lambda source, path, focus, kind: None,
    tell: Tell = lambda what, done, total: None,
) -> Gallery:
    """Read a release into a page; with `copy_media` copy its clips. The page is written by `write_gallery`.

    Args:
        release: the data set; it is only read.
        out: folder of the page.
        roots: source -> media root; the empty name stands for every other source.
        limit: rows at most; of more, evenly spaced ones are shown, and every row with a verdict.
        verdicts: lines of `verdicts.jsonl`.
        copy_media: copy the clips beside the page instead of linking them.
        sheets: longer side in pixels of the small frames in the page; 0: none.
        frames_of: gives the sampled frames of clips whose rows do not have them.
        tell: called with progress.

    Raises:
        ConfigError: the page would lie in the data set, or `out` cannot be written.
        SourceError: the data set cannot be read.
    """
    total = sum(count_rows(release).values())
    always = frozenset(line.label.sample_id for line in verdicts)
    spec = spec_of(release.lock.recipe if release.lock else None)
    found = read_entries(release, limit=limit, total=total, always=always)
    entries = [replace(e, focus=spec.focus(e.focus, e.problem)) for e in found]
    clips = find_clips(entries, roots)
    drawn: dict[int, Sheet] = {}
    if sheets:
        drawing = draw_sheets(clips, spec, side=sheets, tell=lambda done, of: tell("frames", done, of))
        drawn, _ = asyncio.run(drawing)
    about = _about(release, entries) | {"total": total}
    return gallery_of(
        about,
        entries,
        out,
        roots=roots,
        verdicts=verdicts,
        copy_media=copy_media,
        drawn=drawn,
        frames_of=frames_of,
        grammar=release.grammar,
    )


def gallery_of(
    about: Mapping[str, Any],
    entries: Sequence[Entry],
    out: Path,
    *,
    roots: Mapping[str, Path],
    verdicts: Sequence[JudgedLine] = (),
    copy_media: bool = False,
    drawn: Mapping[int, Sheet] | None = None,
    frames_of: FramesOf = lambda source, path, focus, kind: None,
    grammar: TraceGrammar | None = None,
) -> Gallery:
    """A page of entries; the arguments that are not described are those of `make_gallery`.

    Args:
        about: `name`, `title` and `digest` of what they are, `total` of its rows; `says`, optional: one of
            `OUTCOMES` -> what the page calls it.
        entries: the rows of the page.
        drawn: index of a clip -> its sheet of frames.
        grammar: of their traces; None: the default.
    """
    clips = find_clips(entries, roots)
    copied = copy_clips(clips, out) if copy_media else 0
    judged, total = by_words(verdicts), about["total"]
    matched = {words: judged[words] for entry in entries if (words := words_of(entry)) in judged}
    told = {
        **about,
        "judges": sorted({line.judge for line in verdicts}),
        "unmatched": len(judged) - len(matched),
    }
    sheets = drawn or {}
    return Gallery(
        title=f"{about['title']} · gallery",
        payload=make_payload(
            told, entries, clips, judged=matched, sheets=sheets, frames_of=frames_of, grammar=grammar
        ),
        clips=clips,
        links=beside(clips) if copy_media else linked(clips, roots, out),
        figures={
            "rows": total,
            "shown": len(entries),
            "clips": len({(clip.source, clip.path) for clip in clips}),
            "clips_missing": len({(clip.source, clip.path) for clip in clips if clip.file is None}),
            "copied_bytes": copied,
            "sheets": len(sheets),
            "judged": len(matched),
            "disagreements": sum(any(map(differs, lines)) for lines in matched.values()),
            "unmatched": len(judged) - len(matched),
        },
    )


def write_gallery(gallery: Gallery, out: Path, name: str = PAGE) -> GalleryReport:
    """Write the page `name`; the same bytes for the same data set and settings.

    Raises:
        ConfigError: `out` cannot be written.
    """
    text = gallery.page().encode("utf-8")
    path = out / name
    try:
        out.mkdir(parents=True, exist_ok=True)
        part = out / f".{name}.part"
        part.write_bytes(text)
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write the page: {error}", where=str(path), hint="choose another folder with --out"
        ) from None
    return GalleryReport(page=str(path), bytes=len(text), **gallery.figures)


def _about(release: Release, entries: Sequence[Entry]) -> dict[str, Any]:
    """Name, title and digest; under the digest a browser keeps marks, so a rebuilt set has another."""
    recipe = release.lock.recipe if release.lock is not None else {}
    name, title = recipe.get("name"), recipe.get("title")
    if not isinstance(name, str):
        name = Path(release.where).resolve().name
    rows: Any = [[entry.sample_id, entry.problem, entry.observation or ""] for entry in entries]
    if release.lock is not None:
        rows = {file: known.sha256 for file, known in release.lock.files.items()}
    shown = title if isinstance(title, str) and title else name
    return {"name": name, "title": shown, "digest": digest(rows)}
