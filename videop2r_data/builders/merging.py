"""Journals put together: what several machines or runs paid for, for one build to find."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from videop2r_data.backends import Begin, Journal, Store, add_segment, origin, pull, read_lines
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Workspace, at_work
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Model


class MergeReport(Model):
    """What came of a merge, and what the journal holds now."""

    copied: int
    """Segments of which something was new."""
    answers: int
    """Requests that are answered."""
    repeats: int
    """Answers to requests that had one: paid more than once, the first counts."""
    damaged: int
    """Lines that cannot be read."""


async def merge(into: str, sources: Sequence[str], *, tell: Callable[[str], None]) -> MergeReport:
    """Copy the records of journals into another, behind what is there; nothing twice, and nothing is removed.

    Args:
        into: the work folder, or its URL; made if missing.
        sources: work folders, journals or URLs.

    Raises:
        ConfigError: a source has no journal. BusyError: a build works in `into`. P2RError: it cannot be used.
    """
    place, copied = Workspace.at(Path("unused"), base=Path(), work=into), 0
    with TemporaryDirectory() as folder:
        found = [_segments(one, Path(folder) / str(n), tell) for n, one in enumerate(sources)]
        async with at_work(place, "a merge", wait=False, stop=Stop(), tell=tell) as begin:
            place.journal.mkdir(parents=True, exist_ok=True)
            for paths in found:
                copied += await asyncio.to_thread(_copy, paths, place.journal, begin if place.store else None)
    with Journal(place.journal, readonly=True) as journal:
        answers, repeats, damaged = len(journal), journal.repeats, len(journal.damaged)
    return MergeReport(copied=copied, answers=answers, repeats=repeats, damaged=damaged)


def _segments(source: str, folder: Path, tell: Callable[[str], None]) -> list[Path]:
    """The segments of a journal; those of a store are brought to `folder`."""
    if "://" in source:
        pull(Store(source), folder, tell, {})
    elif not (folder := Path(source) / "journal").is_dir():
        folder = Path(source)
    if not (paths := sorted(folder.glob("segment-*.jsonl"))):
        raise ConfigError("there is no journal here", where=source, hint="name a work folder, or its URL")
    return paths


def _copy(paths: list[Path], folder: Path, begin: Begin | None) -> int:
    """Copy what a folder lacks of segments of the same origin; returns how many were begun for it."""
    copied = 0
    for name in sorted(set(map(origin, paths))):
        here = (path for path in folder.glob("segment-*.jsonl") if origin(path) == name)
        known = Counter(map(hash, chain.from_iterable(map(read_lines, here))))
        lines = chain.from_iterable(read_lines(path) for path in paths if origin(path) == name)
        new = _beyond(lines, known)
        if (first := next(new, None)) is not None:
            add_segment(folder, name, chain([first], new), begin)
            copied += 1
    return copied


def _beyond(lines: Iterable[bytes], known: Counter[int]) -> Iterator[bytes]:
    """Lines beyond as many of the same words as are known: a call that went out twice has two such lines."""
    for line in lines:
        if known[what := hash(line)]:
            known[what] -= 1
        else:
            yield line
