"""What a push would change in a repository, and the commits that change it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from videop2r_data.cards.card.metadata import MEDIA
from videop2r_data.cards.hub.client import PAUSES_S, Hub, Kind, status_of, stumbled
from videop2r_data.errors import HubError
from videop2r_data.files import file_digest
from videop2r_data.schemas import Model
from videop2r_data.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


# The plan: local files compared with those of the repository by size and digest. Nothing is uploaded yet.

_CHUNK = 1 << 20
_HUBS_OWN = ".gitattributes"
"""Made by the Hub itself in every repository."""


class Action(StrEnum):
    """What happens to one file of the repository."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"
    EQUAL = "equal"


class Change(Model):
    """One file of the repository."""

    path: str
    action: Action
    bytes: int
    """Of the new file; of the old one where it is deleted."""


class PushPlan(Model):
    """Everything that a push would change."""

    repo: str
    kind: Kind
    creates: bool
    """The repository does not exist yet."""
    head: str
    """Commit that the plan is made for; empty: none yet."""
    changes: tuple[Change, ...]
    """Every file that this tool manages, by path."""
    left_out: tuple[str, ...] = ()
    """Files of the folder that are not pushed."""
    kept: int = 0
    """Files of the repository that this tool does not manage; they stay."""

    def of(self, *actions: Action) -> tuple[Change, ...]:
        """The changes with one of these actions."""
        return tuple(change for change in self.changes if change.action in actions)

    @property
    def upload_bytes(self) -> int:
        """Bytes of the added and changed files; Xet sends less, because it deduplicates."""
        return sum(change.bytes for change in self.of(Action.ADDED, Action.CHANGED))

    @property
    def is_noop(self) -> bool:
        """Whether the repository already holds every file."""
        return not self.creates and len(self.of(Action.EQUAL)) == len(self.changes)


