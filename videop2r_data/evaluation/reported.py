"""Figures that others report, and which of them cannot be right: reference data, never equal evidence.

They are kept as they are printed, in `reported.yaml`; what is known against them stands there, too.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from videop2r_data.schemas import Model, parse_yaml
from videop2r_data.validators import wilson

FILE = "reported.yaml"


class Column(Model):
    """What the figures of a column are over."""

    protocol: str
    """Of this project, the one that comes nearest."""
    n: int = Field(ge=1)
    """Questions."""
    benchmark: str = ""
    """Empty: it is called as the column is."""
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

    @model_validator(mode="after")
    def _is_full(self) -> Self:
        for model, values in self.rows.items():
            if len(values) != len(self.columns):
                raise ValueError(f"{model}: {len(values)} figures for {len(self.columns)} columns")
        return self


class Doubt(Model):
    """Why a figure is not what it seems."""

    column: str
    model: str = ""
    """Empty: every model."""
    source: str = ""
    """Empty: every paper."""
    why: str


class Figure(NamedTuple):
    """One reported score.

    Attributes:
        value: per cent, as printed.
        low, high: by Wilson's interval of `value` and the questions alone, which nobody reports; wide enough
            where questions are graded.
        doubts: what has to be known of it.
    """

    table: str
    model: str
    protocol: str
    value: float
    low: float
    high: float
    doubts: tuple[str, ...]


class Reported(Model):
    """Everything that is known of others' figures."""

    reported: Literal[1]
    columns: dict[str, Column]
    sources: dict[str, Paper]
    tables: dict[str, Table]
    doubts: tuple[Doubt, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, table in self.tables.items():
            wrong = [
                *(set(table.columns) - {*self.columns, "average"}),
                *({table.source} - self.sources.keys()),
            ]
            if wrong:
                raise ValueError(f"table {name}: unknown {', '.join(wrong)}")
        return self

    @property
    def scores(self) -> dict[str, Table]:
        """The tables of scores."""
        return {name: table for name, table in self.tables.items() if table.measures == "score"}

    def figures(self, benchmark: str) -> list[Figure]:
        """Every score of a benchmark, in the order of the tables; a model in several tables comes once each.

        Args:
            benchmark: name of its declaration.
        """
        return [
            self._figure(name, model, column, value)
            for name, table in self.scores.items()
            for model, values in table.rows.items()
            for column, value in zip(table.columns, values, strict=True)
            if value is not None
            and column in self.columns
            and benchmark == (self.columns[column].benchmark or column)
        ]

    def _figure(self, table: str, model: str, column: str, value: float) -> Figure:
        over, source = self.columns[column], self.tables[table].source
        known = [
            one.why
            for one in self.doubts
            if one.column == column and one.model in ("", model) and one.source in ("", source)
        ]
        if not over.graded and not is_possible(value, over.n):
            known.append(f"no share of {over.n:,} questions rounds to {value:g}")
        share = wilson(round(value / 100 * over.n), over.n)
        low, high = (100 * (end or 0.0) for end in (share.low, share.high))
        doubts = tuple(filter(None, (over.note, *known)))
        return Figure(table, model, over.protocol, value, low, high, doubts)


def is_possible(value: float, n: int) -> bool:
    """Whether a number of right answers among n questions gives a percentage that rounds to `value`.

    >>> is_possible(65.4, 625), is_possible(62.8, 625)
    (True, False)
    """
    nearest = round(value * n / 100)
    return any(abs(100 * right / n - value) <= 0.05 + 1e-9 for right in (nearest - 1, nearest, nearest + 1))


@lru_cache(maxsize=1)
def load_reported() -> Reported:
    """The packaged figures.

    Raises:
        ConfigError: the file is damaged.
    """
    text = (resources.files(__package__) / FILE).read_text(encoding="utf-8")
    return parse_yaml(text, Reported, where=FILE, what="file of reported figures", valid="", allowed="")
