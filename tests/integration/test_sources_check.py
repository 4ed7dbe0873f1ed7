"""`check` over real clips, whole and broken, through real decoder processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.shared import media_dir
from videop2r_data.builders.check import check_pool
from videop2r_data.builders.check_report import BadFile, CheckReport
from videop2r_data.builders.sources import BadRow
from videop2r_data.schemas.recipe import (
    BackendSpec,
    DemoSpec,
    GenerateSpec,
    MediaLimits,
    MediaSpec,
    Recipe,
    SourceSpec,
)

pytestmark = pytest.mark.integration

BROKEN = {
    "empty.mp4": "media_empty",
    "not_a_video.mp4": "media_unreadable",
    "audio_only_ac3.mp4": "media_no_video",
    "audio_only_opus.mkv": "media_no_video",
    "broken_trunc_nomoov.mp4": "media_truncated",
    "broken_trunc_faststart.mp4": "media_truncated",
    "invalid-bitstream.webm": "media_bad_packets",
}
WHOLE = ["video1.mp4", "h265_video.mp4", "av1_video.mkv", "video_90.mov", "no_duration.webm", "minimal.mp4"]


def _row(i: int, path: str, data_type: str = "video") -> dict[str, Any]:
    return {
        "problem_id": i,
        "problem": "What is shown?",
        "data_type": data_type,
        "problem_type": "free-form",
        "options": [],
        "solution": "a thing",
        "path": path,
    }


def _check(base: Path, *sources: SourceSpec, media: MediaSpec | None = None, **kwargs: Any) -> CheckReport:
    recipe = Recipe(
        name="x",
        sources=sources,
        media=media or MediaSpec(workers=2),
        generate=GenerateSpec(backend=BackendSpec(kind="demo", model="demo-world/1")),
    )
    return asyncio.run(check_pool(recipe, base=base, **kwargs))


def test_real_clips(tmp_path: Path) -> None:
    folder = media_dir()
    if folder is None:
        pytest.skip("no shared media here")
    names = [*WHOLE, *BROKEN, "nothere.mp4", "nothere.mp4", "video1.mp4"]
    (tmp_path / "pool.json").write_text(json.dumps([_row(i, name) for i, name in enumerate(names)]))
    spec = SourceSpec(name="clips", kind="video-r1", path="pool.json", media_root=str(folder))
    seen: list[BadRow | BadFile] = []
    steps: list[tuple[str, int, int]] = []
    report = _check(
        tmp_path,
        spec,
        on_bad=lambda _, bad: seen.append(bad),
        progress=lambda name, done, total: steps.append((name, done, total)),
    )
    (source,) = report.sources
    found = {bad.path: bad.reason.value for fault in source.faults for bad in fault.examples}
    assert found == BROKEN | {"nothere.mp4": "media_missing"}
    assert (source.rows, source.rows_ok, source.files, source.files_ok) == (16, 7, 14, 6)
    assert (report.ok, source.ok) == (False, False)
    missing = next(fault for fault in source.faults if fault.reason.value == "media_missing")
    assert (missing.files, missing.rows) == (1, 2)
    assert missing.examples[0].sample_ids == ["clips/13", "clips/14"]
    assert source.videos is not None and source.videos.files == 6
    assert source.videos.bytes == sum((folder / name).stat().st_size for name in WHOLE)
    assert len(seen) == 8
    assert steps[-1] == ("clips", 14, 14) and len(steps) == 14
    again = _check(tmp_path, spec, media=MediaSpec(workers=1))
    assert again == report
    assert CheckReport.model_validate_json(report.model_dump_json()) == report


def test_pictures_limits_links_and_bad_rows(tmp_path: Path) -> None:
    root = tmp_path / "media"
    root.mkdir()
    Image.new("RGB", (64, 48)).save(root / "good.png")
    Image.new("RGB", (600, 20)).save(root / "wide.png")
    whole = (root / "good.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    secret = tmp_path / "secret.png"
    secret.write_bytes(whole)
    (root / "link.png").symlink_to(secret)
    rows: list[Any] = [
        _row(i, name, "image") for i, name in enumerate(["good.png", "wide.png", "cut.png", "link.png"])
    ]
    rows += [_row(9, "../secret.png", "image"), "junk", _row(10, "", "text")]
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    report = _check(
        tmp_path,
        SourceSpec(name="p", kind="video-r1", path="pool.json", media_root="media"),
        media=MediaSpec(workers=1, limits=MediaLimits(max_side=500)),
    )
    (source,) = report.sources
    found = {bad.path: bad.reason.value for fault in source.faults for bad in fault.examples}
    assert found["link.png"] == "unsafe_path"
    assert found["wide.png"] == "media_too_large"
    assert found["cut.png"] in ("media_truncated", "media_unreadable")
    assert source.bad_rows == {"unsafe_path": 1, "bad_row": 1}
    assert [bad.row for bad in source.bad_examples] == [4, 5]
    assert (source.rows, source.rows_ok) == (7, 2)
    assert source.images is not None and source.images.width.max == 64
    assert source.table == {"image": {"free-form": 4}, "text": {"free-form": 1}}


def test_a_pool_that_breaks_off_is_reported_and_the_next_one_checked(tmp_path: Path) -> None:
    text = json.dumps([_row(0, "", "text"), _row(1, "", "text")])
    (tmp_path / "cut.json").write_text(text[:-10])
    (tmp_path / "whole.json").write_text(text)
    names = ("cut", "whole", "none")
    specs = [SourceSpec(name=n, kind="video-r1", path=f"{n}.json") for n in names]
    report = _check(tmp_path, *specs)
    cut, whole, none = report.sources
    assert cut.error is not None and "the file ends inside this row" in cut.error and cut.rows_ok == 1
    assert whole.ok and whole.rows_ok == 2
    assert none.error is not None and "no such file" in none.error
    assert not report.ok


def test_the_demo_world_is_whole(tmp_path: Path) -> None:
    world = SourceSpec(name="demo", kind="demo", demo=DemoSpec(rows=4))
    report = _check(tmp_path, world, demo_root=tmp_path / "world")
    assert report.ok, report
    assert report.rows == 4
