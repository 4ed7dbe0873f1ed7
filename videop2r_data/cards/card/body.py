"""The text of a dataset card, part by part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from videop2r_data.cards.card.contamination import contamination
from videop2r_data.cards.card.facts import Facts, frames_words
from videop2r_data.cards.card.licences import KNOWN, Terms, find_pool, licence_id, registry, states
from videop2r_data.cards.card.markdown import cell, prose, short, table
from videop2r_data.cards.card.metadata import PAPER, WHAT, WHAT_PREVIEW, columns_of, title_of
from videop2r_data.cards.card.rows import SourceFacts, passes_on
from videop2r_data.cards.figures.index import picture
from videop2r_data.files import FIGURES_NAME, LOCK_NAME, MEDIA_FOLDER, PREVIEW_CONFIG
from videop2r_data.prompts import describe_format
from videop2r_data.schemas import (
    CONFIGS,
    BuildLock,
    GroupSpec,
    ProblemType,
    TraceGrammar,
    default_grammar,
    feature_info,
    visible,
    visible_line,
)

# Sources: licences with their pages, and benchmarks that share clips with them.

_SHOWN = 100
"""Sources in the table: a pool may have a source per row."""
_HELD = 20
"""Sources in one sentence."""


def sources_table(facts: Facts) -> str:
    """Pools, then each source with its licences (annotations, media), then the licence of this card."""
    pools = []
    for source in facts.lock.sources:
        known = facts.collection(source.name)
        stated = str(facts.spec(source.name).get("license") or "")
        licence = cell(" ".join(stated.split())) if states(stated) else "by source, see below"
        where = f"[{known.name}]({known.url}), itself tagged {known.licence}" if known else "as in the lock"
        pools.append([cell(source.name), f"{source.rows:,}", licence, where, f"`{source.sha256[:16]}`"])
    parts = [table(["pool", "rows in", "licence", "taken from", "sha256"], pools)]
    head = ["source", "accepted", "other rows", "annotations", "media", "media may be passed on"]
    head += ["commercial use", "made from"]
    parts.append(table(head, [_row(source) for source in facts.rows.sources[:_SHOWN]]))
    if len(facts.rows.sources) > _SHOWN:
        parts.append(f"and {len(facts.rows.sources) - _SHOWN:,} more sources.\n")
    parts += [_pages(facts), _own(facts)]
    return "\n".join(part for part in parts if part)


def _row(source: SourceFacts) -> list[str]:
    upstream = source.upstream
    name = cell(short(source.label))
    if upstream is not None:
        name += f" ([{cell(upstream.name)}]({upstream.url}))"
    commercial = {source.annotations.commercial} | ({source.media.commercial} if source.has_media else set())
    use = next(word for word in ("no", "not known", "yes") if word in commercial)
    made_from = ", ".join(map(cell, upstream.made_from)) if upstream and upstream.made_from else "-"
    media = ["no media", "-"]
    if source.has_media:
        media = [_terms(source.media), "yes" if passes_on(source) else "not known"]
    counts = [f"{source.accepted:,}", f"{source.others:,}"]
    return [name, *counts, _terms(source.annotations), *media, use, made_from]


def _terms(terms: Terms) -> str:
    licence = cell(terms.licence)
    return f"[{licence}]({terms.stated_at})" if terms.stated_at else licence


def _pages(facts: Facts) -> str:
    """What the pages say beside a bare licence, and when they were read."""
    lines = []
    seen = set()
    kinds = {str(s.get("kind", "")) for s in facts.lock.recipe["sources"]}
    for pool in {p.id: p for kind in sorted(kinds) if (p := find_pool(kind))}.values():
        lines.append(f"- {cell(pool.name)}: {cell(pool.note)}.\n")
    for source in facts.rows.sources:
        if source.upstream is None or source.upstream.id in seen:
            continue
        seen.add(source.upstream.id)
        said = [("", source.upstream.note), ("annotations: ", source.annotations.said)]
        said.append(("media: ", source.media.said if source.has_media else ""))
        told = "; ".join(f"{what}{cell(text)}" for what, text in said if text)
        if told:
            lines.append(f"- {cell(source.upstream.name)}: {told}.\n")
    if not lines:
        return ""
    read = f"Licences of known sources are as their pages stated them on {registry().read.isoformat()}"
    return (
        f"{read}; a link leads to the page. `not stated`: those pages say nothing. `not checked`: a page "
        "that may say it was not read. None of this is legal advice.\n\n" + "".join(lines)
    )


def _own(facts: Facts) -> str:
    """Which licence holds for what, and which sources allow less than the declared one."""
    licence = facts.licence
    if not licence.declared:
        text = "The recipe states no licence for the traces."
    else:
        known = KNOWN.get(licence_id(licence.declared))
        full = f" ({known.name})" if known is not None else ""
        text = f"The traces are released under {cell(licence.declared)}{full}, as the recipe declares."
    text += " Questions, answers and media keep the licences of their sources."
    if licence.held_back:
        held = "; ".join(f"{cell(short(name))}: {why}" for name, why in licence.held_back[:_HELD])
        held += f"; and {len(licence.held_back) - _HELD:,} more" if len(licence.held_back) > _HELD else ""
        text += (
            " The data set as a whole carries no single licence, because that of the traces would give more "
            f"than some of its sources allow ({held})."
        )
    return text + "\n"


# The parts of a card in their order.

NOT_STATED = "not stated in the recipe"
_CELL_CHARACTERS = 600
"""Characters of a value of the example; a longer one is cut and says so."""
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
    """The body of a card: name of each part -> its Markdown, in order."""
    lock, recipe = facts.lock, facts.lock.recipe
    configs = [[name, f"{made['rows']:,}", WHAT[name]] for name, made in facts.configs.items()]
    if facts.published is not None and facts.published.preview:
        configs.append([PREVIEW_CONFIG, f"{facts.published.preview:,}", WHAT_PREVIEW])
    return {
        "title": _title(facts),
        "load": f"## Load\n\n{snippet(_load_name(facts))}",
        "example": f"## An example\n\n{_example(facts)}",
        **_form(facts),
        "configs": "## Configs\n\n" + table(["config", "rows", "what"], configs),
        "columns": "## Columns\n\n" + _columns(facts),
        "media": f"## Clips and images\n\n{_media(facts)}",
        "accepted": "## Accepted rows\n\n" + accepted_table(lock.ledger.table),
        "funnel": "## What became of the pool\n\n" + _funnel(lock),
        **_figures(facts),
        "sources": "## Sources and licences\n\n" + sources_table(facts),
        "made": "## How it was made\n\n"
        + table(["", ""], _made(facts))
        + f"\n`{LOCK_NAME}` holds the recipe with every setting, the digests of prompts, sources and files, "
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
    grammar = facts.grammar
    if grammar != default_grammar():
        whose = f", the form of {cell(grammar.about)}" if grammar.about else ""
        names = ", ".join(f"`{name}`" for name in grammar.named)
        parts.append(
            f"Chain of thought in segments ({names}), read by the grammar `{grammar.name}`{whose}.\n"
        )
        return "\n".join(parts)
    parts += [
        "Process-aware chain of thought: what is seen stands apart from what is concluded, in the format of "
        f"[VideoP2R]({PAPER}):\n",
        "    <observation>…</observation> <think>…</think><answer>…</answer>\n",
    ]
    return "\n".join(parts)


def _load_name(facts: Facts) -> str:
    """The argument of `load_dataset`: the repository, or the folder's name."""
    return facts.published.repo if facts.published is not None else str(facts.lock.recipe["name"])


