"""The hot parts that `gate.py` counts, each beside a reference of plain Python on the same made-up inputs.

    python -m cProfile -s tottime -m benchmarks._gate_parts verify      # where a part spends its time

Under valgrind, `mark` is where callgrind cuts: what lies between two marks is counted by itself, and neither
start-up nor imports are in any of it. Every part is counted for N and for 2 N inputs; the difference is what
N inputs cost, without what is done once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

MARK = "cbrt"
"""A function of the C library that nothing else calls; callgrind begins a new count where it is entered."""
WARM = 24
"""Inputs of a first round that is not counted: lazy imports, compiled patterns, caches of types."""

_WORDS = (
    "red",
    "round",
    "cup",
    "table",
    "left",
    "moves",
    "behind",
    "opens",
    "frame",
    "hand",
    "slowly",
    "tree",
)


class Part(NamedTuple):
    """One hot part.

    Attributes:
        unit: what is counted by.
        first: N.
        load: folder of the inputs, how many -> what `work` and `plain` take; is not counted.
        work: the part.
        plain: its reference.
    """

    unit: str
    first: int
    load: Callable[[Path, int], Any]
    work: Callable[[Any], object]
    plain: Callable[[Any], object]


def mark() -> None:
    """Cut the count here."""
    math.cbrt(8.0)


def _sentence(rng: random.Random) -> str:
    """A sentence of 16 words."""
    return " ".join(rng.choice(_WORDS) for _ in range(16)).capitalize() + "."


def traces(count: int) -> list[str]:
    """Traces of the default grammar, about 100 and 150 words in their segments."""
    rng = random.Random(0)
    said = [_sentence(rng) for _ in range(100)]  # few: they are made under valgrind too
    return [
        f"<observation>{' '.join(rng.choices(said, k=6))}</observation> "
        f"<think>{' '.join(rng.choices(said, k=9))} So the answer is A.</think><answer>A</answer>"
        for _ in range(count)
    ]


# `traces`: a trace is read.


def _load_traces(_: Path, count: int) -> list[str]:
    return traces(count)


def _parse(texts: list[str]) -> None:
    from videop2r_data.schemas import parse_trace

    for text in texts:
        parse_trace(text)


def _json_of_traces(texts: list[str]) -> None:
    for text in texts:
        json.loads(json.dumps(text))


# `verify`: the rows of a data set are verified.


class Release(NamedTuple):
    """A data set, and its rows as lines of JSON."""

    folder: Path
    rows: list[str]


def _load_release(folder: Path, count: int) -> Release:
    import pyarrow.parquet as pq

    from benchmarks.synthetic_release import write_release

    to = folder / f"release-{count}"
    if not to.exists():
        write_release(to, scale=count / 162_062)
    rows = pq.read_table(to / "data").to_pylist()
    return Release(to, [json.dumps(row) for row in rows])


def _json_of_rows(release: Release) -> None:
    for row in release.rows:
        json.loads(row)


def _verify(release: Release) -> None:
    from videop2r_data.builders.verify import verify_release

    report = verify_release(release.folder, workers=1)
    if not report.ok or report.rows != len(release.rows):
        raise SystemExit(f"the made-up release does not verify: {report.findings[:3]}")


# `journal`: a call is written down, and found again by the next run.


class Calls(NamedTuple):
    """Questions with their answers, and a folder for journals."""

    folder: Path
    asked: list[tuple[str, dict[str, Any]]]


def _load_calls(folder: Path, count: int) -> Calls:
    usage = {"text": "", "finish": "stop", "model": "m-1", "usage": [700, 300, 0, 0]}
    asked = [(f"What is shape {i}?", usage | {"text": text}) for i, text in enumerate(traces(count))]
    return Calls(folder, asked)


def _key(question: str) -> str:
    """The key of a new request: requests remember theirs."""
    from videop2r_data.schemas import Message, Request

    return Request("generate", "m", (Message("system", "Be brief."), Message("user", question))).key


def _keep_and_find(calls: Calls) -> None:
    from videop2r_data.backends import Journal

    with tempfile.TemporaryDirectory(dir=calls.folder) as folder:
        with Journal(Path(folder)) as journal:
            for question, answer in calls.asked:
                journal.put_call(_key(question), answer, nusd=5)
        with Journal(Path(folder), readonly=True) as journal:
            for question, answer in calls.asked:
                if journal.call(_key(question)) != answer:
                    raise SystemExit(f"the journal lost the answer to {question}")


def _json_of_calls(calls: Calls) -> None:
    for question, answer in calls.asked:
        json.loads(json.dumps({"question": question, **answer}))


# `call`: a build makes its calls, of a backend that answers at once.


class Pool(NamedTuple):
    """A pool, a folder for builds, and the answers of the backend, one to each call."""

    folder: Path
    calls: int
    answers: list[str]


class Immediate:
    """A backend in this process: generates a good trace, and judges Yes."""

    def __init__(self, spec: Any) -> None:
        self.model: str = spec.model
        (self._trace,) = traces(1)

    async def start(self) -> None:
        """Nothing to open."""

    async def complete(self, request: Any, frames: Any = None) -> Any:
        """The answer, at the next turn of the loop."""
        from videop2r_data.schemas import Completion

        await asyncio.sleep(0)
        text = self._trace if request.purpose == "generate" else "It follows. <judgement>Yes</judgement>"
        return Completion(text=text, finish_reason="stop", model="m-1")

    async def close(self) -> None:
        """Nothing to close."""


def _load_pool(folder: Path, count: int) -> Pool:
    to = folder / f"pool-{count}"
    to.mkdir(exist_ok=True)
    question = {
        "data_type": "text",
        "problem_type": "multiple choice",
        "options": ["A. round", "B. square"],
        "solution": "<answer>A</answer>",
        "path": "",
        "data_source": "gate",
    }
    rows = [question | {"problem_id": i, "problem": f"What is shape {i}?"} for i in range(count // 2)]
    (to / "pool.json").write_text(json.dumps(rows))
    return Pool(to, count, traces(count))


def _build(pool: Pool) -> None:
    from videop2r_data.backends import Journal
    from videop2r_data.builders import Observer, Parts, Stop, Workspace, make_calls
    from videop2r_data.schemas import BACKENDS, BackendKind, Recipe

    BACKENDS["immediate"] = BackendKind(makes=f"{__name__}:Immediate")
    backend = {"kind": "immediate", "model": "m", "concurrency": 8}
    recipe = Recipe.model_validate(
        {
            "name": "gate",
            "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
            "generate": {"backend": backend},
            "judge": {"backend": backend},
        }
    )

    async def main(place: Workspace) -> int:
        stop = Stop()
        with Journal(place.journal) as journal:
            parts = Parts(recipe, place, journal, live=True, stop=stop)
            return (await make_calls(parts, Observer(), stop, wait=True)).calls_made

    with tempfile.TemporaryDirectory(dir=pool.folder) as work:
        place = Workspace.at(pool.folder / "set", base=pool.folder, work=Path(work))
        if (made := asyncio.run(main(place))) != pool.calls:
            raise SystemExit(f"the build made {made} calls, not {pool.calls}")


def _json_of_pool(pool: Pool) -> None:
    for number, answer in enumerate(pool.answers):
        json.loads(json.dumps({"question": f"What is shape {number}?", "text": answer}))


PARTS = {
    "verify": Part("row", 800, _load_release, _verify, _json_of_rows),
    "journal": Part("call", 400, _load_calls, _keep_and_find, _json_of_calls),
    "traces": Part("trace", 300, _load_traces, _parse, _json_of_traces),
    "call": Part("call", 200, _load_pool, _build, _json_of_pool),
}
"""Name -> the part."""


class Window(NamedTuple):
    """What lies between two marks: whose work or reference on how many inputs, in this order."""

    part: str
    what: str
    inputs: int


def _size(inputs: Any) -> int:
    """How many inputs there are: of a release that is a little more or less than asked for."""
    if isinstance(inputs, Release):
        return len(inputs.rows)
    return inputs.calls if isinstance(inputs, Pool) else len(getattr(inputs, "asked", inputs))


def run(folder: Path, names: list[str], twice: str) -> list[Window]:
    """Run parts and references between marks.

    Args:
        folder: of the inputs.
        names: parts.
        twice: a part that is done twice in place of once: a slowdown for the test of the gate.
    """
    windows = []
    for name in names:
        part = PARTS[name]
        first = part.load(folder, WARM)
        part.work(first)
        part.plain(first)
        for count in (part.first, 2 * part.first):
            inputs = part.load(folder, count)
            for what, does in (("plain", part.plain), ("work", part.work)):
                times = 2 if what == "work" and name == twice else 1
                gc.collect()
                mark()
                for _ in range(times):
                    does(inputs)
                mark()
                windows.append(Window(name, what, _size(inputs)))
    return windows


def main() -> None:
    """Run the parts that are named; print what lies between the marks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="+", choices=PARTS)
    parser.add_argument("--inputs", type=Path, metavar="DIR", help="folder for inputs; kept for the next run")
    parser.add_argument("--twice", choices=PARTS, help="do this part twice: a slowdown")
    options = parser.parse_args()
    inside = nullcontext(options.inputs) if options.inputs else tempfile.TemporaryDirectory()
    with inside as folder:
        windows = run(Path(folder), options.part, options.twice or "")
    json.dump(windows, sys.stdout)


if __name__ == "__main__":
    main()
