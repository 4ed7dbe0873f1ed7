"""`build --serve`: servers of this machine are started, used, started again, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_build import digests, question, write_pool
from videop2r_data.builders import serving
from videop2r_data.builders.run import Stop
from videop2r_data.builders.serving import deal, served, visible_gpus, wanted
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.recipe import Recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def backend(model: str, url: str = "http://localhost:8000/v1", **more: Any) -> BackendSpec:
    return BackendSpec.model_validate({"kind": "openai", "model": model, "base_url": url, **more})


def test_gpus_are_dealt_out_in_groups() -> None:
    big, small = backend("big", serve="--dtype auto --tensor-parallel-size 4"), backend("small")
    names = [str(i) for i in range(8)]
    one, other = wanted(small), wanted(big)
    assert deal([small], names) == [(one, (name,)) for name in names]
    assert deal([big], names) == [(other, ("0", "1", "2", "3")), (other, ("4", "5", "6", "7"))]
    assert deal([big, small], names) == [(other, ("0", "1", "2", "3")), (one, ("4",))]
    assert deal([big, small], []) == [(other, ()), (one, ())], "one each on the CPU"
    both = backend("huge", serve="--tensor-parallel-size=4 --pipeline_parallel_size 2")
    assert deal([both], names) == [(wanted(both), tuple(names))]
    with pytest.raises(ConfigError, match=r"3 GPUs are too few: one server of each model needs 4 \+ 1"):
        deal([big, small], names[:3])


def test_only_what_the_recipe_looks_for_on_this_machine_is_served() -> None:
    here = backend("g", serve="--max-model-len 4096")
    far = backend("f", "http://gpu7:8000/v1")
    many = backend("m", base_urls=["http://localhost:1/v1", "http://localhost:2/v1"])
    like = backend("x", "http://localhost.example.com/v1")
    assert deal([here, here, far, many, like], []) == [(("g", None, "--max-model-len 4096"), ())]
    assert len(deal([here, backend("g")], [])) == 2, "served in two ways"
    with pytest.raises(ConfigError, match="no backend of this recipe"):
        deal([far, many, like], [])


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("0\n1\n", ["0", "1"]),
        ("No devices were found\n", []),
        ("Failed to initialize NVML\nNVML library version: 535.183\n", []),
    ],
)
def test_gpus_are_those_that_nvidia_smi_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, found: list[str]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8932f937")
    assert visible_gpus() == ["3", "GPU-8932f937"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_a_server_that_cannot_be_started_again_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has no process left for it, while the build waits for another server to load."""

    class Server:
        def __init__(self, what: Any, gpus: tuple[str, ...], log: Path) -> None:
            self.what, self.log, self.port, self.starts = what, log, 1, 1
            self.guard, self.up = self, gpus == ("0",)

        def poll(self) -> int | None:
            return 1 if self.up else None

        def healthy(self) -> bool:
            return False

        def communicate(self) -> None:
            return None

        def start(self) -> None:
            raise BlockingIOError("Resource temporarily unavailable")

    async def main() -> None:
        stop = Stop()
        settings = {"name": "set", "sources": [{"name": "p", "kind": "video-r1", "path": "p.json"}]}
        recipe = Recipe.model_validate({**settings, "generate": {"backend": backend("m").model_dump()}})
        async with asyncio.timeout(60), served(recipe, tmp_path, stop, lambda _: None):
            assert stop.why is not None and "Resource temporarily unavailable" in stop.why.message

    monkeypatch.setattr(serving, "_Server", Server)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    asyncio.run(main())


# The program, with a `vllm` on the path that is the fake server.


