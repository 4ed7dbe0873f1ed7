"""Peak memory of reading one large JSON part: `p2r-train lengths`, and what `p2r-train sft` reads.

    python -m benchmarks.json_part [--mb 170] [--quick] [--json FILE]

The part is one JSON list in the columns of the official release, every row with its own words. Each command
runs in a process of its own on that part and on a part of ten rows; the difference of the two peaks is what
reading costs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record

TINY_ROWS = 10
_WORDS = (Path(__file__).read_text() + "the person in red moves a ball behind the box before").split()
_READ = (
    "import sys; from videop2r_data.trainer.data.rows import read_examples; "
    "from videop2r_data.trainer.settings.parts import DataSpec; "
    "print(len(read_examples(DataSpec(source=sys.argv[1], media_root=sys.argv[2]))), 'examples')"
)


def write_part(path: Path, *, size: int = 0, rows: int = 0) -> int:
    """Write rows until the file has `size` bytes, or `rows` of them; returns how many."""
    draw = random.Random(0)

    def words(count: int) -> str:
        text = " ".join(draw.choices(_WORDS, k=count))
        return "".join(c for c in text if c.isalnum() or c == " ")

    done = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        while file.tell() < size or done < rows:
            process = f"<think>{words(110)}</think><answer>{'AB'[done % 2]}</answer>"
            row = {
                "problem_id": done,
                "problem": words(20),
                "data_type": "video",
                "problem_type": "multiple choice",
                "options": [f"A. {words(4)}", f"B. {words(4)}"],
                "process": process,
                "solution": f"<answer>{'AB'[done % 2]}</answer>",
                "path": f"./clips/{done % 997}/{done}.mp4",
                "data_source": "made up",
                "output": f"<observation>{words(90)}</observation> {process}",
            }
            file.write((", " if done else "") + json.dumps(row))
            done += 1
        file.write("]")
    return done


def peak_mb(command: list[str]) -> tuple[float, float]:
    """Peak resident memory of a command and its seconds."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - began


def _command(words: list[str], part: Path) -> list[str]:
    return [sys.executable, *(str(part) if word == "PART" else word for word in words)]


def main() -> None:
    """Measure the peak memory of each reader over one large JSON part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=170)
    parser.add_argument("--quick", action="store_true", help="a part of 20 MB")
    record.add_option(parser)
    args = parser.parse_args()
    size = (20 if args.quick else args.mb) * 10**6
    with tempfile.TemporaryDirectory() as folder:
        large, tiny = Path(folder, "large.json"), Path(folder, "tiny.json")
        count = write_part(large, size=size)
        write_part(tiny, rows=TINY_ROWS)
        clips = Path(folder, "clips")
        for number in range(997):  # one clip per folder is enough to find the media root right
            (clips / str(number)).mkdir(parents=True)
            (clips / str(number) / f"{number}.mp4").touch()
        print(f"a part of {count:,} rows, {large.stat().st_size / 1e6:.0f} MB")
        figures: dict[str, Any] = {"rows": count, "mb": round(large.stat().st_size / 1e6)}
        commands = {
            "lengths": ["-m", "videop2r_data.cli.train", "lengths", "PART"],
            "sft": ["-c", _READ, "PART", folder],
        }
        for name, words in commands.items():
            base, _ = peak_mb(_command(words, tiny))
            peak, seconds = peak_mb(_command(words, large))
            figures[name] = {
                "ten_rows_mb": round(base),
                "part_mb": round(peak),
                "more_mb": round(peak - base),
                "seconds": round(seconds, 1),
            }
            print(f"p2r-train {name}: {json.dumps(figures[name])}")
    record.save(args, "json_part", figures, packages=["pyarrow", "datasets"])


if __name__ == "__main__":
    main()
