"""The dataset card and the Croissant file: made from files only, so that no number in them can be wrong."""

from __future__ import annotations

from pathlib import Path

import orjson
import yaml

from videop2r_data.cards.card_body import card_body
from videop2r_data.cards.card_facts import read_facts
from videop2r_data.cards.card_head import front_matter
from videop2r_data.cards.croissant import CROISSANT, croissant


def write_dataset_card(folder: Path) -> Path:
    """Write `README.md` and `croissant.json` from `build.lock.json` and the parquet files.

    Args:
        folder: a finished data set.

    Returns:
        The card.

    Raises:
        ExportError: a file is missing, or the files, the lock and its ledger disagree.
    """
    facts = read_facts(folder)
    head = yaml.safe_dump(
        front_matter(facts.lock, facts.configs), sort_keys=False, allow_unicode=True, width=1000
    )
    (folder / CROISSANT).write_bytes(orjson.dumps(croissant(facts), option=orjson.OPT_INDENT_2) + b"\n")
    path = folder / "README.md"
    path.write_text(f"---\n{head}---\n\n{card_body(facts)}", encoding="utf-8")
    return path
