"""What was sampled is found again; pixels are decoded only while a call needs them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from videop2r_data.backends.journal import Journal
from videop2r_data.builders.frames import ChangedMediaError, MediaStep
from videop2r_data.errors import MediaError
from videop2r_data.files import file_digest
from videop2r_data.schemas import WHOLE, DataType, Focus, ProblemType, Sample
from videop2r_data.schemas.calls import Frames, MediaRecord
from videop2r_data.schemas.media import MediaLimits, MediaSpec


def sample(path: str = "a.mp4") -> Sample:
    return Sample(
        sample_id=f"s/{path}",
        problem_id="1",
        problem="?",
        problem_type=ProblemType.NUMERICAL,
        data_type=DataType.VIDEO if path else DataType.TEXT,
        solution="<answer>1</answer>",
        path=path,
        source="s",
        row=0,
    )


class Sampler:
    """Frames that are a function of the file's bytes, so that a changed file gives others."""

    def __init__(self) -> None:
        self.calls = 0

    async def sample(self, path: Path, data_type: Any, focus: Focus = WHOLE) -> Frames:
        self.calls += 1
        await asyncio.sleep(0)
        if not path.exists():
            raise MediaError("no such file", reason="media_missing", where=str(path))
        data = path.read_bytes()
        if data == b"broken":
            raise MediaError("cannot be read", reason="media_unreadable", where=str(path))
        name = hashlib.sha256(data).hexdigest()
        return Frames(
            MediaRecord(
                data_type=data_type,
                frames_sha256=name,
                count=1,
                width=28,
                height=28,
                indices=(0,),
                times_s=(0.0,),
                source_frames=1,
                source_width=28,
                source_height=28,
                file_sha256=name,
                file_bytes=len(data),
                sampler="test/1",
            ),
            encoded=(data,),
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"one")
    return folder


def step(
    journal: Journal, root: Path, sampler: Sampler | None, *, limits: MediaLimits | None = None
) -> MediaStep:
    spec = MediaSpec(limits=limits or MediaLimits())
    return MediaStep(spec, journal=journal, roots={"s": root}, sampler=sampler)


async def taken(media: MediaStep, path: str = "a.mp4") -> MediaRecord | None:
    with media.hold(sample(path)) as held:
        return await held.record()


def record(folder: Path, root: Path, sampler: Sampler | None, **settings: Any) -> MediaRecord | None:
    async def main() -> MediaRecord | None:
        with Journal(folder) as journal:
            return await taken(step(journal, root, sampler, **settings))

    return asyncio.run(main())


async def frames(media: MediaStep, expected: MediaRecord) -> Frames:
    with media.hold(sample()) as held:
        return await held.frames(expected)


def test_a_known_file_is_not_decoded_again_and_replay_needs_no_file(tmp_path: Path, root: Path) -> None:
    sampler = Sampler()
    first = record(tmp_path / "j", root, sampler)
    assert record(tmp_path / "j", root, sampler) == first and sampler.calls == 1
    (root / "a.mp4").unlink()
    assert record(tmp_path / "j", root, None) == first


def test_a_touched_file_is_known_by_its_content(tmp_path: Path, root: Path) -> None:
    sampler = Sampler()
    record(tmp_path / "j", root, sampler)
    os.utime(root / "a.mp4", (1, 1))
    record(tmp_path / "j", root, sampler)
    assert sampler.calls == 1


@pytest.mark.parametrize("content", [b"two", b"longer"])
def test_a_changed_file_is_sampled_anew(tmp_path: Path, root: Path, content: bytes) -> None:
    sampler = Sampler()
    record(tmp_path / "j", root, sampler)
    (root / "a.mp4").write_bytes(content)
    os.utime(root / "a.mp4", (1, 1))
    found = record(tmp_path / "j", root, sampler)
    assert found is not None and found.file_sha256 == hashlib.sha256(content).hexdigest()
    assert sampler.calls == 2


def test_a_failure_is_remembered_until_the_file_or_the_limits_change(tmp_path: Path, root: Path) -> None:
    sampler = Sampler()
    (root / "a.mp4").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(MediaError) as caught:
            record(tmp_path / "j", root, sampler)
        assert caught.value.reason == "media_unreadable"
    assert sampler.calls == 1
    with pytest.raises(MediaError):
        record(tmp_path / "j", root, sampler, limits=MediaLimits(wall_s=999))
    assert sampler.calls == 2
    (root / "a.mp4").write_bytes(b"mended")
    assert record(tmp_path / "j", root, sampler) is not None


def test_a_failure_is_looked_at_again_on_demand_and_once(tmp_path: Path, root: Path) -> None:
    sampler = Sampler()
    (root / "a.mp4").write_bytes(b"broken")
    with pytest.raises(MediaError):
        record(tmp_path / "j", root, sampler)

    async def main() -> None:
        with Journal(tmp_path / "j") as journal:
            media = step(journal, root, sampler)
            assert journal.withdraw(media.key(sample()))
            for _ in range(3):
                with pytest.raises(MediaError):
                    await taken(media)

    asyncio.run(main())
    assert sampler.calls == 2


