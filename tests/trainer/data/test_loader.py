"""Decoding ahead: order, bad clips, bounds, errors, the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shared import media_dir
from tests.trainer.data.parts import SMALL, example, frames, stream_spec
from videop2r_data.demo import write_world
from videop2r_data.errors import ConfigError, MediaError
from videop2r_data.media import sample_media
from videop2r_data.media.sampling import MediaKind
from videop2r_data.schemas import WHOLE, Focus
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.trainer.data.examples import DemoStream, Example
from videop2r_data.trainer.data.loader import MediaLoader
from videop2r_data.trainer.data.order import Order


class Fake:
    """Decodes nothing: names decide what happens."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.asked: list[str] = []
        self.closed = 0
        self.delay_s = delay_s

    async def sample(self, path: Path, data_type: MediaKind, focus: Focus = WHOLE) -> Frames:
        self.asked.append(path.name)
        # the first ones take the longest
        await asyncio.sleep(self.delay_s / len(self.asked))
        if path.name.startswith("bad"):
            raise MediaError("cut short", reason="media_truncated", where=path.name)
        if path.name.startswith("crash"):
            raise ConfigError("no decoder process can be started")
        return frames(data_type, 2, seed=sum(map(ord, path.name)))

    async def close(self) -> None:
        self.closed += 1


def clips(*names: str) -> list[Example]:
    return [example("video", name, path=Path("/media") / name) for name in names]


def load(batches: Any, pool: Fake, **more: Any) -> MediaLoader:
    return MediaLoader(batches, SMALL, pool=pool, **more)


def problems(loader: MediaLoader) -> list[list[str]]:
    return [[e.problem for e in batch.examples] for batch in loader]


def test_batches_come_in_order_whatever_is_decoded_first() -> None:
    pool = Fake(delay_s=0.05)
    planned = [clips("a", "b"), clips("c"), clips("d", "e", "f")]
    with load(planned, pool, ahead=3) as loader:
        assert problems(loader) == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert pool.closed == 1


def test_a_broken_clip_in_the_middle_costs_its_example_only() -> None:
    planned = [[*clips("a", "bad1", "b"), example(problem="words")], clips("bad2"), clips("c")]
    with load(planned, Fake()) as loader:
        first, second, third = loader
    assert [e.problem for e in first.examples] == ["a", "b", "words"] and first.kept == (0, 2, 3)
    assert first.frames[2] is None and first.frames[0] is not None
    assert [(s.sample_id, s.reason) for s in first.skipped] == [("t/bad1", "media_truncated")]
    assert "cut short" in first.skipped[0].detail
    assert (second.examples, second.frames, second.kept, len(second.skipped)) == ((), (), (), 1)
    assert [e.problem for e in third.examples] == ["c"]


def test_one_file_is_decoded_once_in_a_batch() -> None:
    pool = Fake()
    with load([clips("a", "b", "a", "a"), clips("a")], pool) as loader:
        first, _ = loader
    assert sorted(pool.asked) == ["a", "a", "b"]
    assert first.frames[0] is first.frames[2] is first.frames[3]


def test_no_more_than_ahead_is_held() -> None:
    taken: list[int] = []

    def planned() -> Iterator[Sequence[Example]]:
        for number in range(20):
            taken.append(number)
            yield clips(str(number))

    with load(planned(), Fake(), ahead=3) as loader:
        next(loader)
        deadline = time.monotonic() + 5
        while len(taken) < 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert len(taken) <= 5  # one with the consumer, three held, one that waits for room
        assert next(loader).examples[0].problem == "1"


def test_an_error_comes_in_its_place_and_ends_the_loader() -> None:
    with load([clips("a"), clips("b", "crash"), clips("c")], Fake()) as loader:
        assert next(loader).examples[0].problem == "a"
        with pytest.raises(ConfigError, match="no decoder process"):
            next(loader)
        assert list(loader) == []


def test_an_error_of_the_plan_comes_behind_the_batches_before_it() -> None:
    def planned() -> Iterator[Sequence[Example]]:
        yield clips("a")
        raise ZeroDivisionError("plan")

    with load(planned(), Fake()) as loader:
        assert next(loader).examples[0].problem == "a"
        with pytest.raises(ZeroDivisionError, match="plan"):
            next(loader)


