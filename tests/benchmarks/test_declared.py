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


VSI = (5130, {"task": 10, "problem_type": 2, "scenes": 3})
MMMU = (900, {"track": 3})
MMVU = (1000, {"problem_type": 2})
MME = (2700, {"duration": 3})
MV = (4000, {"task": 20})
TEMP = (7540, {"task": 4, "aspect": 5})
NONE: dict[str, int] = {}
KILL_BILL = "video/videoEspresso/Kill.Bill.Vol.1.2003__#0-05-55_0-08-54_label_B1-0-0.mp4"
AGAIN = {x: f"problem_id '{x}' with this very content stands further up" for x in "0123"}
WRITTEN = "written answers of sub_scene and summary, which the authors let GPT-4 score"
INSTANT = "\"answer\": '41.65-41.65' is no interval [start, end] in seconds with start < end"
TABLE = [
    Row("official_vsibench", "vsi-bench", *VSI, "full", 9, "arkitscenes/41069025.mp4"),
    Row("videor1_eval_vsibench", "vsi-bench", *VSI, "video-r1", 40, "scannetpp/3db0a1c8f3.mp4"),
    Row("official_videommmu", "videommmu", *MMMU, "github", 75, "Science/dev_Geography_5.mp4"),
    Row("videor1_eval_videommmu", "videommmu", *MMMU, "video-r1", 40, "Science/validation_Chemistry_19.mp4"),
    Row("out_videorft3b_videommmu", "videommmu", *MMMU, "video-r1", 76, "Science/dev_Biology_3.mp4"),
    Row("official_mmvu_validation", "mmvu", *MMVU, "validation", 70, "videos/Mechanical_Engineering/0.mp4"),
    Row("videor1_eval_mmvu", "mmvu", *MMVU, "video-r1", 20, "videos/Electromagnetism/3.mp4"),
    Row("twgrpo_eval_mmvu", "mmvu", *MMVU, "video-r1", 170, "videos/Thermodynamics/0.mp4"),
    Row("out_twgrpo_mmvu", "mmvu", *MMVU, "video-r1", 80, "videos/Mechanical_Engineering/1.mp4"),
    Row("out_videochatr1_mmvu", "mmvu", *MMVU, "video-r1", 75, "videos/Mechanical_Engineering/0.mp4"),
    Row("official_vcrbench", "vcr-bench", 1034, {"problem_type": 2}, "github", 8, f"v1/videos/{KILL_BILL}", AGAIN),
    Row("videor1_eval_mvbench", "mvbench", *MV, "video-r1", 42, "ssv2_video/108710.mp4"),
    Row("twgrpo_eval_mvbench", "mvbench", *MV, "video-r1", 336, "ssv2_video/144629.mp4"),
    Row("out_zeroshot_mvbench", "mvbench", *MV, "video-r1", 60, "ssv2_video/197680.mp4"),
    Row("official_tempcompass", "tempcompass", *TEMP, "github", 88, "videos/1041584314.mp4"),
    Row("videor1_eval_videomme", "video-mme", *MME, "hub", 21, "data/K3ksKkCOgTw.mp4"),
    Row("twgrpo_eval_videomme", "video-mme", *MME, "hub", 200, "data/24i4ncHuf6A.mp4"),
    Row("official_videoholmes", "video-holmes", 1837, NONE, "examples", 16, "videos/RSmjqss0XKQ.mp4"),
    Row("videoholmes_questions", "video-holmes", 1837, NONE, "test", 8, "videos/RSmjqss0XKQ.mp4"),
    Row("", "video-mme-v2", 3200, NONE),
    Row("official_longvideobench_val", "longvideobench", 1337, NONE, "json", 13, "videos/86CxyhFV9MI.mp4"),
    Row("charades_sta_test", "charades-sta", 3720, NONE, "grouped", 47, "Charades_v1_480/2P7A9.mp4"),
    Row("", "charades-timelens", 3363, NONE),
    Row("official_mlvu_dev", "mlvu-dev", 2175, {"task": 7}, "json", 30, "MLVU/video/1_plotQA/movie101_25.mp4",
        {}, {WRITTEN: 6}),
    Row("official_tomato", "tomato", 1484, {"task": 6}, "github", 40, "videos/human/0229-03.mp4"),
    Row("official_lvbench", "lvbench", 1549, NONE, "flat", 1, "Cm73ma6Ibcs.mp4"),
    Row("activitynet_captions_val2", "activitynet-captions", 17031, NONE, "val_2", 48, "v_1hiyhNqakMI.mp4"),
    Row("tvgbench", "tvgbench", 800, NONE, "json", 30, "v_4cqesj6HwTU.mkv", {"17": INSTANT}),
    Row("nextgqa_test", "next-gqa", 5553, NONE, "test", 15, "1002/5728022703.mp4"),
    Row("twgrpo_nextgqa_val_mixed", "next-gqa", 5553, NONE, "val-mixed", 85, "4584426085.mp4"),
    Row("out_zeroshot_nextqa", "next-gqa", 5553, NONE, "video-r1", 61, "2825594207.mp4"),
    Row("videor1_train_readme_row", "p2r", None, NONE, "rl", 1,
        "LLaVA-Video-178K/liwei_youtube_videos/videos/youtube_video_2024/ytb_7nRmsEw7nsE.mp4"),
    Row("", "demo", 200, NONE),
]  # fmt: skip
OWN = {"converted_mlvu_test", "videor1_geoqa_prompts", "videor1_superclevr_counts"}
"""Rows that no packaged declaration is about: read with declarations of one's own, in test_own.py."""
NO_ROWS = {
    "out_fork_rollouts_quality": "outputs of a model without their questions",
    "paper_examples_observation": "traces that a paper prints",
}


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


def test_every_file_of_real_rows_is_accounted_for() -> None:
    folder = samples_dir()
    if folder is None:
        pytest.skip("no real rows on this machine")
    told = {row.file for row in TABLE} | OWN | set(NO_ROWS)
    assert {path.stem for path in folder.glob("*.jsonl")} <= told


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
