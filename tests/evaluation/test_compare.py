"""The tables of a comparison: own figures, and beside them what others report, never as equal evidence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from videop2r_data.evaluation.compare import Compared, Comparison, Loaded, _pairs, _together, differing
from videop2r_data.evaluation.compare_tables import blocks_of, latex, markdown
from videop2r_data.schemas import Measured
from videop2r_data.validators import Difference


def difference(**changes: Any) -> Difference:
    values: dict[str, Any] = {
        "protocol": "mmvu_val_mc625", "a": 0.6, "b": 0.64, "difference": 0.04, "low": 0.01, "high": 0.07, "n": 625,
        "clips": 379, "better": 50, "worse": 25, "mcnemar_p": 0.005, "mcnemar_mid_p": 0.004, "p": 0.0004,
        "p_holm": 0.0004, "smallest": 0.03, "verdict": "real",
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
    assert block.notes == ["shown in four of five tries: a difference of 3.0 or more"]


def test_where_the_two_tests_differ_both_are_told() -> None:
    (block,) = blocks_of(*results(p=0.2, p_holm=0.2, verdict="not shown", smallest=None))
    assert block.rows[1][-3:] == ("0.200", "+50 -25", "not shown")
    assert block.notes == ["McNemar's test, questions taken as independent, gives p 0.005"]


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


def test_text_of_others_is_escaped_in_every_form() -> None:
    blocks = list(blocks_of(*results(), reported="table-2"))
    assert "| base & co | 60.0 |" in markdown(blocks) and "R\\_P" in markdown(blocks)
    tex = latex(blocks)
    assert r"base \& co & 60.0 &" in tex and r"R\_P" in tex and r"\%" not in tex
    assert tex.count(r"\\") == len(blocks[0].rows) + 1


def held(**changes: Any) -> Any:
    backend = {"kind": "openai", "model": "m", "base_url": "http://a", "extra": {}}
    plan = {
        "name": "a",
        "backend": backend,
        "media": {"frames": 32, "fps": None},
        "scoring": {"units": "equal"},
    }
    sent = SimpleNamespace(frames=SimpleNamespace(mean=31.96), pixels=None)
    one = {
        "name": "mmvu",
        "pool_sha256": "5" * 64,
        "selection": "",
        "revision": "",
        "layout": "hub",
        "sent": sent,
    }
    other = {name: changes.pop(name) for name in list(changes) if name in one}
    about: dict[str, Any] = {
        "plan": plan | changes.pop("plan", {}),
        "prompts": {},
        "versions": {"scoring": "1"},
    }
    return SimpleNamespace(benchmarks=[SimpleNamespace(**one | other)], **about | changes)


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
    assert told(prompts={"blind-v1": "a", "plain-v1": "b"}, versions={"scoring": "2"}) == [
        ("asked", "", "prompt plain-v1", "(none)", "b"), ("scored", "", "version of scoring", "1", "2"),
    ]  # fmt: skip


def test_the_headlines_are_one_family_and_the_rest_stands_alone() -> None:
    def one(headline: bool) -> Compared:
        found = difference(p=0.03, p_holm=0.03)
        return Compared(benchmark="mmvu", headline=headline, scale=100.0, found=found)

    judged = [found.found for found in _together([one(True), one(False), one(True)])]
    assert [(found.p_holm, found.verdict) for found in judged] == [
        (0.06, "not shown"), (0.03, "real"), (0.06, "not shown"),
    ]  # fmt: skip


def test_questions_are_compared_only_where_both_were_asked_the_same() -> None:
    def row(**changes: Any) -> Any:
        asked = {
            "problem": "p",
            "problem_type": "t",
            "options": ["A", "B"],
            "reference": "A",
            "path": "a.mp4",
        }
        return SimpleNamespace(**asked | {"start_s": None, "end_s": None} | changes)

    first = {name: row() for name in "abcd"}
    second = {"a": row(), "b": row(reference="B"), "c": row(start_s=1.0), "e": row()}
    pairs, others = _pairs(first, second)
    assert pairs == [(first["a"], second["a"])] and others == 6
