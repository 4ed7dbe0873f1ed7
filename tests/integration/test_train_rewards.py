"""RL whose perception is paid by a judge that sees, or by the policy's own answers: real updates on a CPU."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes.openai_server import Call
from tests.fakes.scripted import Scripted
from tests.integration.test_train_faithful import purpose
from tests.integration.test_train_judge import serving
from tests.integration.test_train_run import assert_same, stopped_after
from tests.trainer.run import small
from videop2r_data.demo import (
    SceneSample,
    observation_is_sufficient,
    see_statement,
    split_claims,
    write_trace,
)
from videop2r_data.demo.scene import Defect
from videop2r_data.media import encode_frames
from videop2r_data.schemas import MediaSpec, parse_trace
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.examples import DemoStream, Example, draw
from videop2r_data.trainer.look.samples import read_samples, render_samples
from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.run import rl
from videop2r_data.trainer.run.train import train

pytestmark = pytest.mark.integration
torch.set_num_threads(1)
WORLD = {**small.STREAM, "tasks": ["colour"]}
QUIET = {"alarms__every": 0}
NOTHING = "<observation>Nothing is in it.</observation> <think>Nothing is seen.</think><answer>Z</answer>"
DEFECTS = (None, Defect.INVENTED_DETAIL, Defect.EVIDENCE_OMITTED, None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.model(tmp_path_factory.mktemp("tiny"))


class Script(Scripted):
    """A policy of a few lines: in each group two true traces, one with a false detail, one that lacks what
    matters. From an observation alone it answers right if the answer's words stand in it."""

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Any = None
    ) -> list[RolledOut]:
        assert len(set(seeds)) == len(seeds) == len(prompts) * group_size
        found = []
        for example, frames, n in zip(prompts.examples, prompts.frames, range(len(prompts)), strict=True):
            for g in range(group_size):
                said = written(example, n * group_size + g) if frames is not None else answered(example)
                found.append(self.said(said))
        return found


def written(example: Example, row: int) -> str:
    assert example.scene is not None
    return write_trace(example.scene, DEFECTS[row % len(DEFECTS)], seed=0)


def right_words(example: Example) -> str:
    return next(o.partition(". ")[2] for o in example.options if o.startswith(example.reference))


def answered(example: Example) -> str:
    told, _, _ = example.problem.partition("noted: ")[2].partition("\n\n")
    known = told and right_words(example) in told.casefold()
    return NOTHING.replace("<answer>Z", f"<answer>{example.reference if known else 'Z'}")


