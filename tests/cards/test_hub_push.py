"""Push a data set to the stand-in Hub with the real client, on the LFS path and on the Xet path."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from tests.cards.hub_release import changed_rows, write_release
from tests.cards.test_dataset_card import POOL, sourced
from tests.fakes.hub_server import READ_TOKEN, HubServer
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.cards.card.facts import mark_figures
from videop2r_data.cards.card.metadata import PREVIEW_NAME
from videop2r_data.cards.hub.client import Hub
from videop2r_data.cards.hub.plan import Action
from videop2r_data.cards.hub.push import PushReport, push_dataset
from videop2r_data.errors import HubAuthError, HubError

REPO = "me/made"
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # the client's own LFS path


@pytest.fixture
def server(empty_hub: HubServer) -> HubServer:
    return empty_hub


def hub(server: HubServer, token: str | None = None) -> Hub:
    return Hub(server.url, token or server.token)


def stored_file(server: HubServer, name: str) -> bytes:
    repo = server.store.repo("dataset", REPO)
    return server.store.read(repo.files[name], 0, 1 << 30)


def actions(report: PushReport) -> dict[str, str]:
    return {change.path: change.action.value for change in report.plan.changes}


def test_a_new_repository_holds_what_the_folder_holds(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made", sft_shards=2)
    (folder / "notes.txt").write_text("mine")
    (folder / "assets").mkdir()
    (folder / "assets" / "logo.png").write_bytes(b"png")
    seen: list[tuple[str, int, int]] = []
    report = push_dataset(folder, REPO, hub=hub(server), private=True, watch=lambda *step: seen.append(step))
    repo = server.store.repo("dataset", REPO)
    assert repo.private and report.private and report.commit == repo.branches["main"]
    assert report.url == f"{server.url}/datasets/{REPO}"
    assert report.plan.left_out == ("notes.txt",)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    made = {"README.md", "croissant.json"}
    assert set(repo.files) == names - {"notes.txt"} | {".gitattributes"} | made
    for name in set(repo.files) - {".gitattributes"} - made:
        assert server.store.read(repo.files[name], 0, 1 << 30) == (folder / name).read_bytes(), name
    assert len(repo.log) == 2, "one commit makes the repository, one brings everything"
    assert seen[-1] == ("commit", report.plan.upload_bytes, report.plan.upload_bytes)


def test_a_second_push_uploads_nothing_and_a_changed_row_only_its_shard(
    tmp_path: Path, server: HubServer
) -> None:
    push_dataset(write_release(tmp_path / "made", sft_shards=2), REPO, hub=hub(server))
    head = server.store.repo("dataset", REPO).branches["main"]
    with server.recording() as asked:
        again = push_dataset(tmp_path / "made", REPO, hub=hub(server))
    assert again.plan.is_noop and again.commit == head
    assert not [one for one in asked if one[0] != "GET"]

    shutil.rmtree(tmp_path / "made")
    received = server.received
    write_release(tmp_path / "made", changed_rows(), sft_shards=2)
    report = push_dataset(tmp_path / "made", REPO, hub=hub(server))
    changed = {path for path, action in actions(report).items() if action != "equal"}
    assert changed == {"README.md", "croissant.json", "build.lock.json", "data/sft-00000.parquet"}
    if server.store.cas is None:
        assert server.received - received == (tmp_path / "made/data/sft-00000.parquet").stat().st_size


def test_stale_shards_go_and_what_others_put_there_stays(tmp_path: Path, server: HubServer) -> None:
    push_dataset(write_release(tmp_path / "made", sft_shards=3), REPO, hub=hub(server))
    repo = server.store.repo("dataset", REPO)
    server.store.put_text(repo, "data/README.txt", "somebody's")
    server.store.put_text(repo, "paper.pdf", "somebody's")
    shutil.rmtree(tmp_path / "made")
    report = push_dataset(write_release(tmp_path / "made", sft_shards=2), REPO, hub=hub(server))
    assert [c.path for c in report.plan.of(Action.DELETED)] == ["data/sft-00002.parquet"]
    assert report.plan.kept == 2
    assert {"paper.pdf", "data/README.txt"} <= set(repo.files)
    assert "data/sft-00002.parquet" not in repo.files
    assert len(repo.log) == 5, "shards, card and lock change in one commit: nobody sees a mixture"


def test_a_dry_run_says_what_would_change_and_changes_nothing(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    with server.recording() as asked:
        report = push_dataset(folder, REPO, hub=hub(server), dry_run=True, tag="v1")
    assert report.dry_run and report.plan.creates and set(actions(report).values()) == {"added"}
    assert report.plan.upload_bytes == sum(c.bytes for c in report.plan.changes)
    assert not server.store.repos and not [one for one in asked if one[0] != "GET"]


def test_a_tag_is_set_after_the_last_commit_and_never_moves(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    with server.recording() as asked:
        report = push_dataset(folder, REPO, hub=hub(server), tag="v1.0")
    kinds = [path.split("/")[-2] for method, path in asked if method == "POST"]
    assert kinds[-2:] == ["commit", "tag"]
    repo = server.store.repo("dataset", REPO)
    assert repo.tags == {"v1.0": report.commit}
    assert push_dataset(folder, REPO, hub=hub(server), tag="v1.0").commit == report.commit
    shutil.rmtree(folder)
    write_release(folder, changed_rows())
    with pytest.raises(HubError, match=r"'v1\.0' exists and stands for commit"):
        push_dataset(folder, REPO, hub=hub(server), tag="v1.0")
    assert repo.branches["main"] == report.commit, "refused before anything was uploaded"
    second = push_dataset(folder, REPO, hub=hub(server), tag="v1.1")
    assert repo.tags == {"v1.0": report.commit, "v1.1": second.commit}


def test_an_interrupted_push_goes_on_where_it_was(tmp_path: Path, server: HubServer) -> None:
    """The commit is refused after every shard has arrived; then the tag; nothing is sent twice."""
    folder = write_release(tmp_path / "made", sft_shards=3)
    server.fail("POST", "/commit/", status=500, times=99)
    with pytest.raises(HubError, match="the Hub answered 500"):
        push_dataset(folder, REPO, hub=hub(server), tag="v1")
    repo = server.store.repo("dataset", REPO)
    assert set(repo.files) == {".gitattributes"}, "nobody sees half a data set"
    stored = server.store.cas.stored if server.store.cas else server.received
    server.faults.clear()
    server.fail("POST", "/tag/", status=503, times=99)
    with pytest.raises(HubError, match="the Hub answered 503"):
        push_dataset(folder, REPO, hub=hub(server), tag="v1")
    now = server.store.cas.stored if server.store.cas else server.received
    assert now - stored < 5000, "shards that had arrived were not sent again"
    head = repo.branches["main"]
    server.faults.clear()
    report = push_dataset(folder, REPO, hub=hub(server), tag="v1")
    assert report.plan.is_noop and report.commit == head and repo.tags == {"v1": head}


def test_a_lost_shard_upload_keeps_the_ones_before_it(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server.store.cas is not None:
        pytest.skip("Xet uploads do not pass through this server")
    monkeypatch.setattr("time.sleep", lambda _: None)
    folder = write_release(tmp_path / "made", sft_shards=3)
    server.fail("PUT", "/lfs/", status=400, after=2, times=99)
    with pytest.raises(HubError):
        push_dataset(folder, REPO, hub=hub(server))
    server.faults.clear()
    with server.recording() as asked:
        push_dataset(folder, REPO, hub=hub(server))
    assert len([one for one in asked if one[0] == "PUT"]) == 3, "two of the five had arrived"


def test_many_clips_go_ahead_in_commits_of_their_own(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between two of them, a push goes on with the clips that are not there yet."""
    monkeypatch.setattr("videop2r_data.cards.hub.plan.COMMIT_FILES", 3)
    monkeypatch.setattr("videop2r_data.cards.hub.plan.UPLOAD_FILES", 2)
    folder, root = write_release(tmp_path / "made"), tmp_path / "root"
    (root / "clips").mkdir(parents=True)
    names = ["0.mp4", "1.png", "2.png", "4.mp4", "5.png", "6.png", "7.png", "8.png"]
    for name in names:
        (root / "clips" / name).write_bytes(name.encode() * 100)
    server.fail("POST", "/commit/", status=500, after=2, times=99)
    with pytest.raises(HubError, match="the Hub answered 500"):
        push_dataset(folder, REPO, hub=hub(server), roots={"made": root}, embed_media=True)
    repo = server.store.repo("dataset", REPO)
    assert len(repo.files) == 1 + 6, "two commits of three clips; no card that would promise more"
    server.faults.clear()
    report = push_dataset(folder, REPO, hub=hub(server), roots={"made": root}, embed_media=True, tag="v1")
    added = {change.path for change in report.plan.of(Action.ADDED)}
    assert {path for path in added if path.startswith("media/")} == {
        f"media/made/clips/{n}" for n in ("7.png", "8.png")
    }
    assert {f"media/made/clips/{name}" for name in names} <= set(repo.files)
    (root / "clips/8.png").write_bytes(b"new")
    again = push_dataset(folder, REPO, hub=hub(server), roots={"made": root}, embed_media=True)
    assert [c.path for c in again.plan.of(Action.CHANGED)] == ["media/made/clips/8.png"]
    text_only = push_dataset(folder, REPO, hub=hub(server))
    assert b"They are part of this repository" in stored_file(server, "README.md")
    assert text_only.plan.is_noop and text_only.plan.kept == 8, (
        "without --embed-media the clips are left alone"
    )


