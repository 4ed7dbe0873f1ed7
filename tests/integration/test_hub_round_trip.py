"""The real clients, as separate processes, around the commands: push, load, stream, change, pull, break."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders.release_rows import write_official
from tests.cards.hub_release import changed_rows, write_release
from tests.cards.test_model_card import with_evaluation, write_run
from tests.fakes.hub_server import HubServer

pytestmark = pytest.mark.integration
P2R = str(Path(sys.executable).parent / "p2r-data")
REPO = "me/made"
FAST = "--no-verify"
"""Every row is verified where a test is about that; starting the scorers takes seconds."""
LOAD = """
import json, sys
from datasets import load_dataset
repo, *asked = sys.argv[1:]
found = []
for one in asked:
    revision, how = one.split(":")
    options = {"split": "train", "revision": revision or None, "streaming": how == "stream"}
    out = {}
    for config in ("sft", "rl", "rejected"):
        rows = list(load_dataset(repo, config, **options))
        out[config] = [row["sample_id"] for row in rows]
        if config == "sft":
            out |= {"first": rows[0]["observation"], "options": rows[0]["options"]}
    out["default"] = sum(1 for _ in load_dataset(repo, **options))
    found.append(out)
print(json.dumps(found))
"""


class Machine:
    """A user's machine: its home, and this Hub as the only one."""

    def __init__(self, server: HubServer, home: Path) -> None:
        self.server = server
        self.home = home
        home.mkdir()

    def start(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        env |= self.server.environment(self.home / "hf") | {"PYTHONWARNINGS": "ignore"} | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=env, cwd=self.home, text=True, **pipes)  # type: ignore[call-overload, no-any-return]

    def run(self, command: list[str], **environment: str) -> tuple[int, str, str]:
        process = self.start(command, **environment)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def p2r(self, *arguments: object, code: int = 0, **environment: str) -> dict[str, Any]:
        got, out, err = self.run([P2R, *map(str, arguments), "--json"], **environment)
        assert got == code, out + err
        found = json.loads(out)
        assert isinstance(found, dict)
        return found

    def load(self, *asked: str) -> list[dict[str, Any]]:
        """What `datasets` gives, each `<revision>:<load or stream>`, in a process of its own."""
        code, out, err = self.run([sys.executable, "-c", LOAD, REPO, *asked])
        assert code == 0, err
        found = json.loads(out.splitlines()[-1])
        assert isinstance(found, list)
        return found


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Machine]:
    """For what does not depend on where large files lie."""
    with HubServer(tmp_path / "hub") as server:
        yield Machine(server, tmp_path / "home")


