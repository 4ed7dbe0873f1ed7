"""A prompt as the steps pass it on: a stable system text, a user text with named holes, hints by problem type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Prompt(NamedTuple):
    """One versioned prompt file, read.

    Attributes:
        name: packaged name, or the path as given.
        system: text that is the same for every row, so that prompt caching works; may be empty.
        user: text with holes such as `{problem}`.
        sha256: of the file's UTF-8 bytes.
        hints: (problem type, hint) pairs for the hole `{hint}`.
    """

    name: str
    system: str
    user: str
    sha256: str
    hints: tuple[tuple[str, str], ...] = ()


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Fill the known holes in one pass: a hole that stands inside a filled-in value is never expanded.

    >>> fill("{problem} {options} {x}", {"problem": "what is {options}?", "options": "A"})
    'what is {options}? A {x}'
    """
    if not fields:
        return template
    hole = re.compile("|".join(re.escape("{" + name + "}") for name in fields))
    return hole.sub(lambda match: fields[match.group()[1:-1]], template)
