"""From the sources of a recipe to rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from videop2r_data.builders.sources.contract import BadRow, Source
from videop2r_data.builders.sources.hf import DatasetSource
from videop2r_data.builders.sources.official import OfficialSource
from videop2r_data.builders.sources.video_r1 import VideoR1Source
from videop2r_data.files.opening import locate
from videop2r_data.schemas.recipe import DemoSpec, SourceSpec
from videop2r_data.schemas.sample import Sample

EMBEDDED = "embedded"
"""Folder beside the demo worlds for media that the rows of a pool hold, each source in one of its name."""


def open_source(spec: SourceSpec, *, base: Path, demo_root: Path | None = None) -> Source:
    """Open one source of a recipe.

    Args:
        spec: the source.
        base: folder of the recipe; `path` and `media_root` are relative to it.
        demo_root: where demo worlds are written, each in a folder of its source's name; media that the rows
            of a pool hold are written to `embedded` beside it.

    Raises:
        SourceError: its files are not there or not as its kind wants them.
    """
    if spec.kind == "demo":
        return _demo(spec, demo_root if demo_root is not None else base / "demo-world")
    media_root = locate(spec.media_root, base).absolute() if spec.media_root else None
    if spec.kind == "dataset":
        beside = demo_root.with_name(EMBEDDED) if demo_root is not None else base / EMBEDDED
        return DatasetSource(
            spec, base=base, media_root=media_root, embedded_root=(beside / spec.name).absolute()
        )
    kind = VideoR1Source if spec.kind == "video-r1" else OfficialSource
    return kind(spec, base=base, media_root=media_root)


def read_pool(
    specs: Iterable[SourceSpec], *, base: Path, demo_root: Path | None = None
) -> Iterator[Sample | BadRow]:
    """All rows of all sources, in order; each names its source. All are opened and checked before the first.

    Raises:
        SourceError: a source cannot be opened or read on.
    """
    sources = [open_source(spec, base=base, demo_root=demo_root) for spec in specs]
    for source in sources:
        source.check()
    for source in sources:
        yield from source.rows()


def _demo(spec: SourceSpec, root: Path) -> Source:
    """The synthetic world: written if it is not there, then read like any other pool."""
    from videop2r_data.demo import write_world
    from videop2r_data.demo.world import MEDIA, POOL

    folder = write_world(root / spec.name, spec.demo or DemoSpec())
    as_pool = spec.model_copy(update={"path": str((folder / POOL).absolute())})
    return VideoR1Source(as_pool, base=folder, media_root=(folder / MEDIA).absolute())
