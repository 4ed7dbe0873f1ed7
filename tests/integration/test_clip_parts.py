"""Questions about parts of clips, from the pool to the trainer: built, verified, rebuilt, looked at, trained on."""

from __future__ import annotations

import asyncio
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.cards.test_gallery_cli import head_of
from tests.fakes.openai_server import Call, FakeServer
from tests.integration.gallery_browser import chromium, go, opened
from tests.integration.test_build import Silent, question, recipe, rows_of, run, write_pool
from tests.media.clips import write_clip
from tests.trainer.data.parts import SMALL
from videop2r_data.builders.checks.run import check_pool
from videop2r_data.builders.replay import look_up, reproduce
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.cli import main as cli
from videop2r_data.files import open_release
from videop2r_data.schemas import Focus, MediaSpec, Recipe, TraceGrammar, parse_trace
from videop2r_data.trainer.data.loader import MediaLoader
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.settings.parts import DataSpec

pytestmark = pytest.mark.integration
PARTS: list[tuple[float | None, float | None]] = [
    (None, None), (0.5, 1.5), (0.5, 1.75), (1.5, None), (None, 0.5), (1.5, 60.0), (9.0, 10.0)
]  # fmt: skip
"""Of a clip of 2 s; the last but one overhangs, the last lies outside."""
MEDIA = {"frames": 4}


def pool(folder: Path) -> None:
    write_clip(folder / "a.mp4")
    rows = [question(i, data_type="video", path="a.mp4", from_s=s, to_s=e) for i, (s, e) in enumerate(PARTS)]
    write_pool(folder, [*rows, question(7), question(8, data_type="video", path="a.mp4", from_s="soon")])


def with_parts(server: FakeServer, **more: Any) -> Recipe:
    mapped = {"columns": {"start": "from_s", "end": "to_s"}}
    source = {"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": ".", **mapped}
    return recipe(server, sources=[source], media=MEDIA, judge=None, **more)


def changed_recipe(update: dict[str, Any], server: FakeServer) -> Recipe:
    return with_parts(server).model_copy(update=update)


def test_a_build_with_parts(tmp_path: Path) -> None:
    pool(tmp_path)
    report, _ = run(tmp_path, with_parts)
    assert report.ledger is not None and report.ledger.rows_in == 9 and report.ledger.kept == 7
    assert report.ledger.reasons == {"media/media_outside": 1, "pool/bad_row": 1}
    assert report.media_decoded == 6, "each part once"
    kept = {row["problem_id"]: row for row in rows_of(tmp_path / "set", "sft")}
    assert [(kept[f"{i}"]["start_s"], kept[f"{i}"]["end_s"]) for i in range(6)] == PARTS[:6]
    assert (kept["7"]["start_s"], kept["7"]["end_s"]) == (None, None)
    assert kept["1"]["frame_indices"] == [12, 20, 28, 36] and kept["1"]["frame_times_s"][0] == 0.5
    assert kept["5"]["frame_indices"] == kept["3"]["frame_indices"] == [36, 40, 43, 47]
    lost = {row["problem_id"]: row for row in rows_of(tmp_path / "set", "rejected")}
    assert "from 9 s" in lost["6"]["detail"] and (lost["6"]["start_s"], lost["6"]["end_s"]) == (9.0, 10.0)
    assert lost["8"]["reason"] == "bad_row" and lost["8"]["start_s"] is None
    assert {row["problem_id"] for row in rows_of(tmp_path / "set", "rl")} == kept.keys()
    run(tmp_path, with_parts, observer=Silent())
    place = Workspace.at(tmp_path / "set", base=tmp_path)
    same = asyncio.run(reproduce(place, card=write_dataset_card, observer=Silent()))
    assert same.same, same.causes
    found = verify_release(str(place.out), workers=1)
    assert found.ok, found.findings
    view = asyncio.run(look_up(place, "pool/5"))
    assert view.sample["end_s"] == 60.0 and view.media is not None
    assert view.media["part"] == {"start_s": 1.5, "end_s": 2.0, "first": 36, "frames": 12, "beyond_s": 58.0}
    card = (place.out / "README.md").read_text()
    assert "`start_s`" in card and "part of the clip" in card
    assert open_release(place.out).models["rl"].model_fields.keys() >= {"start_s", "end_s"}


