"""The console that the commands print with: text from outside is shown, never obeyed."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from videop2r_data.schemas.visible_text import visible


class SafeConsole(Console):
    """A console that shows control characters of what is printed instead of sending them.

    Questions, traces, paths and servers' messages come from outside. The console's own colours and cursor
    moves are segments of their own and stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, each text visible."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                text = visible(segment.text)
                yield segment if text is segment.text else Segment(text, segment.style)
