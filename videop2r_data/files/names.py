"""The names of the files of a data set and of a work folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable
from pathlib import Path

from videop2r_data.errors import SourceError
from videop2r_data.schemas import CONFIGS, DataType

LOCK_NAME = "build.lock.json"
"""What a build was made of and the digest of every file it wrote."""
CARD_NAME = "README.md"
CROISSANT_NAME = "croissant.json"
OVERLAP_NAME = "overlap.json"
"""A report of `p2r-data overlap`: what the rows have in common with evaluation sets."""
AGREEMENT_NAME = "judge-agreement.json"
"""A report of `p2r-data judge-eval` beside the data: what the card says of the judge."""
FIGURES_NAME = "figures"
"""Folder of the figures of a card, drawn by `p2r-data card --figures`."""
PREVIEW_CONFIG = "preview"
MEDIA_FOLDER = "media"
"""Of a data set on the Hub and of a gallery: clips lie in `media/<source>/<path of the row>`."""
"""A config that a push may add: a few rows with their clips inside. It is no part of the data."""
SHARD = re.compile(rf"data/({'|'.join(CONFIGS)})-\d{{5}}\.parquet")
"""A file of rows that a build wrote, relative to the data set; group 1 is its config."""
HUB_ID = re.compile(
    r"(?!.*\.(?:parquet|jsonl?|csv|tsv)(?:\.gz)?\Z)[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?\Z"
)
"""A data set on the Hub; a name that ends as a file of rows does is a file: the Hub is not asked for it."""
WORKSPACE_NAME = "workspace.json"
"""Note in the work folder of a build: its recipe, and the folder that the recipe's paths start from."""

_ROW_SUFFIXES = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz")
_NOT_ROWS = {
    LOCK_NAME,
    AGREEMENT_NAME,
    OVERLAP_NAME,
    CROISSANT_NAME,
    # of the `datasets` library
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
}
_PART = re.compile(r"(?P<stem>.+)\.part(?P<part>\d{1,6})of(?P<of>\d{1,6})\.(?:jsonl?(?:\.gz)?|parquet)")
_NUMBER = re.compile(r"(\d+)")
_FETCH = "fetch it from the Hub, all parts of one release into one folder"


def shard_name(config: str, number: int) -> str:
    """Name of a shard, relative to the data set.

    >>> shard_name("sft", 3)
    'data/sft-00003.parquet'
    """
    return f"data/{config}-{number:05d}.parquet"


def shards(folder: Path, config: str) -> list[Path]:
    """The shards of one config of a built data set, in order."""
    return sorted((folder / "data").glob(f"{config}-*.parquet"))


def work_folder(out: Path) -> Path:
    """Where a build keeps its journal unless it is told: beside the data set."""
    return out.with_name(f"{out.name}.build")


def is_data_file(name: str) -> bool:
    """Whether a file of this name holds rows."""
    return name.endswith(_ROW_SUFFIXES) and name not in _NOT_ROWS and not name.startswith(".")


def reading_order(path: Path) -> list[tuple[int, str]]:
    """Sort key that takes the numbers in a name as numbers: part 10 comes after part 9."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in _NUMBER.split(path.as_posix()) if p]


def siblings(part: Path) -> list[Path]:
    """All parts of the release that a file is one part of; the file itself if its name says of none."""
    match = _PART.fullmatch(part.name)
    if match is None:
        return [part]
    return sorted(p for p in part.parent.iterdir() if p.name.startswith(f"{match['stem']}.part"))


def missing_parts(names: Iterable[str]) -> list[tuple[str, int]]:
    """Parts that the names of the others announce: (name without part, number).

    >>> missing_parts(["x.part1of3.json.gz", "x.part3of3.json.gz"])
    [('x', 2)]
    """
    found = _releases((name, Path(name)) for name in names)
    return [(stem, n) for (stem, of), have in found for n in _numbers(of, have) if n not in have]


def official_parts(files: Iterable[Path], *, where: str) -> list[Path]:
    """The parts of one official release, in order.

    Raises:
        SourceError: no part, parts of several releases, a part missing (named), twice, or out of range.

    >>> [p.name for p in official_parts([Path("x.part2of2.json.gz"), Path("x.part1of2.json.gz")], where="x")]
    ['x.part1of2.json.gz', 'x.part2of2.json.gz']
    """
    releases = _releases((path.name, path) for path in files if not path.name.endswith(".parquet"))
    if not releases:
        raise SourceError("no file named <name>.part<N>of<M>.json.gz", where=where, hint=_FETCH)
    if len(releases) > 1:
        names = ", ".join(f"{stem} ({of} parts)" for (stem, of), _ in releases)
        raise SourceError(
            f"parts of several releases: {names}",
            where=where,
            hint="name one by a glob: path: folder/<name>.part*",
        )
    ((stem, of), parts) = releases[0]
    for number, twins in parts.items():
        if len(twins) > 1:
            first, second = twins[:2]
            raise SourceError(f"part {number} is there twice: {first.name}, {second.name}", where=where)
    numbers = _numbers(of, parts)
    absent = [f"{stem}.part{n}of{of}.json.gz" for n in numbers if n not in parts]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise SourceError(f"missing: {', '.join(absent[:5])}{more}", where=where, hint=_FETCH)
    strange = sorted(set(parts) - set(numbers))
    if strange:
        raise SourceError(f"part {strange[0]} of {of} cannot be", where=where, hint=_FETCH)
    return [parts[n][0] for n in numbers]


_Parts = dict[int, list[Path]]
"""Number of a part -> the files that have it; more than one is a mistake."""


def _releases(files: Iterable[tuple[str, Path]]) -> list[tuple[tuple[str, int], _Parts]]:
    """(name of the release, how many parts it has) -> its parts, of files under the names given."""
    found: dict[tuple[str, int], _Parts] = {}
    for name, path in files:
        if match := _PART.fullmatch(name):
            parts = found.setdefault((match["stem"], int(match["of"])), {})
            parts.setdefault(int(match["part"]), []).append(path)
    return sorted(found.items())


def _numbers(of: int, have: Container[int]) -> range:
    # Numbering from 0 exists in the wild too; which one it is, the parts themselves say.
    return range(of) if 0 in have else range(1, of + 1)


# Texts and digests of files.


MAX_TEXT_BYTES = 64 * 2**20
"""A card or a lock above it is refused unread: both are small, and come from strangers."""


def file_digest(path: Path) -> str:
    """sha256 of a file, read once: 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """The text of a card or a lock.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `MAX_TEXT_BYTES`, or no UTF-8.
    """
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"larger than {MAX_TEXT_BYTES:,} bytes")
    return path.read_text(encoding="utf-8")


# Media, by the endings of their names.


VIDEO_ENDINGS = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".f4v", ".wmv", ".asf",
    ".mpg", ".mpeg", ".vob", ".ts", ".m2ts", ".mts", ".3gp", ".3g2", ".ogv", ".ivf"
))  # fmt: skip
IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif")
)


def kind_by_ending(path: Path) -> DataType | None:
    """Whether a file is a clip or an image, as its ending says; None: neither is known to have it."""
    ending = path.suffix.lower()
    if ending in VIDEO_ENDINGS:
        return DataType.VIDEO
    return DataType.IMAGE if ending in IMAGE_ENDINGS else None