class House:
    """A folder with a pool, a recipe and a `vllm` of its own."""

    def __init__(self, folder: Path, rows: int = 30, gpus: str = "0,1", serve: str = "") -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.notes.mkdir()
        program = folder / "bin" / "vllm"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.fakes.vllm_program "$@"\n')
        program.chmod(0o755)
        write_pool(folder, [question(i) for i in range(rows)])
        spec = {"kind": "openai", "model": "m", "base_url": "http://localhost:8000/v1", "concurrency": 4}
        self.recipe: dict[str, Any] = {
            "recipe": 1,
            "name": "set",
            "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
            "generate": {"backend": {**spec, "retries": 6, "serve": serve}},
        }
        self.env = os.environ | {
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "P2R_FAKE_VLLM": str(self.notes),
            "CUDA_VISIBLE_DEVICES": gpus,
        }

    def start(self, *more: str) -> subprocess.Popen[str]:
        path = self.folder / "r.yaml"
        path.write_text(json.dumps(self.recipe))
        command = [
            sys.executable,
            "-m",
            "videop2r_data",
            "build",
            str(path),
            "--out",
            str(self.folder / "set"),
        ]
        return subprocess.Popen(
            [*command, *more], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.notes.iterdir())]

    def alive(self) -> list[int]:
        return [pid for note in self.told() for pid in note["pids"] if _runs(pid)]

    def gone(self) -> None:
        """Nothing that was started is left, soon."""
        end = time.monotonic() + 240
        while self.alive() and time.monotonic() < end:
            time.sleep(0.05)
        assert self.alive() == []


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=500)
    return process.returncode, out + err


def test_one_server_per_gpu_is_started_used_and_ended(tmp_path: Path) -> None:
    house = House(tmp_path, serve="--load 2")
    code, said = finish(house.start("--serve"))
    assert code == 0, said
    first, second = house.told()
    assert {first["gpus"], second["gpus"]} == {"0", "1"} and first["port"] != second["port"]
    assert first["arguments"][:2] == ["serve", "m"] and "--trust-request-mm-kwargs" in first["arguments"]
    house.gone()
    locks = "".join(path.read_text() for path in (tmp_path / "set").glob("*lock*"))
    assert '"base_url"' in locks and '"serve"' not in locks and str(first["port"]) not in locks
    before = digests(tmp_path / "set")
    assert "servers are loading" in said
    house.recipe["generate"]["backend"].pop("serve")
    code, said = finish(house.start())
    assert code == 0 and "0 calls made" in said, "the same keys without servers"
    assert digests(tmp_path / "set") == before


def test_a_group_of_gpus_makes_one_server(tmp_path: Path) -> None:
    house = House(tmp_path, gpus="4,5,6", serve="--tensor-parallel-size 2")
    code, said = finish(house.start("--serve"))
    (note,) = house.told()
    assert code == 0 and note["gpus"] == "4,5", said
    house.gone()


def test_without_a_gpu_there_is_one_server(tmp_path: Path) -> None:
    house = House(tmp_path, gpus="")
    code, said = finish(house.start("--serve"))
    assert code == 0 and len(house.told()) == 1, said
    house.gone()


def test_a_server_that_does_not_start_shows_its_last_lines(tmp_path: Path) -> None:
    house = House(tmp_path, serve="--fail")
    code, said = finish(house.start("--serve"))
    assert code == 1 and "did not start" in said and "CUDA out of memory" in said
    assert "\x1b" not in said
    house.gone()


def test_a_server_that_dies_is_started_again_and_costs_no_row(tmp_path: Path) -> None:
    house = House(tmp_path, rows=60, serve="--die-after 25")
    code, said = finish(house.start("--serve"))
    assert code == 0, said
    assert len(house.told()) > 2
    # of what is told within a second the first is shown
    assert "died and is started again" in said or "is left out for" in said
    house.gone()


def test_servers_that_die_again_and_again_end_the_build(tmp_path: Path) -> None:
    house = House(tmp_path, rows=200, gpus="0", serve="--die-after 1")
    code, said = finish(house.start("--serve"))
    assert code == 1 and "died 4 times" in said and "it said last" in said
    assert len(house.told()) == 4
    house.gone()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 3), (signal.SIGTERM, 3), (signal.SIGKILL, -9)])
@pytest.mark.parametrize("load", [0.0, 300.0])
def test_no_server_outlives_the_build(tmp_path: Path, number: int, code: int, load: float) -> None:
    house = House(tmp_path, rows=2000, serve=f"--load {load}")
    with house.start("--serve") as process:
        end = time.monotonic() + 300
        while len(house.alive()) < 6 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(house.alive()) == 6, "two servers, each with its guard and its child"
        journal = tmp_path / "set.build"
        while not load and not list(journal.rglob("segment-*")) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        found, said = finish(process)
    assert found == code, said
    house.gone()
