"""Which names of models are meant to be folders: said at once, and nobody is asked."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pytest

from videop2r_data.errors import ConfigError
from videop2r_data.files import find_model


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, a run, and an empty cache; the network is never asked."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for folder in ("tiny", "runs/sft/final", "Qwen"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("tiny", "runs/sft/final"):
        (tmp_path / folder / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./tiny2", "no such folder"),
        ("/no/such", "no such folder"),
        ("~/no/such", "no such folder"),
        ("runs/sft2/final", "no such folder"),
        ("runs/sft2", "no such folder"),  # has the form of a Hub id
        ("Qwen/Qwen2.5-VL-3B-Instruct", "no such folder"),  # the owner is a folder here
        ("out/sft/final", "neither a folder nor a Hub id"),
        ("tini", "neither a folder nor a Hub id"),
        ("a//b", "neither a folder nor a Hub id"),
        ("runs/sft", "no model in this folder"),
    ],
)
def test_a_name_that_is_meant_to_be_a_folder(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        find_model(name, where="model.model")
    assert caught.value.where == "model.model" and caught.value.hint


def test_the_home_folder_is_written_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert find_model(str(here / "tiny"))
    with pytest.raises(ConfigError, match="`~` is not expanded") as caught:
        find_model("~/tiny")
    assert caught.value.hint == f"write {here / 'tiny'}"


def test_runs_is_nobody_on_the_hub_where_nothing_was_trained_yet(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "empty").mkdir()
    monkeypatch.chdir(here / "empty")
    with pytest.raises(ConfigError, match="no such folder"):
        find_model("runs/sft")


def test_what_comes_near_is_named() -> None:
    with pytest.raises(ConfigError, match="there is tiny"):
        find_model("tini")
    with pytest.raises(ConfigError, match="name runs/sft/final"):
        find_model("runs/sft")


def test_folders_and_hub_ids(here: Path) -> None:
    assert find_model("tiny") and find_model(str(here / "tiny")) and find_model("runs/sft/final")
    (here / "Qwen" / "adapter_config.json").write_text("{}")
    assert find_model("Qwen")
    for name in ("org/model", "s3://bucket/model", "org/model:Q4_K_M"):
        assert not find_model(name)


def test_a_model_of_the_cache_needs_no_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"Qwen/Qwen2.5-VL-3B-Instruct": None, "gpt2": "v1"}
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda name, _file, revision: str(here) if found.get(name, "-") == revision else None,
    )
    assert find_model("Qwen/Qwen2.5-VL-3B-Instruct") and find_model("gpt2", revision="v1")
    with pytest.raises(ConfigError, match="neither"):
        find_model("gpt2", revision="v2")
