"""Sampled completions of a run: one record each in `samples.jsonl`, and how a person sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from videop2r_data.errors import SourceError
from videop2r_data.schemas import Role, TraceGrammar, default_grammar, trace_parser, visible
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.judging.base import Judged
from videop2r_data.trainer.look.curves import SAMPLES, read_lines

STYLES = {
    Role.PERCEPTION: "bright_blue",
    Role.REASONING: "yellow",
    Role.ANSWER: "bold bright_magenta",
    Role.OTHER: "green",
}
"""Blue, yellow and magenta stay apart for every kind of colour blindness; the tags stay visible too."""
OUTSIDE = "red underline"
_PARTS = ("accuracy", "format", "length", "total")
_STREAMS = {"p": "perception", "r": "reasoning"}
_WIDEST = 100_000
"""Characters of a completion that are shown."""


def sample_record(
    *,
    step: int,
    example: Example,
    group: int,
    rollout: int,
    text: str,
    finished: bool,
    rewards: Mapping[str, float | None],
    advantages: Mapping[str, float] | None = None,
    tokens: Mapping[str, int] | None = None,
    judged: Judged | None = None,
    grammar: TraceGrammar | None = None,
) -> dict[str, Any]:
    """One line of `samples.jsonl`.

    Args:
        step: the update that the completion was sampled for.
        group: which prompt of the step, from 0, over all processes.
        rollout: which completion of the group, from 0 to G - 1.
        finished: whether it ended by itself; False: cut at the longest length.
        rewards: `accuracy_p`, `format_p`, `length_p`, `total_p`, and so on for every stream, and `total`;
            None: unscored.
        advantages: by stream, e.g. `p`, `r`.
        tokens: lengths by stream, and `all`.
        judged: the verdict; None: nobody was asked.
        grammar: what a trace is; None: the default.

    Returns:
        A JSON object; `segments` holds offsets [open, start, end, close] into `text`, as `schemas.Piece`: of
        the first segment of each name; of a grammar whose segments repeat, a list of all of a name.
    """
    grammar = grammar or default_grammar()
    spans = trace_parser(grammar).spans(text)
    places = {name: [list(p[1:]) for p in spans.pieces if p.name == name] for name in grammar.named}
    segments = {name: one[0] if name in grammar.single else one for name, one in places.items() if one}
    return {
        "step": step,
        "sample_id": example.sample_id,
        "group": group,
        "rollout": rollout,
        "problem": example.problem,
        "options": list(example.options),
        "reference": example.reference,
        "text": text,
        "finished": finished,
        "segments": segments,
        "fault": spans.fault.value if spans.fault is not None else None,
        "tokens": dict(tokens or {}),
        "rewards": dict(rewards),
        "advantages": dict(advantages or {}),
        "judge": None if judged is None else _said(judged),
    }


def _said(judged: Judged) -> dict[str, Any]:
    """A verdict as JSON; of several decisions each, with its score."""
    if not judged.parts:
        return {"sufficient": judged.sufficient, "reason": str(judged.reason), "words": judged.detail}
    parts = judged.parts.items()
    said = {k: {"score": one.score, "reason": str(one.reason), "words": one.detail} for k, one in parts}
    return {"score": judged.score, "parts": said}


def read_samples(run: Path, *, step: int | None = None) -> list[dict[str, Any]]:
    """The records of one step, the last of the run if none is named.

    SourceError: there is no such file or no such step.
    """
    path = run / SAMPLES
    rows = [row for row in read_lines(path)[0] if isinstance(row.get("step"), int)]
    steps = sorted({row["step"] for row in rows})
    if not steps:
        raise SourceError("no sampled completion yet", where=str(path))
    wanted = steps[-1] if step is None else step
    if wanted not in steps:
        near = ", ".join(map(str, sorted(sorted(steps, key=lambda known: abs(known - wanted))[:5])))
        raise SourceError(f"no sample of step {wanted}", where=str(path), hint=f"name one of {near}")

    def place(row: Mapping[str, Any]) -> tuple[int, ...]:
        """Group and rollout; in a damaged record -1."""
        return tuple(at if isinstance(at := row.get(name), int) else -1 for name in ("group", "rollout"))

    # a step that was done again after a crash: its last record
    found = {place(row): row for row in rows if row["step"] == wanted}
    return [found[key] for key in sorted(found)]


def render_samples(rows: Iterable[Mapping[str, Any]], grammar: TraceGrammar | None = None) -> RenderableType:
    """The records of `read_samples`, each group under its question; `grammar` is the default one if None."""
    parts: list[RenderableType] = []
    for (step, _), (first, *more) in groupby(rows, key=lambda row: (row.get("step"), row.get("group"))):
        head = Text(f"step {step}, {clean(str(first.get('sample_id')))}")
        parts += [Rule(head, align="left"), _question(first)]
        for row in (first, *more):
            head = Text(f"rollout {row.get('rollout')}", style="bold")
            parts += [Text(), head, colour(str(row.get("text", "")), grammar)]
            if row.get("finished") is False:
                parts.append(Text("… cut at the longest length", style=OUTSIDE))
            parts += [_rewards(row), *_judge(row)]
    return Group(*parts)


def colour(text: str, grammar: TraceGrammar | None = None) -> Text:
    """A completion with its segments coloured, tags dim but visible, and text outside of them underlined;
    as `clean` shows it."""
    shown = Text(clean(text[:_WIDEST]))  # one character for one: the offsets stay right
    if len(text) > _WIDEST:
        shown.append(f" … {len(text) - _WIDEST:,} more characters", style="dim")
    grammar = grammar or default_grammar()
    spans = trace_parser(grammar).spans(text).pieces
    for span in spans:
        shown.stylize(STYLES[grammar.named[span.name].role], span.open, span.close)
        shown.stylize("dim", span.open, span.start)
        shown.stylize("dim", span.end, span.close)
    at = 0
    for start, end in [*((s.open, s.close) for s in spans), (min(len(text), _WIDEST),) * 2]:
        gap = text[at:start]
        if gap.strip():
            shown.stylize(OUTSIDE, at + len(gap) - len(gap.lstrip()), at + len(gap.rstrip()))
        at = max(at, end)
    return shown


def clean(text: str) -> str:
    r"""Text that cannot act on a terminal; as long as before.

    >>> clean("a\x1b[31mb\u202e")
    'a␛[31mb�'
    """
    return visible(text.replace("\r", "␍"))  # `visible` would make one of two characters at a line's end


def _question(row: Mapping[str, Any]) -> RenderableType:
    options = row.get("options")
    lines = [str(row.get("problem", "")), *map(str, options if isinstance(options, list) else ())]
    text = Text(clean("\n".join(lines)))
    text.append(f"\nreference: {clean(str(row.get('reference', '')))}", style="bold")
    return text


def _rewards(row: Mapping[str, Any]) -> Table:
    """Streams down, parts of the reward across."""
    rewards, tokens, advantages = (_mapping(row, name) for name in ("rewards", "tokens", "advantages"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for head in (*_PARTS, "advantage", "tokens"):
        table.add_column(head, justify="right")
    keys = [key.removeprefix("total_") for key in rewards if key.startswith("total_")] or list(_STREAMS)
    for key in keys:
        cells = [_figure(rewards, f"{part}_{key}") for part in _PARTS]
        name = _STREAMS.get(key, clean(key))
        table.add_row(name, *cells, _figure(advantages, key, "+.3f"), _figure(tokens, key, ",.0f"))
    others = sorted(set(advantages) - set(keys))
    if "total" in rewards or others:
        gained = ", ".join(_figure(advantages, key, "+.3f") for key in others)
        table.add_row("sum", "", "", "", _figure(rewards, "total"), gained, _figure(tokens, "all", ",.0f"))
    return table


def _judge(row: Mapping[str, Any]) -> list[Text]:
    """What the judge said, on each thing that it decided."""
    judge = _mapping(row, "judge")
    parts = _mapping(judge, "parts")
    said = [(str(name), _figure(one, "score"), one) for name in parts if (one := _mapping(parts, name))]
    if judge and not parts:
        verdict = judge.get("sufficient")
        word = "sufficient" if verdict is True else "not sufficient" if verdict is False else "unscored"
        said = [("judge", word, judge)]
    told: list[Text] = []
    for who, word, one in said:
        told.append(Text(f"{clean(who)}: {word}", style="bold"))
        told[-1].append(
            f" ({clean(str(one.get('reason', '')))}) {clean(str(one.get('words', '')))}", style="dim"
        )
    return told


def _figure(values: Mapping[str, Any], key: str, form: str = ".2f") -> str:
    if key not in values:
        return ""
    value = values[key]
    return format(value, form) if isinstance(value, int | float) else "unscored"


def _mapping(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = row.get(name)
    return found if isinstance(found, dict) else {}


def pick(rows: Sequence[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """The first `limit` groups whole; None: all."""
    kept = list(dict.fromkeys(row.get("group") for row in rows))[:limit]
    return [row for row in rows if row.get("group") in kept]
