"""What a push would change: the local files held against those of the repository, nothing uploaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from videop2r_data.cards.hub_check import sha256_of
from videop2r_data.cards.hub_client import Hub, Kind, status_of
from videop2r_data.errors import HubError
from videop2r_data.schemas import Model

_CHUNK = 1 << 20
_HUBS_OWN = ".gitattributes"


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
    """What a push would do."""

    repo: str
    kind: Kind
    creates: bool
    """The repository does not exist yet."""
    head: str
    """Commit that the plan is made for, empty: none yet."""
    changes: tuple[Change, ...]
    """Every file that is managed, by path."""
    left_out: tuple[str, ...] = ()
    """Files of the folder that are not pushed."""
    kept: int = 0
    """Files of the repository that are not ours and stay."""

    def of(self, *actions: Action) -> tuple[Change, ...]:
        """The changes of these kinds."""
        return tuple(change for change in self.changes if change.action in actions)

    @property
    def upload_bytes(self) -> int:
        """Bytes of the added and changed files; storage that deduplicates takes less over the wire."""
        return sum(change.bytes for change in self.of(Action.ADDED, Action.CHANGED))

    @property
    def is_noop(self) -> bool:
        """Whether the repository holds all of it already."""
        return not self.creates and len(self.of(Action.EQUAL)) == len(self.changes)


class LocalFile:
    """A file to push; its digests are computed when they are asked for."""

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self.path = path
        self.bytes = path.stat().st_size
        if sha256 is not None:
            self.sha256 = sha256

    @cached_property
    def sha256(self) -> str:
        """As LFS and Xet name it."""
        return sha256_of(self.path)

    @cached_property
    def git_oid(self) -> str:
        """As git names a small file."""
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
    """A repository as it is."""

    exists: bool
    head: str = ""
    private: bool = False
    files: dict[str, RemoteFile] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    """Tag -> commit."""


def list_files(hub: Hub, repo: str, kind: Kind, revision: str) -> dict[str, RemoteFile]:
    """Every file of a commit.

    Raises:
        HubError: it cannot be seen.
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
    """The main branch of a repository and its tags.

    Raises:
        HubError: it cannot be seen for another reason than that it does not exist.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    def info_or_none() -> Any:
        try:
            return hub.api.repo_info(repo, repo_type=kind, revision="main")
        except RepositoryNotFoundError as error:
            if hub.token is None and status_of(error) == 401:
                raise
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
    """Compare.

    Args:
        repo: `owner/name`.
        kind: of the repository.
        local: path in the repository -> file.
        remote: the repository.
        stale: paths of the repository that are managed and may go; those that are in `local` stay.
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
    """A tag that others may have loaded by never moves.

    Raises:
        HubError: it exists and stands for something else than what is being pushed.
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
