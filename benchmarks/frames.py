"""N frames out of a clip: this package beside decoding everything, decord and qwen-vl-utils.

    python benchmarks/frames.py --media DIR [--qwen-python PYTHON] [--long-seconds 660] [--out FILE]

Each method runs in a process of its own, one thread, every clip `--repeat` times; the table shows the sum
over the clips of the best CPU time of each, and the peak memory of the process. The long clip is the first
short one again and again, its packets copied. `--qwen-python` is an interpreter that has qwen-vl-utils, torch
and decord installed; without it that row is left out. A clip that a method cannot read is named, and left out
of its sum and of the sum that it is compared with.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHORT = (
    "video1.mp4",
    "nasa_13013.mp4",
    "flipping_a_pancake.mkv",
    "demo_skeleton.mp4",
    "demo_spatiotemporal_det.mp4",
    "sample_demo_3.mp4",
    "count-video.mp4",
    "fire2.mp4",
    "video_with_failing_audio.mp4",
    "no_duration.webm",
    "av1_video.mkv",
)
MAX_PIXELS = 128 * 28 * 28
MIN_PIXELS = 4 * 28 * 28
Method = Callable[[str, int], object]


def decode_everything(path: str, n: int) -> object:
    """The floor: every frame decoded in order, nothing converted."""
    import av

    count = 0
    with av.open(path, metadata_errors="replace") as container:
        stream = max(container.streams.video, key=lambda s: s.codec_context.width * s.codec_context.height)
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        for _ in container.decode(stream):
            count += 1
    return count


def decode_everything_convert(path: str, n: int) -> object:
    """The straightforward right way: count packets, decode, convert the wanted ones with swscale."""
    import av
    import numpy as np

    from videop2r_data.media import smart_resize, uniform_indices

    wanted = set(uniform_indices(_packets(path), n))
    arrays = []
    with av.open(path, metadata_errors="replace") as container:
        stream = max(container.streams.video, key=lambda s: s.codec_context.width * s.codec_context.height)
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        for i, frame in enumerate(container.decode(stream)):
            if i in wanted:
                height, width = smart_resize(
                    frame.height, frame.width, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS
                )
                scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
                arrays.append(scaled.to_ndarray())
    return np.stack(arrays)


def _packets(path: str) -> int:
    import av

    with av.open(path, metadata_errors="replace") as container:
        stream = max(container.streams.video, key=lambda s: s.codec_context.width * s.codec_context.height)
        return sum(1 for p in container.demux(stream) if p.size and not p.is_discard)


def ours(path: str, n: int) -> object:
    """This package, from the file to pixels and their record (both digests included)."""
    from videop2r_data.media import sample_media
    from videop2r_data.schemas import MediaSpec

    return sample_media(Path(path), "video", MediaSpec(frames=n), want="array")


def ours_jpeg(path: str, n: int) -> object:
    """The same, to JPEG pictures."""
    from videop2r_data.media import sample_media
    from videop2r_data.schemas import MediaSpec

    return sample_media(Path(path), "video", MediaSpec(frames=n), want="encoded")


def decord(path: str, n: int) -> object:
    """decord, scaled while decoding, one thread."""
    import decord as lib
    import numpy as np

    from videop2r_data.media import smart_resize

    height, width = lib.VideoReader(path, num_threads=1)[0].shape[:2]
    size = smart_resize(height, width, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    reader = lib.VideoReader(path, height=size[0], width=size[1], num_threads=1)
    return reader.get_batch(np.linspace(0, len(reader) - 1, n).round().astype(int)).asnumpy()


def qwen(path: str, n: int) -> object:
    """qwen-vl-utils with its decord reader, as training scripts call it."""
    import torch

    if not hasattr(qwen, "ready"):
        os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"
        torch.set_num_threads(1)
        try:
            # A CPU build of torch lacks two operators that torchvision wants at import.
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            qwen.ready = library  # type: ignore[attr-defined]
        except RuntimeError:
            qwen.ready = None  # type: ignore[attr-defined]
    from qwen_vl_utils.vision_process import fetch_video

    return fetch_video({"video": path, "nframes": n, "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS})


METHODS: dict[str, Method] = {
    "decode everything, convert nothing": decode_everything,
    "decode everything, convert N": decode_everything_convert,
    "this package": ours,
    "this package, to JPEG": ours_jpeg,
    "decord 0.6": decord,
    "qwen-vl-utils 0.0.14 (decord)": qwen,
}


def child(method: str, n: int, repeat: int, paths: list[str]) -> None:
    """Measure in this process; one JSON object on stdout."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = METHODS[method]
    times: dict[str, float | None] = {}
    for path in paths:
        best: float | None = None
        try:
            run(path, n)  # imports and caches
            for _ in range(repeat):
                start = time.process_time()
                run(path, n)
                took = time.process_time() - start
                best = took if best is None else min(best, took)
        except Exception as error:
            sys.stderr.write(f"{method}: {Path(path).name}: {type(error).__name__} {str(error)[:200]}\n")
            best = None
        times[path] = best
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"times": times, "peak_mb": peak}, out)
    out.close()


