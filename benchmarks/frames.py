"""N frames out of a clip: this package beside decoding everything, decord, torchcodec and qwen-vl-utils.

    benchmarks/rivals/env.sh readers
    python -m benchmarks.frames --media DIR [--readers PYTHON] [--long-seconds 660] [--json FILE]

Each method runs in a process of its own (`_frames_methods.py`), one thread, every clip `--repeat` times; the
table shows the mean over the clips of the least CPU time of each, and the peak memory of the process. A long
clip is the first short one again and again, its packets copied; it runs once after the run that fills caches.
`--readers` is the Python of an environment with the other libraries, `.venv-readers` where there is one;
without it they are left out, as is a method that fails as a whole. A clip that a method cannot read is named,
and left out of its mean and of the floor's that it is compared with. The record, for `short` and for `long`:

    {"clips": 11, "repeat": 3, "methods": {"floor": {...}, "ours_16": {...}, "torchcodec_32": {...}, ...}}
    of long also "source" (the short clip), "seconds", "frames", "mb"

    a method: "method" (without the number of frames), "label", "frames" (null for the floor), "cpu_ms" (per
    clip), "of_floor" and "faster" (CPU time by that of the floor, and the inverse), "peak_mb", "not_read"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks._frames_methods import MAX_PIXELS, METHODS, MIN_PIXELS, Size

ROOT = Path(__file__).resolve().parent.parent
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
COUNTS = (16, 32)


def main() -> None:
    """Measure short clips and a long one, print the tables, and record them with `--json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path, required=True, help="folder with the short clips")
    parser.add_argument("--readers", type=Path, help="Python with the other libraries")
    parser.add_argument("--long-seconds", type=int, default=660)
    parser.add_argument("--repeat", type=int, default=3)
    record.add_option(parser)
    options = parser.parse_args()
    short = [options.media / name for name in SHORT if (options.media / name).is_file()]
    if not short:
        parser.error(f"{options.media} has none of the clips {', '.join(SHORT)}")
    beside = ROOT / ".venv-readers" / "bin" / "python"
    readers = options.readers or (beside if beside.exists() else None)
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "long.mp4"
        frames = make_long(short[0], clip, options.long_seconds)
        long = {
            "source": short[0].name,
            "seconds": options.long_seconds,
            "frames": frames,
            "mb": round(clip.stat().st_size / 1e6, 1),
        }
        found = {
            "short": measure_all(short, options.repeat, readers, versions),
            "long": long | measure_all([clip], 1, readers, versions),
        }
    for part in ("short", "long"):
        print(table(part, found[part]), end="\n\n")
    record.save(options, "frames", found, packages=["av"], versions=versions)


def measure_all(
    clips: list[Path], repeat: int, readers: Path | None, versions: dict[str, str]
) -> dict[str, Any]:
    """Every method, the floor first; versions of the libraries that were measured are added to `versions`."""
    sizes = {str(path): wanted_size(path) for path in clips}
    floor: dict[str, float] = {}
    methods: dict[str, Any] = {}
    for name, method in METHODS.items():
        python = readers if method.elsewhere else Path(sys.executable)
        if python is None:
            continue
        for count in COUNTS if method.convert else (None,):
            made = measure(python, name, count, repeat, sizes)
            if made is None:
                continue
            versions |= made["versions"]
            floor = floor or made["times"]
            row = {"method": name, "label": method.label, "frames": count, **compared(made, floor)}
            methods[name if count is None else f"{name}_{count}"] = row
    return {"clips": len(clips), "repeat": repeat, "methods": methods}


def measure(
    python: Path, name: str, count: int | None, repeat: int, sizes: Mapping[str, Size]
) -> dict[str, Any] | None:
    """CPU seconds per clip and peak memory of one method, in a process of its own; None where it failed."""
    command = [str(python), "-m", "benchmarks._frames_methods", name, str(count or 0), str(repeat)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(sizes),
        capture_output=True,
        text=True,
        env=env,
        check=False,
        timeout=1800,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith(f"{name}:")]
    print(*said, sep="\n", end="\n" if said else "", file=sys.stderr)
    if done.returncode != 0:
        print(f"{name} is left out, because it failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compared(made: Mapping[str, Any], floor: Mapping[str, float]) -> dict[str, Any]:
    """A method's time over the clips that it read, beside the floor's over the same clips.

    >>> compared({"times": {"a.mp4": 0.2, "b.mp4": None}, "peak_mb": 90.04}, {"a.mp4": 0.1, "b.mp4": 5.0})
    {'cpu_ms': 200.0, 'of_floor': 2.0, 'faster': 0.5, 'peak_mb': 90.0, 'not_read': ['b.mp4']}
    """
    times = {path: seconds for path, seconds in made["times"].items() if seconds is not None}
    not_read = [Path(path).name for path in made["times"] if path not in times]
    total, base = sum(times.values()), sum(floor[path] for path in times)
    row: dict[str, Any] = {"cpu_ms": None, "of_floor": None, "faster": None}
    if times:
        row = {
            "cpu_ms": round(1000 * total / len(times), 1),
            "of_floor": round(total / base, 3),
            "faster": round(base / total, 2),
        }
    return {**row, "peak_mb": round(made["peak_mb"], 1), "not_read": not_read}


def wanted_size(path: Path) -> Size:
    """The height and width that frames of a clip are scaled to, as this package does."""
    import av

    from videop2r_data.media import smart_resize

    with av.open(str(path), metadata_errors="replace") as container:
        streams = [stream.codec_context for stream in container.streams.video]
    largest = max(streams, key=lambda shown: shown.width * shown.height)
    height, width = smart_resize(largest.height, largest.width, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    return height, width


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


def table(part: str, found: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{part}: {found['clips']} clip(s), best of {found['repeat']}",
        f"{'':36}{'frames':>7}{'CPU ms per clip':>17}{'/ floor':>9}{'peak MB':>9}  not read",
    ]
    for row in found["methods"].values():
        shown = ("-", "-") if row["cpu_ms"] is None else (f"{row['cpu_ms']:.0f}", f"{row['of_floor']:.2f}")
        lines.append(
            f"{row['label']:36}{row['frames'] or 'all':>7}{shown[0]:>17}{shown[1]:>9}"
            f"{row['peak_mb']:9.0f}  {', '.join(row['not_read']) or '-'}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