def scripted(tiny: Path, run: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    monkeypatch.setattr(rl, "make_drawer", Script)
    return small.rl(tiny, run, **{"data__demo": WORLD, "steps": 2, **QUIET, **changes})


def by_hand(recipe: Any, step: int) -> list[tuple[bool, float, bool]]:
    """Of each rollout of a step: whether it suffices, the share of true claims, and whether it answers."""
    found = []
    for at, example in enumerate(islice(DemoStream(recipe.data), 4 * step, 4 * step + 4)):
        scene = example.scene
        assert scene is not None
        for g in range(4):
            observation = str(parse_trace(written(example, 4 * at + g)).observation)
            claims = split_claims(observation)
            true = sum(see_statement(scene.scene, claim) == "supported" for claim in claims)
            suffices = observation_is_sufficient(scene.scene, scene.question, observation)
            answers = right_words(example) in observation.casefold()
            found.append((suffices, true / len(claims) if claims else 0.0, answers))
    return found


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def test_the_exact_judge_pays_the_share_of_true_claims(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judging = {"kind": "demo", "reward": "faithfulness", "record": ["sufficiency", "self"]}
    recipe = scripted(tiny, tmp_path / "run", monkeypatch, judging=judging)
    train(recipe)
    rows = small.rows(tmp_path / "run")
    for step, row in enumerate(rows):
        hand = by_hand(recipe, step)
        assert row["reward/accuracy_p"] == pytest.approx(mean([true for _, true, _ in hand]))
        assert row["judged/faithfulness"] == pytest.approx(row["reward/accuracy_p"])
        assert row["judged/sufficiency"] == mean([suffices for suffices, _, _ in hand])
        assert row["judged/self"] == mean([answers for _, _, answers in hand])
        assert row["judged/sufficiency"] < row["judged/self"] < 1  # a false detail answers as well as none
        assert 0 < row["reward/accuracy_p"] < 1 and row["unscored/p"] == 0
    record = read_samples(tmp_path / "run")[1]
    assert list(record["judge"]["parts"]) == ["sufficiency", "faithfulness", "self"]
    assert record["judge"]["score"] == record["rewards"]["accuracy_p"]
    assert "contradicted: " in record["judge"]["parts"]["faithfulness"]["words"]
    assert render_samples([record])


def test_a_product_and_own_answers_are_paid(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = scripted(
        tiny,
        tmp_path / "both",
        monkeypatch,
        judging={"kind": "demo", "reward": ["sufficiency", "faithfulness"]},
    )
    train(both)
    for step, row in enumerate(small.rows(tmp_path / "both")):
        paid = [true if suffices else 0.0 for suffices, true, _ in by_hand(both, step)]
        assert row["reward/accuracy_p"] == pytest.approx(mean(paid))
    own = scripted(tiny, tmp_path / "own", monkeypatch, judging={"reward": "self"})
    train(own)
    for step, row in enumerate(small.rows(tmp_path / "own")):
        assert row["reward/accuracy_p"] == mean([answers for _, _, answers in by_hand(own, step)])
        assert not any(name.startswith("judge/") for name in row)  # nobody was called


def test_own_answers_can_be_a_free_check_of_a_run_that_pays_no_perception(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpo = {"objective__name": "grpo", "judging": {"kind": "none"}}
    recorded = {"objective__name": "grpo", "judging": {"kind": "none", "record": "self"}}
    train(scripted(tiny, tmp_path / "plain", monkeypatch, **grpo))
    train(scripted(tiny, tmp_path / "recorded", monkeypatch, **recorded))
    plain, checked = small.weights(tmp_path / "plain"), small.weights(tmp_path / "recorded")
    assert all(torch.equal(plain[name], checked[name]) for name in plain)
    rows = small.rows(tmp_path / "recorded")
    assert all(0 < row["judged/self"] < 1 for row in rows)
    assert [{k: v for k, v in row.items() if k != "judged/self"} for row in rows] == small.rows(
        tmp_path / "plain"
    )


IMAGE = re.compile(rb"data:image/jpeg;base64,([A-Za-z0-9+/=]+)")
CLAIM = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)


class Seer:
    """A server that knows the scene of each clip by its pictures, and the text alone for sufficiency."""

    def __init__(self, recipe: Any) -> None:
        media: MediaSpec = recipe.data.media
        self.scenes: dict[tuple[bytes, ...], SceneSample] = {}
        for example in islice(DemoStream(recipe.data), 64):
            if example.scene is not None and example.data_type != "text":
                array = draw(example.scene, media).array
                assert array is not None
                self.scenes[encode_frames(array, media)] = example.scene

    def __call__(self, call: Call) -> str:
        asked = purpose(call)
        if asked == "claims":
            framed = re.search(r"BEGIN OBSERVATION\n(.*)\nEND OBSERVATION", call.prompt, re.DOTALL)
            assert framed is not None and b"image_url" not in call.raw
            claims = split_claims(framed[1])
            return "\n".join(f"{n}. {claim}" for n, claim in enumerate(claims, 1)) or "NONE"
        if asked == "faithfulness":
            scene = self.scenes[tuple(b64decode(found) for found in IMAGE.findall(call.raw))].scene
            shown = CLAIM.findall(call.prompt.split("Claims:")[-1])
            return "\n".join(
                f'<claim n="{n}" at="0">{see_statement(scene, c).value}</claim>' for n, c in shown
            )
        return "So. <judgement>Yes</judgement>"


@pytest.fixture
def seeing(tiny: Path, tmp_path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The server of a run on the stream, and the settings of its judges."""
    with serving(answer=Seer(small.rl(tiny, tmp_path / "any", data__demo=WORLD))) as server:
        backend = {"kind": "openai", "base_url": server.url, "retries": 0, "extra": {"video": "frames"}}
        judging = {
            "kind": "backend",
            "backend": {**backend, "model": "reads"},
            "faithfulness": {"backend": {**backend, "model": "sees"}},
            "reward": ["sufficiency", "faithfulness"],
        }
        yield server, judging


def test_a_judge_over_http_sees_what_the_policy_saw(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeing: tuple[Any, dict[str, Any]]
) -> None:
    server, judging = seeing
    recipe = scripted(tiny, tmp_path / "run", monkeypatch, judging=judging)
    train(recipe)
    for step, row in enumerate(small.rows(tmp_path / "run")):
        hand = by_hand(recipe, step)
        # the judge of sufficiency says Yes to all that the rules let through: only the other one sees
        assert row["judged/faithfulness"] == pytest.approx(mean([true for _, true, _ in hand]), abs=1e-9)
        assert row["judge/failed"] == row["judge/late"] == row["unscored/p"] == 0
    assert server.stats()["requests"] > 0


def test_a_resumed_run_is_equal_to_the_last_bit_and_pays_nothing_twice(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeing: tuple[Any, dict[str, Any]]
) -> None:
    server, judging = seeing
    cache = {"cache": str(tmp_path / "cache"), "record": "self"}
    changes = {"judging": judging | cache, "steps": 4}
    stopped_after(scripted(tiny, tmp_path / "two", monkeypatch, **changes), 2)
    half = server.stats()["requests"]
    assert train(scripted(tiny, tmp_path / "two", monkeypatch, **changes)).complete
    paid = server.stats()["requests"]
    assert 0 < half < paid
    assert train(scripted(tiny, tmp_path / "one", monkeypatch, **changes)).complete
    assert server.stats()["requests"] == paid  # the whole run again, from the journal
    one, two = small.weights(tmp_path / "one"), small.weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    untold = ("judge/asked", "judge/cached")
    rows = [
        [{k: v for k, v in row.items() if k not in untold} for row in small.rows(tmp_path / run)]
        for run in ("one", "two")
    ]
    assert rows[0] == rows[1]


def test_the_policy_itself_answers_from_what_it_wrote(tiny: Path, tmp_path: Path) -> None:
    """Rollouts by the model, twice: with the clip, and from the observation; resumed, to the last bit."""
    learnt = {"lr": 0.006, "warmup": 5, "betas": [0.9, 0.98], "max_grad_norm": 1.0, "schedule": "linear"}
    train(
        small.sft(
            tiny,
            tmp_path / "sft",
            data__demo=WORLD,
            steps=60,
            optim=learnt,
            batch={"size": 16, "micro": 16},
        )
    )
    changes: dict[str, Any] = {"data__demo": WORLD, "judging": {"reward": "self"}, "steps": 3}
    start = tmp_path / "sft" / "final"
    assert train(small.rl(start, tmp_path / "one", **changes)).complete
    stopped_after(small.rl(start, tmp_path / "two", **changes), 1)
    assert train(small.rl(start, tmp_path / "two", **changes)).complete
    assert_same(tmp_path / "one", tmp_path / "two")
    rows = small.rows(tmp_path / "one")
    assert sum(row["reward/format_p"] for row in rows) > 1.5  # it writes observations
    assert any(row.get("judged/self") for row in rows)
    assert {"alarm/own"} <= rows[0].keys()  # alarms answer in the same way
