"""Everything that only a GPU can tell, in half an hour, without a network: one JSON, one page of tables.

    python -m benchmarks.gpu_all --out gpu.json                # one card of 80 GB, about 30 minutes
    python -m benchmarks.gpu_all --out gpu.json --minutes 9    # goes on where the last call stopped
    python -m benchmarks.gpu_all --out gpu.json --only 3b-lora --again
    python -m benchmarks.gpu_all --out gpu.json --quick        # any machine: does the script run?

Parts, in this order; each is a process with a time limit, and none takes the others along when it fails:

- `machine`: device, driver, versions, and the rate of a large matrix product;
- `quick`: `gpu_step --quick`, SFT and RL steps of a tiny model;
- `correct`: bfloat16 against float32 at 3B shape: shared prompts, decode, masks, gradients (`_gpu_check.py`);
- `3b-lora`, `7b-lora`: steps at the paper's frames and lengths, with shares, tokens/s, MFU and peak memory;
- `3b-full`: the same with all weights, under the settings of `FULL`;
- `miniature`: its main pairs, a process on every core, while there is time; its cells stay beside the JSON;
- `profile`: torch's profiler over one step of the slowest shape, its table beside the JSON.

Weights are random, at the shapes of Qwen2.5-VL-3B and 7B: 25 GB in `--folder`, or in the temporary folder and
then removed. The JSON is written after each part, and what ended well is not run again; the page (same name,
`.md`) is drawn from it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._gpu_tables import page

ROOT = Path(__file__).resolve().parent.parent
FULL = ("model.dtype=bfloat16", "optim.kind=adamw-master")
"""Settings with which all weights of 3B fit on one card of 80 GB: float32 copies beside bfloat16 weights."""
SLOWER = 5
"""How much longer a part may take at the small size: a CPU that others use too."""
TAIL = 3000
"""Characters of what a failed part said."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    Attributes:
        name: of the part.
        words: arguments of Python behind `-m`.
        limit_s: seconds after which it is stopped; what it has printed until then counts.
        cells: folder whose JSON files are its results; None: the lines of JSON that it prints are.
    """

    name: str
    words: tuple[str, ...]
    limit_s: float
    cells: Path | None = None


def parts(folder: Path, out: Path, found: Mapping[str, Any], *, quick: bool) -> list[Part]:
    """All parts, in their order.

    Args:
        folder: where models stay from part to part.
        out: the JSON; the profile goes beside it.
        found: results so far: the machine, and which shape is slowest.
        quick: the small size.
    """
    machine = ["--machine", json.dumps(results(found, "machine")[0])] if results(found, "machine") else []
    step = ["benchmarks.gpu_step", "--keep", str(folder), *machine]
    small = ["--quick"] if quick else []
    sets = [word for one in FULL for word in ("--set", one)]
    rl_first = ["--stage", "rl", "--stage", "sft", "--steps", "2"]
    shape, lora = slowest(found)
    short = ["--tokens", "32", "--prompts", "1", "--steps", "2"]
    table = ["--profile", str(out.with_suffix(".profile.txt"))]
    check = ("benchmarks._gpu_check", "--shape", "3b", "--keep", str(folder), *small)
    cells = out.with_suffix(".miniature")
    phases = ("--phases", "starts", "main")
    mini = ("benchmarks.miniature", "run", "--out", str(cells), "--jobs", str(os.cpu_count()), *phases)
    return [
        Part("machine", ("benchmarks._gpu_flops",), 120),
        Part("quick", (*step, "--quick"), 180),
        Part("correct", check, 240),
        Part("3b-lora", (*step, "--shape", "3b", "--lora", "64", *rl_first, *small), 330),
        Part("7b-lora", (*step, "--shape", "7b", "--lora", "64", *rl_first, *small), 360),
        Part("3b-full", (*step, "--shape", "3b", *rl_first, *sets, *small), 330),
        Part("miniature", (*mini, *small), 240, cells / ("quick/cells" if quick else "cells")),
        Part("profile", (*step, "--shape", shape, *lora, "--stage", "rl", *short, *table, *small), 180),
    ]


def results(found: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    """The lines of JSON that a part has printed."""
    lines: list[dict[str, Any]] = found.get("parts", {}).get(part, {}).get("results", [])
    return lines


def slowest(found: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The shape whose RL step took longest, and its flag for adapters; 3B with adapters where none ran."""
    names = ("3b-lora", "7b-lora", "3b-full")
    steps = [one for name in names for one in results(found, name) if one.get("stage") == "rl"]
    if not steps:
        return "3b", ["--lora", "64"]
    longest = max(steps, key=lambda one: float(one["step_s"]))
    return str(longest["shape"]), ["--lora", str(longest["lora"])]


