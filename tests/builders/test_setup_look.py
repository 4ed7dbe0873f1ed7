"""What `check` and `doctor` find on this machine, without a server."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import av
import pytest

from videop2r_data.builders.checks.needs import BYTES_PER_ROW, look_at_setup
from videop2r_data.builders.checks.report import Finding
from videop2r_data.builders.workspace import Workspace
from videop2r_data.schemas.recipe import Recipe

Usage = namedtuple("Usage", "total used free")


def recipe(**changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "name": "x",
        "sources": [{"name": "p", "kind": "video-r1", "path": "p.json"}],
        "generate": {"backend": {"kind": "openai", "model": "m", "base_url": "http://localhost:8000/v1"}},
    }
    return Recipe.model_validate(settings | changes)


def looked(
    folder: Path, made: Recipe | None = None, *, rows: int = 10, **place: Path
) -> dict[str, list[Finding]]:
    where = Workspace.at(place.get("out", folder / "set"), base=folder, work=place.get("work"))
    found: dict[str, list[Finding]] = {}
    for finding in look_at_setup(made or recipe(), where, rows=rows):
        found.setdefault(finding.about, []).append(finding)
    return found


def test_a_machine_in_order_is_left_as_it_was(tmp_path: Path) -> None:
    found = looked(tmp_path, out=tmp_path / "deep" / "er" / "set")
    assert all(f.state == "ok" and not f.hint for findings in found.values() for f in findings)
    assert list(found) == ["prompts", "decoder", "folders", "disk"]
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    (found,) = looked(tmp_path, out=foreign)["folders"]
    assert found.state == "error" and str(foreign) in found.message and (foreign / "thesis.tex").exists()
    (found,) = looked(tmp_path, out=tmp_path / "set", work=tmp_path / "set" / "work")["folders"]
    assert found.state == "error" and "--work" in found.hint
    (tmp_path / "file").write_text("x")
    found, other = looked(tmp_path, out=tmp_path / "file" / "set")["folders"]
    assert "--out" in found.hint and "--work" in other.hint


def test_the_disk_must_hold_what_the_build_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 1_000_000
    for free, state in (
        (rows * BYTES_PER_ROW - 1, "error"),
        (rows * BYTES_PER_ROW, "warning"),
        (2 * rows * BYTES_PER_ROW, "ok"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        (found,) = looked(tmp_path, rows=rows)["disk"]
        assert found.state == state and "8.2 GB" in found.message
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 2**29))
    assert looked(tmp_path, rows=1)["disk"][0].state == "warning", "half a gigabyte is little for anything"


def test_a_pyav_without_a_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libdav1d", "libaom-av1", "hevc"})
    (found,) = looked(tmp_path)["decoder"]
    assert found.state == "warning" and "HEVC, AV1" in found.message and "pip install" in found.hint


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ({"kind": "openai", "base_url": "https://api.openai.com/v1"}, True),
        ({"kind": "openai", "base_url": "https://8.8.8.8/v1"}, True),
        ({"kind": "openai", "base_url": "http://gpu7:8000/v1"}, False),
        ({"kind": "openai", "base_url": "http://10.1.2.3:8000/v1"}, False),
        ({"kind": "openai", "base_url": "http://llm.cluster.internal/v1"}, False),
        ({"kind": "anthropic"}, True),
        ({"kind": "anthropic", "base_url": "http://127.0.0.1:1"}, False),
        ({"kind": "anthropic", "price": {"input": 3, "output": 15}}, False),
        ({"kind": "vllm"}, False),
    ],
)
def test_a_service_that_bills_needs_a_price(backend: dict[str, Any], told: bool, tmp_path: Path) -> None:
    made = recipe(generate={"backend": {"model": "m", **backend}})
    assert ("price" in looked(tmp_path, made)) is told
