"""Prompt files: how they are read, refused and filled."""

from __future__ import annotations

from pathlib import Path

import pytest

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import fill, load_prompt, packaged_prompts, render_generate
from videop2r_data.schemas import ProblemType, digest_bytes

DIGESTS = {
    "blind-v1": "46dac316a2f31addc15655eef199338ac84bf6fcf034115be9a29b0d8a3c5662",
    "claims-v1": "610d0351a3452cd06c16390567228ec87b497e3e6c1a4336d01d2c0e9f495fbb",
    "exam-observation-v1": "414a67a2622748cf27d2fe69b2bcd0fa24a0ad8da24bd94d5d01427277489dad",
    "exam-question-v1": "d453239dbf452caf4eb34163fdc542dc7e1353460357ff46d95789e007370ba4",
    "faithfulness-v1": "b7bbef048bb83e25b0d72eda85a0ac7dfd38369642575a3fda3f19ae682dd77f",
    "generate-agnostic-v1": "76e63825468b12ea745467754601a8640136cf25a65f5143e87f52760fedc9d8",
    "generate-any-v1": "81d72ff28a8f0c74cf5cdbc0ed8afc33e580fd5e4050b5984ac1bc28c3263692",
    "generate-v1": "a6fc72bf400e3915390e4f4d8910ab789dd03ee7463f0b4e264161d3243d9e79",
    "judge-v1": "b95195a26da4fbd68fccb1963a0023d91dffd562c43af4e5d12588405f3fd697",
    "plain-v1": "22e399827075464d861656a5b637303d1bbb63ba450ae00d563c55e66301b167",
    "think-option-v1": "722dc19aac41f598b27eb24c87363d3489a34fcb48dc77d1398d5ef4ab22b6f7",
    "tiny-v1": "7529eb766372614986acd14d5f7cc783fc80a1b839a1345be97971c53dbcd6b8",
}
"""Of the packaged prompts: after a release a changed text is a new file, for it changes what a build asks."""
GOOD = "=== system ===\ns\n=== user ===\n{problem}\n{options}\nend\n"


def test_packaged_prompts_are_those_that_were_released() -> None:
    assert {name: load_prompt(name).sha256 for name in packaged_prompts()} == DIGESTS


@pytest.mark.parametrize("name", ["generate-v1", "generate-agnostic-v1"])
@pytest.mark.parametrize("kind", list(ProblemType))
def test_every_type_has_a_hint(kind: ProblemType, name: str) -> None:
    prompt = load_prompt(name)
    text = render_generate(prompt, problem="Why?", options=(), problem_type=kind)
    hint = prompt.hints.get(kind.value) or kind.traits.hint
    assert hint and hint in text and "{" not in text and "Options" not in text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with a line"),
        (b"{problem}", "begins with a line"),
        (b"=== system ===\nx\n", "has a user section"),
        (b"text\n=== user ===\n{problem}\n", "begins with a line"),
        (b"=== user ===\n{problem}\n=== footer ===\nx\n", "unknown sections: footer"),
        (b"=== user ===\n{problem}{hint}\n=== hint: poetry ===\nx\n", "unknown sections: hint: poetry"),
        (b"=== user ===\n{problem}\n=== user ===\n{problem}\n", "twice: user"),
        (b"=== user ===\nwhat?\n", r"no field \{problem\}"),
        (b"=== user ===\n{problem}\n=== hint: OCR ===\nx\n", r"no field \{hint\}"),
        (b"=== user ===\n{problem} {observation}\n", r"no field \{answer\}"),
        (b"=== user ===\n\xff{problem}\n", "not UTF-8"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "p.txt").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        load_prompt("p.txt", base=tmp_path)


@pytest.mark.parametrize("name", ["missing.txt", "no-such", "..", "a/b.txt", "nul\x00.txt", ""])
def test_a_prompt_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="neither packaged"):
        load_prompt(name, base=tmp_path)


