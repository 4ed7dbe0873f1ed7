from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.errors import SourceError
from videop2r_data.trainer.look.curves import (
    Curve,
    RunCurves,
    curves_of,
    mean_curve,
    read_curves,
    read_lines,
    smooth,
    with_shares,
)


def curve(steps: list[float], values: list[float]) -> Curve:
    return Curve(np.array(steps, dtype=float), np.array(values, dtype=float))


def test_a_torn_last_line_is_dropped_and_a_damaged_one_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n\nnot json\n[1]\n{"step":2,"kl":NaN}\n{"step":3,"k')
    rows, damaged = read_lines(path)
    assert rows == [{"step": 1}, {"step": 2, "kl": None}]
    assert damaged == [3, 4]


def test_a_missing_file_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="p2r-train sft or rl"):
        read_lines(tmp_path / "metrics.jsonl")


def test_the_last_line_of_a_step_counts_and_steps_are_put_in_order() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "loss": 1.0}, {"step": 3, "loss": 9.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 3.0},
        {"step": 2, "eval/accuracy": 0.5}, {"loss": 7.0}, {"step": "x", "loss": 8.0}, {"step": True, "loss": 8.0},
    ]  # fmt: skip
    found = curves_of(rows)
    assert found["loss"].steps.tolist() == [1, 2, 3]
    assert found["loss"].values.tolist() == [1, 2, 3]
    assert found["eval/accuracy"].steps.tolist() == [2]


def test_what_is_no_number_is_a_gap_never_zero() -> None:
    found = curves_of([{"step": 1, "kl": None, "note": "x"}, {"step": 2, "kl": 2}, {"step": 3, "kl": True}])
    assert math.isnan(found["kl"].values[0]) and found["kl"].values[1] == 2
    assert found["kl"].steps.tolist() == [1, 2]
    assert "note" not in found
    assert len(curves_of([{"step": 1, "kl": math.inf}])["kl"].finite) == 0
    assert curves_of([{"step": 1, "kl": 10**400}]) == {}


def test_a_running_mean_by_hand() -> None:
    # window 2: each step with its neighbours at distance 1; the gap at step 3 is left out of its means
    given_curve = curve([1, 2, 3, 4, 10], [1, 3, math.nan, 5, 7])
    assert smooth(given_curve, 2).tolist() == [2, 2, 4, 5, 7]
    assert smooth(given_curve, 0.5)[[0, 1, 3, 4]].tolist() == [1, 3, 5, 7]
    assert smooth(curve([], []), 2).tolist() == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60), st.floats(0, 100))
def test_a_running_mean_stays_between_the_values(values: list[float], window: float) -> None:
    smoothed = smooth(curve(list(range(len(values))), values), window)
    finite = [v for v in values if v == v]
    for value in smoothed[np.isfinite(smoothed)]:
        assert min(finite) - 1e-3 <= value <= max(finite) + 1e-3


def test_the_mean_of_seeds_is_over_the_steps_that_all_have() -> None:
    mean = mean_curve([curve([1, 2, 3], [0, 2, 4]), curve([2, 3, 4], [4, math.nan, 1])])
    assert mean.steps.tolist() == [2, 3]
    assert mean.values[0] == 3 and math.isnan(mean.values[1])
    assert mean_curve([curve([1], [1]), curve([2], [1])]).steps.tolist() == []


def run(collapsed: list[float], groups: list[float]) -> RunCurves:
    steps = [float(i) for i in range(len(groups))]
    return RunCurves("a", {"collapsed/sum": curve(steps, collapsed), "groups": curve(steps, groups)})


def test_collapsed_groups_are_numbers_if_steps_are_equally_large_else_shares() -> None:
    runs, unit = with_shares([run([1, 2], [4, 4]), run([3, 2], [4, 4])])
    assert unit == "of 4 groups" and runs[0].curves["collapsed/sum"].values.tolist() == [1, 2]
    runs, unit = with_shares([run([1, 2], [4, 4]), run([3, 2], [8, 8])])
    assert unit == "share of groups"
    assert [r.curves["collapsed/sum"].values.tolist() for r in runs] == [[0.25, 0.5], [0.375, 0.25]]
    unknown = RunCurves("b", {"collapsed/sum": curve([0], [1])})
    assert with_shares([run([1, 2], [4, 8]), unknown])[1] == "groups"


def test_a_run_is_its_folder_or_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "grpo"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    assert read_curves(folder).name == "grpo" == read_curves(folder / "metrics.jsonl").name
    assert read_curves(folder, "mine").name == "mine"
    assert read_curves(folder).kind == "sft"
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(SourceError, match="no step"):
        read_curves(folder)