def main() -> None:
    """Run what is missing, write after each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON; tables and profile go beside it")
    parser.add_argument("--only", action="append", help="a part; again for several")
    parser.add_argument("--again", action="store_true", help="run parts that ended well once more")
    parser.add_argument("--minutes", type=float, default=30.0, help="for this call in all; quick: times 5")
    parser.add_argument("--folder", type=Path, help="for models, kept; none: a temporary one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does the script run?")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu-all-") as name:
        folder = args.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        found = begin(args.out, quick=args.quick)
        ends = time.monotonic() + 60 * args.minutes * (SLOWER if args.quick else 1)
        for number in range(len(parts(folder, args.out, found, quick=args.quick))):
            part = parts(folder, args.out, found, quick=args.quick)[number]  # anew: later ones need results
            wanted = not args.only or part.name in args.only
            done = found["parts"].get(part.name, {}).get("status") == "done"
            if not wanted or (done and not args.again):
                continue
            limit = part.limit_s * (SLOWER if args.quick else 1)
            found["parts"][part.name] = run(part, min(limit, ends - time.monotonic()))
            write(args.out, found)
            print(f"{part.name}: {found['parts'][part.name]['status']}", flush=True)
    print(page(found))
    if any(one["status"] != "done" for one in found["parts"].values()):
        raise SystemExit(1)


def begin(out: Path, *, quick: bool) -> dict[str, Any]:
    """What an earlier call has found, or a new start.

    Raises:
        SystemExit: the file is of another commit or size; figures of two versions do not belong together.
    """
    now = {"benchmark": "gpu_all", "commit": commit(), "quick": quick}
    if out.exists():
        found: dict[str, Any] = json.loads(out.read_text())
        if differing := [name for name, value in now.items() if found[name] != value]:
            raise SystemExit(f"{out} is of another {' and '.join(differing)}: name another file with --out")
        return found
    return now | {"date": datetime.now(UTC).isoformat(timespec="seconds"), "parts": {}}


def commit() -> str:
    """The commit of this checkout, with a plus where files differ from it; `unknown` without git."""
    try:
        asked = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("P2R_COMMIT", "unknown")


def run(part: Part, limit_s: float) -> dict[str, Any]:
    """Run a part to its end or its limit; never raises.

    Returns:
        `status` (done, failed, out of time, not reached), `seconds`, `command`, `results` (its lines of
        JSON), and `said`, its last words where it did not end well.
    """
    words = list(part.words)
    if "--machine" in words:
        words[words.index("--machine") + 1] = "..."  # the results of the first part, once more
    shown = {"command": " ".join(("python", "-m", *words)), "limit_s": round(limit_s, 1)}
    if limit_s < 5:
        return {"status": "not reached", "seconds": 0.0, "results": [], **shown}
    began = time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *part.words],
            cwd=ROOT,
            stdout=output,
            stderr=errors,
            start_new_session=True,  # its decoders end with it
        )
        try:
            status = "failed" if process.wait(limit_s) else "done"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            stop(process)
        output.seek(0)
        errors.seek(0)
        printed, said = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
    lines = list(json_lines(printed)) if part.cells is None else list(cells_in(part.cells))
    told: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - began, 1), "results": lines}
    if status == "done" and not lines:
        told["status"] = "failed"  # a part that says nothing has measured nothing
    if told["status"] != "done":
        told["said"] = (printed + said)[-TAIL:]
    return told | shown


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def json_lines(text: str) -> Iterator[dict[str, Any]]:
    """The lines of a text that are JSON objects."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue


def cells_in(folder: Path) -> Iterator[dict[str, Any]]:
    """What each JSON file in a folder says in numbers and words, its lists left out."""
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        yield {"cell": path.stem} | {
            name: value for name, value in data.items() if not isinstance(value, list)
        }


def write(out: Path, found: Mapping[str, Any]) -> None:
    """The JSON and its tables; replaced in one step, so that a stop in between leaves the last state."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((out, json.dumps(found, indent=1) + "\n"), (out.with_suffix(".md"), page(found))):
        draft = path.with_name(f".{path.name}.partial")
        draft.write_text(text)
        draft.replace(path)


if __name__ == "__main__":
    main()
