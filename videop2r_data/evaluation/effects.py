"""What rows that a training pool has too make of the scores of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from videop2r_data.builders.overlap import Comparison
from videop2r_data.errors import SourceError
from videop2r_data.evaluation.compare import Loaded
from videop2r_data.evaluation.figures import counted_by, scored_row
from videop2r_data.schemas import Aggregate, Measured, OverlapEffect, Signal
from videop2r_data.validators import CountedEstimate, aggregate, gain_of_rows

COUNTED: tuple[tuple[Signal, ...], ...] = (("identity", "file", "frames"), ("both",))
"""What counts as overlapping: first every question about a clip of the pool, then those that it asks too."""


def effects_on(folders: Sequence[Path]) -> Callable[[Comparison], list[OverlapEffect]]:
    """Each figure of some results with and without the rows that a comparison finds.

    Raises:
        ConfigError: a folder holds no result.
        SourceError: of the function: a result is of other questions.
    """
    results = [Loaded(folder) for folder in folders]
    return lambda found: [effect for one in results for effect in _effects(one, found)]


def _effects(result: Loaded, compared: Comparison) -> Iterator[OverlapEffect]:
    name = compared.bench.name
    if name not in result.benchmarks:
        return
    rows = list(result.rows(name).values())
    missing = {row.problem_id for row in rows} - _problems(compared.bench.ids)
    if len(missing) > len(rows) / 2:
        raise SourceError(
            f"{len(missing):,} of its questions are none of {name} as it was compared",
            where=str(result.folder),
            hint="compare with the rows that were evaluated",
        )
    scored = [one for at, row in enumerate(rows) if (one := scored_row(row, row.reply, at)) is not None]
    for signals in COUNTED:
        found = _problems(compared.found(signals))
        some = {one.order for one in scored if rows[one.order].problem_id in found}
        for how in result.aggregates(name) or [Aggregate(id="mean")]:
            counted = counted_by(how, scored, whole=not result.benchmarks[name].selection)
            if (every := aggregate(how, counted)) is None:
                continue
            yield OverlapEffect(
                model=result.result.model,
                signals=signals,
                found=len(some),
                every=_measured(how, every),
                apart=_measured(how, aggregate(how, [one for one in counted if one.order not in some])),
                gain=_measured(how, gain_of_rows(how, counted, some)),
            )


def _problems(ids: Sequence[str] | set[str]) -> set[str]:
    return {name.partition("/")[2] for name in ids}


def _measured(how: Aggregate, found: CountedEstimate | None) -> Measured:
    if found is None:
        return Measured(protocol=how.id, value=None, low=None, high=None, n=0, scale=how.scale)
    return Measured(
        protocol=how.id, value=found.value, low=found.low, high=found.high, n=found.n, scale=how.scale
    )
