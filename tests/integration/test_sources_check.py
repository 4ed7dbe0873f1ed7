"""`check` over real clips, whole and broken, through real decoder processes."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.shared import media_dir
from videop2r_data.builders.checks.report import (
    CheckReport,
    DoctorReport,
    FileLine,
    Finding,
    ServerLook,
    TrialCall,
)
from videop2r_data.builders.checks.run import SourceTally, check_folder, check_pool, check_recipe
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cli.check import render_doctor, render_findings
from videop2r_data.cli.main import app
from videop2r_data.cli.terminal import SafeConsole
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.media import MediaLimits, MediaSpec
from videop2r_data.schemas.recipe import DemoSpec, GenerateSpec, Recipe, SourceSpec

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
    seen: list[FileLine] = []
    steps: list[tuple[str, int, int]] = []
    report = _check(
        tmp_path,
        spec,
        on_file=seen.append,
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
    assert len(seen) == 14 and sum(not line.ok for line in seen) == 8
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


def test_a_folder_is_looked_at_without_a_recipe(tmp_path: Path) -> None:
    folder = media_dir()
    if folder is None:
        pytest.skip("no shared media here")
    report = asyncio.run(check_folder(folder))
    (source,) = report.sources
    bad = {found.path: found.reason.value for fault in source.faults for found in fault.examples}
    assert BROKEN.items() <= bad.items() and not set(WHOLE) & set(bad)
    assert source.kind == "folder" and source.left_out == 1 and not report.ok
    assert source.videos is not None and sum(source.times.values()) == source.videos.files
    assert set(source.times) <= {"exact", "repaired", "assumed"} and source.times["exact"] > 20
    assert source.files == len([p for p in folder.iterdir() if p.name != "README.md"])
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.mp4").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    empty = asyncio.run(check_folder(tmp_path))
    assert not empty.ok and (empty.sources[0].error or "").startswith("no clip and no image in it")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "deep" / "er" / "A.PNG")
    found = asyncio.run(check_folder(tmp_path))
    assert found.ok and found.files_ok == 1 and found.sources[0].left_out == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_every_file_and_every_bad_row_is_told_in_the_order_of_the_pool(workers: int, tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(30)]
    rows: list[Any] = [_row(i, name, "image") for i, name in enumerate(names)]
    rows += ["junk", _row(77, "3.png", "image"), _row(78, "", "text")]
    for i in range(30):
        Image.new("RGB", (64 + 400 * (i % 3), 48)).save(tmp_path / names[i])
    (tmp_path / "7.png").write_bytes(b"")
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    lines: list[FileLine] = []
    _check(
        tmp_path,
        SourceSpec(name="p", kind="video-r1", path="pool.json", media_root="."),
        media=MediaSpec(workers=workers),
        on_file=lines.append,
    )
    assert [line.what for line in lines] == ["row"] + ["file"] * 30
    assert (lines[0].row, lines[0].ok, lines[0].reason) == (30, False, "bad_row")
    files = lines[1:]
    assert [line.path for line in files] == names
    assert [line.path for line in files if not line.ok] == ["7.png"] and files[7].reason == "media_empty"
    assert files[3].sample_ids == ["p/3", "p/77"] and files[3].rows == 2
    assert files[4].probe is not None and files[4].probe.width == 464


def test_a_pool_without_a_row_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pool.json").write_text("[]")
    report = _check(tmp_path, SourceSpec(name="p", kind="video-r1", path="pool.json"))
    assert not report.ok and report.sources[0].error is not None


@pytest.mark.parametrize("error", ["source 'p', a.csv: no such file\nset `path`", "a.csv: the file is empty"])
def test_the_doctor_names_a_source_once(error: str) -> None:
    tally = SourceTally("p", "dataset")
    tally.error = error
    assert tally.finding().message.count("source") == 1


def test_a_missing_decoder_hides_no_other_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "pool.json").write_text(json.dumps([_row(0, "a.png", "image"), _row(1, "b.png", "image")]))
    monkeypatch.setitem(sys.modules, "decord", None)  # what an environment without it looks like
    recipe = Recipe(
        name="x",
        sources=(SourceSpec(name="p", kind="video-r1", path="pool.json", media_root="."),),
        media=MediaSpec(workers=1, decoder="decord"),
        generate=GenerateSpec(backend=BackendSpec(kind="vllm", model="./nowhere")),
    )
    report = asyncio.run(check_recipe(recipe, Workspace.at(tmp_path / "set", base=tmp_path)))
    assert (report.files, report.files_ok) == (2, 1)
    errors = {finding.about: finding for finding in report.setup if finding.state == "error"}
    assert set(errors) == {"decoder"} and "[decord]" in errors["decoder"].hint
    (server,) = report.servers
    told = {finding.about: finding for finding in server.findings}
    assert "no such folder" in told["model"].message
    if importlib.util.find_spec("vllm") is None:
        assert '[vllm]"' in told["library"].hint


def test_the_text_shows_warnings_and_several_examples_of_a_reason(tmp_path: Path) -> None:
    for i in range(7):
        (tmp_path / f"bad{i}.png").write_bytes(b"")
        frames = [Image.new("RGB", (40, 40), (i, j, 0)) for j in range(3)]
        frames[0].save(tmp_path / f"moving{i}.gif", save_all=True, append_images=frames[1:])
    lines = tmp_path / "lines.jsonl"
    result = CliRunner().invoke(app, ["check", str(tmp_path), "--report", str(lines)])
    assert result.exit_code == 1, result.output
    text = result.stdout
    assert "media_empty: 7 files" in text and text.count("the file has 0 bytes") == 5
    assert "warnings: 7 usable files" in text and text.count("and 2 more") == 2
    assert "7 files: animated: only the first of N frames is used" in text
    assert "moving4.gif: animated: only the first of 3 frames is used" in text
    assert len(lines.read_text().splitlines()) == 14
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 80
    found = json.loads(CliRunner().invoke(app, ["check", str(tmp_path), "--json"]).stdout)
    assert found["sources"][0]["warning_kinds"] == {"animated: only the first of N frames is used": 7}


def test_what_files_and_servers_say_does_not_reach_the_terminal_as_orders() -> None:
    console = SafeConsole(width=80, record=True, file=io.StringIO())
    nasty = "a\x1b[31m\x9b1m\u202eb"
    render_findings([Finding(about="call", state="error", message=nasty, hint=nasty)], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a␛[31m" in text and not {"\x1b", "\x9b", "\u202e"} & set(text)


def test_the_table_of_a_doctor_is_never_cut() -> None:
    call = TrialCall(
        data_type="video",
        sample_id="p/1",
        frames=2048,
        input_tokens=1_234_567,
        output_tokens=123_456,
        seconds=1234.5,
        usd=1234.5678,
        finish="stop",
        reply="word " * 60,
    )
    look = ServerLook(
        step="generate",
        kind="openai",
        model="m",
        address="",
        context=1_000_000,
        needed=1_300_000,
        calls=[call],
    )
    console = Console(width=80, record=True, file=io.StringIO())
    render_doctor(DoctorReport(ok=True, setup=[], servers=[look], calls_usd=0), console)
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert all(
        part in text for part in ("1,234,567", "123,456", "1,300,000", "1,000,000", "1234.5", "1234.5678")
    )
