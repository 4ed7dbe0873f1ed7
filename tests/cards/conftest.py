"""A Hub for tests of push and pull."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from tests.fakes.hub_server import HubServer


@pytest.fixture(params=["lfs", "xet"])
def empty_hub(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """A Hub with nothing on it; large files in LFS or in Xet storage, where the real client puts them."""
    xet = request.param == "xet"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    monkeypatch.setattr("time.sleep", lambda _: None)
    disable_progress_bars()
    with HubServer(tmp_path / "hub", xet=xet) as made:
        yield made
