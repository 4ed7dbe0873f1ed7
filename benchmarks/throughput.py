"""Calls per second of a full journaled build beside a bare aiohttp loop, on the same server, in one run.

    python -m benchmarks.throughput [--media text|image|fits|clips] [--samples 3000] [--concurrency 256]
    benchmarks/rivals/env.sh curator; python -m benchmarks.throughput --rivals   # text, beside other tools

The server answers after 50 ms from a process of its own. The bare loop posts the same mix of bodies (one
generating and one judging call per sample), made before its clock starts, and keeps nothing; the build
samples media, renders prompts, journals, scores and judges. Every generating call carries a file of its own:

    image   a JPEG of 640 x 360 pixels, which is scaled and goes out as about 50 KB
    fits    a JPEG of 448 x 224 pixels and 50 KB, which already has the size that is sent
    clips   16 frames of a clip of 320 x 240 pixels (120 clips whatever --samples says, unless it says fewer)

CPU is that of the client process while it makes the calls, and of the decoder processes over their life;
"whole run" is from reading the pool to the last byte written. What stands in the row of a rival:
`benchmarks/rivals/__init__.py`. Kinds are measured in turn, each in a process of its own; figures are medians
over the rounds, ratios are of those medians.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from benchmarks import record, rivals
from benchmarks._throughput_figures import RUN_NAMES, figures, table

LATENCY_S = 0.05
BODIES = "bodies.jsonl"
JPEG_BYTES = 50_000
CLIPS = 120
RIVAL_SAMPLES = 1500
"""At most: some of them would need minutes for more."""
SENT = {"image": (448, 224), "fits": (448, 224), "clips": (320, 240)}
SOURCE = {"image": (640, 360), "fits": (448, 224), "clips": (320, 240)}
"""Width and height."""


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
    with urllib.request.urlopen(f"{url}/{path}", timeout=120) as answer:
        return json.load(answer)


def media_name(media: str, i: int) -> str:
    """The file of question i, or nothing."""
    return {"text": "", "clips": f"{i}.mp4"}.get(media, f"{i}.jpg")


def write_pool(folder: Path, samples: int, media: str) -> None:
    """A pool of multiple-choice questions, each with a file of its own."""
    kind = {"text": "text", "clips": "video"}.get(media, "image")
    rows = [
        {
            "problem_id": i,
            "problem": f"Which shape is number {i} in the row that the figure shows, counted from the left?",
            "data_type": kind,
            "problem_type": "multiple choice",
            "options": ["A. a red circle", "B. a blue square", "C. a green triangle", "D. a grey star"],
            "solution": "<answer>A</answer>",
            "path": media_name(media, i),
            "data_source": "bench",
        }
        for i in range(samples)
    ]
    (folder / "pool.json").write_text(json.dumps(rows))
    if media == "clips":
        for i in range(samples):
            write_noisy_clip(folder / media_name(media, i), i)
    elif media != "text":
        grain = grain_of(SENT[media])
        for i in range(samples):
            noisy(i, grain, SOURCE[media]).save(folder / media_name(media, i), "JPEG", quality=95)


def noisy(seed: int, grain: int, size: tuple[int, int]) -> Any:
    """Blurred noise; the finer its grain, the larger its JPEG."""
    import numpy as np
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 255, (grain, grain * 2, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size)


def grain_of(size: tuple[int, int]) -> int:
    """The grain at which a picture is 50 KB on the wire."""
    for grain in range(4, 200):
        buffer = io.BytesIO()
        noisy(0, grain, size).save(buffer, "JPEG", quality=95)
        if buffer.tell() >= JPEG_BYTES:
            return grain
    raise AssertionError("no grain gives 50 KB")


def write_noisy_clip(path: Path, seed: int, frames: int = 72) -> None:
    """Three seconds of a noisy picture that moves, H.264."""
    import av
    import numpy as np

    width, height = SOURCE["clips"]
    wide = np.asarray(noisy(seed, 24, (width + 4 * frames, height)))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=24, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            shown = np.ascontiguousarray(wide[:, 4 * i : 4 * i + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode(None))


def recipe(url: str, folder: Path, *, concurrency: int, passthrough: bool = False) -> str:
    """The recipe of the build that is measured."""
    backend = {"kind": "openai", "base_url": url, "concurrency": concurrency // 2}
    source = {
        "name": "bench",
        "kind": "video-r1",
        "path": str(folder / "pool.json"),
        "media_root": str(folder),
    }
    media: dict[str, Any] = {"image_max_pixels": 448 * 224}
    if passthrough:
        media["passthrough"] = True
    return json.dumps(
        {
            "recipe": 1,
            "name": "bench",
            "sources": [source],
            "media": media,
            "generate": {"backend": {**backend, "model": "generator"}},
            "judge": {"backend": {**backend, "model": "judge"}},
        }
    )


def premade(folder: Path, samples: int, media: str) -> list[bytes]:
    """The bodies of the bare loop: packaged prompts with a number in front, media as a build sends them."""
    from videop2r_data.media import sample_media
    from videop2r_data.prompts import load_prompt
    from videop2r_data.schemas import parse_recipe

    spec = parse_recipe(recipe("http://localhost/v1", folder, concurrency=2), where="bench").media
    prompts = [load_prompt(name) for name in ("generate-v1", "judge-v1")]
    bodies = []
    for i in range(samples * 2):
        prompt, text = prompts[i % 2], f"{i} {prompts[i % 2].user}"
        content: Any = text
        if media != "text" and i % 2 == 0:
            path = folder / media_name(media, i // 2)
            kind: Literal["image", "video"] = "video" if media == "clips" else "image"
            frames = sample_media(path, kind, spec, want="encoded").encoded
            url = f"data:{kind}/jpeg;base64," + ",".join(base64.b64encode(f).decode() for f in frames)
            content = [{"type": f"{kind}_url", f"{kind}_url": {"url": url}}, {"type": "text", "text": text}]
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
        body = {"model": "m", "messages": messages, "max_tokens": 512, "temperature": 0.0}
        bodies.append(json.dumps(body).encode())
    return bodies


async def bare_loop(url: str, bodies: list[bytes], concurrency: int) -> dict[str, Any]:
    """Calls per second of the shortest correct program: so many workers, `data=`, `await answer.json()`."""
    import aiohttp

    work = iter(bodies)
    headers = {"Content-Type": "application/json"}

    async def worker(session: aiohttp.ClientSession) -> None:
        for body in work:
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as answer:
                assert (await answer.json())["choices"]

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker(session))
        return {
            "calls": len(bodies),
            "calls_per_s": len(bodies) / (time.perf_counter() - began),
            "cpu_ms_per_call": 1000 * (time.process_time() - cpu) / len(bodies),
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


def child(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the bare loop (with asyncio's own loop or uvloop) or the build."""
    kind, url, folder, concurrency = options.child, options.url, options.folder, options.concurrency
    if kind.startswith("bare"):
        import uvloop

        bodies = (folder / BODIES).read_bytes().splitlines()
        run = uvloop.run if kind == "bare-uvloop" else asyncio.run
        spent = run(bare_loop(url, bodies, concurrency))
    else:
        text = recipe(url, folder, concurrency=concurrency, passthrough=kind == "passthrough")
        spent = measure_build(text, options.samples, folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {**spent, "peak_mb": usage.ru_maxrss / 1024}


def measure_build(text: str, samples: int, folder: Path) -> dict[str, Any]:
    """Calls per second of the calling phase, and of everything from the pool to the last byte written."""
    from videop2r_data.builders import Observer, Stop, Workspace, build
    from videop2r_data.cards.card import write_dataset_card
    from videop2r_data.cli.common import run_draining
    from videop2r_data.schemas import parse_recipe

    class Watch(Observer):
        def __init__(self) -> None:
            super().__init__()
            self.marks: dict[str, tuple[float, float]] = {}

        def begin(self, what: str, total: int | None) -> None:
            super().begin(what, total)
            self.marks[what] = (time.perf_counter(), time.process_time())

    watch, stop = Watch(), Stop()
    with tempfile.TemporaryDirectory() as out:
        place = Workspace.at(Path(out) / "bench", base=folder)
        began = time.perf_counter()
        report = run_draining(
            build(
                parse_recipe(text, where="bench"),
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
    assert report.media_decoded in (0, samples), f"{report.media_decoded} decodes of {samples} files"
    decoders = resource.getrusage(resource.RUSAGE_CHILDREN)
    (wall, cpu), (wall_end, cpu_end) = watch.marks["calls"], watch.marks["writing"]
    return {
        "calls": report.calls_made,
        "calls_per_s": report.calls_made / (wall_end - wall),
        "cpu_ms_per_call": 1000 * (cpu_end - cpu) / report.calls_made,
        "decoder_ms_per_file": 1000 * (decoders.ru_utime + decoders.ru_stime) / max(report.media_decoded, 1),
        "calls_per_s_whole": report.calls_made / (ended - began),
        "kept": report.ledger.kept,
    }


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; of `--rivals` and `--rival`, a mapping from names to Pythons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--media", choices=["text", *SENT], default="text")
    parser.add_argument("--concurrency", type=int, default=256, help="calls in flight")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rivals", action="store_true", help="beside every rival whose .venv-NAME is here")
    parser.add_argument(
        "--rival",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help=f"beside this one of {', '.join(rivals.CLIENTS)}, in that environment; may be repeated",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    record.add_option(parser)
    options = parser.parse_args(argv)
    try:
        named = dict(rivals.parse_rival(text) for text in options.rival)
    except ValueError as error:
        parser.error(str(error))
    found = rivals.installed() if options.rivals else {}
    for name in rivals.CLIENTS if options.rivals else ():
        if name not in found | named:
            print(f"left out, because it is not here: benchmarks/rivals/env.sh {name}", file=sys.stderr)
    options.rivals = found | named
    if options.rivals and options.media != "text":
        parser.error("rivals are asked questions of text only: leave out --media, or --rivals and --rival")
    return options


def main() -> None:
    """Time builds against a server with latency, beside a bare loop and other tools."""
    options = parse_options()
    if options.child == "premade":
        bodies = premade(options.folder, options.samples, options.media)
        (options.folder / BODIES).write_bytes(b"\n".join(bodies))
        print("{}")
        return
    if options.child:
        print(json.dumps(child(options)))
        return
    samples = min(options.samples, CLIPS) if options.media == "clips" else options.samples
    rounds = measure(options, samples)
    found = figures(rounds, in_flight=options.concurrency, samples=samples, latency_s=LATENCY_S)
    print(table(found, title=f"{options.media}, {samples} samples, {options.concurrency} in flight"))
    record.save(
        options,
        RUN_NAMES[options.media],
        found,
        packages=["aiohttp", "uvloop"],
        versions=dict(run["version"].split() for of in rounds.values() for run in of if "version" in run),
    )


def measure(options: argparse.Namespace, samples: int) -> dict[str, list[dict[str, Any]]]:
    """Every kind and every rival in turn, `--rounds` times, on one server."""
    kinds = ["bare", "bare-uvloop", "build", *(["passthrough"] if options.media == "fits" else [])]
    rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in (*kinds, *options.rivals)}
    with tempfile.TemporaryDirectory() as folder, server(LATENCY_S) as url:
        write_pool(Path(folder), samples, options.media)
        common = ["--samples", str(samples), "--media", options.media, "--url", url, "--folder", folder]
        run_child([*common, "--child", "premade"])
        for _ in range(options.rounds):
            for kind in kinds:
                args = [*common, "--concurrency", str(options.concurrency), "--child", kind]
                rounds[kind].append(run_child(args))
            calls = 2 * min(samples, RIVAL_SAMPLES)
            beside_rivals(rounds, options.rivals, url, Path(folder) / BODIES, calls, options.concurrency)
    return rounds


def beside_rivals(
    rounds: dict[str, list[dict[str, Any]]],
    pythons: Mapping[str, Path],
    url: str,
    bodies: Path,
    calls: int,
    concurrency: int,
) -> None:
    """A round of the rivals; one that fails is told with its error and is out, earlier rounds included."""
    for name, python in pythons.items():
        if name not in rounds:
            continue
        try:
            run = rivals.measure(name, python, url=url, bodies=bodies, calls=calls, concurrency=concurrency)
        except rivals.RivalError as error:
            print(f"left out, because it failed: {error}", file=sys.stderr, flush=True)
            del rounds[name]
        else:
            rounds[name].append(run)


if __name__ == "__main__":
    main()
