"""The registry of known source data sets: which licence is stated where, which benchmarks share clips."""

from __future__ import annotations

import re
from datetime import date
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal

from pydantic import Field

from videop2r_data.cards.licences import KNOWN, NOT_CHECKED, SILENT, licence_id
from videop2r_data.schemas import Model, parse_yaml

_FILE = "upstream.yaml"
_MAX_NAME = 300
"""Characters of a name that are matched; a pool may hold anything."""


class Terms(Model):
    """The licence of one half of a source, and where it is stated."""

    licence: str
    """An identifier, `not stated` or `not checked`."""
    stated_at: str = ""
    """The page that was read."""
    said: str = ""
    """What it says beside, or why there is nothing."""
    non_commercial: bool | None = None
    """True: its page forbids commercial use beside the licence; None: as the licence says."""

    @property
    def stated(self) -> bool:
        """Whether somebody states it, and it was read."""
        return self.licence not in SILENT

    @property
    def redistribution(self) -> Literal["yes", "not known"]:
        """Whether whole files may be passed on."""
        known = KNOWN.get(licence_id(self.licence))
        return "yes" if known is not None and known.share else "not known"

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
    """`upstream.yaml`."""

    read: date
    """When the pages were read."""
    pools: tuple[Pool, ...]
    sources: tuple[Upstream, ...]


@cache
def registry() -> Registry:
    """The packaged registry."""
    text = (files("videop2r_data.cards") / _FILE).read_text(encoding="utf-8")
    return parse_yaml(
        text, Registry, where=_FILE, what="registry", valid="it is packaged: install anew", allowed=""
    )


def find_upstream(data_source: str, path: str = "") -> Upstream | None:
    """The entry of a row: by what it says of its source, else by the folders of its media.

    Args:
        data_source: as the row has it.
        path: of its media, only where its pool is laid out as a known one: folders called `Math` are many.

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
    """Lower case, letters and digits only, folders kept apart."""
    plain = re.sub(r"[^a-z0-9/]", "", name[:_MAX_NAME].lower())
    return re.sub(r"/+", "/", plain).strip("/")


UNKNOWN = Terms(licence=NOT_CHECKED, said="this source is not in the registry")
"""Of a source that the registry does not have."""