def crc_of(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


class LocalFile:
    """A file on this machine; its digests are computed when first read."""

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self.path = path
        self.bytes = path.stat().st_size
        if sha256 is not None:
            self.sha256 = sha256

    @cached_property
    def sha256(self) -> str:
        """Digest by which LFS and Xet know the file: 64 hexadecimal digits."""
        return file_digest(self.path)

    @cached_property
    def git_oid(self) -> str:
        """Digest by which git knows a small file: sha1 of its blob, 40 hexadecimal digits."""
        found = hashlib.sha1(b"blob %d\0" % self.bytes, usedforsecurity=False)
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
        return found.hexdigest()


class RemoteFile(Model):
    """A file of the repository."""

    bytes: int
    oid: str
    sha256: str = ""

    def is_same(self, local: LocalFile) -> bool:
        """Equal size and digest."""
        if self.bytes != local.bytes:
            return False
        return self.sha256 == local.sha256 if self.sha256 else self.oid == local.git_oid


class Remote(Model):
    """The state of a repository."""

    exists: bool
    head: str = ""
    private: bool = False
    files: dict[str, RemoteFile] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    """Tag -> commit."""


def list_files(hub: Hub, repo: str, kind: Kind, revision: str) -> dict[str, RemoteFile]:
    """Every file of a commit.

    Raises:
        HubError: the repository cannot be read.
    """
    from huggingface_hub.hf_api import RepoFile

    def ask() -> dict[str, RemoteFile]:
        return {
            item.path: RemoteFile(
                bytes=item.lfs.size if item.lfs else item.size,
                oid=item.blob_id,
                sha256=item.lfs.sha256 if item.lfs else "",
            )
            for item in hub.api.list_repo_tree(repo, repo_type=kind, revision=revision, recursive=True)
            if isinstance(item, RepoFile)
        }

    return hub.call(ask, repo)


def look(hub: Hub, repo: str, kind: Kind) -> Remote:
    """The main branch of a repository and its tags; one that does not exist has no files.

    Raises:
        HubError: the repository exists and cannot be read.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    def info_or_none() -> Any:
        try:
            return hub.api.repo_info(repo, repo_type=kind, revision="main")
        except RepositoryNotFoundError as error:
            if hub.token is None and status_of(error) == 401:
                raise  # without a token a private repository looks like a missing one
            return None

    info = hub.call(info_or_none, repo)
    if info is None:
        return Remote(exists=False)
    refs = hub.call(lambda: hub.api.list_repo_refs(repo, repo_type=kind), repo)
    return Remote(
        exists=True,
        head=info.sha or "",
        private=bool(info.private),
        files=list_files(hub, repo, kind, info.sha or "main"),
        tags={tag.name: tag.target_commit for tag in refs.tags},
    )


def make_plan(
    repo: str,
    kind: Kind,
    local: Mapping[str, LocalFile],
    remote: Remote,
    *,
    stale: Iterable[str] = (),
    left_out: Iterable[str] = (),
) -> PushPlan:
    """Compare local files with a repository.

    Args:
        repo: `owner/name`.
        kind: of the repository.
        local: path in the repository -> file.
        remote: the repository.
        stale: paths of the repository that may be deleted; those in `local` stay.
        left_out: files that are not pushed, for the report.
    """
    gone = {path for path in stale if path not in local}
    changes = [_change(path, file, remote.files.get(path)) for path, file in local.items()]
    changes += [Change(path=p, action=Action.DELETED, bytes=remote.files[p].bytes) for p in gone]
    return PushPlan(
        repo=repo,
        kind=kind,
        creates=not remote.exists,
        head=remote.head,
        changes=tuple(sorted(changes, key=lambda change: change.path)),
        left_out=tuple(sorted(left_out)),
        kept=sum(path not in local and path not in gone and path != _HUBS_OWN for path in remote.files),
    )


def check_tag(tag: str | None, plan: PushPlan, remote: Remote) -> None:
    """Refuse to move a tag: others may have loaded the data set by it.

    Raises:
        HubError: the tag exists and names another commit than the one that is being pushed.
    """
    if tag is None or tag not in remote.tags:
        return
    if not plan.is_noop or remote.tags[tag] != remote.head:
        raise HubError(
            f"the tag {tag!r} exists and stands for commit {remote.tags[tag][:12]}",
            where=plan.repo,
            hint="choose another --revision: a tag that somebody has loaded by must not move",
        )


def _change(path: str, local: LocalFile, remote: RemoteFile | None) -> Change:
    action = Action.ADDED if remote is None else Action.EQUAL if remote.is_same(local) else Action.CHANGED
    return Change(path=path, action=action, bytes=local.bytes)


# The changes: uploads, each of which survives an interruption, then commits.

Watch = Callable[[str, int, int], None]
"""Called with progress: (name of the current file, bytes done, bytes in all)."""
UPLOAD_FILES = 256
"""Media files of one upload call; a finished call survives an interruption."""
_MOVED = 412
"""HTTP status: the branch is not at the commit that was named as parent."""
COMMIT_FILES = 1000
"""Media files of one commit; the Hub takes more, but slowly."""


def check_arrived(plan: PushPlan, local: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile]) -> None:
    """Check that the Hub now lists every pushed file: a `.gitignore` in the repository can drop some.

    Raises:
        HubError: a file is missing or differs.
    """
    lost = [path for path, file in local.items() if path not in remote or not remote[path].is_same(file)]
    lost += [change.path for change in plan.of(Action.DELETED) if change.path in remote]
    if lost:
        raise HubError(
            f"after the push {len(lost)} files there are not as they are here, the first: {lost[0]}",
            where=plan.repo,
            hint="look for a .gitignore in the repository, or for somebody else who pushes there",
        )


def carry_out(
    plan: PushPlan,
    local: Mapping[str, LocalFile],
    kind: Kind,
    hub: Hub,
    *,
    private: bool,
    watch: Watch | None,
) -> str:
    """Create the repository if it is new, upload what differs, commit.

    Clips beyond `COMMIT_FILES` are committed ahead, in batches. All other files change in the last commit, so
    that a reader sees the old data set or the new one.

    Returns:
        The new head of the main branch.
    """
    api, head = hub.api, plan.head
    if plan.creates:
        hub.call(
            lambda: api.create_repo(plan.repo, repo_type=kind, private=private, exist_ok=True), plan.repo
        )
        head = _head(plan, hub)
    if not plan.of(Action.ADDED, Action.CHANGED, Action.DELETED):
        return head
    adds = _uploaded(plan, local, hub, watch)
    ahead = [op for op in adds if op.path_in_repo.startswith(f"{MEDIA}/")]
    ahead = ahead if len(ahead) > COMMIT_FILES else []
    for start in range(0, len(ahead), COMMIT_FILES):
        batch = ahead[start : start + COMMIT_FILES]
        head = _commit(plan, local, batch, head, f"Media {start + 1} to {start + len(batch)}", hub=hub)
    first = {id(op) for op in ahead}
    rest = [op for op in adds if id(op) not in first]
    return _commit(plan, local, rest, head, _summary(plan), hub=hub, last=True)


def _head(plan: PushPlan, hub: Hub) -> str:
    """Head of the main branch; empty: it has no commit."""
    info = hub.call(lambda: hub.api.repo_info(plan.repo, repo_type=plan.kind), plan.repo)
    return str(info.sha or "")


def _uploaded(
    plan: PushPlan, local: Mapping[str, LocalFile], hub: Hub, watch: Watch | None
) -> list[CommitOperationAdd]:
    """Upload file by file, clips in batches: what was uploaded before an interruption is not sent again."""
    from huggingface_hub import CommitOperationAdd

    wanted = plan.of(Action.ADDED, Action.CHANGED)
    total, done, out = plan.upload_bytes, 0, []
    batches = [[change] for change in wanted if not change.path.startswith(f"{MEDIA}/")]
    clips = [change for change in wanted if change.path.startswith(f"{MEDIA}/")]
    batches += [clips[i : i + UPLOAD_FILES] for i in range(0, len(clips), UPLOAD_FILES)]
    for batch in batches:
        if watch is not None:
            watch(batch[0].path, done, total)

        def send(batch: list[Change] = batch) -> list[CommitOperationAdd]:
            ops = [CommitOperationAdd(change.path, local[change.path].path) for change in batch]
            hub.api.preupload_lfs_files(
                plan.repo, ops, repo_type=plan.kind, revision="main", free_memory=False
            )
            return ops

        ops = hub.call(send, plan.repo)
        for op in ops:
            _check_unchanged(op, local[op.path_in_repo])
        done += sum(change.bytes for change in batch)
        out += ops
    if watch is not None:
        watch("commit", done, total)
    return out


def _check_unchanged(op: CommitOperationAdd, file: LocalFile) -> None:
    """Compare the digest of the sent bytes with the planned one: the folder may have been rebuilt meanwhile.

    Raises:
        HubError: they differ.
    """
    if op.upload_info.is_hashed and op.upload_info.sha256.hex() != file.sha256:
        raise HubError(
            "the file changed while it was pushed", where=str(file.path), hint="run the same command again"
        )


def _commit(
    plan: PushPlan,
    local: Mapping[str, LocalFile],
    adds: Sequence[CommitOperationAdd],
    head: str,
    summary: str,
    *,
    hub: Hub,
    last: bool = False,
) -> str:
    """Make one commit exactly once, also when the Hub's answer is lost.

    Before another try the branch is read. The parent is named, so that a first try that takes effect late
    makes the second one fail instead of committing twice.
    """
    from huggingface_hub import CommitOperationDelete

    gone = [CommitOperationDelete(c.path) for c in plan.of(Action.DELETED)] if last else []

    def ask() -> str:
        made = hub.api.create_commit(
            plan.repo,
            [*gone, *adds],
            commit_message=summary,
            commit_description=f"Made with videop2r-data {__version__}",
            repo_type=plan.kind,
            revision="main",
            parent_commit=head or None,
        )
        return str(made.oid)

    trouble: Exception | None = None
    with hub.errors(plan.repo):
        for pause in (*PAUSES_S, 0.0):
            try:
                return ask()
            except Exception as error:
                if not stumbled(error) and not (trouble is not None and status_of(error) == _MOVED):
                    raise
                trouble = error
            hub.wait(trouble, pause, plan.repo)
            now = _head(plan, hub)
            if now != head:
                _check_made(
                    plan, {op.path_in_repo: local[op.path_in_repo] for op in adds}, now, hub, last=last
                )
                return now
        assert trouble is not None
        raise trouble


def _check_made(plan: PushPlan, added: Mapping[str, LocalFile], now: str, hub: Hub, *, last: bool) -> None:
    """The branch moved although no answer came: check that our own commit moved it.

    Raises:
        HubError: the branch holds other files.
    """
    files = list_files(hub, plan.repo, plan.kind, now)
    holds = all(path in files and files[path].is_same(file) for path, file in added.items())
    left = last and any(change.path in files for change in plan.of(Action.DELETED))
    if not holds or left:
        raise HubError(
            "somebody else changed it meanwhile", where=plan.repo, hint="run the same command again"
        )


def _summary(plan: PushPlan) -> str:
    parts = [
        f"{len(found)} {action.value}"
        for action in (Action.ADDED, Action.CHANGED, Action.DELETED)
        if (found := plan.of(action))
    ]
    return "Files: " + ", ".join(parts)
