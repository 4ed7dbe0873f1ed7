"""Pools in the layout of Video-R1: a JSON array or JSON lines, plain or gzip, one file or several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from videop2r_data.builders.sources.base import RowSource
from videop2r_data.builders.sources.local import format_of
from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import JsonRows, RawRow
from videop2r_data.files.opening import open_pool_file, pool_files
from videop2r_data.schemas.recipe import SourceSpec


def read_files(files: list[Path]) -> Iterator[RawRow]:
    """The rows of some files, one file after the other, numbered through."""
    start = 0
    for path in files:
        with open_pool_file(path) as stream:
            index = -1
            for row in JsonRows(stream, where=str(path)):
                index = row.index
                yield row if start == 0 else replace(row, index=start + index)
            start += index + 1


class VideoR1Source(RowSource):
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
        return read_files(self.files)
