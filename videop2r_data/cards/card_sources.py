"""What a card says of the sources of its rows: licences with their pages, benchmarks that share clips."""

from __future__ import annotations

from typing import Any

from videop2r_data.cards.card_facts import Facts
from videop2r_data.cards.card_licence import passes_on
from videop2r_data.cards.card_rows import SourceFacts
from videop2r_data.cards.licences import KNOWN, licence_id, states
from videop2r_data.cards.markdown import cell, table
from videop2r_data.cards.upstream import Terms, find_pool, registry

_SHOWN = 100
"""Sources in the table: a pool may name every row's own."""
_HELD = 20
"""Sources in one sentence."""
_LABEL = 120
"""Characters of a name."""


def _short(name: str) -> str:
    return name if len(name) <= _LABEL else f"{name[:_LABEL]}…"


def sources_table(facts: Facts) -> str:
    """Pools, then each source with the licences of its two halves, then what that means for this card."""
    specs = {s["name"]: s for s in facts.lock.recipe["sources"]}
    pools = []
    for source in facts.lock.sources:
        spec: dict[str, Any] = specs.get(source.name, {})
        known = find_pool(str(spec.get("kind", "")))
        stated = str(spec.get("license") or "")
        licence = cell(" ".join(stated.split())) if states(stated) else "by source, see below"
        where = f"[{known.name}]({known.url}), itself tagged {known.licence}" if known else "as in the lock"
        pools.append([cell(source.name), f"{source.rows:,}", licence, where, f"`{source.sha256[:16]}`"])
    parts = [table(["pool", "rows in", "licence", "taken from", "sha256"], pools)]
    head = ["source", "accepted", "other rows", "annotations", "media", "media may be passed on"]
    head += ["commercial use", "made from"]
    parts.append(table(head, [_row(source) for source in facts.rows.sources[:_SHOWN]]))
    if len(facts.rows.sources) > _SHOWN:
        parts.append(f"and {len(facts.rows.sources) - _SHOWN:,} more sources.\n")
    parts.append(_pages(facts))
    parts.append(_own(facts))
    return "\n".join(part for part in parts if part)


def _row(source: SourceFacts) -> list[str]:
    upstream = source.upstream
    name = cell(_short(source.label))
    if upstream is not None:
        name += f" ([{cell(upstream.name)}]({upstream.url}))"
    commercial = {source.annotations.commercial} | ({source.media.commercial} if source.has_media else set())
    use = next(word for word in ("no", "not known", "yes") if word in commercial)
    made_from = ", ".join(map(cell, upstream.made_from)) if upstream and upstream.made_from else "-"
    media = _terms(source.media) if source.has_media else "no media"
    return [
        name,
        f"{source.accepted:,}",
        f"{source.others:,}",
        _terms(source.annotations),
        media,
        ("yes" if passes_on(source) else "not known") if source.has_media else "-",
        use,
        made_from,
    ]


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
    """Whose licence holds for what, and where the declared one would give too much."""
    licence = facts.licence
    if not licence.declared:
        text = "The recipe states no licence for the traces."
    else:
        known = KNOWN.get(licence_id(licence.declared))
        full = f" ({known.name})" if known is not None else ""
        text = f"The traces are released under {cell(licence.declared)}{full}, as the recipe declares."
    text += " Questions, answers and media keep the licences of their sources."
    if licence.held_back:
        held = "; ".join(f"{cell(_short(name))}: {why}" for name, why in licence.held_back[:_HELD])
        held += f"; and {len(licence.held_back) - _HELD:,} more" if len(licence.held_back) > _HELD else ""
        text += (
            " The data set as a whole carries no single licence, because that of the traces would give more "
            f"than some of its sources allow ({held})."
        )
    return text + "\n"


def contamination(facts: Facts) -> str:
    """Which public benchmarks use the same clips as the sources of these rows."""
    shared: dict[str, dict[str, str]] = {}
    for source in facts.rows.sources:
        for overlap in source.upstream.benchmarks if source.upstream is not None else ():
            shared.setdefault(overlap.name, {})[_short(source.label)] = overlap.shares
    text = "This build compared no row with an evaluation set. "
    if not shared:
        return text + "None of its sources is one that common video benchmarks are known to share.\n"
    rows = [
        [cell(benchmark), cell(source), cell(shares)]
        for benchmark, sources in sorted(shared.items())
        for source, shares in sorted(sources.items())
    ]
    return (
        f"{text}Some of its sources share clips with benchmarks: compare the file names in `path` before you "
        "report results there.\n\n" + table(["benchmark", "source of these rows", "what is shared"], rows)
    )
