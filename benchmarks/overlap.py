"""Overlap: planted copies that are found, and what a large pool takes.

    python -m benchmarks.overlap clips     [--pool 60] [--table 300] [--planted 10] [--media FOLDER]
    python -m benchmarks.overlap questions [--rows 20000]
    python -m benchmarks.overlap scale     [--pool 260000] [--bench 16000] [--json FILE]
    python -m benchmarks.overlap --quick   all three, small

*clips*: generated ones of three kinds, and those of a folder; of some of each kind other files are made that
show the same. *questions*: each is asked in two wordings. *scale*: the command itself, in its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pyarrow.parquet as pq

from benchmarks import record
from benchmarks.overlap_clips import CHANGES, KINDS, frames_of, read, write
from benchmarks.overlap_questions import Wording, by_hand, made
from videop2r_data.builders import Stop
from videop2r_data.builders.overlap import OverlapSettings, find_overlap


def row(name: str, wording: Wording, path: str) -> dict[str, Any]:
    """A row in the layout of Video-R1."""
    question, options = wording
    return {
        "problem_id": name,
        "problem": question,
        "options": [f"{letter}. {text}" for letter, text in zip("ABCDEFGH", options, strict=False)],
        "problem_type": "multiple choice" if options else "free-form",
        "data_type": "video",
        "solution": f"<answer>{'A' if options else 'x'}</answer>",
        "path": path,
        "data_source": "made",
    }


def compare(folder: Path, *, frames: bool = False) -> dict[str, list[tuple[str, str]]]:
    """Signal -> (row of the pool, row of the evaluation set), of `pool.json` and `bench.json` in a folder."""
    given = [str(folder / name / f"{name}.json") for name in ("pool", "bench")]
    settings = OverlapSettings(given[0], given[1:], folder / "out", frames=frames)
    asyncio.run(find_overlap(settings, progress=lambda *_: None, stop=Stop()))
    found = defaultdict(list)
    for line in pq.read_table(folder / "out" / "rows.parquet").to_pylist():
        ids = (line[name].partition("/")[2] for name in ("sample_id", "bench_id"))
        found[line["signal"]].append(tuple(ids))
    return found


def write_rows(folder: Path, side: str, rows: Iterable[dict[str, Any]]) -> None:
    """The rows of one side."""
    (folder / side).mkdir(parents=True, exist_ok=True)
    (folder / side / f"{side}.json").write_text(json.dumps(list(rows)))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


# Clips.


def clips(folder: Path, *, pool: int, tables: int, planted: int, media: Path | None) -> None:
    """Plant copies of clips and print how many of each kind are found."""
    rng = np.random.default_rng(0)
    for side in ("pool", "bench"):
        (folder / side).mkdir(parents=True)
    count = {kind: tables if kind == "table" else pool for kind in KINDS}
    names = [(kind, f"{kind}-{seed}.mp4") for kind in KINDS for seed in range(count[kind])]
    for kind, name in names:
        write(folder / "pool" / name, frames_of(kind, int(name[len(kind) + 1 : -4])))
    for kind, seed in product(("film", "wall"), range(planted // 2)):
        names.append((f"{kind}, 3 min", f"long-{kind}-{seed}.mp4"))
        write(folder / "pool" / names[-1][1], frames_of(kind, 10_000 + seed, 180))
    bench: list[tuple[str, str, str]] = []
    for kind in dict.fromkeys(kind for kind, _ in names):
        for _, name in [one for one in names if one[0] == kind][:planted]:
            bench += list(_plant(folder, kind, name, rng))
    for kind in KINDS:
        for seed in range(planted * 3):
            bench.append((kind, "(new)", f"new-{kind}-{seed}.mp4"))
            write(folder / "bench" / bench[-1][2], frames_of(kind, 50_000 + seed))
    if media is not None:
        bench += list(_real(folder, media, names, rng))
    write_rows(folder, "pool", (row(name, (f"What is in {name}?", ()), name) for _, name in names))
    write_rows(folder, "bench", (row(name, (f"Where is {name}?", ()), name) for *_, name in bench))
    start = time.process_time()
    found = compare(folder, frames=True)["frames"]
    spent = time.process_time() - start
    print(f"{len(names)} clips against {len(bench)}: {spent:.0f} CPU s beside the decoders\n")
    print(_recall(bench, {b: {a for a, other in found if other == b} for _, b in found}))


def _plant(folder: Path, kind: str, name: str, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    pictures, rate = read(folder / "pool" / name)
    for number, change in enumerate(CHANGES):
        if kind.endswith("min") and not change.name.startswith(("re-encoded", "trimmed")):
            continue
        to = f"{Path(name).stem}_{number}.mp4"
        change.make(pictures, rate, folder / "bench" / to, rng)
        yield kind, change.name, to


COPIES = ("editlist_trim.mp4", "corrupted.mp4")
"""Clips of the project's folder that are a cut and a copy of others in it."""


