"""Frames selected by the question: ranked by a real model, a small one that knows three colours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.integration.test_build import Silent, question, recipe, rows_of, run, write_pool
from tests.tiny_clip import COLOURS, write_tiny_clip
from tests.trainer.data.parts import SMALL as TRAINED
from videop2r_data.backends import Journal
from videop2r_data.builders.frames import MediaStep
from videop2r_data.builders.replay import look_up, reproduce
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.cli import main as cli
from videop2r_data.errors import ConfigError
from videop2r_data.media import DecodePool, embedder_key, sample_media
from videop2r_data.media.look import looked
from videop2r_data.schemas import (
    DataType,
    Focus,
    Frames,
    LookSpec,
    MediaRecord,
    MediaSpec,
    ProblemType,
    Sample,
    digest_bytes,
)
from videop2r_data.trainer.data.loader import MediaLoader
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.settings.parts import DataSpec

pytestmark = pytest.mark.integration
SHOWN = {"red": range(40, 44), "blue": range(10, 16), "green": range(53, 55)}
"""Frames of a grey clip of 60 in which a square of this colour is seen."""
SMALL: dict[str, Any] = {"frames": 4, "max_pixels": 64 * 784, "min_pixels": 784}
ASKED = "What is the {} square?"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("embedder") / "tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("question") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 112, 112, "yuv420p"
        for at in range(60):
            picture = np.full((112, 112, 3), 120, np.uint8)
            for name, when in SHOWN.items():
                if at in when:
                    picture[28:84, 28:84] = COLOURS[name]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def spec_of(embedder: Path, **more: Any) -> MediaSpec:
    return MediaSpec(**SMALL, look=LookSpec(select="question", embedder=str(embedder), **more))


def test_the_frames_that_the_question_is_about_are_chosen(embedder: Path, clip: Path) -> None:
    spec = spec_of(embedder)
    for name, when in SHOWN.items():
        asked = ASKED.format(name)
        got = sample_media(clip, "video", spec, want="array", focus=Focus(question=asked))
        hits = set(got.record.indices) & set(when)
        assert len(hits) == min(4, len(when)), (name, got.record.indices)
        told = got.record.look
        assert told is not None and told.candidates == 60
        assert told.question_sha256 == digest_bytes(asked.encode()) and told.embedder == embedder_key(
            spec.look or LookSpec()
        )
        assert got.record.indices == tuple(sorted(got.record.indices))
    uniform = sample_media(clip, "video", MediaSpec(**SMALL), want="array").record
    assert not set(uniform.indices) & set(SHOWN["red"]), "evenly spaced frames miss it"
    part = sample_media(clip, "video", spec, want="array", focus=Focus(0.5, 2.0, ASKED.format("red"))).record
    assert part.part is not None and all(5 <= at <= 20 for at in part.indices)


def test_processes_and_this_process_choose_alike(embedder: Path, clip: Path) -> None:
    spec, focus = spec_of(embedder, noise=3.0), Focus(question=ASKED.format("blue"))

    async def main() -> list[Frames]:
        async with DecodePool(spec, want="encoded", workers=1) as pool:
            return list(await asyncio.gather(*(pool.sample(clip, "video", focus) for _ in range(2))))

    first, second = asyncio.run(main())
    here = sample_media(clip, "video", spec, want="encoded", focus=focus)
    assert first == second == here


def test_a_process_of_the_embedder_that_is_stopped_or_killed(embedder: Path, clip: Path) -> None:
    """Stopped, it is waited for; killed, the run ends and says so, and a fresh run chooses the same frames."""
    focus = Focus(question=ASKED.format("red"))

    async def main() -> list[Frames]:
        got = []
        async with DecodePool(spec_of(embedder), want="array", workers=1) as pool:
            got.append(await pool.sample(clip, "video", focus))
            assert pool._embedder is not None
            (pid,) = pool._embedder._processes
            os.kill(pid, signal.SIGSTOP)
            waits = asyncio.create_task(pool.sample(clip, "video", focus))
            assert not (await asyncio.wait([waits], timeout=1.0))[0]
            os.kill(pid, signal.SIGCONT)
            got.append(await waits)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ConfigError, match="the process of the embedder ended"):
                await pool.sample(clip, "video", focus)
        async with DecodePool(spec_of(embedder), want="array", workers=1) as pool:
            got.append(await pool.sample(clip, "video", focus))
        return got

    first, *others = asyncio.run(main())
    assert [other.record for other in others] == [first.record] * 2


def test_ranking_is_by_score_and_the_earlier_of_two_equal_ones_comes_first() -> None:
    array = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 28, 28, 3), np.uint8)
    base = MediaRecord(
        data_type="video", frames_sha256="0", count=8, width=28, height=28, indices=tuple(range(0, 16, 2)),
        times_s=tuple(n / 5 for n in range(8)), source_frames=16, source_width=28, source_height=28,
        file_sha256="0", file_bytes=1, sampler="t/1", duration_s=1.6,
    )  # fmt: skip
    spec = MediaSpec(frames=3, look=LookSpec(select="question", embedder="x", revision="c0ffee"))
    scores = [0.1, 0.5, 0.2, 0.9, 0.5, 0.5, -1.0, 0.4]
    got = looked(Frames(base, array), spec, "array", question="?", scores=scores)
    assert got.record.indices == (2, 6, 8) and got.array is not None
    assert [int(frame[0, 0, 0]) for frame in got.array] == [1, 3, 4]
    assert got.record.look is not None and got.record.look.embedder == "c0ffee"


def test_keys_hold_the_question_and_what_the_embedder_is(embedder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(embedder, tmp_path / "other")
    moved = shutil.copytree(embedder, tmp_path / "moved")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert embedder_key(LookSpec(select="question", embedder=str(moved))) == embedder_key(
        LookSpec(select="question", embedder=str(embedder))
    )
    with Journal(tmp_path / "journal") as journal:

        def key(spec: MediaSpec, problem: str) -> str:
            step = MediaStep(spec, journal=journal, roots={}, sampler=None)
            return step.key(Sample(
                sample_id="p/1", problem_id="1", problem=problem, problem_type=ProblemType.NUMERICAL,
                data_type=DataType.VIDEO, solution="<answer>2</answer>", path="a.mp4", source="p", row=0,
            ))  # fmt: skip

        keys = {key(spec, text) for spec in (spec_of(embedder), spec_of(other)) for text in ("one", "two")}
        assert len(keys) == 4
        plain = MediaSpec(**SMALL)
        assert key(plain, "one") == key(plain, "two"), "whatever the question, where it does not decide"
        scenes = MediaSpec(**SMALL, look=LookSpec(select="scenes"))
        assert key(scenes, "one") == key(scenes, "two") != key(plain, "one")


@pytest.mark.parametrize(
    ("name", "revision", "told"),
    [
        ("owner/name", None, "needs its commit"),
        ("{}/nothing", None, "no such folder"),
        ("{}/nothing", "c0ffee", "no such folder"),
        ("nothing", "c0ffee", "neither a folder nor a Hub id"),
        ("{}", None, "holds no config.json"),
        ("{}/other", None, "not one with image and text features"),
    ],
)
def test_an_embedder_that_is_none_is_told(
    tmp_path: Path, clip: Path, name: str, revision: str | None, told: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    spec = spec_of(Path(name.format(tmp_path)), revision=revision)
    with pytest.raises(ConfigError, match=told):
        sample_media(clip, "video", spec, want="array", focus=Focus(question="?"))

    async def main() -> None:
        async with DecodePool(spec, want="array", workers=1) as pool:
            if told.startswith("not one"):  # the files are there: the process that loads them tells
                await pool.sample(clip, "video", Focus(question="?"))

    with pytest.raises(ConfigError, match=told):
        asyncio.run(main())


def test_a_build_by_question_from_the_pool_to_the_trainer(embedder: Path, clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "a.mp4")
    rows = [
        question(n, problem=ASKED.format(name), data_type="video", path="a.mp4")
        for n, name in enumerate(SHOWN)
    ]
    write_pool(tmp_path, [*rows, question(9)])
    media = {**SMALL, "look": {"select": "question", "embedder": str(embedder)}}
    report, _ = run(tmp_path, lambda server: recipe(server, media=media, judge=None))
    assert report.media_decoded == 3, "one clip, three questions, three choices"
    kept = {row["problem"]: row for row in rows_of(tmp_path / "set", "sft")}
    for name, when in SHOWN.items():
        assert len(set(kept[ASKED.format(name)]["frame_indices"]) & set(when)) == min(4, len(when))
    place = Workspace.at(tmp_path / "set", base=tmp_path)
    assert verify_release(str(place.out), workers=1).ok
    assert asyncio.run(reproduce(place, card=write_dataset_card, observer=Silent())).same
    view = asyncio.run(look_up(place, "pool/0"))
    assert view.media is not None and view.media["look"]["candidates"] == 60
    assert "4 closest to the question" in (place.out / "README.md").read_text()
    look = LookSpec(select="question", embedder=str(embedder))
    trained = TRAINED.model_copy(update={"look": look, "frames": 2})
    spec = DataSpec(source=str(place.out), media=trained, media_root=str(tmp_path))
    with MediaLoader([list(read_examples(spec))], trained, workers=1) as loader:
        (batch,) = list(loader)
    for example, frames in zip(batch.examples, batch.frames, strict=True):
        about = next((when for name, when in SHOWN.items() if name in example.problem), None)
        assert (frames is None) == (about is None)
        if frames is not None and about is not None:
            assert set(frames.record.indices) <= set(about)


def test_the_gallery_draws_each_questions_own_frames(embedder: Path, clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, tmp_path / "a.mp4")
    rows = [
        question(n, problem=ASKED.format(name), data_type="video", path="a.mp4")
        for n, name in enumerate(SHOWN)
    ]
    write_pool(
        tmp_path, [*rows, question(5, problem="Where is the red square?", data_type="video", path="a.mp4")]
    )
    media = {**SMALL, "look": {"select": "question", "embedder": str(embedder)}}
    answer = "<observation>o</observation> <think>t</think><answer>B</answer>"
    run(tmp_path, lambda server: recipe(server, media=media, judge=None), answer=lambda _: answer)
    words = ["gallery", str(tmp_path / "set"), "--media", f"pool={tmp_path}", "--frames", "32", "--json"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["clips"], report["sheets"]) == (1, 4)
    page = Path(report["page"]).read_text()
    chunk = json.loads(page.partition('id="rows-0">')[2].partition("</script>")[0])
    frames = {row["problem"]: row["frames"] for row in chunk["rows"]}
    assert set(frames[ASKED.format("red")]) == set(SHOWN["red"]), "of a rejected row, by the journal"
    assert all("part" not in row for row in chunk["rows"])
