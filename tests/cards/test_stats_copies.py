"""Near-copies against similarities worked out by hand."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.cards.figures.copies import Copies, CopyWatch, MinHashes
from videop2r_data.validators import HASHES

WORDS = [f"w{n}" for n in range(400)]


def text(seed: int, length: int = 60) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def found(texts: list[str], salts: list[bytes] | None = None, **limits: int) -> Copies:
    column = MinHashes(**limits)
    for row, one in enumerate(texts):
        column.add(row, one, salts[row] if salts else b"")
    return column.copies(by_salt=salts is not None)


def test_the_same_words_are_the_same_text_up_to_case_and_punctuation() -> None:
    copies = found(["The ball is red, so seven.", "the BALL is red -- so seven!", "Another text it is"])
    assert copies.texts == 3
    assert copies.rows == {"0.7": 2, "0.8": 2, "0.9": 2, "1": 2}
    assert (copies.groups, copies.largest, copies.largest_sizes) == (1, [[0, 1]], [2])


def test_the_similarity_is_that_of_jaccard_over_three_words() -> None:
    # 60 words have 58 shingles; changing the last word changes one: 57 of 59 are shared, 0.966
    base = text(1)
    near = [*base[:-1], "other"]
    # changing words 10 and 40 changes three shingles each: 52 shared of 64, 0.8125 - near 0.8, so not tested;
    # changing 10, 20, 30, 40 leaves 46 of 70: 0.657
    far = [w if at not in (10, 20, 30, 40) else f"x{at}" for at, w in enumerate(base)]
    assert found([" ".join(base), " ".join(near)]).rows == {"0.7": 2, "0.8": 2, "0.9": 2, "1": 0}
    assert found([" ".join(base), " ".join(far)]).rows["0.9"] == 0


def test_the_estimate_is_close_to_the_truth_on_average() -> None:
    exact, estimated = [], []
    for seed in range(60):
        base = text(seed, 80)
        changed = set(random.Random(seed + 1000).sample(range(80), 3))
        other = [w if at not in changed else f"y{at}" for at, w in enumerate(base)]
        left, right = ({tuple(t[i : i + 3]) for i in range(78)} for t in (base, other))
        exact.append(len(left & right) / len(left | right))
        column = MinHashes(seed=seed)
        column.add(0, " ".join(base))
        column.add(1, " ".join(other))
        column._hash()
        signatures = np.concatenate(column._signatures)
        estimated.append(float((signatures[0] == signatures[1]).mean()))
    # the mean of 60 estimates of standard error 0.05 lies within 4 of 0.05/sqrt(60)
    assert abs(np.mean(exact) - np.mean(estimated)) < 4 * 0.05 / 60**0.5


def test_only_equal_texts_are_the_same_not_those_whose_hashes_agree() -> None:
    base = text(3, 1500)
    near = [*base[:-1], "other"]  # one shingle of 1,500: in all likelihood all 64 hashes agree
    assert found([" ".join(base), " ".join(near)]).rows == {"0.7": 2, "0.8": 2, "0.9": 2, "1": 0}


def test_short_texts_are_one_shingle() -> None:
    assert found(["yes", "Yes.", "no", "red ball", "ball red"]).rows["1"] == 2


def test_only_equal_salts_are_compared() -> None:
    same = ["what is it now"] * 4
    copies = found(same, [b"a", b"b", b"a", b"c"])
    assert copies.rows["1"] == 2 and copies.largest == [[0, 2]]


def test_a_run_of_equal_texts_is_one_group_with_few_members_named() -> None:
    texts = [" ".join(text(n)) for n in range(300)] + ["all of these rows say the same"] * 700
    copies = found(texts)
    assert copies.rows["1"] == 700 and copies.groups == 1
    assert copies.largest == [[300, 301, 302, 303, 304]] and copies.largest_sizes == [700]


def test_groups_are_chains_the_largest_first() -> None:
    base, other = text(5), text(6)
    steps = [[*base[:-1], f"z{n}"] for n in range(3)]
    texts = [" ".join(words) for words in (other, *steps, other, text(7))]
    copies = found(texts)
    assert copies.largest == [[1, 2, 3], [0, 4]] and copies.largest_sizes == [3, 2]


def test_beyond_the_limit_texts_are_counted_not_compared() -> None:
    copies = found(["a b c d"] * 5, limit=3)
    assert (copies.texts, copies.left_out, copies.rows["1"]) == (3, 2, 3)


def test_nothing_to_compare() -> None:
    copies = found(["", "?!"])
    assert copies.texts == 0 and copies.rows == {"0.7": 0, "0.8": 0, "0.9": 0, "1": 0}


def row(**cells: Any) -> dict[str, Any]:
    return {"problem": "Which ball is red?", "options": ["A. left", "B. right"], "path": "a.mp4"} | cells


def test_questions_are_compared_with_their_options_and_apart_by_file() -> None:
    watch = CopyWatch()
    for cells in (row(), row(path="./a.mp4"), row(path="b.mp4"), row(options=["A. up", "B. down", "C. no"])):
        watch.see(cells, "I see it", None)
    copies = watch.copies()
    assert copies["question"].rows["1"] == 3
    assert copies["question, same file"].rows["1"] == 2
    assert copies["perception"].rows["1"] == 4
    assert copies["reasoning"].texts == 0


def test_a_column_of_a_hundred_thousand_words_is_cut() -> None:
    copies = found(["red ball " * 50_000, "red ball " * 60_000])
    assert copies.rows["1"] == 2


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_any_text_is_taken(texts: list[str], seed: int) -> None:
    column = MinHashes(seed=seed)
    for at, one in enumerate(texts):
        column.add(at, one)
    copies = column.copies()
    assert copies.texts <= len(texts)
    levels = list(copies.rows.values())
    assert levels == sorted(levels, reverse=True) and levels[0] <= copies.texts
    assert sum(copies.largest_sizes) <= copies.texts


@pytest.mark.parametrize(
    "cells", [row(problem=None), row(problem=3, options="x", path=7), row(path="\ud800")]
)
def test_cells_of_other_types_are_left_out(cells: dict[str, Any]) -> None:
    watch = CopyWatch()
    watch.see(cells, None, None)
    assert sum(c.texts for c in watch.copies().values()) in (0, 2)


def test_the_order_of_batches_does_not_matter() -> None:
    texts = [" ".join(text(n % 40)) for n in range(700)]  # more than one batch of hashing
    copies = found(texts)
    assert copies.rows["1"] == 700 and copies.groups == 40
    assert HASHES == 64
