"""The card stays valid and harmless whatever a recipe, a model id or a pool says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from videop2r_data.builders.export import DatasetWriter
from videop2r_data.cards.dataset_card import write_dataset_card
from videop2r_data.cards.markdown import cell
from videop2r_data.errors import ExportError

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
        with pytest.raises(ExportError, match="lock cannot be read"):
            write_dataset_card(writer.staging)


def test_a_cell_is_one_line_without_markup() -> None:
    assert cell("a|b\n<c> `d`") == "a\\|b \\<c\\> \\`d\\`"
