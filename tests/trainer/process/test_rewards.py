"""Rewards, part by part, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.process.test_masks import EOS, TABLE, ids_of
from videop2r_data.trainer.process.masks import segment_masks
from videop2r_data.trainer.process.rewards import Graded, dynamic_bounds, grade, rewards_of, temporal_bonus
from videop2r_data.trainer.settings.rl import (
    DynamicLengthSpec,
    ObjectiveSpec,
    RewardSpec,
    Style,
    TemporalSpec,
)

OFF = RewardSpec(length="off")


def row(
    acc_p: float | None = 1.0, acc_r: float | None = 1.0, p: int = 200, r: int = 400, **forms: bool
) -> Graded:
    form_p, form_r = forms.get("form_p", True), forms.get("form_r", True)
    has = {"perception": form_p, "reasoning": form_r}
    return Graded(acc_p, acc_r, has, form_p and form_r, {"perception": p, "reasoning": r})


def one(graded: Graded, spec: RewardSpec | None = None) -> tuple[float, ...]:
    """R_P, R_R, their sum and the plain reward of one rollout."""
    table = rewards_of([graded], spec or RewardSpec(), 1)
    columns = (table.of("p")[0], table.of("r")[0], table.total[0], table.plain[0])
    return tuple(round(x.item(), 6) for x in columns)


def test_each_process_pays_for_its_own_format_only() -> None:
    table = rewards_of([row(form_r=False), row(form_p=False)], OFF, 2)
    assert table.of("p")[0].tolist() == [2.0, 1.0]  # accuracy 1, and the format where it is P's own
    assert table.of("r")[0].tolist() == [1.0, 2.0]
    assert table.plain[0].tolist() == [1.0, 1.0]  # GRPO pays for the whole template


def test_everything_right_earns_two_point_two_each() -> None:
    # R_P = 1 + 1 + 0.2, R_R = 1 + 1 + 0.2; plain = acc_R + whole template + len_R = 2.2
    assert one(row()) == (2.2, 2.2, 4.4, 2.2)


@pytest.mark.parametrize(("p", "paid"), [(127, 0.0), (128, 0.2), (320, 0.2), (321, 0.0)])
def test_bounds_of_p_are_inclusive(p: int, paid: float) -> None:
    assert one(row(p=p))[0] == 2.0 + paid


@pytest.mark.parametrize(("r", "paid"), [(319, 0.0), (320, 0.2), (512, 0.2), (513, 0.0)])
def test_bounds_of_r_are_inclusive(r: int, paid: float) -> None:
    assert one(row(r=r))[1] == 2.0 + paid


def test_length_is_paid_only_with_accuracy_and_format() -> None:
    assert one(row(acc_p=0.0))[0] == 1.0  # form alone
    assert one(row(form_p=False))[0] == 1.0  # accuracy alone
    assert one(row(acc_r=0.0))[1] == 1.0
    assert one(row(form_r=False))[1] == 1.0
    assert one(row(acc_r=0.1))[1] == 1.3  # any accuracy above 0 will do: 0.1 + 1 + 0.2


def test_plain_pays_the_whole_template_only() -> None:
    # P's template is broken: R_R keeps its format, GRPO's reward loses it and the length with it
    assert one(row(form_p=False)) == (1.0, 2.2, 3.2, 1.0)


def test_unscored_is_no_zero() -> None:
    table = rewards_of([row(acc_p=None), row(acc_r=None)], RewardSpec(), 2)
    assert table.scored["p"].tolist() == [False, True]
    assert table.scored["r"].tolist() == [True, False]
    assert table.total[1].tolist() == [False, False]
    assert table.of("p")[0].tolist() == pytest.approx([0.0, 2.2])
    assert table.of("r")[0].tolist() == pytest.approx([2.2, 0.0])
    assert table.total[0].tolist() == [0.0, 0.0]
    assert table.components["length_p"].tolist() == [0.0, 0.2]


def test_weights_and_no_length() -> None:
    spec = RewardSpec(accuracy=2.0, form=0.5, length_bonus=0.1)
    assert one(row(), spec) == (2.6, 2.6, 5.2, 2.6)
    table = rewards_of([row()], RewardSpec(), 1, objective=ObjectiveSpec(name="no-length"))
    assert (table.of("p")[0].item(), table.of("r")[0].item()) == (2.0, 2.0)
    assert one(row(), OFF) == (2.0, 2.0, 4.0, 2.0)


def test_rewards_stay_with_their_rollout_and_groups_are_whole() -> None:
    accs = [1.0, 0.0, 0.5, 0.25, 0.0, 1.0]
    table = rewards_of([row(acc_p=0.0, acc_r=a) for a in accs], OFF, 3)
    assert table.of("r")[0].tolist() == [2.0, 1.0, 1.5, 1.25, 1.0, 2.0]
    with pytest.raises(ValueError, match="6 rollouts are no whole groups of 4"):
        rewards_of([row()] * 6, OFF, 4)


# --- dynamic length --------------------------------------------------------------------------------------


def test_dynamic_bounds_by_hand() -> None:
    # sorted 100, 110, 130, 400: q25 = 100 + 0.75 * 10 = 107.5, q75 = 130 + 0.25 * 270 = 197.5; no slack
    assert dynamic_bounds([400, 100, 130, 110], DynamicLengthSpec(slack=0.0)) == (107, 198)
    # with 10 %: 96.75 -> 96, 217.25 -> 218
    assert dynamic_bounds([400, 100, 130, 110], DynamicLengthSpec()) == (96, 218)


def test_dynamic_length_follows_the_group() -> None:
    spec = RewardSpec(length="dynamic")
    short = [row(r=n) for n in (20, 20, 20, 90)]  # q25 20, q75 20 + 0.25 * 70 = 37.5 -> [18, 42]
    long = [row(r=n) for n in (900, 900, 900, 20)]  # q25 680, q75 900 -> [612, 990]
    paid = rewards_of([*short, *long], spec, 4).components["length_r"]
    assert paid.tolist() == [0.2, 0.2, 0.2, 0.0, 0.2, 0.2, 0.2, 0.0]


def test_too_few_correct_rollouts_say_nothing_about_length() -> None:
    rows = [row(acc_r=1.0), row(acc_r=1.0), row(acc_r=0.0), row(form_r=False)]
    assert rewards_of(rows, RewardSpec(length="dynamic"), 4).components["length_r"].sum() == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 2000), min_size=3, max_size=16))
def test_dynamic_bounds_hold_the_median(lengths: list[int]) -> None:
    bounds = dynamic_bounds(lengths, DynamicLengthSpec())
    assert bounds is not None
    middle = sorted(lengths)[len(lengths) // 2]
    assert bounds[0] <= middle <= bounds[1]


# --- T-GRPO ----------------------------------------------------------------------------------------------


def test_the_temporal_bonus_by_hand() -> None:
    spec = TemporalSpec()
    # p = 1/2, shuffled 1/2: 0.5 >= 0.8 * 0.5
    assert temporal_bonus([1.0, 0.0], [0.0, 1.0], spec) == [0.3, 0.0]
    # p = 1/2, shuffled 5/8: 0.5 >= 0.5, just enough
    assert temporal_bonus([1.0, 0.0], [1, 1, 1, 1, 1, 0, 0, 0], spec) == [0.3, 0.0]
    # p = 1/2, shuffled 3/4: 0.5 < 0.6
    assert temporal_bonus([1.0, 0.0], [1, 1, 1, 0], spec) == [0.0, 0.0]
    # margin 1: no worse than shuffled
    assert temporal_bonus([1.0, 0.0], [1, 1, 1, 1, 1, 0, 0, 0], TemporalSpec(margin=1.0)) == [0.0, 0.0]
    # unscored rollouts count in neither share; 0.1 is not above 0.1
    assert temporal_bonus([1.0, None, 0.1], [None, 1, 0], spec) == [0.3, 0.0, 0.0]
    assert temporal_bonus([1.0], [None], spec) == [0.0]


def test_t_grpo_pays_videos_only() -> None:
    objective = ObjectiveSpec(name="t-grpo")
    rows = [row(acc_r=1.0, r=10), row(acc_r=0.0, r=10)] * 2
    table = rewards_of(rows, RewardSpec(), 2, objective=objective, shuffled=[[0.0], None])
    # video: 1 + 1 + 0.3, 0 + 1; image: 1 + 1, 0 + 1
    assert table.plain[0].tolist() == pytest.approx([2.3, 1.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="got none for 2 prompts"):
        rewards_of(rows, RewardSpec(), 2, objective=objective)
    with pytest.raises(ValueError, match="got 1 for 2 prompts"):
        rewards_of(rows, RewardSpec(), 2, objective=objective, shuffled=[None])
    with pytest.raises(ValueError, match="'pa-grpo' reads none"):
        rewards_of(rows, RewardSpec(), 2, shuffled=[None, None])


def test_the_size_of_the_shuffled_group() -> None:
    assert [TemporalSpec().shuffled_size(g) for g in (1, 2, 8)] == [1, 1, 4]
    assert TemporalSpec(shuffled=8).shuffled_size(4) == 8


# --- grading a completion --------------------------------------------------------------------------------


def graded(text: str, reference: str = "B", style: Style = "process") -> Graded:
    masks = segment_masks([*ids_of(text), EOS], TABLE, style=style)
    return grade(masks, problem_type="multiple choice", reference=reference, options=["A. x", "B. y"])


def test_a_good_completion() -> None:
    got = graded("<observation>two red</observation> <think>so B</think><answer>B</answer>")
    assert (got.acc_p, got.acc_r, got.forms["perception"], got.forms["reasoning"], got.form) == (
        None,
        1.0,
        True,
        True,
        True,
    )
    assert (got.observation, got.answer, got.fault) == ("two red", "B", None)
    # each byte is a token here: 13 + 7 + 14, and 1 + 7 + 4 + 8 + 8 + 1 + 9; words of the table are one token
    assert got.lengths["perception"] == 13 + len("two red") + 14
    assert got.judged(True).acc_p == 1.0
    assert got.judged(False).acc_p == 0.0
    assert got.judged(None).acc_p is None


def test_no_observation_is_a_zero_that_no_judge_can_change() -> None:
    got = graded("<think>so B</think><answer>B</answer>")
    assert (got.acc_p, got.acc_r, got.forms["perception"], got.forms["reasoning"], got.form) == (
        0.0,
        1.0,
        False,
        True,
        False,
    )
    assert got.fault == "missing_observation"
    assert got.judged(True).acc_p == 0.0


def test_agnostic_style_has_no_perception_to_score() -> None:
    got = graded("<think>so B</think><answer>B</answer>", style="agnostic")
    assert (got.acc_p, got.acc_r, got.forms["reasoning"], got.form, got.fault) == (
        None,
        1.0,
        True,
        True,
        None,
    )
    table = rewards_of([got], OFF, 1)
    assert (table.plain[0].item(), table.scored["p"].item()) == (2.0, False)


@pytest.mark.parametrize("text", ["B", "The answer is B", "<think>B</think> B", "", "<answer></answer>"])
def test_an_answer_outside_its_tag_is_none(text: str) -> None:
    got = graded(text)
    assert got.acc_r == 0.0
    assert got.answer is None
    assert got.reason in ("no_answer", "empty_answer")


def test_an_answer_quoted_in_the_thoughts_is_none() -> None:
    got = graded("<observation>o</observation><think>not <answer>B</answer></think><answer>A</answer>")
    assert (got.acc_r, got.answer, got.forms["reasoning"]) == (0.0, "A", False)


def test_a_bad_reference_is_unscored_with_or_without_an_answer() -> None:
    assert graded("<think>t</think><answer>B</answer>", reference="Q").acc_r is None
    assert graded("nothing", reference="Q").acc_r is None


def test_a_cut_completion_says_so() -> None:
    masks = segment_masks(ids_of("<observation>", "a"), TABLE)
    got = grade(masks, problem_type="numerical", reference="4", finished=False)
    assert (got.finished, got.forms["perception"], got.acc_p, got.acc_r) == (False, False, 0.0, 0.0)


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="<>/obseratinkw ABé", max_size=60))
def test_grading_is_total(text: str) -> None:
    got = graded(text)
    assert got.acc_r is not None and 0.0 <= got.acc_r <= 1.0
    table = rewards_of([got.judged(True)], RewardSpec(), 1)
    assert bool(torch.isfinite(table.total[0]).all())
