from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.trainer.run import small
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.run.checkpoint import (
    Checkpoint,
    Checkpoints,
    admit,
    find_checkpoints,
    run_lock,
    whole_folder,
)


class Alone:
    """An accelerator of one process that saves one number."""

    is_main_process = True
    num_processes = 1

    def __init__(self) -> None:
        self.number = 0

    def wait_for_everyone(self) -> None:
        pass

    def save_state(self, folder: str) -> None:
        (Path(folder) / "number").write_text(str(self.number))

    def load_state(self, folder: str) -> None:
        self.number = int((Path(folder) / "number").read_text())


def made(run: Path, keep: int = 2) -> tuple[Checkpoints, Any]:
    accelerator: Any = Alone()
    return Checkpoints(run, accelerator, keep=keep, identity={"recipe": "r"}), accelerator


def test_the_newest_are_kept_and_restored(tmp_path: Path) -> None:
    checkpoints, accelerator = made(tmp_path)
    for step in (2, 4, 6):
        accelerator.number = step * 10
        checkpoints.save(step)
    found = find_checkpoints(tmp_path)
    assert [checkpoint.step for checkpoint in found] == [4, 6]
    assert found[-1].state == {"step": 6, "processes": 1, "recipe": "r"}
    checkpoints.restore(found[0])
    assert (accelerator.number, checkpoints.saved) == (40, 4)


def test_zero_keeps_all_and_a_step_can_be_saved_again(tmp_path: Path) -> None:
    checkpoints, accelerator = made(tmp_path, keep=0)
    for number, step in enumerate((1, 2, 2)):
        accelerator.number = number
        checkpoints.save(step)
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1, 2]
    checkpoints.restore(find_checkpoints(tmp_path)[-1])
    assert accelerator.number == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000001",
        "step-000002",
    ]


def test_a_crash_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoints, accelerator = made(tmp_path)
    checkpoints.save(1)

    def crash(folder: str) -> None:
        (Path(folder) / "half").touch()
        raise OSError("disk full")

    accelerator.save_state = crash
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(2)
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1]
    del accelerator.save_state
    checkpoints.save(2)
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [1, 2]


def test_what_is_no_checkpoint_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name in ("step-000001", ".partial-step-000002", "step-x", "step-000003"):
        (folder / name).mkdir(parents=True)
    (folder / "step-000003" / "state.json").write_bytes(orjson.dumps({"step": 3}))
    assert [checkpoint.step for checkpoint in find_checkpoints(tmp_path)] == [3]
    (folder / "step-000001" / "state.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        find_checkpoints(tmp_path)


def test_files_that_do_not_fit_are_an_error_with_a_hint(tmp_path: Path) -> None:
    checkpoints, _ = made(tmp_path)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        checkpoints.restore(Checkpoint(tmp_path, 1, {}))


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), whole_folder(tmp_path / "final") as draft:
        (draft / "a").touch()
        raise ValueError("no")
    assert not (tmp_path / "final").exists()
    with whole_folder(tmp_path / "final") as draft:
        (draft / "b").touch()
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["b"]


def test_a_run_goes_on_with_its_own_recipe_and_data_only(tmp_path: Path) -> None:
    def start(*, data: str = "d", anyway: bool = False, fresh: bool = False, **settings: Any) -> Any:
        recipe = small.sft(tmp_path / "model", tmp_path / "run", steps=3).model_copy(update=settings)
        about = {"data_sha256": data, "prompt_sha256": "p", "examples": 4}
        return admit(recipe, about, processes=1, anyway=anyway, fresh=fresh, main=True)

    assert start() is None
    folder = tmp_path / "run" / "checkpoints" / "step-000002"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    assert start().step == 2
    with pytest.raises(ConfigError, match="training data: d -> e"):
        start(data="e")
    with pytest.raises(ConfigError, match="another run"):
        start(seed=7)
    with pytest.raises(ConfigError, match="holds a run already"):
        start(fresh=True)
    assert start(data="e", seed=7, anyway=True).step == 2


_SECOND = """
import sys
from pathlib import Path
from videop2r_data.trainer.run.checkpoint import run_lock
with run_lock(Path(sys.argv[1])):
    print("alone")
"""


def test_one_training_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def second(**env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _SECOND, str(folder)]
        return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)

    with run_lock(folder):
        with pytest.raises(ConfigError, match="another training") as caught:
            run_lock(folder)
        assert caught.value.where == str(folder) and "--output" in str(caught.value.hint)
        refused = second()
        assert refused.returncode and "another training" in refused.stderr
        # the other processes of the same training do not ask
        assert second(RANK="1").stdout == "alone\n"
    assert second().stdout == "alone\n"
