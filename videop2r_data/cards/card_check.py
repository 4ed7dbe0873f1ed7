"""What of a card and its Croissant file is not as this program would write it of the same files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from videop2r_data import __version__
from videop2r_data.cards.card_body import card_parts
from videop2r_data.cards.card_facts import Facts, read_facts
from videop2r_data.cards.card_head import KEYS, TAGS, front_matter
from videop2r_data.cards.card_marks import merged_head, old_head, part_texts, split_card
from videop2r_data.cards.card_state import Published
from videop2r_data.cards.croissant import CROISSANT
from videop2r_data.cards.dataset_card import CARD, croissant_bytes, old_card
from videop2r_data.errors import ExportError
from videop2r_data.schemas import parse_mapping

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
            merged_head(front_matter(facts), old_head(old), KEYS, TAGS), where=CARD, what="card", valid=""
        )
        parts = card_parts(facts)
    except (ExportError, LookupError, TypeError, ValueError) as error:
        yield CARD, "", "a card", f"one that can be made of the lock: {error}"
        return
    yield from _differences(CARD, old_head(old), head)
    yield from _parts(split_card(old)[1], parts)
    yield from _croissant(folder / CROISSANT, facts)


def _parts(body: str, parts: Mapping[str, str]) -> Iterator[Difference]:
    """The marked parts of the text."""
    there = part_texts(body)
    for name in there.keys() - parts.keys():
        yield CARD, f"part {name}", "there", "no such part, of these files"
    for name, text in parts.items():
        if name not in there:
            yield CARD, f"part {name}", "missing", "as `p2r-data card` writes it"
        elif there[name].strip() != text.strip():
            yield CARD, f"part {name}", *_first_difference(there[name].strip(), text.strip())


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
        yield CROISSANT, "", f"cannot be read: {error}", "as `p2r-data card` writes it"
        return
    if found == wanted:
        return
    if isinstance(said, dict):
        yield from _differences(CROISSANT, said, orjson.loads(wanted))
    else:
        yield CROISSANT, "", type(said).__name__, "a mapping"


def _differences(file: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield file, key, _told(old, key), _told(new, key)


def _told(mapping: Mapping[str, Any], key: str) -> str:
    return orjson.dumps(mapping[key], default=str).decode() if key in mapping else "nothing"
