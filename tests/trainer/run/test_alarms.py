"""Alarms of a run: scripted rollouts through the real collator, grading, judge, update and log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.run import small
from videop2r_data.demo import SceneSample, write_trace
from videop2r_data.schemas import Frames, MediaSpec
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.examples import DemoStream, Example, draw
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.run import rl
from videop2r_data.trainer.run.alarms import Seen, swapped
from videop2r_data.trainer.run.session import Session
from videop2r_data.trainer.run.train import Trained, train

WORLD = {**small.STREAM, "tasks": ["colour"]}
NOTHING = "<observation>Nothing is in it.</observation> <think>Nothing is seen.</think><answer>A</answer>"


class Script:
    """A rollout engine whose policy is a few lines: it looks, or it does not.

    Args:
        session: tells tokenizer and questions.
        looks: True: it describes the clip that it is shown; False: it writes what supports the right answer,
            which is what a blind judge pays for, whatever it is shown.
    """

    room: int | None = None

    def __init__(self, session: Session, looks: bool) -> None:
        self.tokenizer, self.looks = session.policy.tokenizer, looks
        self.media: MediaSpec = session.recipe.data.media
        scenes = (example.scene for example in islice(session.examples, 32))
        self.scenes = {self.key(draw(scene, self.media)): scene for scene in scenes if scene is not None}

    @staticmethod
    def key(frames: Frames) -> bytes:
        assert frames.array is not None
        return frames.array.tobytes()

    def says(self, example: Example, frames: Frames | None) -> str:
        shown: SceneSample | None = example.scene
        if self.looks and frames is not None:
            assert frames.array is not None
            shown = self.scenes[self.key(frames)] if frames.array.any() else None
        return NOTHING if shown is None else write_trace(shown, None, seed=0)

    def answers(self, example: Example) -> str:
        """From an observation alone, which stands before the question: right if it names the right option."""
        told = example.problem.partition("noted: ")[2].partition("\n")[0].casefold()
        right = next(o.partition(". ")[2] for o in example.options if o.startswith(example.reference))
        other = "A" if example.reference != "A" else "B"
        said = example.reference if right in told else other
        return NOTHING.replace("<answer>A", f"<answer>{said}")

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Any = None
    ) -> list[RolledOut]:
        assert len(seeds) == len(set(seeds)) == len(prompts) * group_size
        found: list[RolledOut] = []
        for example, frames in zip(prompts.examples, prompts.frames, strict=True):
            said = self.answers(example) if frames is None else self.says(example, frames)
            ids = self.tokenizer(said, add_special_tokens=False).input_ids
            found += [RolledOut([*ids, int(self.tokenizer.eos_token_id)], True)] * group_size
        return found

    def sync(self, net: Any) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.model(tmp_path_factory.mktemp("tiny"))


def scripted(
    tiny: Path, run: Path, monkeypatch: pytest.MonkeyPatch, *, looks: bool, **changes: Any
) -> Trained:
    monkeypatch.setattr(rl, "make_drawer", lambda session: Script(session, looks))
    recipe = small.rl(
        tiny, run, data__demo=WORLD, **{"steps": 4, "alarms__every": 1, "alarms__rollouts": 4, **changes}
    )
    return train(recipe, watchers=[Notes(run)])


class Notes:
    """Keeps what a run tells people, in a file beside it."""

    def __init__(self, run: Path) -> None:
        self.path = run.with_suffix(".notes")

    def begin(self, stage: str, step: int, steps: int) -> None:
        pass

    def row(self, row: Any) -> None:
        pass

    def note(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{text}\n")


def test_a_policy_that_ignores_the_clip_raises_the_alarm(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = scripted(tiny, tmp_path / "run", monkeypatch, looks=False)
    rows = small.rows(tmp_path / "run")
    for row in rows:
        assert row["alarm/own"] == row["alarm/empty"] == row["alarm/shuffled"] == 1
        # two of the four questions show a clip, two a picture: each is shown the other one's
        assert (row["alarm/own_n"], row["alarm/empty_n"], row["alarm/shuffled_n"]) == (16, 16, 16)
    assert [row["alarm/raised"] for row in rows] == [0, 0, 2, 2]  # 48 observations are needed
    assert [(one.alarm, one.since, one.up) for one in done.alarms] == [
        ("empty", 3, True),
        ("shuffled", 3, True),
    ]
    told = (tmp_path / "run.notes").read_text().splitlines()
    assert [line.partition(": ")[0] for line in told] == [
        "alarm at step 3, empty",
        "alarm at step 3, shuffled",
    ]
    assert told[0].endswith("100% of the observations of empty clips suffice (of own clips 100%)")
    assert rows[2]["alarms"] == {one.alarm: one.says for one in done.alarms}


def test_a_policy_that_reads_raises_none(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = scripted(tiny, tmp_path / "run", monkeypatch, looks=True)
    rows = small.rows(tmp_path / "run")
    assert [row["alarm/own"] for row in rows] == [1] * 4
    assert [row["alarm/empty"] for row in rows] == [0] * 4
    assert max(row["alarm/shuffled"] for row in rows) <= 0.5  # another clip may show the same thing
    assert done.alarms == () and all(row["alarm/raised"] == 0 for row in rows)
    assert not any("alarms" in row for row in rows)


@pytest.mark.parametrize("looks", [True, False])
def test_a_run_without_a_judge_lets_the_policy_answer_from_its_observations(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    no_judge = {"objective__name": "grpo", "judging__kind": "none"}
    done = scripted(tiny, tmp_path / "run", monkeypatch, looks=looks, **no_judge)
    for row in small.rows(tmp_path / "run"):
        assert (row["alarm/own"], row["alarm/empty"]) == (1, float(not looks))
        assert row["alarm/own_n"] == row["alarm/empty_n"] == 16
    assert [one.alarm for one in done.alarms] == ([] if looks else ["empty", "shuffled"])


class Liar(Script):
    """Describes the clip of another question, whatever it is shown."""

    def says(self, example: Example, frames: Frames | None) -> str:
        scenes = list(self.scenes.values())
        number = next(i for i, scene in enumerate(scenes) if scene == example.scene)
        return write_trace(scenes[number - 1], None, seed=0)


@pytest.mark.parametrize("how", [{"alarms__seeing": True}, {"judging__record": ["faithfulness"]}])
def test_a_judge_that_sees_is_asked_about_a_sample_for_the_record(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    scripted(tiny, tmp_path / "good", monkeypatch, looks=True, **how)
    assert [row["alarm/seen"] for row in small.rows(tmp_path / "good")] == [1] * 4
    monkeypatch.setattr(rl, "make_drawer", lambda session: Liar(session, False))
    changes = {"data__demo": WORLD, "steps": 4, "alarms__every": 1, "alarms__rollouts": 4}
    done = train(small.rl(tiny, tmp_path / "bad", **changes, **how))
    rows = small.rows(tmp_path / "bad")
    assert all(row["alarm/seen"] < 0.5 and row["alarm/seen_n"] == 16 for row in rows)
    assert [one.alarm for one in done.alarms] == ["seen"]
    assert all(row["reward/accuracy_p"] == row["alarm/own"] for row in rows)  # it is paid to nobody


def test_a_seeing_check_without_a_judge_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="asks a judge that sees: set judging"):
        small.rl(tiny, tmp_path, alarms__seeing=True, objective__name="grpo", judging__kind="none")


def test_a_trace_without_perception_has_no_reading(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"data__trace": "think-answer", "objective__name": "grpo", "judging__kind": "none", "steps": 1}
    scripted(tiny, tmp_path / "run", monkeypatch, looks=True, **changes)
    (row,) = small.rows(tmp_path / "run")
    assert row["alarm/raised"] == 0
    assert not {"alarm/own", "alarm/empty", "alarm/shuffled"} & row.keys()


def test_readings_come_at_their_steps_and_can_be_switched_off(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(tiny, tmp_path / "some", monkeypatch, looks=True, alarms__every=3, alarms__prompts=2)
    rows = small.rows(tmp_path / "some")
    assert [row["step"] for row in rows if "alarm/empty" in row] == [1, 3]
    assert {row["alarm/empty_n"] for row in rows if "alarm/empty" in row} == {2 * 4}
    scripted(tiny, tmp_path / "none", monkeypatch, looks=True, alarms__every=0)
    rows = small.rows(tmp_path / "none")
    names = {name for row in rows for name in row if name.startswith("alarm")}
    assert names <= {f"alarm/usual_{what}" for what in ("right", "wrong", "right_n", "wrong_n")}


def test_questions_are_counted_by_their_usual_answer(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AlwaysA(Script):
        def says(self, example: Example, frames: Frames | None) -> str:
            return NOTHING

    monkeypatch.setattr(rl, "make_drawer", lambda session: AlwaysA(session, False))
    recipe = small.rl(tiny, tmp_path / "run", data__demo=WORLD, steps=3)
    train(recipe)
    from videop2r_data.trainer.data.usual import UsualAnswers

    stream = DemoStream(recipe.data)
    usual = UsualAnswers(stream)
    for row in small.rows(tmp_path / "run"):
        asked = [stream[i] for i in range(4 * row["step"] - 4, 4 * row["step"])]
        for what, holds in (("right", True), ("wrong", False)):
            found = [float(e.reference == "A") for e in asked if usual.holds(e) is holds]
            assert row.get(f"alarm/usual_{what}_n", 0) == len(found)
            if found:
                assert row[f"alarm/usual_{what}"] == sum(found) / len(found)


def clip(number: int, kind: str = "video") -> Frames:
    stream = DemoStream(small.rl(Path("m"), Path("o"), data__demo=WORLD).data)
    scene = next(e.scene for e in islice(stream, number, None) if e.data_type == kind)
    assert scene is not None
    return draw(scene, MediaSpec(**small.MEDIA))


def test_a_question_gets_the_next_clip_of_its_kind_however_many_processes_there_are() -> None:
    a, b, c, picture = clip(0), clip(8), clip(16), clip(0, "image")
    mine = [Seen(0, 0, a), Seen(1, 3, picture)]
    others = [Seen(0, 5, b), Seen(1, 7, a), Seen(2, 9, c)]

    def gather(_: Any) -> list[Any]:
        return [others, mine]

    two = [swapped(one, Ranks(rank, 2, gather)) for rank, one in enumerate((others, mine))]
    assert two[1] == [mine[0]._replace(frames=b)]  # no other picture: left out
    assert [one.frames is frames for one, frames in zip(two[0], (a, c, a), strict=True)] == [True] * 3
    alone = [mine[0], mine[1], *(one._replace(at=one.at + 2) for one in others)]
    found = {one.place: one.frames for one in swapped(alone)}
    assert found == {one.place: one.frames for part in two for one in part}


def test_alarms_are_in_the_json_of_the_command_and_on_the_card(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videop2r_data.cards.card import write_model_card
    from videop2r_data.cli.train_run import _document

    done = scripted(tiny, tmp_path / "run", monkeypatch, looks=False)
    found = json.loads(json.dumps(_document(done)))["alarms"]
    assert [one["alarm"] for one in found] == ["empty", "shuffled"] and found[0]["since"] == 3
    text = write_model_card(tmp_path / "run").read_text()
    assert (
        "**Alarms.**" in text
        and "- empty (since step 3): 100% of the observations of empty clips suffice" in text
    )
    assert np.isfinite(done.last["loss"])
