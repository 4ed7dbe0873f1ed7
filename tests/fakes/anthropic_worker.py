"""A small build in a process of its own, made to be killed: submit batches, wait, write down every answer.

python -m tests.fakes.anthropic_worker URL FOLDER COUNT [--die-after N]

URL is that of a server of Anthropic's protocol, or the settings of any backend as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from videop2r_data.backends import make_batches
from videop2r_data.backends.batch_log import BatchProgress, Event
from videop2r_data.backends.batches import BatchRunner
from videop2r_data.backends.segments import FileLock
from videop2r_data.schemas.calls import BatchResult, Message, Request, SamplingParams
from videop2r_data.schemas.judges import BackendSpec


class JsonlLog:
    """A `BatchLog` in a file: one line per event, locked and fsynced; a torn last line is no event."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def batch_events(self) -> list[Event]:
        lines = self.path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def append_batch_event(self, event: Event) -> None:
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(event).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lock_batches(self) -> FileLock | None:
        return FileLock.take(self.path.with_suffix(".lock"))


class Answers:
    """Answers by key in a file; a second answer of a key changes nothing, a failure is not kept."""

    def __init__(self, path: Path, die_after: int | None = None) -> None:
        self.path, self.die_after, self.new, self.size = path, die_after, 0, -1
        self.texts: dict[str, str] = {}
        path.touch()

    def __contains__(self, key: object) -> bool:
        if self.path.stat().st_size != self.size:  # another process may have written
            content = self.path.read_bytes()
            self.size = len(content)
            self.texts = dict(map(json.loads, content.split(b"\n")[:-1]))
        return key in self.texts

    def add(self, result: BatchResult) -> None:
        if result.completion is None or result.key in self:
            return
        if self.die_after is not None and self.new >= self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.new += 1
        with self.path.open("ab") as file:
            file.write(json.dumps([result.key, result.completion.text]).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def make_requests(count: int) -> list[Request]:
    """The same requests in every process."""
    params = SamplingParams(max_tokens=64)
    return [Request("judge", "claude-test-3-7", (Message("user", f"q{i}"),), params) for i in range(count)]


async def collect_all(
    runner: BatchRunner,
    on_result: Callable[[BatchResult], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    pause_s: float = 15.0,
    max_pause_s: float = 300.0,
    seen: list[BatchProgress] | None = None,
) -> BatchProgress:
    """Round by round until nothing is open; what the last round found."""
    rounds: list[BatchProgress] = []
    while not rounds or not rounds[-1].done:
        if rounds:
            await sleep(pause_s)
            pause_s = min(1.5 * pause_s, max_pause_s)
        rounds.append(await runner.collect_ready(on_result))
    if seen is not None:
        seen += rounds
    return rounds[-1]


async def main(url: str, folder: Path, count: int, die_after: int | None) -> None:
    answers = Answers(folder / "answers.jsonl", die_after)
    spec = BackendSpec(kind="anthropic", model="claude-test-3-7", base_url=url, batch=True)
    if url.startswith("{"):
        spec = BackendSpec.model_validate_json(url)
    backend = make_batches(spec)
    runner = BatchRunner(backend, JsonlLog(folder / "log.jsonl"), settle_s=3.0, max_requests=50)
    while todo := [r for r in make_requests(count) if r.key not in answers]:
        await runner.submit(todo, answered=answers.__contains__)
        await collect_all(runner, answers.add, pause_s=0.05, max_pause_s=0.3)
    await backend.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--die-after", type=int, default=None)
    given = parser.parse_args()
    asyncio.run(main(given.url, given.folder, given.count, given.die_after))
