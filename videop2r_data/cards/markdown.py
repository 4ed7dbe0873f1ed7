"""Markdown that text from outside cannot break out of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from videop2r_data.schemas import visible, visible_line

_MARKUP = re.compile(r"<(?!https?://)(?=[A-Za-z/!?])")
"""Where raw HTML would begin: a description is Markdown, and a recipe may be somebody else's."""


def cell(text: str) -> str:
    """Text from outside as one harmless cell of a table: no markup, nothing that steers a terminal.

    >>> cell("a | <b>")
    'a \\\\| \\\\<b\\\\>'
    """
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#!" else c for c in visible_line(text))


def prose(text: str) -> str:
    """Markdown from outside, without raw HTML."""
    return _MARKUP.sub("&lt;", visible(text).strip())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
