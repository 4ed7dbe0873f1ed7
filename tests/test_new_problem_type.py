"""A problem type is one entry of `ProblemType`: readers, prompts, scorers, rows, verify and docs follow from it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

from videop2r_data.schemas import Metric, ProblemType
from videop2r_data.validators.scorer import GRADERS

ROOT = Path(__file__).resolve().parents[1]
ENTRY = """
    COUNTING = (
        "counting",
        TypeTraits(
            form="number",
            grader="number",
            metric="1 if the counts are equal, else 0",
            origin="somebody",
            aliases=("how many",),
            hint="only how many there are, in digits.",
        ),
    )


class DataType("""
SCRIPT = """
import sys
from pathlib import Path

from videop2r_data.builders.run import Result, rl_row, sft_row
from videop2r_data.builders.sources import open_source
from videop2r_data.builders.steps import RequestBuilder
from videop2r_data.builders.verify.report import Rules, Tally
from videop2r_data.builders.verify.rows import check_rl, check_sft
from videop2r_data.cli.terminal import ORDER
from videop2r_data.files.rows import Batch
from videop2r_data.schemas import Outcome, Recipe, column_words, parse_trace
from videop2r_data.validators import check_reference, score, verify_completion

recipe = Recipe.model_validate({
    "name": "made", "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.jsonl"}],
    "generate": {"backend": {"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"}},
})
base = Path(sys.argv[1])
(sample,) = open_source(recipe.sources[0], base=base).rows()
assert sample.problem_type.value == "counting", sample
asked = RequestBuilder(recipe, base).generate(sample, None, 0)
assert "only how many there are, in digits." in str(asked.messages)
assert check_reference("counting", "many") is not None
assert score("counting", prediction="3", reference="3.0").value == 1.0
output = (
    "<observation>Based on the question, I need to notice a red, a blue and a green ball.</observation> "
    "<think>Based on the observations, the answer is 3.</think><answer>3</answer>"
)
checked = verify_completion(output, sample, recipe.verify)
assert checked.check.reason is None, checked
result = Result(
    sample, Outcome.KEPT, trace=checked.trace, score=checked.score, generation_key="0" * 64
)
row, question = sft_row(result, synthetic=False), rl_row(sample)
tally = Tally()
check_sft(Batch(0, 1, {k: [v] for k, v in row.items()}, [0]), None, "f", Rules("ours", recipe.verify), tally)
check_rl(Batch(0, 1, {k: [v] for k, v in question.items()}, [0]), None, "f", Rules("ours", recipe.verify), tally)
assert not tally.findings.listing(), tally.findings.listing()
assert tally.table["text", "counting"] == 2
assert "counting" in column_words()["problem_type"] and ORDER[-1] == "counting"
print("built")
"""


def test_a_new_entry_is_read_asked_scored_and_released(tmp_path: Path) -> None:
    package = tmp_path / "videop2r_data"
    shutil.copytree(ROOT / "videop2r_data", package, ignore=shutil.ignore_patterns("__pycache__"))
    declared = package / "schemas" / "sample.py"
    text = declared.read_text(encoding="utf-8")
    changed = re.sub(r"\n\n\nclass DataType\(", ENTRY.replace("\\", r"\\"), text, count=1)
    assert changed != text
    declared.write_text(changed, encoding="utf-8")
    (tmp_path / "pool.jsonl").write_text(
        '{"problem_id": "1", "problem": "How many balls are there?", "problem_type": "how_many", '
        '"data_type": "text", "solution": "<answer>3</answer>"}\n',
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "built\n", done.stderr


def test_every_type_names_a_grader_and_every_grader_is_named() -> None:
    """What no type names is the metric of a benchmark."""
    metrics = {metric for metric in get_args(Metric) if metric != "grader"}
    assert {kind.traits.grader for kind in ProblemType} | metrics == GRADERS.keys()


def test_no_name_of_a_type_is_that_of_another() -> None:
    names = [name for kind in ProblemType for name in (kind.value.lower(), *kind.traits.aliases)]
    assert len(names) == len(set(names))


def test_the_table_of_metrics_says_what_the_types_declare() -> None:
    page = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8").replace(r"\|", "¦")
    table = page.partition("## The metric of each type")[2].partition("\n## ")[0]
    rows = [
        tuple(cell.strip().replace("¦", "|") for cell in line.split("|")[1:4])
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    assert rows[1:] == [(kind.value, kind.traits.metric, kind.traits.origin) for kind in ProblemType]


def test_the_page_of_prompts_names_every_type() -> None:
    page = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `hint: <problem type>`"))
    assert all(f"`{kind.value}`" in row for kind in ProblemType)
