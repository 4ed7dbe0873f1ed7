"""What rows that overlap make of the scores of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.builders.overlap.compare import Comparison
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.files import file_rows
from videop2r_data.schemas import Aggregate, EvalResult, Measured, OverlapEffect, Signal
from videop2r_data.validators import CountedEstimate, ScoredRow, aggregate, gain_of_rows

COUNTED: tuple[tuple[Signal, ...], ...] = (("identity", "file", "frames"), ("both",))
"""What counts as overlapping: first every question about a clip of the pool, then those that it asks too."""


def read_results(folders: Sequence[Path]) -> list[tuple[Path, EvalResult]]:
    """The results of evaluations.

    Raises:
        ConfigError: a folder holds none.
    """
    found = []
    for folder in folders:
        try:
            found.append((folder, EvalResult.model_validate_json((folder / "result.json").read_bytes())))
        except (OSError, ValidationError) as error:
            raise ConfigError(
                f"no result of p2r-train eval: {type(error).__name__}",
                where=str(folder),
                hint="name the folder that p2r-train eval wrote",
            ) from None
    return found


def effects(compared: Comparison, results: list[tuple[Path, EvalResult]]) -> Iterator[OverlapEffect]:
    """Each figure of each result with and without the rows that overlap.

    Raises:
        SourceError: the rows of a result cannot be read, or are of other questions.
    """
    name = compared.bench.name
    declared = load_benchmark(name).aggregates if name in packaged_benchmarks() else ()
    for folder, result in results:
        for one in result.benchmarks:
            if one.name != name:
                continue
            asked = list(_scored(folder / one.file, compared))
            for signals in COUNTED:
                some = {row.order for row in asked} & compared.found(signals)
                for how in declared or (Aggregate(id="mean"),):
                    # as in the result: a row that cannot be read counts where all questions count alike
                    plain = how.how in ("mean", "recall")
                    rows = [row for row in asked if plain or row.problem_type]
                    every = aggregate(how, rows)
                    if every is None:
                        continue
                    apart = aggregate(how, [row for row in rows if row.order not in some])
                    yield OverlapEffect(
                        model=result.model,
                        signals=signals,
                        found=len(some),
                        every=_measured(how, every),
                        apart=apart and _measured(how, apart),
                        gain=(gain := gain_of_rows(how, rows, some)) and _measured(how, gain),
                    )


def _measured(how: Aggregate, found: CountedEstimate) -> Measured:
    return Measured(
        protocol=how.id, value=found.value, low=found.low, high=found.high, n=found.n, scale=how.scale
    )


def _scored(path: Path, compared: Comparison) -> Iterator[ScoredRow]:
    """The questions of a result; `order` is that of the evaluation set as it was compared."""
    place = {name.partition("/")[2]: row for row, name in enumerate(compared.bench.ids)}
    columns = ["problem_id", "problem_type", "path", "tags", "reply"]
    missing = 0
    for number, (where, row) in enumerate(file_rows(path, columns)):
        if isinstance(row, str) or not {*columns} <= row.keys():
            raise SourceError("no row of an evaluation", where=where)
        missing += row["problem_id"] not in place
        if row["reply"]["score"] is not None:
            order = place.get(row["problem_id"], len(place) + number)
            tags = {tag["name"]: tag["value"] for tag in row["tags"]}
            yield ScoredRow(row["reply"]["score"], tags, row["problem_type"], row["path"], order)
    if missing > len(place) / 2:
        raise SourceError(
            f"{missing:,} of its questions are none of {compared.bench.name}",
            where=str(path),
            hint="compare with the rows that were evaluated",
        )
