"""Run the cells of the miniature that are not done yet: a JSON file each, written when it is complete.

    python -m benchmarks.miniature run --out runs/miniature --jobs 2

Phases: `starts` (SFT, and the gate), `main` (learning rates and runs of the main pairs), `judges`, `rest`
(all other arms), `rates` (PA-GRPO at the rates that other arms chose, since what is compared within a KL is
compared at one rate), `long`, `glimpses` (the main pairs without pixels). Interrupt it whenever you like, and
start it again: what is done is not done twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from benchmarks.miniature.measure import TEST, VALIDATION, Figures, gate, measure, written_out
from benchmarks.miniature.policy import Policy
from benchmarks.miniature.rl import run as train
from benchmarks.miniature.settings import (
    DRAWS,
    FIRST,
    FULL,
    JUDGED,
    MAIN,
    QUICK,
    SETTINGS,
    Cell,
    Scale,
    arms,
    judge_cells,
    updates_of,
)
from benchmarks.miniature.sft import kept, world_of
from benchmarks.miniature.world import Clips, Floor, floor
from benchmarks.record import add_option
from benchmarks.record import save as save_run

PHASES = ("starts", "main", "judges", "rest", "rates", "long", "glimpses")
Record = dict[str, Any]
Job = tuple[Path, Cell, Scale]


def path_of(out: Path, cell: Cell) -> Path:
    """Of the file of a cell."""
    return out / "cells" / f"{cell.name}.json"


def load(out: Path, cell: Cell) -> Record | None:
    """A cell that is done."""
    path = path_of(out, cell)
    return json.loads(path.read_text()) if path.exists() else None


def save(out: Path, cell: Cell, record: Record) -> Record:
    """Write a cell; nobody ever sees a part of it."""
    path = path_of(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    full = {**asdict(cell), **record}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rounded(full)))
    partial.replace(path)
    return full


def rounded(value: Any) -> Any:
    """The same with five digits."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=8)
def clips_of(setting: str, seed: int, n: int) -> Clips:
    """Held-out clips; the same for all arms and seeds."""
    return world_of(SETTINGS[setting]).draw(n, Generator().manual_seed(seed))


def do_start(job: Job) -> Record:
    """SFT of a seed, what it reaches, and the gate."""
    out, cell, scale = job
    if (done := load(out, cell)) is not None:
        return done
    arm, setting = arms()[cell.arm], SETTINGS[cell.setting]
    policy, spent = kept(out, cell.setting, setting, cell.seed, scale, arm.start)
    validation = measure(policy, clips_of(cell.setting, VALIDATION, scale.clips), draws=DRAWS)
    record: Record = {
        "validation": validation,
        "test": measure(policy, clips_of(cell.setting, TEST, scale.clips), draws=DRAWS),
        "cpu_s": round(spent, 2),
    }
    if arm.start == "sft":
        record |= gated(f"{cell.setting}, seed {cell.seed}", validation, floor(world_of(setting)))
    return save(out, cell, record)


def gated(name: str, found: dict[str, Figures], blind: Floor) -> Record:
    """The gate of a start, which is printed; figures and floor as in `gate`."""
    checks = gate(found, blind)
    print(f"gate of {name}\n{written_out(checks, 1 - found['sampled']['reasoning'])}", flush=True)
    return {
        "gate": [{**check._asdict(), "holds": check.holds} for check in checks],
        "holds": all(check.holds for check in checks),
    }


def do_cell(job: Job) -> Record:
    """One run of RL, with its measurements on held-out clips."""
    out, cell, scale = job
    if (done := load(out, cell)) is not None:
        return done
    arm, setting = arms()[cell.arm], SETTINGS[cell.setting]
    start, _ = kept(out, cell.setting, setting, cell.seed, scale, arm.start)
    tuning = cell.purpose == "tune"
    half = clips_of(cell.setting, TEST, scale.clips // 2)

    def measured(policy: Policy, step: int) -> Record:
        return {} if tuning else measure(policy, half, start, 2)

    policy, record = train(arm, cell, world_of(setting), start, scale, measured)
    record["validation"] = measure(policy, clips_of(cell.setting, VALIDATION, scale.clips), start, DRAWS)
    if not tuning:
        record["test"] = measure(policy, clips_of(cell.setting, TEST, scale.clips), start, DRAWS)
    answers = record["validation"]["sampled"]["answers"]
    print(f"{cell.name}: validation answers {100 * answers:.1f}, {record['cpu_s']:.0f} CPU s", flush=True)
    return save(out, cell, record)


def _single_thread() -> None:
    torch.set_num_threads(1)


Map = Callable[[Callable[[Job], Record], Iterable[Job]], Iterable[Record]]


@contextmanager
def workers(jobs: int) -> Iterator[Map]:
    """A `map` over so many processes, one thread each."""
    _single_thread()
    if jobs == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_single_thread) as pool:
        yield pool.map


