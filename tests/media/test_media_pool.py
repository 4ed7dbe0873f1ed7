"""Decoder processes that hang, die, explode, lie or outlive their parent."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image

from tests.media.clips import write_clip
from videop2r_data.errors import ConfigError, MediaError
from videop2r_data.media import DecodePool, MediaProbe, probe_media, sample_media
from videop2r_data.media import worker as wire
from videop2r_data.media.pool import Decoder
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.media import MediaLimits, MediaSpec

SPEC = MediaSpec(frames=4, max_pixels=16 * 784, min_pixels=784)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", frames=24)


def limited(**limits: Any) -> MediaSpec:
    return SPEC.model_copy(update={"limits": MediaLimits(**limits)})


def pids(pool: DecodePool) -> list[int]:
    return [d.pid for d in pool._all if d.pid is not None]


def gone(pid: int) -> bool:
    """Whether no process runs under this id (a zombie runs no more)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def until(check: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.02)


async def reason(call: Awaitable[object]) -> str:
    with pytest.raises(MediaError) as caught:
        await call
    return caught.value.reason


def test_the_pool_gives_what_one_process_gives(clip: Path) -> None:
    async def main() -> None:
        async with DecodePool(SPEC, want="array", workers=2) as pool:
            got = await asyncio.gather(*(pool.sample(clip, "video") for _ in range(4)))
            probe = await pool.probe(clip, "video", deep=True)
        here = sample_media(clip, "video", SPEC, want="array")
        assert here.array is not None
        for frames in got:
            assert frames.record == here.record
            assert frames.array is not None and (frames.array == here.array).all()
            assert frames.array.flags.writeable
        assert probe == probe_media(clip, "video", SPEC.limits, deep=True)
        async with DecodePool(SPEC, want="encoded", workers=1) as pool:
            encoded = await pool.sample(clip, "video")
        # the pool names the file besides, for a server that is given the file itself
        assert encoded == replace(sample_media(clip, "video", SPEC, want="encoded"), path=clip)

    asyncio.run(main())


