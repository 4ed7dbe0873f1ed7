"""Long runs: `python -m tests.fuzz.run TARGET --minutes 30 --out DIR`, in the environment of `make fuzz`.

Atheris drives one target: the package and the YAML reader are traced, so that inputs which reach new code are
kept and changed further. A finding does not end a run: each is written down once, with its smallest input, and
the run goes on. It goes on, too, where a C library takes the process with it or an input never ends: a parent
starts it again for the rest of its time, and keeps the input. The last line of a run is its record as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.target import BrokenError, Target

TARGETS = ("traces", "verdicts", "scores", "recipes", "pools", "probe")
FACTOR = 10.0
"""Code that is traced takes about three times as long, and a busy machine adds to that."""
_ROOM = "videop2r_data"


def target_of(name: str) -> Target:
    """The target of this name."""
    found: Target = importlib.import_module(f"tests.fuzz.{name}").TARGET
    return found


class Findings:
    """What went wrong: each kind once, by its error and the place that raised it, with the smallest input."""

    def __init__(self, out: Path) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self.smallest: dict[str, int] = {}

    def take(self, data: bytes, error: BaseException) -> None:
        """Note one input that failed."""
        kind = signature(error)
        if len(data) >= self.smallest.get(kind, 1 << 60):
            return
        self.smallest[kind] = len(data)
        name = hashlib.sha256(kind.encode()).hexdigest()[:12]
        (self.out / f"{name}.input").write_bytes(data)
        told = "".join(traceback.format_exception(error))
        (self.out / f"{name}.txt").write_text(f"{kind}\n{data!r}\n\n{told}", errors="backslashreplace")


def signature(error: BaseException) -> str:
    """Type of an error and its place; of an invariant its name, in front of the colon."""
    frames = traceback.extract_tb(error.__traceback__)
    broken = isinstance(error, BrokenError)
    ours = [f for f in frames if (_ROOM in f.filename and not broken) or "tests/fuzz" in f.filename]
    last = ours[-2 if broken else -1] if len(ours) > 1 else frames[-1]
    name = str(error).partition(":")[0][:60] if broken else ""
    return f"{type(error).__name__} {name} {Path(last.filename).name}:{last.lineno}"


def _drive(name: str, seconds: int, out: Path) -> None:
    """The process that runs the target; ends by itself."""
    import atheris

    with atheris.instrument_imports(include=[_ROOM, "yaml"], enable_loader_override=False):
        target = target_of(name)
    target = importlib.import_module(f"tests.fuzz.{name}").TARGET
    findings = Findings(out / "findings")
    record = {"executions": 0, "began": time.time()}
    current, tally = out / "current", out / f"tally-{os.getpid()}.json"

    def one(data: bytes) -> None:
        current.write_bytes(data)  # what a crash leaves behind
        record["executions"] += 1
        try:
            target.run(data, factor=FACTOR)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            findings.take(data, error)
        if record["executions"] % 500 == 0:
            _note(tally, record)

    corpus = out / "corpus"
    corpus.mkdir(exist_ok=True)
    if not any(corpus.iterdir()):
        for seed in target.seeds():
            (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    for seed in target.seeds():
        with contextlib.suppress(Exception):
            target.read(seed)  # loads what is imported at its first use, which no input shall pay for
    flags = [f"-max_total_time={seconds}", f"-max_len={target.longest}", "-rss_limit_mb=3000", "-timeout=300"]
    flags += [f"-artifact_prefix={out}/crash-", "-print_final_stats=1"]
    if target.words:
        words = out / "words.dict"
        quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words if word)
        words.write_text("".join(f'"{word}"\n' for word in quoted))
        flags.append(f"-dict={words}")
    atheris.Setup([name, *flags, str(corpus)], one)
    atheris.Fuzz()


def _note(tally: Path, record: dict[str, Any]) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = record | {"cpu_s": round(used.ru_utime + used.ru_stime, 1), "mb": used.ru_maxrss // 1024}
    tally.write_text(json.dumps(told | {"wall_s": round(time.time() - record["began"], 1)}))


def _supervise(name: str, minutes: float, out: Path) -> dict[str, Any]:
    """Run a target for this long, starting it again where its process dies."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("tally-*"):
        old.unlink()
    began, deaths = time.time(), 0
    while (left := 60 * minutes - (time.time() - began)) > 5:
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--drive", str(int(left)), "--out", str(out)]
        with (out / "log.txt").open("ab") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if code != 0:
            deaths += 1
            kept = out / "findings" / f"death-{deaths}-{code}.input"
            kept.parent.mkdir(exist_ok=True)
            if (out / "current").exists():
                kept.write_bytes((out / "current").read_bytes())
            if deaths > 50:
                break
    tallies = [json.loads(path.read_text()) for path in out.glob("tally-*.json")]
    return {
        "target": name,
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "wall_min": round((time.time() - began) / 60, 1),
        "cpu_min": round(sum(one["cpu_s"] for one in tallies) / 60, 1),
        "executions": sum(one["executions"] for one in tallies),
        "corpus": sum(1 for _ in (out / "corpus").iterdir()),
        "mb": max((one["mb"] for one in tallies), default=0),
        "deaths": deaths,
        "findings": sorted(path.read_text().splitlines()[0] for path in (out / "findings").glob("*.txt")),
    }


def main() -> int:
    """Run what the command line says; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"))
    parser.add_argument("--drive", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        _drive(args.target, args.drive, args.out)
        return 0
    record = _supervise(args.target, args.minutes, args.out / args.target)
    print(json.dumps(record))
    return bool(record["findings"] or record["deaths"])


if __name__ == "__main__":
    raise SystemExit(main())