@pytest.fixture(params=["lfs", "xet"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with HubServer(tmp_path / "hub", xet=request.param == "xet") as server:
        yield Machine(server, tmp_path / "home")


def test_the_life_of_a_data_set(tmp_path: Path, machine: Machine) -> None:
    folder = write_release(tmp_path / "made", sft_shards=3)
    plan = machine.p2r("push", folder, REPO, "--dry-run", FAST)["plan"]
    assert plan["creates"] and {c["action"] for c in plan["changes"]} == {"added"}
    first = machine.p2r("push", folder, REPO, "--private", "--revision", "v1.0")
    assert first["private"] and first["tag"] == "v1.0"
    want = {"sft": [f"made/{i}" for i in range(6)], "default": 6}
    for got in machine.load("v1.0:load", "v1.0:stream"):
        assert {name: got[name] for name in want} == want
        assert (len(got["rl"]), len(got["rejected"]), len(got["options"])) == (9, 5, 4)

    with machine.server.recording() as asked:
        again = machine.p2r("push", folder, REPO, FAST)
    assert again["commit"] == first["commit"]
    assert not [one for one in asked if one[0] != "GET"], "nothing was sent"

    shutil.rmtree(folder)
    write_release(folder, changed_rows(), sft_shards=2)
    second = machine.p2r("push", folder, REPO, "--revision", "v1.1", FAST)
    acted = {c["path"]: c["action"] for c in second["plan"]["changes"] if c["action"] != "equal"}
    assert acted["data/sft-00002.parquet"] == "deleted" and acted["data/sft-00000.parquet"] == "changed"
    news, old = machine.load(":load", "v1.0:load")
    assert news["first"].endswith("Then the light goes out.") and news["default"] == 6
    assert not old["first"].endswith("Then the light goes out."), "the tag still gives what it gave"

    pulled = machine.p2r("pull", REPO, "out", "--revision", "v1.0")
    assert pulled["ours"] and pulled["commit"] == first["commit"] and pulled["faults"] == 0
    assert pulled["rows"] == {"sft": 6, "rl": 9, "rejected": 5}
    assert machine.p2r("pull", REPO, "out", FAST)["commit"] == second["commit"]
    assert machine.p2r("pull", REPO, "out", FAST)["fetched"] == 0


def test_a_push_that_was_killed_goes_on(tmp_path: Path, machine: Machine) -> None:
    folder, server = write_release(tmp_path / "made", sft_shards=3), machine.server
    server.hold = "/commit/"
    process = machine.start([P2R, "push", str(folder), REPO, "--revision", "v1", FAST])
    while not any("/commit/" in path for _, path in server.seen):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    server.hold = ""
    server.released.set()
    repo = server.store.repo("dataset", REPO)
    assert set(repo.files) == {".gitattributes"}
    stored = server.store.cas.stored if server.store.cas else server.received
    report = machine.p2r("push", folder, REPO, "--revision", "v1", FAST)
    now = server.store.cas.stored if server.store.cas else server.received
    assert now - stored < 0.1 * stored, "the shards had arrived before"
    assert repo.tags == {"v1": report["commit"]}
    assert repo.commits[report["commit"]].keys() >= {"README.md", "data/sft-00002.parquet"}


def test_wrong_tokens_and_wrong_folders_end_with_words(tmp_path: Path, plain: Machine) -> None:
    machine = plain
    folder, wrong = write_release(tmp_path / "made"), "hf_wrongWrongWrong"
    code, out, err = machine.run([P2R, "push", str(folder), REPO, FAST], HF_TOKEN=wrong)
    assert (code, out) == (1, "") and wrong not in err
    assert "the Hub does not take this token" in err and "hf auth login" in err
    code, _, err = machine.run([P2R, "push", str(folder), REPO, FAST], HF_TOKEN="")
    assert code == 1 and "there is no token to write to the Hub with" in err
    home = machine.home / "hf"
    home.mkdir(exist_ok=True)
    (home / "token").write_text(machine.server.token)
    assert machine.p2r("push", folder, REPO, "--dry-run", FAST, HF_TOKEN="")["dry_run"]
    assert machine.p2r("push", folder, REPO, FAST, HF_TOKEN="")["commit"], "the cached login is used"
    (folder / "data/rl-00000.parquet").write_bytes(b"PAR1")
    error = machine.p2r("push", folder, REPO, code=1)["error"]
    assert error["kind"] == "HubError" and "data/rl-00000.parquet: 4 bytes, the lock says" in error["message"]


def test_rows_that_do_not_hold_are_not_pushed(tmp_path: Path, plain: Machine) -> None:
    machine = plain
    rows = changed_rows()
    rows["sft"][1]["answer"] = "43"
    folder = write_release(tmp_path / "made", rows)
    error = machine.p2r("push", folder, REPO, code=1)["error"]
    assert "faults in its rows" in error["message"] and "p2r-data verify" in error["hint"]
    assert machine.p2r("push", folder, REPO, "--no-verify")["commit"]


def test_clips_of_chosen_rows(tmp_path: Path, plain: Machine) -> None:
    """The layout of the upstream pool: one folder per source, archives in it, rows in one JSON file."""
    machine = plain
    import zipfile

    server = machine.server
    repo = server.store.create("dataset", "up/pool", private=False)
    rows = []
    for part in (1, 2):
        path = tmp_path / f"STAR_part{part}.zip"
        with zipfile.ZipFile(path, "w") as made:
            for n in range(40):
                made.writestr(f"clips/{part}-{n}.mp4", bytes([n]) * 20_000)
                options = ["A. yes", "B. no"]
                row = {
                    "problem_id": part * 100 + n,
                    "problem": "?",
                    "data_type": "video",
                    "data_source": "STAR",
                }
                row |= {
                    "problem_type": "multiple choice",
                    "options": options,
                    "solution": "<answer>A</answer>",
                }
                rows.append(row | {"path": f"./STAR/clips/{part}-{n}.mp4"})
        server.store.put_file(repo, f"STAR/{path.name}", path)
    pool = tmp_path / "pool.json"
    pool.write_text(json.dumps(rows))
    choose = ["--media", "--rows", pool, "--source", "STAR", "--limit", "45"]
    estimate = machine.p2r("pull", "up/pool", "media", *choose, "--dry-run")["estimate"]
    assert (estimate["wanted"], estimate["to_fetch"], estimate["clip_bytes"]) == (45, 45, 900_000)
    error = machine.p2r("pull", "up/pool", "media", *choose, "--max-gb", "0.0001", code=1)
    assert "--max-gb allows 100,000" in json.dumps(error)
    report = machine.p2r("pull", "up/pool", "media", *choose)
    assert report["fetched"] == 45 and report["estimate"]["directory_bytes"] == 0, "kept from the dry run"
    assert (machine.home / "media/STAR/clips/2-4.mp4").read_bytes() == bytes([4]) * 20_000
    one = machine.p2r("pull", "up/pool", "media", "--media", "--rows", pool, "--id", "239")
    assert (one["fetched"], one["estimate"]["wanted"]) == (1, 1)
    lost = machine.p2r(
        "pull",
        "up/pool",
        "m2",
        "--media",
        "--rows",
        write_official(tmp_path / "o", [rows[0], rows[1] | {"path": "./STAR/none.mp4"}]),
        code=1,
    )
    assert lost["fetched"] == 1 and lost["estimate"]["missing"] == ["STAR/none.mp4"]


def test_media_go_along_only_when_asked_and_allowed(tmp_path: Path, plain: Machine) -> None:
    machine = plain
    recipe = tmp_path / "mini.yaml"
    recipe.write_text(
        "name: mini\nsynthetic: true\nsources: [{name: demo, kind: demo, demo: {rows: 9, seed: 3}}]\n"
        "media: {workers: 1}\ngenerate: {backend: {kind: demo, model: d}}\njudge: {backend: {kind: demo, model: d}}\n"
    )
    code, _, err = machine.run([P2R, "build", str(recipe)])
    assert code == 0, err
    assert not any(
        c["path"].startswith("media/") for c in machine.p2r("push", "mini", "me/mini")["plan"]["changes"]
    )
    report = machine.p2r("push", "mini", "me/mini", "--embed-media", FAST)
    clips = [c["path"] for c in report["plan"]["changes"] if c["path"].startswith("media/demo/")]
    assert clips and {c["action"] for c in report["plan"]["changes"] if c["path"] in clips} == {"added"}
    fetched = machine.p2r("pull", "me/mini", "clips", "--media", "--rows", "mini", "--config", "rl")
    assert fetched["fetched"] == fetched["estimate"]["wanted"] == len(clips)
    pool = tmp_path / "x.json"
    pool.write_text("[]")
    lock = json.loads((machine.home / "mini/build.lock.json").read_text())
    lock["recipe"]["sources"][0] |= {"kind": "dataset", "license": "research only", "path": str(pool)}
    (machine.home / "mini/build.lock.json").write_text(json.dumps(lock))
    error = machine.p2r("push", "mini", "me/mini", "--embed-media", "--base", ".", "--no-verify", code=1)[
        "error"
    ]
    assert "demo-world (media licence: research only)" in error["message"]


LOOK = """
import json, sys
from datasets import Image, Video, get_dataset_config_names, load_dataset, load_dataset_builder
repo = sys.argv[1]
preview = load_dataset(repo, "preview", split="train")
kinds = {name: type(kind).__name__ for name, kind in preview.features.items() if name in ("image", "video")}
plain = preview.cast_column("image", Image(decode=False)).cast_column("video", Video(decode=False))
rows = [{kind: row[kind] and [row[kind]["path"], len(row[kind]["bytes"])] for kind in kinds} for row in plain]
shown = [row["image"].size for row in preview.remove_columns("video") if row["image"]]
light = load_dataset_builder(repo).info
print(json.dumps({
    "configs": get_dataset_config_names(repo), "kinds": kinds, "rows": rows, "shown": shown,
    "default": light.config_name, "columns": sorted(light.features),
}))
"""


def test_the_viewer_gets_clips_and_the_default_config_stays_light(tmp_path: Path, plain: Machine) -> None:
    """The card's own snippet, the preview and the figures, as the real clients see them after a push."""
    machine = plain
    recipe = tmp_path / "mini.yaml"
    recipe.write_text(
        "name: mini\nsynthetic: true\nsources: [{name: demo, kind: demo, demo: {rows: 24, seed: 3}}]\n"
        "media: {workers: 1}\ngenerate: {backend: {kind: demo, model: d}}\njudge: {backend: {kind: demo, model: d}}\n"
    )
    for command in (["build", recipe], ["stats", "mini", "--figures", "mini/figures"]):
        code, _, err = machine.run([P2R, *map(str, command)])
        assert code == 0, err
    report = machine.p2r("push", "mini", "me/mini", "--preview", "4", FAST)
    assert [r.split(":")[0] for r in report["remarks"]] == ["README.md"], "figures were drawn after the card"
    repo = machine.server.store.repo("dataset", "me/mini")
    card = machine.server.store.read(repo.files["README.md"], 0, 1 << 20).decode()
    pictures = set(re.findall(r'(?:src|srcset)="([^"]+)"', card))
    assert len(pictures) >= 10 and pictures <= set(repo.files), "what is pushed is shown"
    code_block = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code_block
    code, out, err = machine.run([sys.executable, "-c", code_block[1] + "print(len(ds), ds.column_names)"])
    assert code == 0, err
    assert "'video'" not in out and "'observation'" in out
    with machine.server.recording() as asked:
        code, out, err = machine.run([sys.executable, "-c", LOOK, "me/mini"])
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["configs"] == ["sft", "rl", "rejected", "preview"] and found["default"] == "sft"
    assert found["kinds"] == {"image": "Image", "video": "Video"} and "video" not in found["columns"]
    assert len(found["rows"]) == 4 and all(
        (r["image"] is None) != (r["video"] is None) for r in found["rows"]
    )
    names = [(row["image"] or row["video"])[0] for row in found["rows"]]
    assert any(name.endswith(".mp4") for name in names) and found["shown"]
    assert not [path for _, path in asked if "/resolve/" in path and "data/" in path], "only the preview"
    pulled = machine.p2r("pull", "me/mini", "out")
    assert pulled["ours"] and pulled["faults"] == 0
    assert (machine.home / "out/preview/train-00000.parquet").is_file()
    code, out, err = machine.run(
        [
            sys.executable,
            "-c",
            LOOK.replace("load_dataset_builder(repo)", 'load_dataset_builder("out")'),
            "out",
        ]
    )
    assert code == 0, err


def test_a_trained_model(tmp_path: Path, plain: Machine) -> None:
    pytest.importorskip("matplotlib")
    run = write_weights(with_evaluation(write_run(tmp_path / "run")))
    train = [
        str(Path(sys.executable).parent / "p2r-train"),
        "push",
        str(run),
        "me/model",
        "--revision",
        "v1",
        "--json",
    ]
    code, out, err = plain.run(train)
    assert code == 0, err
    repo = plain.server.store.repo("model", "me/model")
    assert set(repo.files) >= {
        "README.md",
        "model.safetensors",
        "config.json",
        "figures/curves.png",
        "training/metrics.jsonl",
    }
    assert not any("recipe" in name or "optimizer" in name for name in repo.files)
    card = plain.server.store.read(repo.files["README.md"], 0, 1 << 20).decode()
    assert "license: apache-2.0" in card and repo.tags["v1"] == json.loads(out)["commit"]
    shutil.rmtree(run / "eval")
    code, out, err = plain.run([*train, "--dry-run"])
    assert code == 1 and "no evaluation" in err


def write_weights(run: Path) -> Path:
    final, header = run / "final", b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    final.mkdir(exist_ok=True)
    (final / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"four")
    (final / "config.json").write_text("{}")
    return run
