"""What judges find in the demo world, by how they err: `python scripts/demo_judges.py [--write]`.

Every question's trace is written whole and with each defect that only a judge can find, and goes through
step 3 of a build with its judges: one that reads the text alone, then one that sees. Each errs in a share of
its verdicts, on its own; for one that sees, the verdict on each claim is one. `--write` puts the tables into
benchmarks/results/demo_judges.md: of 2,400 questions, and of the first 60, which a test makes again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from videop2r_data.backends import Answer
from videop2r_data.builders.judging import Bench, Judging, Ruling
from videop2r_data.demo import (
    Defect,
    DemoBackend,
    SceneSample,
    applicable,
    inventions,
    read_world,
    write_trace,
    write_world,
)
from videop2r_data.schemas import (
    DemoSpec,
    MediaRecord,
    MediaSpec,
    Outcome,
    Recipe,
    RejectReason,
    Request,
    Sample,
    parse_trace,
)
from videop2r_data.validators import wilson

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "demo_judges.md"
ROWS, FEW = 2400, 60
BAD = (
    Defect.INVENTED_EVIDENCE,
    Defect.INVENTED_DETAIL,
    Defect.EVIDENCE_OMITTED,
    Defect.EVIDENCE_CONTRADICTED,
    Defect.HEDGING,
)
"""What a judge has to refuse. Broken templates, wrong answers and leaks fall before step 3."""
GOOD = (None, Defect.REPETITION, Defect.NEAR_MISS)
"""What it has to let through."""


class Setup(NamedTuple):
    """How many models decide, and how many of them it takes to refuse."""

    name: str
    models: int = 1
    need: int = 1
    confirmed: float | None = None
    """Error rate of another model that must agree before a row is refused; None: there is none."""

    def judges(self, rate: float) -> list[dict[str, Any]]:
        """As a recipe has them."""
        backends = [backend(rate, seed) for seed in range(self.models)]
        both: dict[str, Any] = {"backend": backends[0], "panel": backends[1:]}
        if self.confirmed is not None:
            both |= {"unsure_to": backend(self.confirmed, 99), "confirm": True}
        # `need` of the one that reads counts votes for yes, of the one that sees for what it says of a claim
        yes = self.models - self.need + 1
        need = ({"need": yes}, {"need": self.need}) if self.models > 1 else ({}, {})
        reads = {"name": "reads", "decides": "sufficiency", **both, **need[0]}
        return [reads, {"name": "sees", "decides": "faithfulness", **both, **need[1]}]


ALONE = Setup("one")
SETUPS = (
    ALONE,
    Setup("three, by majority", 3, 2),
    Setup("four, three must agree", 4, 3),
    Setup("six, four must agree", 6, 4),
    Setup("three, and one of 1 % errors confirms", 3, 2, 0.01),
)
RATES = (0.05, 0.1, 0.2)


def backend(rate: float, seed: int) -> dict[str, Any]:
    """A judge of the demo world that errs."""
    return {"kind": "demo", "model": "demo-world/1", "extra": {"error_rate": rate, "error_seed": seed}}


class _Asked:
    """Calls a backend of the demo world, without a journal, and counts."""

    def __init__(self, made: DemoBackend) -> None:
        self.made, self.calls = made, 0

    async def ask(self, request: Request, frames: object = None) -> Answer:
        """The answer to a request."""
        self.calls += 1
        return Answer(await self.made.complete(request))


class _Shown:
    """The record of a sample's frames. The judge that sees has the scene itself: no pixel is decoded."""

    spec = MediaSpec()

    def __init__(self, world: Sequence[SceneSample]) -> None:
        self.world = world

    @contextmanager
    def hold(self, sample: Sample) -> Iterator[_Shown]:
        """The frames of a sample, until the block ends."""
        self.of = self.world[sample.row]
        yield self

    async def record(self) -> MediaRecord:
        """What frames of the scene would be."""
        scene = self.of.scene
        return MediaRecord(
            data_type="video" if scene.medium == "video" else "image",
            frames_sha256="",
            count=1,
            width=scene.side,
            height=scene.side,
            indices=(0,),
            times_s=(0.0,),
            source_frames=scene.frames,
            source_width=scene.side,
            source_height=scene.side,
            file_sha256=self.of.media_sha256,
            file_bytes=0,
            sampler="none/1",
        )


class Found(NamedTuple):
    """Counts by kind of trace, `None` for good ones."""

    rows: Counter[Defect | None]
    refused: dict[str, Counter[Defect | None]]
    """`reads`: by the judge that reads the text; `both`: by it, or by the one that sees."""
    planted: Counter[Defect | None]
    """Rows that a build of this world has; `dropped`: those of them that are refused."""
    dropped: dict[str, Counter[Defect | None]]
    calls: int
    """Of both judges about the good rows."""

    def precision(self, judges: str) -> tuple[int, int]:
        """Refused rows of a build that have a defect, and all that are refused."""
        dropped = self.dropped[judges]
        return sum(dropped[kind] for kind in BAD), dropped.total()

    def recall(self, judges: str) -> tuple[int, int]:
        """Rows of a build with such a defect that are refused, and all that there are."""
        return self.precision(judges)[0], sum(self.planted[kind] for kind in BAD)

    def clean(self, judges: str) -> tuple[int, int]:
        """Kept rows of a build without a defect, and all that are kept."""
        kept = self.planted - self.dropped[judges]
        return sum(kept[kind] for kind in GOOD), kept.total()


