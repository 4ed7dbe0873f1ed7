"""Files and frames: renamed, re-encoded and cut clips are found, others are not, and what was read is kept."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.overlap_clips import CHANGES, frames_of, read, write
from tests import shared
from tests.builders.overlap.test_overlap import asked, compared, rows_of
from videop2r_data.builders import Stop
from videop2r_data.builders.overlap import OverlapSettings, find_overlap
from videop2r_data.builders.overlap.clips import _packed, _unpacked
from videop2r_data.builders.overlap.looks import CELLS, LOOKS, Gallery, Look, distance, limit, look_of
from videop2r_data.errors import SourceError, StoppedError
from videop2r_data.media import sample_media
from videop2r_data.schemas import Overlap


def short(kind: str, seed: int, path: Path) -> Path:
    """Five seconds of a generated clip."""
    pictures = (picture for picture, _ in zip(frames_of(kind, seed), range(60), strict=False))
    return write(path, pictures)


def change(name: str, clip: Path, to: Path, seed: int = 0) -> Path:
    made = next(one for one in CHANGES if one.name == name)
    made.make(*read(clip), to, np.random.default_rng(seed))
    return to


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders: `pool` with clips a, b, c; `bench` with a renamed, b re-encoded, c cut, and a new one."""
    root = tmp_path_factory.mktemp("clips")
    for folder in ("pool", "bench"):
        (root / folder).mkdir()
    for seed, (name, kind) in enumerate((("a", "film"), ("b", "wall"), ("c", "film"))):
        short(kind, seed, root / "pool" / f"{name}.mp4")
    shutil.copy(root / "pool" / "a.mp4", root / "bench" / "one.mp4")
    change("half the size", root / "pool" / "b.mp4", root / "bench" / "two.mp4")
    change("trimmed to 50 %", root / "pool" / "c.mp4", root / "bench" / "three.mp4")
    short("film", 9, root / "bench" / "four.mp4")
    (root / "bench" / "broken.mp4").write_bytes(b"no clip")
    pool = [asked(n, f"What is thing {n}?", f"{name}.mp4") for n, name in enumerate("abc")]
    bench = [
        asked(n, f"What is thing {n}?", f"{name}.mp4")
        for n, name in enumerate(("one", "two", "three", "four", "broken", "missing"))
    ]
    for folder, rows in (("pool", pool), ("bench", bench)):
        (root / folder / f"{folder}.json").write_text(json.dumps(rows))
    return root


def found_in(clips: Path, tmp_path: Path, **more: Any) -> Overlap:
    return compared(tmp_path, str(clips / "pool" / "pool.json"), str(clips / "bench" / "bench.json"), **more)


def test_files_and_frames_with_what_cannot_be_read(clips: Path, tmp_path: Path) -> None:
    report = found_in(clips, tmp_path, frames=True, workers=1)
    counts = {s: (c.found, c.known, c.rows) for s, c in report.benches[0].bench.items()}
    assert counts["identity"] == (0, 0, 6)
    assert counts["file"] == (1, 5, 6)
    assert counts["frames"] == (3, 4, 6)
    assert counts["both"] == (3, 5, 6)
    pairs = {("pool/0", "bench/0"), ("pool/1", "bench/1"), ("pool/2", "bench/2")}
    assert {(a, b) for signal, a, b in rows_of(tmp_path) if signal == "frames"} == pairs
    assert report.looked == ("identity", "file", "frames", "text", "both")


def test_without_frames_only_files_of_one_size_are_read(clips: Path, tmp_path: Path) -> None:
    report = found_in(clips, tmp_path)
    assert report.benches[0].bench["file"].found == 1
    assert "frames" not in report.benches[0].bench
    assert report.looked == ("identity", "file", "text", "both")


def test_media_folders_may_be_named(clips: Path, tmp_path: Path) -> None:
    # clips are looked for beside the folder of the rows too, where other tests keep theirs
    rows = tmp_path / "apart" / "rows"
    rows.mkdir(parents=True)
    for folder in ("pool", "bench"):
        shutil.copy(clips / folder / f"{folder}.json", rows)
    said = str(rows / "pool.json"), str(rows / "bench.json")
    assert compared(tmp_path, *said).looked == ("identity", "text", "both")
    media = {"pool": clips / "pool", "": clips / "bench"}
    assert compared(tmp_path, *said, media=media).benches[0].bench["file"].found == 1


