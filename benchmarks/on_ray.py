"""A build on Ray beside itself and beside Ray Data: two callers and one, a skewed pool, three stages alike.

    python -m benchmarks.on_ray [--rows 120] [--clips 512] [--in-flight 64] [--only workers skew ...]

All on one Ray of this machine. A server in another process answers after a latency. Times run from the first
row that is done to the last, so that starting actors is not counted (it is told apart).

    workers   rows/s with two callers over rows/s with one, 4 calls in flight each
    skew      a tenth of the rows takes nine tenths of the time; wall time over the ideal, which is all their
              time divided by two. `calls`: slow answers, two callers with one call each. `clips`: slow
              clips, two decoders; their time is that in which a decoder had a file, under the same load
    stages    distinct clips, on Ray and here: decoding alone, then with generating and judging at a latency
              where each takes as long as decoding; wall time of all three, their latencies included, over
              that of one
    cost      CPU time of the process that hands out the work, for each call
    data      rows with 50 KB of frames through a decoder of 5 ms and two callers of 50 ms with 16 calls each:
              crews, and operators of Ray Data with blocks of 4 and of 16 rows; alike, and skewed
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import numpy as np
import ray

from benchmarks import record
from benchmarks.kill_resume import write_recipe
from benchmarks.throughput import noisy, server, write_noisy_clip, write_pool
from tests.fakes.openai_server import Call, FakeServer, Reply
from videop2r_data.builders import BuildReport, Crew, Observer, OnRay, Parts, Tally, Workspace, build
from videop2r_data.media import sample_media
from videop2r_data.recipes import read_recipe
from videop2r_data.schemas import MediaSpec

SLOW_S, FAST_S = 4.5, 0.0556
"""Latency of a tenth of the rows, and of the others."""


class Marks(Observer):
    """An observer that notes when rows were done."""

    def __init__(self) -> None:
        super().__init__()
        self.began = 0.0
        self.done: list[float] = []
        self.cpu: list[float] = []

    def begin(self, what: str, total: int | None) -> None:
        """A phase begins."""
        super().begin(what, total)
        if what == "calls":
            self.began = time.perf_counter()

    def step(self, tally: Tally, parts: Parts) -> None:
        """One more row is done."""
        super().step(tally, parts)
        if not parts.journal.readonly:  # no row of the export
            self.done.append(time.perf_counter())
            self.cpu.append(time.process_time())


def run(
    folder: Path, url: str, *, actors: int | None, here: bool = False, **recipe: Any
) -> tuple[BuildReport, Marks]:
    """One build, on Ray or here; `recipe` changes settings of both backends, `judge=False` leaves it away."""
    path = write_recipe(folder, url)
    made = json.loads(path.read_text())
    made["generate"]["attempts"] = 1
    made["media"]["workers"] = recipe.pop("workers", made["media"]["workers"])
    if not recipe.pop("judge", True):
        del made["judge"]
    for step in ("generate", "judge"):
        if step in made:
            made[step]["backend"] |= recipe
    path.write_text(json.dumps(made))
    settings, base = read_recipe(str(path))
    marks = Marks()
    with tempfile.TemporaryDirectory() as out:
        place = Workspace.at(Path(out) / "set", base=base)
        report = asyncio.run(
            build(
                settings,
                place,
                observer=marks,
                card=lambda _: None,
                executor=None if here else OnRay(actors=actors),
            )
        )
    assert report.unanswered == 0, report
    return report, marks


def span(marks: Marks) -> float:
    """Seconds from the first row that was done to the last."""
    return marks.done[-1] - marks.done[0]


def workers(rows: int, latency: float) -> dict[str, float]:
    """Two callers beside one."""
    rate = {}
    with tempfile.TemporaryDirectory() as folder, server(latency) as url:
        write_pool(Path(folder), rows, "text")
        for actors in (1, 2):
            _, marks = run(Path(folder), url, actors=actors, concurrency=4)
            rate[actors] = (len(marks.done) - 1) / span(marks)
    return {"rows_per_s_1": rate[1], "rows_per_s_2": rate[2], "ratio": rate[2] / rate[1]}


def cost(rows: int) -> dict[str, float]:
    """What a call costs the process of the build."""
    with tempfile.TemporaryDirectory() as folder, server(0.05) as url:
        write_pool(Path(folder), rows, "text")
        report, marks = run(Path(folder), url, actors=1, concurrency=32)
    return {"cpu_ms_per_call": 1000 * (marks.cpu[-1] - marks.cpu[0]) / report.calls_made}


def rule(call: Call) -> Reply | None:
    """A tenth of the questions is slow; judges answer at once."""
    number = int(call.prompt.partition("Which shape is number ")[2].partition(" ")[0] or -1)
    return Reply(latency=SLOW_S if number % 10 == 3 else FAST_S)


@contextmanager
def serving(script: Callable[[Call], Reply | None]) -> Iterator[str]:
    """The scripted server in a thread of this process; gives its base URL."""
    found, ends = Event(), Event()
    url: list[str] = []

    async def main() -> None:
        async with FakeServer(script=script) as fake:
            url.append(fake.url)
            found.set()
            await asyncio.to_thread(ends.wait)

    thread = Thread(target=lambda: asyncio.run(main()))
    thread.start()
    found.wait()
    try:
        yield url[0]
    finally:
        ends.set()
        thread.join()


def skewed_calls(rows: int) -> dict[str, float]:
    """A tenth of the answers is slow, on two callers with one call each."""
    with tempfile.TemporaryDirectory() as folder, serving(rule) as url:
        write_pool(Path(folder), rows, "text")
        _, marks = run(Path(folder), url, actors=2, concurrency=1, judge=False)
    ideal = (rows // 10 * SLOW_S + (rows - rows // 10) * FAST_S) / 2
    return {"ideal_s": ideal, "wall_s": span(marks), "ratio": span(marks) / ideal}


def skewed_clips(rows: int) -> dict[str, float]:
    """A tenth of the clips is slow to decode, on two decoders."""
    had: dict[Any, list[tuple[float, float]]] = {}
    ask = Crew.ask

    async def timed(crew: Crew, send: Callable[[Any], Awaitable[Any]], wall_s: float) -> Any:
        """Note from when to when an actor had the file."""

        async def noting(actor: Any) -> Any:
            start = time.perf_counter()
            try:
                return await send(actor)
            finally:
                had.setdefault(actor, []).append((start, time.perf_counter()))

        return await ask(crew, noting if crew.name == "decoders" else send, wall_s)

    with tempfile.TemporaryDirectory() as folder, server(0.0) as url:
        takes = {}
        for name, frames, size in (("slow.mp4", 5000, (448, 252)), ("fast.mp4", 16, (448, 252))):
            path = write_looped(Path(folder) / name, frames, size)
            sample_media(path, "video", MediaSpec(), want="encoded")
            began = time.perf_counter()
            sample_media(path, "video", MediaSpec(), want="encoded")
            takes[name] = time.perf_counter() - began
        write_clips(Path(folder), rows, lambda path, number: path.hardlink_to(path.with_name(named(number))))
        Crew.ask = timed  # type: ignore[assignment, method-assign]
        try:
            run(Path(folder), url, actors=1, concurrency=16, judge=False, workers=2)
        finally:
            Crew.ask = ask  # type: ignore[method-assign]
    spans = [span for each in had.values() for span in each]
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    ideal = sum(covered(each) for each in had.values()) / 2
    slow = takes["slow.mp4"] / (takes["slow.mp4"] + 9 * takes["fast.mp4"])
    return {"slow_share": slow, "decoders": len(had), "ideal_s": ideal, "wall_s": wall, "ratio": wall / ideal}


def write_looped(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """A clip whose last frame needs every one before it."""
    import av

    pictures = [av.VideoFrame.from_ndarray(np.asarray(noisy(seed, 12, size)), "rgb24") for seed in range(8)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        (stream.width, stream.height), stream.pix_fmt, stream.gop_size = size, "yuv420p", 10**6
        for number in range(frames):
            shown = pictures[number % 8]
            shown.pts = number
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    return path


def named(number: int) -> str:
    """The clip of a row."""
    return "slow.mp4" if number % 10 == 3 else "fast.mp4"


def write_clips(folder: Path, rows: int, write: Callable[[Path, int], None]) -> None:
    """A pool with a clip for each row."""
    write_pool(folder, rows, "text")
    pool = json.loads((folder / "pool.json").read_text())
    for number, row in enumerate(pool):
        row |= {"data_type": "video", "path": f"{number}.mp4"}
        write(folder / row["path"], number)
    (folder / "pool.json").write_text(json.dumps(pool))


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds in at least one of the spans."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def stages(clips: int, in_flight: int, *, here: bool) -> dict[str, float]:
    """Decoding, generating and judging, each as long as the other."""
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder), clips, partial(write_noisy_clip, frames=24))
        each = in_flight // 2
        with server(0.0) as url:
            _, marks = run(Path(folder), url, actors=1, concurrency=each, judge=False, here=here)
            one = span(marks)
        latency = one * each / clips
        with server(latency) as url:
            _, marks = run(Path(folder), url, actors=1, concurrency=each, here=here)
    wall, started = span(marks) + 2 * latency, marks.done[0] - marks.began
    return {"one_s": one, "latency_s": latency, "wall_s": wall, "first_row_s": started, "ratio": wall / one}


# Ray Data.


DECODE_S, ASK_S, FRAMES, AT_ONCE = 0.005, 0.05, 50_000, 16


class Decode:
    """Both kinds of decoder."""

    async def ready(self) -> None:
        """For a crew."""

    async def sample(self) -> tuple[None, bytes]:
        """One file, for a crew: the frames stay in the object store."""
        time.sleep(DECODE_S)  # noqa: ASYNC251
        return None, bytes(FRAMES)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One block."""
        time.sleep(DECODE_S * len(batch["id"]))
        return {**batch, "frames": [bytes(FRAMES) for _ in batch["id"]]}


