"""Rows that a build leaves out, as a file of `p2r-data overlap` lists them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.files import file_rows
from videop2r_data.schemas import LeaveOut


def read_left_out(spec: LeaveOut, base: Path, sources: Collection[str]) -> dict[str, str]:
    """sample_id -> why it is left out: the evaluation sets and signals.

    Args:
        spec: the recipe's setting.
        base: folder that the file is relative to.
        sources: names of the recipe's sources.

    Raises:
        ConfigError: the file cannot be read, has no `sample_id`, or lists no row of these sources.
    """
    path = base / spec.rows
    found: defaultdict[str, set[str]] = defaultdict(set)
    try:
        for place, row in file_rows(path):
            if isinstance(row, str) or not isinstance(row.get("sample_id"), str):
                told = row if isinstance(row, str) else "there is no text in `sample_id`"
                raise SourceError(told, where=place)
            signal, bench = (str(row.get(name, "")) for name in ("signal", "bench"))
            if (not signal or signal in spec.signals) and (not spec.benches or bench in spec.benches):
                found[row["sample_id"]].add(" ".join(filter(None, (bench, signal))) or "listed")
    except (SourceError, OSError) as error:
        raise ConfigError(
            f"leave_out cannot be read: {error}",
            where=str(path),
            hint="name the rows.parquet of p2r-data overlap, or JSON lines with a sample_id each",
        ) from None
    ours = {name: ", ".join(sorted(why)) for name, why in found.items() if name.partition("/")[0] in sources}
    if found and not ours:
        raise ConfigError(
            f"leave_out lists {len(found):,} rows, none of this recipe's sources ({', '.join(sources)}); "
            f"the first is {min(found)}",
            where=str(path),
            hint="compare the recipe itself: p2r-data overlap RECIPE --against ...",
        )
    return ours
