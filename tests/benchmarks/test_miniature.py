"""The miniature of the paper's ablation: world, gate, policy, judges, RL on the trainer's own functions, report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from benchmarks.miniature import gather, report, run
from benchmarks.miniature.alarms import Watch
from benchmarks.miniature.judges import Judge
from benchmarks.miniature.measure import counted, divergence, exact, gate, measure
from benchmarks.miniature.policy import Policy
from benchmarks.miniature.rl import Batch, Learner
from benchmarks.miniature.settings import JUDGES, QUICK, SAME, SETTINGS, Arm, Cell, arms, judge_cells
from benchmarks.miniature.sft import new_policy, teach, world_of
from benchmarks.miniature.world import BASE, DIGITS, LIKELY, TOKENS, World, floor, ideal, solve, think
from videop2r_data.trainer.settings import OBJECTIVES

SMALL = replace(QUICK, prompts=6, group=4, clips=40)
GLIMPSES = SETTINGS["G"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def learner(arm: str = "pa-grpo", seed: int = 0, **fields: Any) -> Learner:
    chosen = arms()[arm]
    start = new_policy(GLIMPSES, seed, TOKENS if chosen.start != "agnostic" else 2)
    return Learner(chosen, Cell("G", arm, seed, **fields), world_of(GLIMPSES), start, SMALL)


def weights(of: Policy) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in of.parameters()])


# The world.


def test_rules_by_hand() -> None:
    digits = torch.tensor([[4, 3, 2]] * 3)
    asked = torch.arange(3)
    # 4 + 3 = 2, 4 - 3 = 1, 2 * 4 + 3 = 1; then 2 + 2 = 4, 1 - 2 = 4, 1 + 2 * 2 = 0; all modulo 5.
    assert think(digits, asked).tolist() == [2, 1, 1]
    assert solve(digits, asked).tolist() == [4, 4, 0]
    assert exact() == 1.0


def test_of_125_observations_25_lead_to_each_answer() -> None:
    every = torch.cartesian_prod(*[torch.arange(BASE)] * DIGITS)
    for question in range(3):
        found = solve(every, torch.full((len(every),), question))
        assert found.bincount().tolist() == [25] * BASE


def test_a_likely_answer_leaves_single_digits_uniform() -> None:
    clips = World(pixels=False, noise=0.1, likely=0.6).draw(20_000, seeded())
    assert (clips.answer == LIKELY[clips.question]).float().mean().item() == pytest.approx(0.6, abs=0.02)
    for k in range(DIGITS):
        shares = clips.digits[:, k].bincount() / len(clips.digits)
        assert shares.max().item() < 0.22


def test_floors_of_the_settings() -> None:
    flat, guessed = floor(world_of(SETTINGS["P2"])), floor(world_of(SETTINGS["Q"]))
    assert 0.19 < flat.constant <= flat.question < 0.22
    assert guessed.question == pytest.approx(0.6, abs=0.015)
    assert ideal(replace(world_of(SETTINGS["P2"]), noise=0.01), n=100) == 1.0


def test_the_teacher_slips_in_each_value_on_its_own() -> None:
    clips = World(pixels=False, noise=0.1).draw(20_000, seeded())
    clean = teach(clips, 0.0, seeded(1))
    assert counted(clean, clips)["answers"] == 1.0
    traces = teach(clips, 0.1, seeded(1))
    wrong = (traces[:, :DIGITS] != clips.digits).float().mean(dim=0)
    # A slip draws any of the five values: one of them is right.
    assert wrong.tolist() == pytest.approx([0.08] * DIGITS, abs=0.01)
    own = think(traces[:, :DIGITS], clips.question) != traces[:, DIGITS]
    assert own.float().mean().item() == pytest.approx(0.08, abs=0.01)


# The policy.


@pytest.mark.parametrize("pixels", [False, True])
def test_writing_again_gives_the_same_log_probabilities(pixels: bool) -> None:
    policy = Policy(pixels=pixels, tokens=TOKENS)
    clips = World(pixels, 0.3).draw(4, seeded())
    read = policy.read(clips.seen, clips.question)
    drawn = policy.write(read, seeded(), group=3)
    assert drawn.tokens.shape == drawn.logps.shape == (12, TOKENS)
    again = policy.write(read.repeat_interleave(3, 0), said=drawn.tokens)
    torch.testing.assert_close(again.every, drawn.every)
    torch.testing.assert_close(drawn.every.exp().sum(-1), torch.ones(12, TOKENS))


def test_a_token_depends_on_those_before_it_alone() -> None:
    policy = Policy(pixels=False, tokens=TOKENS)
    clips = World(False, 0.3).draw(2, seeded())
    read = policy.read(clips.seen, clips.question)
    said = torch.tensor([[0, 1, 2, 3, 4], [1, 1, 1, 1, 1]])
    other = said.clone()
    other[:, 2] = 4
    one, two = policy.write(read, said=said).every, policy.write(read, said=other).every
    torch.testing.assert_close(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3], two[:, 3])


def test_divergence_by_hand() -> None:
    policy = Policy(pixels=False, tokens=TOKENS)
    written = policy.write(policy.read(torch.zeros(1, DIGITS, BASE), torch.tensor([0])))
    p = torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0]).clamp(min=1e-30)
    q = torch.tensor([0.25, 0.75, 0.0, 0.0, 0.0]).clamp(min=1e-30)
    at = [written._replace(every=one.log().expand(1, TOKENS, BASE)) for one in (p, q)]
    found = divergence(*at)
    # 0.5 ln 2 + 0.5 ln (2 / 3) = 0.1438 nats a token.
    assert found["kl_p"] == pytest.approx(3 * 0.14384, abs=1e-4)
    assert found["kl_r"] == pytest.approx(2 * 0.14384, abs=1e-4)
    assert found["kl"] == pytest.approx(found["kl_p"] + found["kl_r"])


# Measurement and gate.


def test_counted_by_hand() -> None:
    clips = World(False, 0.1).draw(4, seeded())
    clips = clips._replace(digits=torch.tensor([[4, 3, 2]] * 4), question=torch.zeros(4, dtype=torch.long))
    # True and right; false but sufficient (3 + 4 + 2 = 4); false and not; true, with a wrong answer.
    traces = torch.tensor([[4, 3, 2, 2, 4], [3, 4, 2, 2, 4], [0, 0, 0, 0, 0], [4, 3, 2, 2, 1]])
    found = counted(traces, clips)
    assert found["observations"] == 0.5
    assert found["invented"] == 0.25
    assert found["answers"] == 0.5
    assert found["reasoning"] == 0.75
    assert (found["both_wrong"], found["one_wrong"]) == (0.25, 0.5)
    assert (found["answers_if_true"], found["answers_if_false"]) == (0.5, 0.5)
    one = clips.at(torch.tensor([0]))
    assert counted(traces, one) == found  # four traces of one clip


GOOD = {
    "greedy": {"answers": 0.70},
    "sampled": {"answers": 0.50, "observations": 0.51, "one_wrong": 0.09},
}


@pytest.mark.parametrize(
    ("mode", "key", "value"),
    [
        ("greedy", "answers", 0.44),
        ("greedy", "answers", 0.76),
        ("sampled", "answers", 0.44),
        ("sampled", "answers", 0.81),
        ("sampled", "observations", 0.85),
        ("sampled", "observations", 0.35),
        ("sampled", "one_wrong", 0.01),
    ],
)
def test_the_gate_asks_for_each_thing(mode: str, key: str, value: float) -> None:
    blind = floor(world_of(SETTINGS["P2"]))
    assert all(check.holds for check in gate(GOOD, blind))
    worse = {name: dict(found) for name, found in GOOD.items()}
    worse[mode][key] = value
    assert not all(check.holds for check in gate(worse, blind))


def test_no_rl_from_a_start_that_the_gate_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = run.Plan(tmp_path, replace(SMALL, candidates=2), map)
    plan.runs("G", ["pa-grpo"])
    out = capsys.readouterr().out
    assert "FAIL sampled answers above the best answer per question" in out
    assert "THE GATE DOES NOT HOLD" in out
    assert {path.parent.name for path in tmp_path.glob("cells/G/*/*.json")} == {"start"}


# Judges.


def test_verdicts_and_calls_by_hand() -> None:
    clips = World(False, 0.1).draw(1, seeded()).at(torch.zeros(4, dtype=torch.long))
    clips = clips._replace(digits=torch.tensor([[4, 3, 2]] * 4), question=torch.zeros(4, dtype=torch.long))
    said = torch.tensor([[4, 3, 2], [3, 4, 2], [3, 4, 2], [0, 0, 0]])
    paid = {}
    calls = {}
    for name in JUDGES:
        judge = Judge(name, 0.0, seeded())
        paid[name], calls[name] = judge.pay(said, clips, 4).tolist(), judge.calls
    assert paid["seeing"] == paid["blind+seeing"] == [True, False, False, False]
    assert paid["blind"] == [True, True, True, False]
    assert not paid["blind+claim"][3]
    # Three different observations; two of them suffice. What is seen is two calls, a claim only one.
    assert calls["blind"] == {"text": 3, "clip": 0}
    assert calls["seeing"] == {"text": 3, "clip": 3}
    assert calls["blind+claim"] == {"text": 3, "clip": 2}
    assert calls["blind+seeing"] == {"text": 5, "clip": 2}


def test_errors_have_their_size() -> None:
    clips = World(False, 0.1).draw(20_000, seeded())
    judge = Judge("seeing", 0.2, seeded(1))
    assert judge.verdict("true", clips.digits, clips).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert {cell.error for cell in judge_cells([0], QUICK)} == {0.0, 0.05, 0.1, 0.2}


# RL.


def test_every_objective_of_the_project_is_an_arm_or_has_a_reason() -> None:
    assert {arm.objective for arm in arms().values()} | set(SAME) >= set(OBJECTIVES)


@pytest.mark.parametrize("name", [name for name, arm in arms().items() if arm.objective])
def test_every_arm_makes_updates(name: str) -> None:
    one = learner(name)
    before = weights(one.policy)
    for _ in range(3):
        one.update()
    assert not torch.equal(weights(one.policy), before)
    assert torch.isfinite(weights(one.policy)).all()
    assert torch.equal(weights(one.start), before)


@pytest.mark.parametrize("same", SAME)
def test_what_is_left_out_is_the_same(same: str) -> None:
    one, other = learner("pa-grpo"), learner("pa-grpo")
    other.arm = Arm(same, same)
    other.objective = one.objective.model_copy(update={"name": same})
    one.rewards = one.rewards.model_copy(
        update={"length": "fixed", "bounds": {"perception": (1, 9), "reasoning": (1, 9)}}
    )
    clips = one.world.draw(SMALL.prompts, one.clips)
    batch, _ = one._rollouts(clips)
    for left, right in zip(one.streams(batch, clips), other.streams(batch, clips), strict=True):
        torch.testing.assert_close(left.advantage, right.advantage, atol=1e-3, rtol=1e-3)


def test_advantages_by_hand_and_by_group() -> None:
    """Rows of a group: perception right in 1 of 4, answers in 2 of 4; the groups do not touch each other."""
    one = learner("pa-grpo")
    clips = one.world.draw(SMALL.prompts, one.clips)
    batch, _ = one._rollouts(clips)
    paid = torch.zeros(24, dtype=torch.bool)
    right = torch.zeros(24, dtype=torch.bool)
    paid[0], right[:2] = True, True
    p, r = one.streams(Batch(batch.clips, batch.written, paid, right), clips)
    assert (p.name, r.name) == ("p", "r")
    # Mean 1/4, deviation sqrt(3)/4: 3/4 and -1/4 over it. Mean 1/2, deviation 1/2.
    assert p.advantage[:4].tolist() == pytest.approx([3**0.5, *[-(3**-0.5)] * 3], abs=1e-3)
    assert r.advantage[:4].tolist() == pytest.approx([1, 1, -1, -1], abs=1e-3)
    assert not p.advantage[4:].any()
    assert p.mask[0].tolist() == [1, 1, 1, 0, 0]
    assert r.mask[0].tolist() == [0, 0, 0, 1, 1]


def test_staleness_one_draws_from_the_policy_before_the_last_update() -> None:
    stale, fresh = learner("pa-grpo-stale"), learner("pa-grpo")
    first, old = stale._rollouts(stale.world.draw(SMALL.prompts, stale.clips))
    assert old is not None
    torch.testing.assert_close(first.written.logps, old)  # nothing was updated yet
    before = weights(stale.policy)
    stale.update()
    assert torch.equal(weights(stale.before), before)
    stale.update()
    fresh.update()
    assert not torch.equal(weights(stale.before), before)
    assert torch.allclose(weights(fresh.policy), weights(fresh.start), atol=0.01)


def test_rounds_of_dynamic_sampling_are_the_arms_own_or_those_of_the_objective() -> None:
    assert [learner(name).redraws for name in ("pa-grpo", "pa-grpo-redraws", "dapo")] == [0, 10, 10]


def test_groups_that_teach_nothing_give_way() -> None:
    one = learner("grpo")
    clips = one.world.draw(SMALL.prompts, one.clips)
    before = one.draws.get_state()
    first, _ = one._rollouts(clips)
    one.draws.set_state(before)
    flat = one._flat(first)
    assert flat.any()
    one.redraws = 50
    other, traces, paid = one._teaching(clips)
    groups = traces.view(SMALL.prompts, SMALL.group, TOKENS)
    kept = first.written.tokens.view(SMALL.prompts, SMALL.group, TOKENS)
    assert torch.equal(groups[~flat], kept[~flat])
    assert torch.equal(other.seen[~flat], clips.seen[~flat])
    assert not torch.equal(other.seen[flat], clips.seen[flat])
    right = (groups[:, :, -1] == other.answer[:, None]).float()
    assert (right.mean(dim=1) % 1 > 0).all()
    assert not paid.any()


def test_a_run_is_repeated_to_the_last_digit(tmp_path: Path) -> None:
    cell = Cell("G", "pa-grpo", 3, judge="blind+claim", error=0.1, updates=3)
    records = [run.do_cell((tmp_path / name, cell, SMALL)) for name in "ab"]
    for record in records:
        record.pop("cpu_s")
    assert records[0] == records[1]
    assert [point["step"] for point in records[0]["curve"]] == [0, 1, 2, 3]


def test_readings_change_nothing_of_the_training() -> None:
    one, other = (learner("pa-grpo", judge="blind", error=0.2) for _ in range(2))
    for step in (1, 2, 3):
        batch = one.update()
        other.update()
        watch = Watch(one.judge, one.world, 0)
        watch.read(step, one.policy, batch.clips, batch.said, batch.right, SMALL.group)
    assert torch.equal(weights(one.policy), weights(other.policy))


def test_an_inventing_policy_raises_the_alarm() -> None:
    """It says what leads to the likely answer, whatever it is shown."""

    class Inventor(Policy):
        def write(self, read: torch.Tensor, *args: Any, group: int = 1, **kwargs: Any) -> Any:
            found = super().write(read, *args, group=group, **kwargs)
            asked = self.asked.repeat_interleave(group)
            found.tokens[:, :DIGITS] = LIKELIEST[asked]
            return found

        def read(self, seen: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
            self.asked = question
            return super().read(seen, question)

    every = torch.cartesian_prod(*[torch.arange(BASE)] * DIGITS)
    LIKELIEST = torch.stack(
        [every[(solve(every, torch.full((125,), q)) == LIKELY[q]).nonzero()[0, 0]] for q in range(3)]
    )
    world = World(False, 0.3, likely=0.9)
    policy = Inventor(pixels=False, tokens=TOKENS)
    watch = Watch(Judge("blind", 0.0, seeded()), world, 0)
    for step in (1, 25, 50, 75):
        clips = world.draw(32, seeded(step)).at(torch.arange(32).repeat_interleave(4))
        drawn = policy.write(policy.read(clips.seen, clips.question), seeded(step))
        said, right = drawn.tokens[:, :DIGITS], drawn.tokens[:, -1] == clips.answer
        watch.read(step, policy, clips, said, right, 4)
    assert "empty" in watch.rows[-1]["alarms"]
    assert "shuffled" in watch.rows[-1]["alarms"]


# Cells and report.


def test_what_is_done_is_not_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("G", "sft", 0, "start")
    first = run.do_start((tmp_path, cell, SMALL))
    monkeypatch.setattr(run, "kept", None)
    assert run.do_start((tmp_path, cell, SMALL)) == json.loads(run.path_of(tmp_path, cell).read_text())
    assert first["purpose"] == "start"
    assert not list(tmp_path.rglob("*.partial"))


def test_the_best_rate_is_chosen_on_validation_clips() -> None:
    def one(rate: float, value: float, test: float) -> dict[str, Any]:
        return {
            "rate": rate,
            "validation": {"sampled": {"answers": value}},
            "test": {"sampled": {"answers": test}},
        }

    assert run.best_rate([one(1e-3, 0.6, 0.1), one(1e-3, 0.7, 0.1), one(3e-3, 0.6, 0.9)]) == 1e-3
    assert run.best_rate([one(3e-3, 0.6, 0.1), one(1e-3, 0.6, 0.1)]) == 1e-3


def test_runs_at_another_rate_than_the_chosen_one_are_no_part_of_the_table() -> None:
    def one(purpose: str, rate: float, seed: int, value: float) -> dict[str, Any]:
        cell = {"setting": "P2", "arm": "grpo", "purpose": purpose, "rate": rate, "seed": seed}
        return cell | {"validation": {"sampled": value}}

    runs = [one("main", 1e-3, 0, 0.5), one("main", 3e-3, 0, 0.6)]
    assert report.rate_of(runs, "P2", "grpo") == (1e-3, False)
    tuned = [one("tune", rate, seed, 100 * rate) for rate in (3e-4, 1e-3, 3e-3) for seed in (1000, 1001)]
    assert report.rate_of([*runs, *tuned], "P2", "grpo") == (3e-3, True)
    assert report.runs([*runs, *tuned], "P2", "grpo") == {0: runs[1]}


def test_arms_with_other_rates_are_compared_within_a_kl_at_the_rate_of_the_other() -> None:
    def one(arm: str, purpose: str, rate: float, answers: list[float], kl: list[float]) -> dict[str, Any]:
        cell = {"setting": "S", "arm": arm, "purpose": purpose, "rate": rate, "seed": 0}
        curve = {"step": [0, 1], "answers": answers, "observations": answers, "kl": kl}
        test = dict.fromkeys(("answers", "observations"), answers[-1])
        return cell | {"curve": curve, "test": {"sampled": test, "greedy": test}}

    def tuned(arm: str, best: float) -> list[dict[str, Any]]:
        cells = ((rate, seed) for rate in (3e-4, 1e-3, 3e-3) for seed in (1000, 1001))
        return [
            {"setting": "S", "arm": arm, "purpose": "tune", "rate": rate, "seed": seed}
            | {"validation": {"sampled": float(rate == best)}}
            for rate, seed in cells
        ]

    found = [*tuned("pa-grpo", 3e-3), *tuned("grpo", 1e-3)]
    found += [
        one("pa-grpo", "main", 3e-3, [0.5, 0.8], [0.0, 2.0]),
        one("grpo", "main", 1e-3, [0.5, 0.6], [0.0, 0.5]),
    ]
    assert "| grpo | 1 | +20.0 | +20.0 | +20.0 | - | - | - | - |" in report.pairs(found, "S"), (
        "nothing at 1e-3"
    )
    found.append(one("pa-grpo", "rates", 1e-3, [0.5, 0.65], [0.0, 0.4]))
    assert "| grpo | 1 | +20.0 | +20.0 | +20.0 | +5.0 | 0.40 | +15.0 | +15.0 |" in report.pairs(found, "S")


def test_turn_to_inventing() -> None:
    rows = [
        [25, 0, 0, 0, 0.2],
        [50, 0, 0, 0, 0.35],
        [75, 0, 0, 0, 0.25],
        [100, 0, 0, 0, 0.31],
        [125, 0, 0, 0, 0.4],
    ]
    assert gather.turn({"training": rows}) == 100
    assert gather.turn({"training": rows[:3]}) is None


def test_what_the_alarms_read_is_told_at_the_first_update_and_at_the_end() -> None:
    rows = [
        {"step": step, "alarm/empty": share, "alarm/empty_n": 16}
        for step, share in enumerate([0.25, 0.5, 1.0, 1.0, 0.5, 0.5])
    ]
    cell = {"setting": "Q", "arm": "pa-grpo", "purpose": "judges", "judge": "blind", "error": 0.0, "seed": 0}
    found = gather.small(
        {**cell, "readings": rows, "training": [], "validation": {"sampled": {"answers": 0.5}}}
    )
    assert found["read_first"]["empty"] == 0.25
    assert found["read"]["empty"] == 0.75, "the last four"
    table = report.alarm_values(
        [found, {**found, "seed": 1, "read_first": {**found["read_first"], "empty": 0.75}}]
    )
    assert "| blind | 0 | 2 | 50 → 75 |" in table
    assert table.splitlines()[2].count(" - → - ") == 5, "nothing was read of the others"


def test_arms_are_compared_within_the_same_distance_from_the_start() -> None:
    fast = {
        0: {"curve": {"kl": [0.0, 1.0, 2.0], "answers": [0.5, 0.6, 0.7], "observations": [0.5, 0.5, 0.6]}}
    }
    slow = {
        0: {"curve": {"kl": [0.0, 1.1, 0.9], "answers": [0.5, 0.6, 0.62], "observations": [0.5, 0.5, 0.5]}}
    }
    found = gather.equal_kl(fast, slow)
    assert found.level.mean == 1.1
    assert found.answers.mean == pytest.approx(-2.0)
    assert gather.equal_kl(slow, fast).answers.mean == pytest.approx(2.0)


def test_the_quick_run_and_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    tiny = replace(SMALL, prompts=2, group=2, share=0.001)
    plan = run.Plan(tmp_path, tiny, map, force=True)
    plan.runs("P2", ["pa-grpo", "grpo", "agnostic-sft", "agnostic-grpo"])
    plan.judges()
    out = tmp_path / "page.md"
    report.main(
        [
            "--cells",
            str(tmp_path),
            "--results",
            str(tmp_path / "r"),
            "--page",
            str(out),
            "--figures",
            str(tmp_path),
        ]
    )
    page = out.read_text()
    assert "[[" not in page
    assert "run --phases" in page
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert (tmp_path / "judges.png").exists()
    again = tmp_path / "again.md"
    report.main(["--results", str(tmp_path / "r"), "--page", str(again), "--figures", str(tmp_path)])
    assert again.read_text() == page


def test_black_frames_and_measures_of_an_untrained_policy() -> None:
    policy = Policy(pixels=True, tokens=TOKENS)
    clips = World(True, 0.5).draw(64, seeded())
    assert not clips.black.any()
    found = measure(policy, clips, policy)
    assert found["sampled"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert set(found["greedy"]) <= set(found["sampled"])
    again = measure(policy, clips, policy, draws=4)
    assert again["greedy"] == found["greedy"]
    assert again["sampled"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert abs(again["sampled"]["answers"] - found["sampled"]["answers"]) < 0.2
