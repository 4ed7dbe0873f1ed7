"""The front matter of a dataset card: what the Hub and `datasets` read."""

from __future__ import annotations

from typing import Any

from videop2r_data.schemas.arrow import feature_info
from videop2r_data.schemas.lock import BuildLock
from videop2r_data.schemas.rows import CONFIGS

WHAT = {
    "sft": "accepted traces, for supervised fine-tuning (the default)",
    "rl": "the questions alone, for reinforcement learning",
    "rejected": "every question that is not in `sft`, with the stage and the reason",
}


def title_of(recipe: dict[str, Any]) -> str:
    """The title in one line; without one, the name."""
    return " ".join(recipe["title"].split()) or str(recipe["name"])


def front_matter(lock: BuildLock, configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mapping between the `---` lines.

    Args:
        lock: of the data set.
        configs: config -> rows, text_bytes, file_bytes and digest, as measured on its files.
    """
    recipe = lock.recipe
    kinds = sorted(lock.ledger.table)
    tags = ["process-aware", "chain-of-thought", "reasoning", "perception", *kinds]
    if recipe["synthetic"]:
        tags.append("synthetic")
    return {
        "pretty_name": title_of(recipe),
        **({"license": " ".join(recipe["license"].split())} if recipe["license"].strip() else {}),
        "task_categories": ["visual-question-answering", "video-text-to-text"],
        "tags": tags,
        "size_categories": [_size_category(configs["sft"]["rows"])],
        "configs": [
            {
                "config_name": name,
                # the digest is part of the key under which `datasets` caches a local folder: without it, a
                # folder that is rebuilt in place would go on giving its old rows
                "description": f"{WHAT[name]}; content sha256 {made['digest']}",
                "data_files": [{"split": "train", "path": f"data/{name}-*.parquet"}],
                **({"default": True} if name == "sft" else {}),
            }
            for name, made in configs.items()
        ],
        "dataset_info": [
            {
                "config_name": name,
                # a data set made before a column was added lacks it: what is declared must be there
                "features": [info for info in feature_info(CONFIGS[name]) if info["name"] in made["columns"]],
                "splits": [{"name": "train", "num_bytes": made["text_bytes"], "num_examples": made["rows"]}],
                "download_size": made["file_bytes"],
                "dataset_size": made["text_bytes"],
            }
            for name, made in configs.items()
        ],
    }


def _size_category(rows: int) -> str:
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in steps if rows < bound), "1M<n<10M")
