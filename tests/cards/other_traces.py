"""A small data set whose traces have another form, written by the exporter itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tests.builders.release_rows import Row, accepted, lock_of, question, recipe, refused
from videop2r_data.builders.export import DatasetWriter
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.schemas import SEGMENTS, Trace, TraceGrammar, load_grammar, parse_trace

THINKER = (
    "The clip is short. "
    "<time>00:00-00:01</time> <caption>A ball rolls in.</caption> <think>Which way?</think> So far A or B. "
    "<time>00:01-00:02</time> <caption>It hits the door.</caption> <answer>B</answer>"
)
"""A trace of `video-thinker`: two rounds, the second without a think; free text in two places."""
OPTIONS = ("A. to the left", "B. to the door")


def trace_row(number: int, text: str, grammar: TraceGrammar, kind: str = "video", **cells: Any) -> Row:
    """An accepted row whose trace is `text`, with the columns that the grammar adds."""
    trace = parse_trace(text, grammar)
    assert isinstance(trace, Trace)
    views = {"observation": trace.observation, "think": trace.think, "answer": trace.answer}
    row = accepted(number, "multiple choice", kind, "B", OPTIONS) | views
    single = {name: "".join(trace.texts(name)) for name in grammar.single if name not in SEGMENTS}
    segments = [{"name": name, "text": text} for name, text in trace.parts]
    return row | {"process": trace.process, "output": text, "segments": segments} | single | cells


def write_set(folder: Path, name: str | TraceGrammar, texts: list[str], bad: tuple[str, ...] = ()) -> Path:
    """A data set of these traces, and a rejected row for each bad text, with its card.

    Args:
        folder: of the data set.
        name: a packaged grammar, or one's own.
        texts: traces of the grammar.
        bad: texts that are none.
    """
    grammar = load_grammar(name) if isinstance(name, str) else name
    sft = [trace_row(at, text, grammar) for at, text in enumerate(texts)]
    return write_rows(folder, grammar, sft, bad)


def write_rows(folder: Path, grammar: TraceGrammar, sft: list[Row], bad: tuple[str, ...] = ()) -> Path:
    """The same with rows that are made already."""
    rejected = [refused(100 + at, "verify", "missing_segment", output=text) for at, text in enumerate(bad)]
    names = question(0, "", "video", "")
    rows = {
        "sft": sft,
        "rl": [{name: row[name] for name in names} for row in [*sft, *rejected]],
        "rejected": rejected,
    }
    with DatasetWriter(folder, grammar) as writer:
        for config, made in rows.items():
            for row in made:
                writer.configs[config].add(row)
        lock = lock_of(rows, writer.close())
        said = recipe().model_copy(update={"trace": grammar}).model_dump(mode="json")
        document = lock.model_copy(update={"recipe": said}).model_dump(mode="json")
        (writer.staging / "build.lock.json").write_bytes(orjson.dumps(document))
        write_dataset_card(writer.staging)
        writer.commit()
    return folder
