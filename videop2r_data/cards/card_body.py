"""The text of a dataset card, part by part."""

from __future__ import annotations

import json
import re
from typing import Any

from videop2r_data.cards.card_facts import LOCK, Facts
from videop2r_data.cards.card_head import WHAT, WHAT_PREVIEW, title_of
from videop2r_data.cards.card_sources import contamination, sources_table
from videop2r_data.cards.columns import COLUMNS
from videop2r_data.cards.figures_index import picture
from videop2r_data.cards.hub_names import MEDIA, PREVIEW
from videop2r_data.cards.markdown import cell, prose, table
from videop2r_data.cards.upstream import find_pool
from videop2r_data.schemas import (
    CONFIGS,
    FIGURES_NAME,
    BuildLock,
    ProblemType,
    feature_info,
    visible,
    visible_line,
)

PAPER = "https://arxiv.org/abs/2511.11113"
NOT_STATED = "not stated in the recipe"
_CELL_CHARACTERS = 600
"""Of one value of the example; what is longer is cut, and says so."""
_PAPER_BIBTEX = """@inproceedings{videop2r,
  title     = {VideoP2R},
  author    = {Jiang and Wang and Zhao and Parag and Chen and Liao and Unnikrishnan},
  booktitle = {CVPR 2026 (Findings)},
  pages     = {8303--8313},
  note      = {arXiv 2511.11113},
  url       = {https://arxiv.org/abs/2511.11113},
  year      = {2026}
}"""


def card_parts(facts: Facts) -> dict[str, str]:
    """Everything below the front matter, as Markdown: name of the part -> its text, in order."""
    lock, recipe = facts.lock, facts.lock.recipe
    configs = [[name, f"{made['rows']:,}", WHAT[name]] for name, made in facts.configs.items()]
    if facts.published is not None and facts.published.preview:
        configs.append([PREVIEW, f"{facts.published.preview:,}", WHAT_PREVIEW])
    return {
        "title": _title(facts),
        "load": f"## Load\n\n{snippet(_load_name(facts))}",
        "example": f"## An example\n\n{_example(facts)}",
        "configs": "## Configs\n\n" + table(["config", "rows", "what"], configs),
        "columns": "## Columns\n\n" + _columns(facts),
        "media": f"## Clips and images\n\n{_media(facts)}",
        "accepted": "## Accepted rows\n\n" + accepted_table(lock.ledger.table),
        "funnel": "## What became of the pool\n\n" + _funnel(lock),
        **_figures(facts),
        "sources": "## Sources and licences\n\n" + sources_table(facts),
        "made": "## How it was made\n\n"
        + table(["", ""], _made(facts))
        + f"\n`{LOCK}` holds the recipe with every setting, the digests of prompts, sources and files, "
        "and the versions. `p2r-data reproduce` rebuilds this folder from it and the journal, byte for "
        "byte.\n",
        "judge": f"## How good the judge is\n\n{_judge(facts)}",
        "limits": f"## Limits\n\n{_limits(facts)}",
        "contamination": f"## Contamination\n\n{contamination(facts)}",
        "versions": f"## Versions\n\n{_versions(recipe)}",
        "citation": f"## Citation\n\n{_citation(facts)}",
    }


def _title(facts: Facts) -> str:
    recipe = facts.lock.recipe
    parts = [f"# {cell(title_of(recipe))}\n"]
    if recipe["synthetic"]:
        parts.append("> **Synthetic.** Every clip, question and trace here was drawn by a program.\n")
    if recipe["description"]:
        parts.append(f"{prose(recipe['description'])}\n")
    parts += [
        "Process-aware chain of thought: what is seen stands apart from what is concluded, in the format of "
        f"[VideoP2R]({PAPER}):\n",
        "    <observation>…</observation> <think>…</think><answer>…</answer>\n",
    ]
    return "\n".join(parts)


def _load_name(facts: Facts) -> str:
    """What `load_dataset` finds it by: the repository, or the name of the folder."""
    return facts.published.repo if facts.published is not None else str(facts.lock.recipe["name"])


def snippet(name: str, revision: str | None = None) -> str:
    """How to load it, as a block that can be run as it stands."""
    extra = "" if revision is None else f", revision={revision!r}"
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        f'ds = load_dataset("{name}", split="train"{extra})  # other configs: "rl", "rejected"\n'
        "```\n"
    )