def test_a_decoder_that_was_killed_is_tried_again_by_the_next_runs_but_not_for_ever(
    tmp_path: Path, root: Path
) -> None:
    class Killed(Sampler):
        async def sample(self, path: Path, data_type: Any, focus: Focus = WHOLE) -> Frames:
            self.calls += 1
            await asyncio.sleep(0)
            raise MediaError("ended by SIGKILL", reason="decode_killed", where=str(path))

    sampler = Killed()

    async def run(sampler: Sampler | None) -> list[str]:
        with Journal(tmp_path / "j") as journal:
            media = step(journal, root, sampler)
            found = await asyncio.gather(*(taken(media) for _ in range(6)), return_exceptions=True)
            return [e.reason if isinstance(e, MediaError) else "" for e in found]

    for runs in (1, 2, 3):
        reason = "decode_killed" if runs < 3 else "decode_crash"
        assert asyncio.run(run(sampler)) == [reason] * 6
        assert sampler.calls == runs, "the questions of one run share one try"
        assert asyncio.run(run(None)) == [reason] * 6, "a replay says the same"
    assert asyncio.run(run(sampler)) == ["decode_crash"] * 6 and sampler.calls == 3
    (root / "a.mp4").write_bytes(b"another")
    assert asyncio.run(run(Sampler())) == [""] * 6


def test_one_run_after_a_killed_decoder_gives_every_question_its_frames(tmp_path: Path, root: Path) -> None:
    class Killed(Sampler):
        async def sample(self, path: Path, data_type: Any, focus: Focus = WHOLE) -> Frames:
            raise MediaError("ended by SIGKILL", reason="decode_killed", where=str(path))

    async def run(sampler: Sampler) -> list[object]:
        with Journal(tmp_path / "j") as journal:
            media = step(journal, root, sampler)
            return await asyncio.gather(*(taken(media) for _ in range(6)), return_exceptions=True)

    asyncio.run(run(Killed()))
    assert all(isinstance(found, MediaRecord) for found in asyncio.run(run(Sampler())))


def test_a_missing_file_that_arrives_later_is_used(tmp_path: Path, root: Path) -> None:
    (root / "a.mp4").unlink()
    with pytest.raises(MediaError) as caught:
        record(tmp_path / "j", root, Sampler())
    assert caught.value.reason == "media_missing"
    (root / "a.mp4").write_bytes(b"here")
    assert record(tmp_path / "j", root, Sampler()) is not None


def test_neighbouring_questions_share_one_decode(tmp_path: Path, root: Path) -> None:
    async def main() -> int:
        sampler = Sampler()
        with Journal(tmp_path / "j") as journal:
            media = step(journal, root, sampler)
            found = await taken(media)
            assert found is not None
            await asyncio.gather(*(frames(media, found) for _ in range(5)))
        return sampler.calls

    assert asyncio.run(main()) == 1


def test_a_file_that_changes_under_the_run_is_noticed(tmp_path: Path, root: Path) -> None:
    async def main() -> None:
        with Journal(tmp_path / "j") as journal:
            found = await taken(step(journal, root, Sampler()))
            assert found is not None
            (root / "a.mp4").write_bytes(b"other")
            fresh = step(journal, root, Sampler())
            with pytest.raises(ChangedMediaError):
                await frames(fresh, found)
            assert await taken(fresh) != found

    asyncio.run(main())


def test_text_has_no_media_and_an_escape_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (root / "link.mp4").symlink_to(tmp_path / "secret")

    async def main() -> None:
        sampler = Sampler()
        with Journal(tmp_path / "j") as journal:
            media = step(journal, root, sampler)
            assert await taken(media, "") is None
            with pytest.raises(MediaError):
                await taken(media, "link.mp4")
            assert sampler.calls == 0

    asyncio.run(main())


def test_a_touched_file_is_read_whole_once_not_in_every_run(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videop2r_data.builders import frames as media_step

    record(tmp_path / "j", root, Sampler())
    os.utime(root / "a.mp4", (1, 1))
    hashed: list[Path] = []
    real = file_digest

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(media_step, "file_digest", counted)
    for _ in range(3):
        record(tmp_path / "j", root, Sampler())
    assert len(hashed) == 1


def test_a_question_that_is_cancelled_does_not_cost_its_neighbour_the_frames(
    tmp_path: Path, root: Path
) -> None:
    class Slow(Sampler):
        async def sample(self, path: Path, data_type: Any, focus: Focus = WHOLE) -> Frames:
            await asyncio.sleep(0.02)
            return await super().sample(path, data_type, focus)

    async def main() -> int:
        sampler = Slow()
        with Journal(tmp_path / "j") as journal:
            media = step(journal, root, sampler)
            first = asyncio.ensure_future(taken(media))
            second = asyncio.ensure_future(taken(media))
            await asyncio.sleep(0.001)
            first.cancel()
            assert await second is not None
            await media.close()
        return sampler.calls

    assert asyncio.run(main()) == 1


def test_closing_ends_what_is_still_being_sampled_without_a_complaint(tmp_path: Path, root: Path) -> None:
    """A task that outlived its journal would write to a closed one, and nobody would hear of it."""
    complaints: list[dict[str, Any]] = []

    class Stuck(Sampler):
        async def sample(self, path: Path, data_type: Any, focus: Focus = WHOLE) -> Frames:
            await asyncio.sleep(60)
            raise AssertionError("cancelled before")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        with Journal(tmp_path / "j") as journal:
            media = step(journal, root, Stuck())
            (root / "b.mp4").write_bytes(b"broken")
            asks = [asyncio.ensure_future(taken(media, name)) for name in ("a.mp4", "b.mp4")]
            await asyncio.sleep(0.001)
            for one in asks:
                one.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
            await media.close()
            await media.close()

    asyncio.run(main())
    import gc

    gc.collect()
    assert not complaints
