"""The templates for clusters: what their systems would refuse is found here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from videop2r_data.cli.main import app

FOLDER = Path(__file__).parents[1] / "docs" / "cluster"


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_flag_of_the_command_exists(path: Path) -> None:
    command = get_command(app).commands["build"]  # type: ignore[attr-defined]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    text = path.read_text().replace("\\\n", " ")
    if path.suffix == ".yaml":
        found = load(path.name)
        text = found["run"] if "run" in found else found["spec"]["entrypoint"]
    lines = [line for line in text.splitlines() if "p2r-data build" in line]
    assert lines
    for line in lines:
        words = line.partition("p2r-data build")[2].partition(" &")[0]
        assert set(re.findall(r"(?<!\S)--[a-z-]+", words)) <= known


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)


def slurm(tmp_path: Path, code: int, task: int) -> tuple[int, list[str]]:
    """Run the script of one task with stand-ins for the commands of the cluster; what was called."""
    log = tmp_path / "log"
    for name, ends in (("sbatch", 0), ("scontrol", 0), ("p2r-data", code)):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(log))}\nexit {ends}\n')
        script.chmod(0o755)
    env = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_COUNT": "8",
    }
    done = subprocess.run(["bash", str(FOLDER / "slurm.sh")], env=env, check=False)
    return done.returncode, log.read_text().splitlines()


def test_the_first_task_of_an_array_is_share_1_and_orders_the_last_job(tmp_path: Path) -> None:
    code, calls = slurm(tmp_path, 0, 0)
    assert code == 0
    assert "--dependency=afterany:7" in calls[0]
    assert calls[1].endswith("--shard 1/8")
    assert len(calls) == 2


def test_the_last_task_is_the_last_share_and_an_unfinished_one_goes_on(tmp_path: Path) -> None:
    code, calls = slurm(tmp_path, 3, 7)
    assert code == 3
    assert calls[0].endswith("--shard 8/8")
    assert calls[1] == "scontrol requeue 7_7"


def test_a_ray_job_has_what_kuberay_needs() -> None:
    job = load("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["metadata"]["name"] and "p2r-data build" in job["spec"]["entrypoint"]
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(group["groupName"] and "replicas" in group for group in groups[1:])
    for group in groups:
        assert "rayStartParams" in group
        (container,) = group["template"]["spec"]["containers"]
        assert container["name"] and container["image"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounts = {one["name"] for one in container["volumeMounts"]}
        assert mounts == {one["name"] for one in group["template"]["spec"]["volumes"]}


def test_a_skypilot_task_keeps_its_journal_in_a_store() -> None:
    task = load("skypilot.yaml")
    assert set(task) <= {"name", "resources", "workdir", "secrets", "setup", "run"}
    assert task["resources"]["use_spot"] and "--work s3://" in task["run"]
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    assert not any(task["secrets"].values())
