"""The exact judge: what it reads out of a text, and what is enough."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.demo.test_scenes import one_object
from videop2r_data.demo import iter_scenes, observation_is_sufficient
from videop2r_data.demo.scene import Key, Question, Scene, stream, truth
from videop2r_data.demo.statements import Claim, holds, read_claims, state, twist
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.schemas.sample import ProblemType


def ask(*needs: Key) -> Question:
    return Question(
        kind="direction", problem_type=ProblemType.NUMERICAL, problem="?", answer="1", needs=(needs,)
    )


MOTION: Key = ("motion", "red square")


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        ("The red square moves to the right.", True),
        ("the red square is moving right", True),
        ("I see a red square. It drifts rightwards.", True),
        ("A small red square travels slowly to the right side.", True),
        ("The red square does not move to the left. It goes right.", True),
        ("The red square moves from the left side to the right.", True),
        ("The red square moves from right to left.", False),
        ("The red square moves to the top.", False),
        ("The red square moves to the left.", False),
        ("The red square moves right or left.", False),
        ("The red square moves right. The red square moves left.", False),
        ("The red square does not move.", False),
        ("The red square does not move right.", False),
        ("The red square moves.", False),
        ("The blue square moves right.", False),
        ("The red square moves right, and a green circle stays still.", False),
        ("There are two shapes. The red square moves right.", False),
        ("There is one shape. The red square moves right.", True),
        ("A large red square moves right.", False),
        ("Based on the question, I need to notice whether the red square moves right.", False),
        ("Does the red square move right?", False),
        ("The red square lies left of nothing and moves right.", True),
        ("<judgement>Yes</judgement> The observation is sufficient.", False),
        ("<judgement>Yes</judgement> The red square moves right.", True),
        ("", False),
    ],
)
def test_motion(text: str, enough: bool) -> None:
    assert observation_is_sufficient(one_object(), ask(MOTION), text) is enough


def test_times_with_tolerance() -> None:
    question = ask(("appear", "red square"), ("vanish", "red square"))
    scene = one_object()  # shown from 0.5 s to 1.5 s, 4 frames per second: tolerance 0.175 s
    for text, enough in (
        ("The red square is visible from 0.5 s to 1.5 s.", True),
        ("The red square is visible between 0.6 and 1.4 seconds.", True),
        ("The red square appears at 0.5 s and disappears at 1.5 s.", True),
        ("The red square appears at 0.5 s.", False),
        ("The red square is visible from 0.5 s to 1.8 s.", False),
        ("The red square is visible throughout the clip.", False),
    ):
        assert observation_is_sufficient(scene, question, text) is enough, text


def test_claims_of_counts_texts_and_levels() -> None:
    found = read_claims(
        'There are 3 red circles and no crosses. The sign reads "NORTH 12". '
        "At the start the bar is 20 percent full and at the end 75%."
    )
    assert found == [
        Claim(("count", "red circle"), 3),
        Claim(("count", "cross"), 0),
        Claim(("text", ""), "NORTH 12"),
        Claim(("level", "start"), 20.0),
        Claim(("level", "end"), 75.0),
    ]
    assert read_claims("Both of the two shapes are there.") == []
    assert read_claims("There is no green ring.")[-1] == Claim(("exists", "green ring"), False)


def facts(scene: Scene, question: Question) -> list[Key]:
    names = [o.name for o in scene.objects]
    kinds = ("motion", "pace", "size", "place", "box", "appear", "vanish", "exists")
    keys: list[Key] = [(kind, name) for kind in kinds for name in names]
    keys += [("count", s) for s in ("all", "red", "moving", "still", *names)] if names else []
    keys += [("text", ""), ("level", "start"), ("level", "end"), ("level", "now")]
    keys += [("beside", f"{a}|{b}") for a in names for b in names]
    return [*keys, *(key for need in question.needs for key in need)]


def test_every_statement_is_read_back_exactly_and_every_twist_is_false() -> None:
    checked = 0
    for sample in islice(iter_scenes(DemoSpec()), 0, 900, 3):
        scene = sample.scene
        for key in facts(scene, sample.question):
            value = truth(scene, key)
            if value is None or (key[0] == "level" and key[1] == "now" and scene.medium == "video"):
                continue
            for wording in range(3):
                rng = stream(scene.index, key, wording)
                said = state(key, value, rng, scene)
                claims = read_claims(said)
                assert all(holds(scene, c) is not False for c in claims), (said, claims)
                assert observation_is_sufficient(scene, ask(key), said), (said, claims)
                lie = state(*twist(scene, key, rng), rng, scene)
                assert not observation_is_sufficient(scene, ask(key), f"{said} {lie}"), (said, lie)
                checked += 1
    assert checked > 5000


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=400), st.integers(0, 20))
def test_no_text_raises(text: str, at: int) -> None:
    sample = next(islice(iter_scenes(DemoSpec()), at, None))
    assert observation_is_sufficient(sample.scene, sample.question, text) in (True, False)
    things = ["red", "circle", "square", "sign", "bar", "it", "one", "no", "of", "start", "50%", "[1,2,3,4]"]
    words = [*things, "moves", "not", "left", "right", "or", "from", "1", "s", "to", "2.5", '"', "."]
    mixed = " ".join(words[ord(c) % len(words)] for c in text)
    assert observation_is_sufficient(sample.scene, sample.question, mixed) in (True, False)


def test_huge_numbers_and_long_junk_are_read_in_passing() -> None:
    for junk in (
        "9" * 7_900 + " shapes",
        "the red square " * 500,
        '"' * 7_999,
        "the red square " + "not moves left " * 500,
        "٣ shapes",
        "a" * 10**6,
        "The red square moves right. " * 1_000,  # true, but longer than any observation may be
    ):
        assert not observation_is_sufficient(one_object(), ask(MOTION), junk)
