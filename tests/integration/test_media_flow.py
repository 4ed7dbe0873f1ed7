"""Media through a build: each file is decoded once, and a call goes out as soon as its frames are there."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes.openai_server import Call, default_answer
from tests.integration.test_build import question, recipe, run, without_url, write_pool
from tests.media.clips import write_clip
from videop2r_data.builders.frames import FrameStore
from videop2r_data.builders.verify import verify_release
from videop2r_data.errors import MediaError
from videop2r_data.media import DecodePool
from videop2r_data.schemas import RejectReason
from videop2r_data.schemas.calls import Frames

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def images(folder: Path, count: int, *, each: int = 1) -> None:
    """`count` pictures of different pixels and `each` questions about every one of them."""
    for i in range(count):
        Image.new("RGB", (56, 56), (i % 256, i // 256, 7)).save(folder / f"{i}.jpg", quality=90)
    rows = [
        question(i * each + k, data_type="image", path=f"./{i}.jpg")
        for i in range(count)
        for k in range(each)
    ]
    write_pool(folder, rows)


@pytest.fixture(autouse=True)
def two_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are decoded beside each other."""
    monkeypatch.setattr("videop2r_data.media.pool._cores", lambda: 2)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of every file that a decoder is asked for."""
    seen: list[str] = []
    real = DecodePool.sample

    async def counted(self: DecodePool, path: Path, data_type: Any, *more: Any) -> Frames:
        seen.append(path.name)
        return await real(self, path, data_type, *more)

    monkeypatch.setattr(DecodePool, "sample", counted)
    return seen


def plain(concurrency: int, **changes: Any) -> Any:
    return lambda server: recipe(server, concurrency=concurrency, **changes)


@pytest.mark.parametrize("concurrency", [4, 64, 256])
def test_600_images_are_decoded_once_each(tmp_path: Path, decodes: list[str], concurrency: int) -> None:
    images(tmp_path, 600)
    report, server = run(tmp_path, plain(concurrency))
    assert report.state == "complete" and report.seen == 600 and not report.unanswered
    assert len(decodes) == len(set(decodes)) == report.media_decoded == 600
    assert server.stats()["repeats"] == 0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 clips, encoded once."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(120):
        write_clip(folder / f"{i}.mp4", frames=2 + i % 40, size=(64, 64))
    return folder


@pytest.mark.parametrize("concurrency", [4, 64, 256])
def test_120_clips_are_decoded_once_each(
    clips: Path, tmp_path: Path, decodes: list[str], concurrency: int
) -> None:
    shutil.copytree(clips, tmp_path, dirs_exist_ok=True)
    write_pool(tmp_path, [question(i, data_type="video", path=f"./{i}.mp4") for i in range(120)])
    report, _ = run(tmp_path, plain(concurrency, media={"frames": 4}))
    assert report.state == "complete" and not report.unanswered
    assert len(decodes) == len(set(decodes)) == report.media_decoded == 120


def always_no(call: Call) -> str:
    return "<judgement>No</judgement>" if b"<judgement>" in call.raw else default_answer(call)


@pytest.mark.parametrize("buffer_mb", [1, 1024])
def test_more_tries_and_more_questions_do_not_decode_a_file_again(
    tmp_path: Path, decodes: list[str], monkeypatch: pytest.MonkeyPatch, buffer_mb: int
) -> None:
    images(tmp_path, 50, each=3)
    peak = 0
    real = FrameStore._fits

    def watched(self: FrameStore, size: int) -> bool:
        nonlocal peak
        peak = max(peak, self.used)
        return real(self, size)

    monkeypatch.setattr(FrameStore, "_fits", watched)
    changes = {"generate__attempts": 3, "media": {"buffer_mb": buffer_mb, "image_max_pixels": 640 * 640}}
    report, server = run(tmp_path, plain(64, **changes), answer=always_no)
    assert report.state == "complete" and report.calls_made == server.requests
    assert sorted(decodes) == sorted(f"{i}.jpg" for i in range(50))
    assert peak <= buffer_mb * 2**20


def test_a_resumed_build_decodes_only_for_what_is_missing(tmp_path: Path, decodes: list[str]) -> None:
    images(tmp_path, 40)
    run(tmp_path, plain(8), out="one")
    assert len(decodes) == 40
    run(tmp_path, plain(64), out="one")
    assert len(decodes) == 40, "all answers are in the journal"
    report, _ = run(tmp_path, plain(64, generate__temperature=0.5), out="one")
    assert len(decodes) == 80 and report.media_decoded == 40


def test_the_first_call_goes_out_as_soon_as_the_first_frames_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second file is decoded until the first call has come: a build that decodes ahead of it stands still."""
    images(tmp_path, 200)
    came = asyncio.Event()
    real = DecodePool.sample
    begun = 0

    async def held_up(self: DecodePool, path: Path, data_type: Any, *more: Any) -> Frames:
        nonlocal begun
        begun += 1
        if begun > 1:
            await came.wait()
        return await real(self, path, data_type, *more)

    def answer(call: Call) -> str:
        came.set()
        return default_answer(call)

    monkeypatch.setattr(DecodePool, "sample", held_up)
    report, _ = run(tmp_path, plain(64), answer=answer)
    assert report.state == "complete" and begun == 200


