"""Everything in a good set is deleted, emptied and altered in turn: `verify` finds it, or says why it need not."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.integration.test_build import Silent
from videop2r_data.builders.pipeline import build
from videop2r_data.builders.verify import VerifyReport, verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import as_written, write_dataset_card
from videop2r_data.recipes import recipe_text
from videop2r_data.schemas.recipe import parse_recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

IRRELEVANT = {
    "text outside of the marked parts": "a person's own words",
    "a key of one's own": "a person's own",
    "a tag of one's own": "a person's own",
    "a picture in figures/": "no loader reads it; the card says of which rows the pictures were drawn",
}
"""What `verify` does not find, and why; docs/verifying.md says the same."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    recipe = parse_recipe(recipe_text("demo"), where="demo")
    source = recipe.sources[0].model_copy(update={"limit": 25})
    recipe = recipe.model_copy(update={"sources": (source,)})
    place = Workspace.at(folder / "set", base=folder)
    report = asyncio.run(build(recipe, place, observer=Silent(), card=write_dataset_card))
    assert report.state == "complete"
    return folder / "set"


@pytest.fixture
def tampered(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "set"))


def verify(folder: Path) -> VerifyReport:
    return verify_release(folder, workers=1, as_written=as_written)


def found(folder: Path) -> dict[str, str]:
    """Code -> severity."""
    return {one.code.value: one.severity for one in verify(folder).findings}


def test_the_good_set_is_good(good: Path) -> None:
    report = verify(good)
    assert report.findings == [] and report.ok and report.locked


def empty_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def a_row_less(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


WAYS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "a bit flipped": flip,
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "without rows": empty_rows,
    "a row less": a_row_less,
}


def test_every_file(good: Path, tmp_path: Path) -> None:
    names = sorted(p.relative_to(good).as_posix() for p in good.rglob("*") if p.is_file())
    assert len(names) == 6
    for name in names:
        for way, change in WAYS.items():
            if "row" in way and not name.endswith(".parquet"):
                continue
            folder = Path(shutil.copytree(good, tmp_path / "set"))
            change(folder / name)
            codes = found(folder)
            if (name, way) == ("README.md", "a byte more"):
                assert not codes, IRRELEVANT["text outside of the marked parts"]
            else:
                assert codes, f"{name} {way}"
                # croissant.json is for search engines: no loader of rows reads it
                assert "error" in codes.values() or name in ("croissant.json", "README.md"), f"{name} {way}"
            shutil.rmtree(folder)
    for name in ("README.md", "build.lock.json"):
        folder = Path(shutil.copytree(good, tmp_path / "set"))
        (folder / name).unlink()
        assert not verify(folder).ok, name
        shutil.rmtree(folder)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a document, branches included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        if path[-1:] == ("features",) and key not in (0, len(value) - 1):
            continue  # all columns are compared as one: the first and the last stand for them
        yield from leaves(inner, (*path, key))


