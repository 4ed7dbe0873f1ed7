"""Any data set: local files of every common layout, and whatever `datasets` can stream from the Hub."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from videop2r_data.builders.sources.base import RowSource
from videop2r_data.builders.sources.embedded import EmbeddedMedia
from videop2r_data.builders.sources.local import LocalFiles, find_local, format_of, saved_by_datasets
from videop2r_data.builders.sources.normalise import embedded_media, value_of
from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import RawRow
from videop2r_data.files.opening import locate, missing, pool_files
from videop2r_data.schemas.recipe import SourceSpec

HUB = "hf://datasets/"
"""In front of a Hub id that could be taken for a local path."""
_PEEK = 1000
"""Rows that are looked at for the first media of a pool."""


class DatasetSource(RowSource):
    """Kind `dataset`; nothing is downloaded or cached as a whole, media columns stay undecoded.

    Args:
        spec: the source of the recipe.
        base: folder that its path is relative to.
        media_root: folder that the rows' paths are relative to, if the recipe names one.
        embedded_root: where media go that the rows themselves hold.

    Raises:
        SourceError: no such file, folder, data set, configuration, split or column; or its data cannot be
            read (on).
    """

    def __init__(
        self, spec: SourceSpec, *, base: Path, media_root: Path | None, embedded_root: Path | None = None
    ) -> None:
        self._place = locate(spec.path, base)
        self._embedded_root = embedded_root
        self._looked = False
        self.commit = ""
        """Of the Hub, once rows were read from there."""
        where = f"source {spec.name!r}, {spec.path}"
        self._on_hub = is_hub_id(spec, self._place)
        self._local = None if self._on_hub else self._find(spec, base, where)
        if media_root is None and self._local is not None:
            media_root = self._local.media_root
        elif media_root is None and not self._on_hub:
            media_root = self._place
        super().__init__(spec, media_root)

    def _find(self, spec: SourceSpec, base: Path, where: str) -> LocalFiles | None:
        if not self._place.exists():
            files = pool_files(spec.path, base, name=spec.name)  # a glob, or the error that names the nearest
            return LocalFiles(tuple(files), files[0].parent)
        saved = saved_by_datasets(self._place, split=spec.split, where=where)
        if saved is not None:
            return saved
        if self._place.is_dir() and (spec.config is not None or _has_configs(self._place)):
            return None
        return find_local(self._place, split=spec.split, where=where)

    @property
    def media_root(self) -> Path | None:
        """Folder that `Sample.path` is relative to; media that rows hold are written to one of their own."""
        if not self._looked and self._embedded_root is not None:
            self._looked = True
            # What a build wrote from the Hub is known without asking it again.
            written = self._on_hub and self._embedded_root.is_dir()
            if written or self._holds_media():
                self.embed = EmbeddedMedia(self._embedded_root)
        return self.embed.root if self.embed is not None else self._media_root

    def headers(self) -> Iterator[tuple[str, Sequence[str]]]:
        """The columns of each file that has a header, or those that `datasets` knows."""
        if self._local is not None:
            for path, names in self._local.headers():
                yield str(path), [*names, *self._also(names)]
            return
        with _errors(self.where):
            names = self._stream.column_names
        if names is not None:
            yield self.spec.path, names

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows as the files or `datasets` give them."""
        rows = self._local.rows() if self._local is not None else self._streamed()
        for raw in rows:
            if raw.value is not None:
                for column in self._also(raw.value):
                    raw.value[column] = raw.value["file_name"]
            yield raw

    def _also(self, names: Collection[str]) -> list[str]:
        """What `datasets` calls the column `file_name` of a folder of media, where the recipe does so too."""
        column = self.spec.columns.path
        known = column in ("image", "video") and column not in names and "file_name" in names
        return [column] if known and column is not None else []

    def _holds_media(self) -> bool:
        """Whether the first media of the pool stand in its rows."""
        column = self.spec.columns.path
        if column is None or (self._local is not None and format_of(self._local.files[0]) != "columnar"):
            return False
        for raw, _ in zip(self.raw_rows(), range(_PEEK), strict=False):
            got = value_of(raw.value, column) if raw.value is not None else None
            got = got[0] if isinstance(got, list | tuple) and got else got
            data, path = embedded_media(got)
            if data or path:
                return bool(data)
        return False

    def _streamed(self) -> Iterator[RawRow]:
        with _errors(self.where) as at:
            for index, value in enumerate(self._stream):
                at.row = index
                yield RawRow(index, value)

    @cached_property
    def _stream(self) -> Any:
        """The data set as `datasets` streams it, opened once and read as often as is asked for."""
        import datasets

        spec = self.spec
        path = spec.path.removeprefix(HUB) if self._on_hub else str(self._place)
        if self._on_hub:
            self.commit = _ask_once(path, spec, self.where)
        rows = datasets.load_dataset(
            path, spec.config, split=spec.split, revision=spec.revision, streaming=True
        )
        return rows.decode(False) if rows.features is not None else rows


class _errors:  # noqa: N801 - used as a statement
    """Whatever `datasets` and its parts raise, as an error of the source, with the last row that was read."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.row = -1

    def __enter__(self) -> _errors:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, SourceError) or not isinstance(error, Exception):
            return
        text = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{type(error).__name__}: {text}",
            where=f"{self.where}, after row {self.row}" if self.row >= 0 else self.where,
            hint="check path, config, split and revision of this source",
        ) from error


def is_hub_id(spec: SourceSpec, place: Path) -> bool:
    """Whether a path means the Hub: `owner/name` that is nothing here and looks like nothing that could be.

    Raises:
        SourceError: it can only be meant as a file or folder, and is not there.
    """
    path = spec.path
    if path.startswith(HUB):
        return True
    if place.exists() or any(c in path for c in "*?["):
        return False
    parts = Path(path).parts
    local = path.startswith((".", "/", "~")) or len(parts) != 2 or bool(format_of(place))
    if local or place.parent.is_dir():
        raise (
            missing("no such file or folder", place, name=spec.name)
            if local
            else SourceError(
                f"no {parts[1]!r} in the folder {place.parent}",
                where=f"source {spec.name!r}, {place}",
                hint=f"correct `path`; for the data set of that name on the Hub write {HUB}{path}",
            )
        )
    return True


def _ask_once(path: str, spec: SourceSpec, where: str) -> str:
    """One question to the Hub: `datasets` would ask for a name that is not there half a dozen times.

    Returns:
        the commit that the revision means now; empty offline.

    Raises:
        SourceError: there is no such data set or revision, or it cannot be reached.
    """
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return ""  # `datasets` looks in its cache, and says so where it finds nothing
    try:
        return HfApi().dataset_info(path, revision=spec.revision).sha or ""
    except (HfHubHTTPError, HFValidationError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        what = {401: "no such data set, or it is private", 403: "no right to read it", 404: "not found"}
        raise SourceError(
            f"the Hub has nothing to read under this name: {what.get(status or 0, str(error)[:200])}",
            where=where,
            hint="check `path` and `revision`, hf auth login for a private or gated one; "
            "a local file or folder is looked for relative to the recipe",
        ) from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise SourceError(
            f"the Hub cannot be reached: {error}",
            where=where,
            hint="check the network; a local file or folder is looked for relative to the recipe",
        ) from None


def _has_configs(folder: Path) -> bool:
    """Whether a card in the folder says which files make which split: then `datasets` reads it."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    return any(line.startswith("configs:") for line in head.splitlines())
