"""Calls per second of a full journaled build beside a bare aiohttp loop, on the same server, in one run.

    python -m benchmarks.throughput [--samples 4000] [--image] [--curator PYTHON]

The server answers after 50 ms from a process of its own. The bare loop sends the same mix of requests (one
generating and one judging call per sample) and keeps nothing; the build renders prompts, samples media,
journals, scores and judges. With `--image` every generating call carries a 50 KB JPEG. CPU is that of the
client process while it makes the calls; "whole run" is from reading the pool to the last byte written.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONCURRENCY = 256
IMAGES = 8
JPEG_BYTES = 50_000


@contextmanager
def server(latency: float) -> Iterator[str]:
    """The scripted server in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "tests.fakes.openai_server", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def get(url: str, path: str) -> Any:
    """One JSON document of the server."""
    with urllib.request.urlopen(f"{url}/{path}", timeout=10) as answer:
        return json.load(answer)


def write_pool(folder: Path, samples: int, *, image: bool) -> Path:
    """A pool of multiple-choice questions; images are shared by neighbouring rows, as real pools do."""
    rows = [
        {
            "problem_id": i,
            "problem": f"Which shape is number {i} in the row that the figure shows, counted from the left?",
            "data_type": "image" if image else "text",
            "problem_type": "multiple choice",
            "options": ["A. a red circle", "B. a blue square", "C. a green triangle", "D. a grey star"],
            "solution": "<answer>A</answer>",
            "path": f"./{i * IMAGES // samples}.jpg" if image else "",
            "data_source": "bench",
        }
        for i in range(samples)
    ]
    (folder / "pool.json").write_text(json.dumps(rows))
    if image:
        for number in range(IMAGES):
            (folder / f"{number}.jpg").write_bytes(noisy_jpeg(number))
    return folder / "pool.json"


