"""Random odd containers, every N from 1 to 40: the fast way equals an in-order decode, or a named error.

    python -m benchmarks.odd_containers [--files 500] [--first 0] [--index] [--json FILE]

Writes nothing but temporary files; prints what came of them, and every seed that broke a rule.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import av.logging

from benchmarks import record
from tests.media.odd import make
from tests.media.odd_check import EVERY_N, check
from videop2r_data.media import packets as sample_table


def main() -> int:
    """Make, check, count; 1 if a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first file")
    parser.add_argument("--index", action="store_true", help="use the index of small mp4 files too")
    record.add_option(parser)
    options = parser.parse_args()
    if options.index:
        sample_table.LARGE = 0
    av.logging.set_level(None)
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # encoders print whatever they are told
    ways: Counter[str] = Counter()
    split = broken = unmade = unmarked = 0
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.first, options.first + options.files):
            try:
                odd = make(seed, Path(folder))
            except (av.FFmpegError, ValueError) as error:
                unmade += 1
                print(f"seed {seed}: cannot be muxed ({type(error).__name__})")
                continue
            verdict = check(odd, EVERY_N)
            ways.update(verdict.answers)
            unmarked += verdict.unmarked > 0
            split += len({a.startswith("pyav") for a in verdict.answers}) > 1
            if verdict.faults:
                broken += 1
                print(
                    f"seed {seed} {odd.what}: {len(verdict.faults)} faults, first: {verdict.faults[0][:300]}"
                )
            for path in Path(folder).glob(f"*{seed}.*"):
                path.unlink()
    made, cpu_s = options.files - unmade, time.process_time() - begin
    print(
        f"{made} files (and {unmade} that no muxer would write), N = 1 to {EVERY_N[-1]}, {cpu_s:.0f} s of CPU"
    )
    for way, count in ways.most_common():
        print(f"{count:7} {way}")
    print(f"files accepted at some N and refused at others (damage inside of pictures): {split}")
    print(f"files with flipped bits that change pictures and that no decoder marks: {unmarked}")
    print(f"files that broke a rule: {broken}")
    figures = {
        "files": options.files,
        "made": made,
        "frames_up_to": EVERY_N[-1],
        "some_n_only": split,
        "unmarked_damage": unmarked,
        "broken": broken,
        "cpu_s": round(cpu_s),
        "ways": dict(ways.most_common()),
    }
    record.save(
        options, "odd_containers_index" if options.index else "odd_containers", figures, packages=["av"]
    )
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