async def find(folder: Path, setup: Setup, rate: float) -> Found:
    """Bring every question of a world before the judges, with each kind of trace that fits it."""
    world = list(read_world(folder))
    recipe = Recipe.model_validate(
        {
            "recipe": 1,
            "name": "judges",
            "sources": [{"name": "demo", "kind": "demo"}],
            "generate": {"backend": {"kind": "demo", "model": "demo-world/1"}},
            "judges": setup.judges(rate),
        }
    )
    bench = Bench(recipe, folder)
    asks: dict[str, Any] = {
        step: _Asked(DemoBackend(recipe.backends[step], folder)) for step in bench.decides
    }
    for asked in asks.values():
        await asked.made.start()
    views: dict[str, Any] = dict.fromkeys(bench.frames, _Shown(world))
    judging = Judging(bench, asks, views, live=True)
    rows: Counter[Defect | None] = Counter()
    planted = Counter(one.defect for one in world if one.defect in (*BAD, *GOOD))
    refused, dropped = ({"reads": Counter[Defect | None](), "both": Counter()} for _ in range(2))
    calls = 0
    for one in world:
        fitting = {*applicable(one.question.problem_type), *inventions(one.scene, one.question), None}
        for kind in (kind for kind in (*BAD, *GOOD) if kind in fitting):
            before = sum(asked.calls for asked in asks.values())
            trace = parse_trace(write_trace(one, kind, seed=f"1/{0:.4f}"))
            ruling = await judging.rule(Ruling(), one.sample(), trace)
            assert ruling.outcome is not Outcome.FAILED, ruling.detail
            rows[kind] += 1
            calls += (kind is None) * (sum(asked.calls for asked in asks.values()) - before)
            no = {
                "reads": ruling.reason is RejectReason.INSUFFICIENT,
                "both": ruling.outcome is not Outcome.KEPT,
            }
            for judges, said in no.items():
                refused[judges][kind] += said
                dropped[judges][kind] += said and kind is one.defect
    return Found(rows, refused, planted, dropped, calls)


HEAD = (
    "| verdicts that are wrong | models of each judge | judges | "
    + " | ".join(f"`{kind.value}`" for kind in BAD)
    + " | good, refused | recall | precision | kept that are good | calls a good row |\n"
    + f"|{'---|' * (len(BAD) + 8)}"
)


def lines(found: Found, setup: Setup, rate: float) -> Iterator[str]:
    """Two lines of the table: for the judge that reads alone, and for both."""
    for judges, name in (("reads", "text alone"), ("both", "and one that sees")):
        shares = [(found.refused[judges][kind], found.rows[kind]) for kind in (*BAD, None)]
        cells = [*shares, found.recall(judges), found.precision(judges), found.clean(judges)]
        shown = " | ".join(_share(*cell) for cell in cells)
        # the calls of the judge that sees are not told apart from those of the other one
        calls = f"{found.calls / found.rows[None]:.1f}" if judges == "both" else ""
        yield f"| {rate:.0%} | {setup.name} | {name} | {shown} | {calls} |"


def _share(part: int, of: int) -> str:
    found = wilson(part, of)
    return "-" if found.low is None else f"{part / of:.3f} ({found.low:.3f}-{found.high:.3f})"


def table(rows: int, setups: Sequence[tuple[Setup, float]]) -> list[str]:
    """The table of a world of so many questions, its head included."""
    made = [HEAD]
    with tempfile.TemporaryDirectory() as folder:
        spec = DemoSpec(rows=rows, seed=1, side=32, frames=6, invention_rate=0.25)
        world = write_world(Path(folder), spec)
        for setup, rate in setups:
            made += lines(asyncio.run(find(world, setup, rate)), setup, rate)
    return made


EVERY = [(ALONE, 0.0), *((setup, rate) for rate in RATES for setup in SETUPS)]
SOME = [(ALONE, 0.0), (ALONE, 0.1), (SETUPS[3], 0.1), (SETUPS[4], 0.1)]
"""Of the first questions: what a test makes again."""


def main() -> int:
    """Print the tables, or write them; the exit code."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", type=int, default=ROWS)
    asked.add_argument("--write", action="store_true", help="put the tables into the page of results")
    args = asked.parse_args()
    tables = [table(args.rows, EVERY), table(FEW, SOME)]
    if args.write:
        head, *texts = RESULTS.read_text(encoding="utf-8").split("\n\n| verdicts")
        rests = [text.partition("\n\n")[2] for text in texts]
        parts = ["\n".join(made) + f"\n\n{rest}" for made, rest in zip(tables, rests, strict=True)]
        RESULTS.write_text("\n\n".join([head, *parts]).rstrip() + "\n", encoding="utf-8")
    else:
        print("\n\n".join("\n".join(made) for made in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