def noisy_jpeg(seed: int) -> bytes:
    """A picture that is about 50 KB on the wire: 448 x 224 pixels of blurred noise at quality 95."""
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    for grain in range(4, 200):
        small = rng.integers(0, 255, (grain * 2, grain * 4, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((448, 224)).save(buffer, "JPEG", quality=95)
        if buffer.tell() >= JPEG_BYTES:
            return buffer.getvalue()
    raise AssertionError("no grain gives 50 KB")


def recipe(url: str, folder: Path) -> str:
    """The recipe of the build that is measured."""
    backend = {"kind": "openai", "base_url": url, "concurrency": CONCURRENCY // 2}
    return json.dumps(
        {
            "recipe": 1,
            "name": "bench",
            "sources": [
                {
                    "name": "bench",
                    "kind": "video-r1",
                    "path": str(folder / "pool.json"),
                    "media_root": str(folder),
                }
            ],
            "media": {"image_max_pixels": 448 * 224, "workers": 1},
            "generate": {"backend": {**backend, "model": "generator"}},
            "judge": {"backend": {**backend, "model": "judge"}},
        }
    )


async def bare_loop(url: str, samples: int, image: bytes | None) -> dict[str, Any]:
    """Calls per second of the shortest correct program: 256 workers, `json=`, `await answer.json()`.

    Its bodies have the size and shape of the build's: the packaged prompts with a number in front.
    """
    import aiohttp

    from videop2r_data.prompts import load_prompt

    prompts = [load_prompt(name) for name in ("generate-v1", "judge-v1")]
    picture = None
    if image is not None:
        picture = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    work = iter(range(samples * 2))

    def messages(i: int) -> list[Any]:
        prompt, text = prompts[i % 2], f"{i} {prompts[i % 2].user}"
        content: Any = text
        if picture is not None and i % 2 == 0:
            content = [
                {"type": "image_url", "image_url": {"url": picture}},
                {"type": "text", "text": text},
            ]
        return [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]

    async def worker(session: aiohttp.ClientSession) -> None:
        for i in work:
            body = {"model": "m", "messages": messages(i), "max_tokens": 512, "temperature": 0.0}
            async with session.post(f"{url}/chat/completions", json=body) as answer:
                assert (await answer.json())["choices"]

    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(worker(session))
        return {
            "calls": samples * 2,
            "calls_per_s": samples * 2 / (time.perf_counter() - began),
            "cpu_ms_per_call": 1000 * (time.process_time() - cpu) / (samples * 2),
        }


def run_child(args: list[str]) -> dict[str, Any]:
    """One measurement in a process of its own, so that peak memory and CPU are its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", *args], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(kind: str, url: str, samples: int, folder: Path, *, image: bool) -> dict[str, Any]:
    """Measure the bare loop (with asyncio's own loop or uvloop) or the build."""
    if kind.startswith("bare"):
        import uvloop

        picture = (folder / "0.jpg").read_bytes() if image else None
        run = uvloop.run if kind == "bare-uvloop" else asyncio.run
        spent = run(bare_loop(url, samples, picture))
    else:
        spent = measure_build(url, samples, folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {**spent, "peak_mb": usage.ru_maxrss / 1024}


def measure_build(url: str, samples: int, folder: Path) -> dict[str, Any]:
    """Calls per second of the calling phase, and of everything from the pool to the last byte written."""
    from videop2r_data.builders.build import build
    from videop2r_data.builders.run import Stop
    from videop2r_data.builders.workspace import Workspace
    from videop2r_data.cards.dataset_card import write_dataset_card
    from videop2r_data.cli.signals import run_draining
    from videop2r_data.schemas.recipe import parse_recipe

    class Watch:
        def __init__(self) -> None:
            self.marks: dict[str, tuple[float, float]] = {}

        def begin(self, what: str, total: int | None) -> None:
            self.marks[what] = (time.perf_counter(), time.process_time())

        def step(self, tally: Any, parts: Any) -> None:
            pass

        def wait(self, message: str) -> None:
            pass

    watch, stop = Watch(), Stop()
    with tempfile.TemporaryDirectory() as out:
        place = Workspace.at(Path(out) / "bench", base=folder)
        began = time.perf_counter()
        report = run_draining(
            build(
                parse_recipe(recipe(url, folder), where="bench"),
                place,
                observer=watch,
                card=write_dataset_card,
                stop=stop,
            ),
            stop,
            print,
        )
        ended = time.perf_counter()
    assert report.ledger is not None and report.ledger.rows_in == samples, report
    assert report.unanswered == 0, report
    (wall, cpu), (wall_end, cpu_end) = watch.marks["calls"], watch.marks["writing"]
    return {
        "calls": report.calls_made,
        "calls_per_s": report.calls_made / (wall_end - wall),
        "cpu_ms_per_call": 1000 * (cpu_end - cpu) / report.calls_made,
        "calls_per_s_whole": report.calls_made / (ended - began),
        "kept": report.ledger.kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--image", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curator", help="Python of an environment with bespokelabs-curator")
    parser.add_argument("--child")
    parser.add_argument("--url")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.child:
        print(
            json.dumps(
                child(options.child, options.url, options.samples, options.folder, image=options.image)
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder, server(0.05) as url:
        write_pool(Path(folder), options.samples, image=options.image)
        args = ["--samples", str(options.samples), "--url", url, "--folder", folder]
        args += ["--image"] if options.image else []
        kinds = ["bare", "bare-uvloop", "build"]
        rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind in kinds:
                rounds[kind].append(run_child([*args, "--child", kind]))
        if options.curator:
            rounds["curator"] = [curator(options.curator, url, min(options.samples, 1500))]
        report(rounds, image=options.image)


def curator(python: str, url: str, samples: int) -> dict[str, Any]:
    """The same server asked by bespokelabs-curator with the best settings found for it."""
    script = Path(__file__).with_name("curator_client.py")
    done = subprocess.run(
        [python, str(script), url, str(samples), str(CONCURRENCY)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(rounds: dict[str, list[dict[str, Any]]], *, image: bool) -> None:
    """Medians, and the ratios that are claimed."""

    def median(kind: str, name: str) -> float:
        values = sorted(r[name] for r in rounds[kind])
        return float(values[len(values) // 2])

    print(f"{'50 KB image' if image else 'text'}, concurrency {CONCURRENCY}, server latency 50 ms; medians")
    print(f"{'':14}{'calls/s':>9}{'CPU ms/call':>13}{'peak MB':>9}")
    for kind in rounds:
        print(
            f"{kind:14}{median(kind, 'calls_per_s'):9.0f}{median(kind, 'cpu_ms_per_call'):13.3f}"
            f"{median(kind, 'peak_mb'):9.0f}"
        )
    whole = median("build", "calls_per_s_whole")
    build, bare = median("build", "calls_per_s"), median("bare", "calls_per_s")
    print(f"build, whole run: {whole:.0f} calls/s")
    print(f"build / bare: {build / bare:.2f} (whole run {whole / bare:.2f})")
    print(f"build / bare with uvloop: {build / median('bare-uvloop', 'calls_per_s'):.2f}")
    if "curator" in rounds:
        other = median("curator", "calls_per_s")
        print(f"build / curator: {build / other:.1f} (whole run {whole / other:.1f})")


if __name__ == "__main__":
    main()
