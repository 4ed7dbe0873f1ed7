"""Any data set that `datasets` can stream: a Hub id, a folder, one file; columns are named in the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videop2r_data.builders.sources.base import RowSource
from videop2r_data.builders.sources.files import locate
from videop2r_data.builders.sources.jsonstream import RawRow
from videop2r_data.errors import SourceError
from videop2r_data.schemas.recipe import SourceSpec

_BUILDERS = {
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}


class DatasetSource(RowSource):
    """Kind `dataset`; nothing is downloaded or cached as a whole, media columns stay undecoded.

    Raises:
        SourceError: no such data set, configuration, split or column; or its data cannot be read (on).
    """

    def __init__(self, spec: SourceSpec, *, base: Path, media_root: Path | None) -> None:
        self._place = locate(spec.path, base)
        self._local = self._place.exists()
        if not self._local and (spec.path.startswith((".", "/", "~")) or spec.path.count("/") > 1):
            raise SourceError(
                "no such file or folder", where=f"source {spec.name!r}, {self._place}", hint="check `path`"
            )
        if media_root is None and self._local:
            media_root = self._place if self._place.is_dir() else self._place.parent
        super().__init__(spec, media_root)

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows as `datasets` gives them."""
        where = f"source {self.name!r}, {self.spec.path}"
        index = -1
        try:
            rows = self._open()
            self._check_columns(rows, where)
            for index, value in enumerate(rows):
                yield RawRow(index, value)
        except SourceError:
            raise
        except Exception as error:  # `datasets` raises whatever its parts raise
            text = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            raise SourceError(
                f"{type(error).__name__}: {text}",
                where=f"{where}, after row {index}" if index >= 0 else where,
                hint="check path, config, split and revision of this source",
            ) from error

    def _open(self) -> Any:
        import datasets

        spec = self.spec
        if self._local and self._place.is_dir() and (self._place / "state.json").is_file():
            rows = datasets.load_from_disk(str(self._place)).to_iterable_dataset()
        elif self._local and self._place.is_file():
            builder = _BUILDERS.get(Path(self._place.name.removesuffix(".gz")).suffix)
            if builder is None:
                raise SourceError(
                    f"a file of type {self._place.suffix!r}, known are {', '.join(_BUILDERS)}",
                    where=str(self._place),
                )
            rows = datasets.load_dataset(builder, data_files=str(self._place), split="train", streaming=True)
        else:
            path = str(self._place) if self._local else spec.path
            rows = datasets.load_dataset(
                path, spec.config, split=spec.split, revision=spec.revision, streaming=True
            )
        return rows.decode(False)

    def _check_columns(self, rows: Any, where: str) -> None:
        """A wrong mapping would spoil every row: say so once, before the first."""
        names = rows.column_names
        if names is None:  # not known before the first row
            return
        columns = self.spec.columns
        lacking = [
            f"{f}: {c}"
            for f, c in (("problem", columns.problem), ("solution", columns.solution))
            if c not in names
        ]
        if lacking:
            raise SourceError(
                f"no column for {', '.join(lacking)}; there are: {', '.join(names[:40])}",
                where=where,
                hint="set `columns` of this source in the recipe",
            )
