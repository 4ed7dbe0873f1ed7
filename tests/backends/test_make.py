from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_build import Silent
from videop2r_data.backends import make_backend
from videop2r_data.builders.checks.needs import look_at_servers
from videop2r_data.builders.checks.trial import TrialRows
from videop2r_data.builders.pipeline import build
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.schemas import calls as entries
from videop2r_data.schemas.calls import Backend, Completion, Frames, Request
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.recipe import Recipe, load_recipe

DEMO = Path(__file__).resolve().parents[2] / "videop2r_data" / "recipes" / "demo.yaml"
MODULE = """
from pathlib import Path
from videop2r_data.demo import DemoBackend

SEEN = []

class HouseBackend(DemoBackend):
    def __init__(self, spec):
        super().__init__(spec, Path(spec.extra["world"]))

    async def complete(self, request, frames=None):
        SEEN.append(frames)
        return await super().complete(request, frames)
"""


def spec(kind: str) -> BackendSpec:
    return BackendSpec.model_validate({"kind": kind, "model": "m", "base_url": "http://localhost:1/v1"})


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini", "vllm", "transformers"])
def test_each_kind_gives_its_backend(kind: str) -> None:
    backend = make_backend(spec(kind))
    assert isinstance(backend, Backend) and backend.model == "m"
    assert f"{type(backend).__module__}:{type(backend).__name__}" == entries.BACKENDS[kind].makes


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("localhost:8000", "base_url is no http(s) address: localhost:8000"),
        ("user:planted@host", "base_url is no http(s) address"),
        ("host?key=planted", "base_url is no http(s) address"),
    ],
)
def test_an_address_that_is_none_is_named_unless_it_may_hold_a_key(address: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_backend(spec("openai").model_copy(update={"base_url": address}))
    assert caught.value.message == told and "planted" not in str(caught.value)


def test_the_demo_backend_is_handed_in() -> None:
    class Demo:
        model = "m"

        async def start(self) -> None: ...
        async def close(self) -> None: ...
        async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
            return Completion(text="", finish_reason="stop", model="m")

    assert isinstance(make_backend(spec("demo"), demo=lambda _: Demo()), Demo)
    with pytest.raises(ConfigError, match="demo"):
        make_backend(spec("demo"))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of one's own, and its one entry."""
    (tmp_path / "house.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = entries.BackendKind(makes="house:HouseBackend", frames="array")
    monkeypatch.setitem(entries.BACKENDS, "house", entry)
    return "house"


def test_a_new_backend_is_one_module_and_one_entry(house: str, tmp_path: Path) -> None:
    plain = load_recipe(DEMO)
    source = plain.sources[0]
    assert source.demo is not None
    small = source.model_copy(update={"demo": source.demo.model_copy(update={"rows": 40})})
    plain = plain.model_copy(update={"sources": (small,)})

    def made(recipe: Recipe, out: str) -> tuple[Workspace, list[bytes]]:
        place = Workspace.at(tmp_path / out, base=tmp_path)
        asyncio.run(build(recipe, place, observer=Silent(), card=write_dataset_card))
        return place, [path.read_bytes() for path in sorted((place.out / "data").iterdir())]

    first, expected = made(plain, "plain")
    settings = plain.model_dump(mode="json")
    settings["generate"]["backend"] |= {"kind": house, "extra": {"world": str(first.demo / source.name)}}
    recipe = Recipe.model_validate(settings)
    _, found = made(recipe, "mine")
    assert found == expected
    seen = [frames for frames in sys.modules[house].SEEN if frames is not None]
    assert seen and all(frames.array is not None and not frames.encoded for frames in seen), "as declared"


def test_check_asks_the_entry_what_a_kind_needs(
    house: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entries.BACKENDS[house]._replace(libraries=("no_such_library",), extra="train")
    monkeypatch.setitem(entries.BACKENDS, house, entry)
    recipe = load_recipe(DEMO)
    backend = recipe.generate.backend.model_copy(update={"kind": house, "model": str(tmp_path)})
    recipe = recipe.model_copy(update={"generate": recipe.generate.model_copy(update={"backend": backend})})
    place = Workspace.at(tmp_path / "out", base=tmp_path)
    looks = asyncio.run(look_at_servers(recipe, place, TrialRows(), calls="none", tell=lambda _: None))
    told = [(finding.about, finding.message) for finding in looks[0].findings if finding.state == "error"]
    assert [about for about, _ in told] == ["library", "model"] and "no_such_library" in told[0][1]


def test_what_an_entry_declares_is_checked_in_the_recipe(house: str) -> None:
    backend = {"kind": house, "model": "m"}
    with pytest.raises(ValueError, match="batch: true needs kind openai or anthropic or gemini, not 'house'"):
        BackendSpec.model_validate(backend | {"batch": True})
    with pytest.raises(ValueError, match="'demo' or 'house'"):
        BackendSpec.model_validate(backend | {"kind": "hose"})
    assert BackendSpec.model_json_schema()["properties"]["kind"]["enum"] == list(entries.BACKENDS)


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_missing_library_is_named_with_its_extra(kind: str) -> None:
    if importlib.util.find_spec("torch") or importlib.util.find_spec("vllm"):
        pytest.skip("the library is installed here")
    backend = make_backend(spec(kind))
    with pytest.raises(
        MissingExtraError, match=rf'pip install .*\[{"vllm" if kind == "vllm" else "train"}\]"'
    ):
        asyncio.run(backend.start())


def test_nothing_heavy_is_imported_with_the_room() -> None:
    code = (
        "import sys, videop2r_data.backends.make, videop2r_data.backends.local.vllm,"
        " videop2r_data.backends.local.transformers, videop2r_data.backends.limiter;"
        "heavy = ('torch', 'vllm', 'transformers', 'aiohttp', 'anthropic', 'av', 'PIL');"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
