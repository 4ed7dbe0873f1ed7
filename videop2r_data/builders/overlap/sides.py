"""The two sides of a comparison, read once into what is compared: ids, words, clips and their names."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from sys import intern
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from videop2r_data.benchmarks import packaged_benchmarks
from videop2r_data.builders.guessing import guess_source
from videop2r_data.builders.overlap.identity import Identity, Namespaces
from videop2r_data.builders.overlap.texts import Texts
from videop2r_data.builders.sources import PoolDigest, open_source
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


class Side:
    """A pool or an evaluation set, in memory once it was read: about 300 bytes a row.

    Args:
        name: for people.
        rows: its questions.
        roots: source -> folder that its paths are relative to; None: not known.
        files: of a data set of ours: path -> sha256.
    """

    def __init__(
        self,
        name: str,
        rows: Iterable[Sample | BadRow],
        roots: Mapping[str, Path | None],
        files: dict[str, str] | None = None,
    ) -> None:
        self.name, self.roots, self.files = name, roots, files or {}
        self._todo = rows
        self.ids: list[str] = []
        self.bad = 0
        self.facts: dict[str, PoolFact] = {}
        self.texts = Texts()
        self.labels: list[str] = []
        """Per row: its task, or its `data_source`."""
        self.clips: list[Clip] = []
        self.clip = array("l")
        """Per row: number of its clip; `NO_CLIP` for a question about nothing but text."""
        self.identities: list[tuple[Identity, ...]] = []
        """Per clip."""
        self.splits: list[tuple[str, str]] = []
        """Per clip: its source set and the part of it, as its names say; both empty: unknown."""
        self.parts: dict[int, tuple[float, float]] = {}
        """Row -> the part of the clip that it is about, where it is not the whole."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, namespaces: Namespaces) -> Iterator[int]:
        """Read all rows; yields how many so far, now and then."""
        digests: dict[str, PoolDigest] = {}
        clips: dict[Clip, int] = {}
        for row in self._todo:
            digests.setdefault(row.source, PoolDigest()).update(row)
            if isinstance(row, BadRow):
                self.bad += 1
                continue
            self.ids.append(row.sample_id)
            self.texts.add(row.problem, row.options)
            self.labels.append(intern(row.tags.get("task") or row.data_source or row.source))
            self.clip.append(self._clip(row, namespaces, clips) if row.path else NO_CLIP)
            if len(self) % 1000 == 0:
                yield len(self)
        self.clips = list(clips)
        self.facts = {name: PoolFact(rows=d.rows, sha256=d.hexdigest()) for name, d in digests.items()}

    def _clip(self, row: Sample, namespaces: Namespaces, clips: dict[Clip, int]) -> int:
        """The number of a row's clip; notes which part of it the row is about."""
        clip = Clip(row.source, row.path, row.data_type.value, row.data_source)
        at = clips.setdefault(clip, len(clips))
        if at == len(self.identities):
            found = namespaces.identities(row)
            self.identities.append(found)
            self.splits.append((found[0].namespace, namespaces.split(row, found[0])) if found else ("", ""))
        cut = next((one for one in self.identities[at] if one.end_s is not None), None)
        if cut or row.start_s is not None or row.end_s is not None:
            # times in a row count from the beginning of its file, which may be a cut itself
            before, after = (cut.start_s or 0.0, cut.end_s) if cut else (0.0, None)
            ends = after if row.end_s is None else before + row.end_s
            self.parts[len(self) - 1] = (
                before + (row.start_s or 0.0),
                float("inf") if ends is None else ends,
            )
        return at

    @property
    def names(self) -> dict[int, list[str]]:
        """Clip -> what its names say it is, where they say anything."""
        ids = enumerate(self.identities)
        return {clip: [f"{one.namespace}:{one.id}" for one in said] for clip, said in ids if said}

    def by_clip(self) -> list[list[int]]:
        """The rows of each clip."""
        found: list[list[int]] = [[] for _ in self.clips]
        for row, clip in enumerate(self.clip):
            if clip != NO_CLIP:
                found[clip].append(row)
        return found