def _real(
    folder: Path, media: Path, names: list[tuple[str, str]], rng: np.random.Generator
) -> Iterator[tuple[str, str, str]]:
    """Copies of the whole clips of a folder that are two seconds long or longer."""
    for path in sorted(media.iterdir()):
        if path.name.startswith("broken"):
            continue
        try:
            pictures, rate = read(path)
        except (av.FFmpegError, IndexError) as error:  # damaged, or no clip
            print(f"left out: {path.name}: {error}")
            continue
        if len(pictures) < 2 * rate or min(pictures[0].shape[:2]) < 64 or path.name in COPIES:
            continue
        name = f"real-{path.stem}.mp4"
        write(folder / "pool" / name, iter(pictures[:600]), rate=rate, quality=18)
        names.append(("real", name))
        for _, change, to in _plant(folder, "real", name, rng):
            yield "real", change, to


def _recall(bench: list[tuple[str, str, str]], found: dict[str, set[str]]) -> str:
    """A line for each change, a cell for each kind: found, of how many; and what was found wrongly."""
    kinds = list(dict.fromkeys(kind for kind, *_ in bench))
    hits, wrong, all_of = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, change, name in bench:
        of = "" if change == "(new)" else name.rpartition("_")[0]
        all_of[change, kind] += 1
        hits[change, kind] += f"{of}.mp4" in found.get(name, ())
        wrong[change, kind] += bool(found.get(name, set()) - {f"{of}.mp4"})
    names = {change.name: change.promised for change in CHANGES}
    lines = []
    for change in dict.fromkeys(change for _, change, _ in bench):
        counts = wrong if change == "(new)" else hits
        cells = (f"{counts[change, k]} of {all_of[change, k]}" if all_of[change, k] else "-" for k in kinds)
        said = "no copy: found wrongly" if change == "(new)" else change
        lines.append([said if names.get(change, True) else f"*{said}*", *cells])
    beside = sum(wrong[key] for key in wrong if key[0] != "(new)")
    total = sum(all_of[key] for key in all_of if key[0] != "(new)")
    return (
        table(["", *kinds], lines)
        + f"\n\nBeside its own clip, {beside} of {total} copies were found in another one."
    )


# Questions.


class Question(NamedTuple):
    """A question of one side: the same name on both sides means the same question."""

    name: str
    kind: str
    clip: int
    wording: Wording