def _example(facts: Facts) -> str:
    """The first accepted row as JSON in a block that nothing in it can close."""
    row = facts.rows.example
    if row is None:
        return "There is no accepted row.\n"
    fields = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(_cut(value), ensure_ascii=False)}" for name, value in row.items()
    )
    text = f"{{\n{fields}\n}}"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"The first row of `sft`:\n\n{fence}json\n{text}\n{fence}\n"


def _cut(value: Any) -> Any:
    """A value as people may see it, not longer than a page can bear."""
    if isinstance(value, list):
        return [_cut(item) for item in value]
    if not isinstance(value, str):
        return value
    cut = value if len(value) <= _CELL_CHARACTERS else f"{value[:_CELL_CHARACTERS]}…"
    return visible(cut) if cut is value else f"{visible(cut)} ({len(value):,} characters)"


def _columns(facts: Facts) -> str:
    rows = []
    kinds: dict[str, str] = {}
    held: dict[str, list[str]] = {}
    for config, model in CONFIGS.items():
        for info in feature_info(model):
            name = info["name"]
            if name not in facts.configs[config]["columns"]:
                continue
            kinds[name] = f"list of {info['list']}" if "list" in info else info["dtype"]
            held.setdefault(name, []).append(config)
    for name, configs in held.items():
        where = "all" if len(configs) == len(CONFIGS) else ", ".join(configs)
        rows.append([f"`{name}`", kinds[name], where, cell(COLUMNS[name])])
    return table(["column", "type", "configs", "what it holds"], rows)


def _media(facts: Facts) -> str:
    """Where the clips are, and the command that gets those of these rows."""
    name = _load_name(facts)
    if not any(source.has_media for source in facts.rows.sources):
        return "The questions are about text alone: there are none.\n"
    if facts.published is not None and facts.published.media:
        command = f"p2r-data pull {name} media --media --rows {name} --limit 20"
        return (
            f"They are part of this repository, in `{MEDIA}/<source>/<path of the row>`. To get those of "
            f"some rows, as `path` names them:\n\n    {command}\n"
        )
    specs = {s["name"]: s for s in facts.lock.recipe["sources"]}
    lines = []
    for pool in dict.fromkeys(s.pool for s in facts.rows.sources if s.has_media):
        spec: dict[str, Any] = specs.get(pool, {})
        known = find_pool(str(spec.get("kind", "")))
        if known is not None:
            get = f"`p2r-data pull {known.hub} media --media --rows {name}` gets those of these rows"
            lines.append(f"- `{cell(pool)}`: they lie in [{known.name}]({known.url}); {get}.")
        elif spec.get("kind") == "demo":
            lines.append(
                f"- `{cell(pool)}`: drawn anew by `p2r-data reproduce`, or by a build of the recipe."
            )
        else:
            lines.append(f"- `{cell(pool)}`: ask whoever published the pool; the lock holds its digest.")
    return (
        "They are not part of this data set: `path` is relative to the media root of its source, "
        "`media_sha256` says which file it was.\n\n" + "\n".join(lines) + "\n"
    )


def accepted_table(counts: dict[str, dict[str, int]]) -> str:
    """The paper's table, data type by problem type with sums, as Markdown."""
    types = [t.value for t in ProblemType if any(t.value in row for row in counts.values())]
    rows = [
        [kind, *(f"{row[t]:,}" if t in row else "-" for t in types), f"{sum(row.values()):,}"]
        for kind, row in counts.items()
    ]
    sums = [sum(row.get(t, 0) for row in counts.values()) for t in types]
    rows.append(["sum", *(f"{n:,}" for n in sums), f"{sum(sums):,}"])
    return table(["", *types, "sum"], rows)


def _funnel(lock: BuildLock) -> str:
    ledger = lock.ledger
    reasons = sorted(ledger.reasons.items(), key=lambda item: (-item[1], item[0]))
    return (
        f"{ledger.rows_in:,} questions in = {ledger.kept:,} kept + {ledger.rejected:,} rejected + "
        f"{ledger.failed:,} failed.\n\n"
        + table(["stage / reason", "rows"], [[f"`{reason}`", f"{n:,}"] for reason, n in reasons])
    )