class Plan:
    """All cells of a folder, in order.

    Args:
        mapped: runs a function over jobs, in order.
        force: go on from starts that the gate stops.
    """

    def __init__(self, out: Path, scale: Scale, mapped: Map, jobs: int = 1, *, force: bool = False) -> None:
        self.out, self.scale, self.mapped, self.jobs, self.force = out, scale, mapped, jobs, force
        self.settings: Sequence[str] = MAIN
        self.fixed_rate: float | None = None

    def starts(self, setting: str, wanted: int, candidates: Sequence[int]) -> list[int]:
        """The first seeds whose start passes the gate; each is printed, and those that fail go no further."""
        passed: list[int] = []
        for at in range(0, len(candidates), self.jobs):
            cells = [Cell(setting, "sft", seed, "start") for seed in candidates[at : at + self.jobs]]
            for cell, found in zip(cells, self._each(do_start, cells), strict=True):
                if found["holds"] or not SETTINGS[setting].gated or self.force:
                    passed.append(cell.seed)
            if len(passed) >= wanted:
                break
        return passed[:wanted]

    def seeds(self, setting: str) -> list[int]:
        """Of the runs that are reported."""
        wanted = self.scale.seeds if SETTINGS[setting].gated else self.scale.judge_seeds
        return self.starts(setting, wanted, range(self.scale.candidates))

    def rate(self, setting: str, arm: str) -> float:
        """The learning rate with the best validation clips, over the tuning seeds."""
        if self.fixed_rate:
            return self.fixed_rate
        base = Cell(setting, arm, 0, "tune", updates=updates_of(setting, self.scale))
        tuning = self.scale.tuning
        if arms()[arm].start == "sft":
            spare = [seed + 10 * k for k in range(5) for seed in tuning]
            tuning = tuple(self.starts(setting, len(tuning), spare))
        cells = [replace(base, rate=rate, seed=seed) for rate in self.scale.rates for seed in tuning]
        found = list(self._each(do_cell, cells))
        return best_rate(found) if found else self.scale.rates[0]

    def runs(self, setting: str, names: Sequence[str]) -> None:
        """Rates and runs of some arms of a setting."""
        seeds = self.seeds(setting)
        for name in names:
            arm = arms()[name]
            if not arm.objective:
                list(self._each(do_start, [Cell(setting, name, seed, "start") for seed in seeds]))
                continue
            base = Cell(
                setting, name, 0, rate=self.rate(setting, name), updates=updates_of(setting, self.scale)
            )
            list(self._each(do_cell, [replace(base, seed=seed) for seed in seeds]))

    def other_rates(self, setting: str) -> None:
        """The first of the main pairs at every rate that it did not choose."""
        base = Cell(setting, FIRST[0], 0, "rates", updates=updates_of(setting, self.scale))
        chosen, seeds = self.rate(setting, FIRST[0]), self.seeds(setting)
        others = [rate for rate in self.scale.rates if rate != chosen]
        list(self._each(do_cell, [replace(base, rate=rate, seed=s) for rate in others for s in seeds]))

    def judges(self) -> None:
        """The test of the judges."""
        list(self._each(do_cell, list(judge_cells(self.seeds(JUDGED), self.scale))))

    def long(self) -> None:
        """The main pairs for ten times as long, and the judges where a guess pays."""
        updates, few = self.scale.long, self.scale.long_seeds
        main = Cell(MAIN[0], "", 0, "long", updates=updates)
        cells = [
            replace(main, arm=arm, seed=seed, rate=self.rate(MAIN[0], arm))
            for seed in self.seeds(MAIN[0])[:few]
            for arm in FIRST
        ]
        cells += [
            Cell(JUDGED, "pa-grpo", seed, "long", judge=judge, updates=updates)
            for seed in self.seeds(JUDGED)[:1]
            for judge in ("seeing", "blind+claim", "blind")
        ]
        list(self._each(do_cell, cells))

    def _each(self, do: Callable[[Job], Record], cells: Sequence[Cell]) -> Iterable[Record]:
        return self.mapped(do, [(self.out, cell, self.scale) for cell in cells])

    def phase(self, name: str) -> None:
        """One of `PHASES`."""
        rest = [arm for arm in arms() if arm not in ("sft", *FIRST)]
        if name == "starts":
            for setting in self.settings:
                print(f"{setting}: {len(self.seeds(setting))} seeds go on", flush=True)
        elif name in ("main", "rest"):
            for setting in self.settings:
                self.runs(setting, FIRST if name == "main" else rest)
        elif name == "judges":
            self.judges()
        elif name == "rates":
            for setting in self.settings:
                self.other_rates(setting)
        elif name == "long":
            self.long()
        else:
            self.runs("G", FIRST)


def best_rate(found: Iterable[Record]) -> float:
    """The rate with the highest mean of sampled answers on validation clips; of equal ones the lowest."""
    by_rate: dict[float, list[float]] = {}
    for record in found:
        by_rate.setdefault(record["rate"], []).append(record["validation"]["sampled"]["answers"])
    return max(sorted(by_rate), key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"), help="folder of starts and cells")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--settings", nargs="+", choices=MAIN, default=list(MAIN), help="of main and rest")
    parser.add_argument("--seeds", type=int, help="fewer seeds for a first look; the others are added later")
    parser.add_argument(
        "--rate", type=float, help="a learning rate for all, and none is chosen: a first look"
    )
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument(
        "--quick", action="store_true", help="a minute, to see that it runs; the figures say nothing"
    )
    add_option(parser)
    args = parser.parse_args(arguments)
    scale, jobs = (QUICK, 1) if args.quick else (FULL, args.jobs)
    out = args.out / "quick" if args.quick else args.out
    if args.seeds:
        scale = replace(scale, seeds=args.seeds, judge_seeds=min(args.seeds, scale.judge_seeds))
    with workers(jobs) as mapped:
        plan = Plan(out, scale, mapped, jobs, force=args.quick)
        plan.settings, plan.fixed_rate = args.settings, args.rate
        for phase in PHASES:
            if phase in args.phases:
                plan.phase(phase)
    cells = [json.loads(path.read_text()) for path in sorted((out / "cells").rglob("*.json"))]
    figures = {"cells": len(cells), "cpu_s": round(sum(cell.get("cpu_s", 0.0) for cell in cells))}
    save_run(args, "miniature_cells", figures, packages=["torch", "numpy"])
    print(f"cells: {out / 'cells'}; python -m benchmarks.miniature report --cells {out}")


if __name__ == "__main__":
    main()
