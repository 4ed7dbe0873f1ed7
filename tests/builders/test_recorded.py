"""Verdicts that a data set holds, against labels: worked out by hand, and through the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.builders.release_rows import TRACE, accepted, refused, valid_rows
from tests.cards.hub_release import write_release
from videop2r_data.builders import gather_labels, recorded_verdicts
from videop2r_data.cli.main import app
from videop2r_data.errors import SourceError
from videop2r_data.files.release import open_release
from videop2r_data.schemas import HumanLabel

CELL = pa.struct({name: pa.string() for name in ("judge", "decides", "verdict", "detail")})


def cell(judge: str, verdict: str, decides: str = "faithfulness") -> dict[str, str]:
    return {"judge": judge, "decides": decides, "verdict": verdict, "detail": f"{judge} says so"}


def add(folder: Path, config: str, cells: list[list[dict[str, str]]]) -> None:
    """The column `judgements`, as a build with a list of judges writes it."""
    path = folder / "data" / f"{config}-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("judgements", pa.array(cells, pa.list_(CELL))), path)


def label(row: dict[str, Any], true: bool, **other: Any) -> HumanLabel:
    seen = row.get("observation") or "o"
    reference = row["solution"].removeprefix("<answer>").removesuffix("</answer>")
    words = {
        "sample_id": row["sample_id"],
        "problem": row["problem"],
        "options": row["options"],
        "reference": reference,
        "observation": seen,
    }
    return HumanLabel(**({"sufficient": true, "question": "faithfulness"} | words | other))


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Four accepted rows, one refused by the seeing judge; `eye` is asked about all, `lens` about one."""
    rows = valid_rows()
    rows["sft"] = [accepted(n, "numerical", "image", "7") for n in range(4)]
    rows["rejected"] = [refused(9, "judge", "insufficient", output=TRACE)]
    folder = write_release(tmp_path / "set", rows)
    blind = cell("blind", "answered", "blind")
    verdicts = ["faithful", "faithful", "contradicted", ""]
    sft = [[cell("eye", verdict), blind] for verdict in verdicts]
    sft[0].append(cell("lens", "contradicted"))
    add(folder, "sft", sft)
    add(folder, "rejected", [[cell("eye", "contradicted")]])
    made = [*rows["sft"], rows["rejected"][0]]
    said = [label(row, true) for row, true in zip(made, (True, False, True, True, False), strict=True)]
    said.append(label(made[1], True, observation="Other words.", time="2026-01-01"))
    lines = [one.model_dump_json() for one in said]
    lines.append(label(made[0], False, question="sufficiency").model_dump_json())
    (tmp_path / "marks.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_recorded_verdicts_are_held_against_the_labels_of_the_same_words(
    judged: Path, tmp_path: Path
) -> None:
    labels = gather_labels([tmp_path / "marks.jsonl"], "faithfulness")
    report, rows = recorded_verdicts(labels, open_release(judged))
    assert (report.question, report.labels, report.sufficient, report.elsewhere) == ("faithfulness", 6, 4, 1)
    assert [judge.name for judge in report.judges] == ["eye", "lens"]
    eye, lens = report.judges
    confusion = eye.figures.confusion
    # people T F T T F: the judge says T T F - F; the label of other words is of no row
    assert (confusion.true_positive, confusion.false_positive) == (1, 1)
    assert (confusion.false_negative, confusion.true_negative) == (1, 1)
    assert (eye.unscored, eye.asked, eye.cost_usd) == (2, 0, 0.0)
    assert (lens.labels, lens.unscored, lens.figures.confusion.false_negative) == (6, 5, 1)
    assert lens.unscored_why == "this judge was not asked about the row"
    whys = [row.why for row in rows if row.judge == "eye" and row.sufficient is None]
    assert whys == ["eye says so", "no row of the data set has these words"]
    alone, _ = recorded_verdicts(labels, open_release(judged), "lens")
    assert alone.judges == [lens]
    with pytest.raises(SourceError, match="called 'blind'"):
        recorded_verdicts(labels, open_release(judged), "blind")


def test_a_data_set_without_such_a_judge_says_so(judged: Path, tmp_path: Path) -> None:
    plain = write_release(tmp_path / "plain")
    with pytest.raises(SourceError, match="no verdict of a judge of faithfulness"):
        recorded_verdicts(gather_labels([tmp_path / "marks.jsonl"], "faithfulness"), open_release(plain))


