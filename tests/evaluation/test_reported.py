"""What others report: kept as printed, and what arithmetic refutes is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from videop2r_data.benchmarks import load_benchmark
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.reported import Reported, is_possible, load_reported
from videop2r_data.schemas import EvalPlan, parse_yaml

SMALL = """
reported: 1
columns:
  a: {protocol: p, n: 10}
  b: {protocol: q, n: 10, graded: true, note: other frames}
  a1: {protocol: p1, benchmark: a, n: 5}
sources: {x: {title: X, url: "https://x", about: ""}, y: {title: Y, url: "https://y", about: ""}}
tables:
  one: {title: t, source: x, columns: [a, b, average], rows: {m: [50.0, 33.3, 41.7], n: [55.0, null, 55.0]}}
  two: {title: t, source: y, columns: [a1], rows: {m: [40.0]}}
  three: {title: t, source: x, columns: [a], rows: {m: [7.0]}, measures: mismatch}
doubts: [{column: a, model: m, why: because}, {column: a, source: y, why: not here}]
"""


def read(text: str) -> Reported:
    return parse_yaml(text, Reported, where="t", what="t", valid="", allowed="")


@pytest.mark.parametrize(
    ("value", "n", "possible"),
    [
        (50.0, 2, True), (33.3, 3, True), (33.4, 3, False), (66.7, 3, True), (0.0, 7, True), (100.0, 7, True),
        (65.4, 625, True), (62.8, 625, False), (62.9, 625, True), (48.3, 510, False), (51.0, 510, True),
    ],
)  # fmt: skip
def test_a_share_of_n_questions_has_few_values(value: float, n: int, possible: bool) -> None:
    assert is_possible(value, n) == possible
    assert possible == any(round(100 * k / n + 1e-12, 1) == value for k in range(n + 1))


def test_every_doubt_stands_beside_its_figure() -> None:
    whole, none, part = read(SMALL).figures("a")
    assert whole[:4] == ("one", "m", "p", 50.0) and whole.doubts == ("because",)
    assert 23 < whole.low < 25 and 75 < whole.high < 77
    # 55 % of ten questions is none
    assert none.doubts == ("no share of 10 questions rounds to 55",)
    assert part[:4] == ("two", "m", "p1", 40.0) and part.doubts == (), "a protocol of its own"
    assert [f.doubts for f in read(SMALL).figures("b")] == [("other frames",)], "graded: any value can be"
    assert read(SMALL).figures("c") == read(SMALL).figures("average") == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("null, 55.0", "55.0", "figures for"), ("[a1]", "[a9]", "unknown a9"),
     ("source: y, columns", "source: z, columns", "unknown z")],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(old: str, new: str, told: str) -> None:
    assert old in SMALL
    with pytest.raises(ConfigError, match=told):
        read(SMALL.replace(old, new))


def test_the_packaged_figures_are_whole_and_refuted_where_they_can_be() -> None:
    known = load_reported()
    main = known.tables["table-1"]
    assert main.rows["VideoP2R"] == (36.8, 55.0, 65.4, 51.0, 68.1, 74.5, 60.0, 58.7)
    assert len(known.figures("vsi-bench")) > 30 and known.tables.keys() - known.scores.keys() == {"table-6"}
    impossible = {f.model for f in known.figures("mmvu") if any("no share" in why for why in f.doubts)}
    assert "GRPO (without R_P)" in impossible and "VideoP2R" not in impossible
    assert all(re.match("https://", source.url) for source in known.sources.values())


def test_a_whole_that_is_not_the_mean_of_its_parts_is_told() -> None:
    known = load_reported()
    for model, values in known.tables["table-7"].rows.items():
        for benchmark in ("video-mme", "videommmu"):
            columns = zip(known.tables["table-7"].columns, values, strict=True)
            parts = [value for column, value in columns if known.columns[column].benchmark == benchmark]
            mean = sum(value for value in parts if value is not None) / len(parts)
            (whole,) = (f for f in known.figures(benchmark) if (f.table, f.model) == ("table-1", model))
            told = f"as {parts[0]:g}, {parts[1]:g} and {parts[2]:g}, whose mean is {mean:.1f}"
            # rounding of the whole and of the parts explains 0.055
            assert any(told in why for why in whole.doubts) == (abs(mean - whole.value) > 0.055)


def test_one_average_is_not_the_mean_of_its_row() -> None:
    wrong = []
    for name, table in load_reported().tables.items():
        for model, values in table.rows.items() if table.columns[-1] == "average" else ():
            row = [value for value in values[:-1] if value is not None]
            # rounding moves the mean of printed figures by 0.05 at most, and the average by as much
            if abs(sum(row) / len(row) - (values[-1] or 0.0)) > 0.1 + 1e-9:
                wrong.append((name, model))
    assert wrong == [("table-9", "SFT + T-GRPO on VideoP2R-CoT-162K")]


def test_columns_name_protocols_of_this_project() -> None:
    known = load_reported()
    for name, column in known.columns.items():
        declared = load_benchmark(column.benchmark or name).aggregates
        assert column.protocol in [aggregate.id for aggregate in declared], name


def test_the_plan_of_the_docs_asks_what_the_tables_are_of() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()
    (block,) = (b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "name: seven" in b)
    plan = parse_yaml(block, EvalPlan, where="docs", what="plan", valid="", allowed="")
    tables = load_reported().tables
    assert tuple(pool.name for pool in plan.benchmarks) == tables["table-1"].columns[:-1]
    asked = {pool.name: load_benchmark(pool.name) for pool in plan.benchmarks}
    assert f"{sum(one.expected.rows or 0 for one in asked.values()):,} questions" in text
    assert all(pool.source.layout in ("", *asked[pool.name].layouts) for pool in plan.benchmarks)
