"""Card, counts and gallery of a data set whose traces have another form than the default one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.cards.hub_release import write_release
from tests.cards.other_traces import THINKER, write_set
from videop2r_data.errors import SourceError
from videop2r_data.files.release import open_release
from videop2r_data.schemas import TraceGrammar, default_grammar, load_grammar, packaged_grammars

SR1 = "<description>A red ball.</description>\n<think>It is red.</think>\n\\boxed{B}"
OWN = TraceGrammar.model_validate(
    {
        "name": "own",
        "about": "a | <b>form</b> ``` of our own",
        "segments": [
            {"name": "plan", "role": "other", "tag": "plan", "required": False},
            {"name": "seen", "role": "perception", "tag": "seen", "fields": ["<box>{box: box pixels}</box>"]},
            {
                "name": "why",
                "role": "reasoning",
                "tag": "why",
                "stream": "logic",
                "about": "<script>x</script>",
            },
            {"name": "final", "role": "answer", "tag": "final"},
        ],
    }
)
OWN_TEXT = "<plan>Look.</plan><seen>A ball <box>[1, 2, 3, 4]</box>.</seen><why>So.</why><final>B</final>"


def card_of(folder: Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Front matter, body and Croissant document."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    found = re.match(r"\A---\n(.*?)\n---\n(.*)\Z", text, re.DOTALL)
    assert found
    return yaml.safe_load(found[1]), found[2], orjson.loads((folder / "croissant.json").read_bytes())


def part(body: str, name: str) -> str:
    return body.split(f"<!-- p2r:begin {name} -->")[1].split(f"<!-- p2r:end {name} -->", maxsplit=1)[0]


def test_a_card_shows_the_form_of_its_traces_and_a_row_in_it(tmp_path: Path) -> None:
    _, body, _ = card_of(write_set(tmp_path / "set", "video-thinker", [THINKER]))
    form = part(body, "form")
    assert "[the next 4 parts together, 1 time or more:]" in form and "<time>00:05-00:05</time>" in form
    assert THINKER in form
    lines = [line.split(" | ") for line in form.splitlines() if line.startswith("| `")]
    assert [line[0].strip("| `") for line in lines] == [
        "remark",
        "time",
        "caption",
        "think",
        "remark",
        "answer",
    ]
    assert lines[1][1:4] == ["perception", "`perception`", "1 or more rounds"]
    assert lines[3][3] == "1 or more rounds, may be left out" and lines[5][3] == "once"
    assert "\\{start: time mm:ss\\}-\\{end: time mm:ss\\}" in lines[1][4]
    title = part(body, "title")
    assert "`video-thinker`" in title and "<observation>" not in title


def test_added_columns_are_described_in_card_front_matter_and_croissant(tmp_path: Path) -> None:
    head, body, croissant = card_of(write_set(tmp_path / "set", "vision-sr1", [SR1]))
    columns = part(body, "columns")
    assert "| `description` | string | sft |" in columns
    assert "| `segments` | list of (name, text) | sft | all segments of the trace, in order |" in columns
    sft = next(info for info in head["dataset_info"] if info["config_name"] == "sft")["features"]
    kinds = {info["name"]: info for info in sft}
    assert kinds["description"] == {"name": "description", "dtype": "string"}
    records = [{"name": "name", "dtype": "string"}, {"name": "text", "dtype": "string"}]
    assert kinds["segments"] == {"name": "segments", "list": records}
    fields = {field["@id"]: field for field in croissant["recordSet"][0]["field"]}
    assert fields["sft/description"]["dataType"] == "sc:Text"
    found = fields["sft/segments"]
    assert (found["isArray"], found["arrayShape"], "dataType" in found) == (True, "-1", False)
    assert [one["@id"] for one in found["subField"]] == ["sft/segments/name", "sft/segments/text"]
    assert found["subField"][1]["source"] == {
        "fileSet": {"@id": "sft-files"},
        "extract": {"column": "segments"},
        "transform": {"jsonPath": "text"},
    }


def test_traces_without_perception_are_not_called_process_aware(tmp_path: Path) -> None:
    head, _, croissant = card_of(
        write_set(tmp_path / "a", "think-answer", ["<think>t</think><answer>B</answer>"])
    )
    assert not {"perception", "process-aware"} & {*head["tags"], *croissant["keywords"]}
    head, _, croissant = card_of(write_set(tmp_path / "b", "vision-sr1", [SR1]))
    assert {"perception", "process-aware"} <= {*head["tags"]} & {*croissant["keywords"]}


def test_a_grammar_of_ones_own_breaks_no_card(tmp_path: Path) -> None:
    _, body, _ = card_of(write_set(tmp_path / "set", OWN, [OWN_TEXT]))
    assert "a \\| \\<b\\>form\\</b\\>" in part(body, "title")
    form = part(body, "form")
    assert not re.search(r"^```\w*\n[^`]*^```$[^\n]*<script", form, re.MULTILINE)
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", form, flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside and "`logic`" in outside and "once at most" in outside


@pytest.mark.parametrize("name", packaged_grammars())
def test_every_packaged_grammar_has_a_card(tmp_path: Path, name: str) -> None:
    folder = (
        write_set(tmp_path / "set", load_grammar(name), []) if name != "videop2r" else write_release(tmp_path)
    )
    assert open_release(folder).grammar == load_grammar(name)
    if name != "videop2r":
        assert "no accepted row" in card_of(folder)[1] and "## The form of a trace" in card_of(folder)[1]


def test_a_lock_with_a_broken_grammar_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", "vision-sr1", [SR1])
    lock = orjson.loads((folder / "build.lock.json").read_bytes())
    lock["recipe"]["trace"]["segments"][0]["role"] = "seer"
    (folder / "build.lock.json").write_bytes(orjson.dumps(lock))
    with pytest.raises(SourceError, match="trace grammar is not valid") as caught:
        _ = open_release(folder).grammar
    assert "recipe.trace.segments.0" in str(caught.value.where)
    assert open_release(write_release(tmp_path / "plain")).grammar == default_grammar()
