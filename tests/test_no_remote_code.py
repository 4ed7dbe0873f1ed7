"""A model's folder may bring code of its own: it is run where a recipe asks for it, and nowhere else."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from videop2r_data.errors import P2RError
from videop2r_data.schemas import BackendSpec

pytest.importorskip("transformers")
_ROOT = Path(__file__).parents[1] / "videop2r_data"


@pytest.fixture
def evil(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder whose code leaves a mark, and the mark."""
    folder, mark = tmp_path / "evil", tmp_path / "it-ran"
    folder.mkdir()
    code = f"open({str(mark)!r}, 'w').close()\nclass EvilConfig: pass\nclass EvilModel: pass\nclass EvilProcessor: pass\n"
    (folder / "evil.py").write_text(code)
    names = {"AutoConfig": "evil.EvilConfig", "AutoProcessor": "evil.EvilProcessor"}
    names |= dict.fromkeys(
        ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText"), "evil.EvilModel"
    )
    names["AutoTokenizer"] = ["evil.EvilProcessor", None]  # type: ignore[assignment]
    for name in ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        (folder / name).write_text(
            json.dumps({"model_type": "evil", "auto_map": names, "architectures": ["EvilModel"]})
        )
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return folder, mark


def _served(folder: str) -> object:
    from videop2r_data.backends.local.transformers import _load

    return _load(BackendSpec(kind="transformers", model=folder))


def _trained(folder: str) -> object:
    from videop2r_data.trainer.model.load import load_policy
    from videop2r_data.trainer.settings.parts import PolicySpec

    return load_policy(PolicySpec(model=folder), "cpu")


def _embedding(folder: str) -> object:
    import numpy as np

    from videop2r_data.media.embed import relevance
    from videop2r_data.schemas.media import LookSpec

    look = LookSpec(select="question", embedder=folder)
    return relevance(np.zeros((2, 56, 56, 3), np.uint8), "Which?", look)


@pytest.mark.parametrize("load", [_served, _trained, _embedding])
def test_code_of_a_model_is_not_run(
    evil: tuple[Path, Path], load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a person is asked in the middle of a run")

    monkeypatch.setattr("builtins.input", asked)
    folder, mark = evil
    with pytest.raises(P2RError):
        load(str(folder))
    assert not mark.exists()


def test_the_mark_is_left_where_it_is_asked_for(evil: tuple[Path, Path]) -> None:
    folder, mark = evil
    from videop2r_data.backends.local.transformers import _load

    spec = BackendSpec(kind="transformers", model=str(folder), extra={"trust_remote_code": True})
    with pytest.raises(Exception):  # noqa: B017 - the code is no model
        _load(spec)
    assert mark.exists()


def test_every_load_says_that_it_does_not_trust() -> None:
    """`transformers` asks a person at the terminal where nothing is said."""
    calls = [
        (path.relative_to(_ROOT), node)
        for path in _ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "from_pretrained"
    ]
    assert len(calls) > 8
    for path, call in calls:
        of = ast.unparse(call.func)
        said = {word.arg: word.value for word in call.keywords}
        if of.startswith("PeftModel"):
            continue
        assert None in said or "trust_remote_code" in said, f"{path}:{call.lineno}: {of}"
        told = said.get("trust_remote_code")
        assert told is None or ast.unparse(told) in (
            "False",
            "bool(spec.extra.get('trust_remote_code', False))",
        ), path
