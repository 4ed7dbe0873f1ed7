"""Figures of a data set, against numbers worked out by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.cards.figures.stats import Stats, compute_stats
from videop2r_data.cards.figures.text import Distribution, Spread, Words, normal_question, segments_of
from videop2r_data.files import Batch, Release, ReleaseFile


@dataclass(frozen=True)
class Made(Release):
    """A release in memory; gives one row per batch."""

    made: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def configs(self) -> tuple[str, ...]:
        return tuple(self.made)

    def batches(
        self, config: str, columns: Sequence[str] | None = None, *, size: int = 1024
    ) -> Iterator[tuple[ReleaseFile, Batch]]:
        self.asked.append(config)
        file = ReleaseFile(Path(), "made", config)
        for at, row in enumerate(self.made[config]):
            cells = {k: [v] for k, v in row.items() if columns is None or k in columns}
            yield file, Batch(at, 1, cells, [at])


def in_memory(rows: dict[str, list[dict[str, Any]]]) -> Made:
    return Made("made", Path(), "ours", (), made=rows)


def row(number: int, **cells: Any) -> dict[str, Any]:
    return {
        "problem": f"Which ball is number {number}?",
        "problem_type": "numerical",
        "data_type": "video",
        "data_source": "Made",
        "options": [],
        "path": f"{number}.mp4",
        "observation": "I see the red ball.",
        "process": "<think>The ball is red, so seven.</think><answer>7</answer>",
        "output": "",
        "reward": 1.0,
        "attempt": 0,
        "frame_indices": [0, 10],
        "frame_times_s": [0.0, 0.5],
    } | cells


def made() -> Stats:
    rows = [
        row(0),
        row(1, data_type="image", data_source="Other", frame_indices=[0], frame_times_s=[0.0], attempt=1),
        row(2, problem="which  BALL is number 0", path="0.mp4", reward=0.65, observation="Red, red ball"),
    ]
    rejected = [
        {"stage": "judge", "reason": "insufficient"},
        {"stage": "verify", "reason": "low_score"},
        {"stage": "verify", "reason": "low_score"},
    ]
    return compute_stats(in_memory({"sft": rows, "rl": [row(9)], "rejected": rejected}))


def test_counts() -> None:
    stats = made()
    assert stats.rows == {"sft": 3, "rl": 1, "rejected": 3}
    assert stats.table == {"image": {"numerical": 1}, "video": {"numerical": 2}}
    assert stats.sources == {"Made": 2, "Other": 1}
    assert stats.attempts == {"0": 2, "1": 1}
    assert stats.funnel == {"verify/low_score": 2, "judge/insufficient": 1}
    assert list(stats.funnel) == ["verify/low_score", "judge/insufficient"]
    assert stats.near_duplicates == 1


def test_words() -> None:
    stats = made()
    # P has 5, 5 and 3 words; R: "The ball is red, so seven. 7" has 7
    assert stats.perception_words.count == 3
    assert stats.perception_words.mean == pytest.approx(13 / 3, abs=1e-4)
    assert (stats.perception_words.min, stats.perception_words.p50, stats.perception_words.max) == (3, 5, 5)
    assert stats.perception_words.bins == {"0": 3}
    assert stats.reasoning_words.mean == 7
    assert stats.perception_by["source/Other"].count == 1
    assert stats.perception_by["data/video"].min == 3
    assert stats.perception_top.top == {"red": 4, "ball": 3, "see": 2}
    assert stats.perception_top.tokens == 13
    assert stats.perception_top.types == 5


def test_numbers() -> None:
    stats = made()
    assert stats.rewards.bins == {"0.6": 1, "0.7": 0, "0.8": 0, "0.9": 0, "1": 2}
    assert (stats.rewards.min, stats.rewards.max) == (0.65, 1)
    assert (stats.frames.count, stats.frames.min, stats.frames.max) == (3, 1, 2)
    assert (stats.seconds.count, stats.seconds.mean) == (2, 0.5)


def test_json_round_trip() -> None:
    stats = made()
    assert Stats.model_validate(orjson.loads(orjson.dumps(stats.model_dump(mode="json")))) == stats


def test_a_release_of_questions_only() -> None:
    question = {k: v for k, v in row(0).items() if k in ("problem", "problem_type", "data_type", "path")}
    stats = compute_stats(in_memory({"rl": [question, question]}))
    assert stats.table == {"video": {"numerical": 2}}
    assert stats.perception_words.count == 0
    assert stats.near_duplicates == 1


def test_official_rows_with_text_in_every_cell() -> None:
    cells = {"reward": "0.75", "options": "['A. x']", "attempt": "0", "frame_indices": "[1]"}
    stats = compute_stats(in_memory({"sft": [row(0, **cells)]}))
    assert stats.rewards.mean == 0.75
    assert stats.frames.count == 0


any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(row(0))), any_value))
@settings(deadline=None)
def test_no_cell_raises(cells: dict[str, Any]) -> None:
    stats = compute_stats(
        in_memory({"sft": [row(0, **cells), row(1)], "rejected": [{"stage": cells.get("path")}]})
    )
    assert stats.rows["sft"] == 2


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60))
@settings(deadline=None)
def test_percentiles_are_nearest_rank(values: list[int]) -> None:
    spread = Spread.of(Counter(values))
    ordered = sorted(values)
    assert spread.p50 == ordered[-(-len(values) // 2) - 1]
    assert spread.min <= spread.p5 <= spread.p25 <= spread.p50 <= spread.p75 <= spread.p95 <= spread.max
    found = Distribution.of(Counter(values), bin_width=20, most=10)
    assert sum(found.bins.values()) == len(values)
    assert len(found.bins) <= 10


def test_nothing_to_count() -> None:
    assert Distribution.of(Counter()).bins == {}
    assert Spread.of(Counter()).count == 0


def test_the_vocabulary_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from videop2r_data.cards.figures import text as stats_text

    monkeypatch.setattr(stats_text, "MAX_VOCABULARY", 100)
    words = Words()
    for number in range(60):
        word = "".join(chr(97 + int(c)) for c in f"{number:03d}")
        words.add(f"ball ball {word}x {word}y {word}z", ["data/video"])
    assert len(words.vocabulary) <= 103
    assert words.top(1).top == {"ball": 120}


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from videop2r_data.cards.figures import text as stats_text

    monkeypatch.setattr(stats_text, "MAX_GROUPS", 3)
    words = Words()
    for number in range(10):
        words.add("a b", [f"source/{number}"])
    assert {name: s.count for name, s in words.spreads(9).items()} == {
        "source/other": 7,
        "source/0": 1,
        "source/1": 1,
        "source/2": 1,
    }


def test_segments_come_from_the_trace_when_the_columns_have_none() -> None:
    whole = "<observation>o p</observation> <think>t</think> <answer>A</answer>"
    assert segments_of("", None, whole) == ("o p", "t A")
    assert segments_of("x", "<think>t</think><answer>B</answer>", whole) == (" x".strip(), "t  B")
    assert segments_of(None, None, "no trace") == (None, None)


def test_near_duplicates_look_at_options_and_media() -> None:
    same = normal_question("Which one?", ["A. red"], "./a.mp4")
    assert normal_question("which one", ["A) Red"], "a.mp4") == same
    assert normal_question("Which one?", ["A. blue"], "a.mp4") != same
    assert normal_question("Which one?", ["A. red"], "b.mp4") != same
    assert normal_question(None, [], "") is None
