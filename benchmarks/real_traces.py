"""What real rows of published formats are under their grammars: parsed, or with which fault, each looked at.

    python benchmarks/real_traces.py [SAMPLES] [--write]

SAMPLES (or $P2R_SHARED/samples) is a folder of real rows from public repositories and papers, which is not
part of this repository. Grammars that the package does not have stand in benchmarks/grammars: they are
examples to copy. `--write` puts the tables into benchmarks/results/real_traces.md.
"""

from __future__ import annotations

import argparse
import ast
import html
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "real_traces.md"

GRAMMARS = {
    "video_thinker_paper": "video-thinker",
    "visionary_r1_paper": "visionary-r1",
    "vision_sr1_format": "vision-sr1",
    "llava_cot": "llava-cot",
    "r1v_counting_2b_instruct": "think-answer",
    "r1v_geoqa_7b": "think-answer",
    "twgrpo_rollouts_format": "think-answer",
    "videochatr1_mmvu": "think-answer",
    "videorft3b_videommmu_t02": "think-answer",
    "video_toc_sft": "video-toc",
    "videor1fork_bbox_between": "bbox-between",
    "embedrl_rethink_paper": "rethink",
    "other_marks": "think-then-text",
}
"""File -> grammar of its rows."""
EXAMPLES = ("omnivideo-r1", "rethink", "rethink", "open-o3", "videochat-r1", "", *["think-answer"] * 6)
EXAMPLES = (*EXAMPLES, "", "", "videoauto-r1", "think-answer")
"""Grammar of each row of published_examples; empty: the row is no trace of anything."""
NO_TRACE = {
    "molmo2_point_strings": "points and tracks in plain text, from a unit test: no segment at all",
    "qwen3vl_cookbook_outputs": "printed cells: rounds with tools between them, or plain text and JSON",
    "vcrbench_reference_steps": "a list of sentences in a column, and no text that holds them",
    "published_examples": "the content of an answer, a tool call, a single mark inside think",
}
"""Files with rows that are no trace in one text -> what they are instead."""
LOOKED = {
    "video_thinker_paper": {
        "2": "the untrained base model with the same prompt: nothing in its answer tags",
        "3": "Video-R1 with the same question: one think, no rounds",
    },
    "visionary_r1_paper": {
        "1, 3": "the baseline of the paper, which writes no info",
        "4, 5": "quotations of the info segment alone",
    },
    "vision_sr1_format": {
        "0": "the older form of its evaluation: `<answer>` instead of the box",
        "1, 2, 4-6": "the box was lost when the paper became text: the answer stands bare behind `</think>`",
        "3": "the closing mark became LaTeX: `$< / \\mathbf { t h i n k } >$`",
    },
    "llava_cot": {
        "0, 1": "a cell of the README's table, with its headings between the stages",
        "5": "the prompt stands in front of the output",
        "6, 8": "a quotation of the last stages",
        "7": "a quotation of the first two stages",
        "9": "labels of the figure stand between the stages",
    },
    "r1v_counting_2b_instruct": {"6-11": "cut off: it lists letters or objects until the limit"},
    "r1v_geoqa_7b": {
        "6-11": "cut off within think",
        "12": "the format line of the prompt is repeated inside think, marks included",
    },
    "twgrpo_rollouts_format": {
        "0-2, 4": "a page of text without any think, then the answer",
        "3, 5, 8": "a page of text in front of think",
        "10, 16": "think is whole, the answer stands in its last line, without a mark",
        "14, 15": "think is never closed; `Final answer:` in its last line",
        "17, 18": "think is never closed, the answer stands inside it",
        "19": "`answer, B` instead of the marks",
        "20": "two thinks",
        "21": "`.answer>` instead of the opening mark",
        "22": "an explanation behind the answer",
        "23": "think is opened again before it is closed",
        "24": "`</option` instead of the closing mark",
        "25": "a backslash behind the answer",
    },
    "videochatr1_mmvu": {"6-10": "`</think>` is missing: the answer stands inside think"},
    "videorft3b_videommmu_t02": {"6-9": "cut off within think"},
    "videor1fork_bbox_between": {
        "1": "`<think1>` and `<think2>` instead of think and boxes",
        "2": "a whole printed cell: tweet and sizes stand around the trace",
        "4, 5": "the list of boxes never ends and is cut off",
    },
    "other_marks": {
        "3": "a tool section that was seen inside think, quoted alone",
        "4": "plain text with a point; this model writes no think",
        "5": "a quotation of the segment before think",
        "7": "the end of a round: the quotation begins with `</think>`",
    },
    "published_examples": {
        "3": "two references of a think segment, quoted alone",
        "6-11": "the answer alone, from the prompt",
        "15": "a collapsed output that a README quotes: nothing in think",
    },
}
"""File -> rows with a fault -> what the row really holds; each was read by eye."""


