"""Labels of several people: whose counts, what is left out, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from videop2r_data.builders.calibration import Labels, gather_labels


def label(item: int, sufficient: bool, reviewer: str, **more: Any) -> dict[str, Any]:
    return {
        "human_label": 1,
        "sample_id": f"demo/{item}",
        "sufficient": sufficient,
        "problem": "?",
        "reference": "3",
        "observation": f"observation {item}",
        "reviewer": reviewer,
    } | more


def gathered(folder: Path, *lines: dict[str, Any]) -> Labels:
    path = folder / "marks.jsonl"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return gather_labels([path])


def test_items_labelled_both_ways_are_no_truth_but_count_among_people(tmp_path: Path) -> None:
    # Ann and Bob: 4 items, 3 alike; Ann and Cem: 2 items, 1 alike; Bob and Cem: 2 items, 2 alike
    ann = [label(i, s, "Ann") for i, s in enumerate((True, True, False, True))]
    bob = [label(i, s, "Bob") for i, s in enumerate((True, True, False, False))]
    cem = [label(i, s, "Cem") for i, s in ((2, False), (3, False))]
    found = gathered(tmp_path, *ann, *bob, *cem, label(9, True, "Ann"))
    assert [x.sample_id for x in found.used] == ["demo/0", "demo/1", "demo/2", "demo/9"]
    assert found.conflicts == ["demo/3"]
    people = found.people
    assert (people.items, people.agreed) == (4, 3)
    counted = {r.name: (r.labels, r.sufficient, r.compared, r.agreement.value) for r in people.reviewers}
    assert counted == {"Ann": (5, 4, 6, 4 / 6), "Bob": (4, 2, 6, 5 / 6), "Cem": (2, 0, 4, 3 / 4)}
    pairs = {(p.first, p.second): (p.items, p.figures.agreement.value) for p in people.pairs}
    assert pairs == {("Ann", "Bob"): (4, 0.75), ("Ann", "Cem"): (2, 0.5), ("Bob", "Cem"): (2, 1.0)}
    assert people.pairs[0].figures.too_few


def test_a_reviewer_who_marks_again_is_counted_once_with_the_later_mark(tmp_path: Path) -> None:
    early, late = "2026-01-02T03:04:05Z", "2026-01-02T03:05:00Z"
    for order in ((early, late), (late, early)):
        lines = [label(0, time == late, "Ann", time=time) for time in order]
        found = gathered(tmp_path, *lines)
        assert [x.sufficient for x in found.used] == [True] and found.conflicts == []
        assert found.people.reviewers[0].labels == 1


def test_contradictions_that_nothing_orders_stay_contradictions(tmp_path: Path) -> None:
    found = gathered(tmp_path, label(0, True, "Ann"), label(0, False, "Ann"), label(1, True, "Ann"))
    assert found.conflicts == ["demo/0"] and len(found.used) == 1
    unnamed = gathered(tmp_path, label(0, True, ""), label(0, False, ""), label(1, True, ""))
    assert unnamed.conflicts == ["demo/0"] and unnamed.people.items == 1


@pytest.mark.parametrize("more", [{"question": "faith"}, {"time": "x" * 50}])
def test_a_label_of_another_question_is_named_not_counted(tmp_path: Path, more: dict[str, Any]) -> None:
    found = gathered(tmp_path, label(0, True, "Ann"), label(1, True, "Ann", **more))
    assert len(found.used) == 1 and len(found.bad) == 1 and "line 2" in found.bad[0].where