def test_a_users_file_is_found_from_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "p.txt").write_text(GOOD)
    prompt = load_prompt("sub/p.txt", base=tmp_path)
    assert (prompt.name, prompt.system, prompt.user) == ("sub/p.txt", "s", "{problem}\n{options}\nend")
    assert prompt.sha256 == digest_bytes(GOOD.encode())
    assert load_prompt(str(tmp_path / "sub" / "p.txt")).sha256 == prompt.sha256


@pytest.mark.parametrize(
    "text",
    [GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD, GOOD.replace("===\n", "=== \n")],
)
def test_line_ends_and_a_mark_in_front_change_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.txt").write_bytes(text.encode())
    prompt = load_prompt("p.txt", base=tmp_path)
    assert (prompt.system, prompt.user) == ("s", "{problem}\n{options}\nend")


def test_fields_are_filled_once_and_what_is_filled_in_stays_text() -> None:
    fields = {"problem": "{options} {answer} \\1 {problem}", "options": "{problem}"}
    assert fill("{problem}|{options}|{other}", fields) == "{options} {answer} \\1 {problem}|{problem}|{other}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a\n{options}\nb", "a\nb"),
        ("{options}\nb", "b"),
        ("a {options}.", "a ."),
        ("{options}\n{hint}\nb", "b"),
    ],
)
def test_a_line_of_an_empty_field_goes(template: str, text: str) -> None:
    assert fill(template, {"options": "", "hint": ""}) == text


def test_a_type_without_a_hint_and_a_judge_prompt_cannot_generate(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("=== user ===\n{problem} {hint}\n=== hint: OCR ===\nx\n")
    with pytest.raises(ConfigError, match="hint: numerical"):
        render_generate(
            load_prompt("p.txt", base=tmp_path), problem="?", options=(), problem_type="numerical"
        )
    with pytest.raises(ConfigError, match="cannot generate"):
        render_generate(load_prompt("judge-v1"), problem="?", options=(), problem_type="OCR")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("=== user ===\n{problem}\n{question}\n", r"has \{question\}, .*did you mean \{problem\}\?"),
        ("=== user ===\n{problem}\n\n{Choices}\n", r"line 3 of the section: .*\{Choices\}.*\{options\}"),
        ("=== user ===\n{problem}\n{Answer} {observation} {answer}", r"\{Answer\}.*did you mean \{answer\}"),
        ("=== user ===\n{problem}\n{answer}\n", r"\{answer\}, which nothing fills in"),
        ("=== user ===\n{problem} {observation} {answer} {hint}\n", r"\{hint\}.*judge"),
        ("=== user ===\n{problem} { options }\n", r"\{ options \}"),
        ("=== user ===\n{{problem}} {{subject}}\n", r"\{subject\}"),
        ("=== system ===\nAbout {problem}\n=== user ===\n{problem}\n", "only the user section has fields"),
        ("=== user ===\n{problem}{hint}\n=== hint: OCR ===\n{unit}\n", r"hint: OCR section has \{unit\}"),
    ],
)
def test_braces_that_nothing_fills_in_are_an_error_that_names_them(
    tmp_path: Path, data: str, message: str
) -> None:
    (tmp_path / "p.txt").write_text(data)
    with pytest.raises(ConfigError, match=r"(?s)" + message):
        load_prompt("p.txt", base=tmp_path)


@pytest.mark.parametrize(
    "text", ['{"a": 1}', r"\boxed{n}", r"\frac{a}{b}", "{ name }", "{}", "{1}", "{a, b}", "{\nx\n}", "f(x){"]
)
def test_other_braces_are_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.txt").write_text(f"=== system ===\n{text}\n=== user ===\n{{problem}} {text}\n")
    prompt = load_prompt("p.txt", base=tmp_path)
    assert text in render_generate(prompt, problem="?", options=(), problem_type="OCR")