def open_sides(said: str, *, media: Mapping[str, Path], work: Path, apart: bool = False) -> list[Side]:
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
    path, base = Path(what), Path()
    if (path / LOCK_NAME).is_file():
        return [_released(open_release(path), name, media)]
    if path.suffix in (".yaml", ".yml") or (what in list_recipes() and not path.exists()):
        recipe, base = read_recipe(what)
        sides = (
            {one.name: [one] for one in recipe.sources} if apart else {name or recipe.name: recipe.sources}
        )
    else:
        spec = _source(name, what, work)
        sides = {spec.name: [spec]}
    return [_opened(name, specs, base, work, media) for name, specs in sides.items()]


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


def _source(name: str, what: str, work: Path) -> SourceSpec:
    """How a benchmark, a file, a folder or a Hub id is read."""
    path = Path(what)
    benchmark = name if path.exists() else what
    if benchmark in packaged_benchmarks():
        at = str(path.absolute()) if path.exists() else ""
        return SourceSpec(name=name or what, kind="benchmark", benchmark=benchmark, path=at)
    if not path.exists() and path.name == what and not path.suffix:  # a Hub id has an owner
        raise ConfigError(
            "no benchmark, recipe, file or folder of this name",
            where=what,
            hint="p2r-data benchmarks lists the benchmarks; questions of your own are a file or a folder",
        )
    guess = guess_source(what, recipe=Path("overlap.yaml"), cwd=Path.cwd(), work=work)
    usual = {f"columns.{column}" for column in guess.seen}  # empty in the rows that were looked at
    open_yet = sorted(guess.todo.keys() - {"media_root", "license"} - usual)
    if open_yet:
        told = "; ".join(f"{key}: {guess.todo[key]}" for key in open_yet)
        raise ConfigError(
            f"it leaves open how it is read ({told})",
            where=what,
            hint=f"p2r-data init pool.yaml --from-data {what}, fill in what it asks, and name that file here",
        )
    # a column of the usual name holds the usual thing, even where nearly all of its cells are empty
    columns = {key: column for key, column in guess.columns.items() if column or key not in guess.seen}
    own = {"columns": columns} | ({"name": name} if name else {})
    return SourceSpec.model_validate(guess.source | own)


def _opened(
    name: str, specs: Sequence[SourceSpec], base: Path, work: Path, media: Mapping[str, Path]
) -> Side:
    sources = [open_source(spec, base=base, demo_root=work / "demo") for spec in specs]
    for source in sources:
        source.check()
    roots = {source.name: media.get(source.name, media.get("", source.media_root)) for source in sources}
    return Side(name, (row for source in sources for row in source.rows()), roots)


def _released(release: Release, name: str, media: Mapping[str, Path]) -> Side:
    """The questions of a data set of ours: those that training may ask, accepted or not."""
    config = "rl" if "rl" in release.configs else "sft"
    lock = release.lock
    if lock is None:
        raise ConfigError(
            f"its {LOCK_NAME} cannot be read",
            where=str(release.root),
            hint=f"p2r-data verify {release.root} says what is wrong",
        )
    files = {path: one.sha256 for path, one in lock.files.items() if path.startswith(f"data/{config}-")}
    noted = find_media_roots(str(release.root), base=Path()).by_source
    sources = [one.name for one in lock.sources]
    roots = {source: media.get(source, media.get("", noted.get(source))) for source in sources}
    called = visible_line(str(lock.recipe.get("name") or release.root.name))[:100]
    return Side(name or called, _rows_of(release, config), roots, files)


def _rows_of(release: Release, config: str) -> Iterator[Sample | BadRow]:
    names = [*QuestionColumns.model_fields, "start_s", "end_s"]
    number = count()
    for _, batch in release.batches(config, columns=names):
        for values in zip(*batch.columns.values(), strict=True):
            row = dict(zip(batch.columns, values, strict=True))
            row |= {"source": str(row.get("sample_id", "")).partition("/")[0], "row": next(number)}
            try:
                yield Sample.model_validate(row)
            except ValidationError as error:
                why = str(error.errors()[0]["msg"])
                yield BadRow(source=row["source"], row=row["row"], reason=RejectReason.BAD_ROW, detail=why)