def _figures(facts: Facts) -> dict[str, str]:
    if facts.figures is None:
        return {}
    shown = [picture(entry, prefix=f"{FIGURES_NAME}/") for entry in facts.figures.figures]
    return {"figures": "\n".join(["## Figures\n", *shown])}


def _made(facts: Facts) -> list[list[str]]:
    lock, recipe = facts.lock, facts.lock.recipe
    media, verify = recipe["media"], recipe["verify"]
    rows = []
    for step, model in lock.models.items():
        served = ", ".join(f"{cell(m)} ({n:,} calls)" for m, n in model.served.items()) or "no call"
        rows.append([f"{step} model", f"{cell(model.asked)}; served: {served}"])
        terms = (recipe.get(step) or {}).get("backend", {}).get("terms") or NOT_STATED
        rows.append([f"{step} model's terms", cell(terms)])
    if "judge" not in lock.models:
        rows.append(["judge model", "none: step 3 was skipped, no observation was judged"])
    rows += [
        *([f"prompt {cell(name)}", f"sha256 `{sha256}`"] for name, sha256 in sorted(lock.prompts.items())),
        ["frames", f"{media['frames']} uniform, at most {media['max_pixels']:,} pixels each"],
        ["verify", f"profile {verify['policy']['profile']}, score of at least {verify['threshold']}"],
        ["lock", f"sha256 `{facts.lock_sha256}`"],
        ["made with", f"videop2r-data {lock.versions['videop2r-data']}"],
    ]
    return rows


def _judge(facts: Facts) -> str:
    if facts.agreement is None:
        if "judge" not in facts.lock.models:
            return "There was none.\n"
        return "Not measured against people for this data set (`p2r-data judge-eval` does that).\n"
    rows = []
    for judge in facts.agreement["judges"]:
        figures = judge["figures"]
        shown = [
            f"{figures[name]['value']:.1%} ({figures[name]['low']:.1%} to {figures[name]['high']:.1%})"
            for name in ("agreement", "precision", "recall")
        ]
        rows.append([cell(judge["model"]), f"{judge['labels']:,}", *shown, f"{judge['unscored']:,}"])
    head = ["judge", "human labels", "agreement", "precision", "recall", "unscored"]
    return table(head, rows) + "\nWith 95 % Wilson intervals; positive means that the observation suffices.\n"


def _limits(facts: Facts) -> str:
    media = facts.lock.recipe["media"]
    lines = [
        f"- The model that wrote the traces saw {media['frames']} frames at most, evenly spaced: what "
        "happens between two of them is missing, and an accepted trace may be right by luck.",
        "- Traces are written by a model. Answers were checked against the reference, observations by "
        "a judge that never saw the media: an observation can suffice and still be invented.",
        "- Rejected questions are not a random part of the pool: hard and badly worded ones are rarer here.",
    ]
    if facts.lock.ledger.failed:
        lines.append(
            f"- {facts.lock.ledger.failed:,} questions failed (media or calls): never tried to the end."
        )
    return "\n".join(lines) + "\n"


def _versions(recipe: dict[str, Any]) -> str:
    changes = "".join(f"- {cell(entry)}\n" for entry in recipe["changelog"])
    return f"Version {cell(recipe['version'])}.\n" + (f"\n{changes}" if changes else "")


def _citation(facts: Facts) -> str:
    """BibTeX of the data set, where it has an address, and of the method."""
    recipe, published = facts.lock.recipe, facts.published
    entries = []
    if published is not None:
        fields = {
            "title": _bibtex(title_of(recipe)),
            "author": f"{{{published.owner}}}",
            "howpublished": f"\\url{{{published.url}}}",
            "version": str(recipe["version"]),
            "year": str(published.date.year),
        }
        body = ",\n".join(f"  {key:12} = {{{value}}}" for key, value in fields.items())
        entries.append(f"@misc{{{re.sub(r'[^A-Za-z0-9]+', '-', published.repo).strip('-')},\n{body}\n}}")
    entries.append(_PAPER_BIBTEX)
    block = "\n\n".join(entries)
    return f"The method is that of VideoP2R ([arXiv 2511.11113]({PAPER})).\n\n```bibtex\n{block}\n```\n"


def _bibtex(text: str) -> str:
    """Text from outside as a value that cannot end its entry."""
    return visible_line(re.sub(r"[{}\\@`$#%&_^~]", " ", text))