def test_the_model_is_told_times_of_the_part(tmp_path: Path) -> None:
    pool(tmp_path)
    bodies: list[dict[str, Any]] = []

    def noted(call: Any) -> str:
        from tests.fakes.openai_server import default_answer

        bodies.append(call.body)
        return default_answer(call)

    run(tmp_path, with_parts, answer=noted)
    told = {
        next(i for i in range(9) if f"shape {i}?" in json.dumps(body["messages"])): body for body in bodies
    }
    about = {i: body["media_io_kwargs"]["video"] for i, body in told.items() if "media_io_kwargs" in body}
    assert about[0]["frames_indices"] == [0, 16, 31, 47] and about[0]["duration"] == 2.0
    assert about[1]["frames_indices"] == [0, 8, 16, 24] and about[1]["total_num_frames"] == 25
    assert (about[1]["fps"], about[1]["duration"], about[2]["duration"]) == (24.0, 1.0, 1.25)


def test_frames_by_rate_in_a_build_and_a_judge_with_a_number_of_its_own(tmp_path: Path) -> None:
    pool(tmp_path)
    backend = {"kind": "openai", "model": "j", "base_url": "http://127.0.0.1:9/v1"}
    judges: list[dict[str, Any]] = [
        {"name": n, "decides": "faithfulness", "backend": backend} for n in ("same", "more")
    ]
    judges[1]["frames"] = 32
    plain = {"name": "x", "sources": [{"name": "p", "kind": "video-r1", "path": "a.json"}]}
    made = Recipe.model_validate(plain | {
        "media": {"fps": 4.0, "frames": 16}, "judges": judges, "generate": {"backend": backend | {"model": "g"}}
    })  # fmt: skip
    specs = {n: made.media.uniform(n) for n in (16, 32)}
    assert (specs[16].fps, specs[32].fps) == (4.0, None)
    run(tmp_path, lambda server: with_parts(server).model_copy(update={"media": made.media}))
    kept = {row["problem_id"]: row["frame_indices"] for row in rows_of(tmp_path / "set", "sft")}
    assert [len(kept[f"{i}"]) for i in range(6)] == [8, 4, 4, 4, 4, 4]
    card = (tmp_path / "set" / "README.md").read_text()
    assert "4 a second (4 to 16) uniform" in card
    assert verify_release(str(tmp_path / "set"), workers=1).ok
    place = Workspace.at(tmp_path / "set", base=tmp_path)
    assert asyncio.run(reproduce(place, card=write_dataset_card, observer=Silent())).same


def test_a_build_with_changed_frames(tmp_path: Path) -> None:
    pool(tmp_path)
    look = {"select": "scenes", "drop": 0.5, "noise": 6.0, "occlude": 0.1}
    keys: list[set[str]] = []
    for out, seed in (("one", 0), ("two", 1), ("one", 0)):
        media = MediaSpec.model_validate({**MEDIA, "look": look | {"seed": seed}})
        update = {"media": media}
        report, server = run(tmp_path, partial(changed_recipe, update), out=out)
        assert report.ledger is not None and report.ledger.kept == 7
        keys.append({row["generation_key"] for row in rows_of(tmp_path / out, "sft")})
    assert server.requests == 0 and keys[0] == keys[2], "the same frames once more"
    assert len(keys[0] & keys[1]) == 1, "the question without media"
    place = Workspace.at(tmp_path / "one", base=tmp_path)
    assert verify_release(str(place.out), workers=1).ok
    assert asyncio.run(reproduce(place, card=write_dataset_card, observer=Silent())).same
    view = asyncio.run(look_up(place, "pool/1"))
    assert view.media is not None and view.media["look"]["settings"] == look and view.media["count"] == 2
    card = (place.out / "README.md").read_text()
    assert "4 spread over scenes, changed by drop 0.5, noise 6.0, occlude 0.1" in card
    assert "at most, evenly spaced" not in card


