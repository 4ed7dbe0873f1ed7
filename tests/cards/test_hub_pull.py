"""Pull a released data set from the stand-in Hub: by revision, checked, gone on with after a break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from tests.builders.release_rows import official_rows, write_official
from tests.cards.hub_release import changed_rows, write_release
from tests.fakes.hub_server import HubServer
from videop2r_data.cards.hub.client import Hub, Place
from videop2r_data.cards.hub.pull import NOTE, PullReport, pull_dataset
from videop2r_data.cards.hub.push import push_dataset
from videop2r_data.errors import HubError

REPO = "me/made"
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # the client's own LFS path


@pytest.fixture
def server(empty_hub: HubServer, tmp_path: Path) -> HubServer:
    push(empty_hub, write_release(tmp_path / "v1", sft_shards=3), tag="v1")
    push(empty_hub, write_release(tmp_path / "v2", changed_rows(), sft_shards=2), tag="v2")
    return empty_hub


def push(server: HubServer, folder: Path, tag: str) -> None:
    push_dataset(folder, REPO, hub=Hub(server.url, server.token), tag=tag)


def pull(server: HubServer, dest: Path, revision: str | None = None, repo: str = REPO) -> PullReport:
    return pull_dataset(repo, dest, hub=Hub(server.url, None), revision=revision)


MADE = ("README.md", "croissant.json")
"""Made anew for the repository by a push."""


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts and path.name not in MADE
    }


def test_what_was_pushed_comes_back_byte_for_byte_by_tag(tmp_path: Path, server: HubServer) -> None:
    for tag in ("v1", "v2"):
        report = pull(server, tmp_path / f"out-{tag}", tag)
        assert report.ours and report.fetched == report.files == len(content(tmp_path / tag)) + len(MADE)
        assert content(tmp_path / f"out-{tag}") == content(tmp_path / tag)
    assert pull(server, tmp_path / "out-v2").fetched == 0, "main is v2, and it is here"


def test_another_revision_replaces_what_was_pulled(tmp_path: Path, server: HubServer) -> None:
    out = tmp_path / "out"
    pull(server, out, "v1")
    (out / "mine.json").write_text("{}")
    report = pull(server, out, "v2")
    assert report.removed == ("data/sft-00002.parquet",)
    assert content(out) == content(tmp_path / "v2") | {"mine.json": b"{}"}
    assert 0 < report.fetched < report.files, "equal shards are not fetched again"


def test_a_folder_that_was_not_pulled_is_not_touched(tmp_path: Path, server: HubServer) -> None:
    before = content(tmp_path / "v1")
    with pytest.raises(HubError, match="files that were not pulled"):
        pull(server, tmp_path / "v1", "v2")
    assert content(tmp_path / "v1") == before
    server.store.create("dataset", "me/other", private=False)
    pull(server, tmp_path / "out")
    write_release(tmp_path / "out", changed_rows())
    with pytest.raises(HubError, match="it was built or changed since it was pulled"):
        pull(server, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    pull(server, tmp_path / "out")
    server.store.put_text(server.store.repo("dataset", "me/other"), "rows.jsonl", "{}\n")
    with pytest.raises(HubError, match="it was pulled from me/made"):
        pull(server, tmp_path / "out", repo="me/other")


def test_an_interrupted_pull_goes_on(tmp_path: Path, server: HubServer) -> None:
    out = tmp_path / "out"
    pull(server, out)
    whole = content(out)
    (out / "data/rl-00000.parquet").unlink()
    damaged = out / "data/sft-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    report = pull(server, out)
    assert report.fetched == 2 and content(out) == whole
    shutil.rmtree(out)
    server.fail("HEAD", "rl-00000", status=500, times=99)
    with pytest.raises(HubError):
        pull(server, out)
    server.faults.clear()
    assert (out / NOTE).is_file()
    assert pull(server, out).fetched < len(whole) and content(out) == whole


def test_a_release_whose_lock_does_not_hold_is_refused(tmp_path: Path, server: HubServer) -> None:
    repo = server.store.repo("dataset", REPO)
    old = repo.commits[repo.tags["v1"]]
    repo.commit({**repo.files, "data/sft-00000.parquet": old["data/sft-00001.parquet"]}, "mixed up")
    out = tmp_path / "out"
    with pytest.raises(HubError, match="not the one that its lock describes") as told:
        pull(server, out)
    assert not (out / "data/sft-00000.parquet").exists(), "no loader finds the shard that was refused"
    assert (out / ".cache/p2r-refused/data/sft-00000.parquet").is_file()
    assert "p2r-refused: data/sft-00000.parquet; tell whoever published it" in str(told.value)
    assert (out / "data/rl-00000.parquet").is_file()
    repo.commit(repo.commits[repo.tags["v2"]], "mended")
    assert pull(server, out).fetched == 1 and content(out) == content(tmp_path / "v2")


def test_a_shard_that_arrives_as_another_is_not_left_in_the_folder(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of the right length that are not those of the list, as a broken cache in between gives them."""
    import videop2r_data.cards.hub.pull as pull_release

    def download(place: Place, name: str, dest: Path) -> str:
        found = real(place, name, dest)
        if name == "data/sft-00000.parquet":
            path = dest / name
            path.write_bytes(path.read_bytes()[::-1])
        return found

    real = pull_release.download
    monkeypatch.setattr(pull_release, "download", download)
    with pytest.raises(HubError, match="what arrived is not what the Hub lists"):
        pull(server, tmp_path / "out")
    assert not (tmp_path / "out/data/sft-00000.parquet").exists()


