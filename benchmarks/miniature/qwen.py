"""The same world for the project's own trainer and a tiny Qwen2.5-VL of random weights: does it learn it?

    python -m benchmarks.miniature qwen --out runs/miniature-qwen

Digits, rules and teacher of setting S, with less noise, as rows and films: six lossless frames of 12 x 12
pixels, each digit for two, because Qwen2.5-VL reads frames in pairs. SFT and RL are what `p2r-train sft` and
`p2r-train rl` call (qwen-sft.yaml, qwen-rl.yaml), answers are drawn by the trainer's evaluation, figures and
gate are the miniature's. RL follows where SFT lies far enough above blind answers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Generator, Tensor

from benchmarks.miniature.measure import TEST, Figures, counted
from benchmarks.miniature.report import qwen_table
from benchmarks.miniature.run import Record, gated, rounded
from benchmarks.miniature.settings import SETTINGS
from benchmarks.miniature.sft import teach, world_of
from benchmarks.miniature.world import SIDE, Clips, floor
from videop2r_data.demo import EXACT_MEAN
from videop2r_data.trainer import TrainRecipe, load_train_recipe, train
from videop2r_data.trainer.data import read_examples
from videop2r_data.trainer.evaluate import EvalRow, evaluate
from videop2r_data.trainer.judging import DemoJudge, JudgeItem
from videop2r_data.trainer.judging.base import Judged, Reason, Ticket
from videop2r_data.trainer.model import load_policy
from videop2r_data.trainer.settings import EvalSpec
from videop2r_data.trainer.tiny import TinySpec, count_weights_on_disk, make_tiny

HERE = Path(__file__).parent
WORLD = replace(SETTINGS["S"], noise=0.3)
TINY = TinySpec(
    hidden=64, layers=3, intermediate=192, vision_intermediate=192, patch=3, vocab=400, corpus=500
)
SHOWN = 2
"""Frames for which a digit stays."""
CONTRAST = 48
"""Grey levels between the background and a digit, without noise."""
TRACE = "<observation>{} {} {}</observation> <think>{}</think><answer>{}</answer>"
_FORM = re.compile(TRACE.replace("{}", "([0-4])"))
_TOKENS = 24
"""Of a completion at most; a trace has 14, and the end."""


class Size(NamedTuple):
    """How much is spent, beside what the recipes say.

    Attributes:
        clips, test: distinct clips of both stages, and held-out ones.
        draws: sampled traces of each held-out clip.
        sets: changes of both recipes.
    """

    clips: int = 16_000
    test: int = 600
    draws: int = 2
    sets: tuple[str, ...] = ()


FULL = Size()
QUICK = Size(24, 8, 1, ("steps=2", "batch.size=2", "optim.warmup=0"))


# Rows and films.


def film(path: Path, seen: Tensor) -> None:
    """Write [K, SIDE, SIDE] noisy digits as a film without loss; 0 is the grey that the processor makes 0."""
    import av

    grey = 255 * torch.tensor(EXACT_MEAN)
    pixels = (grey + CONTRAST * seen[..., None]).round().clamp(0, 255).to(torch.uint8)
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("png", rate=SHOWN)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "rgb24"
        for picture in pixels.repeat_interleave(SHOWN, dim=0).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_rows(folder: Path, name: str, clips: Clips, traces: Tensor) -> None:
    """Write `NAME.jsonl`, and the films under `media/NAME`; rows that are there stay as they are."""
    rows = folder / f"{name}.jsonl"
    if rows.exists():
        return
    (folder / "media" / name).mkdir(parents=True, exist_ok=True)
    lines, right = [], clips.answer.tolist()
    for number, said in enumerate(traces.tolist()):
        path = f"{name}/{number}.mp4"
        film(folder / "media" / path, clips.seen[number])
        row = {
            "sample_id": path,
            "problem": "abc"[int(clips.question[number])],
            "problem_type": "numerical",
            "data_type": "video",
            "path": path,
            "solution": f"<answer>{right[number]}</answer>",
            "output": TRACE.format(*said),
        }
        lines.append(json.dumps(row))
    rows.write_text("\n".join(lines) + "\n")


# Both stages.


class SeeingJudge(DemoJudge):
    """Pays an observation in which every digit is right, as the miniature's judge of that name.

    Args:
        shown: sample_id -> the digits, as an observation says them.
    """

    def __init__(self, shown: dict[str, str]) -> None:
        super().__init__()
        self.shown = shown

    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Judge now."""
        ticket = Ticket()
        right = [item.observation == self.shown[item.example.sample_id] for item in items]
        ticket.set_result([Judged(float(one), Reason.JUDGED) for one in right])
        return ticket

    def key(self, item: JudgeItem) -> tuple[str, str | None]:
        """Question and observation."""
        return item.example.sample_id, item.observation


