"""The two sides of a comparison, read once into what is compared: ids, words, clips and their names."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from videop2r_data.benchmarks import packaged_benchmarks
from videop2r_data.builders.guessing import guess_source
from videop2r_data.builders.overlap.identity import Identity, Namespaces
from videop2r_data.builders.overlap.texts import Texts
from videop2r_data.builders.sources import PoolDigest, open_source
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import ConfigError
from videop2r_data.files import LOCK_NAME, Release, find_media_roots, open_release
from videop2r_data.recipes import list_recipes, read_recipe
from videop2r_data.schemas import (
    BadRow,
    Name,
    PoolFact,
    QuestionColumns,
    RejectReason,
    Sample,
    SourceSpec,
    visible_line,
)

NO_CLIP = -1


class Clip(NamedTuple):
    """What a question is about: one file, under the names that its rows give it."""

    source: str
    path: str
    data_type: str
    data_source: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A pool that can be read.

    Attributes:
        rows: its questions, read anew at each call.
        roots: source -> folder that its paths are relative to.
        files: of a data set of ours: path -> sha256.
    """

    name: str
    rows: Iterable[Sample | BadRow]
    roots: Mapping[str, Path]
    files: Mapping[str, str]


class Side:
    """A pool or an evaluation set in memory: about 300 bytes a row."""

    def __init__(self, opened: Opened) -> None:
        self.name = opened.name
        self.roots = opened.roots
        self.files = opened.files
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.label = array("l")
        """Per row: number of its `data_source`, or of its task."""
        self.clips: list[Clip] = []
        self.clip = array("l")
        """Per row: number of its clip; `NO_CLIP` for a question about nothing but text."""
        self.identities: list[tuple[Identity, ...]] = []
        """Per clip."""
        self.splits: list[str] = []
        """Per clip: the part of its source set, as its names say."""
        self.parts: dict[int, tuple[float, float]] = {}
        """Row -> the part of the clip that it is about, where it is not the whole."""
        self.texts = Texts()
        self.bad = 0
        self.facts: dict[str, PoolFact] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Iterable[Sample | BadRow], namespaces: Namespaces) -> Iterator[int]:
        """Read all rows; yields how many so far, now and then."""
        digests: dict[str, PoolDigest] = {}
        labels: dict[str, int] = {}
        clips: dict[Clip, int] = {}
        for row in rows:
            digests.setdefault(row.source, PoolDigest()).update(row)
            if isinstance(row, BadRow):
                self.bad += 1
                continue
            self._add(row, namespaces, labels, clips)
            if len(self.ids) % 1000 == 0:
                yield len(self.ids)
        self.labels, self.clips = list(labels), list(clips)
        self.facts = {name: PoolFact(rows=d.rows, sha256=d.hexdigest()) for name, d in digests.items()}

    def _add(
        self, row: Sample, namespaces: Namespaces, labels: dict[str, int], clips: dict[Clip, int]
    ) -> None:
        number = len(self.ids)
        self.ids.append(row.sample_id)
        self.label.append(
            labels.setdefault(row.tags.get("task") or row.data_source or row.source, len(labels))
        )
        self.texts.add(row.problem, row.options)
        if not row.path:
            self.clip.append(NO_CLIP)
            return
        clip = Clip(row.source, row.path, row.data_type.value, row.data_source)
        at = clips.setdefault(clip, len(clips))
        self.clip.append(at)
        if at == len(self.identities):
            found = namespaces.identities(row)
            self.identities.append(found)
            self.splits.append(namespaces.split(row, found[0]) if found else "")
        cut = next((one for one in self.identities[at] if one.end_s is not None), Identity("", ""))
        if cut.namespace or row.start_s is not None or row.end_s is not None:
            # times in a row count from the beginning of its file, which may be a cut itself
            before, after = cut.start_s or 0.0, cut.end_s or float("inf")
            ends = after if row.end_s is None else before + row.end_s
            self.parts[number] = (before + (row.start_s or 0.0), ends)

    def by_clip(self) -> list[list[int]]:
        """The rows of each clip."""
        found: list[list[int]] = [[] for _ in self.clips]
        for row, clip in enumerate(self.clip):
            if clip != NO_CLIP:
                found[clip].append(row)
        return found