def test_errors_cross_the_pipe(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "a.mp4").write_text("<html>")

    async def main() -> None:
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            assert await reason(pool.sample(tmp_path / "a.mp4", "video")) == "media_unreadable"
            assert await reason(pool.probe(tmp_path / "none.mp4", "video")) == "media_missing"
            first = pids(pool)
            # A named error is no crash: the same process goes on.
            await pool.sample(clip, "video")
            assert pids(pool) == first

    asyncio.run(main())


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that a test has stopped passes for one that hangs by itself: it too heeds nothing but SIGKILL."""
    monkeypatch.setattr("videop2r_data.media.worker.is_stopped", lambda pid: False)
    monkeypatch.setattr("videop2r_data.media.pool._LATE_S", float("inf"))


@pytest.mark.usefixtures("hangs")
def test_a_hang_costs_its_file(clip: Path) -> None:
    async def main() -> None:
        async with DecodePool(limited(wall_s=1.0), want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            (pid,) = pids(pool)
            os.kill(pid, signal.SIGSTOP)
            assert await reason(pool.sample(clip, "video")) == "decode_timeout"
            await until(lambda: gone(pid))
            assert (await pool.sample(clip, "video")).record.count == 4

    asyncio.run(main())


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[signal.Signals]:
    """Signals for the next requests, one each: the process dies of it with the request in its pipe."""
    signals: list[signal.Signals] = []
    real = Decoder._write

    def write(self: Decoder, process: Any, message: dict[str, Any]) -> None:
        dies = signals.pop(0) if signals and "do" in message else None
        if dies is not None:
            os.kill(process.pid, signal.SIGSTOP)
        real(self, process, message)
        if dies is not None:
            os.kill(process.pid, dies)
            with suppress(ProcessLookupError):  # SIGKILL needs no SIGCONT: the process may be gone already
                os.kill(process.pid, signal.SIGCONT)

    monkeypatch.setattr(Decoder, "_write", write)
    return signals


KILL, TERM, SEGV = signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV


@pytest.mark.parametrize("number", [KILL, SEGV])
def test_one_death_costs_nothing(clip: Path, deaths: list[signal.Signals], number: signal.Signals) -> None:
    async def main() -> None:
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            deaths.append(number)
            assert (await pool.sample(clip, "video")).record.count == 4
            assert not deaths

    asyncio.run(main())


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([SEGV, SEGV], "decode_crash"),
        ([KILL, SEGV], "decode_crash"),
        ([KILL, KILL], "decode_killed"),
        ([TERM, TERM], "decode_killed"),
        ([SEGV, KILL], "decode_killed"),
    ],
)
def test_the_fresh_process_tells_a_bad_file_from_a_killer(
    clip: Path, deaths: list[signal.Signals], numbers: list[signal.Signals], expected: str
) -> None:
    async def main() -> None:
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            deaths.extend(numbers)
            with pytest.raises(MediaError, match=numbers[-1].name) as caught:
                await pool.sample(clip, "video")
            assert caught.value.reason == expected and not deaths
            assert (await pool.sample(clip, "video")).record.count == 4

    asyncio.run(main())


@pytest.mark.parametrize(("times", "starts"), [(2, True), (3, False)])
def test_a_decoder_that_is_killed_while_it_starts_is_started_again(
    clip: Path, monkeypatch: pytest.MonkeyPatch, times: int, starts: bool
) -> None:
    real, left = Decoder._write, [KILL] * times

    def write(self: Decoder, process: Any, message: dict[str, Any]) -> None:
        real(self, process, message)
        if "do" not in message and left:
            os.kill(process.pid, left.pop())

    async def main() -> None:
        monkeypatch.setattr(Decoder, "_write", write)
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            if starts:
                assert (await pool.sample(clip, "video")).record.count == 4
            else:
                with pytest.raises(ConfigError, match="SIGKILL"):
                    await pool.sample(clip, "video")

    asyncio.run(main())


def test_small_files_are_queued_deeper_than_slow_ones(clip: Path) -> None:
    decoder = Decoder(SPEC, 100)
    depths = {}
    for seconds in (0.0, 0.001, 0.02, 0.05, 1.0, 100.0):
        decoder._pace_s = seconds
        depths[seconds] = decoder.depth
    assert depths == {0.0: 16, 0.001: 16, 0.02: 5, 0.05: 2, 1.0: 2, 100.0: 2}


def test_a_process_that_somebody_stops_costs_no_file(clip: Path) -> None:
    async def main() -> None:
        async with DecodePool(limited(wall_s=4.0), want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            (pid,) = pids(pool)
            os.kill(pid, signal.SIGSTOP)
            assert (await pool.sample(clip, "video")).record.count == 4
            assert pids(pool) != [pid]
            await until(lambda: gone(pid))

    asyncio.run(main())


def test_time_in_which_the_parent_was_stopped_is_not_held_against_a_file(clip: Path) -> None:
    async def main() -> None:
        async with DecodePool(limited(wall_s=4.0), want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            (pid,), before = pids(pool), pool._all[0]._last_turn
            os.kill(pid, signal.SIGSTOP)
            asked = asyncio.create_task(pool.sample(clip, "video"))
            await until(lambda: pool._all[0]._last_turn is not before)
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGCONT)
            time.sleep(7.0)  # noqa: ASYNC251 - as SIGSTOP does to this process
            assert (await asked).record.count == 4

    asyncio.run(main())


@pytest.mark.usefixtures("hangs")
def test_a_hang_does_not_cost_the_file_behind_it(tmp_path: Path, clip: Path) -> None:
    """Two requests lie in one process; what ends it over the first is not held against the second."""
    other = write_clip(tmp_path / "b.mp4", frames=9)

    async def main() -> None:
        async with DecodePool(limited(wall_s=1.0), want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            os.kill(pids(pool)[0], signal.SIGSTOP)
            first, second = (asyncio.create_task(pool.sample(p, "video")) for p in (clip, other))
            assert await reason(first) == "decode_timeout"
            assert (await second).record.source_frames == 9

    asyncio.run(main())


def test_a_cancelled_request_does_not_cost_the_one_before_it(tmp_path: Path, clip: Path) -> None:
    other = write_clip(tmp_path / "b.mp4", frames=9)

    async def main() -> None:
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            os.kill(pids(pool)[0], signal.SIGSTOP)
            first, second = (asyncio.create_task(pool.sample(p, "video")) for p in (clip, other))
            await asyncio.sleep(0.05)
            second.cancel()
            assert (await first).record.source_frames == 24
            assert (await pool.sample(other, "video")).record.source_frames == 9

    asyncio.run(main())


def test_a_process_that_grows_is_replaced(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("videop2r_data.media.pool._GROWN_SHARE", 2**40)
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            (pid,) = pids(pool)
            await pool.sample(clip, "video")
            assert pids(pool) != [pid]
            await until(lambda: gone(pid))

    asyncio.run(main())


def test_an_explosion_costs_its_file(tmp_path: Path, clip: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("RGB", (12_000, 12_000)).save(bomb, compress_level=1)

    async def main() -> None:
        spec = limited(memory_mb=256, max_side=20_000)
        async with DecodePool(spec, want="array", workers=1) as pool:
            assert await reason(pool.sample(bomb, "image")) == "decode_memory"
            assert (await pool.sample(clip, "video")).record.count == 4

    asyncio.run(main())


def test_cancelling_leaves_no_stale_answer(tmp_path: Path, clip: Path) -> None:
    other = write_clip(tmp_path / "b.mp4", frames=9)

    async def main() -> None:
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            for delay in (0.0, 0.001, 0.01):
                task = asyncio.create_task(pool.sample(clip, "video"))
                await asyncio.sleep(delay)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert (await pool.sample(other, "video")).record.source_frames == 9

    asyncio.run(main())


def test_two_hundred_files_and_recycling(clip: Path) -> None:
    async def main() -> None:
        seen: set[int] = set()
        async with DecodePool(SPEC, want="array", workers=2, recycle_after=64) as pool:

            async def one() -> str:
                digest = (await pool.sample(clip, "video")).record.frames_sha256
                seen.update(pids(pool))
                return digest

            digests = await asyncio.gather(*(one() for _ in range(200)))
        assert len(set(digests)) == 1
        # 200 files at 64 per process: four processes at least.
        assert len(seen) >= 4
        assert all(gone(pid) for pid in seen)

    asyncio.run(main())


def test_damaged_bytes_give_frames_or_a_named_error(tmp_path: Path) -> None:
    rng = random.Random(7)
    sources = [
        write_clip(tmp_path / "a.mp4", frames=12),
        write_clip(tmp_path / "a.webm", frames=12, codec="libvpx"),
        write_clip(tmp_path / "a.avi", frames=12, codec="mpeg4"),
    ]
    picture = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 50).save(picture)
    files: list[tuple[Path, Literal["image", "video"]]] = []
    for k in range(60):
        source = [*sources, picture][k % 4]
        data = bytearray(source.read_bytes())
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / f"fuzz{k}{source.suffix}"
        path.write_bytes(data)
        files.append((path, "image" if source is picture else "video"))

    async def main() -> None:
        async with DecodePool(limited(wall_s=20.0), want="encoded", workers=2) as pool:
            calls = [pool.sample(p, kind) for p, kind in files] + [
                pool.probe(p, kind, deep=True) for p, kind in files
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            assert isinstance(result, MediaError | Frames | MediaProbe), result
        assert any(isinstance(r, MediaError) for r in results)
        assert any(isinstance(r, Frames) for r in results)
        crashes = [r for r in results if isinstance(r, MediaError) and r.reason == "decode_crash"]
        # A Python error in the worker would show here as "exit code 1".
        assert not crashes, crashes

    asyncio.run(main())


@pytest.mark.usefixtures("hangs")
def test_another_event_loop(clip: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with DecodePool(limited(wall_s=1.0), want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            os.kill(pids(pool)[0], signal.SIGSTOP)
            assert await reason(pool.sample(clip, "video")) == "decode_timeout"
            assert (await pool.sample(clip, "video")).record.count == 4

    uvloop.run(main())


def test_closing_ends_every_process(clip: Path) -> None:
    async def main() -> list[int]:
        pool = DecodePool(SPEC, want="array", workers=2)
        await pool.start()
        await pool.start()
        await asyncio.gather(*(pool.sample(clip, "video") for _ in range(4)))
        used = pids(pool)
        await pool.close()
        await pool.close()
        return used

    used = asyncio.run(main())
    assert used and all(gone(pid) for pid in used)


def test_processes_ignore_ctrl_c(clip: Path) -> None:
    async def main() -> None:
        async with DecodePool(SPEC, want="array", workers=1) as pool:
            await pool.sample(clip, "video")
            (pid,) = pids(pool)
            os.kill(pid, signal.SIGINT)
            await asyncio.sleep(0.1)
            await pool.sample(clip, "video")
            assert pids(pool) == [pid]

    asyncio.run(main())


_PARENT = """
import asyncio, os, signal, sys
from pathlib import Path
from videop2r_data.media import DecodePool
from videop2r_data.schemas.recipe import MediaSpec

