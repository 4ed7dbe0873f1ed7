from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.trainer.judging.questions import question
from videop2r_data.errors import SourceError
from videop2r_data.schemas import Role, load_grammar
from videop2r_data.trainer.judging.base import Judged, Reason
from videop2r_data.trainer.look.samples import (
    OUTSIDE,
    STYLES,
    clean,
    colour,
    pick,
    read_samples,
    render_samples,
    sample_record,
)

TEXT = "Sure. <observation>a red disc</observation> <think>so</think><answer>A</answer>"


def record(step: int = 5, group: int = 0, rollout: int = 0, text: str = TEXT, **more: Any) -> dict[str, Any]:
    return sample_record(
        step=step, example=question(options=("A. red", "B. blue")), group=group, rollout=rollout, text=text,
        finished=True, rewards={"accuracy_p": None, "accuracy_r": 0.5, "total_r": 1.5, "total": 1.5}, **more,
    )  # fmt: skip


def shown(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=True, color_system=None).print(render_samples(rows))
    return out.getvalue()


def test_a_record_is_json_with_offsets_of_its_segments() -> None:
    made = orjson.loads(orjson.dumps(record(judged=Judged(True, Reason.JUDGED, False, "It says so."))))
    spans = made["segments"]
    assert TEXT[spans["observation"][1] : spans["observation"][2]] == "a red disc"
    assert TEXT[spans["answer"][0] : spans["answer"][3]] == "<answer>A</answer>"
    assert made["fault"] == "text_outside"
    assert made["judge"] == {"sufficient": True, "reason": "judged", "words": "It says so."}
    assert record()["judge"] is None


def test_segments_have_colours_of_their_own_and_tags_stay() -> None:
    text = colour(TEXT)
    assert text.plain == TEXT
    styles = {(s.start, s.end): str(s.style) for s in text.spans}
    start = TEXT.index("<observation>")
    assert styles[(start, TEXT.index(" <think>"))] == STYLES[Role.PERCEPTION]
    assert styles[(0, 5)] == OUTSIDE
    assert len({*STYLES.values(), OUTSIDE}) == len(Role) + 1


def test_another_grammar_has_its_segments_streams_and_colours() -> None:
    form = load_grammar("video-thinker")
    text = "<time>00:01-00:02</time><caption>a disc</caption>so<answer>B</answer>"
    made = record(text=text, grammar=form)
    (caption,), answer = made["segments"]["caption"], made["segments"]["answer"]
    assert text[caption[1] : caption[2]] == "a disc" and text[answer[1] : answer[2]] == "B"
    assert made["fault"] is None
    found = {str(s.style) for s in colour(text, form).spans}
    assert found == {STYLES[Role.PERCEPTION], STYLES[Role.REASONING], STYLES[Role.ANSWER], "dim"}
    made["rewards"] = {"total_p": 1.0, "total_plan": 2.0, "accuracy_plan": 0.25, "total": 3.0}
    told = shown([made])
    assert "plan" in told and "0.25" in told and "reasoning" not in told


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=80), st.text(max_size=20))
def test_any_text_is_shown_as_long_as_it_is_and_cannot_act(a: str, b: str) -> None:
    text = f"{a}<think>{b}</think>\x1b[2J\u202e\x07"
    plain = colour(text).plain
    assert len(plain) == len(text)
    assert not set(plain) & {"\x1b", "\u202e", "\x07", "\r", "\x9b"}
    assert len(clean(text)) == len(text)


def test_what_a_person_sees() -> None:
    rows = [
        record(judged=Judged(None, Reason.LATE, False, "no verdict within 3 s"), tokens={"p": 7, "r": 1234}),
        record(rollout=1, advantages={"p": 1.0, "r": -0.5, "all": 0.25}),
    ]
    rows[1]["finished"] = False
    out = shown(rows)
    assert out.count("Which disc moves?") == 1 and "B. blue" in out and "reference: the red disc" in out
    assert "unscored" in out and "1,234" in out and "-0.500" in out and "+0.250" in out
    assert "judge: unscored (late) no verdict within 3 s" in out
    assert "cut at the longest length" in out
    assert "<observation>a red disc</observation>" in out


def test_rich_markup_in_a_completion_is_text() -> None:
    row = record(text="[bold red]x[/] [link=file:///etc]y[/link]")
    row["problem"] = "[/]"
    assert "[bold red]x[/] [link=file:///etc]y[/link]" in shown([row])


def test_a_damaged_record_is_shown_as_far_as_it_goes() -> None:
    assert "rollout None" in shown([{"step": 1, "text": 5, "judge": {"sufficient": []}, "rewards": [1]}])


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_last_step_is_shown_and_a_step_done_again_only_once(tmp_path: Path) -> None:
    write(tmp_path, [record(1), record(5), record(5, rollout=1), record(5, text="again")])
    found = read_samples(tmp_path)
    assert [(row["rollout"], row["text"]) for row in found] == [(0, "again"), (1, TEXT)]
    assert [row["step"] for row in read_samples(tmp_path, step=1)] == [1]
    with pytest.raises(SourceError, match=r"no sample of step 4[\s\S]*1, 5"):
        read_samples(tmp_path, step=4)


def test_no_sample_yet(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no sampled completion"):
        read_samples(write(tmp_path, []))


def test_pick_keeps_whole_groups() -> None:
    rows = [record(group=g, rollout=r) for g in (3, 4) for r in range(2)]
    assert [row["group"] for row in pick(rows, 1)] == [3, 3]
    assert pick(rows, None) == rows