class Ask:
    """Both kinds of caller; skewed: a tenth of the rows takes nine tenths of the time."""

    def __init__(self, *, skewed: bool) -> None:
        self.slow_s, self.fast_s = (9 * ASK_S, ASK_S / 9) if skewed else (ASK_S, ASK_S)

    async def ready(self) -> None:
        """For a crew."""

    async def complete(self, number: int, frames: bytes) -> int:
        """One call."""
        await asyncio.sleep(self.slow_s if number % 10 == 3 else self.fast_s)
        return len(frames)

    async def __call__(self, batch: dict[str, Any]) -> Any:
        """One block: its calls at once."""
        pairs = zip(batch["id"], batch["frames"], strict=True)
        sizes = await asyncio.gather(*(self.complete(number, frames) for number, frames in pairs))
        yield {"id": batch["id"], "size": sizes}


async def by_crews(rows: int, *, skewed: bool) -> list[float]:
    """Seconds at which rows were done."""
    done: list[float] = []
    remote: Any = ray.remote

    def caller() -> Any:
        return remote(Ask).options(num_cpus=0, max_concurrency=AT_ONCE + 1).remote(skewed=skewed)

    decoders = Crew("decoders", remote(Decode).options(num_cpus=1).remote, 1, 2, "1 CPU each")
    callers = Crew("callers", caller, 2, AT_ONCE, "on any node")
    window = asyncio.Semaphore(3 * AT_ONCE)

    async def decode(actor: Any) -> Any:
        told, ref = actor.sample.options(num_returns=2).remote()
        await told
        return ref

    async def one(number: int) -> None:
        async with window:
            ref = await decoders.ask(decode, 60)
            assert await callers.ask(lambda actor: actor.complete.remote(number, ref), 60) == FRAMES
            done.append(time.perf_counter())

    await asyncio.gather(*(one(number) for number in range(rows)))
    decoders.close()
    callers.close()
    return done


