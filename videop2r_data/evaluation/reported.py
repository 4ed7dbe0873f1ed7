"""Figures that others report, and which of them cannot be right: reference data, never equal evidence.

They are kept as they are printed. `is_possible` and `Reported.contradictions` find what arithmetic alone
refutes: a share that so many questions cannot give, parts whose mean is not the whole, an average that is
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from importlib import resources
from typing import Literal, NamedTuple, Self

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

    def of(self, model: str) -> dict[str, float | None]:
        """Column -> figure of a model."""
        return dict(zip(self.columns, self.rows[model], strict=True))


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
    parts: dict[str, tuple[str, ...]]
    """Benchmark -> columns of the parts of equal size that it consists of."""
    doubts: tuple[Doubt, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known = {*self.columns, AVERAGE, *(part for parts in self.parts.values() for part in parts)}
        for name, table in self.tables.items():
            wrong = [*(set(table.columns) - known), *({table.source} - self.sources.keys())]
            wrong += [table.parts_of] if table.parts_of and table.parts_of not in self.tables else []
            if wrong:
                raise ValueError(f"table {name}: unknown {', '.join(wrong)}")
        return self

    @property
    def of_scores(self) -> dict[str, Table]:
        """The tables that have scores of whole benchmarks."""
        tables = self.tables.items()
        return {k: one for k, one in tables if one.measures == "score" and {*one.columns} & {*self.columns}}

    def figures(self, benchmark: str) -> list[Figure]:
        """Every score of a benchmark, in the order of the tables; a model in several tables comes once each.

        Args:
            benchmark: name of its declaration.
        """
        if (column := self.columns.get(benchmark)) is None:
            return []
        found = []
        for name, table in self.of_scores.items():
            for model in table.rows:
                if (value := table.of(model).get(benchmark)) is None:
                    continue
                told = [column.note, *self._why(table, model, benchmark)]
                told.append(self.contradictions.get((name, model, benchmark), ""))
                if not column.graded and not is_possible(value, column.n):
                    told.append(f"no share of {column.n:,} questions rounds to {value:g}")
                share = wilson(round(value / 100 * column.n), column.n)
                low, high = (100 * (end or 0.0) for end in (share.low, share.high))
                doubts = tuple(filter(None, told))
                found.append(Figure(name, model, column.protocol, value, low, high, doubts))
        return found

    def _why(self, table: Table, model: str, benchmark: str) -> Iterator[str]:
        for one in self.doubts:
            asked = one.column == benchmark and one.source in ("", table.source)
            if asked and one.model in ("", model):
                yield one.why

    @cached_property
    def contradictions(self) -> dict[tuple[str, str, str], str]:
        """(table, model, column) of figures that the figures beside them contradict -> why.

        An average that is not the mean of its row, by more than rounding can do; a whole that is not the mean
        of its equal parts.
        """
        found = {}
        for name, table in self.tables.items():
            for model in table.rows:
                row = table.of(model)
                printed = row.pop(AVERAGE, None)
                # rounding moves the mean of printed figures by 0.05 at most, and the average by as much
                if (mean := _off(list(row.values()), printed, 0.1)) is not None:
                    found[name, model, AVERAGE] = f"the mean of its row is {mean:.1f}"
                for benchmark, parts in self.parts.items() if table.parts_of else ():
                    cells = [row[part] for part in parts]
                    whole = self.tables[table.parts_of].of(model)[benchmark]
                    if (mean := _off(cells, whole, 0.055)) is not None:
                        listed = ", ".join(f"{cell:g}" for cell in cells)
                        why = (
                            f"{name} gives its {len(cells)} equal parts as {listed}: their mean is {mean:.1f}"
                        )
                        found[table.parts_of, model, benchmark] = why
        return found


def _off(cells: Sequence[float | None], printed: float | None, most: float) -> float | None:
    """The mean of the figures that are there, if what is printed for it is further away than `most`."""
    known = [cell for cell in cells if cell is not None]
    mean = sum(known) / len(known) if known else None
    return mean if mean is not None and printed is not None and abs(mean - printed) > most + _EXACT else None


def is_possible(value: float, n: int) -> bool:
    """Whether a number of right answers among n questions gives a percentage that rounds to `value`.

    >>> is_possible(65.4, 625), is_possible(62.8, 625)
    (True, False)
    """
    nearest = round(value * n / 100)
    return any(abs(100 * right / n - value) <= 0.05 + _EXACT for right in (nearest - 1, nearest, nearest + 1))


@lru_cache(maxsize=1)
def load_reported() -> Reported:
    """The packaged figures.

    Raises:
        ConfigError: the file is damaged.
    """
    text = (resources.files(__package__) / FILE).read_text(encoding="utf-8")
    return parse_yaml(text, Reported, where=FILE, what="file of reported figures", valid="", allowed="")
