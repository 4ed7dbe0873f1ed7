"""What every client does: read its questions, time the run of its tool, print the figures."""

from __future__ import annotations

import json
import resource
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Question:
    """One request: the text of its two messages."""

    system: str
    user: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """As a chat completion takes them."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


@dataclass(frozen=True)
class Task:
    """What a client is asked to do."""

    url: str
    questions: list[Question]
    concurrency: int
    max_tokens: int = 512
    temperature: float = 0.0


Run = Callable[[Sequence[Question]], Callable[[], Iterable[str]]]
"""Asks questions, all there is to it for the user of a tool; gives what reads the answers back."""


def from_command_line() -> Task:
    """URL BODIES CALLS CONCURRENCY; BODIES are requests of text, one a line."""
    url, bodies, calls, concurrency = sys.argv[1:]
    with Path(bodies).open(encoding="utf-8") as lines:
        asked = [json.loads(line)["messages"] for line in islice(lines, int(calls))]
    questions = [Question(system["content"], user["content"]) for system, user in asked]
    return Task(url, questions, int(concurrency))


def cpu_s() -> float:
    """CPU seconds of this process and of those that it started and saw end."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def measure(task: Task, package: str, run: Run) -> None:
    """Run a tool twice, time the second run and print its figures.

    The first run asks other questions; what the tool imports at its first run, and whatever it sets up once,
    is then no part of the figures.

    Raises:
        SystemExit: the questions were not asked once each, or with more in flight than allowed, or an answer
            is missing.
    """
    run([Question(question.system, f"before: {question.user}") for question in task.questions[:8]])
    fetch(f"{task.url}/reset")
    began, cpu = time.perf_counter(), cpu_s()
    answers = run(task.questions)
    seconds, cpu = time.perf_counter() - began, cpu_s() - cpu
    calls = len(task.questions)
    figures = {
        "calls": calls,
        **seen(fetch(f"{task.url}/stats"), calls, task.concurrency),
        "calls_per_s_whole": calls / seconds,
        "cpu_ms_per_call": 1000 * cpu / calls,
        "peak_mb": peak_mb(),
        "version": f"{package} {version(package)}",
    }
    given = sum(1 for answer in answers() if answer)
    if given != calls:
        raise SystemExit(f"{given} answers came out for {calls} questions")
    print(json.dumps(figures), flush=True)


def peak_mb() -> float:
    """Most memory of this process and of the largest one that it started and saw end."""
    held = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(held) / 1024


def seen(stats: dict[str, Any], calls: int, concurrency: int) -> dict[str, float]:
    """What the server saw of a run.

    Raises:
        SystemExit: the questions were not asked once each, or with more in flight than allowed.

    >>> stats = {"requests": 9, "distinct": 9, "answered": 9, "max_in_flight": 4, "span_s": 3.0}
    >>> seen(stats, calls=9, concurrency=8)
    {'calls_per_s': 3.0, 'max_in_flight': 4}
    """
    counts = {key: stats[key] for key in ("requests", "distinct", "answered")}
    if set(counts.values()) != {calls}:
        raise SystemExit(f"{calls} questions were to be asked once each; the server saw {counts}")
    if stats["max_in_flight"] > concurrency:
        raise SystemExit(f"{concurrency} requests in flight were allowed, {stats['max_in_flight']} were seen")
    return {"calls_per_s": calls / stats["span_s"], "max_in_flight": stats["max_in_flight"]}


def fetch(address: str) -> Any:
    """A JSON document of the server."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)
