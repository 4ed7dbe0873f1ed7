"""Compares what two commits of this package write: the same commands, the same input, the same bytes.

    python scripts/same_bytes.py --against COMMIT [--shared FOLDER] [--only PART] [--allow NAME]...

A work tree of COMMIT is made in a temporary folder. Both codes then run the same commands, one after the
other and in a folder of the same name, so that no path differs:

- `demo`: the packaged demo build, its card, lock, journal, reports, figures and gallery, and its rebuild;
- `real`: a build over the real rows and clips of FOLDER (`samples/`, `media/`), against a model server on
  loopback whose answers depend on nothing but the bytes of a request; skipped where there is no such folder;
- `train`: a tiny model from scratch, SFT, RL with every objective, an evaluation, their cards.

Every file is compared by its sha256, without what the clock wrote (`CLOCK`) and in an order of its own where
the order is chance (journals). A difference ends with exit code 1, unless `--allow` names it (a pattern of
`part/file`). Of the two programs only the commands are used, so that modules may be named as they like.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLOCK = re.compile(
    r"^time/|^(seconds|startup_s|rows_per_s|tokens_per_s|latency_s|peak_mb|wall_s|versions|stat|crc)$"
    r"|^p(50|95)_s$|^calls_timed$"
)
"""Keys of JSON documents whose values depend on the clock, on memory or on versions of libraries."""
CHANCE = re.compile(r"[\d.]+ GB free|(?<=colours-)[0-9a-f]{8}\b|(?<=- seconds of an answer: ).*")
"""What depends on disk and clock, and names of evaluations, which hold the time stamps of the weights."""
COMMENTS = re.compile(r"(?m)^ *//.*\n|'sha256-[^']+'|&#x27;sha256-.*?&#x27;")
"""Comments in the gallery's script, and the hash of that script in the page's policy."""
LEFT_OUT = (
    "*/export.lock",
    "*/.lock",
    "*/leases/*",
    "*/journal/allowances",
    "*/figures/curves.png",
    "*/progress-*.json",
    "*/seconds.tsv",
)
"""Who holds a folder, what running builds may still spend, news of a run, and files with seconds in them."""

PARTS = ("demo", "real", "train")
OBJECTIVES = ("grpo", "no-separation", "no-perception", "no-reasoning", "no-length", "t-grpo")
REAL_RECIPE = """
name: real
title: Real rows
description: Rows and clips of public repositories, answered by a server without a model.
license: cc-by-4.0
sources:
  - {{name: eval, kind: video-r1, path: {pools}/eval.json, media_root: {media}, license: cc-by-4.0}}
  - name: columns
    kind: dataset
    path: {pools}/columns.jsonl
    media_root: {media}
    license: cc-by-4.0
    problem_type: multiple choice
    data_type: video
    columns: {{problem: asked, options: choices, solution: right, path: clip, {missing}}}
  - name: numbers
    kind: dataset
    path: {pools}/numbers.csv
    media_root: {pools}
    license: cc-by-4.0
    problem_type: numerical
    data_type: image
    columns: {{problem: question, options: null, solution: ground_truth, path: image, {missing}}}
media: {{frames: 4, max_pixels: 12544, limits: {{max_duration_s: 120}}}}
generate:
  backend: {{kind: openai, base_url: "{url}", model: g, price: {{input: 1.0, output: 4.0}}}}
  attempts: 2
  seed: 3
verify: {{policy: {{profile: robust}}, think_answer_consistency: true, observation_leaks: true}}
judge:
  backend: {{kind: openai, base_url: "{url}", model: j, price: {{input: 0.5, output: 1.0}}}}
"""
MISSING = "problem_id: null, problem_type: null, data_type: null"
COLOURS_RECIPE = """
name: colours
license: apache-2.0
synthetic: true
sources:
  - name: demo
    kind: demo
    license: apache-2.0
    demo: {rows: 64, seed: 5, tasks: [colour], max_objects: 1, side: 56, frames: 8, fps: 8, mediums: [video]}