def claim(text: str, verdict: str) -> dict[str, str]:
    return {"text": text, "verdict": verdict}


@pytest.fixture
def claimed(judged: Path, tmp_path: Path) -> Path:
    """Claims of `eye`, the first judge that sees, on two rows; two people have labelled them."""
    path = judged / "data" / "sft-00000.parquet"
    said = [
        [claim("a", "supported"), claim("b", "supported"), claim("c", "unseen"), claim("d", "")],
        [claim("a", "contradicted"), claim("e", "supported")],
        [],
        [],
    ]
    struct = pa.struct({"text": pa.string(), "verdict": pa.string()})
    table = pq.read_table(path)
    pq.write_table(table.append_column("claims", pa.array(said, pa.list_(struct))), path)
    rows = [accepted(n, "numerical", "image", "7") for n in range(2)]
    labels = [
        # of one observation, whose whole the two see differently: their claims count where they agree
        (rows[0], True, "A", {"a": "supported", "b": "contradicted", "c": "unseen", "d": "supported"}),
        (rows[0], False, "B", {"a": "supported", "b": "contradicted", "c": "supported"}),
        (rows[1], False, "A", {"a": "contradicted", "e": "supported", "no such claim": "unseen"}),
    ]
    lines = [
        label(row, true, reviewer=who, claims=[claim(*one) for one in claims.items()]).model_dump_json()
        for row, true, who, claims in labels
    ]
    (tmp_path / "marks.jsonl").write_text("\n".join(lines) + "\n")
    return judged


def test_claims_are_measured_one_by_one(claimed: Path, tmp_path: Path) -> None:
    labels = gather_labels([tmp_path / "marks.jsonl"], "faithfulness")
    report, _ = recorded_verdicts(labels, open_release(claimed))
    eye, lens = report.judges
    assert lens.claims is None, "the claims of a row are those of its first judge"
    found = eye.claims
    assert found is not None and (found.labelled, found.unscored) == (5, 1)
    # a: supported, supported; b: contradicted, supported; d: supported, unscored; a: both contradicted; e: both supported
    assert (found.agreement.value, found.counts["contradicted"]["supported"]) == (0.75, 1)  # type: ignore[index]
    supported, contradicted, unseen = found.verdicts.values()
    assert supported.precision.value == pytest.approx(2 / 3) and supported.recall.value == 1.0
    assert (contradicted.precision.value, contradicted.recall.value) == (1.0, 0.5)
    assert contradicted.recall.low == pytest.approx(0.0945, abs=1e-3)  # Wilson, 1 of 2
    assert unseen.recall.value is None
    wanted = ["judge-eval", str(tmp_path / "marks.jsonl"), "--dataset", str(claimed), "--judge", "eye"]
    result = CliRunner().invoke(app, [*wanted, "--out", str(tmp_path / "out")], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    assert "eye, claim by claim: 5 labelled, 75.0%" in result.output and "1 unscored" in result.output
    assert "contradicted" in result.output and "66.7%" in result.output
    kept = orjson.loads((tmp_path / "out" / "report.json").read_bytes())["judges"]
    assert [one["name"] for one in kept] == ["eye"]
    assert kept[0]["claims"]["counts"]["contradicted"]["supported"] == 1


def test_the_same_words_about_two_clips_are_two_labels(judged: Path, tmp_path: Path) -> None:
    row = accepted(0, "numerical", "image", "7")
    lines = [label(row, true, sample_id=f"a/{true}").model_dump_json() for true in (True, False)]
    (tmp_path / "marks.jsonl").write_text("\n".join(lines))
    found = gather_labels([tmp_path / "marks.jsonl"], "faithfulness")
    assert [one.sufficient for one in found.used] == [True, False] and found.conflicts == []


def test_the_command_measures_a_data_set_without_a_call(judged: Path, tmp_path: Path) -> None:
    wanted = ["judge-eval", str(tmp_path / "marks.jsonl"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*wanted, "--dataset", str(judged)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "true to the clip" in result.output and "1 labels answer another question" in result.output
    report = orjson.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["question"] == "faithfulness" and len(report["judges"]) == 2
    assert len((tmp_path / "out" / "verdicts.jsonl").read_bytes().splitlines()) == 12
    for more in ([], ["--dataset", str(judged), "--recipe", "demo"]):
        refused_ = CliRunner().invoke(app, [*wanted, *more])
        assert refused_.exit_code != 0 and "name the judges once" in refused_.output + str(refused_.stderr)
