"""The tables of a comparison: own figures, and beside them what others report, never as equal evidence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._blank import blank
from tests.evaluation.rows import eval_row
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.compare import (
    RIGHT,
    Compared,
    Comparison,
    Loaded,
    _figures,
    _flips,
    _pairs,
    _parts,
    _together,
    differing,
    load_results,
)
from videop2r_data.evaluation.compare_tables import blocks_of, markdown
from videop2r_data.schemas import (
    Aggregate,
    EvalPlan,
    EvalPool,
    EvalRow,
    JudgementCell,
    Measured,
    SegmentCell,
)
from videop2r_data.validators import Difference, mcnemar


def difference(**changes: Any) -> Difference:
    values: dict[str, Any] = {
        "protocol": "mmvu_val_mc625", "a": 0.6, "b": 0.64, "difference": 0.04, "low": 0.01, "high": 0.07, "n": 625,
        "clips": 379, "better": 50, "worse": 25, "mcnemar_p": 0.005, "p": 0.0004, "p_holm": 0.0004,
    }  # fmt: skip
    return Difference(**values | changes)


def results(protocol: str = "mmvu_val_mc625", **changes: Any) -> tuple[list[Loaded], list[Comparison]]:
    figures = (
        Measured(protocol=protocol, value=0.6, low=0.56, high=0.64, n=625, scale=100.0),
        Measured(protocol="mean", by="subject", group="Art", value=0.5, low=0.4, high=0.6, n=9, scale=100.0),
    )
    one = SimpleNamespace(title="MMVU", figures=figures)
    first: Any = SimpleNamespace(name="base & co", benchmarks={"mmvu": one})
    found = difference(protocol=protocol, **changes)
    held = Comparison(
        first="base & co", second="ours", settings=(), flips=(), left_out={},
        figures=(Compared(benchmark="mmvu", headline=True, scale=100.0, found=found),),
    )  # fmt: skip
    return [first, first], [held]


def test_a_protocol_has_its_rows_in_its_own_scale() -> None:
    (block,) = blocks_of(*results())
    assert block.title == "MMVU: mmvu_val_mc625, 625 questions"
    assert block.rows == [
        ("base & co", "60.0", "", "56.0 to 64.0", "", "", ""),
        ("ours", "64.0", "+4.0", "+1.0 to +7.0", "<0.001", "+50 -25", "real"),
    ]
    assert block.notes == []


def test_where_the_two_tests_differ_both_are_told() -> None:
    (block,) = blocks_of(*results(p=0.2, p_holm=0.2))
    assert block.rows[1][-3:] == ("0.200", "+50 -25", "not shown")
    assert block.notes == ["ours: McNemar's test, questions taken as independent, gives p 0.005"]


def test_of_fewer_questions_the_first_has_its_own_value_beside_them() -> None:
    (block,) = blocks_of(*results(n=600, a=0.55, b=0.59))
    assert block.rows[0][1] == "60.0" and block.rows[1][1] == "59.0"
    assert block.notes == ["ours is held against the first on 600 questions of both, where that has 55.0"]


def test_reported_figures_are_marked_and_compared_with_nothing() -> None:
    (block,) = blocks_of(*results(), reported="table-1")
    other = {row[0].partition(" [")[0]: row for row in block.rows[2:]}
    assert len(other) == 10 and all(
        row[-1] == "reported" and row[2] == row[4] == "" for row in other.values()
    )
    # Wilson's interval of 409 of 625
    assert other["VideoP2R"][1] == "65.4" and other["VideoP2R"][3] == "(61.6 to 69.1)"
    assert any("1,858 of 3,000" in note for note in block.notes) and any(
        "VideoRFT#3" in note for note in block.notes
    )
    assert "no share of" not in " ".join(block.notes)
    (every,) = blocks_of(*results(), reported="all")
    assert any("no share of 625 questions rounds to 62.8" in note for note in every.notes)
    assert len(next(blocks_of(*results("mmvu_val_1000"), reported="all")).rows) == 2, "another protocol"


def test_text_of_others_is_escaped() -> None:
    blocks = list(blocks_of(*results(), reported="table-2"))
    assert "| base & co | 60.0 |" in markdown(blocks) and "R\\_P" in markdown(blocks)


def held(**changes: Any) -> Any:
    plan = {
        "name": "a", "backend": {"kind": "openai", "model": "m", "base_url": "http://a", "extra": {}},
        "media": {"frames": 32, "fps": None}, "scoring": {"units": "equal"},
    }  # fmt: skip
    sent = SimpleNamespace(frames=SimpleNamespace(mean=31.96), pixels=None)
    one: dict[str, Any] = {
        "pool_sha256": "5" * 64, "selection": "", "revision": "", "layout": "hub", "sent": sent,
    }  # fmt: skip
    pool = EvalPool.model_validate({"name": "mmvu", "hint": changes.pop("hint", "")})
    one |= {name: changes.pop(name) for name in list(changes) if name in one}
    about = {"plan": plan | changes.pop("plan", {}), "prompts": {}, "versions": {"scoring": "1"}} | changes
    return SimpleNamespace(
        benchmarks={"mmvu": SimpleNamespace(**one)}, result=SimpleNamespace(**about),
        plan=SimpleNamespace(prompt_name="plain-v1"), pool=lambda _: pool,
    )  # fmt: skip


def told(**changes: Any) -> list[tuple[str, str, str, str, str]]:
    found = differing(held(), held(**changes), ["mmvu"])
    return [(one.kind, one.benchmark, one.name, one.first, one.second) for one in found]


def test_what_moves_a_number_is_told_and_what_is_compared_is_not() -> None:
    assert told() == []
    others = {"kind": "openai", "model": "another", "base_url": "http://b", "extra": {"video": "frames"}}
    assert told(
        plan={"backend": others, "name": "b", "judges": [1], "exam": {}, "max_cost": 3, "tokenizer": "t"}
    ) == [("asked", "", "backend.extra.video", "(none)", "frames")]
    assert told(plan={"media": {"frames": 16, "fps": None}, "scoring": {"units": "free"}}) == [
        ("asked", "", "media.frames", "32", "16"), ("scored", "", "scoring.units", "equal", "free"),
    ]  # fmt: skip
    assert told(pool_sha256="6" * 64, layout="own", sent=SimpleNamespace(frames=None, pixels=None)) == [
        ("rows", "mmvu", "pool_sha256", "5" * 12, "6" * 12), ("rows", "mmvu", "layout", "hub", "own"),
        ("asked", "mmvu", "frames sent, mean", "32.0", "(none)"),
    ]  # fmt: skip
    # prompts of judges, of the examination and of the question alone change no score of the model
    prompts = {"blind-v1": "a", "plain-v1": "b", "think-option-v1": "c"}
    assert told(prompts=prompts, versions={"scoring": "2"}) == [
        ("scored", "", "version of scoring", "1", "2"), ("asked", "", "prompt text", "(none)", "b"),
    ]  # fmt: skip
    assert told(hint="Watch.") == [("asked", "mmvu", "hint", "(none)", "Watch.")]


def test_the_headlines_are_one_family_and_the_rest_stands_alone() -> None:
    def one(headline: bool) -> Compared:
        found = difference(p=0.03, p_holm=0.03)
        return Compared(benchmark="mmvu", headline=headline, scale=100.0, found=found)

    judged = [found.found for found in _together([one(True), one(False), one(True)])]
    assert [(found.p_holm, found.verdict) for found in judged] == [
        (0.06, "not shown"), (0.03, "real"), (0.06, "not shown"),
    ]  # fmt: skip


def test_questions_are_compared_only_where_both_were_asked_the_same() -> None:
    row = eval_row("mmvu", "A", options=["A. x", "B. y"], tags={"task": "t"})
    other: list[dict[str, Any]] = [
        {"problem": "Who?"}, {"problem_type": "numerical"}, {"data_type": "image"}, {"options": ["A. y", "B. x"]},
        {"reference": "B"}, {"path": "b.mp4"}, {"start_s": 1.0}, {"end_s": 2.0}, {"tags": []},
    ]  # fmt: skip
    first = {str(at): row for at in range(len(other) + 1)} | {"a": row, "b": row}
    second = {str(at): row.model_copy(update=changes) for at, changes in enumerate(other)} | {
        "a": row,
        "c": row,
    }
    pairs, others = _pairs(first, second)
    assert pairs == [(first["a"], second["a"])] and others == len(first) + len(second) - 2


@given(st.lists(st.tuples(st.sampled_from([0, 0.3, 0.5, 1, None]), st.sampled_from([0, 0.4, 1, None]))))
def test_flips_are_those_that_the_test_counts(scores: list[tuple[float | None, float | None]]) -> None:
    pairs = [(answered(at, was), answered(at, now)) for at, (was, now) in enumerate(scores)]
    graded = [(at, was, now) for at, (was, now) in enumerate(scores) if was is not None and now is not None]
    flips = list(_flips("mmvu", pairs))
    gained = [str(at) for at, was, now in graded if was < 0.5 <= now]
    assert [flip.sample_id for flip in flips if flip.gained] == gained
    assert len(flips) == sum((was >= RIGHT) is not (now >= RIGHT) for _, was, now in graded)
    for one in _figures("mmvu", [Aggregate(id="right", how="recall", at=RIGHT)], pairs, whole=True):
        found = one.found
        assert (found.better, found.worse) == (len(gained), len(flips) - len(gained))
        assert found.n == len(graded) and found.mcnemar_p == mcnemar(found.better, found.worse)


def answered(at: int, score: float | None) -> EvalRow:
    row = eval_row("mmvu", "A")
    reply = row.reply.model_copy(update={"score": score})
    return row.model_copy(update={"sample_id": str(at), "reply": reply})


def judging(model: str = "judge") -> EvalPlan:
    backend = {"kind": "openai", "model": model, "base_url": "http://a"}
    judges = [
        {"name": "reads", "decides": "sufficiency", "backend": backend},
        {"name": "thinks", "decides": "conclusion", "backend": {**backend, "model": "always"}},
    ]
    return EvalPlan.model_validate({
        "plan": 1, "name": "p", "benchmarks": ["demo"], "backend": {**backend, "model": "m"}, "judges": judges,
    })  # fmt: skip


def traced(at: int, words: int, *, suffices: bool, differs: bool, formed: bool | None = True) -> EvalRow:
    """A question whose observation has these words, with what two judges say."""
    cell = {"judge": "reads", "decides": "sufficiency", "verdict": "Yes" if suffices else "No"}
    return eval_row("mmvu", "A").model_copy(
        update={
            "path": f"{at}.mp4",
            "well_formed": formed,
            "segments": [SegmentCell(**blank(SegmentCell) | {"name": "observation", "text": "x " * words})],
            "segment_words": [words],
            "judgements": [JudgementCell(**blank(JudgementCell) | cell)],
            "think_option": "B",
            "mismatch_judge": differs,
        }
    )


def test_the_parts_of_the_traces_are_held_against_each_other() -> None:
    first = [traced(at, 10, suffices=at < 2, differs=at < 12, formed=at > 0) for at in range(20)]
    second = [traced(at, 10 + at % 2, suffices=at < 16, differs=False, formed=None) for at in range(20)]
    pairs = list(zip(first, second, strict=True))
    found = {(one.found.protocol, one.of): one.found for one in _parts("mmvu", (judging(), judging()), pairs)}
    suffices = found["sufficient", "reads"]
    assert (suffices.a, suffices.b, suffices.better, suffices.worse) == (0.1, 0.8, 14, 0)
    assert suffices.verdict == "real" and suffices.low > 0.4
    assert (found["mismatch", ""].a, found["mismatch", ""].b) == (0.6, 0.0)
    assert (found["words", "observation"].difference, found["words", "observation"].n) == (0.5, 20)
    assert ("well_formed", "") not in found, "the second was asked for no form"


def test_a_judge_that_is_another_one_is_not_compared() -> None:
    pairs = [(traced(at, 5, suffices=False, differs=True), traced(at, 5, suffices=True, differs=True))
             for at in range(9)]  # fmt: skip
    protocols = {one.found.protocol for one in _parts("mmvu", (judging(), judging("another")), pairs)}
    assert "mismatch" in protocols and not protocols & {"sufficient", "sufficient_of_all"}


def test_the_parts_are_a_family_of_their_own() -> None:
    def part(p: float) -> Compared:
        found = difference(protocol="true", p=p, p_holm=p)
        return Compared(benchmark="mmvu", headline=False, scale=1.0, part=True, of="sees", found=found)

    headline = Compared(benchmark="mmvu", headline=True, scale=100.0, found=difference(p=0.03, p_holm=0.03))
    judged = [one.found.p_holm for one in _together([part(0.01), headline, part(0.04)])]
    assert judged == [0.02, 0.03, 0.04]


def test_the_parts_stand_in_a_table_of_their_own() -> None:
    (first, _), (held,) = results()
    part = Compared(
        benchmark="mmvu", headline=False, scale=1.0, part=True, of="sees",
        found=difference(protocol="true", a=0.25, b=0.5, n=400, difference=0.25, low=0.2, high=0.3),
    )  # fmt: skip
    _, block = blocks_of([first, first], [held.model_copy(update={"figures": (*held.figures, part)})])
    assert block.title == "MMVU: parts of the traces, base & co | ours"
    assert block.rows == [
        ("no claim is false", "400", "0.250", "0.500", "+0.200 to +0.300", "<0.001", "real")
    ]


def test_results_one_folder_deeper_are_named(tmp_path: Path) -> None:
    (tmp_path / "eval" / "demo-1").mkdir(parents=True)
    (tmp_path / "eval" / "demo-1" / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="no result of an evaluation") as caught:
        load_results([("", tmp_path / "eval"), ("", tmp_path)])
    assert str(tmp_path / "eval" / "demo-1") in (caught.value.hint or "")