def test_closing_early_leaves_nothing_behind() -> None:
    pool = Fake(delay_s=60.0)
    others = set(threading.enumerate())  # a failure of another test may hold its loader
    loader = load(iter(clips(str(i)) for i in range(10**9)), pool)
    asker = threading.Thread(target=lambda: list(loader))
    asker.start()
    deadline = time.monotonic() + 5
    while not pool.asked and time.monotonic() < deadline:
        time.sleep(0.005)
    loader.close()
    loader.close()
    asker.join(5)
    assert not asker.is_alive() and pool.closed == 1
    assert not any(t.name == "media-loader" for t in set(threading.enumerate()) - others)
    load([], pool).close()  # never started: nothing to end


def test_an_example_without_anything_to_see_is_skipped() -> None:
    with load([[example("video")]], Fake()) as loader:
        (batch,) = loader
    assert batch.skipped[0].reason == "media_missing"


def test_the_stream_is_drawn_and_a_resumed_run_sees_the_same() -> None:
    stream = DemoStream(stream_spec())
    order = Order.of(stream.spec, stream, batch=4, seed=0)

    def run(start: int, stop: int) -> list[Any]:
        planned = ([stream[i] for i in order.batch(step)] for step in range(start, stop))
        with MediaLoader(planned, SMALL) as loader:
            return [(b.examples, [f and f.record for f in b.frames]) for b in loader]

    whole = run(0, 6)
    assert [len(examples) for examples, _ in whole] == [4] * 6
    assert run(0, 3) + run(3, 6) == whole


def test_real_files_of_a_demo_world(tmp_path: Path) -> None:
    spec = DemoSpec(rows=6, side=64, frames=6, mediums=("video", "image"), questions=1, numbered=True)
    media = MediaSpec(frames=4, factor=8, min_pixels=64, max_pixels=64 * 64)
    root = write_world(tmp_path, spec) / "media"
    files = sorted(p for p in (root / "demo").iterdir())
    asked = [example("video" if p.suffix == ".mp4" else "image", p.name, path=p) for p in files]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(next(p for p in files if p.suffix == ".mp4").read_bytes()[:300])
    planned = [[asked[0], example("video", "broken", path=broken), *asked[1:]]]
    with MediaLoader(planned, media, workers=1) as loader:
        (batch,) = loader
    assert [e.problem for e in batch.examples] == [p.name for p in files]
    assert batch.skipped[0].reason in ("media_truncated", "media_unreadable")
    for one, seen in zip(batch.examples, batch.frames, strict=True):
        assert seen is not None and one.path is not None
        alone = sample_media(one.path, "video" if one.data_type == "video" else "image", media, want="array")
        assert seen.record == alone.record
        np.testing.assert_array_equal(seen.array, alone.array)


@pytest.mark.integration
@pytest.mark.skipif(media_dir() is None, reason="no real clips here")
def test_real_clips_whole_and_broken_reach_the_model(tmp_path: Path) -> None:
    from tests.trainer.data.parts import collator, plain_processor

    root = media_dir()
    assert root is not None
    names = [
        "video1.mp4",
        "broken_trunc_nomoov.mp4",
        "count-video.mp4",
        "not_a_video.mp4",
        "empty.mp4",
        "gone.mp4",
    ]
    names += ["editlist_trim.mp4", "video_rotation_90.mp4", "one_pixel_1x1.mp4", "newtonscradle.gif"]
    media = MediaSpec(frames=5, max_pixels=16 * 28 * 28)
    with MediaLoader([[example("video", n, path=root / n) for n in names]], media, workers=2) as loader:
        (loaded,) = loader
    lost = {s.sample_id.removeprefix("t/"): s.reason for s in loaded.skipped}
    assert {"broken_trunc_nomoov.mp4", "not_a_video.mp4", "empty.mp4", "gone.mp4"} <= set(lost)
    assert lost["gone.mp4"] == "media_missing" and lost["empty.mp4"] == "media_empty"
    batch = collator(plain_processor(), media)(loaded.examples, loaded.frames)
    assert len(batch) == len(loaded.examples) >= 5 and batch.skipped == ()
    for row, seen in zip(batch.types, loaded.frames, strict=True):
        assert seen is not None
        record = seen.record
        assert row.count(2) == -(-record.count // 2) * record.height * record.width // 28**2
        assert record.height * record.width <= media.max_pixels
