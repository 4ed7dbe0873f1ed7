"""The dataset card: made from the folder's files only, so that no number in it can be wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import yaml

from videop2r_data.errors import ExportError
from videop2r_data.schemas import ProblemType, digest
from videop2r_data.schemas.arrow import feature_info
from videop2r_data.schemas.lock import BuildLock
from videop2r_data.schemas.rows import CONFIGS

PAPER = "https://arxiv.org/abs/2511.11113"
_WHAT = {
    "sft": "accepted traces, for supervised fine-tuning (the default)",
    "rl": "the questions alone, for reinforcement learning",
    "rejected": "every question that is not in `sft`, with the stage and the reason",
}


def write_dataset_card(folder: Path) -> Path:
    """Write `README.md` from `build.lock.json` and the parquet files.

    Args:
        folder: a finished data set.

    Raises:
        ExportError: a file is missing, or the files and the lock disagree.
    """
    lock = _read_lock(folder)
    configs = {name: _measure(folder, name, lock) for name in CONFIGS}
    head = yaml.safe_dump(_metadata(lock, configs), sort_keys=False, allow_unicode=True, width=1000)
    path = folder / "README.md"
    path.write_text(f"---\n{head}---\n\n{_body(lock, configs)}", encoding="utf-8")
    return path


def _read_lock(folder: Path) -> BuildLock:
    path = folder / "build.lock.json"
    try:
        return BuildLock.model_validate(orjson.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ExportError(f"the lock cannot be read: {error}", where=str(path)) from None


def _measure(folder: Path, config: str, lock: BuildLock) -> dict[str, Any]:
    """Rows, bytes and content digest of one config, read off its files."""
    import pyarrow.parquet as pq

    rows = text_bytes = file_bytes = 0
    digests = []
    for path in sorted((folder / "data").glob(f"{config}-*.parquet")):
        name = path.relative_to(folder).as_posix()
        meta = pq.read_metadata(path)
        known = lock.files.get(name)
        if known is None or known.rows != meta.num_rows or known.bytes != path.stat().st_size:
            raise ExportError(
                "the file is not the one in the lock", where=name, hint="build the data set anew"
            )
        rows += meta.num_rows
        text_bytes += sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        file_bytes += known.bytes
        digests.append([name, known.sha256])
    if not digests:
        raise ExportError(f"no file of config {config!r}", where=str(folder / "data"))
    return {"rows": rows, "text_bytes": text_bytes, "file_bytes": file_bytes, "digest": digest(digests)}


def _metadata(lock: BuildLock, configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    recipe = lock.recipe
    kinds = sorted(lock.ledger.table)
    tags = ["process-aware", "chain-of-thought", "reasoning", "perception", *kinds]
    if recipe["synthetic"]:
        tags.append("synthetic")
    return {
        "pretty_name": _title(recipe),
        **({"license": " ".join(recipe["license"].split())} if recipe["license"].strip() else {}),
        "task_categories": ["visual-question-answering", "video-text-to-text"],
        "tags": tags,
        "size_categories": [_size_category(configs["sft"]["rows"])],
        "configs": [
            {
                "config_name": name,
                # the digest is part of the key under which `datasets` caches a local folder: without it, a
                # folder that is rebuilt in place would go on giving its old rows
                "description": f"{_WHAT[name]}; content sha256 {made['digest']}",
                "data_files": [{"split": "train", "path": f"data/{name}-*.parquet"}],
                **({"default": True} if name == "sft" else {}),
            }
            for name, made in configs.items()
        ],
        "dataset_info": [
            {
                "config_name": name,
                "features": feature_info(CONFIGS[name]),
                "splits": [{"name": "train", "num_bytes": made["text_bytes"], "num_examples": made["rows"]}],
                "download_size": made["file_bytes"],
                "dataset_size": made["text_bytes"],
            }
            for name, made in configs.items()
        ],
    }


def _title(recipe: dict[str, Any]) -> str:
    return " ".join(recipe["title"].split()) or str(recipe["name"])


_MARKUP = re.compile(r"<(?!https?://)(?=[A-Za-z/!?])")
"""Where raw HTML would begin: a description is Markdown, and a recipe may be somebody else's."""