def measure(python: str, method: str, n: int, repeat: int, paths: list[str]) -> dict[str, Any] | None:
    """CPU milliseconds per clip and peak memory of one method, in a process of its own; None if it failed."""
    command = [python, __file__, "--child", method, str(n), str(repeat), *paths]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if method == "qwen-vl-utils 0.0.14 (decord)":
        env["PYTHONPATH"] = ""
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=1800)
    if done.returncode != 0:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    if done.stderr.strip():
        print(
            *[line for line in done.stderr.splitlines() if line.startswith(method)], sep="\n", file=sys.stderr
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def make_long(source: Path, path: Path, seconds: int) -> int:
    """The same clip again and again, packets copied, until it lasts `seconds`; returns its frames."""
    import av

    offset = frames = 0
    with av.open(str(path), "w") as container:
        target: Any = None
        while target is None or offset * target.time_base < seconds:
            with av.open(str(source)) as original:
                stream = original.streams.video[0]
                if target is None:
                    target = container.add_stream_from_template(stream)
                    target.time_base = stream.time_base
                end = offset
                for packet in original.demux(stream):
                    if packet.pts is None or packet.dts is None or not packet.size:
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    end = max(end, packet.pts + (packet.duration or 0))
                    packet.stream = target
                    container.mux(packet)
                    frames += 1
                offset = end
    return frames


def table(args: argparse.Namespace, paths: list[str], repeat: int) -> list[str]:
    """Measure every method and give the rows of the table of results."""
    rows: list[tuple[str, int, dict[str, Any]]] = []
    for method in METHODS:
        python = sys.executable
        if method.startswith("qwen"):
            if not args.qwen_python:
                continue
            python = args.qwen_python
        for n in (16,) if method.endswith("nothing") else (16, 32):
            result = measure(python, method, n, repeat, paths)
            if result is not None:
                rows.append((method, n, result))
    floor = next(r for m, _, r in rows if m.endswith("nothing"))
    lines = [
        "| method | frames | CPU ms per clip | against decode-everything | peak MB | clips not read |",
        "|---|---|---|---|---|---|",
    ]
    for method, n, result in rows:
        read = [p for p in paths if result["times"][p] is not None]
        total = sum(result["times"][p] for p in read)
        base = sum(floor["times"][p] for p in read)
        failed = ", ".join(Path(p).name for p in paths if result["times"][p] is None) or "-"
        count = "all" if method.endswith("nothing") else str(n)
        lines.append(
            f"| {method} | {count} | {1000 * total / len(read):.0f} | {total / base:.2f} "
            f"| {result['peak_mb']:.0f} | {failed} |"
        )
    return [f"{len(paths)} clip(s), best of {repeat}.", "", *lines]


def main() -> None:
    """Measure, print the tables, and write them with `--write`."""
    if "--child" in sys.argv:
        method, n, repeat, *paths = sys.argv[sys.argv.index("--child") + 1 :]
        child(method, int(n), int(repeat), paths)
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path, required=True, help="folder with the short clips")
    parser.add_argument("--qwen-python", help="interpreter with qwen-vl-utils")
    parser.add_argument("--long-seconds", type=int, default=660)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    short = [str(args.media / name) for name in SHORT if (args.media / name).is_file()]
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "long.mp4"
        frames = make_long(Path(short[0]), clip, args.long_seconds)
        parts = [
            "# Frame sampling",
            "",
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores {platform.machine()}, "
            f"shared; Python {platform.python_version()}. CPU time of one thread; ratios count.",
            "",
            "```",
            "python benchmarks/frames.py --media DIR --qwen-python PYTHON "
            f"--long-seconds {args.long_seconds} --repeat {args.repeat}",
            "```",
            "",
            "## Short clips",
            "",
            *table(args, short, args.repeat),
            "",
            f"## One clip of {args.long_seconds // 60} minutes: {Path(short[0]).name} again and again "
            f"({frames} frames, {clip.stat().st_size / 1e6:.1f} MB)",
            "",
            *table(args, [str(clip)], 1),
            "",
        ]
    text = "\n".join(parts)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
