"""Which rows of its benchmarks an evaluation asks, and whether they and their media are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.benchmarks import load_benchmark
from videop2r_data.builders.sources import open_source
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import BadRow, Benchmark, EvalPlan, EvalPool, Sample, digest

if TYPE_CHECKING:
    from videop2r_data.builders import Wanted, Workspace
    from videop2r_data.builders.checks import CheckReport

OWN = "p2r"
"""Declaration of questions of one's own."""


def declarations(plan: EvalPlan, base: Path) -> dict[str, Benchmark]:
    """Benchmark of the plan -> what is declared of it.

    Raises:
        ConfigError: there is no such benchmark, or its declaration is none.
    """
    return {pool.name: load_benchmark(pool.benchmark or OWN, base=base) for pool in plan.benchmarks}


def chosen(plan: EvalPlan, place: Workspace) -> Wanted:
    """Which rows are asked: from `start` on; of a `sample` those whose ids have the smallest digests.

    A pool with a `sample` is read once for it.
    """
    starts = {pool.name: pool.start for pool in plan.benchmarks}
    drawn = {pool.name: _drawn(pool, place) for pool in plan.benchmarks if pool.sample is not None}

    def wanted(row: Sample | BadRow) -> bool:
        some = drawn.get(row.source)
        return row.row >= starts[row.source] if some is None else row.row in some

    return wanted


def _drawn(pool: EvalPool, place: Workspace) -> frozenset[int]:
    def marked() -> Iterator[tuple[str, int]]:
        for row in open_source(pool.source, base=place.base, demo_root=place.demo).rows():
            if row.row >= pool.start:
                yield digest([pool.sample_seed, row.problem_id, row.row]), row.row

    return frozenset(row for _, row in nsmallest(pool.sample or 0, marked()))


def selection(pool: EvalPool) -> str:
    """Which of its rows are asked, in words; empty: all of them."""
    parts = []
    if pool.sample is not None:
        parts.append(f"{pool.sample:,} drawn with seed {pool.sample_seed}")
    if pool.limit is not None:
        parts.append(f"the first {pool.limit:,}")
    if pool.start:
        parts.append(f"from row {pool.start:,} on")
    return ", ".join(parts)


async def look_at(
    plan: EvalPlan, place: Workspace, *, tell: Callable[[str], None] | None = None
) -> CheckReport:
    """Read every row, look for every media file that is asked about, open some of them.

    Args:
        tell: is told what is waited for; then every server is asked for its models, too, and nothing else.

    Raises:
        ConfigError: no decoder process can be started here.
    """
    from videop2r_data.builders.checks import TrialRows, check_pool, look_at_servers

    report = await check_pool(
        plan.recipe,
        base=place.base,
        demo_root=place.demo,
        wanted=chosen(plan, place),
        opened=plan.probe,
    )
    if tell is None:
        return report
    servers = await look_at_servers(
        plan.recipe, place, TrialRows(), calls="models", tell=tell, also=plan.also
    )
    return report.joined([], servers)


def admit(plan: EvalPlan, report: CheckReport) -> None:
    """Refuse an evaluation that could only measure what is missing.

    Raises:
        ConfigError: a benchmark cannot be read, has no row to ask, or lacks most of its media.
    """
    for check in report.sources:
        missing = check.files - check.files_ok
        if check.error is not None:
            raise ConfigError(check.error, where=f"benchmark {check.name}", hint="mend it, or leave it out")
        if not check.rows - sum(check.bad_rows.values()):
            first = check.bad_examples[0].detail if check.bad_examples else "there is none"
            raise ConfigError(f"no row can be asked: {first}", where=f"benchmark {check.name}")
        if missing > plan.max_missing * check.files:
            named = [bad.path for fault in check.faults for bad in fault.examples][:3]
            raise ConfigError(
                f"{missing:,} of {check.files:,} media files cannot be used, among them {', '.join(named)}; "
                f"they are looked for below {check.media_root}",
                where=f"benchmark {check.name}",
                hint="name the folder that the rows' paths are relative to: media_root of the benchmark "
                "(--media-root), or ask the rows that are there: max_missing: 1",
            )
