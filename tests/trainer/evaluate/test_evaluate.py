"""The whole way from questions to a report, with a tiny model that was never trained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from videop2r_data.errors import AuthError, ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.evaluate.questions import HeldOut, evaluate, settings_of
from videop2r_data.trainer.evaluate.report import EvalReport, EvalRow
from videop2r_data.trainer.judging.base import DemoJudge, Judged, JudgeItem, Reason, Ticket
from videop2r_data.trainer.model.load import Policy, load_policy
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.settings.parts import DataSpec, EvalSpec, PolicySpec
from videop2r_data.trainer.settings.rl import SamplingSpec
from videop2r_data.trainer.tiny.model import make_tiny
from videop2r_data.trainer.tiny.recipe import TinySpec, TinyWorld

TINY = TinySpec(
    hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64, vision_hidden=16, vision_layers=1,
    vision_intermediate=32, vocab=400, corpus=60,
)  # fmt: skip
DATA = DataSpec(
    source="demo",
    config="sft",
    limit=7,
    demo=TinyWorld(mediums=("video", "text"), tasks=("count", "colour", "sum", "direction"), max_objects=2),
    media=MediaSpec(frames=4, max_pixels=784, min_pixels=64, factor=8),
)
SPEC = EvalSpec(batch=3, sampling=SamplingSpec(temperature=1.0, max_new_tokens=12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_tiny(tmp_path_factory.mktemp("tiny"), TINY, world=TinyWorld())


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(PolicySpec(model=str(folder), dtype="float32", gradient_checkpointing=False))


@pytest.fixture(scope="module")
def examples() -> Sequence[Example]:
    return list(read_examples(DATA))


class Parrot:
    """An engine that says what is learnt in SFT, and counts."""

    room: int | None = None

    def __init__(self, collator: Collator) -> None:
        self.collator = collator
        self.asked: list[str] = []

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Any = None
    ) -> list[RolledOut]:
        assert group_size == 1 and len(seeds) == len(prompts)
        self.asked += [example.sample_id for example in prompts.examples]
        return [RolledOut(self.collator.target_ids(example), True) for example in prompts.examples]

    def sync(self, net: Any) -> None:
        raise AssertionError("evaluation changes no weights")

    def close(self) -> None: ...


def run(policy: Policy, examples: Sequence[Example], **more: Any) -> EvalReport:
    return evaluate(policy.net, policy.processor, examples, **{"data": DATA, "spec": SPEC, **more})


def rows_of(policy: Policy, examples: Sequence[Example], **more: Any) -> dict[int, EvalRow]:
    kept: list[EvalRow] = []
    run(policy, examples, keep=kept.extend, **more)
    return {row.index: row for row in kept}


def test_right_answers_are_right(policy: Policy, examples: Sequence[Example]) -> None:
    collator = Collator(policy.processor, load_prompt(DATA.prompt_name), DATA.media)
    parrot = Parrot(collator)
    batches: list[Sequence[EvalRow]] = []
    report = run(policy, examples, engine=parrot, judge=DemoJudge(), keep=batches.append)
    assert report.accuracy is not None and report.accuracy.value == 1.0 and report.accuracy.n == 7
    assert report.sufficiency is not None and report.sufficiency.value == 1.0
    assert report.format is not None and report.format.value == 1.0
    assert report.mismatch is not None and report.mismatch.value == 0.0
    assert parrot.asked == [e.sample_id for e in examples]
    assert [[row.sample_id for row in batch] for batch in batches] == [
        [e.sample_id for e in examples[lo : lo + 3]] for lo in (0, 3, 6)
    ]
    assert batches[0][0].text == examples[0].target


def test_rows_that_were_whole_are_kept_when_the_judge_stops(
    policy: Policy, examples: Sequence[Example]
) -> None:
    class Stops(DemoJudge):
        def submit(self, items: Sequence[JudgeItem]) -> Ticket:
            if items[0].example.sample_id == examples[6].sample_id:
                raise AuthError("wrong key")
            return super().submit(items)

    whole = rows_of(policy, examples, judge=DemoJudge())
    kept: list[EvalRow] = []
    with pytest.raises(AuthError):
        run(policy, examples, judge=Stops(), keep=kept.extend)
    assert 0 < len(kept) < 7 and all(whole[row.index] == row for row in kept)


def test_batches_and_processes_change_no_row(policy: Policy, examples: Sequence[Example]) -> None:
    one = rows_of(policy, examples, judge=DemoJudge())
    assert len({row.text for row in one.values()}) > 1
    small = SPEC.model_copy(update={"batch": 1})
    assert rows_of(policy, examples, spec=small, judge=DemoJudge()) == one
    three = [rows_of(policy, examples, ranks=Ranks(r, 3), judge=DemoJudge()) for r in range(3)]
    assert [sorted(rows) for rows in three] == [[0, 3, 6], [1, 4], [2, 5]]
    assert three[0] | three[1] | three[2] == one


def test_verdicts_that_come_too_late_are_counted(policy: Policy, examples: Sequence[Example]) -> None:
    class Late(DemoJudge):
        def submit(self, items: Sequence[JudgeItem]) -> Ticket:
            ticket = Ticket()
            ticket.set_result([Judged(None, Reason.LATE) for _ in items])
            return ticket

    found = run(policy, examples, judge=Late())
    assert found.sufficiency is None and found.unjudged == {"late": 7}


def test_bad_media_are_counted_and_their_rows_say_why(policy: Policy, tmp_path: Path) -> None:
    from videop2r_data.schemas.sample import DataType, ProblemType

    missing = Example(
        "s/1", "What?", (), ProblemType.FREE_FORM, DataType.VIDEO, tmp_path / "no.mp4", "x", None
    )
    text = Example("s/2", "What?", (), ProblemType.FREE_FORM, DataType.TEXT, None, "x", None)
    rows: list[EvalRow] = []
    report = run(policy, [missing, text], keep=rows.extend)
    assert report.skipped == {"media_missing": 1} and (report.questions, report.asked) == (2, 1)
    assert rows[0].skipped == "media_missing"
    assert report.sufficiency is None


def test_what_changes_no_row_is_no_setting() -> None:
    base = settings_of(EvalSpec(), DATA)
    same = settings_of(EvalSpec(batch=99, resamples=100), DATA.model_copy(update={"workers": 3, "ahead": 9}))
    assert base == same
    assert base != settings_of(EvalSpec(seed=1), DATA)
    assert base != settings_of(EvalSpec(), DATA.model_copy(update={"limit": 3}))


def test_between_training_steps(policy: Policy, tmp_path: Path) -> None:
    judge = DemoJudge()
    held_out = HeldOut(policy.processor, DATA, spec=SPEC, judge=judge, run=tmp_path)
    training = policy.net.training
    first = held_out(policy.net, 10)
    assert first == held_out(policy.net, 10)
    assert first["eval/questions"] == 7 and "eval/sufficiency" in first
    assert policy.net.training is training
    folder = tmp_path / "eval" / "step-000010"
    rows = [
        EvalRow.model_validate_json(line) for line in (folder / "rows-0000.jsonl").read_text().splitlines()
    ]
    assert rows == list(rows_of(policy, held_out.examples, judge=judge).values())
    report = run(policy, held_out.examples, judge=judge)
    assert EvalReport.model_validate_json((folder / "report.json").read_bytes()) == report
    assert json.loads((folder / "settings.json").read_bytes()) == settings_of(SPEC, DATA, step=10)
    exact = HeldOut(policy.processor, DATA, spec=SPEC)
    assert exact(policy.net, 10) == first
    with pytest.raises(ConfigError, match="never ends"):
        HeldOut(policy.processor, DATA.model_copy(update={"limit": None}))


def test_what_an_earlier_attempt_left_goes(policy: Policy, tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "step-000010"
    folder.mkdir(parents=True)
    for rank in (0, 1, 12):
        (folder / f"rows-{rank:04d}.jsonl").write_text('{"index": 99}\\n')
    (folder / "rows-notes.jsonl").write_text("mine")
    HeldOut(policy.processor, DATA, spec=SPEC, run=tmp_path)(policy.net, 10)
    assert {path.name for path in folder.glob("rows-*")} == {"rows-0000.jsonl", "rows-notes.jsonl"}
    assert len((folder / "rows-0000.jsonl").read_text().splitlines()) == 7


_TWO = """
import sys, torch
from torch import distributed
from videop2r_data.trainer.ranks import Ranks
rank, port = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{port}", rank=rank, world_size=2)
ranks = Ranks.here()
assert (ranks.rank, ranks.world) == (rank, 2)
assert ranks.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
distributed.barrier()
distributed.destroy_process_group()
"""


def test_two_processes_come_together(tmp_path: Path) -> None:
    assert Ranks.here() == Ranks()
    command = [sys.executable, "-c", _TWO]
    both = [subprocess.Popen([*command, str(r), str(tmp_path / "meet")]) for r in range(2)]
    assert [one.wait(120) for one in both] == [0, 0]
