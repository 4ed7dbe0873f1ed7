"""Benchmarks: what their publishers count, and real rows of each. A new one is one YAML and one row here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.benchmarks.rows import publish
from tests.shared import samples_dir
from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.builders.sources import BenchmarkSource, open_source
from videop2r_data.schemas import BadRow, Sample, SourceSpec


class Row(NamedTuple):
    """One file of real rows.

    Attributes:
        file: of the shared samples; empty: there is none of this benchmark.
        name: of the benchmark.
        rows: that the publishers count.
        values: tag -> number of values that the publishers count.
        layout: that is found.
        read: questions in the file of real rows.
        path: of the first clip.
        bad: id or place of a row that does not load -> why.
        out: reason -> rows left out.
    """

    file: str
    name: str
    rows: int | None
    values: dict[str, int]
    layout: str = ""
    read: int = 0
    path: str = ""
    bad: dict[str, str] = {}  # noqa: RUF012 - never changed
    out: dict[str, int] = {}  # noqa: RUF012 - never changed


VSI = {"task": 10, "problem_type": 2, "scenes": 3}
MME = {"duration": 3}
TABLE = [
    Row("official_vsibench", "vsi-bench", 5130, VSI, "full", 9, "arkitscenes/41069025.mp4"),
    Row("videor1_eval_vsibench", "vsi-bench", 5130, VSI, "video-r1", 40, "scannetpp/3db0a1c8f3.mp4"),
    Row("official_mmvu_validation", "mmvu", 1000, {"problem_type": 2}, "validation", 70,
        "videos/Mechanical_Engineering/0.mp4"),
    Row("videor1_eval_mmvu", "mmvu", 1000, {"problem_type": 2}, "video-r1", 20, "videos/Electromagnetism/3.mp4"),
    Row("twgrpo_eval_mmvu", "mmvu", 1000, {"problem_type": 2}, "video-r1", 170, "videos/Thermodynamics/0.mp4"),
    Row("videor1_eval_videomme", "video-mme", 2700, MME, "hub", 21, "data/K3ksKkCOgTw.mp4"),
    Row("twgrpo_eval_videomme", "video-mme", 2700, MME, "hub", 200, "data/24i4ncHuf6A.mp4"),
]  # fmt: skip


def opened(name: str, path: Path, **settings: Any) -> BenchmarkSource:
    spec = SourceSpec(name="test", kind="benchmark", benchmark=name, path=str(path), **settings)
    source = open_source(spec, base=Path())
    assert isinstance(source, BenchmarkSource)
    return source


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.file or row.name)
def test_a_declaration_agrees_with_the_published_counts(row: Row) -> None:
    expected = load_benchmark(row.name).expected
    assert expected.rows == row.rows
    assert {tag: len(counts) for tag, counts in expected.by.items()} == row.values
    assert all(sum(counts.values()) == row.rows for counts in expected.by.values())


@pytest.mark.parametrize("row", [row for row in TABLE if row.file], ids=lambda row: row.file)
def test_real_rows_load_or_say_why(row: Row, tmp_path: Path) -> None:
    if samples_dir() is None:
        pytest.skip("no real rows on this machine")
    source = opened(row.name, publish(row.file, tmp_path))
    assert source.layout == row.layout
    rows = list(source.rows())
    good = [one for one in rows if isinstance(one, Sample)]
    bad = [one for one in rows if isinstance(one, BadRow)]
    assert {one.problem_id or str(one.row): one.detail for one in bad} == row.bad
    assert dict(source.left_out) == row.out
    assert (len(rows), good[0].path) == (row.read, row.path)
    declared = load_benchmark(row.name)
    for tag, counts in declared.expects(row.layout).by.items():
        found = {(one.tags | {"problem_type": one.problem_type.value}).get(tag, "") for one in good}
        assert found <= set(counts), tag
    assert len({one.sample_id for one in good}) == len(good)


def test_every_benchmark_of_the_package_has_a_row_here() -> None:
    assert {row.name for row in TABLE} >= set(packaged_benchmarks())


@pytest.mark.parametrize("name", packaged_benchmarks())
def test_what_a_user_could_doubt_has_a_source(name: str) -> None:
    one = load_benchmark(name)
    assert one.name == name
    assert {"rows", "license", "media"} <= set(one.sources)
    pinned = [hub for hub in (layout.hub for layout in one.layouts.values()) if hub is not None]
    assert not pinned or "revision" in one.sources
    assert all(aggregate.source or aggregate.only for aggregate in one.aggregates)
