"""`p2r-train compare` on results that `p2r-train eval` wrote of two models behind a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.fakes.openai_server import Call
from tests.integration.gallery_browser import chromium, opened
from tests.integration.test_ask import running
from videop2r_data.benchmarks import benchmark_text
from videop2r_data.cli.train import app

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
CLIPS, EACH = 12, 4
"""Pictures, and questions about each."""
EVIL = "<script>window.owned=1</script>\x1b[2J"


def answers(call: Call) -> str:
    """Model `poor` is right on the first question of each picture, `good` on the first three."""
    place = int(call.prompt.rpartition("part ")[2].split()[0])
    right = place < {"poor": 1, "good": 3, "same": 1}[call.body["model"]]
    return f"<observation>{EVIL}</observation> <think>t</think><answer>{'A' if right else 'B'}</answer>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "media").mkdir()
    rows = []
    for clip in range(CLIPS):
        Image.new("RGB", (56, 56), (20 * clip, 9, 9)).save(folder / "media" / f"{clip}.png")
        for part in range(EACH):
            rows.append(
                {
                    "problem_id": f"q{clip}-{part}", "problem": f"{EVIL} picture {clip}, part {part} of it?",
                    "options": ["A. x", "B. y"], "problem_type": "multiple choice", "data_type": "image",
                    "solution": "<answer>A</answer>", "path": f"{clip}.png", "data_source": "d",
                }
            )  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "fewer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-8]))
    others = [row | {"problem": f"Which {row['problem']}"} for row in rows]
    (folder / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    own = benchmark_text("p2r").replace("name: p2r", "name: own").replace("id: p2r", "id: own")
    (folder / "own.yaml").write_text(own)
    with running(answer=answers) as server:
        for name, model, file, more in (
            ("base", "poor", "rows", {}), ("good", "good", "rows", {}), ("same", "same", "rows", {}),
            ("fewer", "good", "fewer", {}), ("other", "good", "rows", {"max_tokens": 99, "style": "agnostic"}),
            ("none", "good", "others", {}),
            ("declared", "good", "rows", {"benchmarks": [
                {"name": "mine", "benchmark": "own.yaml", "path": "rows.jsonl", "media_root": "media"}
            ]}),
        ):  # fmt: skip
            plan = {
                "name": name, "backend": {"kind": "openai", "model": model, "base_url": server.url, "retries": 0},
                "benchmarks": [{"name": "mine", "path": f"{file}.jsonl", "media_root": "media"}],
                "media": {"max_pixels": 3136, "workers": 1}, "question_only": False, **more,
            }  # fmt: skip
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(plan))
            done = CliRunner().invoke(
                app, ["eval", str(folder / f"{name}.yaml"), "--out", str(folder / name), "-q"]
            )
            assert done.exit_code == 0, (done.stdout, done.stderr, done.exception)
    return folder


def compare(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["compare", *map(str, words)])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    return done


def test_a_real_difference_and_none(made: Path) -> None:
    told = orjson.loads(compare(made / "base", made / "good", made / "same", "--json").stdout)
    good, same = told["comparisons"]
    assert (good["first"], good["second"], same["second"]) == ("base", "good", "same")
    head = next(one for one in good["figures"] if one["headline"])
    found = head["found"]
    # 12 of 48 right against 36 of 48, all of the gain, in every one of 12 pictures
    assert (found["a"], found["b"], found["n"], found["clips"]) == (0.25, 0.75, 48, 12)
    assert (found["better"], found["worse"], found["verdict"]) == (24, 0, "real") and found["p_holm"] < 0.01
    assert len(good["flips"]) == 24 and all(flip["gained"] for flip in good["flips"])
    assert good["settings"] == [] and good["left_out"] == {}
    alike = next(one for one in same["figures"] if one["headline"])["found"]
    assert (alike["difference"], alike["verdict"]) == (0.0, "not shown") and same["flips"] == []


def test_results_of_one_name_go_by_their_folders(made: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(made / "base", tmp_path / name)
    words = (tmp_path / "one", tmp_path / "two", made / "good", f"base={tmp_path / 'two'}", "--json")
    told = orjson.loads(compare(*words).stdout)["comparisons"]
    assert [(one["first"], one["second"]) for one in told] == [
        ("one", "two"),
        ("one", "good"),
        ("one", "base"),
    ]


def test_the_tables_fit_the_terminal_and_nothing_in_them_steers_it(made: Path) -> None:
    done = compare(made / "base", f"ours={made / 'good'}", "--flips", 2)
    assert "\x1b" not in done.stdout and "␛[2J" in done.stdout
    assert (
        "24 questions from wrong to right" in done.stdout and "0 questions from right to wrong" in done.stdout
    )
    line = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["ours"])
    assert "+0.500" in line or "+50.0" in line
    assert "real" in line and len(line) <= 80
    assert " ".join(done.stdout.split()).count("[B -> A, right: A]") == 2


def test_markdown(made: Path) -> None:
    text = compare(made / "base", f"a_b={made / 'good'}", "--markdown").stdout
    assert "| result | value | change |" in text and "| a\\_b | " in text


def test_other_rows_are_refused_and_other_settings_are_listed(made: Path) -> None:
    refused = compare(made / "base", made / "fewer", code=1).stderr
    assert "8 questions of mine are in one of them alone" in refused and "--common" in refused
    told = orjson.loads(compare(made / "base", made / "fewer", "--common", "--json").stdout)["comparisons"][0]
    assert told["left_out"] == {"mine": 8} and told["figures"][0]["found"]["n"] == 40
    assert {(s["kind"], s["name"]) for s in told["settings"]} == {("rows", "pool_sha256")}
    shown = compare(made / "base", f"ours={made / 'fewer'}", "--common", "--markdown").stdout
    assert "ours is held against the first on 40 questions of both, where that has " in shown
    none = compare(made / "base", made / "none", "--common", code=1).stderr
    assert "96 questions of mine" in none and "no question is in both" in none and "--common" not in none
    other = orjson.loads(compare(made / "good", made / "other", "--json").stdout)["comparisons"][0]
    names = {s["name"]: (s["kind"], s["first"], s["second"]) for s in other["settings"]}
    assert names["max_tokens"] == ("asked", "4096", "99") and names["style"][1:] == ("process", "agnostic")
    assert any(name.startswith("prompt ") for name in names)
    shown = compare(made / "good", made / "other", "--strict", code=1).stdout
    assert "not the same beside the model" in shown and "max_tokens: 4096 | 99" in shown
    compare(made / "base", made / "good", "--strict")


def test_a_benchmark_of_ones_own_is_found_beside_its_plan(made: Path) -> None:
    told = orjson.loads(compare(made / "declared", f"again={made / 'declared'}", "--json").stdout)[
        "comparisons"
    ][0]
    (found,) = (one["found"] for one in told["figures"] if one["headline"])
    assert found["protocol"].startswith("own") and found["n"] == CLIPS * EACH


def test_what_others_report_stands_beside_it_as_reported(made: Path) -> None:
    done = compare(made / "base", made / "good", "--reported", "table-1")
    assert "reported" not in done.stdout, "nobody reports these questions"
    assert "table-99" in compare(made / "base", made / "good", "--reported", "table-99", code=1).stderr
    assert "no table 'table-6' of reported scores" in (
        compare(made / "base", made / "good", "--reported", "table-6", code=1).stderr
    ), "shares of mismatch are no scores"
    assert "one result alone" in compare(made / "base", code=1).stderr
    told = compare(made / "base", made / "media", code=1).stderr
    assert "media/result.json: no result of an evaluation: No such file or directory" in told


def test_flips_are_a_gallery_page(made: Path) -> None:
    page = made / "pages" / "flips.html"
    compare(made / "base", made / "good", "--page", page)
    with chromium() as browser, opened(browser, page.as_uri()) as (shown, trouble):
        assert "48" in shown.text_content("#count")  # 24 questions, an answer of each model
        shown.click('.choice[data-facet="outcome"] >> nth=0')
        assert "24" in shown.text_content("#count")
        assert shown.locator("video, .stage img, .stage canvas").count() >= 1, "the clip is found"
        assert shown.evaluate("window.owned") is None and trouble.dialogs == []