def test_a_second_run_reads_no_clip_again(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = found_in(clips, tmp_path, frames=True, workers=1)

    async def refused(*_: object) -> None:
        raise AssertionError("a clip was decoded again")

    monkeypatch.setattr("videop2r_data.media.pool.DecodePool.sample", refused)
    assert found_in(clips, tmp_path, frames=True, workers=1) == first
    os.utime(clips / "bench" / "two.mp4")
    with pytest.raises(AssertionError):
        found_in(clips, tmp_path, frames=True, workers=1)


def test_a_stopped_run_keeps_what_it_read(clips: Path, tmp_path: Path) -> None:
    stop, seen, counts = Stop(), [], []

    def progress(what: str, done: int, total: int | None) -> None:
        if what.startswith("reading the clips of pool") and done == 2:
            stop.ask()
        if what.startswith("reading the clips"):
            seen.append(what)
            counts.append((done, total))

    given = [str(clips / side / f"{side}.json") for side in ("pool", "bench")]
    settings = OverlapSettings(given[0], given[1:], tmp_path / "out", frames=True, workers=1)
    with pytest.raises(StoppedError):
        asyncio.run(find_overlap(settings, progress=progress, stop=stop))
    assert len(seen) == 2
    stop = Stop()
    asyncio.run(find_overlap(settings, progress=progress, stop=Stop()))
    assert len(seen) == 2 + 1 + 5  # one clip of the pool, five files of the set
    assert counts[2:4] == [(3, 3), (1, 5)]  # what was read before is counted


def test_a_pool_of_damaged_clips_is_unknown_and_no_new_one(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no clip")
    pool = tmp_path / "damaged.json"
    pool.write_text(json.dumps([asked(1, "What is it?", "x.mp4")]))
    with pytest.raises(SourceError, match="no frames of damaged could be compared"):
        compared(tmp_path, str(pool), str(clips / "bench" / "bench.json"), frames=True, workers=1)
    report = Overlap.model_validate_json((tmp_path / "out" / "overlap.json").read_bytes())
    (bench,) = report.benches
    assert bench.bench["frames"].known == bench.pool["frames"].known == 0
    assert (bench.bench["file"].known, bench.pool["file"].known) == (5, 1)


def test_real_clips_and_a_real_cut_of_one() -> None:
    folder = shared.media_dir()
    if folder is None:
        pytest.skip("no real clips on this machine")
    names = ["video1.mp4", "sample_demo_3.mp4", "flipping_a_pancake.mkv", "editlist_trim.mp4"]
    looks = [look_at(folder / name) for name in names]
    gallery = Gallery(looks[:3].__getitem__, 3)
    (copy,) = gallery.copies(looks[3])
    assert copy[0] == 0 and copy[2] == pytest.approx(5.0, abs=0.3)  # cut from second 5 on
    assert [number for number, *_ in gallery.copies(looks[1])] == [1]


def look_at(path: Path) -> Look:
    look = look_of(sample_media(path, "video", LOOKS, want="array"))
    assert look is not None
    return look


# The distance of looks, by hand and by its properties.


def look(levels: list[int], step: float = 1.0) -> Look:
    """A clip whose frames are of one level each: the distance of two frames is that of their levels."""
    cells = np.repeat(np.array(levels, np.uint8)[:, None], CELLS, axis=1)
    return Look(np.arange(len(levels), dtype=np.float32) * step, cells)


def test_distance_by_hand() -> None:
    long = look([10, 20, 60, 90, 130, 170])
    assert distance(long, look([60, 90, 130, 170])) == (0.0, 2.0)
    assert distance(look([60, 90, 130, 170]), long) == (0.0, -2.0)
    # between the frames of the long one: 75, 110, 150 at 2.5, 3.5, 4.5
    assert distance(long, look([75, 110, 150, 170])) == (0.0, 2.5)
    assert distance(long, look([63, 93, 133, 173])) == (3.0, 2.0)


def test_before_one_camera_the_nearest_must_be_much_nearer() -> None:
    others = [look([100 + n] * 8) for n in range(20)]
    gallery = Gallery(others.__getitem__, len(others))
    assert [number for number, *_ in gallery.copies(look([100] * 8))] == [0, 1, 2, 3]  # the tenth is at 9
    far = Gallery(lambda n: look([100 + 3 * n] * 8), 5)
    assert [number for number, *_ in far.copies(look([100] * 8))] == [0, 1, 2, 3]  # no crowd: 10 at most


def test_what_changes_fast_may_lie_further_apart() -> None:
    still, moving = look([100] * 8), look([100, 120] * 4)
    assert (limit(still, still), limit(moving, still)) == (10.0, 10.0 + 0.75 * 20)
    assert limit(look([0, 255] * 4), still) == 40.0
    assert limit(look([7]), look([7])) == 10.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_look_comes_back_from_the_journal(seed: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    made = Look(
        np.round(np.arange(frames) / 3, 3).astype(np.float32),
        rng.integers(0, 256, (frames, CELLS), dtype=np.uint8),
    )
    again = _unpacked(json.loads(json.dumps(_packed(made))))
    assert np.array_equal(again.cells, made.cells) and np.array_equal(again.times, made.times)


@pytest.mark.parametrize(
    "name", ["re-encoded, crf 35", "MPEG-4, 200 kbit/s", "half the frame rate", "trimmed to 80 %"]
)
def test_copies_of_each_kind(name: str, clips: Path, tmp_path: Path) -> None:
    looks = [look_at(clips / "pool" / f"{one}.mp4") for one in "abc"]
    copy = change(name, clips / "pool" / "a.mp4", tmp_path / "copy.mp4")
    assert [number for number, *_ in Gallery(looks.__getitem__, 3).copies(look_at(copy))] == [0]


def test_a_clip_that_shows_nothing_is_like_no_other(tmp_path: Path) -> None:
    grey = write(tmp_path / "grey.mp4", (np.full((64, 64, 3), 120, np.uint8) for _ in range(24)))
    assert look_of(sample_media(grey, "video", LOOKS, want="array")) is None
