"""The labelled answers of benchmarks/graders, and what our own graders make of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.graders import ours
from benchmarks.graders.answers import LABELS, Answer, all_answers
from tests.shared import samples_dir

SAMPLES = samples_dir()
PAGE = Path(__file__).parents[2] / "docs" / "graders.md"
needs_samples = pytest.mark.skipif(SAMPLES is None, reason="no folder of real outputs")


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    assert SAMPLES is not None
    return all_answers(SAMPLES)


def test_labels_hold_ids_digests_and_readings_alone() -> None:
    head, *lines = LABELS.read_text(encoding="utf-8").splitlines()
    assert head.split("\t") == ["completion", "sha256", "read", "label"] and len(lines) >= 400
    for line in lines:
        key, digest, read, label = line.split("\t")
        assert re.fullmatch(r"[\w/]+#\d+", key) and re.fullmatch(r"[0-9a-f]{16}", digest), line
        assert re.fullmatch(r"[-?]|[A-Z](, [A-Z])*|\d+(\.\d+)?|Yes|(non-)?sarcasm", read), line
        assert label in ("right", "wrong", "unclear", "."), line
    assert len({line.split("\t")[0] for line in lines}) == len(lines)


@needs_samples
def test_there_are_enough_and_they_are_the_same_every_time(answers: list[Answer]) -> None:
    assert SAMPLES is not None
    assert answers == all_answers(SAMPLES) and len({answer.id for answer in answers}) == len(answers)
    groups = Counter(answer.group for answer in answers)
    assert groups["hand"] >= 400 and groups["made"] >= 1500 and len(answers) >= 2000
    for group in groups:
        assert {answer.right for answer in answers if answer.group == group} == {True, False}


@needs_samples
def test_what_ours_takes_wrongly_is_what_the_page_explains(answers: list[Answer]) -> None:
    known = {answer.id: answer for answer in answers}
    wrong: Counter[tuple[str, str, bool]] = Counter()
    for said in ours.verdicts(answers):
        answer = known[said["id"]]
        if said["grader"] == "ours, evaluation" and said["verdict"] != answer.right:
            wrong[answer.kind, answer.form, answer.right] += 1
    assert wrong == {
        ("letter", "real: formats/twgrpo_rollouts_format", True): 4,
        ("letters", "real: formats/twgrpo_rollouts_format", True): 2,
        ("number", "another unit", False): 11,
        ("number", "real: formats/vision_sr1_format", True): 1,
        ("number", "real: out_videorft3b_videommmu", True): 1,
        ("ratings", "real: out_fork_rollouts_quality", False): 13,
        ("text", "negated", False): 5,
    }
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| {form} |" in text for _, form, _ in wrong)
