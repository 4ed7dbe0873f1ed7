"""A folder is pushed, and a pull accepted, only if files, lock, ledger and card agree; a model only if it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from huggingface_hub import constants

from tests.cards.hub_release import write_release
from tests.fakes.hub_server import HubServer
from videop2r_data.cards.card.facts import read_facts
from videop2r_data.cards.hub.check import addresses_in, check_folder
from videop2r_data.cards.hub.client import Hub, check_repo_id
from videop2r_data.cards.hub.plan import Action
from videop2r_data.cards.hub.prepare import media_files
from videop2r_data.cards.hub.push import push_model, safetensors_fault
from videop2r_data.errors import HubError, SourceError
from videop2r_data.files import config_digest, read_lock


def edit_lock(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    lock = orjson.loads((folder / "build.lock.json").read_bytes())
    change(lock)
    (folder / "build.lock.json").write_bytes(orjson.dumps(lock))


def test_a_whole_folder_passes(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "made", sft_shards=2)
    assert check_folder(folder) == read_lock(folder)


SFT = "data/sft-00000.parquet"
FAULTS: list[tuple[str, Callable[[Path], object]]] = [
    (r"data/sft-00000\.parquet: missing", lambda f: (f / SFT).unlink()),
    (r"bytes, the lock says", lambda f: (f / SFT).write_bytes(b"PAR1")),
    (r"its sha256 is not the lock's", lambda f: (f / SFT).write_bytes(bytes((f / SFT).stat().st_size))),
    (r"sft-00007\.parquet: not in the lock", lambda f: (f / "data/sft-00007.parquet").write_bytes(b"")),
    (
        r"5 rows, the lock says|6 rows, the lock says 5",
        lambda f: edit_lock(f, lambda k: k["files"][SFT].update(rows=5)),
    ),
    (
        r"ledger: rows in and kept \+ rejected \+ failed differ: 99 and 11",
        lambda f: edit_lock(f, lambda k: k["ledger"].update(rows_in=99)),
    ),
    (
        r"ledger: kept rows and the sum of the table differ: 6 and ",
        lambda f: edit_lock(f, lambda k: k["ledger"]["table"].update(text={"OCR": 9})),
    ),
    (
        r"ledger: kept rows and rows of sft differ: 7 and 6",
        lambda f: edit_lock(f, lambda k: k["ledger"].update(kept=7, rejected=2)),
    ),
    (
        r"the lock names a file that is no shard",
        lambda f: edit_lock(f, lambda k: k["files"].update({"../x": k["files"][SFT]})),
    ),
    (r"README\.md: ", lambda f: (f / "README.md").unlink()),
    (r"no YAML front matter", lambda f: (f / "README.md").write_text("# Hello\n")),
    (r"rows of 'sft', its files hold 6", lambda f: card(f, "num_examples: 6", "num_examples: 7")),
    (
        r"config 'sft' lacks its files' digest",
        lambda f: card(f, config_digest(read_lock(f), "sft"), "0" * 64),
    ),
    (
        r"config 'sft' is not declared",
        lambda f: card(f, "- config_name: sft\n  desc", "- config_name: other\n  desc"),
    ),
    (r"not a build lock", lambda f: (f / "build.lock.json").write_text("{}")),
    (r"not a build lock", lambda f: (f / "build.lock.json").unlink()),
]


def card(folder: Path, old: str, new: str) -> None:
    text = (folder / "README.md").read_text()
    assert old in text
    (folder / "README.md").write_text(text.replace(old, new))


@pytest.mark.parametrize(("message", "spoil"), FAULTS, ids=[str(i) for i in range(len(FAULTS))])
def test_what_does_not_hold_is_named(tmp_path: Path, message: str, spoil: Callable[[Path], object]) -> None:
    folder = write_release(tmp_path / "made")
    spoil(folder)
    with pytest.raises((HubError, SourceError), match=message):
        check_folder(folder)


@pytest.mark.parametrize("name", ["", "a/b/c", "a//b", "../x", "a/..", "me/na me", "https://x/y", "me/x.git"])
def test_names_that_are_no_repository(name: str) -> None:
    with pytest.raises(HubError, match="not a repository of the Hub"):
        check_repo_id(name)


def test_folders_and_servers_that_would_become_public_are_named() -> None:
    recipe = {
        "sources": [{"path": "~/pool.json", "media_root": "media"}, {"path": "org/pool"}],
        "generate": {
            "backend": {"base_url": "http://10.0.0.7:8000/v1", "model": "Qwen/Qwen2.5-VL-7B-Instruct"}
        },
        "description": "see https://arxiv.org/abs/2511.11113",
    }
    assert list(addresses_in(recipe, "lock")) == [
        "lock: sources.0.path is ~/pool.json",
        "lock: generate.backend.base_url is http://10.0.0.7:8000/v1",
    ]


def test_clips_are_looked_up_below_their_root(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "made")
    root, sources = tmp_path / "root", read_facts(tmp_path / "made").rows.sources
    with pytest.raises(HubError, match="no media root is known for source 'made'"):
        media_files(folder, {}, sources)
    with pytest.raises(HubError, match=r"clips are missing, the first: made: clips/0\.mp4"):
        media_files(folder, {"made": root}, sources)
    (root / "clips").mkdir(parents=True)
    names = ["0.mp4", "1.png", "2.png", "4.mp4", "5.png", "6.png", "7.png", "8.png"]
    for name in names:
        (root / "clips" / name).write_bytes(name.encode())
    found = media_files(folder, {"made": root}, sources)
    assert found == {f"media/made/clips/{name}": root / "clips" / name for name in names}
    (root / "clips/0.mp4").unlink()
    (root / "clips/0.mp4").symlink_to("/etc/passwd")
    with pytest.raises(HubError, match="leads out of the media root"):
        media_files(folder, {"made": root}, sources)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with HubServer(tmp_path / "hub", xet=True) as made:
        yield made


def safetensors(path: Path, values: bytes) -> None:
    header = orjson.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)


def write_run(folder: Path) -> Path:
    final = folder / "final"
    final.mkdir(parents=True)
    (folder / "checkpoints/step-000100").mkdir(parents=True)
    (folder / "checkpoints/step-000100/optimizer.bin").write_bytes(b"pickle")
    safetensors(final / "model-00001-of-00002.safetensors", b"one")
    safetensors(final / "model-00002-of-00002.safetensors", b"two")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (final / "model.safetensors.index.json").write_bytes(orjson.dumps({"weight_map": shards}))
    (final / "config.json").write_text('{"_name_or_path": "/home/me/base"}')
    (final / "training_args.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Model\n")
    (folder / "figures").mkdir()
    (folder / "figures/curves.png").write_bytes(b"png")
    (folder / "recipe.yaml").write_text("name: run\n")
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "samples.jsonl").write_text("{}\n")
    return folder


def test_a_run_becomes_a_model_repository(tmp_path: Path, server: HubServer) -> None:
    run, hub = write_run(tmp_path / "run"), Hub(server.url, server.token)
    report = push_model(run, "me/model", hub=hub, private=True, tag="v1")
    repo = server.store.repo("model", "me/model")
    assert repo.private and repo.tags == {"v1": report.commit} and report.url == f"{server.url}/me/model"
    assert set(repo.files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "figures/curves.png",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "training/metrics.jsonl",
    }
    assert report.plan.left_out == ("final/training_args.bin",)
    assert report.notes == ("config.json: _name_or_path is /home/me/base",)
    for name in (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ):
        (run / "final" / name).unlink()
    safetensors(run / "final/model.safetensors", b"both")
    second = push_model(run, "me/model", hub=hub)
    assert {c.path for c in second.plan.of(Action.DELETED)} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }
    assert push_model(run / "final", "me/model", hub=hub, dry_run=True, card=run / "README.md").dry_run


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("message", "spoil"),
    [
        ("no model card", lambda r: (r / "README.md").write_text("# no front matter")),
        ("no safetensors", lambda r: [p.unlink() for p in r.rglob("*.safetensors")]),
        ("no config.json", lambda r: (r / "final/config.json").unlink()),
        (r"the index names model-00002-of-00002\.safetensors", lambda r: (r / "final/model-00002-of-00002.safetensors").unlink()),
        ("where its header announces", lambda r: longer(r / "final/model-00001-of-00002.safetensors")),
        ("cannot hold its header", lambda r: (r / "final/model-00001-of-00002.safetensors").write_bytes(b"\xff" * 9)),
        ("its header is not valid", lambda r: (r / "final/model-00001-of-00002.safetensors").write_bytes(b"\x02" + bytes(7) + b"[]")),
    ],
)  # fmt: skip
def test_a_model_that_is_not_whole_stays_here(
    tmp_path: Path, server: HubServer, message: str, spoil: Callable[[Path], object]
) -> None:
    run = write_run(tmp_path / "run")
    spoil(run)
    with pytest.raises(HubError, match=message):
        push_model(run, "me/model", hub=Hub(server.url, server.token))
    assert not server.store.repos


def test_real_safetensors_are_whole(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3, 5), "b": torch.ones(7)}, path)
    assert safetensors_fault(path) == ""
    path.write_bytes(path.read_bytes()[:-1])
    assert "where its header announces" in safetensors_fault(path)
