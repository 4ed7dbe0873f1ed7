"""Kill a build with SIGKILL again and again: the same bytes must come out, and next to nothing be paid twice.

    python -m benchmarks.kill_resume [--samples 2000] [--kills 20] [--image] [--json FILE]

Two builds of one recipe against the same server: one undisturbed, one killed at random moments and started
again by the same command. Every output file must have the same sha256. The server counts requests by content:
those that came twice can be no more than the calls that were in flight at the kills.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.throughput import get, server, write_pool

CONCURRENCY = 32


def write_recipe(folder: Path, url: str) -> Path:
    """A recipe with two kinds of calls and extra attempts."""
    backend = {"kind": "openai", "base_url": url, "concurrency": CONCURRENCY}
    path = folder / "recipe.yaml"
    path.write_text(
        json.dumps(
            {
                "recipe": 1,
                "name": "killed",
                "sources": [{"name": "bench", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
                "media": {"image_max_pixels": 448 * 224, "workers": 1},
                "generate": {"backend": {**backend, "model": "generator"}, "attempts": 2},
                "judge": {"backend": {**backend, "model": "judge"}},
            }
        )
    )
    return path


def start(recipe: Path, out: Path, *flags: str) -> subprocess.Popen[str]:
    """The command that a user would type."""
    command = [sys.executable, "-m", "videop2r_data.cli", "build", str(recipe), "--out", str(out), "--json"]
    return subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file of a data set."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the end and give the report."""
    out, err = process.communicate()
    if process.returncode != 0:
        raise SystemExit(err)
    found: dict[str, Any] = json.loads(out)
    return found


def kill_at_random(
    recipe: Path, out: Path, kills: int, span_s: float, rng: random.Random
) -> tuple[int, dict[str, Any]]:
    """Start, kill, start ...; kills that really hit a running build, and the last run's report."""
    hits = 0
    for _ in range(kills):
        process = start(recipe, out)
        time.sleep(rng.uniform(0.2, span_s))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            hits += 1
        process.communicate()
    return hits, finish(start(recipe, out))


def run(samples: int, kills: int, latency: float, seed: int, *, image: bool) -> dict[str, Any]:
    """Both builds; what was seen."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, server(latency) as url:
        folder = Path(name)
        write_pool(folder, samples, "fits" if image else "text")
        recipe = write_recipe(folder, url)
        began = time.perf_counter()
        finish(start(recipe, folder / "a" / "killed"))
        undisturbed_s = time.perf_counter() - began
        calls = get(url, "stats")["requests"]
        get(url, "reset")
        # spread the kills over the whole build: each run gets about its share of it, start-up included
        span = 2.0 * (0.75 * undisturbed_s / kills + 0.6)
        hits, report = kill_at_random(recipe, folder / "b" / "killed", kills, span, rng)
        stats = get(url, "stats")
        same = digests(folder / "a" / "killed") == digests(folder / "b" / "killed")
        return {
            "samples": samples,
            "latency_s": latency,
            "in_flight": 2 * CONCURRENCY,
            "kills": kills,
            "kills_that_hit": hits,
            "same_bytes": same,
            "calls": calls,
            "requests": stats["requests"],
            "repeats": stats["repeats"],
            "in_flight_at_kills_at_most": hits * 2 * CONCURRENCY,
            "repeats_of_those_in_flight": round(stats["repeats"] / max(1, hits * 2 * CONCURRENCY), 3),
            "damaged_records": report["damaged_records"],
            "undisturbed_s": round(undisturbed_s, 1),
        }


def main() -> None:
    """Kill a build again and again, and compare its bytes with those of a build left alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", action="store_true")
    record.add_option(parser)
    options = parser.parse_args()
    found = run(options.samples, options.kills, options.latency, options.seed, image=options.image)
    print(json.dumps(found, indent=2))
    record.save(options, "kill_resume", found)
    if not found["same_bytes"] or found["repeats"] > found["in_flight_at_kills_at_most"]:
        raise SystemExit("the claim does not hold")


if __name__ == "__main__":
    main()
