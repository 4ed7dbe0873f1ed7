"""`p2r-data gallery` from the shell's side: where it writes, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.cards.hub_release import write_release
from videop2r_data.cli.main import app


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["gallery", *words])
    assert result.exit_code == code, result.output
    return result.output


def head_of(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.read_text().partition('id="head">')[2].partition("</script>")[0])
    return found


def test_the_page_lies_beside_the_data_set_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_release(tmp_path / "set")
    monkeypatch.chdir(folder)
    assert "11 of 11 rows, 9 clips" in run(".")
    assert (tmp_path / "set.gallery" / "index.html").is_file()
    monkeypatch.chdir(tmp_path)
    run("set", "--out", "else where", "--limit", "4")
    assert len(head_of(tmp_path / "else where" / "index.html")["id"]) == 4


def test_media_roots_are_named_for_one_source_or_for_all(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "set")
    (tmp_path / "media" / "clips").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "media" / "clips" / "1.png")
    for named in (str(tmp_path / "media"), f"made={tmp_path / 'media'}"):
        report = json.loads(run(str(folder), "--media", named, "--json"))
        assert (report["clips"], report["clips_missing"]) == (9, 8)
        head = head_of(Path(report["page"]))
        assert head["bases"] == {"made": "../media/"}
        assert [clip[2] for clip in head["clips"] if clip[2]] == ["clips/1.png"]
    told = run(str(folder), "--media", f"other={tmp_path / 'media'}")
    assert "9 clips are not here: name their folder with --media" in told


def test_what_it_refuses_it_says(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "set")
    assert "may not lie in the data set" in run(str(folder), "--out", str(folder / "page"), code=1)
    assert "may not lie in the data set" in run(str(folder), "--out", str(folder), code=1)
    assert "no such folder" in run(str(folder), "--media", "made=/no/such", code=1)
    assert "cannot read the verdicts" in run(str(folder), "--verdicts", "/no/such", code=1)
    assert "no such file or folder" in run(str(tmp_path / "no-such" / "set"), code=1)
    assert "work" in run(str(folder), "--work", str(tmp_path / "no-such"), code=1)
    assert not (folder / "page").exists() and not (tmp_path / "set.gallery").exists()
