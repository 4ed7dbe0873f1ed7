"""Markdown of cards: cells, prose and tables of text from strangers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from videop2r_data.schemas import visible, visible_line

# Text of recipes, rows and model names comes from strangers: everything below escapes it here.

_MARKUP = re.compile(r"<(?!https?://)(?=[A-Za-z/!?])")
"""Where raw HTML would begin; addresses in angle brackets are Markdown and stay."""


def cell(text: str) -> str:
    """Text from outside as a table cell: markup escaped, control characters removed.

    >>> cell("a | <b>")
    'a \\\\| \\\\<b\\\\>'
    """
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#!" else c for c in visible_line(text))


def prose(text: str) -> str:
    """Markdown from outside, without raw HTML."""
    return _MARKUP.sub("&lt;", visible(text).strip())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the cells are already escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


_LABEL = 120
"""Characters of a name."""


def short(name: str) -> str:
    """A name, cut."""
    return name if len(name) <= _LABEL else f"{name[:_LABEL]}…"
