"""The questions that one model got right and the other wrong, as one page: both answers beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from videop2r_data.builders.sources import open_source
from videop2r_data.cards.gallery import Entry, gallery_of, write_gallery
from videop2r_data.errors import P2RError
from videop2r_data.evaluation.compare import Comparison, Loaded
from videop2r_data.evaluation.page import SAYS, entry_of
from videop2r_data.schemas import digest

MOST = 5_000
"""Flipped questions on the page; of more, evenly spaced ones of each benchmark."""


def write_flips(
    results: Sequence[Loaded],
    comparisons: Sequence[Comparison],
    page: Path,
    *,
    roots: Mapping[str, Path] | None = None,
) -> None:
    """Write the page: each flipped question once for each model, right and wrong side by side.

    Args:
        results: the first, and what is held against it.
        comparisons: of `compare_results`.
        page: the file.
        roots: benchmark -> media root; the empty name stands for every other. Else as the evaluation noted.
    """
    first, *others = results
    entries = [
        entry
        for other, found in zip(others, comparisons, strict=True)
        for entry in _entries(first, other, found)
    ]
    about = {
        "name": page.stem,
        "title": f"{first.name} against {', '.join(other.name for other in others)}: flipped questions",
        "digest": digest([[one.file_sha256 for one in result.result.benchmarks] for result in results]),
        "total": len(entries),
        "says": SAYS,
    }
    page.parent.mkdir(parents=True, exist_ok=True)
    known = dict(_noted_roots(first)) | dict(roots or {})
    made = gallery_of(about, entries, page.parent, roots=known, grammar=first.plan.trace)
    write_gallery(made, page.parent, page.name)


def _entries(first: Loaded, second: Loaded, found: Comparison) -> Iterator[Entry]:
    for benchmark in second.benchmarks:
        flips = [flip for flip in found.flips if flip.benchmark == benchmark]
        step = max(1, -(-len(flips) // MOST))
        rows = [one.rows(benchmark) if flips else {} for one in (first, second)]
        for flip in flips[::step]:
            way = f"{'gained' if flip.gained else 'lost'} by {second.name}"
            for one, answers in zip((first, second), rows, strict=True):
                entry = entry_of(answers[flip.sample_id], one.plan.trace, {"model": one.name, "flip": way})
                yield replace(entry, sample_id=f"{flip.sample_id} · {one.name} · {second.name}")


def _noted_roots(one: Loaded) -> Iterator[tuple[str, Path]]:
    """(benchmark, media root), as far as the work folder beside the result tells."""
    if (place := one.place) is None:
        return
    for pool in one.plan.benchmarks:
        with suppress(P2RError):  # the rows may be gone: the page is worth a look without clips
            root = open_source(pool.source, base=place.base, demo_root=place.demo).media_root
            if root is not None:
                yield pool.name, root