def snippet(name: str) -> str:
    """A Python block that loads the data set."""
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        f'ds = load_dataset("{name}", split="train")  # other configs: "rl", "rejected"\n'
        "```\n"
    )


def _example(facts: Facts) -> str:
    """The first accepted row as JSON."""
    row = facts.rows.example
    if row is None:
        return "There is no accepted row.\n"
    fields = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(_cut(value), ensure_ascii=False)}" for name, value in row.items()
    )
    return "The first row of `sft`:\n\n" + _fenced(f"{{\n{fields}\n}}", "json")


def _fenced(text: str, kind: str = "") -> str:
    """Text in a fence of more backticks than it has in a row."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{text}\n{fence}\n"


def _form(facts: Facts) -> dict[str, str]:
    """How a trace is written, for another grammar than the default: marks, segments, an example."""
    grammar, row = facts.grammar, facts.rows.example
    if grammar == default_grammar():
        return {}
    parts = [
        "## The form of a trace\n",
        "Marks and order, as a model is asked to write them:\n",
        _fenced(visible(describe_format(grammar))),
        table(["segment", "role", "reward", "how often", "values inside"], list(_segments(grammar))),
    ]
    if row is not None:
        parts += ["The first row of `sft` in this form:\n", _fenced(str(_cut(row["output"])))]
    return {"form": "\n".join(parts)}


def _segments(grammar: TraceGrammar) -> Iterator[list[str]]:
    """A line for each segment; free text may stand in two places."""
    for part in grammar.segments:
        group = part.group if isinstance(part, GroupSpec) else (part,)
        for spec in group:
            often = "once" if spec.needed else "once at most"
            if isinstance(part, GroupSpec):
                most = "or more" if part.max is None else f"to {part.max}"
                often = f"{part.min} {most} rounds{'' if spec.needed else ', may be left out'}"
            marks = ", ".join(cell(text) for text in (*spec.fields, *([spec.holds] if spec.holds else ())))
            yield [f"`{spec.name}`", spec.role.value, f"`{spec.reward}`", often, marks or "-"]


def _cut(value: Any) -> Any:
    """A value made visible and cut to `_CELL_CHARACTERS`."""
    if isinstance(value, list):
        return [_cut(item) for item in value]
    if not isinstance(value, str):
        return value
    cut = value if len(value) <= _CELL_CHARACTERS else f"{value[:_CELL_CHARACTERS]}…"
    return visible(cut) if cut is value else f"{visible(cut)} ({len(value):,} characters)"


def _columns(facts: Facts) -> str:
    kinds: dict[str, str] = {}
    held: dict[str, list[str]] = {}
    words = columns_of(facts.models)
    for config, model in facts.models.items():
        for info in feature_info(model):
            name = info["name"]
            if name in facts.configs[config]["columns"]:
                kinds[name] = f"list of {_kind(info['list'])}" if "list" in info else info["dtype"]
                held.setdefault(name, []).append(config)
    where = {name: "all" if len(c) == len(CONFIGS) else ", ".join(c) for name, c in held.items()}
    rows = [[f"`{name}`", kind, where[name], cell(words[name])] for name, kind in kinds.items()]
    return table(["column", "type", "configs", "what it holds"], rows)


def _kind(listed: str | list[dict[str, Any]]) -> str:
    """What a list holds: a type, or the columns of its records."""
    if isinstance(listed, str):
        return listed
    return f"({', '.join(one['name'] for one in listed)})"


def _media(facts: Facts) -> str:
    """Where the clips are, and the command that fetches those of these rows."""
    name = _load_name(facts)
    if not any(source.has_media for source in facts.rows.sources):
        return "The questions are about text alone: there are none.\n"
    if facts.published is not None and facts.published.media:
        command = f"p2r-data pull {name} media --media --rows {name} --limit 20"
        return (
            f"They are part of this repository, in `{MEDIA_FOLDER}/<source>/<path of the row>`. To get those "
            f"of some rows, as `path` names them:\n\n    {command}\n"
        )
    lines = []
    for pool in dict.fromkeys(s.pool for s in facts.rows.sources if s.has_media):
        known = facts.collection(pool)
        if known is not None:
            get = f"`p2r-data pull {known.hub} media --media --rows {name}` gets those of these rows"
            lines.append(f"- `{cell(pool)}`: they lie in [{known.name}]({known.url}); {get}.")
        elif facts.spec(pool).get("kind") == "demo":
            told = "drawn anew by `p2r-data reproduce`, or by a build of the recipe"
            lines.append(f"- `{cell(pool)}`: {told}.")
        else:
            lines.append(f"- `{cell(pool)}`: ask whoever published the pool; the lock holds its digest.")
    return (
        "They are not part of this data set: `path` is relative to the media root of its source, "
        "`media_sha256` says which file it was.\n\n" + "\n".join(lines) + "\n"
    )


def accepted_table(counts: dict[str, dict[str, int]]) -> str:
    """The paper's table 1 as Markdown: data type by problem type, with sums."""
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


