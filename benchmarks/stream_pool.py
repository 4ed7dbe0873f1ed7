"""Stream a 260,000-row pool out of one JSON array and report rows/s, MB/s and peak memory.

    python -m benchmarks.stream_pool [--rows 260000] [--keep FILE] [--json FILE]

The pool is written in one process and read in a fresh one, so that the peak is that of reading alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import record


def write_pool(path: Path, rows: int) -> None:
    """Rows of the size and the mix of Video-R1-260k: about 640 bytes each, one line for all of them."""
    question = "where does the person in the red coat put the small round object after opening door"
    words = question.split()
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for i in range(rows):
            kind = ("multiple choice", "numerical", "free-form", "multiple choice")[i % 4]
            choice = kind == "multiple choice"
            turn = i % len(words)
            text = " ".join(words[turn:] + words[:turn])
            row = {
                "problem_id": i,
                "problem": f"In scene {i}: {text}, and what follows from that?",
                "data_type": "video" if i % 2 else "image",
                "problem_type": kind,
                "options": [f"{c}. {text} {c.lower()}{i % 97}" for c in "ABCD"] if choice else [],
                "solution": f"<answer>{'ABCD'[i % 4] if choice else i % 1000}</answer>",
                "path": f"./LLaVA-Video-178K/part_{i % 100}/videos/clip_{i % 90_000:06d}.mp4",
                "data_source": "LLaVA-Video-178K/30_60_s_youtube_v0_1",
            }
            file.write((", " if i else "") + json.dumps(row))
        file.write("]")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _raw(path: Path) -> int:
    from videop2r_data.builders.sources import read_json_files

    return sum(1 for _ in read_json_files([path]))


def _samples(path: Path) -> int:
    from videop2r_data.builders.sources import open_source
    from videop2r_data.schemas import BadRow, SourceSpec

    source = open_source(SourceSpec(name="pool", kind="video-r1", path=str(path)), base=path.parent)
    bad = good = 0
    for row in source.rows():
        bad += isinstance(row, BadRow)
        good += 1
    assert not bad, f"{bad} bad rows in a pool that has none"
    return good


def _everything(path: Path) -> int:
    return len(json.loads(path.read_bytes()))


READERS = {"json_loads": _everything, "rows": _raw, "checked": _samples}
"""The whole file at once; rows as the reader gives them; samples as a build reads them."""


def _measure(name: str, path: Path, pipe: Connection) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    rows = READERS[name](path)
    pipe.send((rows, time.perf_counter() - wall, time.process_time() - cpu, _peak_mb()))


def measure(name: str, path: Path) -> tuple[int, float, float, float]:
    """Rows, wall seconds, CPU seconds and peak resident MB of one reader in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(name, path, there))
    process.start()
    there.close()
    result: tuple[int, float, float, float] = here.recv()
    process.join()
    return result


def main() -> None:
    """Write the pool, read it with each reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=260_000)
    parser.add_argument("--keep", type=Path, help="write the pool here and leave it")
    record.add_option(parser)
    args = parser.parse_args()
    readers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = args.keep or Path(folder) / "pool.json"
        writer = multiprocessing.get_context("spawn").Process(target=write_pool, args=(path, args.rows))
        writer.start()
        writer.join()
        size = path.stat().st_size / 1e6
        print(f"pool: {args.rows} rows, {size:.1f} MB, one JSON array on one line\n")
        for name in READERS:
            rows, wall, cpu, peak = measure(name, path)
            assert rows == args.rows, (name, rows)
            readers[name] = {
                "rows_per_s": round(rows / wall),
                "mb_per_s": round(size / wall),
                "cpu_s": round(cpu, 1),
                "peak_mb": round(peak),
            }
            print(name, json.dumps(readers[name]), flush=True)
    figures = {"rows": args.rows, "mb": round(size, 1), "readers": readers}
    record.save(args, "stream_pool", figures, packages=["pyarrow", "orjson"])


if __name__ == "__main__":
    main()
