"""Real references, as pools and benchmarks print them: each is read, and scores 1 against itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.shared import samples_dir
from videop2r_data.schemas import ProblemType
from videop2r_data.validators import check_reference, score

Question = tuple[str, str, tuple[str, ...]]


def _rows(name: str) -> Iterator[dict[str, Any]]:
    folder = samples_dir()
    if folder is None:
        pytest.skip("no folder of real rows")
    for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _mmvu() -> Iterator[Question]:
    for row in _rows("official_mmvu_validation"):
        if row["question_type"] == "multiple-choice":
            yield (
                "multiple choice",
                row["answer"],
                tuple(f"{k}. {v}" for k, v in row["choices"].items() if v),
            )
        else:
            yield "free-form", row["answer"], ()


def _videommmu() -> Iterator[Question]:
    for row in _rows("official_videommmu"):
        if row["options"]:
            yield "multiple choice", row["answer"], tuple(row["options"])


def _vsibench() -> Iterator[Question]:
    for row in _rows("official_vsibench"):
        options = tuple(row["options"] or ())
        yield ("multiple choice" if options else "regression"), row["ground_truth"], options


def _geoqa() -> Iterator[Question]:
    for row in _rows("videor1_geoqa_prompts"):
        yield "numerical", str(row["ground_truth"]), ()


def _superclevr() -> Iterator[Question]:
    for row in _rows("videor1_superclevr_counts"):
        yield "numerical", str(row["ground_truth"]), ()


def _video_r1(name: str) -> Iterator[Question]:
    for row in _rows(name):
        yield row["problem_type"], row["solution"], tuple(row["options"])


POOLS = {
    "mmvu": (_mmvu, 70),
    "videommmu": (_videommmu, 60),
    "vsibench": (_vsibench, 9),
    "geoqa": (_geoqa, 90),
    "superclevr": (_superclevr, 30),
    "twgrpo_mmvu": (lambda: _video_r1("twgrpo_eval_mmvu"), 170),
    "twgrpo_mvbench": (lambda: _video_r1("twgrpo_eval_mvbench"), 330),
    "twgrpo_videomme": (lambda: _video_r1("twgrpo_eval_videomme"), 200),
    "video_r1": (lambda: _video_r1("videor1_train_readme_row"), 1),
}


@pytest.mark.parametrize("name", list(POOLS))
def test_every_reference_is_read_and_scores_one_against_itself(name: str) -> None:
    source, at_least = POOLS[name]
    questions = list(source())
    assert len(questions) >= at_least
    for kind, reference, options in questions:
        assert check_reference(kind, reference, options) is None, (kind, reference, options)
        found = score(kind, prediction=reference, reference=reference, options=options)
        assert found.value == 1.0, (kind, reference, found)


def test_another_option_is_wrong_unless_it_reads_the_same() -> None:
    for kind, reference, options in _mmvu():
        if kind != ProblemType.MULTIPLE_CHOICE:
            continue
        for option in options:
            found = score(kind, prediction=option, reference=reference, options=options)
            assert found.value == float(option.startswith(f"{reference}.")), (option, reference, found)


def test_counts_are_told_apart() -> None:
    counts = [int(reference) for _, reference, _ in _superclevr()]
    for right in set(counts):
        for given in set(counts):
            found = score("numerical", prediction=f"{given} items", reference=str(right))
            assert found.value == float(given == right)


@pytest.mark.parametrize(
    ("given", "reference"),
    [
        ("110", "110\u00b0"),
        ("110 degrees", "110\u00b0"),
        ("110.0\u00b0", "110\u00b0"),
        ("$110^\\circ$", "110\u00b0"),
    ],
)
def test_degrees_as_models_print_them(given: str, reference: str) -> None:
    assert score("numerical", prediction=given, reference=reference).value == 1.0
