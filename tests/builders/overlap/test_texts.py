"""Wordings: equal, similar, and found among many."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.builders.overlap.texts import NEAR, Texts, alike, near_texts


def texts(*asked: tuple[str, tuple[str, ...]]) -> Texts:
    found = Texts()
    for question, options in asked:
        found.add(question, options)
    return found


def similarity(one: tuple[str, tuple[str, ...]], two: tuple[str, tuple[str, ...]]) -> float:
    found = texts(one, two)
    return alike(found.words(found.text[0]), found.words(found.text[1]))


def test_equal_up_to_case_marks_labels_and_order_of_options() -> None:
    found = texts(
        ("Who runs?", ("A. the dog", "B. the cat")),
        ("who RUNS", ("(A) The cat.", "(B) the dog!")),
        ("Who runs?", ("A. the dog", "B. the cow")),
        ("Who runs", ()),
    )
    assert found.wording[0] == found.wording[1]
    assert len(set(found.wording)) == 3
    assert len(found) == 3


def test_similarity_by_hand() -> None:
    # numbers are told apart whole
    assert similarity(("How is clip 12345?", ()), ("How is clip 12346?", ())) == 0.0
    # common: man, open, door (3); only in one: slow, boy (2)
    assert (
        similarity(("Does the man slowly open the door?", ()), ("A door opens; is it the boy or a man?", ()))
        == 3 / 5
    )
    # options count: colo, ball, red, blue against colo, cube, red, blue
    assert (
        similarity(("What colour is the ball?", ("red", "blue")), ("Colour of the cube?", ("blue", "red")))
        == 3 / 5
    )


@pytest.mark.parametrize("question", ["?!", "Who is it?", "他在做什么"])
def test_questions_without_words_of_their_own_are_equal_to_themselves_alone(question: str) -> None:
    found = texts((question, ()), (question, ()), ("Where does the dog run?", ()))
    assert found.text[0] == found.text[1] != found.text[2]
    assert [score for *_, score in near_texts(texts((question, ())), texts((question, ())))] == [1.0]
    assert not list(near_texts(texts((question, ())), texts(("Where does the dog run?", ()))))


WORDS = st.lists(
    st.sampled_from([f"{a}{b}" for a, b in product("bcdfghjk", "lmnpqrst")]), min_size=3, max_size=12
)


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=20), st.lists(WORDS, min_size=1, max_size=20))
def test_pairs_are_those_of_comparing_all(left: list[list[str]], right: list[list[str]]) -> None:
    """What is found is right, and what is well above the limit is found."""
    mine, theirs = (texts(*((" ".join(words), ()) for words in side)) for side in (left, right))
    found = {(a, b): score for a, b, score in near_texts(mine, theirs)}
    for a, b in product(range(len(mine)), range(len(theirs))):
        score = alike(mine.words(a), theirs.words(b))
        if (a, b) in found:
            assert found[a, b] == score >= NEAR
        assert score < 0.9 or (a, b) in found


def test_a_crowd_of_alike_texts_costs_each_text_a_few_partners() -> None:
    rng = random.Random(0)
    crowd = [
        ("count the red round small things in front of the box " + str(rng.random()), ()) for _ in range(3000)
    ]
    found = list(near_texts(texts(*crowd), texts(*crowd[:50])))
    assert {b for _, b, _ in found} == set(range(50))
    assert len({a for a, _, _ in found}) == 3000
    assert len(found) < 3000 * 16 * 32
