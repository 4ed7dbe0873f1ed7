"""What a card says of the rows: sources, the licence that follows from them, an example, the language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.cards.card.licences import (
    NOT_STATED,
    UNKNOWN,
    Terms,
    Upstream,
    find_pool,
    find_upstream,
    is_identifier,
    licence_id,
    states,
    wider,
)
from videop2r_data.files import shards
from videop2r_data.schemas import Model

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE = 2_000
"""Traces that are read for their language."""
_ENGLISH = frozenset(
    {
        *("the", "of", "and", "is", "in", "to", "a", "that", "it", "on", "are", "which", "not", "for"),
        *("this", "with", "from", "be", "at", "as", "so", "by", "was", "has"),
    }
)
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
)
_Key = tuple[str, str, Upstream | None]


class SourceFacts(Model):
    """The rows of one pool that come from one source, with the licences that hold for them."""

    pool: str
    """Name of the recipe's source."""
    data_source: str
    accepted: int
    """Rows of `sft`."""
    others: int
    """Rows of `rejected`."""
    has_media: bool
    upstream: Upstream | None
    """Its entry in the registry."""
    annotations: Terms
    """Of questions and answers: they stand in the rows."""
    media: Terms
    stated_by: str
    """`recipe`, `registry`, `tool` (a demo world that this tool drew) or empty."""

    @property
    def label(self) -> str:
        """`data_source`, or the pool where rows do not say."""
        return self.data_source or self.pool


class RowFacts(Model):
    """What a card says of the rows."""

    sources: tuple[SourceFacts, ...]
    """Most accepted rows first."""
    example: dict[str, Any] | None
    """The first accepted row; None: there is none."""
    languages: tuple[str, ...]
    """Languages of the traces, ISO 639-1; empty: none was recognised."""


def read_rows(folder: Path, recipe: dict[str, Any]) -> RowFacts:
    """Stream the columns that a card needs; memory grows with the number of sources, not of rows."""
    kinds = {s["name"]: s.get("kind", "") for s in recipe["sources"]}
    accepted = _count(folder, "sft", kinds)
    others = _count(folder, "rejected", kinds)
    keys = {key for counted in (accepted, others) for key, _ in counted}
    found = []
    for key in keys:
        pool, data_source, upstream = key
        annotations, media, by = _terms(recipe, pool, data_source, upstream)
        found.append(
            SourceFacts(
                pool=pool,
                data_source=data_source,
                accepted=sum(accepted[key, media] for media in (True, False)),
                others=sum(others[key, media] for media in (True, False)),
                has_media=bool(accepted[key, True] or others[key, True]),
                upstream=upstream,
                annotations=annotations,
                media=media,
                stated_by=by,
            )
        )
    found.sort(key=lambda one: (-one.accepted, -one.others, one.pool, one.data_source, one.annotations.said))
    example = next((batch.to_pylist()[0] for batch in batches(folder, "sft", size=1)), None)
    traces = (text for batch in batches(folder, "sft", ["observation"]) for text in batch[0].to_pylist())
    return RowFacts(sources=tuple(found), example=example, languages=languages(islice(traces, _SAMPLE)))


def _count(folder: Path, config: str, kinds: dict[str, str]) -> Counter[tuple[_Key, bool]]:
    counts: Counter[tuple[str, str, str, bool]] = Counter()
    for batch in batches(folder, config, ["sample_id", "data_source", "path"]):
        columns = [batch[name].to_pylist() for name in ("sample_id", "data_source", "path")]
        for sample, data_source, path in zip(*columns, strict=True):
            pool = sample.partition("/")[0]
            # without `data_source` a known pool's folders tell the source; elsewhere they would be a guess
            inside = find_pool(kinds.get(pool, "")) is not None
            folders = path.rpartition("/")[0] if inside else ""
            counts[pool, data_source, folders, bool(path)] += 1
    found: Counter[tuple[_Key, bool]] = Counter()
    for (pool, data_source, folders, has_media), rows in counts.items():
        found[(pool, data_source, _upstream(data_source, folders)), has_media] += rows
    return found


@lru_cache(4096)
def _upstream(data_source: str, folders: str) -> Upstream | None:
    return find_upstream(data_source, f"{folders}/" if folders else "")


