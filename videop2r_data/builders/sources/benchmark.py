"""The rows of a declared benchmark: found, brought into one form by the layout's steps, named as it says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from videop2r_data.benchmarks import load_benchmark
from videop2r_data.builders.sources.answers import FieldError
from videop2r_data.builders.sources.base import Source
from videop2r_data.builders.sources.dataset import HUB, DatasetSource, read_file
from videop2r_data.builders.sources.normalise import Normaliser, fill_template
from videop2r_data.builders.sources.steps import Row, Steps
from videop2r_data.errors import SourceError
from videop2r_data.files import (
    RawRow,
    fetch_files,
    find_media_roots,
    format_of,
    hub_commit,
    locate,
    no_such_path,
)
from videop2r_data.schemas import BadRow, Benchmark, DemoSpec, Layout, Sample, SourceSpec, safe_relative_path

_PART = "@part"
"""Column with the file or config that a row came from."""
_ROW = "@row"
"""Column with the place of a row in that file or config."""
_PATH = "@path"
_SHARD = re.compile(r".+-\d{5}-of-\d{5}|\d{4,5}")
_PEEK = 50
"""Rows that are looked at to see whether a layout fits."""
_MAX_FILE_CHARS = 256 << 20
"""Of a file that is one object around all rows."""


class BenchmarkSource(Source):
    """Kind `benchmark`: `path` is a row file or the folder of them; without it, the Hub is asked.

    Attributes:
        benchmark: the declaration.
        layout: name of the form that the rows have.
        commit: of the Hub, once rows were fetched from there.
        left_out: reason -> rows that the declaration leaves out, of the last pass.

    Raises:
        ConfigError: the declaration is none.
        SourceError: no such file or layout, or no layout fits the files: each with what it lacks.
    """

    def __init__(self, spec: SourceSpec, *, base: Path, media_root: Path | None, demo_root: Path) -> None:
        self.benchmark: Benchmark = load_benchmark(spec.benchmark, base=base)
        self.commit = ""
        self.left_out: Counter[str] = Counter()
        self._revision = spec.revision
        self._place = locate(spec.path, base) if spec.path else None
        self._files: list[Path] | None = None
        at = f", {spec.path}" if spec.path else ""
        self._where = f"source {spec.name!r}, benchmark {self.benchmark.name}{at}"
        names = self._candidates(spec)
        demo = self.benchmark.layouts[names[0]].demo
        if self._place is None and demo is not None:
            pool, media_root = _written(spec.demo or demo, demo_root / spec.name)
            self._files = [pool]
        elif self._place is not None:
            if not self._place.exists():
                raise no_such_path("no such file or folder", self._place, name=spec.name)
            if media_root is None:
                media_root = _root_of(self._place)
            names = [self._fitting(names, spec, media_root)]
        self.layout = names[0]
        super().__init__(self._as_declared(spec, self.layout), media_root)

    @property
    def where(self) -> str:
        """The source, for messages."""
        return self._where

    @property
    def note(self) -> str:
        """Which layout the rows have, and what the declaration leaves out of them."""
        told = [f"layout {self.layout} of the benchmark {self.benchmark.name}"]
        told += [f"at commit {self.commit[:12]}"] if self.commit else []
        told += [f"{n} rows left out: {why}" for why, n in self.left_out.items()]
        return "; ".join(told)

    def check(self) -> None:
        """Nothing more to compare: a layout was chosen by reading rows with it."""

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows after the layout's steps, numbered through."""
        return self._rows_in(self.layout, self.spec, self._media_root)

    def samples_in(self, row: Mapping[str, Any], *, part: str = "") -> list[Sample | BadRow]:
        """The questions of one published row that is at hand already; none if the declaration leaves it out.

        Args:
            part: file or config that the row came from.
        """
        normalise, layout = Normaliser(self.spec, self._media_root), self.benchmark.layouts[self.layout]
        try:
            made = [
                _with_path(layout, one, self.spec, None)
                for one in Steps(layout.steps)({**row, _PART: part, _ROW: 0})
            ]
        except FieldError as error:
            return [normalise.bad(0, str(error), reason=error.reason, value=row)]
        return [normalise(i, one) for i, one in enumerate(made)]

    def _candidates(self, spec: SourceSpec) -> list[str]:
        """The layouts that the rows may have; without files, those that say where else rows come from."""
        layouts = self.benchmark.layouts
        if spec.layout not in ("", *layouts):
            raise SourceError(
                f"no layout {spec.layout!r}; there are: {', '.join(layouts)}",
                where=self._where,
                hint="leave `layout` out to have it found by looking at the files",
            )
        named = {spec.layout: layouts[spec.layout]} if spec.layout else layouts
        found = [n for n, one in named.items() if self._place is not None or one.hub or one.demo]
        if not found:
            raise SourceError(
                "its declaration names no data set on the Hub",
                where=self._where,
                hint="set `path` to its row file, or to the folder of its row files",
            )
        return found

    def _fitting(self, names: list[str], spec: SourceSpec, root: Path) -> str:
        """The first layout that the files have."""
        told = ""
        for name in names:
            fault = self._fault(name, spec, root)
            if not fault:
                return name
            told += f"\n  {name}: {fault}"
        raise SourceError(
            f"no layout of it fits the files; tried:{told}",
            where=self._where,
            hint="give the row files as they are published, or a declaration with a layout of your own: see "
            "docs/benchmarks.md",
        )

    def _fault(self, name: str, spec: SourceSpec, root: Path) -> str:
        """Why the files do not have this layout; empty: the first rows can be read with it."""
        self._files = None
        first = ""
        try:
            normalise = Normaliser(self._as_declared(spec, name), root)
            for raw in islice(self._rows_in(name, normalise.spec, root), _PEEK):
                row = normalise(raw.index, raw.value) if raw.value is not None else None
                if row is not None and not isinstance(row, BadRow):
                    return ""
                first = first or (row.detail if row is not None else raw.fault)
        except SourceError as error:
            return error.message
        left = ", ".join(self.left_out)
        return first or (f"all its rows are left out: {left}" if left else "the files hold no row")

    def _as_declared(self, spec: SourceSpec, name: str) -> SourceSpec:
        """The source with what the layout says of its columns."""
        layout = self.benchmark.layouts[name]
        path = {"path": _PATH} if layout.media else {}
        return spec.model_copy(
            update={
                "columns": layout.columns.model_copy(update=path),
                "problem_type": layout.problem_type,
                "data_type": layout.data_type,
                "answer_base": layout.answer_base,
            }
        )

    def _rows_in(self, name: str, spec: SourceSpec, root: Path | None) -> Iterator[RawRow]:
        layout = self.benchmark.layouts[name]
        steps = Steps(layout.steps)
        self.left_out = steps.left_out
        index = 0
        for raw in self._published(layout, spec):
            if raw.value is None:
                yield RawRow(index, None, raw.fault, raw.raw)
                index += 1
                continue
            try:
                for row in steps(raw.value):
                    yield RawRow(index, _with_path(layout, row, spec, root))
                    index += 1
            except FieldError as error:
                yield RawRow(index, None, str(error), repr(raw.value)[:200])
                index += 1

    # --- where the rows come from ---

    def _published(self, layout: Layout, spec: SourceSpec) -> Iterator[RawRow]:
        if self._place is None and layout.hub is not None and layout.hub.configs:
            yield from self._streamed(layout, spec)
            return
        for path in self._row_files(layout):
            part = path.parent.name if _SHARD.fullmatch(_stem(path)) else _stem(path)
            for raw in read_file(path, max_row_chars=_MAX_FILE_CHARS):
                if raw.value is not None:
                    raw.value |= {_PART: part, _ROW: raw.index}
                yield raw

    def _row_files(self, layout: Layout) -> list[Path]:
        if self._files is None:
            self._files = self._found(layout)
        return self._files

    def _found(self, layout: Layout) -> list[Path]:
        folder, hub, within = self._place, layout.hub, ""
        if folder is None:
            if hub is None:
                return []
            self.commit = hub_commit(hub.id, self._revision or hub.revision, branch=hub.branch)
            folder = fetch_files(hub.id, layout.files, self.commit)
            within = f" at {hub.id}"
        if folder.is_file():
            return [folder]
        found = [p for pattern in layout.files for p in _matching(folder, pattern)]
        if not found:
            raise SourceError(f"no file {' or '.join(layout.files) or 'is named'}{within}", where=self._where)
        return found

    def _streamed(self, layout: Layout, spec: SourceSpec) -> Iterator[RawRow]:
        hub = layout.hub
        if hub is None:
            return
        self.commit = hub_commit(hub.id, self._revision or hub.revision, branch=hub.branch)
        for config in hub.configs:
            update = {
                "kind": "dataset",
                "path": f"{HUB}{hub.id}",
                "config": config,
                "split": hub.split,
                "revision": self.commit,
            }
            source = DatasetSource(spec.model_copy(update=update), base=Path(), media_root=Path())
            for raw in source.raw_rows():
                if raw.value is not None:
                    raw.value |= {_PART: config, _ROW: raw.index}
                yield raw


