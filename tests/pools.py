"""The rows of all sources of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from videop2r_data.builders.sources import open_sources
from videop2r_data.schemas import BadRow, Sample, SourceSpec


def read_pool(
    specs: Iterable[SourceSpec], *, base: Path, demo_root: Path | None = None
) -> Iterator[Sample | BadRow]:
    """Rows in the order of the recipe."""
    sources = open_sources(specs, base=base, demo_root=demo_root)
    return chain.from_iterable(source.rows() for source in sources)
