"""The licence of a card: what the recipe declares, unless a source allows less."""

from __future__ import annotations

from collections.abc import Iterable

from videop2r_data.cards.card_rows import SourceFacts
from videop2r_data.cards.licences import is_identifier, licence_id, states, wider
from videop2r_data.schemas import Model


class CardLicence(Model):
    """What a card may say."""

    declared: str
    """As the recipe has it, in one line; empty: nothing."""
    shown: str
    """The identifier for the Hub: the declared one, or `other`; empty: nothing is declared."""
    name: str
    """With `other`: what it stands for."""
    held_back: tuple[tuple[str, str], ...]
    """(source, why the declared licence would give more than it allows)."""


def card_licence(declared: str, sources: Iterable[SourceFacts]) -> CardLicence:
    """The licence that a card names: never one that gives more than what the rows were made of.

    Questions and answers of the sources stand in the rows, so their terms count, not those of the media.

    Args:
        declared: `license` of the recipe.
        sources: of the rows.
    """
    plain = " ".join(declared.split())
    if not states(plain):
        return CardLicence(declared="", shown="", name="", held_back=())
    held = {
        (source.label, why)
        for source in sources
        if (
            why := wider(
                plain,
                source.annotations.licence,
                non_commercial=bool(source.annotations.non_commercial),
            )
        )
    }
    known = licence_id(plain)
    name = "mixed, see the sources" if held else "" if is_identifier(known) else plain
    return CardLicence(
        declared=plain,
        shown="other" if name else known,
        name=name,
        held_back=tuple(sorted(held)),
    )


def unstated(sources: Iterable[SourceFacts]) -> list[SourceFacts]:
    """The sources of questions for which nobody states a licence that was read."""
    return [source for source in sources if not source.annotations.stated]


def media_held_back(sources: Iterable[SourceFacts]) -> list[SourceFacts]:
    """The sources whose media are not known to be free to pass on."""
    return [s for s in sources if s.has_media and not passes_on(s)]


def passes_on(source: SourceFacts) -> bool:
    """Whether whole media files of a source may be passed on.

    What a recipe's demo world drew belongs to whoever drew it.
    """
    return source.stated_by == "tool" or source.media.redistribution == "yes"
