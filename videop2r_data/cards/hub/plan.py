"""What a push would change in a repository, and the commits that change it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from videop2r_data.cards.hub.client import (
    AGAIN,
    PAUSES_S,
    Hub,
    Kind,
    Watch,
    no_watch,
    status_of,
    stumbled,
)
from videop2r_data.errors import HubError
from videop2r_data.files import MEDIA_FOLDER, file_digest
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


def holds(path: Path, size: int, crc: int) -> bool:
    """Whether a file is there with this size and CRC-32."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found == crc


def blob_hash(size: int) -> Any:
    """The sha1 by which git knows a blob of so many bytes, before its first byte."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


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
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, lambda: blob_hash(self.bytes)).hexdigest()


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

    def is_at(self, path: Path) -> bool:
        """Whether a path on this machine is this file."""
        return path.is_file() and self.is_same(LocalFile(path))


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
        """Size and digests of every file of the repository."""
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
    changes = []
    for path, file in local.items():
        there = remote.files.get(path)
        action = Action.ADDED if there is None else Action.EQUAL if there.is_same(file) else Action.CHANGED
        changes.append(Change(path=path, action=action, bytes=file.bytes))
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
    """Refuse to move a tag to another commit: others may have loaded the data set by it."""
    if tag is None or tag not in remote.tags:
        return
    if not plan.is_noop or remote.tags[tag] != remote.head:
        raise HubError(
            f"the tag {tag!r} exists and stands for commit {remote.tags[tag][:12]}",
            where=plan.repo,
            hint="choose another --revision: a tag that somebody has loaded by must not move",
        )


# The changes: uploads, each of which survives an interruption, then commits.

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
    if lost := _differ(local, [change.path for change in plan.of(Action.DELETED)], remote):
        raise HubError(
            f"after the push {len(lost)} files there are not as they are here, the first: {lost[0]}",
            where=plan.repo,
            hint="look for a .gitignore in the repository, or for somebody else who pushes there",
        )


def _differ(
    local: Mapping[str, LocalFile], gone: Iterable[str], remote: Mapping[str, RemoteFile]
) -> list[str]:
    """Files that the Hub lacks or has otherwise, and those that it should have no more."""
    lost = [path for path, file in local.items() if path not in remote or not remote[path].is_same(file)]
    return lost + [path for path in gone if path in remote]


def carry_out(
    plan: PushPlan, local: Mapping[str, LocalFile], hub: Hub, *, private: bool, watch: Watch = no_watch
) -> str:
    """Create the repository if it is new, upload what differs, commit.

    Clips beyond `COMMIT_FILES` are committed ahead, in batches. All other files change in the last commit, so
    that a reader sees the old data set or the new one.

    Returns:
        The new head of the main branch.
    """
    api, head = hub.api, plan.head
    if plan.creates:
        make = partial(api.create_repo, plan.repo, repo_type=plan.kind, private=private, exist_ok=True)
        hub.call(make, plan.repo)
        head = _head(plan, hub)
    if not plan.of(Action.ADDED, Action.CHANGED, Action.DELETED):
        return head
    adds = _uploaded(plan, local, hub, watch)
    ahead = [op for op in adds if op.path_in_repo.startswith(f"{MEDIA_FOLDER}/")]
    ahead = ahead if len(ahead) > COMMIT_FILES else []
    for start in range(0, len(ahead), COMMIT_FILES):
        batch = ahead[start : start + COMMIT_FILES]
        head = _commit(plan, local, batch, head, f"Media {start + 1} to {start + len(batch)}", hub=hub)
    first = {id(op) for op in ahead}
    rest = [op for op in adds if id(op) not in first]
    found = {action: plan.of(action) for action in (Action.ADDED, Action.CHANGED, Action.DELETED)}
    told = ", ".join(f"{len(changes)} {action.value}" for action, changes in found.items() if changes)
    gone = [change.path for change in found[Action.DELETED]]
    return _commit(plan, local, rest, head, f"Files: {told}", gone=gone, hub=hub)


def _head(plan: PushPlan, hub: Hub) -> str:
    """Head of the main branch; empty: it has no commit."""
    info = hub.call(lambda: hub.api.repo_info(plan.repo, repo_type=plan.kind), plan.repo)
    return str(info.sha or "")


def _uploaded(
    plan: PushPlan, local: Mapping[str, LocalFile], hub: Hub, watch: Watch
) -> list[CommitOperationAdd]:
    """Upload file by file, clips in batches: what was uploaded before an interruption is not sent again."""
    from huggingface_hub import CommitOperationAdd

    wanted = plan.of(Action.ADDED, Action.CHANGED)
    total, done, out = plan.upload_bytes, 0, []
    batches = [[change] for change in wanted if not change.path.startswith(f"{MEDIA_FOLDER}/")]
    clips = [change for change in wanted if change.path.startswith(f"{MEDIA_FOLDER}/")]
    batches += [clips[i : i + UPLOAD_FILES] for i in range(0, len(clips), UPLOAD_FILES)]
    for batch in batches:
        watch(batch[0].path, done, total)

        def send(batch: list[Change] = batch) -> list[CommitOperationAdd]:
            ops = [CommitOperationAdd(change.path, local[change.path].path) for change in batch]
            hub.api.preupload_lfs_files(
                plan.repo, ops, repo_type=plan.kind, revision="main", free_memory=False
            )
            return ops

        ops = hub.call(send, plan.repo)
        for op in ops:
            sent, file = op.upload_info, local[op.path_in_repo]
            if sent.is_hashed and sent.sha256.hex() != file.sha256:  # the folder may be built anew meanwhile
                raise HubError("the file changed while it was pushed", where=str(file.path), hint=AGAIN)
        done += sum(change.bytes for change in batch)
        out += ops
    watch("commit", done, total)
    return out


def _commit(
    plan: PushPlan,
    local: Mapping[str, LocalFile],
    adds: Sequence[CommitOperationAdd],
    head: str,
    summary: str,
    *,
    gone: Sequence[str] = (),
    hub: Hub,
) -> str:
    """Make one commit exactly once, also when the Hub's answer is lost.

    Before another try the branch is read. The parent is named, so that a first try that takes effect late
    makes the second one fail instead of committing twice.
    """
    from huggingface_hub import CommitOperationDelete

    def ask() -> str:
        """Make the commit; its id."""
        made = hub.api.create_commit(
            plan.repo,
            [*map(CommitOperationDelete, gone), *adds],
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
            if now != head:  # the branch moved although no answer came: was it our own commit?
                added = {op.path_in_repo: local[op.path_in_repo] for op in adds}
                if _differ(added, gone, list_files(hub, plan.repo, plan.kind, now)):
                    raise HubError("somebody else changed it meanwhile", where=plan.repo, hint=AGAIN)
                return now
        assert trouble is not None
        raise trouble
