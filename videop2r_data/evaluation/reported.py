"""Figures that others report, and which of them cannot be right: reference data, never equal evidence.

They are kept as they are printed. `is_possible` and `Reported.contradictions` find what arithmetic alone
refutes: a share that so many questions cannot give, parts whose mean is not the whole, an average that is
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from typing import Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas import Model, parse_yaml
from videop2r_data.validators import wilson

AVERAGE = "average"
FILE = "reported.yaml"
_EXACT = 1e-9


class Column(Model):
    """What the figures of a column are over."""

    protocol: str
    """Of this project, the one that comes nearest."""
    n: int = Field(ge=1)
    """Questions."""
    graded: bool = False
    """A question can be worth something between 0 and 1."""
    note: str = ""
    """What is different, or not said."""


class Paper(Model):
    """Who reports."""

    title: str
    url: str
    about: str
    """How it was measured, as far as it is said."""


class Table(Model):
    """One table."""

    title: str
    source: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    """Model -> its figures in per cent, in the order of the columns; None: not reported."""
    measures: Literal["score", "mismatch"] = "score"
    parts_of: str = ""
    """Table whose figures these are the parts of."""

    @model_validator(mode="after")
    def _is_full(self) -> Self:
        for model, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"{model}: {len(values)} figures for {len(self.columns)} columns")
        return self


class Parts(Model):
    """Parts of equal size that a benchmark consists of."""

    of: tuple[str, ...]
    n: int = Field(ge=1)
    """Questions of each."""


class Doubt(Model):
    """Why a figure is not what it seems."""

    column: str
    model: str = ""
    """Empty: every model."""
    source: str = ""
    """Empty: every paper."""
    why: str


class Figure(Model):
    """One reported figure."""

    table: str
    source: str
    model: str
    benchmark: str
    protocol: str
    value: float
    """Per cent, as printed."""
    n: int
    low: float | None
    """By Wilson's interval of `value` and `n` alone, which nobody reports; wide enough where questions are
    graded."""
    high: float | None
    doubts: tuple[str, ...]


class Reported(Model):
    """Everything that is known of others' figures."""

    reported: Literal[1]
    columns: dict[str, Column]
    sources: dict[str, Paper]
    tables: dict[str, Table]
    parts: dict[str, Parts]
    doubts: tuple[Doubt, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        parts = {name for one in self.parts.values() for name in one.of}
        known = {*self.columns, *parts, AVERAGE}
        for name, table in self.tables.items():
            wrong = [*(set(table.columns) - known), *({table.source} - self.sources.keys())]
            wrong += [table.parts_of] if table.parts_of and table.parts_of not in self.tables else []
            if wrong:
                raise ValueError(f"table {name}: unknown {', '.join(wrong)}")
        return self

    def figures(self, benchmark: str, *, measures: str = "score") -> list[Figure]:
        """Every figure of a benchmark, in the order of the tables; a model in several tables comes once each.

        Args:
            benchmark: name of its declaration.
            measures: `score` or `mismatch`.
        """
        column = self.columns.get(benchmark)
        found = []
        for name, model, value in self._cells(benchmark, measures) if column else ():
            assert column is not None
            share = value / 100
            interval = wilson(round(share * column.n), column.n)
            told = [column.note, *self.why(name, model, benchmark)]
            if measures == "score" and not column.graded and not is_possible(value, column.n):
                told.append(f"no share of {column.n:,} questions rounds to {value:g}")
            found.append(
                Figure(
                    table=name, source=self.tables[name].source, model=model, benchmark=benchmark,
                    protocol=column.protocol, value=value, n=column.n, doubts=tuple(filter(None, told)),
                    low=None if interval.low is None else 100 * interval.low,
                    high=None if interval.high is None else 100 * interval.high,
                )
            )  # fmt: skip
        return found

    def why(self, table: str, model: str, benchmark: str) -> list[str]:
        """What has to be known of one figure."""
        source = self.tables[table].source
        told = [
            doubt.why
            for doubt in self.doubts
            if doubt.column == benchmark and doubt.model in ("", model) and doubt.source in ("", source)
        ]
        return told + [line for where, line in self.contradictions() if where == (table, model, benchmark)]

    def contradictions(self) -> list[tuple[tuple[str, str, str], str]]:
        """Figures that the figures beside them contradict: ((table, model, column), why).

        An average that is not the mean of its row, by more than rounding can do; a whole that is not the mean
        of its equal parts.
        """
        found = []
        for name, table in self.tables.items():
            for model, values in table.rows.items():
                if AVERAGE in table.columns:
                    mean = _mean([v for v, c in zip(values, table.columns, strict=True) if c != AVERAGE])
                    printed = values[table.columns.index(AVERAGE)]
                    # rounding moves the mean of printed figures by 0.05 at most, and the average by as much
                    if mean is not None and printed is not None and abs(mean - printed) > 0.1 + _EXACT:
                        found.append(((name, model, AVERAGE), f"the mean of its row is {mean:.1f}"))
                if table.parts_of:
                    found += self._against_parts(name, model)
        return found

    def _against_parts(self, name: str, model: str) -> Iterator[tuple[tuple[str, str, str], str]]:
        table = self.tables[name]
        whole = self.tables[table.parts_of]
        for benchmark, parts in self.parts.items():
            cells = [table.rows[model][table.columns.index(part)] for part in parts.of]
            printed = whole.rows[model][whole.columns.index(benchmark)]
            mean = _mean(cells)
            if mean is not None and printed is not None and abs(mean - printed) > 0.055 + _EXACT:
                listed = ", ".join(f"{cell:g}" for cell in cells)
                why = f"{name} gives its {len(cells)} equal parts as {listed}: their mean is {mean:.1f}"
                yield (table.parts_of, model, benchmark), why

    def _cells(self, column: str, measures: str) -> Iterator[tuple[str, str, float]]:
        for name, table in self.tables.items():
            if table.measures == measures and column in table.columns:
                at = table.columns.index(column)
                for model, values in table.rows.items():
                    if (value := values[at]) is not None:
                        yield name, model, value


def _mean(values: Sequence[float | None]) -> float | None:
    """Of the figures that are there."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def is_possible(value: float, n: int, *, decimals: int = 1) -> bool:
    """Whether a number of right answers among n questions gives a percentage that rounds to `value`.

    >>> is_possible(65.4, 625), is_possible(62.8, 625)
    (True, False)
    """
    half = 0.5 * 10**-decimals + 1e-9
    nearest = round(value * n / 100)
    return any(abs(100 * right / n - value) <= half for right in (nearest - 1, nearest, nearest + 1))


@lru_cache(maxsize=1)
def load_reported() -> Reported:
    """The packaged figures.

    Raises:
        ConfigError: the file is damaged.
    """
    text = (resources.files(__package__) / FILE).read_text(encoding="utf-8")
    return parse_yaml(text, Reported, where=FILE, what="file of reported figures", valid="", allowed="")
