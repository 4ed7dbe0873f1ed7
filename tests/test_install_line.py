"""The hint to install an extra fits how the package was installed: clone, folder, repository or index."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import videop2r_data
from videop2r_data.errors import MissingExtraError, install_line

PACKAGE = Path(videop2r_data.__file__).parent


def installed(site: Path, direct_url: dict[str, Any] | None, *, cwd: Path) -> str:
    """What a package that was installed so tells, in a process of its own."""
    (site / "videop2r_data").mkdir(parents=True)
    for name in ("__init__.py", "__init__.pyi", "version.py", "errors.py"):
        shutil.copy(PACKAGE / name, site / "videop2r_data" / name)
    info = site / "videop2r_data-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: videop2r-data\nVersion: 0.1.0\n")
    if direct_url is not None:
        (info / "direct_url.json").write_text(json.dumps(direct_url))
    code = "from videop2r_data.errors import install_line; print(install_line('train'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={"PYTHONPATH": str(site), "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("direct_url", "wanted"),
    [
        (None, 'pip install "videop2r-data[train]"'),
        ({"url": "file:///src/my%20clone", "dir_info": {}}, 'pip install "/src/my clone[train]"'),
        (
            {"url": "https://host/p2r.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}},
            'pip install "videop2r-data[train] @ git+https://host/p2r.git@abc123"',
        ),
        ({"url": "https://host/p2r-0.1.0.whl", "archive_info": {}}, 'pip install "videop2r-data[train]"'),
    ],
)
def test_an_installed_package(direct_url: dict[str, Any] | None, wanted: str, tmp_path: Path) -> None:
    assert installed(tmp_path / "site", direct_url, cwd=tmp_path) == wanted


def test_a_clone_is_installed_from_its_folder(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "pyproject.toml").write_text("")
    assert installed(clone, None, cwd=clone) == 'pip install -e ".[train]"'
    shutil.rmtree(clone / "videop2r_data")
    shutil.rmtree(clone / "videop2r_data-0.1.0.dist-info")
    assert installed(clone, None, cwd=tmp_path) == f'pip install -e "{clone}[train]"'


def test_another_environment_s_pip_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip = tmp_path / "pip"
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_line("vllm").startswith(f"{sys.executable} -m pip install ")
    assert MissingExtraError("vLLM", "vllm").hint == f"run: {install_line('vllm')}"