def _terms(
    recipe: dict[str, Any], pool: str, data_source: str, upstream: Upstream | None
) -> tuple[Terms, Terms, str]:
    """Terms of annotations and media, and who states them.

    The first that states something: the recipe for this source, the registry, the recipe for the whole pool.
    """
    spec: dict[str, Any] = next((s for s in recipe["sources"] if s["name"] == pool), {})
    named = spec.get("licenses", {}).get(data_source, "")
    if states(named):
        terms = Terms(licence=" ".join(named.split()), said="as the recipe says")
        return terms, terms, "recipe"
    if upstream is not None:
        return upstream.annotations, upstream.media, "registry"
    whole = str(spec.get("license") or "")
    if spec.get("kind") == "demo":
        terms = Terms(
            licence=whole if states(whole) else recipe["license"] or NOT_STATED, said="drawn by this tool"
        )
        return terms, terms, "tool"
    if states(whole):
        terms = Terms(licence=" ".join(whole.split()), said="as the recipe says of the pool")
        return terms, terms, "recipe"
    return UNKNOWN, UNKNOWN, ""


def batches(
    folder: Path, config: str, columns: list[str] | None = None, *, size: int = 1 << 16
) -> Iterator[pa.RecordBatch]:
    """Stream a config's rows; `columns` None: all."""
    import pyarrow.parquet as pq

    for path in shards(folder, config):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(size, columns=columns)


def languages(texts: Iterable[str]) -> tuple[str, ...]:
    """Languages of at least one text in ten: English by function words; Chinese, Japanese, Korean by script.

    >>> languages(["The ball is to the left of the box.", "The cup is on the table."])
    ('en',)
    >>> languages(["球在盒子的左边。"]), languages(["Der Ball liegt links neben der Kiste."])
    (('zh',), ())
    """
    found = Counter(_language(text[:2000]) for text in texts)
    return tuple(sorted(name for name, n in found.items() if name and n >= found.total() / 10))


def _language(text: str) -> str:
    for name, script in _SCRIPTS:
        if len(script.findall(text)) >= max(2, len(text) // 50):
            return name
    words = [word.lower() for word in _WORD.findall(text)]
    small = sum(word in _ENGLISH for word in words)
    return "en" if words and small >= 0.15 * len(words) else ""


# The licence of a card: what the recipe declares, unless a source allows less.


class CardLicence(Model):
    """The licence that a card names."""

    declared: str
    """As the recipe has it, in one line; empty: nothing."""
    shown: str
    """The identifier for the Hub: the declared one, or `other`; empty: nothing is declared."""
    name: str
    """With `other`: what it stands for."""
    held_back: tuple[tuple[str, str], ...]
    """(source, why the declared licence would give more than it allows)."""


def card_licence(declared: str, sources: Iterable[SourceFacts]) -> CardLicence:
    """The declared licence, or `other` if a source of the rows allows less.

    Only the annotations' licences count: questions and answers stand in the rows, media do not.
    """
    plain = " ".join(declared.split())
    if not states(plain):
        return CardLicence(declared="", shown="", name="", held_back=())
    terms = {(source.label, source.annotations) for source in sources}
    whys = {(n, wider(plain, t.licence, non_commercial=bool(t.non_commercial))) for n, t in terms}
    held = sorted((label, why) for label, why in whys if why)
    known = licence_id(plain)
    name = "mixed, see the sources" if held else "" if is_identifier(known) else plain
    shown = "other" if name else known
    return CardLicence(declared=plain, shown=shown, name=name, held_back=tuple(held))


def unstated(sources: Iterable[SourceFacts]) -> list[SourceFacts]:
    """Sources whose annotations have no known licence."""
    return [source for source in sources if not source.annotations.stated]


def media_held_back(sources: Iterable[SourceFacts]) -> list[SourceFacts]:
    """Sources whose media may not be passed on, as far as is known."""
    return [s for s in sources if s.has_media and not passes_on(s)]


def passes_on(source: SourceFacts) -> bool:
    """Whether whole media files of a source may be passed on; clips of the demo world always may."""
    return source.stated_by == "tool" or source.media.redistribution == "yes"
