"""Which licences let somebody else pass media on; everything that is not known to, does not."""

from __future__ import annotations

import re
from typing import Any

REDISTRIBUTABLE = {
    "apache-2.0": "Apache License 2.0",
    "mit": "MIT License",
    "bsd-2-clause": "BSD 2-Clause",
    "bsd-3-clause": "BSD 3-Clause",
    "cc0-1.0": "Creative Commons Zero",
    "cc-by-2.0": "Creative Commons Attribution 2.0",
    "cc-by-3.0": "Creative Commons Attribution 3.0",
    "cc-by-4.0": "Creative Commons Attribution 4.0",
    "cc-by-sa-3.0": "Creative Commons Attribution-ShareAlike 3.0",
    "cc-by-sa-4.0": "Creative Commons Attribution-ShareAlike 4.0",
    "cc-by-nc-4.0": "Creative Commons Attribution-NonCommercial 4.0",
    "cc-by-nc-sa-4.0": "Creative Commons Attribution-NonCommercial-ShareAlike 4.0",
    "cc-by-nc-nd-4.0": "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0, whole files only",
    "cc-by-nd-4.0": "Creative Commons Attribution-NoDerivatives 4.0, whole files only",
    "cdla-permissive-1.0": "Community Data License Agreement Permissive 1.0",
    "cdla-permissive-2.0": "Community Data License Agreement Permissive 2.0",
    "cdla-sharing-1.0": "Community Data License Agreement Sharing 1.0",
    "odc-by": "Open Data Commons Attribution",
    "odbl": "Open Database License",
    "pddl": "Public Domain Dedication and License",
    "unlicense": "The Unlicense",
}
"""Identifier on the Hub -> name. All of them let whole, unchanged files be passed on with their notice."""


def licence_id(text: str) -> str:
    """A licence as people write it, as its identifier.

    >>> licence_id("CC BY 4.0"), licence_id(" Apache License 2.0"), licence_id("mixed, see the sources")
    ('cc-by-4.0', 'apache-2.0', 'mixed,-see-the-sources')
    """
    plain = re.sub(r"[\s_]+", "-", text.strip().lower()).replace("-license", "").replace("-licence", "")
    plain = re.sub(r"(?<=[a-z])-?v(?=\d)", "-", plain)
    return {"apache2.0": "apache-2.0", "apache-2": "apache-2.0", "cc0": "cc0-1.0"}.get(plain, plain)


def may_be_passed_on(text: str) -> bool:
    """Whether a source's `license` is one that lets its media be passed on.

    >>> may_be_passed_on("CC-BY-4.0"), may_be_passed_on("mixed"), may_be_passed_on("")
    (True, False, False)
    """
    return licence_id(text) in REDISTRIBUTABLE


def refused_sources(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, licence) of the sources whose media may not be passed on.

    Args:
        recipe: as the lock keeps it. Made-up worlds (`kind: demo`) belong to whoever drew them.
    """
    return [
        (str(source["name"]), str(source.get("license") or "none given"))
        for source in recipe.get("sources", ())
        if source.get("kind") != "demo" and not may_be_passed_on(str(source.get("license", "")))
    ]
