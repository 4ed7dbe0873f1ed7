"""Worlds on disk: the same bytes, whole or not there, and media that show the scene."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from videop2r_data.demo import iter_scenes, read_world, render_frames, write_world
from videop2r_data.demo.imagine import media_bytes
from videop2r_data.demo.scene import Scene, stream
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.schemas.base import digest_bytes
from videop2r_data.schemas.recipe import DemoSpec

VIDEO_R1 = [
    "problem_id",
    "problem",
    "data_type",
    "problem_type",
    "options",
    "solution",
    "path",
    "data_source",
]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def decoded(data: bytes) -> NDArray[np.uint8]:
    """Every frame of a clip, turned as its display matrix says."""
    frames = []
    with av.open(io.BytesIO(data), "r") as container:
        for frame in container.decode(video=0):
            frames.append(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
    return np.stack(frames)


def test_same_spec_same_bytes_and_other_seed_other_bytes(tmp_path: Path) -> None:
    spec = DemoSpec(rows=36, frames=8)
    one = contents(write_world(tmp_path / "one", spec))
    assert one == contents(write_world(tmp_path / "two", spec))
    assert (
        one["pool.json"]
        != contents(write_world(tmp_path / "three", spec.model_copy(update={"seed": 1})))["pool.json"]
    )


def test_pool_is_one_array_in_the_layout_of_video_r1(tmp_path: Path) -> None:
    folder = write_world(tmp_path, DemoSpec(rows=40, frames=6))
    rows: list[dict[str, Any]] = orjson.loads((folder / "pool.json").read_bytes())
    samples = list(read_world(folder))
    assert len(rows) == len(samples) == 40
    for row, sample in zip(rows, samples, strict=True):
        assert list(row) == VIDEO_R1
        assert row["solution"] == f"<answer>{sample.question.answer}</answer>"
        assert sample.sample("x").reference == sample.question.answer
        if row["data_type"] == "text":
            assert row["path"] == sample.media_sha256 == ""
        else:
            assert row["path"].startswith("./demo/")
            data = (folder / "media" / row["path"]).read_bytes()
            assert digest_bytes(data) == sample.media_sha256


def test_a_smaller_world_is_the_start_of_a_larger_one(tmp_path: Path) -> None:
    small = contents(write_world(tmp_path / "small", DemoSpec(rows=20, frames=6)))
    large = contents(write_world(tmp_path / "large", DemoSpec(rows=45, frames=6)))
    assert large["scenes.jsonl"].startswith(small["scenes.jsonl"])
    assert all(large[name] == data for name, data in small.items() if name.startswith("media/"))


def test_an_equal_world_is_left_and_a_damaged_one_is_finished(tmp_path: Path) -> None:
    spec = DemoSpec(rows=20, frames=6)
    whole = contents(write_world(tmp_path, spec))
    calls: list[tuple[int, int]] = []
    write_world(tmp_path, spec, progress=lambda done, of: calls.append((done, of)))
    assert calls == []

    clip = next(iter((tmp_path / "media" / "demo").iterdir()))
    clip.unlink()
    (tmp_path / "media" / "demo" / "stranger.mp4.7.part").write_bytes(b"half")
    write_world(tmp_path, spec, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(n, 20) for n in range(1, 21)]
    assert contents(tmp_path) == whole

    (tmp_path / "pool.json").write_bytes(b"[")
    assert contents(write_world(tmp_path, spec)) == whole


class PowerCutError(Exception):
    pass


def test_an_interrupted_write_is_no_world_and_goes_on(tmp_path: Path) -> None:
    spec = DemoSpec(rows=24, frames=6)

    def cut(done: int, _: int) -> None:
        if done == 10:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        write_world(tmp_path / "cut", spec, progress=cut)
    with pytest.raises(SourceError, match="no finished demo world"):
        list(read_world(tmp_path / "cut"))
    assert contents(write_world(tmp_path / "cut", spec)) == contents(write_world(tmp_path / "whole", spec))


def test_another_world_in_the_same_folder_replaces_the_first(tmp_path: Path) -> None:
    write_world(tmp_path / "a", DemoSpec(rows=40, frames=6))
    smaller = DemoSpec(rows=12, frames=6, seed=5)
    assert contents(write_world(tmp_path / "a", smaller)) == contents(write_world(tmp_path / "b", smaller))


def scenes(medium: str, n: int, **settings: object) -> list[Scene]:
    spec = DemoSpec.model_validate({"mediums": (medium,), "questions": 1, **settings})
    return [s.scene for s, _ in zip(iter_scenes(spec), range(n), strict=False)]


@pytest.mark.parametrize("side", [64, 112])
def test_clips_decode_to_the_drawn_scene(side: int) -> None:
    turns = set()
    for scene in scenes("video", 24, side=side, frames=10):
        drawn, seen = render_frames(scene), decoded(media_bytes(scene))
        assert seen.shape == drawn.shape
        error = np.abs(seen.astype(int) - drawn.astype(int))
        assert error.mean() < 6.0, scene.label
        plain = (drawn == np.array(scene.background, np.uint8)).all(-1)
        assert np.median(error[plain]) <= 2, scene.label
        for found in scene.objects:  # 4:2:0 blurs edges: look at the middle of the larger shapes
            for frame in range(found.appear, found.vanish):
                x, y = found.centre(frame)
                if found.shape in ("square", "circle") and found.half > 6:
                    assert error[frame, y, x].max() < 40, (scene.label, found)
        turns.add(scene.turn)
    assert turns == {0, 1, 2, 3}


def test_an_exact_world_keeps_every_pixel_and_the_scenes_of_the_other() -> None:
    kept = scenes("video", 12, side=24, frames=4, exact=True)
    for scene, other in zip(kept, scenes("video", 12, side=24, frames=4), strict=True):
        assert scene.model_copy(update={"exact": False}) == other
        assert (decoded(media_bytes(scene)) == render_frames(scene)).all()
        assert not (decoded(media_bytes(other)) == render_frames(other)).all()


def test_a_clip_has_the_same_bytes_whatever_was_encoded_before() -> None:
    clips = scenes("video", 40)
    first = [media_bytes(scene) for scene in clips]
    for seed in range(3):
        order = list(range(len(clips)))
        stream("order", seed).shuffle(order)
        assert all(media_bytes(clips[i]) == first[i] for i in order)


def test_clips_have_the_frame_rate_and_times_of_the_scene() -> None:
    (scene,) = scenes("video", 1, fps=5, frames=9)
    with av.open(io.BytesIO(media_bytes(scene)), "r") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 5
        times = [float(f.time or 0) for f in container.decode(video=0)]
    assert len(times) == 9
    assert all(abs((b - a) - 0.2) < 1e-6 for a, b in pairwise(times))


def test_images_are_exact_after_their_exif_orientation() -> None:
    turns = set()
    for scene in scenes("image", 24):
        image = Image.open(io.BytesIO(media_bytes(scene)))
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert (upright == render_frames(scene)[0]).all(), scene
        turns.add(scene.turn)
    assert turns == {0, 1, 2, 3}


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="even side"):
        write_world(tmp_path, DemoSpec(rows=12, side=31, frames=4, mediums=("video",)))