def recipe_of(folder: Path, model: Path, seed: int, size: Size, objective: str = "") -> TrainRecipe:
    """SFT, or with an objective RL."""
    data, name = folder / "data", objective or "sft"
    flags = {
        "name": name,
        "objective.name": objective or None,
        "data.source": str(data / "train.jsonl"),
        "data.media_root": str(data / "media"),
        "model.model": str(model),
        "output": str(folder / name),
        "seed": seed,
    }
    return load_train_recipe(HERE / f"qwen-{'rl' if objective else 'sft'}.yaml", sets=size.sets, flags=flags)


# Measurement.


def read(rows: Sequence[EvalRow], clips: Clips) -> Figures:
    """Shares over all completions; one that is no trace counts as wrong in everything.

    Args:
        rows: answers to each of the clips, `index` being the clip's.
    """
    found = [(row.index, _FORM.fullmatch(row.text)) for row in rows]
    whole = [(index, [int(value) for value in form.groups()]) for index, form in found if form]
    share = len(whole) / len(rows)
    keys = ("answers", "observations", "digits", "invented", "reasoning", "thoughts", "one_wrong")
    if not whole:
        return {"form": 0.0, **dict.fromkeys(keys, 0.0)}
    each = counted(torch.tensor([said for _, said in whole]), clips.at(torch.tensor([at for at, _ in whole])))
    return {"form": share, **{key: share * each[key] for key in keys}}


def measure(recipe: TrainRecipe, model: Path, clips: Clips, draws: int) -> dict[str, Figures]:
    """Greedy and sampled figures of what a recipe trained, on held-out clips."""
    policy = load_policy(recipe.model.model_copy(update={"model": str(model)}))
    rows = Path(recipe.data.source).with_name("test.jsonl")
    data = recipe.data.model_copy(update={"config": "rl", "source": str(rows)})
    examples = read_examples(data)

    def asked(temperature: float, seed: int) -> list[EvalRow]:
        rows: list[EvalRow] = []
        sampling = {"temperature": temperature, "max_new_tokens": _TOKENS}
        spec = EvalSpec.model_validate({"sampling": sampling, "batch": 100, "seed": seed})
        evaluate(policy.net, policy.processor, examples, data=data, spec=spec, keep=rows.extend)
        return rows

    sampled = [row for seed in range(draws) for row in asked(1.0, seed)]
    return {"greedy": read(asked(0.0, 0), clips), "sampled": read(sampled, clips)}


def run(folder: Path, seed: int, size: Size, force: bool = False) -> Iterator[Record]:
    """SFT, and RL if SFT lies far enough above blind answers; a record for each.

    Args:
        folder: of rows, models and records; what is there is not made again.
        force: RL in any case.
    """
    data, generator = folder / "data", Generator().manual_seed(1000 + seed)
    clips = world_of(WORLD).draw(size.clips, generator)
    write_rows(data, "train", clips, teach(clips, WORLD.slip, generator))
    held = world_of(WORLD).draw(size.test, Generator().manual_seed(TEST))
    write_rows(data, "test", held, teach(held, 0.0, generator))
    digits = [" ".join(map(str, one)) for one in clips.digits.tolist()]
    judge = SeeingJudge({f"train/{number}.mp4": one for number, one in enumerate(digits)})
    start = make_tiny(folder / "tiny", TINY.model_copy(update={"seed": seed}))
    for objective in ("", "pa-grpo", "grpo"):
        recipe = recipe_of(folder, start, seed, size, objective)
        path = folder / f"{recipe.name}.json"
        if not path.exists():
            began = sum(os.times()[:4])
            # A recipe names models and the demo world as judges; these digits are known here alone.
            with mock.patch("videop2r_data.trainer.run.rl.make_judge", lambda *_, **__: judge):
                model = train(recipe).model
            record: Record = {
                "setting": "qwen", "arm": recipe.name, "seed": seed, "updates": recipe.steps,
                "purpose": "main" if objective else "start", "batch": recipe.batch.size,
                "rate": recipe.optim.lr, "cpu_s": round(sum(os.times()[:4]) - began), "clips": size.clips,
                "weights": count_weights_on_disk(model), "test": measure(recipe, model, held, size.draws),
            }  # fmt: skip
            if not objective:
                blind = floor(world_of(WORLD))
                record |= {"blind": blind.constant, **gated(f"SFT, seed {seed}", record["test"], blind)}
            path.write_text(json.dumps(rounded(record)))
        record = json.loads(path.read_text())
        yield record
        if not objective:
            start = folder / "sft" / "final"
            if not force and not all(one["holds"] for one in record["gate"] if "above" in one["says"]):
                return


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/miniature-qwen"), help="rows, models and records"
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="write the records there; the page's: benchmarks/miniature/results/qwen.jsonl",
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    args = parser.parse_args(arguments)
    size, out = (QUICK, args.out / "quick") if args.quick else (FULL, args.out)
    torch.set_num_threads(1)
    records = [one for seed in range(args.seeds) for one in run(out / str(seed), seed, size, args.quick)]
    if args.results:
        args.results.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in records))
    print(qwen_table(records))
