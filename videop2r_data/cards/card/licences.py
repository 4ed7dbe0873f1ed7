"""What licences allow, and the registry of known sources: stated licences, shared benchmarks."""

from __future__ import annotations

import re
from datetime import date
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal

from pydantic import Field

from videop2r_data.schemas import Model, parse_yaml

# Licences by identifier: what each allows, and whether a declared one gives more than a source's.

NOT_STATED = "not stated"
NOT_CHECKED = "not checked"
SILENT = (NOT_STATED, NOT_CHECKED)


class Licence(Model):
    """The terms of one licence that decide what a card may claim."""

    name: str
    commercial: bool = True
    derivatives: bool = True
    share_alike: bool = False
    """What is made of it must carry the same licence."""
    attribution: bool = True


def _cc(version: str, *kinds: str) -> dict[str, Licence]:
    words = {"by": "Attribution", "sa": "ShareAlike", "nc": "NonCommercial", "nd": "NoDerivatives"}
    return {
        f"cc-{kind}-{version}": Licence(
            name=f"Creative Commons {'-'.join(words[part] for part in kind.split('-'))} {version}",
            commercial="nc" not in kind,
            derivatives="nd" not in kind,
            share_alike="sa" in kind,
        )
        for kind in kinds
    }


KNOWN: dict[str, Licence] = {
    **_cc("4.0", "by", "by-sa", "by-nc", "by-nc-sa", "by-nd", "by-nc-nd"),
    **_cc("3.0", "by", "by-sa"),
    **_cc("2.0", "by"),
    "apache-2.0": Licence(name="Apache License 2.0"),
    "mit": Licence(name="MIT License"),
    "bsd-2-clause": Licence(name="BSD 2-Clause"),
    "bsd-3-clause": Licence(name="BSD 3-Clause"),
    "cc0-1.0": Licence(name="Creative Commons Zero", attribution=False),
    "cdla-permissive-1.0": Licence(name="Community Data License Agreement Permissive 1.0"),
    "cdla-permissive-2.0": Licence(name="Community Data License Agreement Permissive 2.0"),
    "cdla-sharing-1.0": Licence(name="Community Data License Agreement Sharing 1.0", share_alike=True),
    "odc-by": Licence(name="Open Data Commons Attribution"),
    "odbl": Licence(name="Open Database License", share_alike=True),
    "pddl": Licence(name="Public Domain Dedication and License", attribution=False),
    "unlicense": Licence(name="The Unlicense", attribution=False),
}
"""Identifier on the Hub -> terms. All of them let whole, unchanged files be passed on with their notice."""
_SLUG = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")
# A recipe's `license` is free text, and people write "mixed" or "see the sources" into it.
_SAYS_NOTHING = re.compile(
    r"\s*(?:mixed|various|several|see|unknown|other|not stated|not checked|none|n/?a|tbd|as (?:its|their|the)"
    r"|that of|those of)(?:[\s,:;.]|\Z)",
    re.IGNORECASE,
)


def licence_id(text: str) -> str:
    """The Hub's identifier for a licence in any usual spelling; an unknown text comes back as a slug.

    >>> licence_id("CC BY 4.0"), licence_id(" Apache License 2.0"), licence_id("mixed, see the sources")
    ('cc-by-4.0', 'apache-2.0', 'mixed,-see-the-sources')
    """
    plain = re.sub(r"[\s_]+", "-", text.strip().lower()).replace("-license", "").replace("-licence", "")
    plain = re.sub(r"(?<=[a-z])-?v(?=\d)", "-", plain)
    return {"apache2.0": "apache-2.0", "apache-2": "apache-2.0", "cc0": "cc0-1.0"}.get(plain, plain)


def states(text: str) -> bool:
    """Whether a text names a licence: not empty, and not a pointer such as "see data_source".

    >>> states("cc-by-4.0"), states("research only"), states("mixed, see data_source"), states(" ")
    (True, True, False, False)
    """
    return bool(text.strip()) and not _SAYS_NOTHING.match(text)


def is_identifier(text: str) -> bool:
    """Whether a text has the form of a licence identifier on the Hub."""
    return bool(_SLUG.fullmatch(text)) and states(text)


