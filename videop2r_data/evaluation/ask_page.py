"""An answer as one HTML page: no script, nothing from elsewhere.

Texts of models and of files enter the document escaped; a Content-Security-Policy allows this style and
pictures out of the page itself, and no script at all.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html import escape
from importlib import resources

from videop2r_data.cards.gallery import colours, fill_fields, parts_of, policy
from videop2r_data.evaluation.ask import Asked, Seen
from videop2r_data.prompts import show_options
from videop2r_data.schemas import (
    DataType,
    ProblemType,
    Role,
    SegmentSpec,
    Template,
    TraceGrammar,
    visible,
    visible_line,
)

_TOLD = re.compile(
    r"(?<![\w.:])(?:(?P<clock>\d{1,2}:\d{2}(?::\d{2})?)(?![\w:])"
    r"|(?P<s>\d{1,5}(?:\.\d{1,3})?)(?: ?s| ?secs?\.?| seconds?)\b)"
)
"""A time in free text: `3.5 s`, `12 seconds`, `01:30`."""
_NUMBER = re.compile(r"\d{1,5}(?:\.\d{1,3})?")


def render_page(seen: Seen, grammar: TraceGrammar) -> str:
    """The whole document of one answer: its frames, its segments in their colours, times linked to frames."""
    return document(visible_line(seen.asked.problem)[:120], render_answer(seen, grammar), media="data:")


def document(title: str, body: str, *, media: str, forms: str = "'none'") -> str:
    """An HTML document without a script.

    Args:
        title: of the window; any text.
        body: HTML.
        media: sources allowed for pictures and clips, as a Content-Security-Policy names them.
        forms: where its forms may be sent, likewise.
    """
    style = colours() + asset("ask.css")
    fields = {"title": escape(title), "style": style, "body": body}
    return fill_fields(asset("ask.html"), fields | {"policy": escape(policy(style, "", media, forms=forms))})


def asset(name: str) -> str:
    """A file beside this module."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def render_answer(seen: Seen, grammar: TraceGrammar) -> str:
    """An answer as the body of a page."""
    asked = seen.asked
    options = "".join(f"<li>{shown_text(option)}</li>" for option in show_options(asked.options))
    blocks = [
        f"<h1>{shown_text(asked.problem)}</h1>",
        f'<ul class="options">{options}</ul>' if options else "",
        f'<p class="facts">{escape(facts(asked))}</p>',
        f'<h2>Answer</h2><p class="answer">{shown_text(asked.answer or "(none was found)")}</p>',
    ]
    if asked.blind is not None:
        blocks.append(
            f'<p class="facts">Without the media: {shown_text(asked.blind or "(none was found)")}</p>'
        )
    problems = (asked.failed, f"No whole trace: {asked.fault}" if asked.fault and asked.text else "")
    blocks += [f'<p class="wrong">{shown_text(problem)}</p>' for problem in problems if problem]
    blocks.append("<h2>What the model wrote</h2>")
    for kind, text, *name in parts_of(asked.text, grammar):
        if kind != "tag" and text.strip():
            called = name[0] if name else "outside of every segment" if kind == "outside" else kind
            spec = grammar.named.get(called)
            blocks.append(
                f'<section class="segment" data-kind="{kind}"><h3>{shown_text(called)}</h3>'
                f"<p>{_linked(text.strip(), spec, asked)}</p></section>"
            )
    blocks.append(f"<details><summary>As it came</summary><pre>{shown_text(asked.text)}</pre></details>")
    if seen.pictures:
        figures = "".join(_figures(seen))
        blocks.append(f'<h2>Frames that the model saw</h2><div class="frames">{figures}</div>')
    return "\n".join(block for block in blocks if block) + "\n"


def facts(asked: Asked) -> str:
    """File, frames, model and tokens on one line."""
    told = [visible_line(asked.file) or "no media"]
    if asked.frame_indices:
        size = f"{asked.frame_width} x {asked.frame_height}"
        count = len(asked.frame_indices)
        told.append(
            f"{count} of {asked.source_frames:,} frames, {size}" if count > 1 else f"one frame, {size}"
        )
    took = "asked before" if asked.seconds is None else f"{asked.seconds:.1f} s"
    tokens = asked.usage
    read = tokens.input_tokens + tokens.cache_read_tokens + tokens.cache_write_tokens
    told += [visible_line(asked.served), f"{read:,} tokens read, {tokens.output_tokens:,} written, {took}"]
    return " · ".join(told)


def _figures(seen: Seen) -> Iterator[str]:
    asked = seen.asked
    still = asked.data_type is DataType.IMAGE
    for at, (picture, index, time) in enumerate(
        zip(seen.pictures, asked.frame_indices, asked.frame_times_s, strict=True)
    ):
        called = "the image" if still else f"frame {index}, {time:.1f} s"
        data = base64.b64encode(picture).decode("ascii")
        yield (
            f'<figure id="f{at}"><img src="data:{seen.mime};base64,{data}" width="{asked.frame_width}" '
            f'height="{asked.frame_height}" alt="{called}"><figcaption>{called}</figcaption></figure>'
        )


def _linked(text: str, spec: SegmentSpec | None, asked: Asked) -> str:
    """A segment's text; each time in it leads to the frame nearest to it."""
    out, last = "", 0
    for start, end, seconds in times_in(text, spec, asked):
        frame = _nearest(asked, seconds)
        out += f'{shown_text(text[last:start])}<a href="#f{frame}">{shown_text(text[start:end])}</a>'
        last = end
    return out + shown_text(text[last:])


def _nearest(asked: Asked, seconds: float) -> int:
    """The frame nearest to a time that a model names, from the beginning of the part that it saw."""
    at = seconds + (asked.start_s or 0.0)
    return min(range(len(asked.frame_times_s)), key=lambda i: abs(asked.frame_times_s[i] - at))


def times_in(text: str, spec: SegmentSpec | None, asked: Asked) -> list[tuple[int, int, float]]:
    """Times that a segment names: (start, end, seconds), in order, none over another.

    Args:
        text: of the segment.
        spec: whose typed fields are read; free text is read for `3.5 s`, `12 seconds`, `01:30` as well.
        asked: the question. Where it asks for an interval, the answer's numbers are times.
    """
    if len(asked.frame_times_s) < 2:
        return []
    found: list[tuple[int, int, float]] = []
    until = asked.duration_s if asked.end_s is None else asked.end_s
    shares = {"percent": 0.01, "fraction": 1.0}
    templates = [Template(text) for text in (*spec.fields, spec.holds) if text] if spec else []
    for value in (one for template in templates for values in template.read(text) for one in values):
        scale = (
            shares[value.unit] * (until - (asked.start_s or 0.0)) if value.unit in shares and until else 1.0
        )
        if value.kind == "time" and (until or value.unit not in shares):
            found.append((value.start, value.end, value.numbers[0] * scale))
    interval = asked.problem_type is ProblemType.TEMPORAL_GROUNDING
    if interval and spec is not None and spec.role is Role.ANSWER:
        found += [(*m.span(), float(m.group())) for m in _NUMBER.finditer(text)]
    for told in _TOLD.finditer(text):
        parts = (told["clock"] or told["s"]).split(":")
        found.append((*told.span(), sum(float(x) * 60**i for i, x in enumerate(reversed(parts)))))
    kept: list[tuple[int, int, float]] = []
    for one in sorted(found):
        if not kept or one[0] >= kept[-1][1]:
            kept.append(one)
    return kept


def shown_text(text: str) -> str:
    """Any text as HTML, with a sign for each control character."""
    return escape(visible(text))
