"""What the page is told: a head of columns that list and filters need, and the rows themselves in chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videop2r_data.cards.gallery_frames import Sheet
from videop2r_data.cards.gallery_media import Clip
from videop2r_data.cards.gallery_rows import OUTCOMES, Entry, canonical_segments
from videop2r_data.cards.gallery_verdicts import JudgedLine, differs, words_of
from videop2r_data.schemas import Stage

CHUNK = 128
"""Rows that are parsed together."""
TEASER = 140
"""Characters of a question in the list."""
FramesOf = Callable[[str, str, str], tuple[Sequence[int], Sequence[float]] | None]
JUDGED, DIFFERS, UNSCORED = 1, 2, 4
"""Bits of the column `judged`."""


@dataclass(frozen=True, slots=True)
class Payload:
    """`head` and `chunks` as JSON values; `chunks[i]` holds the rows from `i * CHUNK`."""

    head: dict[str, Any]
    chunks: list[dict[str, Any]]


class _Names:
    """A column of repeated texts as numbers, in order of first sight."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))


def make_payload(
    about: Mapping[str, Any],
    entries: Sequence[Entry],
    clips: Sequence[Clip],
    *,
    judged: Mapping[tuple[str, ...], Sequence[JudgedLine]],
    sheets: Mapping[int, Sheet],
    frames_of: FramesOf,
) -> Payload:
    """Lay out the page's data; nothing in it depends on time or host, but for the addresses of the media.

    Args:
        about: name, title and digest of the data set.
        entries: the rows, in order.
        clips: their media files.
        judged: verdicts by `words_of` an entry.
        sheets: small frames by index of the clip.
        frames_of: knows the sampled frames of clips whose rows do not say.
    """
    places = {(clip.source, clip.path): i for i, clip in enumerate(clips)}
    known = _known_frames(entries, places)
    columns = _columns(entries, places, judged)
    rows = []
    for entry in entries:
        row = _row(entry)
        at = places.get((entry.media_source, entry.path), -1)
        if at >= 0 and not entry.frames:
            found = known.get(at) or frames_of(entry.media_source, entry.path, entry.data_type)
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
        used = {columns["clip"][start + i] for i in range(len(part))}
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
    }
    return Payload(head, chunks)


def _columns(
    entries: Sequence[Entry],
    places: Mapping[tuple[str, str], int],
    judged: Mapping[tuple[str, ...], Sequence[JudgedLine]],
) -> dict[str, Any]:
    types, kinds, sources, reasons = _Names(), _Names(), _Names(), _Names()
    columns = {
        "id": [e.sample_id for e in entries],
        "teaser": [" ".join(e.problem[: 2 * TEASER].split())[:TEASER] for e in entries],
        "outcome": [OUTCOMES.index(e.outcome) for e in entries],
        "type": [types(e.problem_type) for e in entries],
        "kind": [kinds(e.data_type) for e in entries],
        "source": [sources(e.source) for e in entries],
        "reason": [reasons(f"{e.stage}/{e.reason}") if e.reason else -1 for e in entries],
        "reward": [e.reward for e in entries],
        "clip": [places.get((e.media_source, e.path), -1) for e in entries],
        "markable": [int(e.observation is not None) for e in entries],
        "judged": [_bits(judged.get(words_of(e), ())) for e in entries],
    }
    names = {"types": types, "kinds": kinds, "sources": sources, "reasons": reasons}
    return {**columns, **{key: list(value.names) for key, value in names.items()}}


def _row(entry: Entry) -> dict[str, Any]:
    """One row; what is empty is left out."""
    canonical = canonical_segments(entry.parts)
    row: dict[str, Any] = {
        "problem": entry.problem,
        "options": list(entry.options),
        "reference": entry.reference,
        "observation": entry.observation,
        "trace": list(canonical) if canonical else None,
        "parts": None if canonical else [list(part) for part in entry.parts],
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
    }
    if canonical and canonical[0] == entry.observation:
        del row["observation"]  # the page takes it from the trace
    return {name: value for name, value in row.items() if value not in (None, "", [])}


def _known_frames(
    entries: Sequence[Entry], places: Mapping[tuple[str, str], int]
) -> dict[int, tuple[Sequence[int], Sequence[float]]]:
    """Sampled frames by clip: all questions about a clip were shown the same ones."""
    return {
        places[entry.media_source, entry.path]: (entry.frames, entry.times_s)
        for entry in entries
        if entry.frames and entry.path
    }


def _verdicts(lines: Sequence[JudgedLine]) -> dict[str, Any]:
    label = lines[0].label
    return {
        "sufficient": label.sufficient,
        "reviewer": label.reviewer,
        "note": label.note,
        "judges": [
            {
                "judge": line.judge,
                "model": line.model,
                "sufficient": line.sufficient,
                "why": line.why,
                "seconds": line.latency_s,
            }
            for line in lines
        ],
    }


def _bits(lines: Sequence[JudgedLine]) -> int:
    bits = JUDGED if lines else 0
    bits |= DIFFERS if any(map(differs, lines)) else 0
    return bits | (UNSCORED if any(line.sufficient is None for line in lines) else 0)


def _rounded(times: Sequence[float]) -> list[float]:
    return [round(t, 4) for t in times]