def _backend(recipe: Mapping[str, Any], step: str) -> dict[str, Any]:
    """The settings of what answers a step: `generate`, `judge`, or a model of a listed judge."""
    name, _, which = step.partition("/")
    judge = next((judge for judge in recipe.get("judges", ()) if judge["name"] == name), None)
    if judge is None:
        found = (recipe.get(step) or {}).get("backend", {})
    elif which == "unsure":
        found = judge["unsure_to"]
    else:
        found = judge["panel"][int(which) - 2] if which else judge["backend"]
    return dict(found)


def _made(facts: Facts) -> list[list[str]]:
    lock, recipe = facts.lock, facts.lock.recipe
    media, verify = recipe["media"], recipe["verify"]
    rows = []
    for step, model in lock.models.items():
        served = ", ".join(f"{cell(m)} ({n:,} calls)" for m, n in model.served.items()) or "no call"
        rows.append([f"{step} model", f"{cell(model.asked)}; served: {served}"])
        terms = _backend(recipe, step).get("terms") or NOT_STATED
        rows.append([f"{step} model's terms", cell(terms)])
        if model.spent is not None:
            rows.append([f"{step}, cost of a question", str(model.spent)])
    if not lock.models.keys() - {"generate"}:
        rows.append(["judge model", "none: step 3 was skipped, no observation was judged"])
    rows += [
        *([f"prompt {cell(name)}", f"sha256 `{sha256}`"] for name, sha256 in sorted(lock.prompts.items())),
        ["frames", f"{frames_words(media)}, at most {media['max_pixels']:,} pixels each"],
        ["verify", f"profile {verify['policy']['profile']}, score of at least {verify['threshold']}"],
        ["lock", f"sha256 `{facts.lock_sha256}`"],
        ["made with", f"videop2r-data {lock.versions['videop2r-data']}"],
    ]
    return rows


