"""Where a card stands on the Hub, kept in the card itself: made anew, it gets the same bytes."""

from __future__ import annotations

import re
from datetime import date
from typing import Self

from pydantic import Field, ValidationError

from videop2r_data.schemas import Model

_LINE = re.compile(r"<!-- p2r:card (\{[^\n]{0,2000}\}) -->")


class Published(Model):
    """A data set as a repository of the Hub."""

    repo: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    """owner/name."""
    url: str = Field(pattern=r"^https?://[A-Za-z0-9_.:/-]+$", max_length=400)
    """Of its page."""
    date: date
    """When these rows were first pushed there."""
    lock: str = Field(pattern=r"^[0-9a-f]{64}$")
    """sha256 of the lock that was pushed: another lock, other rows, and the rest no longer holds."""
    media: bool = False
    """Its clips lie in the repository too."""
    preview: int = Field(default=0, ge=0, le=1000)
    """Rows of the config `preview`; 0: there is none."""

    @property
    def owner(self) -> str:
        """The account or organisation."""
        return self.repo.partition("/")[0]

    def line(self) -> str:
        """As one line of Markdown that nobody sees on the page."""
        return f"<!-- p2r:card {self.model_dump_json()} -->"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """What a card says of itself; None: nothing, or nothing that holds."""
        found = _LINE.search(text)
        try:
            return cls.model_validate_json(found[1]) if found else None
        except ValidationError:
            return None