def _body(lock: BuildLock, configs: dict[str, dict[str, Any]]) -> str:
    recipe, ledger = lock.recipe, lock.ledger
    name = recipe["name"]
    parts = [f"# {cell(_title(recipe))}\n"]
    if recipe["synthetic"]:
        parts.append("> **Synthetic.** Every clip, question and trace here was drawn by a program.\n")
    if recipe["description"]:
        parts.append(f"{_MARKUP.sub('&lt;', recipe['description'].strip())}\n")
    parts += [
        "Process-aware chain of thought: what is seen stands apart from what is concluded, in the format of "
        f"[VideoP2R]({PAPER}):\n",
        "    <observation>…</observation> <think>…</think><answer>…</answer>\n",
        "## Load\n",
        "```python\nfrom datasets import load_dataset\n\n"
        f'ds = load_dataset("{name}", split="train")  # other configs: "rl", "rejected"\n'
        "```\n",
        "## Configs\n",
        _table(["config", "rows", "what"], [[n, f"{m['rows']:,}", _WHAT[n]] for n, m in configs.items()]),
        "## Accepted rows\n",
        accepted_table(ledger.table),
        "## What became of the pool\n",
        f"{ledger.rows_in:,} questions in = {ledger.kept:,} kept + {ledger.rejected:,} rejected + "
        f"{ledger.failed:,} failed.\n",
        _table(
            ["stage / reason", "rows"],
            [[f"`{r}`", f"{n:,}"] for r, n in sorted(ledger.reasons.items(), key=lambda x: (-x[1], x[0]))],
        ),
        "## How it was made\n",
        _table(["", ""], _made(lock)),
        "`build.lock.json` holds the recipe with every setting, the digests of prompts, sources and files, "
        "and the versions. `p2r-data reproduce` rebuilds this folder from it and the journal, byte for "
        "byte.\n",
        "## Citation\n",
        "The method is that of VideoP2R (arXiv 2511.11113).\n",
    ]
    return "\n".join(parts)


def accepted_table(table: dict[str, dict[str, int]]) -> str:
    """The paper's table, data type by problem type with sums, as Markdown."""
    types = [t.value for t in ProblemType if any(t.value in row for row in table.values())]
    rows = [
        [kind, *(f"{counts[t]:,}" if t in counts else "-" for t in types), f"{sum(counts.values()):,}"]
        for kind, counts in table.items()
    ]
    sums = [sum(counts.get(t, 0) for counts in table.values()) for t in types]
    rows.append(["sum", *(f"{n:,}" for n in sums), f"{sum(sums):,}"])
    return _table(["", *types, "sum"], rows)


def _made(lock: BuildLock) -> list[list[str]]:
    recipe = lock.recipe
    media, verify = recipe["media"], recipe["verify"]
    rows = []
    for step, model in lock.models.items():
        served = ", ".join(f"{cell(m)} ({n:,} calls)" for m, n in model.served.items()) or "no call"
        rows.append([f"{step} model", f"{cell(model.asked)}; served: {served}"])
    rows += [
        ["frames", f"{media['frames']} uniform, at most {media['max_pixels']:,} pixels each"],
        [
            "verify",
            f"profile {verify['policy']['profile']}, score of at least {verify['threshold']}",
        ],
        ["sources", ", ".join(f"{cell(s.name)} ({s.rows:,} rows)" for s in lock.sources)],
        ["made with", f"videop2r-data {lock.versions['videop2r-data']}"],
    ]
    return rows


def cell(text: str) -> str:
    """Text from outside as one harmless cell of a Markdown table."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#!" else c for c in " ".join(text.split()))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _size_category(rows: int) -> str:
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in steps if rows < bound), "1M<n<10M")
