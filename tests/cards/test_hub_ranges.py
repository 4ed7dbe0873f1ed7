"""Files of the Hub by ranges: what the storage host may answer, and who gets to see the token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub_server import HubServer
from videop2r_data.cards.hub.client import Hub, JoinedFile, Place, RangeFile
from videop2r_data.errors import HubError

REPO = "up/pool"
DATA = random.Random(0).randbytes(400_000)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with HubServer(tmp_path / "hub") as made:
        repo = made.store.create("dataset", REPO, private=True)
        path = tmp_path / "a.bin"
        path.write_bytes(DATA)
        made.store.put_file(repo, "x/a.bin", path)
        made.store.put_text(repo, "small.txt", "0123456789")
        yield made


def opened(
    server: HubServer, path: str = "x/a.bin", size: int = len(DATA), token: str | None = ""
) -> RangeFile:
    hub = Hub(server.url, server.token if token == "" else token)
    revision = server.store.repo("dataset", REPO).branches["main"]
    return RangeFile(Place(hub, REPO, revision), path, size)


def test_ranges_of_a_private_file_and_of_one_that_is_no_large_file(server: HubServer) -> None:
    """The stand-in's storage host refuses a request that carries the token; the Hub refuses one without."""
    file = opened(server)
    assert file.read(1000, 1010) == DATA[1000:1010]
    assert file.read(0, len(DATA)) == DATA
    assert file.read(5, 5) == b""
    assert [method for method, path in server.seen if "/resolve/" in path] == ["HEAD"], (
        "one link for all ranges"
    )
    assert opened(server, "small.txt", 10).read(3, 6) == b"345"
    with pytest.raises(HubError, match="private and this token cannot see it"):
        opened(server, token=None).read(0, 1)


@pytest.mark.parametrize("status", [0, 401, 403, 404, 408, 429, 500, 503])
def test_trouble_that_passes(server: HubServer, status: int) -> None:
    server.fail("GET", "/cdn/", status=status, times=3)
    assert opened(server).read(10, 90_000) == DATA[10:90_000]


def test_trouble_that_stays(server: HubServer) -> None:
    server.fail("GET", "/cdn/", status=503, times=99)
    with pytest.raises(HubError, match="bytes 7 to 9: gave up after 5 tries: status 503"):
        opened(server).read(7, 9)
    server.faults.clear()
    server.fail("GET", "/cdn/", status=200)
    with pytest.raises(HubError, match="got status 200 and no range"):
        opened(server).read(7, 9)
    with pytest.raises(HubError, match="the list says 5"):
        opened(server, size=5).read(0, 5)


def test_a_range_over_the_joints_of_a_file_in_pieces(server: HubServer) -> None:
    parts = [opened(server), opened(server, "small.txt", 10), opened(server)]
    joined = JoinedFile("all", parts)
    assert (joined.size, joined.starts) == (800_010, (0, 400_000, 400_010))
    assert joined.read(399_998, 400_013) == DATA[-2:] + b"0123456789" + DATA[:3]
    assert joined.fetched == 15