async def main():
    pool = DecodePool(MediaSpec(frames=4), want="array", workers=2)
    await asyncio.gather(*(pool.sample(Path(sys.argv[1]), "video") for _ in range(4)))
    pids = [d.pid for d in pool._all if d.pid]
    os.kill(pids[0], signal.SIGSTOP)  # one of them hangs
    sys.stdout.write(" ".join(map(str, pids)) + chr(10))
    sys.stdout.flush()
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_no_process_outlives_a_killed_parent(clip: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(clip)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        workers = [int(p) for p in parent.stdout.readline().split()]
        assert workers and not any(gone(p) for p in workers)
        parent.kill()
    asyncio.run(until(lambda: all(gone(p) for p in workers)))


def test_a_process_that_cannot_start_is_no_fault_of_the_file(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        pool = DecodePool(SPEC, want="array", workers=1)
        monkeypatch.setattr("videop2r_data.media.pool.sys.executable", "/bin/false")
        with pytest.raises(ConfigError, match="no decoder process can be started"):
            await pool.sample(clip, "video")
        monkeypatch.undo()
        assert (await pool.sample(clip, "video")).record.count == 4
        await pool.close()

    asyncio.run(main())


def test_keys_stay_with_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    from videop2r_data.media.worker import environment

    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    assert "secret" not in str(environment())


def test_what_a_process_says_is_checked(clip: Path) -> None:
    here = sample_media(clip, "video", SPEC, want="array")
    assert here.array is not None
    record = here.record.model_dump(mode="json")
    pixels = here.array.tobytes()
    assert wire.frames_of({"record": record}, [pixels], SPEC, "array").record == here.record
    bad: list[tuple[dict[str, Any], list[bytes], str]] = [
        ({}, [pixels], "array"),
        ({"record": {**record, "count": -1}}, [pixels], "array"),
        ({"record": {**record, "count": 5}}, [pixels], "array"),
        ({"record": {**record, "count": 3}}, [pixels], "array"),
        ({"record": {**record, "extra": 1}}, [pixels], "array"),
        ({"record": record}, [pixels[:-1]], "array"),
        ({"record": record}, [], "array"),
        ({"record": record}, [pixels] * 4, "encoded"),
    ]
    for header, blobs, want in bad:
        with pytest.raises(wire.WireError):
            wire.frames_of(header, blobs, SPEC, want)  # type: ignore[arg-type]
    headers = [
        b"",
        b"[]",
        b"{}",
        b'{"blobs": [-1]}',
        b'{"blobs": [1e3]}',
        b'{"blobs": [true]}',
        b'{"blobs": [99]}',
    ]
    for data in headers:
        with pytest.raises(wire.WireError):
            wire.parse_header(data, max_blobs=4, max_bytes=10)
    with pytest.raises(wire.WireError):
        wire.header_length(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("sizes", [[], [0, 0], [5, 0, 3], [1] * 1500, [300_000, 0, 300_000]])
def test_a_reply_of_any_shape_goes_through_the_pipe(sizes: list[int]) -> None:
    from videop2r_data.media import worker

    blobs = tuple(bytes([i % 256]) * size for i, size in enumerate(sizes))
    reader, writer = os.pipe()
    found = bytearray()

    def read() -> None:
        while piece := os.read(reader, 70_000):
            found.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    worker._write(writer, {"ok": True}, blobs)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(found) == b"".join(wire.pack({"ok": True}, blobs))