def open_sides(said: str, *, media: Mapping[str, Path], work: Path, apart: bool = False) -> list[Opened]:
    """Open what a person names: a recipe, a data set of ours, a benchmark, a file, a folder, a Hub id.

    Args:
        said: `NAME=WHAT` gives a name of one's own; that of a packaged benchmark says how WHAT is read.
        media: source -> folder of its clips, before what a recipe says; the name "" stands for all sources.
        work: folder for what only a look needs (a demo world, media that rows hold).
        apart: each source of a recipe is a side of its own.

    Raises:
        ConfigError, SourceError: there is no such thing, or it leaves open how it is read.
    """
    name, what = _named(said)
    path = Path(what)
    if path.is_dir() and (path / LOCK_NAME).is_file():
        return [_released(open_release(path), name, media)]
    place = Workspace.at(work, base=Path(), work=work)
    if path.suffix in (".yaml", ".yml") or (what in list_recipes() and not path.exists()):
        recipe, base = read_recipe(what)
        place = Workspace.at(work, base=base, work=work)
        if not apart:
            return [_opened(name or recipe.name, recipe.sources, place, media)]
        return [_opened(spec.name, [spec], place, media) for spec in recipe.sources]
    if not path.exists() and what in packaged_benchmarks():
        spec = SourceSpec(name=name or what, kind="benchmark", benchmark=what)
    elif path.exists() and name in packaged_benchmarks():
        spec = SourceSpec(name=name, kind="benchmark", benchmark=name, path=str(path.absolute()))
    else:
        spec = _guessed(what, work)
        spec = spec.model_copy(update={"name": name or spec.name})
    return [_opened(spec.name, [spec], place, media)]


def _named(said: str) -> tuple[str, str]:
    """The name of one's own, if there is one, and what is named."""
    name, equal, what = said.partition("=")
    if not equal or Path(said).exists():
        return "", said
    try:
        return TypeAdapter(Name).validate_python(name), what
    except ValidationError:
        hint = "letters, digits, dots, dashes and underscores, as a source in a recipe"
        raise ConfigError(f"{name!r} is no name", where=said, hint=hint) from None


def _guessed(what: str, work: Path) -> SourceSpec:
    guess = guess_source(what, recipe=Path("overlap.yaml"), cwd=Path.cwd(), work=work)
    usual = {f"columns.{name}" for name in guess.seen}  # empty in the rows that were looked at
    open_yet = sorted(guess.todo.keys() - {"media_root", "license"} - usual)
    if open_yet:
        told = "; ".join(f"{key}: {guess.todo[key]}" for key in open_yet)
        raise ConfigError(
            f"it leaves open how it is read ({told})",
            where=what,
            hint=f"p2r-data init pool.yaml --from-data {what}, fill in what it asks, and name that file here",
        )
    # a column of the usual name holds the usual thing, even where nearly all of its cells are empty
    columns = {name: column for name, column in guess.columns.items() if column or name not in guess.seen}
    return SourceSpec.model_validate(guess.source | {"columns": columns})


def _opened(name: str, specs: Sequence[SourceSpec], place: Workspace, media: Mapping[str, Path]) -> Opened:
    sources = [open_source(spec, base=place.base, demo_root=place.demo) for spec in specs]
    for source in sources:
        source.check()
    roots = {source.name: media.get(source.name, media.get("", source.media_root)) for source in sources}
    rows = (row for source in sources for row in source.rows())
    return Opened(name, rows, {name: root for name, root in roots.items() if root is not None}, {})


def _released(release: Release, name: str, media: Mapping[str, Path]) -> Opened:
    """The questions of a data set of ours: those that training may ask, accepted or not."""
    config = "rl" if "rl" in release.configs else "sft"
    lock = release.lock
    known = lock.files if lock is not None else {}
    files = {path: file.sha256 for path, file in known.items() if path.startswith(f"data/{config}-")}
    sources = [one.name for one in lock.sources] if lock is not None else []
    noted = find_media_roots(str(release.root), base=Path()).by_source
    roots = {source: media.get(source, media.get("", noted.get(source))) for source in sources}
    said = str((lock.recipe.get("name") if lock is not None else "") or release.root.name)
    return Opened(
        name or visible_line(said)[:100],
        _rows_of(release, config),
        {source: root for source, root in roots.items() if root is not None},
        files,
    )


def _rows_of(release: Release, config: str) -> Iterator[Sample | BadRow]:
    names = [*QuestionColumns.model_fields, "start_s", "end_s"]
    number = -1
    for _, batch in release.batches(config, columns=names):
        for values in zip(*batch.columns.values(), strict=True):
            number += 1
            row = dict(zip(batch.columns, values, strict=True))
            source = str(row.get("sample_id", "")).partition("/")[0]
            try:
                yield Sample.model_validate(row | {"source": source, "row": number})
            except ValidationError as error:
                why = str(error.errors()[0]["msg"])
                yield BadRow(source=source, row=number, reason=RejectReason.BAD_ROW, detail=why)
