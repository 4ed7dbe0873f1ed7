"""Protocols: values worked out by hand, the formulas of their authors stated again, intervals that hold."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Aggregate
from videop2r_data.validators import (
    ScoredRow,
    aggregate,
    estimate_mean,
    estimate_share,
    gain_of_rows,
    mean_relative_accuracy,
    read_reply,
    score,
)

MACRO8 = Aggregate(
    id="macro8",
    how="macro",
    by="task",
    merge={"direction": ("direction_easy", "direction_medium", "direction_hard")},
)
GROUPS = Aggregate(id="groups", how="groups", by="group", curve="video-mme-v2")
LINE, FORK, PAIR = "[1, 2, 3, 4]", "[1, [2, 3], 4]", "[[1, 2], 3, 4]"


def _rows(
    scores: Sequence[float], *, task: Sequence[str] = (), kind: str = "multiple choice", per_clip: int = 1
) -> list[ScoredRow]:
    tags = [{"task": name} for name in task] or [{}] * len(scores)
    return [
        ScoredRow(score, tag, kind, f"clip {i // per_clip}", i)
        for i, (score, tag) in enumerate(zip(scores, tags, strict=True))
    ]


def _group(
    right: str, kind: str, structure: str = LINE, *, name: str = "g", start: int = 0
) -> list[ScoredRow]:
    tags = {"group": name, "group_type": kind, "group_structure": structure, "level": "2"}
    return [ScoredRow(float(c), tags, "multiple choice", name, start + i) for i, c in enumerate(right)]


# --- metrics


def _vsi(prediction: float, target: float) -> float:
    """Mean relative accuracy as VSI-Bench states it, thresholds from its own numbers."""
    start, end, step = 0.5, 0.95, 0.05
    thresholds = np.linspace(start, end, int((end - start) / step + 2))
    error = abs(prediction - target) / target
    return float((error <= 1 - thresholds).mean())


def test_mean_relative_accuracy_is_that_of_vsi_bench_at_every_threshold() -> None:
    targets = [*range(1, 60), *(n / 10 for n in range(1, 60)), 542.0, 0.4, 1 / 3, 97.3]
    checked = 0
    for target in map(float, targets):
        for k in range(-24, 25):
            near = target * (1 + k / 40)
            for value in (near, np.nextafter(near, math.inf), np.nextafter(near, -math.inf), round(near, 2)):
                assert mean_relative_accuracy(float(value), target) == _vsi(float(value), target)
                checked += 1
    assert checked > 20_000


def test_ten_thresholds_and_the_ninth_is_no_round_number() -> None:
    # 1 - 0.8999999999999999 is more than 0.1: an error of a tenth counts there, 11 for 10 as well as 9 for 10.
    assert [mean_relative_accuracy(p, 10.0) for p in (10.0, 9.0, 11.0, 9.5, 5.0, 4.99)] == [
        1,
        0.9,
        0.9,
        1,
        0.1,
        0,
    ]


def test_recall_counts_what_reaches_the_threshold() -> None:
    ious = [0.0, 0.3, 0.49, 0.5, 0.7, 1.0]
    found = [aggregate(Aggregate(id="r", how="recall", at=at), _rows(ious)) for at in (0.3, 0.5, 0.7)]
    assert [one and one.value for one in found] == [5 / 6, 3 / 6, 2 / 6]
    mean = aggregate(Aggregate(id="m"), _rows(ious))
    assert mean is not None and mean.value == pytest.approx(2.99 / 6)


# --- means


def test_direction_is_one_task_of_three_levels() -> None:
    scores = [1.0, 0.0, 1.0, 1.0, 0.5, 0.25]
    tasks = ["direction_easy", "direction_easy", "direction_medium", "direction_hard", "count", "count"]
    found = aggregate(MACRO8, _rows(scores, task=tasks))
    direction = (0.5 + 1 + 1) / 3
    assert found is not None and found.value == pytest.approx((direction + 0.375) / 2)
    assert found.n == 6


def test_eight_tasks_of_vsi_bench_by_the_formula_of_its_authors() -> None:
    names = ("rel_distance", "route", "order", "abs_distance", "counting", "size", "room")
    levels = ("direction_easy", "direction_medium", "direction_hard")
    rng = random.Random(8)
    tasks = [rng.choice((*names, *levels)) for _ in range(700)]
    scores = [rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]) for _ in tasks]
    # as its code does: a mean for each task, the three levels replaced by their mean, the mean of what is left
    by_task = {name: [s for s, t in zip(scores, tasks, strict=True) if t == name] for name in set(tasks)}
    means = {name: sum(found) / len(found) for name, found in by_task.items()}
    means["direction"] = sum(means.pop(level) for level in levels) / 3.0
    assert len(means) == 8
    found = aggregate(MACRO8, _rows(scores, task=tasks, per_clip=18))
    assert found is not None and found.value == pytest.approx(sum(means.values()) / len(means), abs=1e-12)


def test_half_and_half_is_the_mean_of_numbers_and_of_choices() -> None:
    known = {spec.id: spec for spec in load_benchmark("vsi-bench").aggregates}
    spec = known["vsi_half_micro"]
    # Video-R1#121: the author's number is the mean of mean_acc and mean_mra, and nobody reports a plain mean
    assert "Video-R1#121" in spec.source and "Video-R1" not in known["vsi_micro"].source
    rows = [*_rows([0.8, 0.6], kind="regression"), *_rows([1.0, 0.0, 0.0, 0.0])]
    rows = [row._replace(order=i) for i, row in enumerate(rows)]
    found = aggregate(spec, rows)
    assert found is not None and found.value == pytest.approx((0.7 + 0.25) / 2)


def test_only_some_questions() -> None:
    rows = _rows([1, 0, 0, 1], task=["a", "b", "b", "c"])
    found = aggregate(Aggregate(id="x", only={"task": ("a", "b")}), rows)
    assert found is not None and found.value == pytest.approx(1 / 3) and found.n == 3
    assert aggregate(Aggregate(id="x", only={"task": ("z",)}), rows) is None
    assert aggregate(Aggregate(id="x"), []) is None


# --- groups


@pytest.mark.parametrize(
    ("structure", "right", "worth"),
    [
        (LINE, "0000", 0), (LINE, "1000", 6.25), (LINE, "1100", 25), (LINE, "1110", 56.25), (LINE, "1111", 100),
        (LINE, "0111", 0), (LINE, "1011", 6.25), (LINE, "1101", 25),
        (FORK, "0111", 0), (FORK, "1001", 8.3333), (FORK, "1101", 33.3333), (FORK, "1011", 33.3333),
        (FORK, "1110", 58.3333), (FORK, "1111", 100),
        (PAIR, "0011", 0), (PAIR, "1011", 10), (PAIR, "0111", 10), (PAIR, "1101", 20), (PAIR, "1110", 50),
        (PAIR, "1111", 100),
    ],
)  # fmt: skip
def test_a_chain_by_hand(structure: str, right: str, worth: float) -> None:
    found = aggregate(GROUPS, _group(right, "logic", structure))
    assert found is not None and found.value * 100 == pytest.approx(worth, abs=1e-3)


def _authors_chain(scores: list[int], structure: str) -> float:
    """The chain rule of Video-MME-v2, as its authors state it: tables by structure, with two exceptions."""
    run = 0
    while run < 4 and scores[run]:
        run += 1
    if structure == LINE:
        return [0, 100 / 16, 400 / 16, 900 / 16, 100][run]
    if structure == FORK:
        run += run == 1 and scores[2]
        return [0, 100 / 12, 400 / 12, 700 / 12, 100][run]
    run += run == 0 and scores[1]
    return [0, 100 / 10, 200 / 10, 500 / 10, 100][run]


def test_every_group_of_four_is_worth_what_its_authors_say() -> None:
    for bits in range(16):
        right = f"{bits:04b}"
        for structure in (LINE, FORK, PAIR):
            found = aggregate(GROUPS, _group(right, "logic", structure))
            assert found is not None
            assert found.value * 100 == pytest.approx(_authors_chain([int(c) for c in right], structure))
        loose = aggregate(GROUPS, _group(right, "relevance"))
        assert loose is not None and loose.value == (right.count("1") / 4) ** 2


def test_groups_are_averaged_in_their_own_order_and_parts_of_groups_are_none() -> None:
    rows = [
        *_group("1111", "relevance", name="a"),
        *_group("1000", "relevance", name="b", start=4),
        *_group("11", "relevance", name="c", start=8),
    ]
    random.Random(3).shuffle(rows)
    found = aggregate(GROUPS, rows)
    assert found is not None and found.value == pytest.approx((1 + 1 / 16) / 2) and found.n == 8


def test_tags_of_a_group_are_those_of_its_last_question() -> None:
    rows = _group("1111", "relevance")
    rows[-1] = rows[-1]._replace(tags=rows[-1].tags | {"level": "3"})  # type: ignore[operator]
    spec = GROUPS.model_copy(update={"only": {"level": ("3",)}})
    assert aggregate(spec, rows) is not None
    assert aggregate(spec, _group("1111", "relevance")) is None


@pytest.mark.parametrize(
    "structure", ["[1, 2", "[1, 2, 2, 4]", "4", '["a"]', "[[[1]], 2]", "[" * 9999, "[]", "{}"]
)
def test_a_structure_that_cannot_be_read_is_told(structure: str) -> None:
    with pytest.raises(ConfigError, match="structure"):
        aggregate(GROUPS, _group("1111", "logic", structure))


@pytest.mark.parametrize("name", packaged_benchmarks())
def test_every_declared_protocol_can_be_computed(name: str) -> None:
    for spec in load_benchmark(name).aggregates:
        value = next(iter(spec.only.values()))[0] if spec.only else "x"
        tags = dict.fromkeys((*spec.only, spec.by), value) | {"group_type": "relevance"}
        rows = [ScoredRow(1.0, tags, value, "clip", i) for i in range(4)]
        found = aggregate(spec, rows)
        assert found is not None and found.value == 1.0, spec.id


# --- intervals


def test_one_question_a_clip_has_the_intervals_of_independent_questions() -> None:
    shares, graded = [1.0, 0.0, 1.0, 1.0, 0.0], [0.2, 0.5, 0.5, 0.9]
    assert aggregate(Aggregate(id="x"), _rows(shares)) == estimate_share(3, 5)
    assert aggregate(Aggregate(id="x"), _rows(graded)) == estimate_mean(graded)


def test_questions_without_a_clip_are_independent() -> None:
    rows = [row._replace(clip="") for row in _rows([1.0, 0.0, 1.0, 1.0], per_clip=4)]
    assert aggregate(Aggregate(id="x"), rows) == estimate_share(3, 4)


def test_copies_of_a_clip_add_nothing() -> None:
    rng = random.Random(5)
    once = [float(rng.random() < 0.6) for _ in range(80)]
    thrice = _rows([score for score in once for _ in range(3)], per_clip=3)
    alone, copied, naive = (
        aggregate(Aggregate(id="x"), rows)
        for rows in (_rows(once), thrice, [row._replace(clip="") for row in thrice])
    )
    assert alone and copied and naive
    assert copied.value == alone.value
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.02)
    assert naive.high - naive.low < 0.65 * (copied.high - copied.low)


def test_all_right_is_not_certain() -> None:
    for spec in (Aggregate(id="x"), MACRO8):
        found = aggregate(spec, _rows([1.0] * 20, task=["a", "b"] * 10, per_clip=4))
        assert found is not None and (found.value, found.high) == (1.0, 1.0) and 0.4 < found.low < 0.7


@pytest.mark.parametrize(
    "spec",
    [
        Aggregate(id="mean"),
        Aggregate(id="macro", how="macro", by="task"),
        Aggregate(id="r", how="recall", at=0.5),
    ],
)
def test_intervals_hold_the_truth_nineteen_times_in_twenty(spec: Aggregate) -> None:
    # Clips differ in difficulty, six questions each; the truth is the mean over all clips that could be drawn.
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(300):
        ease = np.repeat(rng.beta(1.5, 1.5, size=70), 6)
        scores = (rng.random(420) < ease).astype(float).tolist()
        found = aggregate(spec, _rows(scores, task=["a", "b"] * 210, per_clip=6), resamples=300)
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert 0.91 <= held / 300 <= 0.985


def test_equal_rows_give_equal_intervals() -> None:
    rows = _rows([i % 7 / 6 for i in range(300)], task=["a", "b", "c"] * 100, per_clip=5)
    assert aggregate(MACRO8, rows) == aggregate(MACRO8, rows)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=40),
    st.sampled_from(["mean", "macro", "recall"]),
)
def test_every_interval_lies_in_range_around_its_value(rows: list[tuple[float, str, int]], how: str) -> None:
    scored = [ScoredRow(s, {"task": t}, "numerical", f"c{c}", i) for i, (s, t, c) in enumerate(rows)]
    spec = Aggregate.model_validate({"id": "x", "how": how, "by": "task", "at": 0.5})
    found = aggregate(spec, scored, resamples=100)
    assert found is not None and found.n == len(rows)
    assert -1e-9 <= found.low <= found.high <= 1 + 1e-9
    assert -1e-9 <= found.value <= 1 + 1e-9


def test_recall_of_replies_in_the_forms_in_which_models_write() -> None:
    reference = "[24, 30]"
    replies = {
        "[24.0, 30.0]": 1.0,
        "00:24 - 00:30": 1.0,
        "The event starts at 24 seconds. It ends at 30 seconds.": 1.0,
        "<think>from 1 to 5 seconds</think><answer>from 24 to 27 seconds</answer>": 0.5,
        "<think>from 24 to 30 seconds": 0.0,
        "The event does not happen.": 0.0,
    }
    ious = []
    for text, worth in replies.items():
        read = read_reply(text, problem_type="temporal grounding")
        found = score("temporal grounding", prediction=read.answer or "", reference=reference)
        assert found.value == worth, text
        ious.append(worth)
    recalled = aggregate(Aggregate(id="r1_05", how="recall", at=0.5), _rows(ious))
    assert recalled is not None and recalled.value == 4 / 6


def test_what_some_rows_add_by_hand() -> None:
    scores = {"a": [1, 1], "b": [0, 1], "c": [0, 0]}
    rows = [
        ScoredRow(float(score), {"task": clip}, "numerical", clip, 2 * i + j)
        for i, (clip, both) in enumerate(scores.items())
        for j, score in enumerate(both)
    ]
    mean, macro = Aggregate(id="mean"), Aggregate(id="macro", how="macro", by="task")
    found = gain_of_rows(mean, rows, {0, 1})
    assert found is not None and found.n == 4
    assert found.value == pytest.approx(3 / 6 - 1 / 4)
    # draws of clips a alone leave nothing to compare with: the interval is of the others
    assert found.low <= found.value <= found.high <= 1
    found = gain_of_rows(macro, rows, {2})
    assert found is not None and found.value == pytest.approx((1 + 0.5 + 0) / 3 - (1 + 1 + 0) / 3)
    none = gain_of_rows(mean, rows, ())
    assert none is not None and (none.value, none.low, none.high) == (0, 0, 0)
    assert gain_of_rows(mean, rows, range(6)) is None
