"""The pages on format and checks say what the models and codes say."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from videop2r_data.builders.verify import Code
from videop2r_data.schemas.rows import CONFIGS, QuestionColumns, arrow_schema, column_words

DOCS = Path(__file__).resolve().parents[2] / "docs"


def tables(which: int = 2) -> dict[str, dict[str, str]]:
    """Heading -> column -> type (2) or meaning (3), as the page has them."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in (DOCS / "data-format.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        if match := re.match(r"\| `(\w+)` \| ((?:list of )?\w+(?: or null)?) \| (\S.*) \|", line):
            found.setdefault(heading, {})[match.group(1)] = match.group(which)
    return found


def in_words(field: pa.Field) -> str:
    names = {"double": "float64"}
    kind = field.type
    if pa.types.is_list(kind):
        return f"list of {names.get(str(kind.value_type), str(kind.value_type))}"
    return names.get(str(kind), str(kind)) + (" or null" if field.nullable else "")


@pytest.mark.parametrize("config", ["sft", "rejected"])
def test_every_column_is_on_the_page_with_its_type(config: str) -> None:
    on_page = tables()["Question columns"] | tables()[f"Config `{config}`"]
    schema = arrow_schema(CONFIGS[config])
    assert on_page == {field.name: in_words(field) for field in schema}
    assert list(on_page) == schema.names


@pytest.mark.parametrize("config", ["sft", "rejected"])
def test_the_page_begins_with_the_declared_words_of_each_column(config: str) -> None:
    words, on_page = column_words(), tables(3)
    for name, meaning in (on_page["Question columns"] | on_page[f"Config `{config}`"]).items():
        assert meaning.replace("`", "").startswith(words[name]), name


def test_every_column_has_words() -> None:
    assert column_words().keys() == {name for model in CONFIGS.values() for name in model.model_fields}


def test_the_question_columns() -> None:
    assert list(tables()["Question columns"]) == list(QuestionColumns.model_fields)
    assert arrow_schema(CONFIGS["rl"]).names == list(QuestionColumns.model_fields)


def test_every_code_is_on_the_page() -> None:
    text = (DOCS / "verifying.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    names = {name for cell in listed for name in re.findall(r"`(\w+)`", cell)}
    assert names == {code.value for code in Code}