def wider(declared: str, source: str, *, non_commercial: bool = False) -> str:
    """Why a declared licence allows more than a source's licence does; empty if it does not.

    `non_commercial`: the source's own page forbids commercial use beside its licence.

    >>> wider("apache-2.0", "cc-by-4.0")
    ''
    >>> wider("apache-2.0", "cc-by-nc-sa-4.0")
    'it forbids commercial use'
    """
    if not states(source):
        return "its licence is not known"
    ours, theirs = KNOWN.get(licence_id(declared)), KNOWN.get(licence_id(source))
    same = licence_id(declared) == licence_id(source)
    commercial = ours is None or ours.commercial
    # in this order: a page that forbids commercial use counts even where both licences are the same
    checks = (
        (non_commercial and commercial, "it forbids commercial use"),
        (same, ""),
        (theirs is None, "its terms are not known to this tool"),
        (theirs and not theirs.commercial and commercial, "it forbids commercial use"),
        (theirs and not theirs.derivatives, "it forbids what is made of it to be passed on"),
        (theirs and theirs.share_alike, "it wants what is made of it to carry its own licence"),
        (theirs and theirs.attribution and ours and not ours.attribution, "it wants its makers to be named"),
    )
    return next((why for holds, why in checks if holds), "")


# The registry: `upstream.yaml` beside this module, read by a person from the pages of each source. It never
# changes by itself, so that a card made twice says the same.

_FILE = "upstream.yaml"
_MAX_NAME = 300
"""Characters of a name that are matched; a pool may hold anything."""


class Terms(Model):
    """The licence of a source's annotations, or of its media, and the page that states it."""

    licence: str
    """An identifier, `not stated` or `not checked`."""
    stated_at: str = ""
    """The page that was read."""
    said: str = ""
    """Further terms on that page, or why no licence is known."""
    non_commercial: bool | None = None
    """True: its page forbids commercial use beside the licence; None: as the licence says."""

    @property
    def stated(self) -> bool:
        """Whether a page that was read states a licence."""
        return self.licence not in SILENT

    @property
    def redistribution(self) -> Literal["yes", "not known"]:
        """Whether whole files may be passed on."""
        return "yes" if licence_id(self.licence) in KNOWN else "not known"

    @property
    def commercial(self) -> Literal["yes", "no", "not known"]:
        """Whether commercial use is allowed."""
        known = KNOWN.get(licence_id(self.licence))
        if self.non_commercial:
            return "no"
        return "not known" if known is None else "yes" if known.commercial else "no"


class Overlap(Model):
    """A public benchmark that uses clips or images of a source."""

    name: str
    shares: str


class Upstream(Model):
    """One source data set."""

    id: str
    name: str
    match: tuple[str, ...] = Field(min_length=1)
    url: str
    hub: str = ""
    """Its id on the Hub, if it is there."""
    annotations: Terms
    media: Terms
    made_from: tuple[str, ...] = ()
    note: str = ""
    benchmarks: tuple[Overlap, ...] = ()


class Pool(Model):
    """A collection of sources that gives their media too."""

    id: str
    name: str
    hub: str
    url: str
    kinds: tuple[str, ...]
    """Kinds of a recipe's sources that read it."""
    licence: str
    note: str = ""


class Registry(Model):
    """All of `upstream.yaml`."""

    read: date
    """When the pages were read."""
    pools: tuple[Pool, ...]
    sources: tuple[Upstream, ...]


@cache
def registry() -> Registry:
    """The packaged registry."""
    text = (files(__package__) / _FILE).read_text(encoding="utf-8")
    return parse_yaml(
        text, Registry, where=_FILE, what="registry", valid="it is packaged: install anew", allowed=""
    )


def find_upstream(data_source: str, path: str = "") -> Upstream | None:
    """The registry's entry for a row: matched by `data_source`, else by the folders of its media path.

    Args:
        data_source: as the row has it.
        path: media path; give it only for a pool with a known layout, since a folder `Math` proves nothing.

    >>> find_upstream("LLaVA-Video-178K/30_60_s_youtube_v0_1", "").id
    'llava-video-youtube'
    >>> find_upstream("", "./Knowledge/ScienceQA/images/1.png").id
    'scienceqa'
    >>> find_upstream("STARLIGHT", "clips/1.mp4") is None
    True
    """
    return _find(_folded(data_source)) or _find(_folded(path.rpartition("/")[0]))


@cache
def find_pool(kind: str) -> Pool | None:
    """The collection that a kind of source reads, where it is a known one."""
    return next((pool for pool in registry().pools if kind in pool.kinds), None)


@lru_cache(4096)
def _find(name: str) -> Upstream | None:
    if not name:
        return None
    return next(
        (one for one in registry().sources if any(fnmatchcase(name, pattern) for pattern in one.match)), None
    )


def _folded(name: str) -> str:
    """A name as patterns match it: lower case, letters, digits and slashes only."""
    plain = re.sub(r"[^a-z0-9/]", "", name[:_MAX_NAME].lower())
    return re.sub(r"/+", "/", plain).strip("/")


UNKNOWN = Terms(licence=NOT_CHECKED, said="this source is not in the registry")
"""Terms of a source without an entry."""
