"""Several decisions about one observation, as one reward: expected values by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainer.judging.test_demo_judge import about, scenes
from videop2r_data.demo import SceneSample, write_trace
from videop2r_data.demo.scene import Defect
from videop2r_data.schemas import parse_trace
from videop2r_data.trainer.judging.base import DemoJudge, Judged, Reason, joined, judge_counts
from videop2r_data.trainer.settings.recipe import TrainRecipe, differences, recipe_yaml
from videop2r_data.trainer.settings.rl import JudgingSpec, Reward

SERVER: dict[str, Any] = {"kind": "openai", "model": "j", "base_url": "http://localhost:1/v1"}
ALL: tuple[Reward, ...] = ("sufficiency", "faithfulness", "self")


def told(score: float | None, reason: Reason = Reason.JUDGED) -> Judged:
    return Judged(score, reason)


def parts(*scores: float | None) -> dict[Reward, Judged]:
    names = ALL[: len(scores)]
    return {n: told(s, Reason.JUDGED if s is not None else Reason.LATE) for n, s in zip(names, scores)}  # noqa: B905


@pytest.mark.parametrize(
    ("scores", "product", "mean"),
    [
        ((1.0, 0.5, 1.0), 0.5, 2.5 / 3),
        ((1.0, 0.5, 0.25), 0.125, 1.75 / 3),
        ((0.0, 1.0, 1.0), 0.0, 2 / 3),
        ((0.0, None, 1.0), 0.0, None),  # whatever it would have been, the product is 0
        ((1.0, None, 1.0), None, None),
        ((None, 0.0, None), 0.0, None),
        ((1.0, 1.0, 1.0), 1.0, 1.0),
    ],
)
def test_what_several_scores_earn(
    scores: tuple[float | None, ...], product: float | None, mean: float | None
) -> None:
    for together, wanted in (("product", product), ("mean", mean)):
        spec = JudgingSpec.model_validate({"kind": "demo", "reward": ALL, "together": together})
        found = joined(parts(*scores), spec).score
        assert found == (None if wanted is None else pytest.approx(wanted))


def test_what_is_recorded_is_not_paid_and_what_cannot_be_seen_is_left_out() -> None:
    spec = JudgingSpec(kind="demo", reward=("sufficiency",), record=("faithfulness", "self"))
    assert joined(parts(1.0, 0.25, 0.0), spec).score == 1.0
    blank = {"sufficiency": told(1.0), "faithfulness": told(None, Reason.NO_MEDIA)}
    both = JudgingSpec(kind="demo", reward=("sufficiency", "faithfulness"))
    assert joined(blank, both).score == 1.0  # type: ignore[arg-type]
    alone = JudgingSpec(kind="demo", reward=("faithfulness",), record=("sufficiency",))
    assert joined(blank, alone).score is None  # type: ignore[arg-type]
    assert judge_counts([joined(blank, alone)]) == {"asked": 1, "cached": 0, "late": 0, "failed": 0}  # type: ignore[arg-type]


def test_the_exact_judge_tells_an_invented_detail_from_a_missing_one() -> None:
    """The false claim keeps the observation from sufficing in that world; each claim counts by itself."""

    def observation(sample: SceneSample, defect: Defect | None) -> str:
        return str(parse_trace(write_trace(sample, defect)).observation)

    spec = JudgingSpec(kind="demo", reward=("sufficiency", "faithfulness"), together="mean")
    judge = DemoJudge(spec, ("sufficiency", "faithfulness"))
    for sample in scenes(6):
        items = [about(sample, observation(sample, d)) for d in (None, Defect.INVENTED_DETAIL)]
        good, bad = judge.submit(items).result()
        assert good.score == 1.0 and good.parts["faithfulness"].score == 1.0
        seen = bad.parts["faithfulness"]
        assert seen.score is not None and 0 < seen.score < 1 and "contradicted: " in seen.detail
    again = judge.submit([items[1], items[1]]).result()
    assert [one.cached for one in again] == [False, True]
    assert again[1].parts["faithfulness"].cached


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"reward": "faithfulness"}, "faithfulness cannot be decided with kind: none: set kind: backend"),
        ({"reward": ["sufficiency", "self"]}, "sufficiency cannot be decided with kind: none"),
        ({"record": "faithfulness"}, "faithfulness cannot be decided"),
        ({"kind": "demo", "reward": []}, "reward is empty: name what perception earns"),
        ({"kind": "demo", "reward": ["self", "self"]}, "twice"),
        ({"kind": "demo", "record": "sufficiency"}, "twice"),
        ({"kind": "demo", "reward": "truth"}, "'sufficiency', 'faithfulness' or 'self'"),
        ({"kind": "demo", "together": "mean"}, "together joins several rewards"),
        (
            {"kind": "demo", "faithfulness": {"backend": SERVER}},
            "kind: demo has no judging.faithfulness.backend",
        ),
        (
            {"kind": "backend", "backend": SERVER, "faithfulness": {"backend": SERVER | {"kind": "demo"}}},
            "without a faithfulness.backend",
        ),
        (
            {
                "kind": "backend",
                "backend": SERVER | {"price": {"input": 1.0, "output": 1.0}},
                "faithfulness": {"backend": SERVER},
                "max_cost": 1.0,
            },
            "needs faithfulness.backend.price",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        JudgingSpec.model_validate(settings)


def test_the_cheap_ones_are_asked_first() -> None:
    spec = JudgingSpec(kind="demo", reward=("self", "faithfulness"), record=("sufficiency",))
    assert spec.asked == ALL and spec.pays
    assert JudgingSpec(reward=("self",)).asked == ("self",)
    assert JudgingSpec(record=("self",)).asked == ("self",) and not JudgingSpec(record=("self",)).pays
    assert JudgingSpec().asked == () and not JudgingSpec().pays


def recipe(**judging: Any) -> Any:
    data = {
        "name": "r",
        "stage": "rl",
        "data": {"source": "demo", "config": "rl"},
        "model": {"model": "m", "dtype": "float32"},
        "steps": 1,
        "judging": judging,
    }
    return TrainRecipe.model_validate(data)


def test_a_run_without_a_judge_may_pay_what_the_policy_answers() -> None:
    assert recipe(reward="self").judging.pays
    with pytest.raises(ValidationError, match=r"judging\.reward: self, or choose an objective without it"):
        recipe()
    with pytest.raises(ValidationError, match="pays perception"):
        recipe(record="self")


def test_defaults_leave_no_trace_and_what_changes_weights_is_part_of_a_run() -> None:
    usual = recipe(kind="demo")
    assert not {"reward", "record", "together", "faithfulness"} & usual.identity["judging"].keys()
    assert "reward" not in recipe_yaml(usual)
    assert recipe(kind="demo", record="self").digest == usual.digest
    changed = recipe(kind="demo", reward="faithfulness")
    assert differences(usual.identity, changed.identity) == ["judging.reward: None -> ['faithfulness']"]
    assert recipe_yaml(changed).count("- faithfulness") == 1
    wait = {"kind": "backend", "backend": SERVER, "reward": "faithfulness"}
    longer = wait | {"faithfulness": {"backend": SERVER | {"server_wait_s": 5.0}}}
    shorter = wait | {"faithfulness": {"backend": SERVER | {"server_wait_s": 9.0}}}
    assert recipe(**longer).digest == recipe(**shorter).digest