def questions(folder: Path, *, rows: int) -> None:
    """Ask again in other words, and print how many are found with their clip and without.

    One question in twelve is asked again, another one in twelve is new: the pool has its clip alone.
    """
    pool: list[Question] = []
    again: list[Question] = []
    fresh: list[Question] = []
    for n, one in enumerate(made(rows, seed=1, clips=0)):
        first, second = (Question(f"m{n}", one.kind, one.clip, words) for words in (one.first, one.second))
        (fresh if n % 12 == 6 else pool).append(first)
        again += [second] if n % 12 == 0 else []
    before = -1
    for n, (clip, *wordings) in enumerate(by_hand()):
        first, second = (Question(f"h{n}", "by hand", 500_000 + clip, words) for words in wordings)
        (fresh if clip != before else pool).append(first)  # the first question about each clip is the new one
        again += [second] if clip == before else []
        before = clip
    new = enumerate(made(rows // 12, seed=2, clips=8_000_000))
    strange = [Question(f"n{n}", one.kind, one.clip, one.first) for n, one in new]
    for side, rows_of in (("pool", pool), ("bench", again + fresh + strange)):
        named = ((q.name, q.wording, f"tempcompass/{10**6 + q.clip}.mp4") for q in rows_of)
        write_rows(folder, side, (row(*one) for one in named))
    found = compare(folder)
    heads = [
        "kind",
        "reworded",
        "with their clip",
        "by text",
        "new, clip known",
        "taken for another",
        "by text",
    ]
    lines = []
    for kind in dict.fromkeys(one.kind for one in pool):
        copies, others = ([one.name for one in part if one.kind == kind] for part in (again, fresh))
        right = [f"{_share(found[signal], copies, own=True):.1%}" for signal in ("both", "text")]
        wrong = [f"{_share(found[signal], others, own=False):.1%}" for signal in ("both", "text")]
        lines.append([kind, f"{len(copies):,}", *right, f"{len(others):,}", *wrong])
    print(table(heads, lines))


def _share(pairs: list[tuple[str, str]], names: list[str], *, own: bool) -> float:
    """Of some rows of the evaluation set: those found with their own partner, or with any."""
    found = {b for a, b in pairs if a == b or not own}
    return sum(name in found for name in names) / len(names)


# Scale.


PATHS = {
    "clevrer": "CLEVRER/train/video_{:05d}.mp4",
    "rooms": "scannet/scene{:04d}_00.mp4",
    "tests": "PerceptionTest/video_{}.mp4",
    "stories": "clips/{}.mp4",
}
"""Kind of question -> names of its clips, 10,000 of each; those of stories say nothing."""


def scale(folder: Path, *, pool: int, bench: int) -> dict[str, Any]:
    """Run the command over many rows in a process of its own; time and memory."""
    for side, count, seed, first in (("pool", pool, 1, 0), ("bench", bench, 2, 9_000)):
        asked = enumerate(made(count, seed=seed, clips=first))
        write_rows(
            folder, side, (row(f"r{n}", q.first, PATHS[q.kind].format(q.clip % 10_000)) for n, q in asked)
        )
    words = ["pool/pool.json", "--against", "bench/bench.json", "--json", "--quiet"]
    command = [sys.executable, "-m", "videop2r_data", "overlap", *words]
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, said
    (found,) = json.loads(said)["benches"]
    made_of_it = {
        "pool": pool,
        "bench": bench,
        "wall_s": round(time.monotonic() - start),
        "cpu_s": round(usage.ru_utime + usage.ru_stime),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "found": {signal: shared["found"] for signal, shared in found["bench"].items()},
    }
    print(json.dumps(made_of_it))
    return made_of_it


def main() -> None:
    """Run one part, or all of them small."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=("clips", "questions", "scale"))
    parser.add_argument("--pool", type=int)
    parser.add_argument("--table", type=int, default=300)
    parser.add_argument("--planted", type=int, default=10)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--bench", type=int, default=16_000)
    parser.add_argument("--quick", action="store_true")
    record.add_option(parser)
    chosen = parser.parse_args()
    if chosen.json and chosen.part != "scale":
        parser.error("only the figures of scale are recorded")
    with tempfile.TemporaryDirectory(prefix="p2r-overlap-") as place:
        root, quick = Path(place), chosen.quick
        if quick or chosen.part == "clips":
            pool, tables, planted = (3, 3, 1) if quick else (chosen.pool or 60, chosen.table, chosen.planted)
            clips(root / "clips", pool=pool, tables=tables, planted=planted, media=chosen.media)
        if quick or chosen.part == "questions":
            questions(root / "questions", rows=600 if quick else chosen.rows)
        if quick or chosen.part == "scale":
            sizes = (3000, 300) if quick else (chosen.pool or 260_000, chosen.bench)
            found = scale(root / "scale", pool=sizes[0], bench=sizes[1])
            record.save(chosen, "overlap_scale", found, packages=["pyarrow", "numpy"])


if __name__ == "__main__":
    main()
