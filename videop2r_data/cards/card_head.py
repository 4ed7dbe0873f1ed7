"""The front matter of a dataset card: what the Hub and `datasets` read."""

from __future__ import annotations

from typing import Any

from videop2r_data.cards.card_facts import Facts
from videop2r_data.cards.hub_names import PREVIEW, PREVIEW_FEATURES, PREVIEW_FILES
from videop2r_data.cards.upstream import find_pool
from videop2r_data.schemas import CONFIGS, DataType, feature_info

WHAT = {
    "sft": "accepted traces, for supervised fine-tuning (the default)",
    "rl": "the questions alone, for reinforcement learning",
    "rejected": "every question that is not in `sft`, with the stage and the reason",
}

WHAT_PREVIEW = "a few accepted rows with their clips and images, to look at in the browser"


def title_of(recipe: dict[str, Any]) -> str:
    """The title in one line; without one, the name."""
    return " ".join(recipe["title"].split()) or str(recipe["name"])


KEYS = frozenset(
    {
        *("pretty_name", "license", "license_name", "license_link", "language", "annotations_creators"),
        *("source_datasets", "task_categories", "tags", "size_categories", "configs", "dataset_info"),
    }
)
"""Keys of the front matter that only this module writes."""
TAGS = frozenset(
    {
        "process-aware",
        "chain-of-thought",
        "reasoning",
        "perception",
        "synthetic",
        *(t.value for t in DataType),
    }
)
"""Tags that only this module writes."""


def front_matter(facts: Facts) -> dict[str, Any]:
    """The mapping between the `---` lines.

    Args:
        facts: of the data set.
    """
    recipe, configs = facts.lock.recipe, facts.configs
    kinds = sorted(facts.lock.ledger.table)
    tags = ["process-aware", "chain-of-thought", "reasoning", "perception", *kinds]
    if recipe["synthetic"]:
        tags.append("synthetic")
    sources = source_datasets(facts)
    return {
        "pretty_name": title_of(recipe),
        **_licence(facts),
        **({"language": list(facts.rows.languages)} if facts.rows.languages else {}),
        "annotations_creators": ["machine-generated"],
        **({"source_datasets": sources} if sources else {}),
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
        ]
        + _preview_config(facts),
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
        ]
        + _preview_info(facts),
    }


def source_datasets(facts: Facts) -> list[str]:
    """Ids on the Hub of the collections and sources that the rows come from, each once."""
    specs = {s["name"]: s for s in facts.lock.recipe["sources"]}
    found: list[str] = []
    for source in facts.rows.sources:
        pool = find_pool(str(specs.get(source.pool, {}).get("kind", "")))
        found += [pool.hub] if pool is not None else []
        found += [source.upstream.hub] if source.upstream is not None and source.upstream.hub else []
    return list(dict.fromkeys(found))


def _licence(facts: Facts) -> dict[str, Any]:
    licence = facts.licence
    if not licence.shown:
        return {}
    out = {"license": licence.shown}
    if licence.name:
        out["license_name"] = licence.name
        if facts.published is not None:
            out["license_link"] = f"{facts.published.url}#sources-and-licences"
    return out


def _preview_config(facts: Facts) -> list[dict[str, Any]]:
    if facts.published is None or not facts.published.preview:
        return []
    files = [{"split": "train", "path": PREVIEW_FILES}]
    said = f"{WHAT_PREVIEW}; {facts.published.preview} rows of lock {facts.published.lock}"
    return [{"config_name": PREVIEW, "description": said, "data_files": files}]


def _preview_info(facts: Facts) -> list[dict[str, Any]]:
    if facts.published is None or not facts.published.preview:
        return []
    split = {"name": "train", "num_examples": facts.published.preview}
    return [{"config_name": PREVIEW, "features": PREVIEW_FEATURES, "splits": [split]}]


def _size_category(rows: int) -> str:
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in steps if rows < bound), "1M<n<10M")