def test_the_official_release_and_a_part_that_is_missing(tmp_path: Path, server: HubServer) -> None:
    release = write_official(tmp_path / "official", official_rows(), parts=3)
    repo = server.store.create("dataset", "up/official", private=False)
    for path in sorted(release.iterdir()):
        server.store.put_file(repo, path.name, path)
    server.store.put_text(repo, "README.md", "# Official\n")
    server.store.put_text(repo, "videos/readme.txt", "not wanted")
    report = pull(server, tmp_path / "out", repo="up/official")
    assert not report.ours and report.files == 4
    assert content(tmp_path / "out") == content(release)
    assert (tmp_path / "out/README.md").read_bytes() == b"# Official\n"
    files = {name: entry for name, entry in repo.files.items() if "part2of3" not in name}
    repo.commit(files, "lost")
    with pytest.raises(HubError, match=r"part 2 of VideoP2R-162k_sft is missing"):
        pull(server, tmp_path / "out2", repo="up/official")


def test_what_is_not_there_is_told(tmp_path: Path, server: HubServer) -> None:
    with pytest.raises(HubError, match="no such repository"):
        pull(server, tmp_path / "out", repo="me/none")
    with pytest.raises(HubError, match="no such revision"):
        pull(server, tmp_path / "out", "v9")
    with pytest.raises(HubError, match="not a repository of the Hub"):
        pull(server, tmp_path / "out", repo="../../etc")
    server.store.create("dataset", "me/empty", private=False)
    with pytest.raises(HubError, match="no rows in this data set"):
        pull(server, tmp_path / "out", repo="me/empty")
    server.store.create("dataset", "me/closed", private=True)
    with pytest.raises(HubError, match="hf auth login"):
        pull(server, tmp_path / "out", repo="me/closed")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", [503, 0])
def test_a_single_stumble_of_the_hub_ends_no_pull(tmp_path: Path, server: HubServer, status: int) -> None:
    places = [("GET", "/api/datasets/me/made"), ("GET", "/tree/"), ("HEAD", "/resolve/.*rl-00000")]
    places += [("HEAD", "/resolve/.*README"), ("GET", "/resolve/.*croissant"), ("GET", "/cdn/")]
    for method, path in places:
        server.fail(method, path, status=status)
    report = pull(server, tmp_path / "out", "v2")
    assert report.fetched == report.files and content(tmp_path / "out") == content(tmp_path / "v2")


def test_offline_mode_is_told_at_once(server: HubServer) -> None:
    """Its error is a broken connection by its class, and no pause ends it."""
    said: list[str] = []
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        Hub(server.url, server.token, said.append).call(_offline, "me/made")
    assert not said


def _offline() -> None:
    raise OfflineModeIsEnabled("Cannot reach the Hub: offline mode is enabled.")
