"""What `p2r-data show` prints: one sample, its verdicts, and the calls behind it."""

from __future__ import annotations

from typing import Any

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli.render_tables import figure

if TYPE_CHECKING:
    from videop2r_data.builders.replay import CallView, SampleView

_COLOURS = {"observation": "green", "think": "cyan", "answer": "magenta"}
_VERDICTS = ("detail", "score", "score_reason", "judgement", "judge_explanation")


def render_show(view: SampleView, console: Console) -> None:
    """Print the question and what became of it, the three segments, then every call with its whole text."""
    console.print(_head(view))
    for name, text in view.segments.items():
        console.print()
        console.print(Text(name, style="bold"))
        console.print(Text(text, style=_COLOURS.get(name, "")))
    for call in view.calls:
        console.print()
        _call(call, console)


def _head(view: SampleView) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in view.sample.items():
        if value not in ("", [], None):
            table.add_row(name, Text("\n".join(map(str, value)) if isinstance(value, list) else str(value)))
    table.add_row("outcome", Text(view.outcome + (f" at {view.stage}: {view.reason}" if view.reason else "")))
    for name in _VERDICTS:
        value = getattr(view, name)
        if value not in ("", None):
            table.add_row(name, Text(figure(value) if isinstance(value, float) else str(value)))
    if view.calls:
        table.add_row("attempt", Text(f"{view.attempt} (counted from 0)"))
    if view.media:
        shape = f"{view.media['width']}x{view.media['height']} pixels"
        table.add_row("frames", Text(f"{view.media['count']} of {view.media['source_frames']}, {shape}"))
        if view.sample.get("data_type") == "video":
            table.add_row("at seconds", Text(", ".join(f"{t:.2f}" for t in view.media["times_s"])))
    return table


def _call(call: CallView, console: Console) -> None:
    console.rule(Text(f"{call.purpose} by {call.served or call.model}"), align="left")
    facts = [*_named(call.params), *_tokens(call.usage)]
    if call.finish_reason and call.finish_reason != "stop":
        facts.append(f"ended by {call.finish_reason}")
    console.print(Text(f"key {call.key}", style="dim"), soft_wrap=True)
    if facts:
        console.print(Text(", ".join(facts), style="dim"))
    for message in call.messages:
        frames = " (frames before the text)" if message["media"] else ""
        _block(f"{message['role']}{frames}", message["text"], console)
    _block("reply", call.answer or f"(none: {call.refused})", console)


def _block(head: str, text: str, console: Console) -> None:
    console.print()
    console.print(Text(f"{head}:", style="bold"))
    console.print(Text(text))


def _named(params: dict[str, Any]) -> list[str]:
    return [f"{name} {value:g}" for name, value in params.items() if value is not None]


def _tokens(usage: dict[str, int]) -> list[str]:
    names = {
        "input_tokens": "tokens in",
        "output_tokens": "tokens out",
        "cache_read_tokens": "read from cache",
        "cache_write_tokens": "written to cache",
    }
    return [f"{usage[key]:,} {name}" for key, name in names.items() if usage.get(key)]