SPANS = {
    "name": "spans",
    "segments": [
        {"name": "look", "role": "perception", "tag": "look", "fields": ["<t>{a: time seconds} to {b: time seconds}</t>"]},
        {"name": "think", "role": "reasoning", "tag": "think"},
        {"name": "answer", "role": "answer", "tag": "answer"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("look", [{"select": "scenes"}, {"drop": 0.5}, {"blur": 1.0}])
def test_times_are_held_against_the_end_of_the_clip_whichever_frames_were_seen(
    tmp_path: Path, look: dict[str, Any]
) -> None:
    """The clip has 2 s, the part from 0.5 s on 1.5 s; `verify` holds them against what a build does."""
    pool(tmp_path)
    ends = {0: 1.98, 1: 9.0, 3: 0.45, 4: 0.4}

    def answer(call: Call) -> str:
        end = ends.get(int(call.prompt.split("shape ")[1][0]), 0.1)
        return f"<look>It is round. <t>0 to {end}</t></look><think>So A.</think><answer>A</answer>"

    update = {
        "media": MediaSpec.model_validate({**MEDIA, "look": look}),
        "trace": TraceGrammar.model_validate(SPANS),
    }
    run(tmp_path, partial(changed_recipe, update), answer=answer)
    kept = {row["problem_id"]: row for row in rows_of(tmp_path / "set", "sft")}
    assert sorted(kept) == ["0", "2", "3", "4", "5", "7"]
    lost = {row["problem_id"]: row["reason"] for row in rows_of(tmp_path / "set", "rejected")}
    assert lost["1"] == "senseless_value"
    if "blur" in look:
        assert "clip_s" not in kept["0"]
    else:
        clips = {name: (row["clip_s"], row["clip_frames"]) for name, row in kept.items()}
        assert clips["0"] == (2.0, 48) and clips["3"] == (0.5, 12) and clips["7"] == (None, None)
    assert verify_release(str(tmp_path / "set"), workers=1).ok
    (path,) = (tmp_path / "set" / "data").glob("sft-*.parquet")
    table = pq.read_table(path)
    rows = json.loads(json.dumps(table.to_pylist()).replace("<t>0 to 0.45</t>", "<t>0 to 1.9</t>"))
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    found = [
        one for one in verify_release(str(tmp_path / "set"), workers=1).findings if one.code == "verify_step"
    ]
    assert len(found) == 1 and found[0].count == 1, found


def test_sets_without_parts_have_no_such_column(tmp_path: Path) -> None:
    pool(tmp_path)
    run(tmp_path, lambda server: recipe(server, media=MEDIA, judge=None))
    for config in ("sft", "rl", "rejected"):
        (path,) = (tmp_path / "set" / "data").glob(f"{config}-*.parquet")
        assert not {"start_s", "end_s"} & set(pq.read_schema(path).names)
    assert '"start"' not in (tmp_path / "set" / "build.lock.json").read_text()


def test_verify_sees_parts_that_cannot_be(tmp_path: Path) -> None:
    pool(tmp_path)
    run(tmp_path, with_parts)
    (path,) = (tmp_path / "set" / "data").glob("sft-*.parquet")
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["start_s"], rows[1]["end_s"] = 1.5, 0.5
    rows[2]["start_s"] = 1.0  # its frames begin before
    rows[6]["start_s"] = 0.5  # a text
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    found = verify_release(str(tmp_path / "set"), workers=1)
    places = {
        (finding.code, place.row, place.field) for finding in found.findings for place in finding.places
    }
    assert {
        ("bad_value", 1, "start_s"),
        ("frames", 2, "frame_times_s"),
        ("bad_value", 6, "start_s"),
    } <= places


def test_check_names_the_parts_that_lie_outside(tmp_path: Path) -> None:
    pool(tmp_path)
    mapped = {"columns": {"start": "from_s", "end": "to_s"}}
    source = {"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": ".", **mapped}
    made = Recipe.model_validate(
        {"name": "x", "sources": [source], "generate": {"backend": {"kind": "demo", "model": "m"}}}
    )
    lines: list[Any] = []
    report = asyncio.run(check_pool(made, base=tmp_path, on_file=lines.append))
    (found,) = report.sources
    assert (found.rows, found.rows_ok, found.bad_rows) == (9, 7, {"bad_row": 1, "media_outside": 1})
    assert "from 9 s lies outside of a.mp4, which ends at 2 s" in found.bad_examples[-1].detail
    assert [line.row for line in lines if line.what == "row"] == [8, 6] and not report.ok


def test_the_gallery_shows_each_part(tmp_path: Path) -> None:
    pool(tmp_path)
    run(tmp_path, with_parts)
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    words = ["gallery", str(tmp_path / "copy"), "--media", f"pool={tmp_path}", "--frames", "64", "--json"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert (report["clips"], report["clips_missing"], report["sheets"]) == (1, 0, 6)
    page = Path(report["page"])
    head = head_of(page)
    clips = {name: head["clip"][at] for at, name in enumerate(head["id"])}
    assert len({clips[f"pool/{i}"] for i in range(7)}) == 7, "a sheet of its own for each part"
    assert '"part":[0.5,1.5]' in page.read_text().replace(" ", "")


def test_the_page_plays_the_part(tmp_path: Path) -> None:
    pool(tmp_path)
    run(tmp_path, with_parts)
    words = ["gallery", str(tmp_path / "set"), "--media", f"pool={tmp_path}", "--json"]
    page_url = Path(json.loads(CliRunner().invoke(cli.app, words).output)["page"]).as_uri()
    time = "document.querySelector('.stage video').currentTime"
    with chromium() as browser, opened(browser, f"{page_url}#pool/1") as (page, _):
        page.wait_for_function(f"() => {time} >= 0.5")
        assert page.locator(".frame").first.get_attribute("title") == "frame 12 at 0.50 s"
        assert page.locator(".timeline .band.part").count() == 1
        page.keyboard.press("Space")
        page.wait_for_function(f"() => {time} > 1.0")
        page.wait_for_function(f"() => {time} < 0.9")  # behind the part it begins anew
        go(page, "pool/0")
        assert page.locator(".timeline .band.part").count() == 0


@pytest.mark.parametrize("config", ["sft", "rl"])
def test_the_trainer_gets_the_frames_of_the_part(tmp_path: Path, config: Any) -> None:
    pool(tmp_path)
    run(tmp_path, with_parts)
    spec = DataSpec(source=str(tmp_path / "set"), config=config, media=SMALL, media_root=str(tmp_path))
    examples = read_examples(spec)
    by_id = {example.sample_id: example for example in examples}
    assert by_id["pool/1"].focus == Focus(0.5, 1.5) and by_id["pool/0"].focus == Focus()
    with MediaLoader([list(examples)], SMALL, workers=1) as loader:
        (batch,) = list(loader)
    frames = dict(zip([e.sample_id for e in batch.examples], batch.frames, strict=True))
    assert not batch.skipped
    one, two, five = (frames[f"pool/{i}"] for i in (1, 2, 5))
    assert one is not None and two is not None and five is not None
    assert (one.record.indices[0], one.record.indices[-1], two.record.indices[-1]) == (12, 36, 42)
    assert five.record.part is not None and five.record.part.beyond_s == 58.0
    if config == "sft":
        assert parse_trace(by_id["pool/1"].target or "").answer == "A"
