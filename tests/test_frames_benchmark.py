from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks._frames_methods import METHODS
from benchmarks.frames import compared, wanted_size
from benchmarks.throughput import write_noisy_clip

ROOT = Path(__file__).parent.parent


def test_clips_that_a_method_cannot_read_are_left_out_of_both_sums() -> None:
    floor = {"a.mp4": 0.1, "b.mp4": 5.0, "c.mp4": 0.3}
    made = {"times": {"a.mp4": 0.2, "b.mp4": None, "c.mp4": 0.6}, "peak_mb": 90.04}
    assert compared(made, floor) == {
        "cpu_ms": 400.0,
        "of_floor": 2.0,
        "faster": 0.5,
        "peak_mb": 90.0,
        "not_read": ["b.mp4"],
    }


def test_a_method_that_reads_nothing_has_no_time() -> None:
    row = compared({"times": {"a.mp4": None}, "peak_mb": 90.0}, {"a.mp4": 0.1})
    assert (row["cpu_ms"], row["of_floor"], row["faster"]) == (None, None, None)
    assert row["not_read"] == ["a.mp4"]


def test_methods_are_measured_and_those_that_fail_are_told(tmp_path: Path) -> None:
    """This Python has decord, but neither torchcodec nor qwen-vl-utils."""
    write_noisy_clip(tmp_path / "video1.mp4", 1)
    assert wanted_size(tmp_path / "video1.mp4") == (240 // 28 * 28 + 28, 320 // 28 * 28)
    record = tmp_path / "run.json"
    words = ["--media", str(tmp_path), "--long-seconds", "4", "--repeat", "1", "--readers", sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.frames", *words, "--json", str(record)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for missing in ("torchcodec", "torchcodec_approximate", "qwen"):
        assert f"{missing} is left out, because it failed" in done.stderr
    made = json.loads(record.read_text())
    assert (made["benchmark"], made["versions"]["decord"]) == ("frames", "0.6.0")
    methods = made["figures"]["short"]["methods"]
    here = ("convert", "ours", "ours_jpeg", "decord")
    assert list(methods) == ["floor", *(f"{name}_{count}" for name in here for count in (16, 32))]
    assert methods["floor"]["of_floor"] == 1
    assert all(row["cpu_ms"] > 0 and row["not_read"] == [] for row in methods.values())
    assert methods["ours_32"]["label"] == METHODS["ours"].label
    long = made["figures"]["long"]
    assert (long["clips"], long["frames"], long["source"]) == (1, 144, "video1.mp4")
