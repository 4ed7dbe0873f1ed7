"""What is gathered beside the statistics."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from videop2r_data.cards.figures import text as stats_gather
from videop2r_data.cards.figures.text import Crossed, Opened, Pair, Sampled, without_opening


def row(**cells: Any) -> dict[str, Any]:
    return {"data_source": "Made", "data_type": "video", "problem_type": "numerical"} | cells


def test_crossed_counts() -> None:
    crossed = Crossed()
    for cells in (row(), row(), row(data_type="image"), row(data_source=None)):
        crossed.see(cells, None, None)
    assert crossed.counts == {
        ("Made", "video", "numerical"): 2,
        ("Made", "image", "numerical"): 1,
        ("", "video", "numerical"): 1,
    }


def test_sources_and_types_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_gather, "MAX_GROUPS", 2)
    monkeypatch.setattr(stats_gather, "MAX_KINDS", 2)
    crossed = Crossed()
    for number in range(5):
        crossed.see(row(data_source=f"s{number}", problem_type=f"t{number}"), None, None)
    assert crossed.counts == {
        ("s0", "video", "t0"): 1,
        ("s1", "video", "t1"): 1,
        ("other", "video", "other"): 3,
    }


def test_the_sample_is_the_same_whatever_comes_before_and_grows_with_its_size() -> None:
    small, large, other = Sampled(5), Sampled(20), Sampled(5, seed=1)
    for number in range(200):
        for sample in (small, large, other):
            sample.see({}, f"p{number}", f"r{number}")
    assert small.seen == 200 and len(small.pairs()) == 5 and len(large.pairs()) == 20
    assert set(small.pairs()) < set(large.pairs())
    assert small.pairs() != other.pairs()
    assert [p.row for p in large.pairs()] == sorted(p.row for p in large.pairs())
    assert all(pair == Pair(pair.row, f"p{pair.row}", f"r{pair.row}") for pair in large.pairs())


def test_the_sample_is_drawn_evenly() -> None:
    hits: Counter[int] = Counter()
    for seed in range(300):
        sample = Sampled(10, seed=seed)
        for _number in range(40):
            sample.see({}, "p", "r")
        hits.update(pair.row for pair in sample.pairs())
    # each of 40 rows is drawn with probability 1/4 in 300 samples: 75, standard deviation 7.5
    assert all(abs(hits[number] - 75) < 5 * 7.5 for number in range(40))


def test_rows_without_both_processes_are_not_sampled_but_counted_as_rows() -> None:
    sample = Sampled(9)
    for p, r in ((None, "r"), ("p", None), (" ", "r"), ("p", "r")):
        sample.see({}, p, r)
    assert sample.seen == 1 and [pair.row for pair in sample.pairs()] == [3]


def test_openings_are_taken_off() -> None:
    assert without_opening("Based on the question, I need to notice: a ball") == "a ball"
    assert without_opening("BASED ON THE OBSERVATIONS, it is red") == "it is red"
    assert without_opening("I see. Based on the question, I need to notice") == (
        "I see. Based on the question, I need to notice"
    )


def test_words_without_the_openings() -> None:
    opened = Opened()
    opened.see({}, "Based on the question, I need to notice the red ball", "Based on the observations, red.")
    opened.see({}, "The question is red", None)
    words = Counter({"based": 1, "on": 1, "the": 3, "question": 2, "i": 1, "need": 1, "to": 1, "notice": 1,
                     "red": 2, "ball": 1, "is": 1})  # fmt: skip
    assert opened.without("perception", words) == {"the": 2, "question": 1, "red": 2, "ball": 1, "is": 1}
    assert opened.without("reasoning", Counter({"red": 1})) == {"red": 1}
