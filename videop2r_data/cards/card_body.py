"""The text of a dataset card."""

from __future__ import annotations

from typing import Any

from videop2r_data.cards.card_facts import LOCK, Facts
from videop2r_data.cards.card_head import WHAT, title_of
from videop2r_data.cards.figures_index import picture
from videop2r_data.cards.markdown import cell, prose, table
from videop2r_data.schemas import ProblemType
from videop2r_data.schemas.lock import FIGURES_NAME, BuildLock

PAPER = "https://arxiv.org/abs/2511.11113"
NOT_STATED = "not stated in the recipe"
_ALSO_IN = {"clevrer": "MVBench", "perceptiontest": "MVBench", "star": "MVBench"}
"""Data sets that training pools and evaluation sets are both drawn from."""


def card_body(facts: Facts) -> str:
    """Everything below the front matter, as Markdown."""
    lock, recipe = facts.lock, facts.lock.recipe
    parts = [f"# {cell(title_of(recipe))}\n"]
    if recipe["synthetic"]:
        parts.append("> **Synthetic.** Every clip, question and trace here was drawn by a program.\n")
    if recipe["description"]:
        parts.append(f"{prose(recipe['description'])}\n")
    parts += [
        "Process-aware chain of thought: what is seen stands apart from what is concluded, in the format of "
        f"[VideoP2R]({PAPER}):\n",
        "    <observation>…</observation> <think>…</think><answer>…</answer>\n",
        f"## Load\n\n{snippet(str(recipe['name']))}",
        "## Configs\n",
        table(["config", "rows", "what"], [[n, f"{m['rows']:,}", WHAT[n]] for n, m in facts.configs.items()]),
        "## Accepted rows\n",
        accepted_table(lock.ledger.table),
        "## What became of the pool\n",
        _funnel(lock),
        *_figures(facts),
        "## Sources and licences\n",
        _sources(facts),
        "## How it was made\n",
        table(["", ""], _made(facts)),
        f"`{LOCK}` holds the recipe with every setting, the digests of prompts, sources and files, "
        "and the versions. `p2r-data reproduce` rebuilds this folder from it and the journal, byte for "
        "byte.\n",
        "## How good the judge is\n",
        _judge(facts),
        "## Limits\n",
        _limits(facts),
        "## Contamination\n",
        _contamination(facts),
        "## Versions\n",
        _versions(recipe),
        "## Citation\n",
        f"The method is that of VideoP2R ([arXiv 2511.11113]({PAPER})).\n",
    ]
    return "\n".join(parts)


def snippet(name: str, revision: str | None = None) -> str:
    """How to load it, as a block that can be run as it stands."""
    extra = "" if revision is None else f", revision={revision!r}"
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        f'ds = load_dataset("{name}", split="train"{extra})  # other configs: "rl", "rejected"\n'
        "```\n"
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


def _figures(facts: Facts) -> list[str]:
    if facts.figures is None:
        return []
    return ["## Figures\n", *(picture(entry, prefix=f"{FIGURES_NAME}/") for entry in facts.figures.figures)]


def _sources(facts: Facts) -> str:
    known = {s["name"]: s for s in facts.lock.recipe["sources"]}
    pools = []
    licences: dict[str, str] = {}
    for source in facts.lock.sources:
        spec: dict[str, Any] = known.get(source.name, {})
        licences |= spec.get("licenses", {})
        licence = cell(spec.get("license") or NOT_STATED)
        pools.append([cell(source.name), f"{source.rows:,}", licence, f"`{source.sha256[:16]}`"])
    text = table(["pool", "rows in", "licence", "sha256"], pools)
    rows = [
        [cell(n), f"{c:,}", cell(licences.get(n, "that of its pool"))] for n, c in facts.data_sources.items()
    ]
    text += "\n" + table(["`data_source`", "accepted rows", "licence"], rows)
    return text + (
        "\nThe traces are released under the licence of this card. Questions and media keep those of their "
        "sources. Media are not part of this data set: `path` is relative to the media root of its source.\n"
    )


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


def _contamination(facts: Facts) -> str:
    shared: dict[str, list[str]] = {}
    for name in facts.data_sources:
        plain = "".join(c for c in name.lower() if c.isalnum())
        for known, benchmark in _ALSO_IN.items():
            if plain.startswith(known):
                shared.setdefault(benchmark, []).append(name)
    text = "This build compared no row with an evaluation set. "
    if not shared:
        return (
            text + "None of its `data_source` names is one that common video benchmarks are known to share.\n"
        )
    said = "; ".join(f"{cell(b)}: {', '.join(map(cell, names))}" for b, names in sorted(shared.items()))
    return text + (
        f"Some of its sources also feed benchmarks ({said}): compare the file names in `path` before you "
        "report results there.\n"
    )


def _versions(recipe: dict[str, Any]) -> str:
    changes = "".join(f"- {cell(entry)}\n" for entry in recipe["changelog"])
    return f"Version {cell(recipe['version'])}.\n" + (f"\n{changes}" if changes else "")
