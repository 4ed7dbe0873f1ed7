"""What judges find in the demo world, by how they err: `python scripts/demo_judges.py [--rows 600]`.

Every question's trace is written whole and with each defect that only a judge can find. A judge that reads
the text alone and one that sees, each alone or as a panel of three, decide on it as the step does: refused
where the answer does not follow, or where a claim is contradicted. Prints the table of docs/demo-world.md:
the share of each kind that is refused; of good traces that is the price of the errors.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas import (
    BackendSpec,
    ClaimVerdict,
    DemoSpec,
    MediaRecord,
    Message,
    Request,
    Sufficiency,
    parse_trace,
)
from videop2r_data.validators import (
    parse_claims,
    parse_faithfulness,
    parse_judgement,
    render_claims,
    render_faithfulness,
    render_judge,
)

KINDS = (
    None,
    Defect.EVIDENCE_OMITTED,
    Defect.EVIDENCE_CONTRADICTED,
    Defect.HEDGING,
    Defect.INVENTED_EVIDENCE,
    Defect.INVENTED_DETAIL,
)
RATES = (0.0, 0.05, 0.1, 0.2)
PROMPTS = {name: load_prompt(f"{name}-v1") for name in ("judge", "claims", "faithfulness")}


class Panel:
    """Three judges that err independently; the first of them alone, or the majority."""

    def __init__(self, world: Path, rate: float) -> None:
        specs = [
            BackendSpec(kind="demo", model=f"m{n}", extra={"error_rate": rate, "error_seed": n})
            for n in range(3)
        ]
        self.judges = [DemoBackend(spec, world) for spec in specs]

    async def start(self) -> None:
        """Read the world."""
        for judge in self.judges:
            await judge.start()

    async def sufficient(self, sample: SceneSample, observation: str) -> list[bool]:
        """The verdict of each judge that reads the text alone."""
        asked = sample.question
        text = render_judge(
            PROMPTS["judge"],
            problem=asked.problem,
            options=asked.options,
            answer=asked.answer,
            observation=observation,
        )
        replies = [await judge.complete(_request("judge", judge, text)) for judge in self.judges]
        return [parse_judgement(reply.text).verdict is Sufficiency.YES for reply in replies]

    async def contradicted(self, sample: SceneSample, observation: str) -> list[list[bool]]:
        """Of each judge that sees: which claims it finds false."""
        first, *_ = self.judges
        listed = await first.complete(
            _request("claims", first, render_claims(PROMPTS["claims"], observation=observation))
        )
        claims = parse_claims(listed.text) or ()
        text = render_faithfulness(PROMPTS["faithfulness"], claims)
        found = []
        for judge in self.judges:
            reply = await judge.complete(_request("faithfulness", judge, text, _media(sample)))
            verdicts = parse_faithfulness(reply.text, claims).claims
            found.append([claim.verdict is ClaimVerdict.CONTRADICTED for claim in verdicts])
        return found


def _request(purpose: str, judge: DemoBackend, text: str, media: MediaRecord | None = None) -> Request:
    message = Message("user", text, media=media is not None)
    return Request(purpose, judge.model, (message,), media=media)  # type: ignore[arg-type]


def _media(sample: SceneSample) -> MediaRecord:
    side = sample.scene.side
    return MediaRecord(
        data_type="video" if sample.scene.medium == "video" else "image",
        frames_sha256="",
        count=1,
        width=side,
        height=side,
        indices=(0,),
        times_s=(0.0,),
        source_frames=sample.scene.frames,
        source_width=side,
        source_height=side,
        file_sha256=sample.media_sha256,
        file_bytes=0,
        sampler="none/1",
    )


async def refused(world: Path, rate: float) -> dict[str, Counter[Defect | None]]:
    """How many traces of each kind every judge refuses; `rows` has how many there are."""
    panel = Panel(world, rate)
    await panel.start()
    found: dict[str, Counter[Defect | None]] = {
        name: Counter() for name in ("rows", "blind", "blind x3", "both", "both x3")
    }
    for sample in read_world(world):
        if sample.scene.medium == "text":
            continue
        fitting = (
            None,
            *applicable(sample.question.problem_type),
            *inventions(sample.scene, sample.question),
        )
        for kind in (kind for kind in KINDS if kind in fitting):
            observation = parse_trace(write_trace(sample, kind)).observation
            enough = await panel.sufficient(sample, observation)
            false = await panel.contradicted(sample, observation)
            poor = {"": not enough[0], " x3": sum(enough) < 2}
            seen = {"": any(false[0]), " x3": any(sum(votes) > 1 for votes in zip(*false, strict=True))}
            found["rows"][kind] += 1
            for size, no in poor.items():
                found[f"blind{size}"][kind] += no
                found[f"both{size}"][kind] += no or seen[size]
    return found


def table(world: Path) -> Sequence[str]:
    """The lines of the table."""
    names = [kind.value if kind else "good" for kind in KINDS]
    lines = [f"| errors | judges | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for rate in RATES:
        found = asyncio.run(refused(world, rate))
        rows = found.pop("rows")
        for name, counts in found.items():
            if rate or "x3" not in name:
                shares = " | ".join(f"{counts[kind] / rows[kind]:.3f}" for kind in KINDS)
                lines.append(f"| {rate:.0%} | {name} | {shares} |")
    return lines


def main() -> int:
    """Print the table; the exit code."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", type=int, default=600)
    args = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = write_world(Path(folder), DemoSpec(rows=args.rows, seed=1, side=32, frames=6))
        print("\n".join(table(world)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
