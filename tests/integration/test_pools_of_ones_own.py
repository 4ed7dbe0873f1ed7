"""Every layout that the docs promise, as somebody new would write it down: checked, built, verified, rebuilt."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes.openai_server import FakeServer
from tests.integration.test_build import Silent, digests, rows_of
from tests.media.clips import write_clip
from tests.pools import read_pool
from videop2r_data.builders.checks.run import check_pool
from videop2r_data.builders.guess_recipe import recipe_from
from videop2r_data.builders.guessing import guess_source
from videop2r_data.builders.pipeline import build
from videop2r_data.builders.replay import reproduce
from videop2r_data.builders.sources import open_source
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.files import find_media_roots
from videop2r_data.recipes import recipe_text
from videop2r_data.schemas.recipe import Recipe, parse_recipe
from videop2r_data.schemas.sample import Sample

pytestmark = pytest.mark.integration
RECIPE = """
name: set
sources:
{source}
generate: {{backend: {{kind: openai, base_url: "{url}", model: g, retries: 0}}}}
judge: {{backend: {{kind: openai, base_url: "{url}", model: j, retries: 0}}}}
"""
OWN = "columns: {problem: question, solution: answer, path: file, options: choices, problem_type: null, data_type: null}"


def picture(shade: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 90, 30)).save(sink, "PNG")
    return sink.getvalue()


def clips(folder: Path) -> list[str]:
    (folder / "clips").mkdir()
    for i in range(3):
        write_clip(folder / "clips" / f"{i}.mp4", frames=20 + i)
    return [f"{i}.mp4" for i in range(3)]


def rows(files: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "question": f"What is in {i}, then?",
            "choices": ["round", "square"],
            "answer": "round",
            "file": name,
        }
        for i, name in enumerate(files)
    ]


def source(kind: str, path: str, more: str = OWN, *, medium: str = "video", root: str = "clips") -> str:
    return (
        f"  - name: pool\n    kind: {kind}\n    path: {path}\n    media_root: {root}\n"
        f"    problem_type: multiple choice\n    data_type: {medium}\n    {more}\n"
    )


def jsonl(folder: Path) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows(clips(folder)))
    (folder / "q.jsonl").write_text(text)
    return source("dataset", "q.jsonl")


def json_array(folder: Path) -> str:
    (folder / "q.json").write_text(json.dumps(rows(clips(folder)), indent=1))
    return source("dataset", "q.json")


def csv(folder: Path) -> str:
    lines = ["id,question,a0,a1,answer,file"]
    lines += [
        f'{i},"What is in {i}, then?",round,square,{i % 2},{name}' for i, name in enumerate(clips(folder))
    ]
    (folder / "q.csv").write_text("\r\n".join(lines) + "\r\n")
    columns = OWN.replace("options: choices", "options: [a0, a1], problem_id: id")
    return source("dataset", "q.csv", columns + "\n    answer_base: 0")


def parquet(folder: Path) -> str:
    (folder / "data").mkdir()
    pq.write_table(
        pa.Table.from_pylist(rows(clips(folder))), folder / "data" / "train-00000-of-00001.parquet"
    )
    return source("dataset", "data")


def saved(folder: Path) -> str:
    import datasets

    made = [row | {"file": picture(i)} for i, row in enumerate(rows(["", "", ""]))]
    features = datasets.Features(
        {"question": datasets.Value("string"), "choices": datasets.List(datasets.Value("string")),
         "answer": datasets.Value("string"), "file": datasets.Image()}
    )  # fmt: skip
    made = [row | {"file": {"bytes": row["file"], "path": "x.png"}} for row in made]
    datasets.Dataset.from_list(made, features=features).save_to_disk(str(folder / "saved"))
    return source("dataset", "saved", medium="image", root='""')


def embedded_parquet(folder: Path) -> str:
    made = [
        row | {"file": {"bytes": picture(i), "path": "../../x.png"}}
        for i, row in enumerate(rows(["", "", ""]))
    ]
    pq.write_table(pa.Table.from_pylist(made), folder / "q.parquet")
    return source("dataset", "q.parquet", medium="image", root='""')


def imagefolder(folder: Path) -> str:
    (folder / "pics" / "train").mkdir(parents=True)
    for i in range(3):
        (folder / "pics" / "train" / f"{i}.png").write_bytes(picture(i))
    made = [{**row, "file_name": row["file"]} for row in rows([f"{i}.png" for i in range(3)])]
    (folder / "pics" / "train" / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in made))
    return source("dataset", "pics", OWN.replace("path: file", "path: file_name"), medium="image", root='""')


def video_r1(folder: Path) -> str:
    made = [
        {"problem_id": i, "problem": f"What is in {i}?", "data_type": "video", "problem_type": "multiple choice",
         "options": ["A. round", "B. square"], "solution": "<answer>A</answer>", "path": f"./clips/{name}",
         "data_source": "mine"}
        for i, name in enumerate(clips(folder))
    ]  # fmt: skip
    (folder / "q.json").write_text(json.dumps(made))
    return "  - {name: pool, kind: video-r1, path: q.json}"


SHAPES: list[Callable[[Path], str]] = [
    jsonl, json_array, csv, parquet, saved, embedded_parquet, imagefolder, video_r1,
]  # fmt: skip


async def built(recipe: Recipe, place: Workspace) -> Any:
    return await build(recipe, place, observer=Silent(), card=write_dataset_card)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_a_pool_becomes_a_data_set(tmp_path: Path, shape: Callable[[Path], str]) -> None:
    text = shape(tmp_path)

    async def main() -> None:
        async with FakeServer() as server:
            recipe = parse_recipe(RECIPE.format(source=text, url=server.url), where="r.yaml")
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            checked = await check_pool(recipe, base=tmp_path, demo_root=place.demo)
            assert checked.rows == checked.rows_ok == 3, checked
            report = await built(recipe, place)
            assert report.ledger is not None and report.ledger.rows_in == 3
            asked = server.requests
            first = digests(place.out)
            again = await built(recipe, place)
            assert (again.calls_made, server.requests) == (0, asked) and digests(place.out) == first
            same = await reproduce(place, card=write_dataset_card, observer=Silent())
            assert same.same, same.causes
            questions = rows_of(place.out, "rl")
            assert len(questions) == 3
            root = open_source(recipe.sources[0], base=tmp_path, demo_root=place.demo).media_root
            assert root is not None
            for row in questions:
                assert ".." not in row["path"] and (root / row["path"]).is_file()
            if place.embedded("pool").is_dir():  # training finds what no recipe can name
                assert find_media_roots(str(place.out), base=tmp_path).root("pool/x") == root

    asyncio.run(main())
    assert verify_release(str(tmp_path / "set"), workers=1).ok


def test_embedded_media_are_written_again_when_they_are_gone(tmp_path: Path) -> None:
    text = embedded_parquet(tmp_path)

    async def main() -> None:
        async with FakeServer() as server:
            recipe = parse_recipe(RECIPE.format(source=text, url=server.url), where="r.yaml")
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            await built(recipe, place)
            first = digests(place.out)
            shutil.rmtree(place.embedded("pool"))
            again = await built(recipe, place)
            assert again.calls_made == 0 and digests(place.out) == first
            assert sum(p.is_file() for p in place.embedded("pool").rglob("*")) == 3

    asyncio.run(main())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_init_reads_each_of_them_by_itself(tmp_path: Path, shape: Callable[[Path], str]) -> None:
    path = re.findall(r"path: ([\w.]+)", shape(tmp_path))[0]
    guess = guess_source(path, recipe=tmp_path / "my.yaml", cwd=tmp_path, work=tmp_path / "look")
    assert (guess.todo, guess.good, guess.files_found) == ({}, 3, 3)
    text = recipe_from(guess, recipe_text("videop2r-mini"), file="my.yaml", data=path)
    recipe = parse_recipe(text, where="my.yaml")

    async def main() -> None:
        report = await check_pool(recipe, base=tmp_path, demo_root=tmp_path / "work" / "demo")
        assert report.rows == report.rows_ok == 3, report

    asyncio.run(main())
    answers = [row.reference for row in read_pool(recipe.sources, base=tmp_path) if isinstance(row, Sample)]
    assert answers == (["A", "B", "A"] if path == "q.csv" else ["A", "A", "A"])
