"""From the sources of a recipe to their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from videop2r_data.builders.sources.base import Source, numbered_through
from videop2r_data.errors import SourceError, first_line
from videop2r_data.files import (
    JsonRows,
    RawRow,
    format_of,
    locate,
    official_parts,
    open_pool_file,
    pool_files,
    siblings,
)
from videop2r_data.schemas import DemoSpec, SourceSpec

# The official release: `<name>.part<N>of<M>.json.gz`, read part by part, no part missing.


class OfficialSource(Source):
    """Kind `official`; `path` is a folder, a glob, or any one part (its siblings are found).

    Raises:
        SourceError: see `official_parts`.
    """

    def __init__(self, spec: SourceSpec, *, base: Path, media_root: Path | None) -> None:
        files = pool_files(spec.path, base, name=spec.name)
        if len(files) == 1:
            files = siblings(files[0])
        self.files = official_parts(files, where=f"source {spec.name!r}, {spec.path}")
        super().__init__(spec, media_root if media_root is not None else self.files[0].parent)

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows of all parts, in order."""
        return read_json_files(self.files)


# Pools in the layout of Video-R1: a JSON array or JSON lines, plain or gzip, one file or several.


def read_json_files(files: list[Path]) -> Iterator[RawRow]:
    """The rows of some files, one file after the other, numbered through."""
    return numbered_through(files, _read_json)


def _read_json(path: Path) -> Iterator[RawRow]:
    with open_pool_file(path) as stream:
        yield from JsonRows(stream, where=str(path))


class VideoR1Source(Source):
    """Kind `video-r1`.

    Raises:
        SourceError: `path` means no file.
    """

    def __init__(self, spec: SourceSpec, *, base: Path, media_root: Path | None) -> None:
        self.files = pool_files(spec.path, base, name=spec.name)
        for path in self.files:
            if format_of(path) not in ("json", ""):
                raise SourceError(
                    f"kind video-r1 reads JSON, {path.name} is none",
                    where=f"source {spec.name!r}, {path}",
                    hint="kind: dataset reads CSV, Parquet and Arrow",
                )
        super().__init__(spec, media_root if media_root is not None else self.files[0].parent)

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows as they stand in the files."""
        return read_json_files(self.files)


# One entry per kind of source in a recipe.


EMBEDDED = "embedded"
"""Folder beside the demo worlds for media embedded in rows; one folder per source in it."""


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
    if spec.kind == "demo":  # it reads no file of the user's: a full disk is told as what it is
        return _demo(spec, demo_root if demo_root is not None else base / "demo-world")
    try:
        return _open(spec, base=base, demo_root=demo_root)
    except (OSError, ValueError) as error:  # no right to look there, a name or glob that nothing can have
        where = f"source {spec.name!r}, {spec.path}"
        raise SourceError(
            f"cannot be looked at: {first_line(error)}", where=where, hint="check path and rights"
        ) from None


def _open(spec: SourceSpec, *, base: Path, demo_root: Path | None) -> Source:
    media_root = locate(spec.media_root, base).absolute() if spec.media_root else None
    if spec.kind == "benchmark":
        from videop2r_data.builders.sources.benchmark import BenchmarkSource

        worlds = demo_root if demo_root is not None else base / "demo-world"
        return BenchmarkSource(spec, base=base, media_root=media_root, demo_root=worlds)
    if spec.kind == "dataset":
        from videop2r_data.builders.sources.dataset import DatasetSource

        beside = demo_root.with_name(EMBEDDED) if demo_root is not None else base / EMBEDDED
        return DatasetSource(
            spec, base=base, media_root=media_root, embedded_root=(beside / spec.name).absolute()
        )
    kind = VideoR1Source if spec.kind == "video-r1" else OfficialSource
    return kind(spec, base=base, media_root=media_root)


def open_sources(specs: Iterable[SourceSpec], *, base: Path, demo_root: Path | None = None) -> list[Source]:
    """The sources of a recipe, in order; all are checked before the first row is read.

    Raises:
        SourceError: one cannot be opened or read on.
    """
    sources = [open_source(spec, base=base, demo_root=demo_root) for spec in specs]
    for source in sources:
        source.check()
    return sources


def _demo(spec: SourceSpec, root: Path) -> Source:
    """The synthetic world: written if it is not there, then read like any other pool."""
    from videop2r_data.demo import WORLD_MEDIA, WORLD_POOL, write_world

    folder = write_world(root / spec.name, spec.demo or DemoSpec())
    as_pool = spec.model_copy(update={"path": str((folder / WORLD_POOL).absolute())})
    return VideoR1Source(as_pool, base=folder, media_root=(folder / WORLD_MEDIA).absolute())