def _judge(facts: Facts) -> str:
    if facts.agreement is None:
        if not facts.lock.models.keys() - {"generate"}:
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
    faithful = facts.agreement.get("question") == "faithfulness"
    means = "is true to the clip" if faithful else "suffices"
    return table(head, rows) + f"\nWith 95 % Wilson intervals; positive means that the observation {means}.\n"


def _limits(facts: Facts) -> str:
    media = facts.lock.recipe["media"]
    judges = facts.lock.recipe.get("judges", ())
    seen = any(judge["decides"] == "faithfulness" and judge["does"] == "filter" for judge in judges)
    checked = (
        "judges, one of which saw frames: what happens between these can still be invented."
        if seen
        else "a judge that never saw the media: an observation can suffice and still be invented."
    )
    spaced = ", evenly spaced" if "uniform" in frames_words(media) else ""
    lines = [
        f"- The model that wrote the traces saw {media['frames']} frames at most{spaced}: what "
        "happens between two of them is missing, and an accepted trace may be right by luck.",
        "- Traces are written by a model. Answers were checked against the reference, observations by "
        + checked,
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
    """BibTeX of a published data set, and of the method."""
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
    """Text from outside as a BibTeX value: characters that could end the entry become spaces."""
    return visible_line(re.sub(r"[{}\\@`$#%&_^~]", " ", text))