def by_ray_data(rows: int, block: int, *, skewed: bool) -> list[float]:
    """Seconds at which rows were done."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    found = ray.data.range(rows, override_num_blocks=rows // block).map_batches(
        Decode, batch_size=block, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=1
    )
    found = found.map_batches(
        Ask,
        fn_constructor_kwargs={"skewed": skewed},
        batch_size=block,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0,
        max_concurrency=max(1, AT_ONCE // block),
    )
    return [time.perf_counter() for _ in found.iter_rows()]


def beside_ray_data(rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """The same stages by crews and by Ray Data: medians."""
    found = {}
    for skewed in (False, True):
        ways: dict[str, Callable[[], list[float]]] = {
            "crews": lambda skewed=skewed: asyncio.run(by_crews(rows, skewed=skewed)),  # type: ignore[misc]
        }
        for block in (4, 16):
            ways[f"ray_data_{block}"] = partial(by_ray_data, rows, block, skewed=skewed)
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                began, cpu = time.perf_counter(), time.process_time()
                done = way()
                used = 1000 * (time.process_time() - cpu) / rows
                times = {"first_row_s": done[0] - began, "rest_s": done[-1] - done[0]}
                seen[name].append(times | {"driver_ms_per_row": used})
        for name, each in seen.items():
            middle = {figure: median(one[figure] for one in each) for figure in each[0]}
            found[name + "_skewed" * skewed] = middle
    return found


PARTS = ("workers", "skew", "stages", "cost", "data")


def rounded(found: Any) -> Any:
    """Four digits behind the point are more than any of this is good for."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    return round(found, 4) if isinstance(found, float) else found


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--latency", type=float, default=0.25, help="seconds a call, of `workers`")
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--data-rows", type=int, default=1000)
    parser.add_argument("--data-rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    record.add_option(parser)
    options = parser.parse_args()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    found: dict[str, Any] = {}
    if "workers" in options.only:
        found["workers"] = workers(options.rows, options.latency)
    if "skew" in options.only:
        found["skew"] = {"calls": skewed_calls(options.rows), "clips": skewed_clips(2 * options.rows)}
    if "stages" in options.only:
        found["stages"] = {
            name: stages(options.clips, options.in_flight, here=name == "here") for name in ("ray", "here")
        }
    if "data" in options.only:
        found["data"] = beside_ray_data(options.data_rows, options.data_rounds)
    if "cost" in options.only:
        found["cost"] = cost(options.rows)
    ray.shutdown()
    found = rounded(found)
    print(json.dumps(found, indent=1))
    record.save(options, "on_ray", found, packages=["ray"])


if __name__ == "__main__":
    main()
