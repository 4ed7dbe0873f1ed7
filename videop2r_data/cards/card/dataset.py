"""A dataset card as a file: parts that this program writes, text of people kept, differences found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from videop2r_data.cards.card.body import card_parts
from videop2r_data.cards.card.facts import Facts, Published, read_facts
from videop2r_data.cards.card.metadata import KEYS, TAGS, croissant, front_matter
from videop2r_data.errors import ExportError, SourceError
from videop2r_data.files import CARD_NAME, CROISSANT_NAME
from videop2r_data.schemas import parse_mapping
from videop2r_data.version import __version__

# A card in marked parts: what a program wrote is written anew, what a person wrote around it stays.


NOTE = (
    "<!-- What stands between p2r marks is made from the files of the data set, and made anew by "
    "`p2r-data card` and `p2r-data push`. Write before, between and after them: that stays. -->"
)
_BEGIN, _END = "<!-- p2r:begin {} -->", "<!-- p2r:end {} -->"
_MARK = re.compile(r"<!-- p2r:(begin|end) ([a-z]{1,30}) -->")
_OWN_LINE = re.compile(r"<!-- p2r:card \{[^\n]*\} -->")
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def split_card(text: str) -> tuple[str, str]:
    """YAML between the `---` lines, and the body; without such lines all of it is body."""
    plain = text.replace("\r\n", "\n")
    found = _FRONT.match(plain)
    return (found[1], plain[found.end() :]) if found else ("", plain)


def old_head(text: str) -> dict[str, Any]:
    """The front matter of an older card; empty: it has none that can be read."""
    from videop2r_data.errors import ConfigError

    try:
        return parse_mapping(split_card(text)[0] or "{}", where=CARD_NAME, what="card", valid="")
    except ConfigError:
        return {}


def card_head(text: str) -> dict[str, Any] | None:
    """The YAML front matter of a card, None: it has none."""
    front, _ = split_card(text)
    try:
        head = yaml.safe_load(front) if front else None
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return head if isinstance(head, dict) else None


def has_marks(text: str) -> bool:
    """Whether a card tells what in it was made by a program."""
    return _MARK.search(text) is not None


def prose_of(text: str) -> tuple[str, ...]:
    """What a person wrote between the marked parts of a card; empty without marks."""
    body = split_card(text)[1]
    return tuple(piece for name, piece in _pieces(body) if not name) if has_marks(body) else ()


def merged_head(new: dict[str, Any], old: dict[str, Any], ours: frozenset[str], tags: frozenset[str]) -> str:
    """The front matter as YAML: our keys as they are now, a person's own keys and tags kept.

    Args:
        new: what the program says.
        old: of the older card.
        ours: keys that only the program writes.
        tags: tags that only the program writes.
    """
    kept = {key: value for key, value in old.items() if key not in ours}
    added = old.get("tags")
    own = [t for t in added if isinstance(t, str) and t not in tags] if isinstance(added, list) else []
    head = new | {"tags": [*new["tags"], *own]} | kept
    return str(yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000))


def merged_body(parts: Mapping[str, str], old: str, first_line: str = "") -> str:
    """The body with every part as it is now, in the places that an older body gave them.

    A part that the older body lacks comes behind the one that goes before it. A mark without its end reaches
    to the next mark: better to lose a line there than to keep a figure that is no longer true. A body without
    any marks was made before there were any, and is replaced.

    Args:
        parts: name -> Markdown, in order.
        old: the older body, or empty.
        first_line: stands before everything, on a line of its own.
    """
    pieces = _pieces(old) if has_marks(old) else []
    places = [name for name, _ in pieces if name in parts]
    out: list[tuple[str, str]] = [(name, text) for name, text in pieces if name in parts or not name]
    for number, name in enumerate(parts):
        if name not in places:
            before = [other for other in list(parts)[:number] if other in places]
            at = 1 + max((i for i, (n, _) in enumerate(out) if n in before), default=-1)
            out.insert(at, (name, ""))
            places.append(name)
    texts = [
        f"{_BEGIN.format(name)}\n\n{parts[name].strip()}\n\n{_END.format(name)}" if name else text
        for name, text in out
    ]
    head = [line for line in (first_line, NOTE) if line]
    return "\n".join(head) + "\n\n" + "\n\n".join(texts) + "\n"


def part_texts(body: str) -> dict[str, str]:
    """The text of each marked part of a body; of one that stands twice, the first."""
    found: dict[str, list[str]] = {}
    inside: list[str] | None = None
    for line in body.split("\n"):
        mark = _MARK.fullmatch(line.strip())
        if mark is None:
            if inside is not None:
                inside.append(line)
            continue
        inside = None
        if mark[1] == "begin" and mark[2] not in found:
            inside = found[mark[2]] = []
    return {name: "\n".join(lines) for name, lines in found.items()}


def _pieces(body: str) -> list[tuple[str, str]]:
    """(name, text) of the marked parts and, with an empty name, of what a person wrote between them."""
    out: list[tuple[str, str]] = []
    inside, lines, seen = "", [], set()
    for line in [*body.split("\n"), None]:
        mark = _MARK.fullmatch(line.strip()) if line is not None else None
        if line is not None and mark is None:
            if not inside and line.strip() != NOTE and not _OWN_LINE.fullmatch(line.strip()):
                lines.append(line)
            continue
        prose = "\n".join(lines).strip("\n")
        if prose.strip():
            out.append(("", prose))
        lines = []
        if mark is not None and mark[1] == "begin" and mark[2] not in seen:
            out.append((mark[2], ""))
            seen.add(mark[2])
        inside = mark[2] if mark is not None and mark[1] == "begin" else ""
    return out


# The dataset card and the Croissant file: made from files only, so that no number in them can be wrong.


_MAX_CARD = 8 * 2**20
"""Bytes above which an older card is not read for what a person wrote in it."""


def write_dataset_card(folder: Path) -> Path:
    """Write `README.md` and `croissant.json` from `build.lock.json` and the parquet files.

    What a person wrote outside of the marked parts of an older card stays. A card that was pulled from the
    Hub goes on naming its repository, as long as the lock is the one that was pushed.

    Args:
        folder: a finished data set.

    Returns:
        The card.

    Raises:
        ExportError: a file is missing, or the files, the lock and its ledger disagree.
    """
    path = folder / CARD_NAME
    old = old_card(folder)
    facts = read_facts(folder, Published.read(old))
    (folder / CROISSANT_NAME).write_bytes(croissant_bytes(facts))
    path.write_text(card_text(facts, old), encoding="utf-8")
    return path


def old_card(folder: Path) -> str:
    """The card that lies there; empty: none, or none that can be read."""
    path = folder / CARD_NAME
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= _MAX_CARD else ""
    except (OSError, UnicodeDecodeError):
        return ""


def card_text(facts: Facts, old: str) -> str:
    """A card: its generated parts from the facts, the rest from an older card.

    Args:
        facts: of the data set.
        old: the older card, or empty.
    """
    head = merged_head(front_matter(facts), old_head(old), KEYS, TAGS)
    line = facts.published.line() if facts.published is not None else ""
    return f"---\n{head}---\n\n{merged_body(card_parts(facts), split_card(old)[1], line)}"


def croissant_bytes(facts: Facts) -> bytes:
    """`croissant.json`."""
    return orjson.dumps(croissant(facts), option=orjson.OPT_INDENT_2) + b"\n"


# What of a card and its Croissant file is not as this program would write it of the same files.


Difference = tuple[str, str, str, str]
"""File, field, what is there, what would be written."""


def as_written(folder: Path) -> Iterator[Difference]:
    """Compare a data set's card with the card that would be made of it now.

    What a person wrote, keys and text, is no difference. Neither is anything in a card by another version of
    this program: its words may be other ones.
    """
    old = old_card(folder)
    try:
        facts = read_facts(folder, Published.read(old))
        if facts.lock.versions.get("videop2r-data") != __version__:
            return
        head = parse_mapping(
            merged_head(front_matter(facts), old_head(old), KEYS, TAGS),
            where=CARD_NAME,
            what="card",
            valid="",
        )
        parts = card_parts(facts)
    except (ExportError, SourceError, LookupError, TypeError, ValueError) as error:
        yield CARD_NAME, "", "a card", f"one that can be made of the lock: {error}"
        return
    yield from _differences(CARD_NAME, old_head(old), head)
    yield from _parts(split_card(old)[1], parts)
    yield from _croissant(folder / CROISSANT_NAME, facts)


def _parts(body: str, parts: Mapping[str, str]) -> Iterator[Difference]:
    """The marked parts of the text."""
    there = part_texts(body)
    for name in there.keys() - parts.keys():
        yield CARD_NAME, f"part {name}", "there", "no such part, of these files"
    for name, text in parts.items():
        if name not in there:
            yield CARD_NAME, f"part {name}", "missing", "as `p2r-data card` writes it"
        elif there[name].strip() != text.strip():
            yield CARD_NAME, f"part {name}", *_first_difference(there[name].strip(), text.strip())


def _first_difference(old: str, new: str) -> tuple[str, str]:
    """The first line in which two texts differ."""
    before, after = [*old.split("\n"), ""], [*new.split("\n"), ""]
    return next((pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]), (old, new))


def _croissant(path: Path, facts: Facts) -> Iterator[Difference]:
    wanted = croissant_bytes(facts)
    try:
        found = path.read_bytes()
        said = orjson.loads(found)
    except (OSError, ValueError) as error:
        yield CROISSANT_NAME, "", f"cannot be read: {error}", "as `p2r-data card` writes it"
        return
    if found == wanted:
        return
    if isinstance(said, dict):
        yield from _differences(CROISSANT_NAME, said, orjson.loads(wanted))
    else:
        yield CROISSANT_NAME, "", type(said).__name__, "a mapping"


def _differences(file: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield file, key, _told(old, key), _told(new, key)


def _told(mapping: Mapping[str, Any], key: str) -> str:
    return orjson.dumps(mapping[key], default=str).decode() if key in mapping else "nothing"
