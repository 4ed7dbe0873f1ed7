"""The official release: `<name>.part<N>of<M>.json.gz`, read part by part, none of them missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from videop2r_data.builders.sources.base import RowSource
from videop2r_data.builders.sources.video_r1 import read_files
from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import RawRow
from videop2r_data.files.opening import pool_files
from videop2r_data.schemas.recipe import SourceSpec

_PART = re.compile(r"(?P<stem>.+)\.part(?P<part>\d{1,6})of(?P<of>\d{1,6})\.jsonl?(?:\.gz)?")
_HINT = "fetch it from the Hub, all parts of one release into one folder"


def official_parts(files: list[Path], *, where: str) -> list[Path]:
    """The parts of one release, in order.

    Raises:
        SourceError: no part, parts of several releases, a part missing (named), twice, or out of range.

    >>> [p.name for p in official_parts([Path("x.part2of2.json.gz"), Path("x.part1of2.json.gz")], where="x")]
    ['x.part1of2.json.gz', 'x.part2of2.json.gz']
    """
    releases: dict[tuple[str, int], dict[int, Path]] = defaultdict(dict)
    for path in files:
        match = _PART.fullmatch(path.name)
        if match is None:
            continue
        parts = releases[(match["stem"], int(match["of"]))]
        number = int(match["part"])
        if number in parts:
            raise SourceError(f"part {number} is there twice: {parts[number].name}, {path.name}", where=where)
        parts[number] = path
    if not releases:
        raise SourceError("no file named <name>.part<N>of<M>.json.gz", where=where, hint=_HINT)
    if len(releases) > 1:
        names = ", ".join(f"{stem} ({of} parts)" for stem, of in sorted(releases))
        raise SourceError(
            f"parts of several releases: {names}",
            where=where,
            hint="name one by a glob: path: folder/<name>.part*",
        )
    ((stem, of), parts) = next(iter(releases.items()))
    # Numbering from 0 exists in the wild too; which one it is, the parts themselves say.
    numbers = range(of) if 0 in parts else range(1, of + 1)
    missing = [f"{stem}.part{n}of{of}.json.gz" for n in numbers if n not in parts]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SourceError(f"missing: {', '.join(missing[:5])}{more}", where=where, hint=_HINT)
    strange = sorted(set(parts) - set(numbers))
    if strange:
        raise SourceError(f"part {strange[0]} of {of} cannot be", where=where, hint=_HINT)
    return [parts[n] for n in numbers]


class OfficialSource(RowSource):
    """Kind `official`; `path` is a folder, a glob, or any one part (its siblings are found).

    Raises:
        SourceError: see `official_parts`.
    """

    def __init__(self, spec: SourceSpec, *, base: Path, media_root: Path | None) -> None:
        files = pool_files(spec.path, base, name=spec.name)
        match = _PART.fullmatch(files[0].name) if len(files) == 1 else None
        if match:
            folder = files[0].parent
            files = sorted(p for p in folder.iterdir() if p.name.startswith(f"{match['stem']}.part"))
        self.files = official_parts(files, where=f"source {spec.name!r}, {spec.path}")
        super().__init__(spec, media_root if media_root is not None else self.files[0].parent)

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows of all parts, in order."""
        return read_files(self.files)