def _written(demo: DemoSpec, folder: Path) -> tuple[Path, Path]:
    """Pool and media of a synthetic world, which is written if it is not there."""
    from videop2r_data.demo import WORLD_MEDIA, WORLD_POOL, write_world

    world = write_world(folder, demo)
    return world / WORLD_POOL, (world / WORLD_MEDIA).absolute()


def _root_of(place: Path) -> Path:
    """Where clips lie unless it is said: as a build noted it beside its data set, else with the rows."""
    noted = set(find_media_roots(str(place), base=Path()).by_source.values())
    return noted.pop() if len(noted) == 1 else (place if place.is_dir() else place.parent).absolute()


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that a pattern of a declaration means, sorted; never outside of the folder."""
    parts = pattern.split("/")
    if ".." in parts or pattern.startswith("/"):
        return []
    found = (p for p in folder.glob("/".join(parts)) if p.is_file() and format_of(p))
    return sorted(found)


def _with_path(layout: Layout, row: Row, spec: SourceSpec, root: Path | None) -> Row:
    """The row with the path of its clip: of those that the layout allows the first that is there."""
    if not layout.media:
        return row
    paths = [fill_template(row, template).removeprefix(spec.path_prefix) for template in layout.media]
    there = (path for path in paths if root is not None and len(paths) > 1 and _lies(root, path))
    return row | {_PATH: next(there, paths[0])}


def _lies(root: Path, path: str) -> bool:
    try:
        return (root / safe_relative_path(path)).is_file()
    except (ValueError, OSError):
        return False
