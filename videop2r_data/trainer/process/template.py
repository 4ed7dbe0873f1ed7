"""A completion against the template, per process: what is P's fault and what is R's.

`segment_spans` names the first fault of a whole text; training needs to know whose it is. The observation is
judged by the text up to its end, the reasoning by what follows; both hold exactly if the text is a trace.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from videop2r_data.schemas import SegmentSpans, Span, segment_spans
from videop2r_data.trainer.process.specs import Style

Case = Literal["split", "unclosed", "unattributable", "agnostic"]
_OPEN, _CLOSE, _THINK = "<observation>", "</observation>", "<think>"
_STAND_IN = "<observation>-</observation>"
"""A faultless observation, to ask the parser about a text that has none."""


class Template(NamedTuple):
    """What a text shows of the template.

    Attributes:
        spans: of the whole text, with its first fault against the template of the style.
        case: how its tokens are attributed: `split` (one observation pair at the start: P up to its end, R
            after it), `unclosed` (an observation that never ends: all P), `agnostic` (all R) or
            `unattributable`.
        boundary: `split`: character offset of the end of `</observation>`; else -1.
        form_p: an observation in its tags, not blank, with nothing but white space before it.
        form_r: one think and one answer in their tags, not blank, in this order, with nothing but white space
            around them, and no further segment tag.
        form: the whole template; with style `process` equal to `form_p and form_r`.
        observation: its content if `form_p`, else None: what a judge may be asked about.
    """

    spans: SegmentSpans
    case: Case
    boundary: int
    form_p: bool
    form_r: bool
    form: bool
    observation: str | None


def read_template(text: str, style: Style = "process") -> Template:
    """Read any text; total and linear.

    >>> read_template("<observation>o</observation> <think>t").case
    'split'
    >>> found = read_template("<think>t</think><answer>A</answer>")
    >>> (found.form_p, found.form_r, found.case)
    (False, True, 'unattributable')
    """
    if style == "agnostic":
        spans = _without_observation(text)
        good = spans.fault is None
        return Template(spans, "agnostic", -1, False, good, good, None)
    spans = segment_spans(text)
    found = spans.observation
    if found is not None and not text[: found.open].strip():
        content = text[found.start : found.end]
        form_p = bool(content.strip())
        form_r = spans.fault is None or _is_reasoning(text, found.close)
        observation = content if form_p else None
        return Template(spans, "split", found.close, form_p, form_r, form_p and form_r, observation)
    never_closed = text.lstrip().startswith(_OPEN) and _CLOSE not in text
    start = text.find(_THINK)
    form_r = start >= 0 and _is_reasoning(text, start)
    return Template(spans, "unclosed" if never_closed else "unattributable", -1, False, form_r, False, None)


def _is_reasoning(text: str, start: int) -> bool:
    return segment_spans(_STAND_IN + text[start:]).fault is None


def _without_observation(text: str) -> SegmentSpans:
    """The spans of a text that must hold think and answer only."""
    found, n = segment_spans(_STAND_IN + text), len(_STAND_IN)
    think, answer = (
        None if span is None else Span(*(offset - n for offset in span))
        for span in (found.think, found.answer)
    )
    return SegmentSpans(None, think, answer, found.fault, -1 if found.fault is None else max(found.at - n, 0))
