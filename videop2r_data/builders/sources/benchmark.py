"""The rows of a declared benchmark: found, brought into one form by a layout, named as the layout says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from videop2r_data.benchmarks import load_benchmark
from videop2r_data.builders.sources.base import Source
from videop2r_data.builders.sources.dataset import HUB, DatasetSource, read_file
from videop2r_data.builders.sources.normalise import Normaliser
from videop2r_data.builders.sources.steps import PATH, Rows
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
from videop2r_data.schemas import BadRow, Benchmark, HubSet, Layout, Sample, SourceSpec

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
        super().__init__(spec, media_root)
        self.benchmark: Benchmark = load_benchmark(spec.benchmark, base=base)
        self.layout = self.commit = ""
        self.left_out: Counter[str] = Counter()
        self._place = locate(spec.path, base) if spec.path else None
        layouts = self.benchmark.layouts
        if spec.layout not in ("", *layouts):
            raise SourceError(
                f"no layout {spec.layout!r}; there are: {', '.join(layouts)}",
                where=self.where,
                hint="leave `layout` out to have it found by looking at the files",
            )
        names = [spec.layout] if spec.layout else list(layouts)
        if self._place is not None:
            if not self._place.exists():
                raise no_such_path("no such file or folder", self._place, name=spec.name)
            self._media_root = media_root or _root_of(self._place)
            self._take_fitting(names)
            return
        elsewhere = [name for name in names if layouts[name].hub or layouts[name].demo]
        if not elsewhere:
            raise SourceError(
                "its declaration names no data set on the Hub",
                where=self.where,
                hint="set `path` to its row file, or to the folder of its row files",
            )
        demo = self._take(elsewhere[0]).demo
        if demo is not None:
            from videop2r_data.demo import WORLD_MEDIA, WORLD_POOL, write_world

            world = write_world(demo_root / spec.name, spec.demo or demo)
            self._place, self._media_root = world / WORLD_POOL, (world / WORLD_MEDIA).absolute()

    @property
    def where(self) -> str:
        """The source, for messages."""
        return f"{super().where}, benchmark {self.benchmark.name}"

    @property
    def note(self) -> str:
        """Which layout the rows have, and what the declaration leaves out of them."""
        told = [f"layout {self.layout} of the benchmark {self.benchmark.name}"]
        told += [f"at commit {self.commit[:12]}"] if self.commit else []
        return "; ".join(told + [f"{n} rows left out: {why}" for why, n in self.left_out.items()])

    def check(self) -> None:
        """Nothing more to compare: a layout was chosen by reading rows with it."""

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows that the layout makes, numbered through."""
        layout = self.benchmark.layouts[self.layout]
        rows = Rows(layout, self._media_root, self.spec.path_prefix)
        self.left_out = rows.left_out
        made = (row for part, raw in self._published(layout) for row in rows(raw, part))
        for index, row in enumerate(made):
            row.index = index
            yield row

    def samples_in(self, row: Mapping[str, Any], *, part: str = "") -> list[Sample | BadRow]:
        """The questions of one published row that is at hand already; none if the declaration leaves it out.

        Args:
            row: as it is published.
            part: file or config that the row came from.
        """
        rows = Rows(self.benchmark.layouts[self.layout], None, self.spec.path_prefix)
        return [self._sample(raw) for raw in rows(RawRow(0, dict(row)), part)]

    def _sample(self, raw: RawRow) -> Sample | BadRow:
        normalise = Normaliser(self.spec, self._media_root)
        if raw.value is None:
            return normalise.bad(raw.index, raw.fault, raw=raw.raw, value=raw.known)
        return normalise(raw.index, raw.value)

    def _take(self, name: str) -> Layout:
        """Read the rows by this layout from now on."""
        layout, self.layout = self.benchmark.layouts[name], name
        path = {"path": PATH} if layout.media else {}
        columns = layout.columns.model_copy(update=path)
        own = {key: getattr(layout, key) for key in ("problem_type", "data_type", "answer_base")}
        self.spec = self.spec.model_copy(update={"columns": columns, **own})
        return layout

    def _take_fitting(self, names: Sequence[str]) -> None:
        """Read the rows by the first layout that the files have."""
        told = ""
        for name in names:
            self._take(name)
            if not (fault := self._fault()):
                return
            told += f"\n  {name}: {fault}"
        raise SourceError(
            f"no layout of it fits the files; tried:{told}",
            where=self.where,
            hint="give the row files as they are published, or a declaration with a layout of your own: see "
            "docs/benchmarks.md",
        )

    def _fault(self) -> str:
        """Why the files do not have the layout; empty: one of the first rows can be read with it."""
        first = ""
        try:
            for row in map(self._sample, islice(self.raw_rows(), _PEEK)):
                if isinstance(row, Sample):
                    return ""
                first = first or row.detail
        except SourceError as error:
            return error.message
        left = ", ".join(self.left_out)
        return first or (f"all its rows are left out: {left}" if left else "the files hold no row")

    # --- where the rows come from ---

    def _published(self, layout: Layout) -> Iterator[tuple[str, RawRow]]:
        """Each row as it is published, with the file or config that it came from."""
        hub = layout.hub
        if self._place is None and hub is not None:
            wanted = self.commit or self.spec.revision or hub.revision
            self.commit = hub_commit(hub.id, wanted, branch=hub.branch)
            if hub.configs:
                yield from ((name, raw) for name in hub.configs for raw in self._streamed(hub, name))
                return
            self._place = fetch_files(hub.id, layout.files, self.commit)
        for path in self._files(layout):
            part = path.name.partition(".")[0]
            for raw in read_file(path, max_row_chars=_MAX_FILE_CHARS):
                yield (path.parent.name if _SHARD.fullmatch(part) else part), raw

    def _streamed(self, hub: HubSet, config: str) -> Iterator[RawRow]:
        own = {"kind": "dataset", "path": f"{HUB}{hub.id}", "config": config, "split": hub.split}
        spec = self.spec.model_copy(update={**own, "revision": self.commit})
        return DatasetSource(spec, base=Path(), media_root=Path()).raw_rows()

    def _files(self, layout: Layout) -> list[Path]:
        """The files of the layout, those of each of its patterns sorted."""
        place = self._place or Path()
        if place.is_file():
            return [place]
        found = [path for pattern in layout.files for path in sorted(place.glob(pattern))]
        found = [path for path in found if path.is_file() and format_of(path)]
        if not found:
            at = f" at {layout.hub.id}" if self.commit and layout.hub else ""
            raise SourceError(f"no file {' or '.join(layout.files) or 'is named'}{at}", where=self.where)
        return found


def _root_of(place: Path) -> Path:
    """Where clips lie unless it is said: as a build noted it beside its data set, else with the rows."""
    noted = set(find_media_roots(str(place), base=Path()).by_source.values())
    return noted.pop() if len(noted) == 1 else (place if place.is_dir() else place.parent).absolute()
