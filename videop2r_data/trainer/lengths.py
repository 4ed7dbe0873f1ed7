"""Lengths of perception and reasoning in a data set, against the bounds of the length reward [paper §3.3].

PA-GRPO pays 0.2 for a segment whose length lies in its bounds: 128 to 320 tokens for perception, 320 to 512
for reasoning. Where traces lie outside of the bounds, the reward teaches padding or cutting: measure before
training.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

from videop2r_data.errors import MissingExtraError, SourceError, TraceError
from videop2r_data.files import open_rows
from videop2r_data.schemas import Model, parse_trace
from videop2r_data.trainer.settings.parts import DataSpec
from videop2r_data.trainer.settings.rl import PERCEPTION_BOUNDS, REASONING_BOUNDS
from videop2r_data.validators import count_words

_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


class ProcessLengths(Model):
    """Lengths of one process over all accepted traces.

    Attributes:
        process: `perception` (observation) or `reasoning` (think and answer).
        unit: `tokens`, or `words` without a tokenizer.
        low, high: the bounds, inclusive.
        within, below, above: shares of the traces; the length reward would pay those within.
        percentiles: percentile -> length.
    """

    process: str
    unit: str
    low: int
    high: int
    within: float
    below: float
    above: float
    percentiles: dict[int, int]


class LengthReport(Model):
    """Both processes of a data set."""

    rows: int
    processes: list[ProcessLengths]


def measure_lengths(
    folder: Path,
    *,
    tokenizer: Path | None = None,
    perception: tuple[int, int] = PERCEPTION_BOUNDS,
    reasoning: tuple[int, int] = REASONING_BOUNDS,
) -> LengthReport:
    """Measure the `sft` config of a data set, streamed.

    Args:
        folder: a folder that `p2r-data build` made, the official release, or one file of rows.
        tokenizer: `tokenizer.json` of the model to train, or the folder that holds it; None: count words.
        perception, reasoning: bounds, inclusive.

    Raises:
        SourceError: nothing is there, there are no `sft` rows, or a file is damaged.
        MissingExtraError: a tokenizer was given and `tokenizers` is not installed.
    """
    hint = "name a folder that p2r-data build made"
    if not folder.exists():
        raise SourceError("no such file or folder", where=str(folder), hint=hint)
    count, unit = (_token_counter(tokenizer), "tokens") if tokenizer else (count_words, "words")
    pairs = [(count(observation), count(process)) for observation, process in _segments(folder)]
    if not pairs:
        raise SourceError("no sft rows", where=str(folder), hint=hint)
    bounds = {"perception": perception, "reasoning": reasoning}
    processes: list[ProcessLengths] = []
    for (name, (low, high)), found in zip(bounds.items(), zip(*pairs, strict=True), strict=True):
        n, ordered = len(found), sorted(found)
        below, above = bisect_left(ordered, low) / n, (n - bisect_right(ordered, high)) / n
        shares = {"within": max(0.0, 1.0 - below - above), "below": below, "above": above}
        percentiles = {p: ordered[min(n - 1, p * n // 100)] for p in _PERCENTILES}
        if ordered[-1]:  # a trace of another form may have no perception
            about = ProcessLengths(
                process=name, unit=unit, low=low, high=high, percentiles=percentiles, **shares
            )
            processes.append(about)
    return LengthReport(rows=len(pairs), processes=processes)


def _segments(source: Path) -> Iterator[tuple[str, str]]:
    """Observation, and thought with answer, of each trace; rows without a valid trace are left out."""
    columns = ["observation", "process", "output"]
    grammar = DataSpec(source=str(source)).grammar
    for _, row in open_rows(str(source), base=Path(), config="sft", columns=columns, revision=None).rows:
        if isinstance(row, str):
            continue
        if row.get("observation") and row.get("process"):
            yield row["observation"], row["process"]
            continue
        try:  # the official release has the whole completion in `output`, and no column for the observation
            trace = parse_trace(str(row.get("output") or ""), grammar)
        except TraceError:
            continue
        yield trace.observation, trace.process


def _token_counter(path: Path) -> Callable[[str], int]:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("tokenizers", "train") from None
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 - the library raises bare exceptions for whatever is wrong
        raise SourceError(f"not a tokenizer: {error}", where=str(file)) from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
