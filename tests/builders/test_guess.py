"""A pool that nobody described: what is guessed, what is asked, and the recipe that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.shared import samples_dir
from videop2r_data.builders.guess_recipe import recipe_from
from videop2r_data.builders.guessing import Guess, guess_source
from videop2r_data.cli.main import app
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.recipes import list_recipes, recipe_text
from videop2r_data.schemas.recipe import INIT_TODO, parse_recipe


def look(folder: Path, data: str, **more: Any) -> Guess:
    return guess_source(data, recipe=folder / "my.yaml", cwd=folder, work=folder / "work", **more)


def pool(folder: Path, rows: list[dict[str, Any]], name: str = "q.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def media(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def text_of(guess: Guess, template: str = "videop2r-mini") -> str:
    return recipe_from(guess, recipe_text(template), file="my.yaml", data="q.jsonl")


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"Question": "Which {i}?", "Options": {"A": "x", "B": "y"}, "Answer": "B", "Video File": "{i}.mp4"},
         {"problem": "Question", "options": "Options", "solution": "Answer", "path": "Video File"}),
        ({"q": "Which {i}?", "a0": "x", "a1": "y", "a2": "z", "label": "y", "clip": "{i}.mp4"},
         {"problem": "q", "options": ["a0", "a1", "a2"], "solution": "label", "path": "clip"}),
        ({"query": "Which {i}?", "A": "x", "B": "y", "gt": "(B)", "img": "{i}.mp4"},
         {"problem": "query", "options": ["A", "B"], "solution": "gt", "path": "img"}),
        ({"id": "s{i}", "text": "Which {i}?", "option_1": "x", "option_2": "y", "correct": "B", "file": "{i}.mp4"},
         {"problem_id": "id", "problem": "text", "options": ["option_1", "option_2"], "solution": "correct", "path": "file"}),
        ({"qa": {"question": "Which {i}?", "choices": ["x", "y"], "answer": "y"}, "media": ["{i}.mp4"]},
         {"problem": "qa.question", "options": "qa.choices", "solution": "qa.answer", "path": "media"}),
        ({"prompt": "Which {i}?\n(A) x\n(B) y", "answer": "B", "video_id": "{i}"},
         {"problem": "prompt", "options": "prompt", "solution": "answer", "path": "{video_id}.mp4"}),
        ({"what was asked": "Is it {i}?", "choices": "x|y", "answer": "y", "v": "{i}.mp4"},
         {"problem": "what was asked", "options": "choices", "solution": "answer", "path": "v"}),
    ],
)  # fmt: skip
def test_names_and_values_tell_the_columns(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any]
) -> None:
    rows = [json.loads(json.dumps(row).replace("{i}", str(i))) for i in range(4)]
    media(tmp_path, *(f"clips/{i}.mp4" for i in range(4)))
    guess = look(tmp_path, pool(tmp_path, rows))
    assert guess.todo == {}
    assert guess.source["media_root"] == "clips"
    assert (guess.source["problem_type"], guess.source["data_type"]) == ("multiple choice", "video")
    default = {"solution": "solution", "path": "path", "options": "options"}
    assert {k: guess.columns.get(k, default.get(k)) for k in columns} == columns
    assert (guess.good, guess.rows, guess.files_found) == (4, 4, 4)
    assert [shown.answer for shown in guess.shown] == ["B"] * 3
    assert all(shown.found for shown in guess.shown)
    recipe = parse_recipe(text_of(guess), where="my.yaml")
    assert recipe.sources[0].media_root == "clips"


@pytest.mark.parametrize(
    ("answers", "base", "asked"),
    [([0, 1, 2], 0, False), ([1, 2, 3], 1, False), ([1, 1, 2], None, True), (["1", "3", "2"], 1, False)],
)
def test_the_base_of_index_answers(tmp_path: Path, answers: list[Any], base: int | None, asked: bool) -> None:
    media(tmp_path, "a.mp4")
    rows = [
        {"question": f"{i}?", "options": ["x", "y", "z"], "answer": a, "video": "a.mp4"}
        for i, a in enumerate(answers)
    ]
    guess = look(tmp_path, pool(tmp_path, rows))
    assert guess.source.get("answer_base") == base
    assert ("answer_base" in guess.todo) is asked


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(4, "numerical"), ("3.5", "numerical"), ("a red ball", "free-form"), ([1.5, 3.0], "temporal grounding")],
)
def test_questions_without_options(tmp_path: Path, answer: Any, kind: str) -> None:
    media(tmp_path, "a.png")
    guess = look(tmp_path, pool(tmp_path, [{"question": "?!??", "answer": answer, "image": "a.png"}] * 2))
    assert (guess.source["problem_type"], guess.source["data_type"]) == (kind, "image")
    assert "media_root" not in guess.source and guess.todo == {}


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"x": "no", "y": 1}, {"columns.problem", "columns.solution", "columns.path", "data_type"}),
        ({"question": "Who?", "answer": "me", "video": "https://x.org/a.mp4"}, {"columns.path", "data_type"}),
        ({"question": "Who?", "answer": "me", "video_id": "abc"}, {"columns.path", "data_type"}),
        ({"question": "Who?", "answer": "me", "video": "gone/a.mp4"}, {"media_root"}),
    ],
)
def test_what_cannot_be_seen_is_asked_and_check_names_the_lines(
    tmp_path: Path, row: dict[str, Any], asked: set[str]
) -> None:
    guess = look(tmp_path, pool(tmp_path, [row] * 3))
    assert set(guess.todo) == asked
    text = text_of(guess)
    (tmp_path / "my.yaml").write_text(text)
    numbers = [n for n, line in enumerate(text.splitlines(), 1) if INIT_TODO in line]
    assert len(numbers) == len(asked)
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, where="my.yaml")
    assert all(f"my.yaml:{n}: " in str(caught.value) for n in numbers)
    told = CliRunner().invoke(app, ["check", str(tmp_path / "my.yaml")])
    assert told.exit_code == 1 and "to fill in" in told.output


def test_some_rows_with_options_and_some_without(tmp_path: Path) -> None:
    media(tmp_path, "a.mp4")
    rows = [
        {"question": "Who?", "answer": "x", "options": o, "video": "a.mp4"} for o in (["x", "y"], None, None)
    ]
    guess = look(tmp_path, pool(tmp_path, rows))
    assert "1 of 3 rows have options" in guess.todo["problem_type"]
    typed = [row | {"type": "mcq" if row["options"] else "open-ended"} for row in rows]
    guess = look(tmp_path, pool(tmp_path, typed))
    assert guess.todo == {} and guess.columns["problem_type"] == "type" and guess.good == 3


def test_names_from_strangers_stay_within_their_line(tmp_path: Path) -> None:
    evil = "question\n    kind: demo\x1b]8;;x\x07 # "
    media(tmp_path, "a.mp4")
    guess = look(
        tmp_path,
        pool(tmp_path, [{evil: "Who is it?", "answer\u2028": "me", "true": 1, "video": "a.mp4"}] * 2),
    )
    for template in list_recipes():
        text = text_of(guess, template)
        assert "\x1b" not in text and "\x07" not in text
        if template != "demo":
            assert INIT_TODO in text or parse_recipe(text, where="x").sources[0].columns.problem == evil
    assert guess.columns["problem"] == evil
    done = CliRunner().invoke(
        app, ["init", str(tmp_path / "r.yaml"), "--from-data", str(tmp_path / "q.jsonl")]
    )
    assert done.exit_code == 0 and "\x1b" not in done.output and "\x07" not in done.output


def test_splits_and_folders(tmp_path: Path) -> None:
    rows = [{"question": "Who?", "answer": "me", "image": "a.png"}] * 2
    media(tmp_path, "set/a.png")
    pool(tmp_path / "set", rows, "validation.jsonl")
    pool(tmp_path / "set", rows, "test.jsonl")
    guess = look(tmp_path, "set")
    assert guess.source["split"] == "validation" and guess.source["path"] == "set"
    assert look(tmp_path, "set", split="test").source["split"] == "test"
    with pytest.raises(SourceError, match="no split 'x'; there are: test, validation"):
        look(tmp_path, "set", split="x")
    with pytest.raises(SourceError, match="the pool holds no row"):
        (tmp_path / "none.json").write_text("[]")
        look(tmp_path, "none.json")
    with pytest.raises(SourceError, match="none of its first 2 rows can be read"):
        (tmp_path / "broken.jsonl").write_text("{]\n{]\n")
        look(tmp_path, "broken.jsonl")
    with pytest.raises(SourceError, match=r"the first: .*UTF-8"):
        (tmp_path / "latin.csv").write_bytes("question,answer\nGrün?,ja\n".encode("latin-1"))
        look(tmp_path, "latin.csv")


def test_the_command_writes_shows_and_speaks_json(tmp_path: Path) -> None:
    media(tmp_path, "clips/a.mp4")
    data = tmp_path / pool(tmp_path, [{"question": "Who?", "answer": "me", "video": "a.mp4"}] * 5)
    target = tmp_path / "sub" / "r.yaml"
    done = CliRunner().invoke(app, ["init", str(target), "--from-data", str(data)])
    assert done.exit_code == 0, done.output
    assert "5 of 5 rows can be read like this" in done.output and "answer: me" in done.output
    recipe = parse_recipe(target.read_text(), where="r.yaml")
    assert (recipe.sources[0].path, recipe.sources[0].media_root) == ("../q.jsonl", "../clips")
    again = CliRunner().invoke(app, ["init", str(target), "--from-data", str(data), "--json"])
    assert again.exit_code == 1 and "the file exists" in json.loads(again.stdout)["error"]["message"]
    found = CliRunner().invoke(app, ["init", str(target), "--from-data", str(data), "--json", "--force"])
    told = json.loads(found.stdout)
    assert told["wrote"] == str(target) and len(told["shown"]) == 3 and told["good"] == 5
    alone = CliRunner().invoke(app, ["init", str(tmp_path / "y.yaml"), "--split", "test"])
    assert alone.exit_code == 1 and "--from-data" in alone.output
    none = CliRunner().invoke(
        app, ["init", str(tmp_path / "x.yaml"), "--from-data", str(tmp_path / "q.json")]
    )
    assert none.exit_code == 1 and "q.jsonl" in none.output and not (tmp_path / "x.yaml").exists()


def test_rows_that_cannot_be_read_are_among_those_that_were_looked_at(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question;answer\nWho?;me\nWhere?\n;here\nWhen?;now\n")
    done = CliRunner().invoke(app, ["init", str(tmp_path / "r.yaml"), "--from-data", str(tmp_path / "q.csv")])
    assert done.output.startswith("looked at 4 rows ")
    assert "2 of 4 rows can be read like this" in done.output and done.output.count("1 row cannot: ") == 2


REAL: dict[str, tuple[int, set[str]]] = {
    "converted_mlvu_test": (10, {"media_root"}),
    "nextgqa_test": (15, {"media_root"}),
    "official_longvideobench_val": (13, {"media_root"}),
    "official_mlvu_dev": (28, {"media_root"}),
    "official_mmvu_validation": (70, {"columns.path", "data_type"}),
    "official_tomato": (40, {"columns.path", "data_type"}),
    "official_vcrbench": (8, {"media_root"}),
    "official_videoholmes": (16, {"columns.path", "data_type"}),
    "official_videommmu": (73, {"columns.path", "data_type"}),
    "tvgbench": (29, {"media_root"}),
    "twgrpo_eval_mmvu": (170, set()),
    "twgrpo_eval_mvbench": (336, set()),
    "twgrpo_eval_videomme": (200, set()),
    "videoholmes_questions": (8, {"columns.path", "data_type"}),
    "videor1_eval_mmvu": (20, {"media_root"}),
    "videor1_eval_vsibench": (40, {"media_root"}),
    "videor1_geoqa_prompts": (90, {"media_root"}),
    "videor1_superclevr_counts": (30, {"media_root"}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_rows_of_others(tmp_path: Path, name: str) -> None:
    folder = samples_dir()
    if folder is None:
        pytest.skip("no shared samples here")
    guess = look(tmp_path, str(folder / f"{name}.jsonl"))
    good, asked = REAL[name]
    assert (guess.good, set(guess.todo)) == (good, asked)


def test_a_pool_in_a_folder_of_its_name_is_not_where_the_build_would_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`init --from-data clips` in the folder above: the set cannot be called `clips` too."""
    monkeypatch.chdir(tmp_path)
    pool(tmp_path, [{"question": "Who?", "answer": "me", "image": "a.png"}] * 2, "q.jsonl")
    media(tmp_path, "a.png")
    for taken, name in (("other", "q"), ("q", "q-cot"), ("q-cot", "q-cot-2")):
        (tmp_path / taken).mkdir()
        (tmp_path / taken / "mine.txt").touch()
        made = CliRunner().invoke(app, ["init", "r.yaml", "--from-data", "q.jsonl", "--force"])
        assert made.exit_code == 0, made.output
        recipe = parse_recipe((tmp_path / "r.yaml").read_text(), where="r.yaml")
        assert (recipe.name, recipe.sources[0].name) == (name, "q")
