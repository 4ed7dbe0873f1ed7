"""The card stays valid and harmless whatever a recipe, a model id or a pool says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.builders.release_rows import valid_rows
from tests.cards.hub_release import write_release
from videop2r_data.builders.export import DatasetWriter
from videop2r_data.cards.card.dataset import NOTE, merged_body, prose_of, write_dataset_card
from videop2r_data.cards.card.facts import read_facts
from videop2r_data.cards.card.licences import find_upstream, registry
from videop2r_data.cards.card.markdown import cell
from videop2r_data.cards.card.metadata import columns_of
from videop2r_data.errors import ExportError, SourceError
from videop2r_data.schemas.rows import CONFIGS

COLUMNS = columns_of(CONFIGS)
HOSTILE = [
    "x\n---\nlicense: mit\n---\n# Injected",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a | b\n| c | `d` [e](javascript:1) ![f](g)",
    "- a: {b: [c\x85\u2028d, &x *y !!python/object z",
    "\U0001f600 “quoted” 'single' \"double\" \\ %TAG # no comment",
    "---",
]


def lock(**changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "name": "set",
        "title": "A title",
        "description": "",
        "license": "apache-2.0",
        "synthetic": False,
        "version": "1.2.0",
        "changelog": ["1.2.0: more rows", "1.0.0: the first"],
        "sources": [{"name": "pool", "license": "cc-by-4.0", "licenses": {}}],
        "generate": {"backend": {"terms": "Apache-2.0"}},
        "media": {"frames": 16, "max_pixels": 100352},
        "verify": {"threshold": 0.6, "policy": {"profile": "robust"}},
    } | changes
    return {
        "recipe": recipe,
        "prompts": {},
        "sources": [{"name": "pool", "rows": 3, "sha256": "0"}],
        "models": {
            "generate": {"asked": recipe.pop("asked", "m"), "served": {recipe.pop("served", "m-1"): 1}}
        },
        "versions": {"videop2r-data": "1"},
        "ledger": {"rows_in": 0, "kept": 0, "rejected": 0, "failed": 0},
    }


def card(folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    """Front matter, as the Hub finds it, and body."""
    with DatasetWriter(folder / "set") as writer:
        files = {name: file.model_dump() for name, file in writer.close().items()}
        data = lock(**changes) | {"files": files}
        (writer.staging / "build.lock.json").write_bytes(orjson.dumps(data))
        text = write_dataset_card(writer.staging).read_text(encoding="utf-8")
    found = re.match(r"\A---\n(.*?)\n---\n(.*)\Z", text, re.DOTALL)
    assert found
    head = yaml.safe_load(found[1])
    assert isinstance(head, dict)
    return head, found[2]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["title", "description", "license", "asked", "served"])
def test_text_from_outside_neither_breaks_the_front_matter_nor_the_body(
    tmp_path: Path, field: str, text: str
) -> None:
    plain, body = card(tmp_path / "plain")
    head, hostile = card(tmp_path / "hostile", **{field: text})
    if field == "license":
        assert (head.pop("license"), head.pop("license_name")) == ("other", " ".join(text.split()))
        plain.pop("license")
    assert head.keys() == plain.keys()
    if field == "title":
        assert head.pop("pretty_name") == " ".join(text.split())
        plain.pop("pretty_name")
    assert head == plain, "no other entry was touched"
    assert not re.search(r"(?<!\\)<(script|img)", hostile)
    if field != "description":
        headings = [line for line in hostile.splitlines() if line.startswith("#")]
        assert len(headings) == len([line for line in body.splitlines() if line.startswith("#")])
        rows = [line for line in hostile.splitlines() if line.startswith("|")]
        assert [len(re.findall(r"(?<!\\)\|", r)) for r in rows] == [
            len(re.findall(r"(?<!\\)\|", r)) for r in body.splitlines() if r.startswith("|")
        ]


def test_no_licence_is_no_entry_and_no_title_is_the_name(tmp_path: Path) -> None:
    head, body = card(tmp_path, license=" ", title="")
    assert "license" not in head and head["pretty_name"] == "set" and "\n# set\n" in body


def test_a_description_keeps_its_markdown(tmp_path: Path) -> None:
    text = "**Bold**, a <https://example.org> link, 1 < 2 and\n\n- a list"
    assert text in card(tmp_path, description=text)[1]


def test_a_description_with_rules_leaves_the_front_matter_alone(tmp_path: Path) -> None:
    head, body = card(tmp_path, description="---\nlicense: mit\n---")
    assert head["license"] == "apache-2.0" and "license: mit" in body


def test_the_card_is_refused_for_files_that_are_not_those_of_the_lock(tmp_path: Path) -> None:
    card(tmp_path)
    with DatasetWriter(tmp_path / "set") as writer:
        writer.close()
        (writer.staging / "build.lock.json").write_bytes(orjson.dumps(lock() | {"files": {}}))
        with pytest.raises(ExportError, match="not the one in the lock"):
            write_dataset_card(writer.staging)
        (writer.staging / "build.lock.json").write_bytes(b"{")
        with pytest.raises(SourceError, match="not a build lock"):
            write_dataset_card(writer.staging)


def test_a_cell_is_one_line_without_markup() -> None:
    assert cell("a|b\n<c> `d`") == "a\\|b \\<c\\> \\`d\\`"


def test_the_parts_that_a_program_wrote_are_made_anew_and_the_rest_stays(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "made")
    path = write_dataset_card(folder)
    fresh = path.read_text(encoding="utf-8")
    assert path == write_dataset_card(folder) and path.read_text(encoding="utf-8") == fresh
    own = "## How we use it\n\nWith care: 12,345 times.\n"
    edited = fresh.replace("<!-- p2r:end load -->\n", f"<!-- p2r:end load -->\n\n{own}")
    edited = edited.replace("| sft | 6 |", "| sft | 60,000 |").replace("= 6 kept", "= 9 kept")
    edited = edited.replace("- reasoning\n", "- reasoning\n- cats\n").replace(
        "license: apache-2.0\n", "license: cc0-1.0\nviewer: false\n"
    )
    assert edited.count("60,000") == 1
    path.write_text(edited, encoding="utf-8")
    write_dataset_card(folder)
    text = path.read_text(encoding="utf-8")
    assert own in text and "60,000" not in text and "= 6 kept" in text
    assert text.index("p2r:end load") < text.index("How we use it") < text.index("p2r:begin example")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["viewer"] is False and "cats" in head["tags"]
    assert prose_of(text) == (own.strip("\n"),)
    path.write_text(
        text.replace("<!-- p2r:end funnel -->", "").replace("= 6 kept", "= 9 kept"), encoding="utf-8"
    )
    write_dataset_card(folder)
    assert path.read_text(encoding="utf-8") == text, "a part without its end is replaced all the same"


def test_a_card_from_before_the_marks_is_replaced(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "made")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Old\n\n6,000 rows\n")
    text = write_dataset_card(folder).read_text(encoding="utf-8")
    assert "6,000" not in text and "license: apache-2.0" in text


def test_marks_that_come_twice_or_alone_do_no_harm() -> None:
    parts = {"a": "one", "b": "two"}
    body = merged_body(parts, "")
    assert merged_body(parts, body) == body
    twice = body + "\n<!-- p2r:begin a -->\nfalse\n<!-- p2r:end a -->\n<!-- p2r:end b -->\nmine\n"
    found = merged_body(parts, twice)
    assert "false" not in found and found.count("p2r:begin a") == 1 and found.endswith("\nmine\n")
    gone = merged_body(parts, "hello\n\n<!-- p2r:begin b -->\nx\n<!-- p2r:end b -->\n")
    assert gone.startswith(NOTE) and gone.index("begin a") < gone.index("hello") < gone.index("begin b")


def test_the_card_has_what_a_researcher_looks_for(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "made")
    text = write_dataset_card(folder).read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["language"] == ["en"]
    row = orjson.loads(re.search(r"```json\n(.*?)\n```", text, re.DOTALL)[1])  # type: ignore[index]
    assert row["sample_id"] == "made/0" and list(row) == list(CONFIGS["sft"].model_fields)
    for name in COLUMNS.keys() - {"image", "video"}:
        assert f"| `{name}` |" in text
    assert "```bibtex" in text and "@inproceedings" in text and "## Clips and images" in text
    data = orjson.loads((folder / "croissant.json").read_bytes())
    assert all(field["description"] for record in data["recordSet"] for field in record["field"])
    assert data["inLanguage"] == ["en"] and "datePublished" not in data, "a local folder has no date"


def test_every_column_of_every_config_is_told_in_words() -> None:
    columns = {name for model in CONFIGS.values() for name in model.model_fields}
    assert COLUMNS.keys() == columns | {"image", "video"}


def test_an_example_cannot_close_its_block_or_steer_a_terminal(tmp_path: Path) -> None:
    rows = valid_rows()
    rows["sft"][0]["problem"] = "a\n```\n# out\n````\n\x1b[31m\u202e</pre>" + "x" * 5000
    for row in rows["rl"]:
        if row["sample_id"] == rows["sft"][0]["sample_id"]:
            row["problem"] = rows["sft"][0]["problem"]
    text = write_dataset_card(write_release(tmp_path / "made", rows)).read_text(encoding="utf-8")
    found = re.search(r"\n(`{5,})json\n(.*?)\n\1\n", text, re.DOTALL)
    assert found and "# out" in found[2] and "\x1b" not in text and "\u202e" not in text
    assert orjson.loads(found[2])["problem"].endswith("… (5,029 characters)")


def sourced(folder: Path, names: list[str], **recipe: Any) -> Path:
    """The small release as if its rows came from these data sources, read by a recipe with these settings."""
    rows = valid_rows()
    for config in rows.values():
        for row in config:
            row["data_source"] = names[int(row["problem_id"]) % len(names)]
    made = write_release(folder, rows)
    path = made / "build.lock.json"
    changed = orjson.loads(path.read_bytes())
    changed["recipe"] |= recipe
    path.write_bytes(orjson.dumps(changed))
    return made


POOL: dict[str, Any] = {
    "name": "made",
    "kind": "video-r1",
    "path": "p.json",
    "license": "mixed, see the data sets named in data_source",
    "licenses": {},
}


def test_licences_come_from_their_pages_and_not_round_in_a_circle(tmp_path: Path) -> None:
    names = ["CLEVRER", "STAR", "LLaVA-Video-178K/30_60_s_youtube_v0_1"]
    folder = sourced(tmp_path / "made", names, sources=[POOL])
    text = write_dataset_card(folder).read_text(encoding="utf-8")
    part = text[text.index("## Sources and licences") : text.index("<!-- p2r:end sources -->")]
    assert "that of its pool" not in part and "named in data" not in part
    assert "[cc0-1.0](http://data.csail.mit.edu/clevrer/README.txt)" in part
    assert "Charades, Action Genome" in part and "[not checked](" in part and "[not stated](" in part
    assert registry().read.isoformat() in part
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["license_name"]) == ("other", "mixed, see the sources")
    assert "STAR: its licence is not known" in part and "forbids commercial use" in part
    assert head["source_datasets"] == ["Video-R1/Video-R1-data", "lmms-lab/LLaVA-Video-178K"]
    data = orjson.loads((folder / "croissant.json").read_bytes())
    assert data["license"][0] == "traces: apache-2.0" and "STAR: not checked" in data["license"]
    assert "http://clevrer.csail.mit.edu" in data["isBasedOn"]
    assert "`p2r-data pull Video-R1/Video-R1-data media --media --rows made`" in text


@pytest.mark.parametrize(
    ("declared", "source", "shown"),
    [
        ("apache-2.0", "cc-by-4.0", "apache-2.0"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("apache-2.0", "cc-by-nc-4.0", "other"),
        ("cc-by-nc-4.0", "cc-by-sa-4.0", "other"),
        ("cc0-1.0", "mit", "other"),
        ("apache-2.0", "for research only", "other"),
        ("llama3.1", "mit", "llama3.1"),
    ],
)
def test_a_card_is_never_wider_than_its_sources(
    tmp_path: Path, declared: str, source: str, shown: str
) -> None:
    pool = POOL | {"kind": "dataset", "license": source}
    folder = sourced(tmp_path / "made", ["Mine"], sources=[pool], license=declared)
    facts = read_facts(folder)
    assert facts.licence.shown == shown and bool(facts.licence.held_back) == (shown == "other")


def test_a_licence_that_the_recipe_names_for_a_source_counts_before_the_registry(tmp_path: Path) -> None:
    folder = sourced(tmp_path / "made", ["STAR"], sources=[POOL | {"licenses": {"STAR": "cc-by-4.0"}}])
    (source,) = read_facts(folder).rows.sources
    assert source.annotations.licence == source.media.licence == "cc-by-4.0" and source.stated_by == "recipe"


def test_benchmarks_that_share_clips_are_named(tmp_path: Path) -> None:
    names = ["NeXT-QA", "LLaVA-Video-178K/0_30_s_academic_v0_1", "ScanNet"]
    text = write_dataset_card(sourced(tmp_path / "made", names, sources=[POOL])).read_text(encoding="utf-8")
    part = text[text.index("## Contamination") :]
    for said in ("| NExT-QA | NeXT-QA |", "| VSI-Bench | ScanNet |", "| Charades-STA | LLaVA", "ActivityNet"):
        assert said in part, said


@pytest.mark.parametrize(
    ("data_source", "path", "found"),
    [
        ("LLaVA-Video-178K/0_30_s_activitynetqa", "", "activitynet-qa"),
        ("", "./LLaVA-Video-178K/academic_source/activitynet/v_1.mp4", "llava-video-academic"),
        ("", "./LLaVA-Video-178K/academic_source/NextQA/0/1.mp4", "llava-video-academic"),
        ("ActivityNet-QA", "", "activitynet-qa"),
        ("ActivityNet-Captions", "", "activitynet"),
        ("CLEVRER", "", "clevrer"),
        ("", "./CLEVRER/train/1.mp4", "clevrer"),
        ("CLEVRER-Humans", "", None),
    ],
)
def test_a_name_that_begins_like_another_does_not_get_its_licence(
    data_source: str, path: str, found: str | None
) -> None:
    entry = find_upstream(data_source, path)
    assert (entry and entry.id) == found


def test_the_registry_names_a_page_for_every_licence_that_it_states() -> None:
    found = registry()
    assert len({one.id for one in found.sources}) == len(found.sources)
    for one in found.sources:
        for terms in (one.annotations, one.media):
            assert terms.stated_at.startswith("http") or not terms.stated, one.id
            assert terms.redistribution == "not known" or terms.stated


def test_a_pool_that_names_a_source_for_every_row_makes_no_endless_card(tmp_path: Path) -> None:
    rows = valid_rows()
    first = rows["rejected"][0]
    rows["rejected"] += [
        first | {"problem_id": f"x{n}", "sample_id": f"made/x{n}", "data_source": f"{n} " + "<b>" * 500}
        for n in range(300)
    ]
    folder = write_release(tmp_path / "made", rows)
    lock = orjson.loads((folder / "build.lock.json").read_bytes())
    lock["recipe"] |= {"sources": [POOL | {"kind": "dataset"}]}
    (folder / "build.lock.json").write_bytes(orjson.dumps(lock))
    text = write_dataset_card(folder).read_text(encoding="utf-8")
    part = text[text.index("## Sources") : text.index("<!-- p2r:end sources -->")]
    assert (
        "and 201 more sources" in part and "and 281 more" in part and "<b>" not in part.replace("\\<b\\>", "")
    )
    assert len(part) < 60_000
