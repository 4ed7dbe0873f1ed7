"""What others report: kept as printed, and what arithmetic refutes is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.reported import Reported, is_possible, load_reported
from videop2r_data.schemas import EvalPlan, parse_yaml

SMALL = """
reported: 1
columns:
  a: {protocol: p, n: 10}
  b: {protocol: q, n: 10, graded: true}
sources: {x: {title: X, url: "https://x", about: ""}}
tables:
  one: {title: t, source: x, columns: [a, b, average], rows: {m: [50.0, 33.3, 41.7], n: [55.0, null, 55.0]}}
  two: {title: t, source: x, columns: [a1, a2], parts_of: one, rows: {m: [40.0, 60.2], n: [50.0, 60.01]}}
parts: {a: [a1, a2]}
doubts: [{column: a, model: m, why: because}]
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
    found = {f.model: f for f in read(SMALL).figures("a")}
    # the mean of 40.0 and 60.2 is 50.1: rounding of 50.0 and of the parts explains 0.055 at most
    assert found["m"].doubts == ("because", "two gives its 2 equal parts as 40, 60.2: their mean is 50.1")
    # 55 % of ten questions is none; 55.005 is 55.0
    assert found["n"].doubts == ("no share of 10 questions rounds to 55",)
    assert 23 < found["m"].low < 25 and 75 < found["m"].high < 77
    assert [f.doubts for f in read(SMALL).figures("b")] == [()], "graded: any value can be"
    assert read(SMALL).figures("c") == []
    mismatch = SMALL.replace("columns: [a, b, average],", "columns: [a, b, average], measures: mismatch,")
    assert read(mismatch).figures("a") == [], "no score"


def test_an_average_that_is_none_is_found() -> None:
    assert [*read(SMALL).contradictions] == [("one", "m", "a")]
    wrong = read(SMALL.replace("41.7", "41.8"))  # the mean is 41.65: rounding explains up to 41.75
    assert wrong.contradictions["one", "m", "average"] == "the mean of its row is 41.6"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("null, 55.0", "55.0", "figures for"), ("[a1, a2], parts_of", "[a1, a9], parts_of", "unknown a9"),
     ("parts_of: one", "parts_of: none", "unknown none"), ("source: x, columns: [a, b", "source: y, columns: [a, b", "y")],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(old: str, new: str, told: str) -> None:
    assert old in SMALL
    with pytest.raises(ConfigError, match=told):
        read(SMALL.replace(old, new))


def test_the_packaged_figures_are_whole_and_refuted_where_they_can_be() -> None:
    known = load_reported()
    main = known.tables["table-1"]
    assert main.rows["VideoP2R"] == (36.8, 55.0, 65.4, 51.0, 68.1, 74.5, 60.0, 58.7)
    assert len(known.figures("vsi-bench")) > 30
    assert known.tables.keys() - known.of_scores.keys() == {"table-6", "table-7"}
    assert set(known.contradictions) == {
        ("table-1", "Qwen2.5-VL-7B", "video-mme"), ("table-1", "VideoP2R", "video-mme"),
        ("table-1", "Qwen2.5-VL-7B", "videommmu"), ("table-1", "VideoP2R", "videommmu"),
        ("table-9", "SFT + T-GRPO on VideoP2R-CoT-162K", "average"),
    }  # fmt: skip
    impossible = {f.model for f in known.figures("mmvu") if any("no share" in why for why in f.doubts)}
    assert "GRPO (without R_P)" in impossible and "VideoP2R" not in impossible
    assert all(re.match("https://", source.url) for source in known.sources.values())


def test_columns_name_protocols_of_this_project() -> None:
    known = load_reported()
    for name, column in known.columns.items():
        if name in packaged_benchmarks():
            assert column.protocol in [aggregate.id for aggregate in load_benchmark(name).aggregates], name


def test_the_plan_of_the_docs_asks_what_the_tables_are_of() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text()
    (block,) = (b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "name: seven" in b)
    plan = parse_yaml(block, EvalPlan, where="docs", what="plan", valid="", allowed="")
    tables = load_reported().tables
    assert tuple(pool.name for pool in plan.benchmarks) == tables["table-1"].columns[:-1]
    asked = {pool.name: load_benchmark(pool.name) for pool in plan.benchmarks}
    assert f"{sum(one.expected.rows or 0 for one in asked.values()):,} questions" in text
    assert all(pool.source.layout in ("", *asked[pool.name].layouts) for pool in plan.benchmarks)
