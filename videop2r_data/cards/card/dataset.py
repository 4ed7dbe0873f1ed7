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
from videop2r_data.errors import ConfigError, ExportError, SourceError
from videop2r_data.files import CARD_NAME, CROISSANT_NAME, split_card
from videop2r_data.schemas import parse_mapping
from videop2r_data.version import __version__

# A card is cut into marked parts. What stands between marks is generated anew at every run; text outside
# of them belongs to a person and stays where it is.

NOTE = (
    "<!-- What stands between p2r marks is made from the files of the data set, and made anew by "
    "`p2r-data card` and `p2r-data push`. Write before, between and after them: that stays. -->"
)
_BEGIN, _END = "<!-- p2r:begin {} -->", "<!-- p2r:end {} -->"
_MARK = re.compile(r"<!-- p2r:(begin|end) ([a-z]{1,30}) -->")
_OWN_LINE = re.compile(r"<!-- p2r:card \{[^\n]*\} -->")


def card_head(text: str) -> dict[str, Any] | None:
    """The YAML front matter of a card; None: none that can be read."""
    front, _ = split_card(text)
    try:
        return parse_mapping(front, where=CARD_NAME, what="card", valid="") if front else None
    except ConfigError:
        return None


def has_marks(text: str) -> bool:
    """Whether a card marks its generated parts."""
    return _MARK.search(text) is not None


def prose_of(text: str) -> tuple[str, ...]:
    """Text outside of the marked parts of a card, piece by piece; empty without marks."""
    body = split_card(text)[1]
    return tuple(text for name, text in _pieces(body) if not name) if has_marks(body) else ()


def merged_head(new: dict[str, Any], old: dict[str, Any]) -> str:
    """The front matter as YAML: generated keys from `new`, a person's keys and tags from `old`."""
    kept = {key: value for key, value in old.items() if key not in KEYS}
    added = old.get("tags")
    own = [t for t in added if isinstance(t, str) and t not in TAGS] if isinstance(added, list) else []
    head = new | {"tags": [*new["tags"], *own]} | kept
    return str(yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000))


def merged_body(parts: Mapping[str, str], old: str, first_line: str = "") -> str:
    """The body with every generated part as it is now, at its place in the older body.

    A part that the older body lacks follows its predecessor. A mark without its end reaches to the next mark:
    a lost line is better than a number that is no longer true. A body without marks is replaced.

    Args:
        parts: name -> Markdown, in order.
        old: the older body, or empty.
        first_line: put on a line of its own before everything else.
    """
    pieces = _pieces(old) if has_marks(old) else []
    out = [(name, text) for name, text in pieces if name in parts or not name]
    for number, name in enumerate(parts):
        places = [there for there, _ in out]
        if name not in places:
            before = list(parts)[:number]
            at = 1 + max((i for i, there in enumerate(places) if there in before), default=-1)
            out.insert(at, (name, ""))
    texts = [
        f"{_BEGIN.format(name)}\n\n{parts[name].strip()}\n\n{_END.format(name)}" if name else text
        for name, text in out
    ]
    head = [line for line in (first_line, NOTE) if line]
    return "\n".join(head) + "\n\n" + "\n\n".join(texts) + "\n"


def _pieces(body: str) -> list[tuple[str, str]]:
    """(name, text) of each marked part (the first of its name) and ("", text) of a person's, in order."""
    out: list[tuple[str, str]] = []
    inside, lines = "", list[str]()
    for line in [*body.split("\n"), None]:
        mark = _MARK.fullmatch(line.strip()) if line is not None else None
        if line is not None and mark is None:
            if inside or (line.strip() != NOTE and not _OWN_LINE.fullmatch(line.strip())):
                lines.append(line)
            continue
        text = "\n".join(lines)
        if inside and inside not in dict(out):
            out.append((inside, text))
        elif not inside and text.strip():
            out.append(("", text.strip("\n")))
        inside, lines = mark[2] if mark is not None and mark[1] == "begin" else "", []
    return out


# Both files are made from the lock and the Parquet files alone.

_MAX_CARD = 8 * 2**20
"""Bytes above which an older card is ignored."""


def write_dataset_card(folder: Path) -> Path:
    """Write `README.md` and `croissant.json` from `build.lock.json` and the parquet files.

    A person's text outside of the marked parts of an older card stays. A card that was pulled from the Hub
    keeps naming its repository while the lock is the pushed one.

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
    """Text of the card in a folder; empty if there is none that can be read."""
    path = folder / CARD_NAME
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= _MAX_CARD else ""
    except (OSError, UnicodeDecodeError):
        return ""


def card_text(facts: Facts, old: str) -> str:
    """The whole card: generated parts from the facts, a person's text from an older card (may be empty)."""
    head = merged_head(front_matter(facts), card_head(old) or {})
    line = facts.published.line() if facts.published is not None else ""
    return f"---\n{head}---\n\n{merged_body(card_parts(facts), split_card(old)[1], line)}"


def croissant_bytes(facts: Facts) -> bytes:
    """Content of `croissant.json`."""
    return orjson.dumps(croissant(facts), option=orjson.OPT_INDENT_2) + b"\n"


# The way back, for `verify`: which generated fields differ from those made of the same files now.

Difference = tuple[str, str, str, str]
"""File, field, what is there, what would be written."""


def as_written(folder: Path) -> Iterator[Difference]:
    """Compare a data set's card and Croissant file with those that would be written now.

    A person's keys and text are no difference. A card by another version of this program is not compared:
    its wording may differ.
    """
    old = old_card(folder)
    try:
        facts = read_facts(folder, Published.read(old))
        if facts.lock.versions.get("videop2r-data") != __version__:
            return
        head = card_head(f"---\n{merged_head(front_matter(facts), card_head(old) or {})}---\n") or {}
        parts = card_parts(facts)
    except (ExportError, SourceError, LookupError, TypeError, ValueError) as error:
        yield CARD_NAME, "", "a card", f"one that can be made of the lock: {error}"
        return
    yield from _differences(CARD_NAME, card_head(old) or {}, head)
    yield from _parts(split_card(old)[1], parts)
    yield from _croissant(folder / CROISSANT_NAME, facts)


def _parts(body: str, parts: Mapping[str, str]) -> Iterator[Difference]:
    """Differences of the marked parts."""
    there = {name: text for name, text in _pieces(body) if name}
    for name in there.keys() - parts.keys():
        yield CARD_NAME, f"part {name}", "there", "no such part, of these files"
    for name, text in parts.items():
        if name not in there:
            yield CARD_NAME, f"part {name}", "missing", "as `p2r-data card` writes it"
        elif (old := there[name].strip()) != (new := text.strip()):
            lines = zip([*old.split("\n"), ""], [*new.split("\n"), ""], strict=False)
            first = next(((before, after) for before, after in lines if before != after), (old, new))
            yield CARD_NAME, f"part {name}", *first


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
    def told(mapping: Mapping[str, Any], key: str) -> str:
        return orjson.dumps(mapping[key], default=str).decode() if key in mapping else "nothing"

    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield file, key, told(old, key), told(new, key)
