"""`p2r-data stats --figures` on built sets, the official layout and a real (tiny) embedding model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.synthetic_release import write_official, write_release
from tests.integration.test_loading import build
from videop2r_data.builders.verify import verify_release
from videop2r_data.cards.figures.draw import FigureOptions, make_figures
from videop2r_data.cards.figures.index import read_figures
from videop2r_data.cards.figures.projection import embed, project
from videop2r_data.cards.figures.text import Pair
from videop2r_data.cli.main import app
from videop2r_data.errors import ConfigError
from videop2r_data.files.release import open_release

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    build(folder, "demo", 60)
    return folder / "demo"


def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "videop2r_data.cli", "stats", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env)


@pytest.fixture(scope="module")
def drawn(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The figures of the demo set, drawn once, and the command's JSON."""
    folder = tmp_path_factory.mktemp("drawn") / "figures"
    done = run(demo, "--figures", folder, "--json", PYTHONHASHSEED="0")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_figures_of_a_built_set_say_what_its_lock_says(
    demo: Path, drawn: tuple[Path, dict[str, Any]]
) -> None:
    figures, told = drawn
    ledger = json.loads((demo / "build.lock.json").read_text())["ledger"]
    index = read_figures(figures)
    assert told["figures"] == index.model_dump(mode="json")

    def data(name: str) -> Any:
        return json.loads((figures / f"{name}.json").read_text())

    assert data("table")["table"] == ledger["table"]
    funnel = data("funnel")
    assert funnel["rows_in"] == ledger["rows_in"] and funnel["accepted"] == ledger["kept"]
    assert {f"{x['stage']}/{x['reason']}": x["rows"] for x in funnel["lost"]} == ledger["reasons"]
    assert {f.name for f in index.figures} | {o.name for o in index.omitted} >= {
        "words",
        "projection",
        "media",
    }
    for entry in index.figures:
        with Image.open(figures / entry.dark) as png:
            assert len(np.unique(np.asarray(png))) > 4


def test_the_same_set_gives_the_same_bytes_inside_of_it_too(
    demo: Path, drawn: tuple[Path, dict[str, Any]]
) -> None:
    """Drawn into the data set, under another hash seed: the same figures, and rows that verify."""
    done = run(demo, "--figures", demo / "figures", PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    assert "figures in" in done.stdout and "projection.png" in done.stdout
    again = {p.name: p.read_bytes() for p in (demo / "figures").iterdir()}
    assert again == {p.name: p.read_bytes() for p in drawn[0].iterdir()}
    assert verify_release(demo, workers=1).ok


def test_both_layouts_of_one_set_give_one_figure_each_but_for_frames(tmp_path: Path) -> None:
    write_release(tmp_path / "ours", scale=0.001)
    write_official(tmp_path / "official", scale=0.001)
    made = {}
    for name in ("ours", "official"):
        _, index = make_figures(open_release(tmp_path / name), tmp_path / f"{name}-figures")
        made[name] = {f.name: (tmp_path / f"{name}-figures" / f.data).read_bytes() for f in index.figures}
        why = {o.name: o.why for o in index.omitted}
        assert why.pop("funnel").startswith("the release has no config rejected")
        assert list(why) == ([] if name == "ours" else ["media"])
    del made["ours"]["media"]
    assert made["ours"] == made["official"]


def test_flags_of_figures_without_figures(demo: Path) -> None:
    done = CliRunner().invoke(app, ["stats", str(demo), "--sample", "50"])
    assert done.exit_code == 2 and "only with --figures" in done.stderr


@pytest.mark.parametrize("inside", ["", "data"])
def test_figures_do_not_go_among_the_rows(demo: Path, inside: str) -> None:
    before = sorted(p.name for p in (demo / inside).iterdir())
    done = CliRunner().invoke(app, ["stats", str(demo), "--figures", str(demo / inside)])
    assert done.exit_code == 1 and "would be taken for rows" in done.stderr and "figures" in done.stderr
    assert sorted(p.name for p in (demo / inside).iterdir()) == before


# a model in a local folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few thousand random weights with a tokenizer of whole words."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model") / "tiny-bert"
    words = [
        "[PAD]",
        "[UNK]",
        *[
            "a",
            "red",
            "blue",
            "ball",
            "cube",
            "lies",
            "near",
            "the",
            "so",
            "it",
            "must",
            "be",
            "hence",
            "wait",
        ],
    ]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def texts(count: int) -> list[Pair]:
    things = ("ball", "cube")
    return [
        Pair(n, f"a {('red', 'blue')[n % 2]} {things[n // 2 % 2]} lies near the {things[n % 2]}",
             f"so it must be {things[n % 2]} hence {'wait ' * (n % 5)}it") for n in range(count)
    ]  # fmt: skip


def test_embeddings_are_means_over_the_tokens_whatever_the_padding(model: Path) -> None:
    together = embed(model, ["a red ball", "so", "wait " * 200])
    alone = np.concatenate([embed(model, [t]) for t in ("a red ball", "so", "wait " * 24)])
    assert together.shape == (3, 16)
    assert np.allclose(together, alone, atol=1e-5), (
        "padding and what lies beyond the model's length do not count"
    )
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_umap_over_a_local_model(model: Path) -> None:
    pytest.importorskip("umap")
    found = project("sft", texts(60), seen=60, model=model)
    assert (found.embedding, found.method, found.model, found.dimensions) == (
        "model",
        "umap",
        "tiny-bert",
        16,
    )
    assert found.separation.linear_probe_accuracy == 1.0
    assert np.isfinite(np.array(found.perception + found.reasoning)).all()
    assert project("sft", texts(60), seen=60, model=model) == found, "the seed decides the picture"


@pytest.mark.parametrize("what", ["missing", "empty", "pickle"])
def test_a_folder_without_a_model(what: str, tmp_path: Path, model: Path, demo: Path) -> None:
    folder = tmp_path / "model"
    if what != "missing":
        folder.mkdir()
    if what == "pickle":  # weights that only unpickling could read are not read
        for file in model.iterdir():
            if file.suffix == ".json":
                (folder / file.name).write_bytes(file.read_bytes())
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(ConfigError, match=r"no such folder|no model that can be loaded"):
        make_figures(open_release(demo), tmp_path / "out", FigureOptions(model=folder))