def test_rows_of_a_killed_decoder_are_tried_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path, 4, each=6)
    with monkeypatch.context() as patch:
        real = DecodePool.sample

        async def killed(self: DecodePool, path: Path, data_type: Any, *more: Any) -> Frames:
            if path.name == "2.jpg":
                raise MediaError("ended by SIGKILL", reason=RejectReason.DECODE_KILLED, where=str(path))
            return await real(self, path, data_type, *more)

        patch.setattr(DecodePool, "sample", killed)
        report, _ = run(tmp_path, plain(64))
    assert report.state == "complete" and report.unanswered == 6 and report.ledger is not None
    assert report.ledger.reasons["media/decode_killed"] == 6
    report, _ = run(tmp_path, plain(64))
    assert report.unanswered == 0 and report.media_decoded == 1 and report.ledger is not None
    assert not any(reason.startswith("media/") for reason in report.ledger.reasons)


def test_a_picture_that_fits_is_another_request_when_it_goes_out_as_it_is(
    tmp_path: Path, decodes: list[str]
) -> None:
    """The key says what the model saw: answers about encoded pictures are not answers about the files."""
    images(tmp_path, 6, each=2)
    for i in range(6):
        Image.new("RGB", (56, 56), (40 * i, 9, 9)).save(tmp_path / f"{i}.jpg")
    Image.new("RGB", (60, 60), (9, 9, 9)).save(tmp_path / "5.jpg")  # must be scaled: always encoded
    report, server = run(tmp_path, plain(64), out="one")
    assert report.calls_made == server.requests and len(decodes) == 6
    before = server.requests
    changed = plain(64, media={"passthrough": True})
    sent: list[bytes] = []

    def answer(call: Call) -> str:
        sent.append(call.raw)
        return default_answer(call)

    report, server = run(tmp_path, changed, out="one", answer=answer)
    asked = [raw for raw in sent if b"image_url" in raw]
    assert len(decodes) == 12 and len(asked) == 10, "the scaled one was answered before"
    for i in range(5):
        own = base64.b64encode((tmp_path / f"{i}.jpg").read_bytes())
        assert sum(own in raw for raw in asked) == 2
    report, server = run(tmp_path, changed, out="one")
    assert server.requests == 0 and report.unanswered == 0 and len(decodes) == 12
    report, server = run(tmp_path, plain(64), out="one")
    assert server.requests == 0 and report.calls_found == before and len(decodes) == 12


def test_decoders_killed_in_the_middle_of_a_build_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory runs out: the files under way are decoded by fresh processes."""
    images(tmp_path, 150)
    run(tmp_path, plain(16), out="undisturbed")
    pools: set[DecodePool] = set()
    real = DecodePool.sample
    killed: list[int] = []

    async def noted(self: DecodePool, path: Path, data_type: Any, *more: Any) -> Frames:
        pools.add(self)
        return await real(self, path, data_type, *more)

    def answer(call: Call) -> str:
        if call.number == 10:
            killed.extend(d.pid for pool in pools for d in pool._all if d.pid is not None)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        return default_answer(call)

    monkeypatch.setattr(DecodePool, "sample", noted)
    report, _ = run(tmp_path, plain(16), out="killed", answer=answer)
    assert killed and report.unanswered == 0 and report.media_decoded == 150
    assert without_url(tmp_path / "killed") == without_url(tmp_path / "undisturbed")


def test_a_set_with_a_link_out_of_the_media_root_verifies(tmp_path: Path) -> None:
    """The row fails at the stage of media for a reason that the pool stage has too."""
    images(tmp_path, 2)
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "0.jpg").symlink_to(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").rename(tmp_path / "media" / "1.jpg")
    source = {"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "media"}
    report, _ = run(tmp_path, plain(4, sources=[source]))
    assert report.ledger is not None and report.ledger.reasons == {"media/unsafe_path": 1}
    assert verify_release(str(tmp_path / "set"), workers=1).ok
