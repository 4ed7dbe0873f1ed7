"""What every test of faults shares: a server and a proxy in a thread, the command in a process, and what must hold."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.fakes.openai_server import Call, FakeServer
from tests.faults.proxy import Exchange, Plan, Proxy, answer
from tests.integration.test_build import digests, question, rows_of, write_pool
from videop2r_data.backends.journal import Journal
from videop2r_data.cli.main import app

ROWS = 24
PASS = 16
"""Questions that a `Gate` lets through."""
UNDER_WAY = 16
"""Calls before a `Gate` once nothing moves any more: eight to each model."""


def number_of(call: Call) -> int:
    """The number of the question that a request is about."""
    return int(re.findall(r"shape (\d+)", call.prompt)[-1])


def telling(call: Call) -> str:
    """An answer that names its question, so that an answer to another one is seen; question 5 is judged No."""
    n = number_of(call)
    if b"<judgement>" in call.raw:
        return f"Shape {n} is named. <judgement>{'No' if n == 5 else 'Yes'}</judgement>"
    return (
        f"<observation>Based on the question, I need to look at shape {n}.</observation> "
        f"<think>Shape {n} is round, so the answer is A.</think><answer>A</answer>"
    )


class Gate:
    """Stands in the proxy: the first 16 questions pass, the others and every judgement wait until it is opened.

    The server has seen who waits, and has answered. Two times eight calls may be under way, so that 16 wait
    as soon as the answers of the first 16 questions are in the journal, and not one more can come.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.held = 0
        self.is_open = False
        self.opens_when_full = False
        self.then: Callable[[Exchange], Awaitable[bool]] | None = None
        """Done to a call when the gate is open: gives an answer, or False for the server's own."""
        proxy.extra["gate"] = self.pass_or_wait
        proxy.plan = Plan(faults=("gate",), share=1.0)

    async def pass_or_wait(self, exchange: Exchange) -> bool:
        """The fault of the proxy."""
        _, _, body = await exchange.ask()
        if b"<judgement>" in exchange.raw or int(re.findall(rb"shape (\d+)", exchange.raw)[-1]) >= PASS:
            self.held += 1
            while not self.is_open:  # another thread opens it
                await asyncio.sleep(0.01)
                self.is_open = self.is_open or (self.opens_when_full and self.held == UNDER_WAY)
            if self.then is not None and await self.then(exchange):
                return False
        await exchange.send(answer(200, body))
        return True

    def wait_until_full(self) -> None:
        """Until all calls that may be under way are."""
        until(lambda: self.held == UNDER_WAY)


def until(true: Callable[[], object]) -> None:
    """Wait for something that tells nobody."""
    while not true():
        time.sleep(0.01)


@dataclass
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """All that it said, on one line."""
        return " ".join(f"{self.stdout} {self.stderr}".split())


@dataclass
class World:
    """A server behind a proxy, and builds that talk to it."""

    folder: Path
    server: FakeServer
    proxy: Proxy
    clean: dict[str, str] = field(default_factory=dict)
    """Files of the data set of a build without faults."""
    story: int = 0
    """Number of the test, for folders of its own."""

    @property
    def out(self) -> str:
        """The data set of this test, under the folder of the world."""
        return f"{self.story}/set"

    def recipe(self, name: str = "set", **backend: Any) -> Path:
        """A recipe with a generator and a judge behind the proxy."""
        settings = {
            "kind": "openai",
            "base_url": self.proxy.url,
            "concurrency": 8,
            "timeout_s": 120.0,  # no call is late because the machine is busy
            **backend,
        }
        made = {
            "recipe": 1,
            "name": "set",
            "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
            "generate": {"backend": {**settings, "model": "g"}},
            "judge": {"backend": {**settings, "model": "j"}},
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(made))
        return path

    def command(self, out: str, *more: str, recipe: Path | None = None) -> list[str]:
        """The command that a user would type."""
        made = recipe or self.recipe()
        return [
            sys.executable,
            "-m",
            "videop2r_data",
            "build",
            str(made),
            "--out",
            str(self.folder / out),
            *more,
        ]

    def build(self, out: str, *more: str, plan: Plan | None = None, recipe: Path | None = None) -> Ended:
        """Run it to its end in this process, with this plan of the proxy."""
        self.proxy.plan = plan or Plan()
        ended = CliRunner().invoke(app, self.command(out, *more, recipe=recipe)[3:])
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exc_info
        return Ended(ended.exit_code, ended.stdout, ended.stderr)

    def start(self, *, recipe: Path | None = None, out: str = "") -> subprocess.Popen[str]:
        """Start it in a process of its own."""
        return start(self.command(out or self.out, recipe=recipe))

    def kept_calls(self, out: str) -> int:
        """Finished calls that the journal has."""
        with Journal(self.folder / f"{out}.build" / "journal", readonly=True) as journal:
            return len(journal)

    def rows(self, out: str, config: str = "sft") -> list[dict[str, Any]]:
        """Rows of the data set."""
        return rows_of(self.folder / out, config)

    def digests(self, out: str) -> dict[str, str]:
        """sha256 of every file of the data set."""
        return digests(self.folder / out)


def start(command: list[str], **settings: Any) -> subprocess.Popen[str]:
    """Start a command whose output is read."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def finish(process: subprocess.Popen[str]) -> Ended:
    """Wait for its end."""
    stdout, stderr = process.communicate()
    assert "Traceback" not in stderr, stderr
    return Ended(process.returncode, stdout, stderr)


@contextmanager
def loopback(folder: Path, rows: int = ROWS, **server: Any) -> Iterator[World]:
    """A world whose server and proxy run in a thread of their own."""
    write_pool(folder, [question(i) for i in range(rows)])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, loop).result(30)

    fake = FakeServer(**{"answer": telling, **server})
    try:
        do(fake.__aenter__())
        proxy = Proxy(fake.port)
        do(proxy.__aenter__())
        yield World(folder, fake, proxy)
        do(proxy.__aexit__())
        do(fake.__aexit__())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def nothing_lost_nor_paid_again(world: World, *, beyond: int = 0) -> None:
    """What must hold at the end of every story, however it went.

    Args:
        beyond: answers that came through whole, and that the build may still have asked for again.
    """
    given = world.proxy.given
    assert given.total() - len(given) <= beyond, "an answer that came through was asked for again"
    assert len(given) == 2 * ROWS, "every question and every judgement has its answer"
    for row in world.rows(world.out, "sft") + world.rows(world.out, "rejected"):
        assert f"shape {row['problem_id']}." in row["output"], "the answer to another question"
    assert world.digests(world.out) == world.clean
