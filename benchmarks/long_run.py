"""A long build of text and clips through a fast server, killed near its end and taken up again.

    python -m benchmarks.long_run [--rows 10000 100000 260000] [--text] [--kill-at 0.9] [--json FILE]

Every other question is about a clip, ten questions about each; with `--text`, none is. The server answers at
once from a process of its own. For each size: the driver's peak memory (not that of its processes), bytes of
journal a row, seconds from the start of the resumed command to its first new call (as the server counts), and
seconds of the write. Rows in must be kept, rejected or failed, and no more calls come twice than were in
flight at the kill.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.kill_resume import start
from benchmarks.throughput import get, server, write_noisy_clip

PER_CLIP = 10
DISTINCT = 60
"""Clips that are encoded; the others are links to them, and are decoded all the same."""
CONCURRENCY = 64
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def write_inputs(folder: Path, rows: int, url: str, *, text: bool) -> Path:
    """Pool, clips and recipe; the path of the recipe."""
    clips = folder / "clips"
    clips.mkdir()
    for number in range(0 if text else (rows // 2 + PER_CLIP - 1) // PER_CLIP):
        if number < DISTINCT:
            write_noisy_clip(clips / f"{number}.mp4", number, frames=24)
        else:
            os.link(clips / f"{number % DISTINCT}.mp4", clips / f"{number}.mp4")
    with (folder / "pool.jsonl").open("w") as pool:
        for i in range(rows):
            about = {"data_type": "text", "path": ""}
            if i % 2 and not text:
                about = {"data_type": "video", "path": f"clips/{i // 2 // PER_CLIP}.mp4"}
            question = f"Which shape is number {i} in the row that the figure shows, counted from the left?"
            row = {
                "problem_id": i,
                "problem": question,
                "problem_type": "multiple choice",
                "options": ["A. a red circle", "B. a blue square", "C. a green triangle", "D. a grey star"],
                "solution": "<answer>A</answer>",
                "data_source": "bench",
            }
            pool.write(json.dumps(row | about) + "\n")
    backend = {"kind": "openai", "base_url": url, "concurrency": CONCURRENCY // 2}
    backend["price"] = {"input": 0.1, "output": 0.4}
    recipe = {
        "recipe": 1,
        "name": "long",
        "sources": [{"name": "bench", "kind": "video-r1", "path": "pool.jsonl", "media_root": "."}],
        "media": {"frames": 4, "max_pixels": 28 * 28 * 16},
        "generate": {"backend": {**backend, "model": "generator"}},
        "judge": {"backend": {**backend, "model": "judge"}},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


class Driver:
    """The command of a user, watched from outside."""

    def __init__(self, recipe: Path, out: Path) -> None:
        self.began = time.perf_counter()
        self.process = start(recipe, out)
        self.peak_mb = 0.0
        self.writing: tuple[float, float] | None = None
        """Seconds since the start, and CPU seconds, when it began to write."""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.began

    def cpu_s(self) -> float:
        """Of the driver and of its processes that have ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) * _TICK_S

    def look(self) -> bool:
        """Note its memory; whether it still runs."""
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            peak = next(line for line in lines if line.startswith("VmHWM"))
            self.peak_mb = max(self.peak_mb, int(peak.split()[1]) / 1024)
        return self.process.poll() is None

    def kill(self) -> None:
        """End it, and all that it started, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join()
        self.process.communicate()

    def report(self) -> dict[str, Any]:
        """Wait for its end, and give what it reports."""
        out: list[str] = []
        reader = threading.Thread(target=lambda: out.append(self.process.stdout.read()))  # type: ignore[union-attr]
        reader.start()
        while self.look():
            time.sleep(0.1)
        reader.join()
        self._reader.join()
        if self.process.returncode:
            raise SystemExit(f"the build ended with {self.process.returncode}: {out[0][-2000:]}")
        found: dict[str, Any] = json.loads(out[0])
        return found

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("writing") and self.writing is None:
                with suppress(OSError):
                    self.writing = self.seconds(), self.cpu_s()


def children_s() -> float:
    """CPU seconds of all processes that were waited for, and of theirs."""
    times = os.times()
    return times.children_user + times.children_system


def bytes_of(folder: Path, pattern: str) -> int:
    """Of the files in a folder with such a name."""
    return sum(path.stat().st_size for path in folder.glob(pattern))


def measure(rows: int, kill_at: float, folder: Path, *, text: bool) -> dict[str, Any]:
    """One size: killed, resumed, written."""
    with server(0.0) as url:
        recipe, out = write_inputs(folder, rows, url, text=text), folder / "set"
        first = Driver(recipe, out)
        while (seen := get(url, "stats")["requests"]) < kill_at * 2 * rows:
            time.sleep(0.2)
            if not first.look():
                raise SystemExit("the build ended before it could be killed")
        calls_s = first.seconds()
        first.kill()
        time.sleep(1.0)  # what was on its way to the server has come
        before_s = children_s()
        before = get(url, "stats")["requests"]
        second = Driver(recipe, out)
        while get(url, "stats")["requests"] == before:
            if not second.look():
                raise SystemExit("the resumed build made no call")
            time.sleep(0.01)
        resumed = second.seconds(), second.cpu_s()
        report = second.report()
        cpu_s = children_s() - before_s
        stats, ended = get(url, "stats"), second.seconds()
    work, ledger = folder / "set.build", report["ledger"]
    assert second.writing is not None
    assert report["seen"] == rows and not report["unanswered"], report
    return {
        "calls_per_s_before_the_kill": round(seen / calls_s),
        "driver_mb": round(max(first.peak_mb, second.peak_mb)),
        "driver_first_mb": round(first.peak_mb),
        "driver_resumed_mb": round(second.peak_mb),
        "journal_bytes_a_row": round(bytes_of(work / "journal", "*.jsonl") / rows),
        "index_bytes_a_row": round(bytes_of(work / "journal", "*.idx") / rows),
        "first_new_call_s": round(resumed[0], 2),
        "first_new_call_cpu_s": round(resumed[1], 2),
        "write_s": round(ended - second.writing[0], 1),
        "write_cpu_s": round(cpu_s - second.writing[1], 1),
        "repeats": stats["repeats"],
        "rows_unaccounted": rows - ledger["kept"] - ledger["rejected"] - ledger["failed"],
        "kept": ledger["kept"],
        "rejected": ledger["rejected"],
        "failed": ledger["failed"],
        "damaged_records": report["damaged_records"],
    }


def main() -> None:
    """Measure each size; what was measured until then is recorded after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 260_000])
    parser.add_argument("--text", action="store_true", help="no question is about a clip")
    parser.add_argument("--kill-at", type=float, default=0.9)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    record.add_option(parser)
    options = parser.parse_args()
    sizes: dict[str, Any] = {}
    figures = {"kill_at": options.kill_at, "in_flight": CONCURRENCY, "sizes": sizes}
    for rows in options.rows:
        folder = Path(tempfile.mkdtemp(prefix="long-run-", dir=options.folder))
        try:
            sizes[str(rows)] = measure(rows, options.kill_at, folder, text=options.text)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(rows, json.dumps(sizes[str(rows)]), flush=True)
        name = f"long_run_{'text' if options.text else 'clips'}"
        record.save(options, name, figures, packages=["pyarrow", "orjson", "av"])


if __name__ == "__main__":
    main()
