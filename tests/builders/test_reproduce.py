"""Rebuilding elsewhere: without media, without recipe, under another locale, from a read-only journal."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_build import Silent, question, recipe, run, write_pool
from videop2r_data.backends import FileLock
from videop2r_data.builders.replay import ReproduceReport, look_up, reproduce
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import ConfigError, ExportError, SourceError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build with a picture, which no test changes."""
    return make(tmp_path_factory.mktemp("kept") / "home")


@pytest.fixture
def built(kept: Path, tmp_path: Path) -> Path:
    """A copy of the build; its lock still names the folder of the first one as base."""
    return Path(shutil.copytree(kept, tmp_path / "home"))


def make(home: Path) -> Path:
    from PIL import Image

    (home / "media").mkdir(parents=True)
    Image.new("RGB", (64, 64), (10, 200, 30)).save(home / "media" / "a.png")
    rows = [question(i) for i in range(6)]
    rows[2] |= {"data_type": "image", "path": "a.png"}
    rows[4] |= {"data_type": "image", "path": "gone.png"}
    write_pool(home, rows)
    run(home, lambda s: recipe(s, sources=[_pool()]))
    return home


def _pool() -> dict[str, str]:
    return {"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "media"}


def rebuild(place: Workspace) -> ReproduceReport:
    return asyncio.run(reproduce(place, card=write_dataset_card, observer=Silent()))


def test_it_needs_neither_media_nor_the_noted_base(tmp_path: Path) -> None:
    built = make(tmp_path / "home")
    away = tmp_path / "away"
    (away / "questions").mkdir(parents=True)
    shutil.copytree(built / "set", away / "set")
    shutil.copytree(built / "set.build" / "journal", away / "kept" / "journal")
    shutil.copy(built / "pool.json", away / "questions")
    shutil.rmtree(built)
    with pytest.raises(ConfigError, match="--base"):
        Workspace.of(away / "set", work=away / "kept")
    place = Workspace.of(away / "set", work=away / "kept", base=away / "questions")
    report = rebuild(place)
    assert report.same, report
    assert sorted(p.name for p in (away / "kept").iterdir()) == ["journal", "reproduce.lock"]
    assert asyncio.run(look_up(place, "pool/2")).media is not None


def test_the_bytes_do_not_depend_on_locale_zone_hash_seed_or_umask(kept: Path) -> None:
    code = (
        "import os, sys; os.umask(0o077)\n"
        "from videop2r_data.cli.main import app\n"
        "app(['reproduce', sys.argv[1], '--json'])"
    )
    for seed, zone, lang in (("1", "Asia/Kathmandu", "C"), ("4242", "America/New_York", "tr_TR.UTF-8")):
        env = os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": lang, "LANG": lang}
        done = subprocess.run(
            [sys.executable, "-c", code, str(kept / "set")],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["same"]


def test_a_journal_that_lacks_answers_is_named_as_the_cause(built: Path) -> None:
    (segment,) = (built / "set.build" / "journal").iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-3]))
    report = rebuild(Workspace.of(built / "set"))
    assert not report.same and any("no answer in this journal" in cause for cause in report.causes)


def test_a_read_only_work_folder_is_left_alone(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(p.name for p in (kept / "set.build").iterdir())
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert rebuild(Workspace.of(kept / "set")).same
    assert sorted(p.name for p in (kept / "set.build").iterdir()) == before


def test_one_at_a_time_and_what_a_killed_one_left_is_cleared(built: Path) -> None:
    place = Workspace.of(built / "set")
    lock = FileLock.take(place.work / "reproduce.lock")
    assert lock is not None
    with pytest.raises(ExportError, match="another process"):
        rebuild(place)
    lock.release()
    (place.work / "reproduced").mkdir()
    (place.work / "reproduced" / "half").write_text("x")
    assert rebuild(place).same and not (place.work / "reproduced").exists()


@pytest.mark.parametrize("recipe_of_lock", ["{}", '{"name": "x"}', "[]"])
def test_a_lock_that_is_no_lock_is_an_error_with_its_place(built: Path, recipe_of_lock: str) -> None:
    path = built / "set" / "build.lock.json"
    data = json.loads(path.read_text())
    data["recipe"] = json.loads(recipe_of_lock)
    path.write_text(json.dumps(data))
    with pytest.raises((ConfigError, SourceError), match=r"build\.lock\.json"):
        rebuild(Workspace.of(built / "set"))
    with pytest.raises((ConfigError, SourceError), match=r"build\.lock\.json"):
        asyncio.run(look_up(Workspace.of(built / "set"), ""))


def test_a_prompt_file_that_is_gone_is_named(tmp_path: Path) -> None:
    built = make(tmp_path / "home")
    (built / "mine.txt").write_text("=== user ===\n{problem} {answer} {observation} <judgement>\n")
    run(built, lambda s: recipe(s, sources=[_pool()], judge__prompt="mine.txt"))
    (built / "mine.txt").unlink()
    with pytest.raises(ConfigError, match="mine"):
        rebuild(Workspace.of(built / "set"))
