"""Clips out of archives on the stand-in Hub: only their bytes are read, whatever breaks on the way."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from tests.fakes.hub_server import HubServer
from videop2r_data.cards.hub.client import Hub
from videop2r_data.cards.hub.media import MediaPlan, fetch_media, plan_media

REPO = "up/pool"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with HubServer(tmp_path / "hub") as made:
        made.store.create("dataset", REPO, private=False)
        yield made


@pytest.fixture
def either(empty_hub: HubServer) -> HubServer:
    empty_hub.store.create("dataset", REPO, private=False)
    return empty_hub


def clip(number: int, size: int = 3000) -> bytes:
    return random.Random(number).randbytes(size)


def put_zip(
    server: HubServer, name: str, files: dict[str, bytes], *, method: int = zipfile.ZIP_STORED, cut: int = 0
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for member, data in files.items():
            made.writestr(member, data)
    data, repo = out.getvalue(), server.store.repo("dataset", REPO)
    folder = server.store.root / "made"
    pieces = [data[i : i + cut] for i in range(0, len(data), cut)] if cut else [data]
    for number, piece in enumerate(pieces, 1):
        path = folder / (f"{name}.{number:03d}" if cut else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(piece)
        server.store.put_file(repo, path.relative_to(folder).as_posix(), path)


def plan(server: HubServer, tmp_path: Path, paths: list[str], **options: str) -> MediaPlan:
    return plan_media(
        paths,
        REPO,
        tmp_path / "media",
        hub=Hub(server.url, server.token),
        cache=tmp_path / "cache",
        **options,
    )


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own LFS path
def test_twenty_clips_of_a_large_archive_cost_two_percent_of_its_bytes(
    tmp_path: Path, either: HubServer
) -> None:
    """2,000 clips, 200 MB, pushed by the real client; 20 of them, spread over the archive."""
    server = either
    path = tmp_path / "CLEVRER_part1.zip"
    size = 100_000
    with zipfile.ZipFile(path, "w") as made:
        for number in range(2000):
            info = zipfile.ZipInfo(f"train_videos/{number:05d}.mp4")
            with made.open(info, "w") as file:
                file.write(clip(number, 100) + bytes(size - 100))
    api = HfApi(endpoint=server.url, token=server.token)
    api.upload_file(
        repo_id=REPO, repo_type="dataset", path_or_fileobj=path, path_in_repo=f"CLEVRER/{path.name}"
    )
    rows = [f"./CLEVRER/train_videos/{n:05d}.mp4" for n in range(50, 2000, 100)]
    found = plan(server, tmp_path, [*rows, *rows, ""])
    estimate = found.estimate
    assert (estimate.wanted, estimate.to_fetch, estimate.present) == (20, 20, 0)
    assert estimate.clip_bytes == 20 * size and estimate.requests == 20
    assert estimate.archive_bytes == path.stat().st_size > 200_000_000
    before = server.served.total()
    assert before == estimate.directory_bytes < 200_000
    seen: list[tuple[str, int, int]] = []
    report = fetch_media(found, watch=lambda *step: seen.append(step))
    assert (report.fetched, report.failed) == (20, ())
    read = server.served.total()
    assert read == estimate.directory_bytes + estimate.transfer_bytes
    assert read < 0.02 * path.stat().st_size, f"{100 * read / path.stat().st_size:.2f} %"
    for number in range(50, 2000, 100):
        got = (tmp_path / f"media/CLEVRER/train_videos/{number:05d}.mp4").read_bytes()
        assert got == clip(number, 100) + bytes(size - 100)
    assert seen[-1][1:] == (20 * size, 20 * size)
    assert not list((tmp_path / "media").rglob("*.part"))

    again = plan(server, tmp_path, rows).estimate
    assert (again.present, again.to_fetch, again.directory_bytes) == (20, 0, 0), "the directory is kept"
    assert server.served.total() == read


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_parts_that_stand_for_themselves_and_a_file_cut_into_pieces(
    tmp_path: Path, server: HubServer, method: int
) -> None:
    put_zip(server, "STAR/STAR_part1.zip", {f"v/{n}.mp4": clip(n) for n in range(4)}, method=method)
    put_zip(server, "STAR/STAR_part2.zip", {f"v/{n}.mp4": clip(n) for n in range(4, 8)}, method=method)
    put_zip(server, "Math/images.zip", {f"{n}.png": clip(n) for n in range(8, 12)}, method=method, cut=5000)
    put_zip(server, "Other/never.zip", {"x.mp4": clip(99)})
    paths = [f"STAR/v/{n}.mp4" for n in (1, 2, 6)] + [f"Math/{n}.png" for n in (8, 9, 10, 11)]
    found = plan(server, tmp_path, paths)
    assert found.estimate.missing == () and found.estimate.requests == 3, "neighbours share a request"
    assert fetch_media(found).failed == ()
    for path in paths:
        number = int(Path(path).stem)
        assert (tmp_path / "media" / path).read_bytes() == clip(number), path
    assert not any("never" in path for _, path in server.seen)


def test_layouts_of_archives(tmp_path: Path, server: HubServer) -> None:
    """With the folder repeated inside, flat and named after the folder, at the root, or with no archive at all."""
    put_zip(server, "A/a.zip", {"A/one.mp4": clip(1)})
    put_zip(server, "B/clips.zip", {"two.mp4": clip(2)})
    put_zip(server, "all.zip", {"C/three.mp4": clip(3)})
    plain = tmp_path / "four.mp4"
    plain.write_bytes(clip(4))
    server.store.put_file(server.store.repo("dataset", REPO), "D/four.mp4", plain)
    server.store.put_file(server.store.repo("dataset", REPO), "media/made/E/five.mp4", plain)
    put_zip(server, "G ü/#1 50%?.zip", {"clip #7 100%.mp4": clip(7)})
    numbers = {
        "A/one.mp4": 1,
        "B/clips/two.mp4": 2,
        "C/three.mp4": 3,
        "D/four.mp4": 4,
        "E/five.mp4": 4,
        "G ü/clip #7 100%.mp4": 7,
    }
    found = plan(server, tmp_path, [*numbers, "F/six.mp4"])
    assert found.estimate.missing == ("F/six.mp4",)
    assert fetch_media(found).fetched == 6
    for path, number in numbers.items():
        assert (tmp_path / "media" / path).read_bytes() == clip(number)
    assert plan(server, tmp_path, list(numbers)).estimate.present == 6
    deep = plan(server, tmp_path / "deep", ["one.mp4"], under="A")
    assert fetch_media(deep).fetched == 1 and (tmp_path / "deep/media/one.mp4").read_bytes() == clip(1)


def test_connections_break_links_expire_servers_stumble(tmp_path: Path, server: HubServer) -> None:
    put_zip(server, "A/a.zip", {f"{n}.mp4": clip(n, 700_000) for n in range(3)})
    found = plan(server, tmp_path, [f"A/{n}.mp4" for n in range(3)])
    server.links += 1
    server.fail("GET", "/cdn/", status=503)
    server.fail("GET", "/cdn/", after=1)
    server.cut_after = [300_000, 500_000]
    report = fetch_media(found)
    assert (report.fetched, report.failed) == (3, ())
    assert server.served.total() < 2_300_000, "a broken download went on where it broke"
    for n in range(3):
        assert (tmp_path / f"media/A/{n}.mp4").read_bytes() == clip(n, 700_000)


def test_what_arrived_before_the_connection_was_lost_stays(tmp_path: Path, server: HubServer) -> None:
    put_zip(server, "A/a.zip", {f"{n}.mp4": clip(n, 300_000) for n in range(5)})
    paths = [f"A/{n}.mp4" for n in range(5)]
    found = plan(server, tmp_path, paths)
    server.cut_after = [700_000]
    server.fail("GET", "/cdn/", status=500, after=1, times=99)
    report = fetch_media(found)
    assert report.fetched == 2 and [path for path, _ in report.failed] == paths[2:]
    assert "gave up after 5 tries: status 500" in report.failed[0][1]
    server.faults.clear()
    rest = plan(server, tmp_path, paths)
    assert (rest.estimate.present, rest.estimate.to_fetch) == (2, 3)
    assert fetch_media(rest).fetched == 3
    for n in range(5):
        assert (tmp_path / f"media/A/{n}.mp4").read_bytes() == clip(n, 300_000)


def test_hostile_names_and_damaged_clips_cost_only_themselves(tmp_path: Path, server: HubServer) -> None:
    out = tmp_path / "hub/made"
    put_zip(
        server,
        "A/a.zip",
        {"../../evil.mp4": b"x", "/etc/evil.mp4": b"x", "good.mp4": clip(1), "bad.mp4": clip(2)},
    )
    data = bytearray((out / "A/a.zip").read_bytes())
    data[data.index(clip(2)) + 5] ^= 1
    (out / "A/a.zip").write_bytes(data)
    (out / "A/broken.zip").write_bytes(b"PK no zip")
    server.store.put_file(server.store.repo("dataset", REPO), "A/broken.zip", out / "A/broken.zip")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "media").mkdir()
    (tmp_path / "media/out").symlink_to(outside)
    paths = ["A/good.mp4", "A/bad.mp4", "A/../../evil.mp4", "/etc/evil.mp4", "evil.mp4", "out/evil.mp4"]
    found = plan(server, tmp_path, paths)
    assert found.estimate.missing == ("evil.mp4",)
    assert [path for path, _ in found.estimate.refused] == [
        "/etc/evil.mp4",
        "A/../../evil.mp4",
        "out/evil.mp4",
    ]
    assert found.estimate.damaged == (("A/broken.zip", "not a zip archive: no end record"),)
    report = fetch_media(found)
    assert report.fetched == 1 and report.failed[0][0] == "A/bad.mp4" and "CRC" in report.failed[0][1]
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.mp4"))
    assert files == [Path("media/A/good.mp4")]


def test_a_clip_that_is_there_but_not_whole_is_fetched_again(tmp_path: Path, server: HubServer) -> None:
    put_zip(server, "A/a.zip", {"one.mp4": clip(1)})
    target = tmp_path / "media/A/one.mp4"
    target.parent.mkdir(parents=True)
    target.write_bytes(clip(1)[:-1] + b"!")
    found = plan(server, tmp_path, ["A/one.mp4"])
    assert found.estimate.to_fetch == 1
    fetch_media(found)
    assert target.read_bytes() == clip(1)
