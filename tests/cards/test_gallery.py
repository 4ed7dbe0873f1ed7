"""Rows, media, verdicts and text of the gallery's page, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.release_rows import Rows, accepted, refused, valid_rows
from tests.cards.hub_release import write_release
from videop2r_data.cards.gallery.make import Gallery, make_gallery, write_gallery
from videop2r_data.cards.gallery.media import (
    beside,
    copy_clips,
    draw_sheet,
    find_clips,
    folder_of,
    linked,
    spec_of,
)
from videop2r_data.cards.gallery.page import inert_json, render_page
from videop2r_data.cards.gallery.rows import (
    JudgedLine,
    count_rows,
    entry_of,
    read_entries,
    read_verdicts,
)
from videop2r_data.cards.gallery.trace import canonical_segments, parts_of
from videop2r_data.errors import SourceError
from videop2r_data.files.release import open_release
from videop2r_data.schemas.calibration import HumanLabel

PIECES = st.sampled_from(
    [
        "<observation>",
        "</observation>",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "a",
        " ",
        "\n",
        "<b>",
        "é😀",
    ]
)


def made(folder: Path, out: Path, **settings: Any) -> Gallery:
    return make_gallery(open_release(folder), out, roots=settings.pop("roots", {}), **settings)


def head_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="head">(.*?)</script>', text)
    assert found
    head: dict[str, Any] = json.loads(found[1])
    return head


@given(st.lists(PIECES, max_size=20).map("".join))
@settings(deadline=None)
def test_the_parts_of_any_text_are_the_text(text: str) -> None:
    parts = parts_of(text)
    assert "".join(part for _, part in parts) == text
    assert all(part for _, part in parts)
    assert all(kind == "tag" or "<think>" not in part for kind, part in parts)


def test_a_canonical_trace_is_told_by_its_segments_and_no_other_is() -> None:
    text = "<observation>o</observation> <think>t</think><answer>a</answer>"
    assert canonical_segments(parts_of(text)) == ("o", "t", "a")
    for other in (
        text + "</answer>",
        text.replace("> <", ">  <"),
        text.replace("<think>t", "<think>"),
        "",
        "x" + text,
    ):
        assert canonical_segments(parts_of(other)) is None, other


def test_text_after_an_open_tag_is_its_segment_and_text_after_a_closing_one_is_outside() -> None:
    assert parts_of("x<observation>cut <think>t</think>y") == (
        ("outside", "x"),
        ("tag", "<observation>"),
        ("observation", "cut "),
        ("tag", "<think>"),
        ("think", "t"),
        ("tag", "</think>"),
        ("outside", "y"),
    )


def test_a_row_of_each_kind_becomes_an_entry() -> None:
    entry = entry_of(accepted(0, "multiple choice", "video", "B", ("A. x", "B. y")), "sft", 0)
    assert (entry.outcome, entry.reference, entry.judgement, entry.media_source) == (
        "accepted",
        "B",
        "Yes",
        "made",
    )
    assert entry.frames == (0, 10, 20, 30) and len(entry.times_s) == 4
    no = entry_of(refused(8, "judge", "insufficient", output="<observation>o</observation>"), "rejected", 0)
    assert (no.outcome, no.judgement, no.observation, no.reason) == ("rejected", "No", "o", "insufficient")
    failed = entry_of(refused(9, "media", "media_missing"), "rejected", 0)
    assert (failed.outcome, failed.observation, failed.parts) == ("failed", None, ())
    blank = entry_of(
        refused(9, "verify", "empty_segment", output="<observation> </observation>"), "rejected", 0
    )
    assert blank.observation is None
    official = entry_of(
        {"problem_id": 17, "problem": "q", "options": "[]", "reward": 2, "frame_indices": [1]}, "sft", 3
    )
    assert (official.sample_id, official.options, official.reward, official.frames) == (
        "sft/17",
        (),
        None,
        (),
    )
    assert entry_of({"problem": "a\ud800b"}, "rl", 5).problem == "a?b"


def test_of_too_many_rows_an_even_share_is_taken_and_the_wanted_ones_besides(tmp_path: Path) -> None:
    rows = valid_rows()
    rows["sft"] = [accepted(i, "numerical", "text", "1") for i in range(30)]
    rows["rejected"] = [refused(i, "verify", "low_score") for i in range(30, 40)]
    release = open_release(write_release(tmp_path / "set", rows))
    total = sum(count_rows(release).values())
    assert total == 40
    entries = list(read_entries(release, limit=8, total=total, always={"made/1"}))
    assert [e.sample_id for e in entries] == [
        "made/1",
        *(f"made/{i}" for i in (4, 9, 14, 19, 24, 29, 34, 39)),
    ]
    assert len(list(read_entries(release, limit=40, total=total))) == 40


def test_two_rows_of_one_id_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    rows = valid_rows()
    rows["rejected"].append(refused(6, "verify", "low_score"))
    release = open_release(write_release(tmp_path / "set", rows))
    with pytest.raises(SourceError, match=r"rejected-00000.parquet, row 5.*second row.*'made/6'"):
        list(read_entries(release, limit=100, total=12))


@given(st.recursive(st.text() | st.integers(-99, 99), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
@settings(deadline=None)
def test_json_in_the_page_is_the_value_and_holds_no_markup(value: Any) -> None:
    text = inert_json(value)
    assert json.loads(text) == value
    assert not set("<>&") & set(text)


def test_a_page_is_the_same_text_twice_and_its_policy_lets_only_its_own_script_run(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "set")
    first, second = (made(folder, tmp_path / "page").page() for _ in range(2))
    assert first == second
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', first)
    assert policy
    assert (
        "default-src &#x27;none&#x27;" in policy[1] and "unsafe" not in policy[1] and "http" not in policy[1]
    )
    assert len(re.findall(r"script-src &#x27;sha256-[\w+/=]{44}&#x27;;", policy[1])) == 1
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", first), "nothing comes from elsewhere"
    assert not re.search(r"<[^>]+\son\w+=", first[: first.index('id="head"')]), "no inline handler"
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in first, word


def test_the_title_of_a_data_set_is_text() -> None:
    text = render_page("</title><script>x", {"id": []}, [])
    assert "<title>&lt;/title&gt;&lt;script&gt;x</title>" in text


def test_the_written_page_has_the_rows_and_leaves_the_data_set_alone(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "set")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report = write_gallery(made(folder, tmp_path / "page"), tmp_path / "page")
    assert (report.rows, report.shown, report.clips, report.clips_missing) == (11, 11, 9, 9)
    head = head_of(Path(report.page).read_text())
    assert head["id"][:2] == ["made/0", "made/1"] and len(head["id"]) == 11
    assert [head["outcomes"][o] for o in head["outcome"]].count("failed") == 2
    assert set(head["reasons"]) == {
        *(
            "verify/low_score",
            "verify/missing_think",
            "judge/insufficient",
            "media/media_missing",
            "pool/bad_row",
        )
    }
    assert head["markable"] == [1] * 9 + [0, 0]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def media_rows(*paths: str) -> Rows:
    rows = valid_rows()
    rows["sft"] = [accepted(i, "numerical", "image", "1") | {"path": path} for i, path in enumerate(paths)]
    rows["rejected"] = []
    return rows


def test_clips_are_linked_from_the_page_and_none_outside_of_its_root(tmp_path: Path) -> None:
    root, page = tmp_path / "a media", tmp_path / "x" / "page"
    (root / "sub").mkdir(parents=True)
    for path in (root / "sub" / "é #1?.png", tmp_path / "secret.png"):
        path.write_bytes(b"x")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    wanted = [
        "./sub//é #1?.png",
        "../secret.png",
        "link.png",
        "/etc/passwd",
        "javascript:alert(1)",
        "gone.png",
    ]
    release = open_release(write_release(tmp_path / "set", media_rows(*wanted)))
    clips = find_clips(read_entries(release, limit=99, total=6), {"made": root})
    assert [clip.file for clip in clips] == [root / "sub" / "é #1?.png", None, None, None, None, None]
    assert [clip.address for clip in clips] == ["sub/%C3%A9%20%231%3F.png", "", "", "", "", ""]
    assert linked(clips, {"made": root}, page) == {"made": "../../a%20media/"}
    assert copy_clips(clips, page) == 1 and beside(clips) == {"made": "media/made/"}
    assert (page / "media/made/sub/é #1?.png").read_bytes() == b"x"
    assert [p.name for p in (page / "media/made").rglob("*") if p.is_file()] == ["é #1?.png"]


@pytest.mark.parametrize("name", ["..", "", ".x", "a/b", "javascript:", "x" * 200])
def test_a_source_that_is_no_folder_name_gets_one(name: str) -> None:
    assert re.fullmatch(r"_[0-9a-f]{8}", folder_of(name))


def test_a_sheet_holds_the_frames_row_by_row() -> None:
    frames = np.zeros((10, 40, 80, 3), dtype=np.uint8)
    frames[9] = 255
    sheet = draw_sheet(frames, range(10), [i / 2 for i in range(10)], side=20)
    assert (sheet.columns, sheet.width, sheet.height) == (8, 20, 10)
    assert sheet.times_s[-1] == 4.5 and sheet == draw_sheet(
        frames, range(10), [i / 2 for i in range(10)], side=20
    )
    import base64
    import io

    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(sheet.uri.partition(",")[2]))).convert("L")
    assert picture.size == (160, 20)
    assert np.asarray(picture)[15, 30] > 200, "the tenth frame is the second of the second row"
    assert spec_of(None).frames == 16 and spec_of({"media": {"frames": 4}}).frames == 4


def label(number: int, sufficient: bool, **more: str) -> HumanLabel:
    row = accepted(number, "numerical", "image", "42")
    texts = {"problem": row["problem"], "reference": "42", "observation": row["observation"]} | more
    return HumanLabel(sample_id=f"made/{number}", sufficient=sufficient, **texts)


def line(judge: str, sufficient: bool | None, of: HumanLabel) -> JudgedLine:
    return JudgedLine(judge=judge, model="m", label=of, sufficient=sufficient, why="because", latency_s=0.5)


def test_verdicts_stand_by_the_rows_whose_very_words_they_are_about(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "set")
    lines = [
        line("a", True, label(1, True)),
        line("b", False, label(1, True)),
        line("a", None, label(1, True)),
        line("a", True, label(1, True, observation="other words")),
    ]
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(x.model_dump_json() + "\n\n" for x in lines))
    gallery = made(folder, tmp_path / "page", verdicts=read_verdicts(path))
    report = write_gallery(gallery, tmp_path / "page")
    assert (report.judged, report.disagreements, report.unmatched) == (1, 1, 1)
    head = gallery.payload.head
    assert head["judged"][head["id"].index("made/1")] == 1 | 2 | 4 and sum(head["judged"]) == 7
    assert head["judges"] == ["a", "b"]


def test_a_line_that_is_no_verdict_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(line("a", True, label(1, True)).model_dump_json() + "\n{}\n")
    with pytest.raises(SourceError, match=r"line 2.*no verdict.*judge"):
        read_verdicts(path)
    path.write_text("")
    with pytest.raises(SourceError, match="no verdict in it"):
        read_verdicts(path)


def test_marks_are_kept_under_the_files_of_the_data_set(tmp_path: Path) -> None:
    digests = set()
    for name, observation in (("a", "one"), ("b", "one"), ("c", "two")):
        rows = valid_rows()
        rows["sft"][1] |= {"observation": observation}
        digests.add(made(write_release(tmp_path / name, rows), tmp_path).payload.head["digest"])
    assert len(digests) == 2