generate: {backend: {kind: demo, model: demo-world/1}}
judge: {backend: {kind: demo, model: demo-world/1}}
"""
SMALL_RL = (
    "--batch",
    "4",
    "--micro",
    "2",
    "--set",
    "sampling.temperature=1.3",
    "--set",
    "save.samples_every=1",
)


def answer(call: Any) -> str:
    """What the loopback server says: chosen by the digest of the request, right, wrong or broken."""
    lot = int(call.digest[:8], 16)
    if b"<judgement>" in call.raw:
        verdict = ("Yes",) * 6 + ("No",) * 3 + ("Perhaps",)
        return f"The observation was read ({call.digest[:6]}). <judgement>{verdict[lot % 10]}</judgement>"
    letters = re.findall(r"(?m)^([A-J])\. ", call.prompt) or [str(lot % 7)]
    said = letters[lot // 16 % len(letters)]
    seen = f"Based on the question, I need to notice what moves. Thing {call.digest[:5]} moves to the left."
    good = (
        f"<observation>{seen}</observation> <think>Based on the observations, it moves left, so the "
        f"answer is {said}.</think><answer>{said}</answer>"
    )
    broken = {
        0: good.replace("</think>", ""),
        1: good.replace("<observation>", "<observation><think>"),
        2: good.replace(f"is {said}.", "is Z."),
        3: good.replace(seen, f"The answer is {said}."),
    }
    return broken.get(lot % 16, good)


class Side:
    """One of the two codes: runs its commands in `work`.

    Args:
        code: its checkout.
        work: the folder that it writes to; named alike for both sides while it runs.
    """

    def __init__(self, code: Path, work: Path) -> None:
        self.code = code
        self.work = work
        scripts = tomllib.loads((code / "pyproject.toml").read_text())["project"]["scripts"]
        self.scripts: dict[str, str] = scripts
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
        # One thread: sums of floats do not depend on how many cores are free.
        self.env = {**os.environ, **offline, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}

    def run(self, program: str, *arguments: str, keep: str = "", may_fail: bool = False) -> None:
        """Run a command of the package; its JSON goes to the file `keep`.

        Raises:
            SystemExit: the command failed, with its last words.
        """
        module, _, function = self.scripts[program].partition(":")
        call = f"import sys; from {module} import {function} as f; sys.argv[0] = {program!r}; f()"
        command = [sys.executable, "-P", "-c", call, *arguments, *(["--json"] if keep else [])]
        done = subprocess.run(
            command,
            cwd=self.work,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if keep:
            (self.work / keep).write_text(done.stdout)
        if done.returncode and not may_fail:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise SystemExit(f"{self.code}: {program} {' '.join(arguments)}: exit {done.returncode}\n{said}")

    def data(self, *arguments: str, keep: str = "", may_fail: bool = False) -> None:
        """`p2r-data` with these arguments."""
        self.run("p2r-data", *arguments, keep=keep, may_fail=may_fail)

    def train(self, *arguments: str, keep: str = "") -> None:
        """`p2r-train` with these arguments."""
        self.run("p2r-train", *arguments, keep=keep)


def demo(side: Side, _: Path, __: str) -> None:
    """The packaged recipe, and everything that reads what it makes."""
    side.data("init", "demo.yaml", "--from", "demo")
    side.data("build", keep="build.json")
    made = "videop2r-demo"
    for command in ("verify", "stats", "reproduce", "demo-report", "show"):
        side.data(command, made, keep=f"{command}.json", may_fail=command == "show")
    for command in ("check", "estimate"):
        side.data(command, keep=f"{command}.json")
    side.data("stats", made, "--figures", "figures")
    side.data("gallery", made, "--frames", "48")
    side.data("schema", keep="schema-names.json", may_fail=True)


def real(side: Side, pools: Path, url: str) -> None:
    """Real questions over real clips, whole and broken, with answers that are often wrong."""
    recipe = REAL_RECIPE.format(pools=pools, media=pools / "media", missing=MISSING, url=url)
    (side.work / "real.yaml").write_text(recipe)
    side.data("check", "real.yaml", keep="check.json", may_fail=True)
    side.data("estimate", "real.yaml", keep="estimate.json")
    side.data("build", "real.yaml", "--keep-going", "--max-cost", "50", keep="build.json")
    for command in ("verify", "stats", "reproduce"):
        side.data(command, "real", keep=f"{command}.json")
    side.data("gallery", "real")


def train(side: Side, _: Path, __: str) -> None:
    """A tiny model that learns one kind of question, then SFT, RL with every objective, and an evaluation."""
    (side.work / "colours.yaml").write_text(COLOURS_RECIPE)
    side.data("build", "colours.yaml")
    small = ("--hidden", "64", "--layers", "2", "--objects", "1", "--task", "colour", "--chats", "200")
    side.train("tiny", "tiny", *small, "--steps", "120", "--batch", "16")
    model = "tiny-sft/final"
    side.train(
        "sft",
        "tiny-sft",
        "--data",
        "colours",
        "--model",
        model,
        "--output",
        "sft",
        "--steps",
        "4",
        "--micro",
        "4",
    )
    rl = ("rl", "tiny-rl", "--data", "colours", "--model", model, *SMALL_RL)
    side.train(*rl, "--output", "rl", "--steps", "3", "--set", "save.every=2")
    for objective in OBJECTIVES:
        side.train(*rl, "--output", f"rl-{objective}", "--steps", "1", "--set", f"objective.name={objective}")
    twice = ("--set", "rl.minibatches=2", "--set", "rl.iterations=2")
    side.train(*rl, "--output", "rl-minibatches", "--steps", "1", *twice)
    side.train("eval", "rl", "--data", "colours", "--limit", "16", keep="eval.json")
    side.train("card", "rl")
    side.train("lengths", "colours", "--tokenizer", model, keep="lengths.json")


RUNS: dict[str, Callable[[Side, Path, str], None]] = {"demo": demo, "real": real, "train": train}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not CLOCK.search(key)}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _tensors(found: Any) -> Any:
    """A tree of tensors, with each replaced by the digest of its bytes."""
    if hasattr(found, "numpy"):
        data = found.detach().contiguous()
        return [str(data.dtype), list(data.shape), hashlib.sha256(data.numpy().tobytes()).hexdigest()]
    if isinstance(found, dict):
        return {str(key): _tensors(item) for key, item in found.items()}
    return [_tensors(item) for item in found] if isinstance(found, list | tuple) else repr(found)


def _digest(path: Path) -> str:
    """sha256 of a file, without what the clock wrote."""
    raw = path.read_bytes()
    if path.suffix == ".bin":
        import torch

        raw = json.dumps(_tensors(torch.load(io.BytesIO(raw), weights_only=True)), sort_keys=True).encode()
    elif path.suffix == ".json" and path.name != "build.lock.json":
        with contextlib.suppress(ValueError):
            found = _timeless(json.loads(raw))
            if path.name == "settings.json":
                found.pop("model", None)  # a digest of the weights' time stamps
            raw = CHANCE.sub("", json.dumps(found)).encode()
    elif path.suffix == ".md":
        raw = CHANCE.sub("", raw.decode()).encode()
    elif path.suffix == ".html":
        raw = COMMENTS.sub("", raw.decode()).encode()
    elif path.suffix == ".jsonl":
        lines = [json.dumps(_timeless(json.loads(line))) for line in raw.decode().splitlines()]
        # Answers come in as their servers finish.
        raw = "\n".join(sorted(lines) if path.parent.name == "journal" else lines).encode()
    return hashlib.sha256(raw).hexdigest()


def _name_of(path: Path, top: Path) -> str:
    """Its path below `top`, without the part of a journal's or an evaluation's name that is chance."""
    return CHANCE.sub("", re.sub(r"(segment-\d+)-[0-9a-f]+", r"\1", path.relative_to(top).as_posix()))


def digests(top: Path) -> dict[str, str]:
    """File below `top` -> digest; with the keys of each journal as an entry of their own."""
    found: dict[str, str] = {}
    for path in sorted(p for p in top.rglob("*") if p.is_file()):
        name = _name_of(path, top)
        if any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT):
            continue
        found[name] = _digest(path)
        if path.parent.name == "journal" and path.suffix == ".jsonl":
            keys = sorted(str(json.loads(line).get("key")) for line in path.read_text().splitlines())
            found[f"{name}: request keys"] = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    return found


def _clip_names(media: Path) -> list[str]:
    return sorted(p.name for p in media.iterdir() if p.suffix not in (".md", ".json"))


def pools_from(shared: Path, folder: Path) -> None:
    """Three pools over the real rows: an array of Video-R1's, other JSON lines, a CSV over pictures."""
    from PIL import Image

    samples = shared / "samples"
    folder.mkdir()
    (folder / "media").symlink_to((shared / "media").resolve())
    clips = _clip_names(shared / "media")

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (samples / f"{name}.jsonl").read_text().splitlines()]

    layout = [
        row | {"problem_id": f"{name}-{i}", "path": clips[(i * 7 + len(name)) % len(clips)]}
        for name in ("mvbench", "mmvu", "videomme", "videommmu", "vsibench")
        for i, row in enumerate(rows(f"videor1_eval_{name}"))
    ]
    (folder / "eval.json").write_text(json.dumps(layout, ensure_ascii=False))
    columns = [
        {
            "asked": row["problem"],
            "choices": row["options"],
            "right": row["solution"],
            "clip": clips[i * 5 % len(clips)],
        }
        for i, row in enumerate(rows("twgrpo_eval_mvbench")[:160])
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in columns)
    (folder / "columns.jsonl").write_text(lines)
    table = ["question,ground_truth,image"]
    for i, row in enumerate(rows("videor1_geoqa_prompts") + rows("videor1_superclevr_counts")):
        asked = str(row["question"]).replace('"', "'").replace("\n", " ")
        table.append(f'"{asked}","{row["ground_truth"]}",{i}.png')
        Image.new("RGB", (96 + i % 50, 64), (2 * i, 90, 30)).save(folder / f"{i}.png")
    (folder / "numbers.csv").write_text("\n".join(table) + "\n")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A model server on loopback, one for both sides: its port stands in their recipes; yields its URL."""
    command = [sys.executable, "-m", "tests.fakes.openai_server", "--answer", "scripts.same_bytes:answer"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running.stdout.readline().strip()
        finally:
            running.terminate()


def compare(before: dict[str, str], after: dict[str, str], allowed: list[str]) -> tuple[list[str], list[str]]:
    """Names that differ, and names that differ as `allowed` says; one that a side lacks differs."""
    differ = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    fine = [name for name in differ if any(fnmatch.fnmatch(name, pattern) for pattern in allowed)]
    return [name for name in differ if name not in fine], fine


def _table(
    before: dict[str, str], after: dict[str, str], differ: list[str], fine: list[str]
) -> Iterator[str]:
    """A line per folder, then one per file that is not the same."""

    def group(name: str) -> str:
        parts = name.split("/")
        return "/".join(parts[:2]) if len(parts) > 2 else name

    groups = sorted({group(name) for name in before.keys() | after.keys()})
    yield f"{'what':44s} {'files':>5s}  {'before':12s}  {'after':12s}"
    for one in groups:
        names = sorted(name for name in before.keys() | after.keys() if group(name) == one)
        marks = [
            hashlib.sha256("".join(side.get(name, "missing") for name in names).encode()).hexdigest()[:12]
            for side in (before, after)
        ]
        verdict = "same" if marks[0] == marks[1] else "DIFFERS"
        yield f"{one:44s} {len(names):5d}  {marks[0]}  {marks[1]}  {verdict}"
    for name in differ:
        yield f"DIFFERS  {name}" + ("" if name in before and name in after else "  (on one side only)")
    for name in fine:
        yield f"allowed  {name}"


def _run_all(parts: list[str], before: Path, folder: Path, shared: Path | None) -> tuple[Path, Path]:
    """Run every part with both codes; returns the folders that they wrote."""
    pools = folder / "pools"
    if "real" in parts and shared is not None:
        pools_from(shared, pools)
    with server() as url:
        for name, code in (("before", before), ("after", ROOT)):
            # Both write to a folder of the same name: paths stand in work folders and on cards.
            work = folder / "run"
            for part in parts:
                start = time.monotonic()
                (work / part).mkdir(parents=True)
                RUNS[part](Side(code, work / part), pools, url)
                print(f"{name}: {part} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            work.rename(folder / name)
    return folder / "before", folder / "after"


def main() -> int:
    """Parse, run, compare; exit code 1 on a difference that nobody allowed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", required=True, metavar="COMMIT", help="commit to compare this work tree with"
    )
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with media/ and samples/"
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone; again for more")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NAME", help="a difference that is meant"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what both wrote here")
    options = parser.parse_args()
    shared = options.shared if (options.shared / "samples").is_dir() else None
    parts = list(options.only or PARTS)
    if shared is None and "real" in parts:
        parts.remove("real")
        print(f"skipped: real, there is no {options.shared}/samples", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as made:
        folder = Path(made)
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", folder / "code", options.against],
            cwd=ROOT,
            check=True,
        )
        try:
            before_dir, after_dir = _run_all(parts, folder / "code", folder, shared)
            before, after = digests(before_dir), digests(after_dir)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder / "code"], cwd=ROOT, check=True)
            if options.keep:
                shutil.copytree(folder, options.keep, symlinks=True, dirs_exist_ok=True)
    differ, fine = compare(before, after, options.allow)
    print("\n".join(_table(before, after, differ, fine)))
    print(f"{len(after)} files: {len(differ)} differ, {len(fine)} differ as allowed")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
