"""The reader of conclusions on its own: what is claimed, what stays open, and that no text is too much for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.validators.choice import read_several
from videop2r_data.validators.conclusions import Cue, conclusions, figure, last_sentence
from videop2r_data.validators.options import (
    by_text,
    named_option,
    option_set,
    predicate_option,
    same_option,
    settled_option,
)

PETS = option_set(("A. cat", "B. dog", "C. bird"))

READ: tuple[tuple[str, list[tuple[str, str, bool]]], ...] = (
    ("It barks.", []),
    ("The answer is B.", [("answer", "B", False)]),
    ("The answer is B because it barks.", [("answer", "B because it barks", False)]),
    ("**Answer**: B", [("answer", "B", False)]),
    ("The best option is B.", [("option", "B", False)]),
    ("So \\(\\boxed{\\text{B}}\\).", [("boxed", "\\text{B}", False)]),
    ("\\boxed{\\frac{1}{2}", [("boxed", "\\frac{1}{2}", False)]),
    ("I would go with B.", [("pick", "B", False)]),
    ("Option B: dog is the right answer.", [("right", "B: dog", False)]),
    ("There are 5 balls in the box.", [("count", "5 balls in the box", False)]),
    ("The answer is 3.5 m.", [("answer", "3.5 m", False)]),
    ("The answer is A. aldose.", [("answer", "A. aldose", False)]),
    ("If so, the answer is B.", [("answer", "B", True)]),
    ("The answer is B?", [("answer", "B", True)]),
    ("The answer is B. Wait.", [("answer", "B", True)]),
    ("答案是B，因为天空是蓝色的。", [("answer", "B，因为天空是蓝色的", False)]),
    ("答案是B吗", [("answer", "B吗", True)]),
    ("答えはBではありません。", [("answer", "Bではありません", True)]),
    ("Bが正解です。", [("right", "B", False)]),
    ("一共有5个球。", [("count", "5个球", False)]),
)


@pytest.mark.parametrize(("text", "found"), READ)
def test_claims_and_what_stays_open(text: str, found: list[tuple[str, str, bool]]) -> None:
    assert [(str(c.cue), c.claim, c.open) for c in conclusions(text)] == found


FIGURES = (
    ("The answer is 5,000 because it is printed.", "5,000"),
    ("There are exactly 5 red balls on the table.", "5 red balls"),
    ("The answer is 5, not 6.", "5"),
    ("The answer is $7$.", "$7$"),
    ("答案是5个，因为有5个人。", "5个"),
    ("答えは5個です。", "5個"),
)


@pytest.mark.parametrize(("text", "number"), FIGURES)
def test_the_part_of_a_claim_that_holds_the_number(text: str, number: str) -> None:
    assert figure(conclusions(text)[0]) == number


def test_a_number_is_counted_apart() -> None:
    """A count is no option's letter, so that readers of options can pass it over."""
    assert [c.cue for c in conclusions("I see 5 balls, a total of 5.")] == [Cue.COUNT, Cue.COUNT]


def test_options_are_one_only_if_their_raw_texts_are() -> None:
    pairs = [("AA", "Aa"), ("CO", "Co"), ("mW", "MW"), ("5", ".5"), ("n", "n!"), ("10²", "102"), ("x", "X"),
             ("left", "left."), ("ａ", "a"), ('"a"', "a"), ("C++", "C"), ("-5", "5")]  # fmt: skip
    for a, b in pairs:
        known = option_set((f"A. {a}", f"B. {b}"))
        assert not same_option("A", "B", known), (a, b)
        assert (by_text(a, known), by_text(b, known)) == ("A", "B")
    twins = option_set(("A. left", "B. left "))
    assert same_option("A", "B", twins)


_WORDS = [
    "the answer is", "Answer:", "option", "A", "B.", "(C)", "cat", "dog", "is correct", "I choose", "not", "or", "and",
    "\\boxed{", "}", "because", ",", ".", "?", "\n", "wait", "there are", "5", "答案是", "选", "不", "或", "。", "答えは",
    "です", "か", "正解", "yes", "no", "Caption A:", "most likely", "aligns with", "the",
]  # fmt: skip
sentences = st.lists(st.sampled_from(_WORDS), max_size=16).map(" ".join)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(sentences, st.text(max_size=120)),
    st.lists(st.one_of(sentences, st.text(max_size=20)), max_size=5),
)
def test_no_text_raises(text: str, options: list[str]) -> None:
    known = option_set(tuple(options))
    for one in conclusions(text):
        label = named_option(one.claim, known)
        assert label is None or label in known.labels
        figure(one)
    for label in (predicate_option(text, known), settled_option(last_sentence(text), known)):
        assert label is None or label in known.labels
    assert (read_several(text, known) or frozenset()) <= known.labels.keys()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece", ["the answer is ", "\\boxed{", "I choose ", "B is correct ", "选B", "there are ", "A, "]
)
def test_a_megabyte_is_read(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    assert all(one.claim in text for one in conclusions(text))
    assert last_sentence(text) in text
    assert read_several(text, PETS) is None
