"""Pools on the Hub: the real clients against the Hub on loopback, in a process of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes.hub_server import HubServer
from videop2r_data.schemas.recipe import parse_recipe

pytestmark = pytest.mark.integration
READ = """
import json, sys
from pathlib import Path
from videop2r_data.builders.sources import open_source
from videop2r_data.errors import SourceError
from videop2r_data.schemas.recipe import SourceSpec
found = []
for settings in json.loads(sys.argv[1]):
    spec = SourceSpec.model_validate(settings)
    try:
        source = open_source(spec, base=Path(sys.argv[2]), demo_root=Path(sys.argv[2]) / "work" / "demo")
        rows = [row.model_dump(mode="json") for row in source.rows()]
        found.append({"rows": rows, "root": str(source.media_root)})
    except SourceError as error:
        found.append({"error": str(error)})
print(json.dumps(found))
"""


def read(hub: HubServer, folder: Path, *each: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of some sources gives, read by one process."""
    plain = {"name": "pool", "kind": "dataset", "problem_type": "OCR", "data_type": "image"}
    specs = [plain | settings for settings in each]
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(specs), str(folder)],
        env={
            **os.environ,
            **hub.environment(folder / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, list)
    return found


def put(hub: HubServer, name: str, data: bytes) -> None:
    repo = hub.store.create("dataset", "me/pool", private=False)
    path = hub.store.root / "put"
    path.write_bytes(data)
    hub.store.put_file(repo, name, path)


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_text_files_on_the_hub(tmp_path: Path, form: str) -> None:
    rows = [{"q": "Red?", "a": "yes", "f": f"{i}.png"} for i in range(3)]
    text = {
        "csv": "q,a,f\n" + "".join(f"{','.join(r.values())}\n" for r in rows),
        "jsonl": "".join(json.dumps(r) + "\n" for r in rows),
        "json": json.dumps(rows),
    }[form]
    with HubServer(tmp_path / "hub") as hub:
        put(hub, f"train.{form}", text.encode())
        columns = {"problem": "q", "solution": "a", "path": "f"}
        right = {"path": "me/pool", "columns": columns}
        wrong = {"path": "me/pool", "columns": columns | {"solution": "answer"}}
        found, refused = read(hub, tmp_path, right, wrong)
        assert [row["path"] for row in found["rows"]] == ["0.png", "1.png", "2.png"]
        assert "no column for solution: answer; there are: q, a, f" in refused["error"]


def test_rows_are_those_of_the_commit_that_is_noted(tmp_path: Path) -> None:
    """A branch is looked up once, and whatever is read then is read by its commit: a push between the two
    would give rows of one commit under the name of another."""
    with HubServer(tmp_path / "hub") as hub:
        put(hub, "train.jsonl", b'{"q": "Red?", "a": "yes", "f": "0.png"}\n')
        columns = {"problem": "q", "solution": "a", "path": "f"}
        (found,) = read(hub, tmp_path, {"path": "me/pool", "columns": columns, "revision": "main"})
        assert len(found["rows"]) == 1
        moving = [call for call in hub.seen if "main" in str(call)]
        assert moving == hub.seen[:1]


def test_images_inside_of_parquet_on_the_hub(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (32, 24), (9, 0, 0)).save(sink, "PNG")
    table = io.BytesIO()
    image = {"bytes": sink.getvalue(), "path": "a.png"}
    pq.write_table(pa.Table.from_pylist([{"q": "Red?", "a": "yes", "image": image}]), table)
    with HubServer(tmp_path / "hub") as hub:
        put(hub, "data/train-00000-of-00001.parquet", table.getvalue())
        columns = {"problem": "q", "solution": "a", "path": "image"}
        (found,) = read(hub, tmp_path, {"path": "me/pool", "columns": columns})
        command = [
            sys.executable,
            "-m",
            "videop2r_data",
            "init",
            "my.yaml",
            "--from-data",
            "me/pool",
            "--json",
        ]
        environment = {**os.environ, **hub.environment(tmp_path / "home")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    guess = json.loads(done.stdout)
    assert (guess["todo"], guess["good"], guess["files_found"]) == ({}, 1, 1), done.stderr
    spec = parse_recipe((tmp_path / "my.yaml").read_text(), where="my.yaml").sources[0]
    assert (spec.path, spec.data_type, spec.problem_type) == ("me/pool", "image", "free-form")
    assert spec.revision is not None and len(spec.revision) == 40
    assert (Path(found["root"]) / found["rows"][0]["path"]).read_bytes() == sink.getvalue()


@pytest.mark.parametrize("path", ["me/none", "hf://datasets/me/none"])
def test_a_name_that_is_not_there_is_asked_for_once(tmp_path: Path, path: str) -> None:
    with HubServer(tmp_path / "hub") as hub:
        (found,) = read(hub, tmp_path, {"path": path})
        assert "cannot get the data set from the Hub: no such one" in found["error"]
        assert len(hub.seen) == 1


def test_a_hub_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        hub.url = "http://127.0.0.1:9"
        (found,) = read(hub, tmp_path, {"path": "me/pool"})
        assert "cannot get the data set from the Hub: [Errno 111] Connection refused" in found["error"]
