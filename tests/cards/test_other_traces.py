"""Card, counts and gallery of a data set whose traces have another form than the default one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cards.hub_release import write_release
from tests.cards.other_traces import THINKER, write_set
from tests.cards.test_figures import assert_readable
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.cards.card.facts import mark_figures
from videop2r_data.cards.figures.draw import make_figures, redraw
from videop2r_data.cards.figures.segments import SegmentsData
from videop2r_data.cards.figures.stats import compute_stats
from videop2r_data.cards.gallery.rows import entry_of
from videop2r_data.cards.gallery.trace import parts_of, rounds_of, segments_in, values_in
from videop2r_data.errors import SourceError
from videop2r_data.files.release import open_release
from videop2r_data.plots.palette import LIGHT
from videop2r_data.schemas import (
    ClaimVerdict,
    Role,
    TraceGrammar,
    default_grammar,
    load_grammar,
    packaged_grammars,
    trace_parser,
)

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
        write_dataset_card(folder)
    assert "recipe.trace.segments.0" in str(caught.value.where)
    assert open_release(folder).grammar == default_grammar()  # it can still be looked at, and verified
    assert open_release(write_release(tmp_path / "plain")).grammar == default_grammar()


def test_the_lengths_of_each_segment_are_counted_by_its_name(tmp_path: Path) -> None:
    release = open_release(write_set(tmp_path / "set", "video-thinker", [THINKER, THINKER]))
    words = compute_stats(release).segment_words
    assert list(words) == ["remark", "time", "caption", "think", "answer"]
    # "The clip is short." and "So far A or B."; "A ball rolls in." and "It hits the door."; "Which way?"
    assert [(words[name].count, words[name].mean) for name in ("remark", "caption", "think")] == [
        (4, 4.5),
        (4, 4.0),
        (2, 2.0),
    ]
    # reasoning: remarks, think and answer without any mark: 4 + 2 + 5 + 1 words
    assert compute_stats(release).reasoning_words.mean == 12


def test_counts_of_the_default_form_say_nothing_of_segments(tmp_path: Path) -> None:
    assert "segment_words" not in compute_stats(open_release(write_release(tmp_path))).model_dump()


def test_the_figure_of_segments_is_drawn_light_and_dark_and_stands_in_the_card(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", "video-thinker", [THINKER])
    _, index = make_figures(open_release(folder), folder / "figures")
    entry = next(entry for entry in index.figures if entry.name == "segments")
    assert "caption 4" in entry.caption and "`video-thinker`" in entry.caption
    data = SegmentsData.model_validate_json((folder / "figures" / entry.data).read_bytes())
    assert_readable(data.draw(LIGHT))
    assert [one.role for one in data.segments.values()].count(Role.REASONING) == 2
    before = (folder / "figures" / entry.light).read_bytes()
    redraw(folder / "figures")
    assert (folder / "figures" / entry.light).read_bytes() == before
    assert (folder / "figures" / entry.dark).stat().st_size > 2_000
    mark_figures(folder)
    write_dataset_card(folder)
    assert "Length of the segments" in entry.title and entry.light in part(card_of(folder)[1], "figures")


@given(st.data())
@settings(deadline=None)
def test_the_parts_of_any_text_are_the_text_in_every_grammar(data: st.DataObject) -> None:
    grammar = load_grammar(data.draw(st.sampled_from(packaged_grammars())))
    marks = [text for mark in trace_parser(grammar).marks for text in mark if text]
    bits = [
        *marks,
        "a ",
        "\n",
        "}",
        "00:01-00:02",
        "<t>1.5</t>s",
        "<obj>é😀</obj>",
        "<box>[1, 2, 3, 4]</box>",
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(bits), max_size=16)))
    parts = parts_of(text, grammar)
    assert "".join(part[1] for part in parts) == text and all(part[1] for part in parts)
    for part in parts:
        end = 0
        for start, stop, words, at, share in values_in(part, grammar):
            assert end <= start < stop <= len(part[1].encode("utf-16-le")) // 2 and words
            assert share == 0 and (at is None) is ("time" not in words)
            end = stop


def test_typed_values_are_found_at_the_places_that_the_script_counts() -> None:
    text = "\U0001f600 <obj>a \U0001f600</obj><box>[1, 2, 3, 4]</box>at<t>2.5</t>s"
    found = values_in(("think", text), load_grammar("open-o3"))
    units = text.encode("utf-16-le")
    shown = [units[2 * a : 2 * b].decode("utf-16-le") for a, b, *_ in found]
    assert shown == ["a \U0001f600", "[1, 2, 3, 4]", "2.5"]
    assert [rest for _, _, *rest in found] == [
        ["object: label", None, 0],
        ["box: box pixels", None, 0],
        ["at: time seconds", 2.5, 0],
    ]
    share = {
        "name": "x",
        "segments": [{"name": "a", "role": "answer", "tag": "a", "holds": "{at: time percent}"}],
    }
    grammar = TraceGrammar.model_validate(share)
    assert values_in(("answer", "50", "a"), grammar) == [[0, 2, "at: time percent", 0.5, 1]]


def test_the_answer_of_a_row_is_the_last_box_and_its_observation_the_view(tmp_path: Path) -> None:
    auto = load_grammar("videoauto-r1")
    row = {"output": "\\boxed{A}<think>wait</think>\\boxed{B}"}
    entry = entry_of(row, "rejected", 0, auto)
    assert (entry.answer, entry.observation) == ("B", None)
    names = segments_in(entry.parts)
    assert names == ["first_answer", "think", "answer"] and rounds_of(names, auto) == 1
    thinker = load_grammar("video-thinker")
    assert rounds_of(segments_in(parts_of(THINKER, thinker)), thinker) == 2
    seen = entry_of({"output": THINKER.removesuffix("</answer>")}, "rejected", 0, thinker).observation
    assert seen == "00:00-00:01 A ball rolls in.\n00:01-00:02 It hits the door."


def test_claims_that_are_none_are_left_out() -> None:
    cells = [
        {"text": "a", "verdict": "supported", "at": [1, float("nan"), -1.0, "2", True]},
        {"text": "b", "verdict": "Supported"},
        {"text": "", "verdict": "supported"},
        *("no claim", None, {"verdict": "supported"}),
    ]
    found = entry_of({"claims": cells}, "sft", 0).claims
    assert [(c.text, c.verdict, c.at) for c in found] == [
        ("a", ClaimVerdict.SUPPORTED, (1.0,)),
        ("b", None, ()),
    ]
    assert entry_of({"claims": "x"}, "sft", 0).claims == ()
