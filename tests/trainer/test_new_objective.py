"""A new objective is one entry: everything that reads the table follows, and half an entry is an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from videop2r_data.trainer.settings import objectives
from videop2r_data.trainer.settings.objectives import OBJECTIVES, Objective, StreamRule, trace_streams


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What a process that adds two entries prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.new_objective"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_schema_the_help_and_the_docs_name_it(told: dict[str, Any]) -> None:
    assert told["schema"] == [*OBJECTIVES, "formats", "seen-in-time"]
    assert told["help"].endswith(f"{list(OBJECTIVES)[-1]}, formats or seen-in-time.")
    assert "| `formats` | - | both formats, normalised apart | each its own |" in told["table"]
    assert told["page"]


def test_whether_it_needs_a_judge_or_an_observation_follows(told: dict[str, Any]) -> None:
    refused = told["refused"]
    assert refused["formats"] == ""
    assert "objective seen-in-time pays perception: set judging.kind" in refused["seen-in-time"]
    unjudged = [name for name, entry in OBJECTIVES.items() if not entry.judged(trace_streams())]
    assert f"({', '.join([*unjudged, 'formats'])})" in refused["seen-in-time"]
    assert "Input should be 'pa-grpo'" in refused["unknown"]
    assert "'formats' pays for observations" in told["agnostic"]["formats"]
    assert told["agnostic"]["grpo"] == ""


def test_its_parts_reach_its_tokens(told: dict[str, Any]) -> None:
    # formats: P 1, 1 collapses; R 0, 1 gives -1, 1: the verdict that is missing does not matter
    assert told["learnt"]["formats"] == {
        "p": [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0]],
        "r": [[0.0, 0.0, 1.0, 1.0], [-1.0, 1.0]],
    }
    # acc_P of the second rollout is unknown: one scored rollout alone is a collapsed group
    assert told["learnt"]["seen-in-time"] == {"all": [[1.0] * 4, [0.0, 0.0]]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"streams": ()}, "half declared: streams"),
        ({"paper": ""}, "half declared: paper"),
        ({"name": ""}, "half declared: name"),
        ({"streams": (StreamRule("p", ("format_p",)), StreamRule("p", ("format_r",)))}, "overlap: p, p"),
        ({"streams": (StreamRule("all", ("format",)), StreamRule("r", ("format_r",)))}, "overlap: all, r"),
    ],
)
def test_half_an_entry_is_an_error(change: dict[str, Any], words: str) -> None:
    whole: dict[str, Any] = {
        "name": "x",
        "paper": "x",
        "rewards": "x",
        "reaches": "x",
        "streams": OBJECTIVES["grpo"].streams,
    }
    Objective(**whole)
    with pytest.raises(ValueError, match=words):
        Objective(**whole | change)


@pytest.mark.parametrize(
    ("tokens", "parts"), [("p", ()), ("p", ("acc",)), ("p", ("format", "format")), ("q", ("format",))]
)
def test_a_stream_of_unknown_parts_or_tokens_is_an_error(tokens: Any, parts: Any) -> None:
    with pytest.raises(ValueError, match=r"a stream (pays|reaches)"):
        StreamRule(tokens, parts)


def test_no_two_entries_have_one_name() -> None:
    assert len(OBJECTIVES) == len(objectives._ENTRIES)
