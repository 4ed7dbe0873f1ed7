"""Where the media of a data set lie, and the exact scenes behind a demo world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from videop2r_data.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from videop2r_data.demo import SceneSample
    from videop2r_data.trainer.settings.parts import DataSpec

_FLAG = "name the folder that the rows' `path` is relative to with --media-root (data.media_root)"


@dataclass
class MediaRoots:
    """Media roots by source name; one root for all when the user named it.

    Attributes:
        where: the data set, for messages.
        one: the user's `media_root`.
        by_source: source name (the part of a `sample_id` before its `/`) -> root.
    """

    where: str
    one: Path | None = None
    by_source: Mapping[str, Path] = field(default_factory=dict)
    _scenes: dict[Path, dict[str, SceneSample]] = field(default_factory=dict)

    def root(self, sample_id: str) -> Path:
        """The root of a row's source.

        Raises:
            ConfigError: none is known.
        """
        if self.one is not None:
            return self.one
        source = sample_id.partition("/")[0]
        if source not in self.by_source:
            known = f"known for: {', '.join(sorted(self.by_source))}" if self.by_source else "none is noted"
            raise ConfigError(
                f"no media root for {sample_id!r} ({known})", where=f"{self.where}, field path", hint=_FLAG
            )
        return self.by_source[source]

    def scene(self, sample_id: str, problem: str) -> SceneSample | None:
        """The scene behind a question, if its media lie in a demo world that has just this question."""
        source, _, problem_id = sample_id.rpartition("/")
        root = self.one or self.by_source.get(source.partition("/")[0])
        if root is None:
            return None
        if root not in self._scenes:
            self._scenes[root] = _read_scenes(root)
        found = self._scenes[root].get(problem_id)
        return found if found is not None and found.question.problem == problem else None


def _read_scenes(root: Path) -> dict[str, SceneSample]:
    """problem_id -> scene, if the root is the `media` folder of a demo world; else empty."""
    from videop2r_data.demo import read_world

    if root.name != "media" or not (root.parent / "scenes.jsonl").is_file():
        return {}
    try:
        return {str(sample.problem_id): sample for sample in read_world(root.parent)}
    except SourceError:
        return {}  # somebody else's scenes.jsonl: the media are good without it


def find_roots(spec: DataSpec, base: Path) -> MediaRoots:
    """The media roots of a data set: the user's, else those noted in the work folder beside it.

    `p2r-data build` keeps `<folder>.build/workspace.json`: the recipe, and where its relative paths start.

    Raises:
        ConfigError: `media_root` is no folder.
    """
    if spec.media_root:
        one = (base / Path(spec.media_root).expanduser()).absolute()
        if not one.is_dir():
            raise ConfigError("no such folder", where=f"media_root {one}", hint=_FLAG)
        return MediaRoots(spec.source, one)
    folder = spec.folder(base)
    if folder is None or not folder.is_dir():
        return MediaRoots(spec.source)
    folder = folder.absolute()
    work = folder.with_name(f"{folder.name}.build")
    try:
        note = orjson.loads((work / "workspace.json").read_bytes())
        sources, start = note["recipe"]["sources"], Path(note["base"])
        found = {str(s["name"]): _noted(s, work, start) for s in sources}
    except (OSError, ValueError, KeyError, TypeError):
        return MediaRoots(spec.source)
    return MediaRoots(spec.source, by_source={name: root for name, root in found.items() if root is not None})


def _noted(source: Mapping[str, Any], work: Path, base: Path) -> Path | None:
    if source["kind"] == "demo":
        return work / "demo" / str(source["name"]) / "media"
    embedded = work / "embedded" / str(source["name"])
    if embedded.is_dir():  # media that the rows of the pool held, written by the build
        return embedded.absolute()
    noted = str(source.get("media_root") or "")
    return (base / Path(noted).expanduser()).absolute() if noted else None
