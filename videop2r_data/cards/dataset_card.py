"""The dataset card and the Croissant file: made from files only, so that no number in them can be wrong."""

from __future__ import annotations

from pathlib import Path

import orjson

from videop2r_data.cards.card_body import card_parts
from videop2r_data.cards.card_facts import Facts, read_facts
from videop2r_data.cards.card_head import KEYS, TAGS, front_matter
from videop2r_data.cards.card_marks import merged_body, merged_head, old_head, split_card
from videop2r_data.cards.card_state import Published
from videop2r_data.cards.croissant import CROISSANT, croissant

CARD = "README.md"
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
    path = folder / CARD
    old = old_card(folder)
    facts = read_facts(folder, Published.read(old))
    (folder / CROISSANT).write_bytes(croissant_bytes(facts))
    path.write_text(card_text(facts, old), encoding="utf-8")
    return path


def old_card(folder: Path) -> str:
    """The card that lies there; empty: none, or none that can be read."""
    path = folder / CARD
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