def test_somebody_else_pushed_meanwhile(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    push_dataset(folder, REPO, hub=hub(server))
    repo = server.store.repo("dataset", REPO)
    shutil.rmtree(folder)
    write_release(folder, changed_rows())

    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "commit":
            server.store.put_text(repo, "notes.md", "new")

    with pytest.raises(HubError, match="somebody else changed it meanwhile"):
        push_dataset(folder, REPO, hub=hub(server), watch=meanwhile)


def test_wrong_tokens_are_told_without_being_shown(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    wrong = "hf_wrongWrongWrong"
    with pytest.raises(HubAuthError, match="does not take this token") as refused:
        push_dataset(folder, REPO, hub=hub(server, wrong))
    assert "hf auth login" in str(refused.value) and wrong not in str(refused.value)
    assert wrong not in repr(hub(server, wrong))
    with pytest.raises(HubAuthError, match="this token may not do that"):
        push_dataset(folder, REPO, hub=hub(server, READ_TOKEN))
    with pytest.raises(HubAuthError, match="there is no token"):
        push_dataset(folder, REPO, hub=Hub(server.url, None))
    assert not server.store.repos


def test_a_public_repository_is_not_made_private_in_passing(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    push_dataset(folder, REPO, hub=hub(server))
    with pytest.raises(HubError, match="exists and is public"):
        push_dataset(folder, REPO, hub=hub(server), private=True)


def test_a_file_that_the_hub_drops_is_noticed(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    server.ignored = "data/rl-"
    with pytest.raises(
        HubError, match="after the push 1 files there are not as they are here, the first: data/rl-"
    ):
        push_dataset(folder, REPO, hub=hub(server))


def test_a_name_without_an_owner_is_refused(tmp_path: Path, server: HubServer) -> None:
    with pytest.raises(HubError, match="write owner/name"):
        push_dataset(write_release(tmp_path / "made"), "made", hub=hub(server))


def test_a_repository_of_another_tool_is_left_alone(tmp_path: Path, server: HubServer) -> None:
    repo = server.store.create("dataset", REPO, private=False)
    server.store.put_text(repo, "data/sft-00000.parquet", "somebody's")
    with pytest.raises(HubError, match="this tool did not write it"):
        push_dataset(write_release(tmp_path / "made"), REPO, hub=hub(server))


STUMBLES = [
    ("GET", "/api/whoami-v2"),
    ("GET", "/api/datasets/me/made/revision/main"),
    ("GET", "/refs"),
    ("GET", "/tree/"),
    ("POST", "/api/repos/create"),
    ("GET", "/resolve/.*README"),
    ("POST", "/preupload/"),
    ("POST", "/commit/"),
    ("POST", "/tag/"),
]


@pytest.mark.parametrize("status", [500, 502, 503, 0])
def test_a_single_stumble_of_the_hub_ends_no_push(tmp_path: Path, server: HubServer, status: int) -> None:
    folder = write_release(tmp_path / "made")
    for method, path in STUMBLES:
        server.fail(method, path, status=status)
    said: list[str] = []
    patient = Hub(server.url, server.token, said.append)
    report = push_dataset(folder, REPO, hub=patient, tag="v1")
    what = f"the Hub answered {status}" if status else "the connection broke"
    assert len(said) >= 5 and all(what in line and "asked again in" in line for line in said)
    repo = server.store.repo("dataset", REPO)
    assert repo.tags == {"v1": report.commit} and len(repo.log) == 2
    shutil.rmtree(folder)
    write_release(folder, changed_rows())
    push_dataset(folder, REPO, hub=hub(server), tag="v2")
    assert len(repo.log) == 3 and not [f for f in server.faults if f.times], "every one of them was met"


def test_a_commit_whose_answer_was_lost_is_found_not_repeated(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    server.fail("POST", "/commit/", late=True)
    report = push_dataset(folder, REPO, hub=hub(server))
    repo = server.store.repo("dataset", REPO)
    assert report.commit == repo.branches["main"] and len(repo.log) == 2, "one commit, not two"
    assert len([path for method, path in server.seen if method == "POST" and "/commit/" in path]) == 1


def test_a_lost_answer_and_somebody_elses_commit_are_told_apart(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    push_dataset(folder, REPO, hub=hub(server))
    repo = server.store.repo("dataset", REPO)
    shutil.rmtree(folder)
    write_release(folder, changed_rows())
    server.fail("POST", "/commit/")

    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "commit":
            server.store.put_text(repo, "notes.md", "new")

    with pytest.raises(HubError, match="somebody else changed it meanwhile"):
        push_dataset(folder, REPO, hub=hub(server), watch=meanwhile)
    assert "notes.md" in repo.files


def test_the_card_is_that_of_the_repository(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_release(tmp_path / "made")
    write_dataset_card(folder)
    before = (folder / "README.md").read_bytes()
    monkeypatch.setattr("videop2r_data.cards.hub.prepare._today", lambda: date(2026, 3, 4))
    report = push_dataset(folder, REPO, hub=hub(server))
    assert report.remarks == () and (folder / "README.md").read_bytes() == before, "the folder is as it was"
    card = stored_file(server, "README.md").decode()
    page = f"{server.url}/datasets/{REPO}"
    assert 'load_dataset("me/made", split="train")' in card and "@misc{me-made," in card and page in card
    data = orjson.loads(stored_file(server, "croissant.json"))
    assert (data["url"], data["datePublished"], data["creator"]["name"]) == (page, "2026-03-04", "me")
    assert data["creator"]["url"] == f"{server.url}/me"

    monkeypatch.setattr("videop2r_data.cards.hub.prepare._today", lambda: date(2026, 3, 5))
    assert push_dataset(folder, REPO, hub=hub(server)).plan.is_noop, "the date is that of the first push"
    (folder / "README.md").write_bytes(stored_file(server, "README.md"))
    write_dataset_card(folder)
    assert (folder / "README.md").read_bytes() == stored_file(server, "README.md"), "as after a pull"
    shutil.rmtree(folder)
    write_release(folder, changed_rows())
    push_dataset(folder, REPO, hub=hub(server))
    assert orjson.loads(stored_file(server, "croissant.json"))["datePublished"] == "2026-03-05"


def test_wrong_counts_and_licences_written_by_hand_are_not_pushed(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    path = write_dataset_card(folder)
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("| sft | 6 |", "| sft | 6,000 |") + "\n## Thanks\n\nTo everybody.\n", encoding="utf-8"
    )
    croissant = orjson.loads((folder / "croissant.json").read_bytes())
    (folder / "croissant.json").write_bytes(orjson.dumps(croissant | {"license": "cc0-1.0"}))
    report = push_dataset(folder, REPO, hub=hub(server))
    card = stored_file(server, "README.md").decode()
    assert "6,000" not in card and "| sft | 6 |" in card and "To everybody." in card
    assert orjson.loads(stored_file(server, "croissant.json"))["license"] == "apache-2.0"
    assert [remark.split(":")[0] for remark in report.remarks] == ["README.md", "croissant.json"]
    path.write_text(text, encoding="utf-8")
    (again,) = [r for r in push_dataset(folder, REPO, hub=hub(server)).remarks if r.startswith("README")]
    assert "holds words of a person that the one here lacks" in again


def figures(folder: Path) -> None:
    made = folder / "figures"
    made.mkdir()
    entry = {"name": "a", "title": "A", "caption": "What it shows.", "width": 8, "height": 8}
    entry |= {"light": "a.png", "dark": "b.png", "data": "a.json"}
    for name in ("a.png", "b.png", "a.json"):
        (made / name).write_bytes(name.encode())
    (made / "index.json").write_bytes(orjson.dumps({"where": "x", "rows": {}, "figures": [entry]}))


def test_figures_are_pushed_if_the_card_shows_them(tmp_path: Path, server: HubServer) -> None:
    folder = write_release(tmp_path / "made")
    write_dataset_card(folder)
    figures(folder)
    report = push_dataset(folder, REPO, hub=hub(server))
    assert (
        "figures/a.png" in report.plan.left_out and "figures/: not drawn of these rows" in report.remarks[0]
    )
    assert not [name for name in server.store.repo("dataset", REPO).files if name.startswith("figures/")]
    mark_figures(folder)  # as `stats --figures` and `card --figures` do
    report = push_dataset(folder, REPO, hub=hub(server))
    assert report.remarks[0].startswith("README.md: its generated parts"), "the card was older than they are"
    assert 'src="figures/a.png"' in stored_file(server, "README.md").decode()
    assert stored_file(server, "figures/b.png") == b"b.png"


def test_what_nobody_states_is_refused_unless_told(tmp_path: Path, server: HubServer) -> None:
    folder = sourced(tmp_path / "made", ["STAR", "CLEVRER"], sources=[POOL])
    with pytest.raises(
        HubError, match=r"no licence is known for the questions of STAR \(not checked; 6 rows\)"
    ) as no:
        push_dataset(folder, REPO, hub=hub(server))
    assert "--allow-unstated-licenses" in str(no.value) and "CLEVRER" not in str(no.value)
    assert not server.store.repos
    report = push_dataset(folder, REPO, hub=hub(server), allow_unstated=True)
    assert report.remarks[0].startswith("pushed nevertheless: no licence is known")
    head = stored_file(server, "README.md").decode().split("---")[1]
    assert "license: other" in head and f"license_link: {server.url}/datasets/{REPO}#sources-and-" in head
    bare = sourced(tmp_path / "bare", ["CLEVRER"], sources=[POOL], license=" ")
    with pytest.raises(HubError, match="the recipe states no licence for the traces"):
        push_dataset(bare, REPO, hub=hub(server))


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("https://me:hunter2@models.example/v1", True),
        ("https://hunter2@models.example/v1", True),
        ("https://models.example/v1?version=2&api_key=hunter2", True),
        ("https://models.example/v1?monkey=hunter2", False),
        ("https://models.example/@hunter2/v1", False),
    ],
)
def test_a_password_in_an_address_is_not_published(
    tmp_path: Path, server: HubServer, address: str, refused: bool
) -> None:
    folder = sourced(tmp_path / "made", ["CLEVRER"], sources=[POOL])
    lock = orjson.loads((folder / "build.lock.json").read_bytes())
    lock["recipe"]["generate"] = {"backend": {"kind": "openai", "model": "m", "base_url": address}}
    (folder / "build.lock.json").write_bytes(orjson.dumps(lock))
    if not refused:
        assert push_dataset(folder, REPO, hub=hub(server)).commit
        return
    with pytest.raises(HubError, match=r"a password or key in it: generate\.backend\.base_url") as no:
        push_dataset(folder, REPO, hub=hub(server))
    assert "hunter2" not in str(no.value) and not server.store.repos


@pytest.mark.parametrize(
    ("licences", "refused"),
    [
        ({"license": "CC BY 4.0"}, ""),
        ({"license": "mixed, see the data sets"}, r"Made \(media licence: not checked\)"),
        ({"license": "research only"}, r"Made \(media licence: research only\)"),
        ({"licenses": {"Made": "mit"}}, ""),
    ],
)
def test_clips_go_along_only_under_a_licence_that_lets_them(
    tmp_path: Path, server: HubServer, licences: dict[str, Any], refused: str
) -> None:
    pool = POOL | {"kind": "dataset", "license": ""} | licences
    folder = sourced(tmp_path / "made", ["Made"], sources=[pool])
    root = clips(tmp_path / "root")
    options: dict[str, Any] = {"roots": {"made": root}, "embed_media": True, "allow_unstated": True}
    if refused:
        with pytest.raises(HubError, match=refused):
            push_dataset(folder, REPO, hub=hub(server), **options)
    else:
        push_dataset(folder, REPO, hub=hub(server), **options)
        assert "They are part of this repository" in stored_file(server, "README.md").decode()


def clips(root: Path) -> Path:
    (root / "clips").mkdir(parents=True)
    for name in ("0.mp4", "1.png", "2.png", "4.mp4", "5.png", "6.png", "7.png", "8.png"):
        (root / "clips" / name).write_bytes(name.encode() * 100)
    return root


def test_a_preview_holds_clips_that_may_be_shown(tmp_path: Path, server: HubServer) -> None:
    names = ["CLEVRER", "STAR"]  # even ids: may be passed on; odd ones: nobody says so
    folder = sourced(tmp_path / "made", names, sources=[POOL | {"licenses": {}}])
    root = clips(tmp_path / "root")
    wish: dict[str, Any] = {"roots": {"made": root}, "preview": 4, "allow_unstated": True}
    report = push_dataset(folder, REPO, hub=hub(server), **wish)
    (tmp_path / "p.parquet").write_bytes(stored_file(server, PREVIEW_NAME))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == ["made/0", "made/2", "made/4"], "each medium in turn"
    assert rows[0]["video"] == {"bytes": b"0.mp4" * 100, "path": "0.mp4"} and rows[0]["image"] is None
    assert rows[1]["image"]["bytes"] == b"2.png" * 100
    assert "the preview has 3 of 4 rows" in report.remarks[-1]
    card = stored_file(server, "README.md").decode()
    assert "| preview | 3 |" in card and "They are not part of this data set" in card
    assert push_dataset(folder, REPO, hub=hub(server), **wish).plan.is_noop, "the same rows, the same bytes"
    gone = push_dataset(folder, REPO, hub=hub(server), allow_unstated=True)
    assert [c.path for c in gone.plan.of(Action.DELETED)] == [PREVIEW_NAME]
    assert "preview" not in stored_file(server, "README.md").decode().split("---")[1]