class Row(NamedTuple):
    """One row under its grammar; `fault` is empty if it is a trace, `values` are the typed values in it."""

    file: str
    number: int
    grammar: str
    fault: str
    values: int
    senseless: int


def text_of(row: dict[str, Any]) -> str:
    """The output of a model, freed from how it was stored: a table, printed quotes, escaped ends of lines."""
    text = next((row[k] for k in ("output", "model_output", "example") if k in row), "")
    if "output_html" in row:
        text = html.unescape(re.sub(r"<[^>]*>", "", row["output_html"]))
    if "conversations" in row:
        text = row["conversations"][-1]["value"]
    if text[:1] in "\"'" and text[:1] == text[-1:]:
        text = ast.literal_eval(text)
    if "\\n<" in text:
        text = text.replace("\\n", "\n").replace('\\"', '"')
    return text.replace("<br>", "\n")


def read(samples: Path) -> Iterator[Row]:
    """Every row that is a trace in one text, under its grammar."""
    from videop2r_data.schemas import load_grammar, nonsense, packaged_grammars, trace_parser

    packaged = packaged_grammars()
    for file in (*GRAMMARS, "published_examples"):
        lines = (samples / "formats" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            name = GRAMMARS.get(file) or EXAMPLES[number]
            if not name:
                continue
            path = name if name in packaged else str(ROOT / "benchmarks" / "grammars" / f"{name}.yaml")
            parser = trace_parser(load_grammar(path))
            text = text_of(json.loads(line))
            spans = parser.spans(text)
            fault = f"{spans.fault.value} {spans.segment}".strip() if spans.fault else ""
            found = [] if fault else [values for _, values in parser.values(text, spans.pieces)]
            senseless = sum(bool(nonsense(values)) for values in found)
            yield Row(file, number, name, fault, sum(map(len, found)), senseless)


def tables(samples: Path) -> str:
    """Both tables of the page.

    Raises:
        ValueError: a row with a fault that nobody looked at, or words about a row without one.
    """
    rows = list(read(samples))
    lines = ["| file | grammar | rows | traces | typed values | faults |", "|---|---|---|---|---|---|"]
    for file, grammar in dict.fromkeys((row.file, row.grammar) for row in rows):
        own = [row for row in rows if (row.file, row.grammar) == (file, grammar)]
        faults = Counter(row.fault for row in own if row.fault)
        told = ", ".join(f"{fault} {n}" for fault, n in faults.most_common()) or "none"
        values = f"{sum(row.values for row in own)}, senseless {sum(row.senseless for row in own)}"
        traces = len(own) - faults.total()
        lines.append(f"| {file} | {grammar} | {len(own)} | {traces} | {values} | {told} |")
    total = len(rows), sum(not row.fault for row in rows)
    lines.append(f"| all | | {total[0]} | {total[1]} | {sum(row.values for row in rows)} | |")
    lines += [
        "",
        "## Rows that are no trace in one text",
        "",
        "| file | rows | what they are |",
        "|---|---|---|",
    ]
    read_rows = Counter(row.file for row in rows)
    for file, words in NO_TRACE.items():
        path = samples / "formats" / f"{file}.jsonl"
        count = len(path.read_text(encoding="utf-8").splitlines()) - read_rows[file]
        lines.append(f"| {file} | {count} | {words} |")
    lines += [
        "",
        "## Each fault, looked at",
        "",
        "| file | rows | fault | what the row holds |",
        "|---|---|---|---|",
    ]
    known = {(row.file, row.number): row.fault for row in rows if row.fault}
    for file, notes in LOOKED.items():
        for which, words in notes.items():
            numbers = list(_numbers(which))
            faults = Counter(known.pop((file, number)) for number in numbers)
            lines.append(f"| {file} | {which} | {', '.join(faults)} | {words} |")
    if known:
        raise ValueError(f"nobody looked at {sorted(known)}")
    return "\n".join(lines)


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(", "):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


HEAD = """# Real rows of published formats

    python benchmarks/real_traces.py SAMPLES --write

Real rows and outputs in seventeen files, from public repositories and papers, which are not part of this
repository. Each is read under the grammar of its format: one of the package, or one of `benchmarks/grammars`.
Rows count from 0. A row that was stored as a printed cell, an escaped text or a table is freed from that.
No fault was found that is wrong; where several hold, the first one in the text stands, and a hole says more
than the text around it.

"""


def main() -> None:
    """Print the tables; write the page with `--write`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("P2R_SHARED", ".")) / "samples"
    parser.add_argument("samples", type=Path, nargs="?", default=default)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    text = tables(args.samples)
    print(text)
    if args.write:
        RESULTS.write_text(f"{HEAD}{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