def other(value: Any) -> Any:
    """A value of the same type, but another one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("b" if value.endswith("a") else "a") if value else "x"
    return "x" if value is None else None


def changes(document: Any) -> Iterator[tuple[str, Any]]:
    """Each part of a document deleted, and altered."""
    for path in leaves(document):
        for way in ("deleted", "altered"):
            changed = copy.deepcopy(document)
            place = changed
            for key in path[:-1]:
                place = place[key]
            if way == "deleted":
                del place[path[-1]]
            else:
                place[path[-1]] = other(place[path[-1]])
            yield f"{'.'.join(map(str, path))} {way}", changed


def card_with(folder: Path, head: Any) -> None:
    path = folder / "README.md"
    body = path.read_text().split("\n---\n", 1)[1]
    path.write_text(f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{body}")


def head_of(folder: Path) -> Any:
    return yaml.safe_load((folder / "README.md").read_text().split("\n---\n", 1)[0].removeprefix("---\n"))


def test_every_field_of_the_lock(tampered: Path) -> None:
    lock = json.loads((tampered / "build.lock.json").read_bytes())
    missed = []
    for what, changed in changes(lock):
        (tampered / "build.lock.json").write_text(json.dumps(changed))
        if verify(tampered).ok:
            missed.append(what)
    assert missed == []


def test_fields_of_the_lock_that_a_new_card_hides(tampered: Path) -> None:
    """The card was made anew of the altered lock, so that it names this very lock."""
    lock = json.loads((tampered / "build.lock.json").read_bytes())
    altered: list[Callable[[dict[str, Any]], object]] = [
        lambda it: it["sources"][0].update(rows=it["sources"][0]["rows"] + 1),
        lambda it: it["sources"][0].update(name="other"),
        lambda it: it["models"]["generate"].update(asked="other"),
        lambda it: it["models"].pop("judge"),
        lambda it: it["recipe"].update(synthetic=False),
        lambda it: it.update(lock=2),
    ]
    for change in altered:
        changed = copy.deepcopy(lock)
        change(changed)
        (tampered / "build.lock.json").write_text(json.dumps(changed))
        write_dataset_card(tampered)
        assert verify(tampered).findings, changed
    (tampered / "build.lock.json").write_text(json.dumps(lock))
    write_dataset_card(tampered)
    assert verify(tampered).findings == []


LOADED = ("configs", "dataset_info")
"""Keys of the front matter that `datasets` reads."""


def test_every_field_of_the_front_matter(tampered: Path) -> None:
    head = head_of(tampered)
    card_with(tampered, head)
    assert verify(tampered).findings == []
    for what, changed in changes(head):
        card_with(tampered, changed)
        codes = found(tampered)
        assert codes, what
        words = what.startswith(LOADED) and "description" not in what
        assert not words or "error" in codes.values(), f"{what}: {codes}"
    own = copy.deepcopy(head)
    own["extra_gated_prompt"] = "Be kind."
    own["tags"].append("my-tag")
    card_with(tampered, own)
    assert found(tampered) == {}, (IRRELEVANT["a key of one's own"], IRRELEVANT["a tag of one's own"])


def test_every_line_of_the_text(tampered: Path) -> None:
    """A line in a marked part is the program's; the others are a person's."""
    path = tampered / "README.md"
    head, body = path.read_text().split("\n---\n", 1)
    lines, inside = body.split("\n"), False
    for number, line in enumerate(lines):
        mark = "p2r:begin" in line or "p2r:end" in line
        inside = "p2r:begin" in line or (inside and not mark)
        if not line.strip():
            continue
        changed = [*lines[:number], f"{line} changed", *lines[number + 1 :]]
        path.write_text(f"{head}\n---\n" + "\n".join(changed))
        assert bool(found(tampered)) == (inside or mark), line


def test_every_field_of_the_croissant_file(tampered: Path) -> None:
    path = tampered / "croissant.json"
    document = json.loads(path.read_bytes())
    for key in document:
        path.write_text(json.dumps({k: v for k, v in document.items() if k != key}))
        assert found(tampered) == {"not_as_written": "warning"}, key
        path.write_text(json.dumps(document | {key: "x"}))
        assert found(tampered) == {"not_as_written": "warning"}, key


def test_configs_that_a_loader_would_mix(tampered: Path) -> None:
    head = head_of(tampered)
    for pattern in ("data/*", "data/rl-*", "data/sft-0*1.parquet", "sft-*", "../sft-*", 3, None):
        changed = copy.deepcopy(head)
        changed["configs"][0]["data_files"][0]["path"] = pattern
        card_with(tampered, changed)
        assert found(tampered).get("card_config") == "error", pattern


def test_a_set_without_a_lock_is_named_as_such(tampered: Path) -> None:
    (tampered / "build.lock.json").unlink()
    report = verify(tampered)
    assert {f.code.value for f in report.findings} == {"lock_missing"} and not report.ok
    assert not report.locked and report.notes[0].startswith("no build.lock.json")
    (tampered / "README.md").unlink()
    report = verify(tampered)  # somebody else's rows in our columns
    assert report.ok and not report.locked and report.notes[0].startswith("no build.lock.json")
