"""Push a folder to the Hub: upload what differs, then change everything in one last commit, then tag it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data import __version__
from videop2r_data.cards.hub_check import CARD, LOCK, SHARD, check_folder
from videop2r_data.cards.hub_client import Hub, Kind, check_repo_id
from videop2r_data.cards.hub_media import MEDIA, media_files
from videop2r_data.cards.hub_plan import (
    Action,
    LocalFile,
    PushPlan,
    Remote,
    RemoteFile,
    check_tag,
    list_files,
    look,
    make_plan,
)
from videop2r_data.cards.hub_private import addresses_in
from videop2r_data.errors import HubError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.lock import BuildLock

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

Watch = Callable[[str, int, int], None]
"""Told of progress: what is done now, bytes done, bytes in all."""
_EXTRA = re.compile(
    r"(?:LICENSE|NOTICE|CITATION)(?:\.[a-z]+)?|CHANGELOG\.md|croissant\.json|stats\.json"
    r"|(?:figures|assets)/[\w.-]+\.(?:png|svg|webp|json)"
)
"""What else belongs to a data set's folder, as a full path in it."""
_STALE = re.compile(
    rf"{SHARD.pattern}|(?:figures|assets)/[\w.-]+\.(?:png|svg|webp|json)|croissant\.json|stats\.json"
)
"""What an earlier push wrote and a later one may delete."""
UPLOAD_FILES = 256
"""Files of one upload: each one that ends is kept, whatever happens after it."""
COMMIT_FILES = 1000
"""Media files of one commit; the Hub takes more, but slowly."""


class PushReport(Model):
    """What a push did, or would do."""

    plan: PushPlan
    dry_run: bool
    url: str
    commit: str
    """Commit of the main branch after the push; empty in a dry run of a new repository."""
    tag: str | None
    private: bool
    notes: tuple[str, ...] = ()
    """Folders of this machine and addresses of servers that the pushed files name."""


def push_dataset(
    folder: Path,
    repo: str,
    *,
    hub: Hub,
    private: bool = False,
    tag: str | None = None,
    dry_run: bool = False,
    media: Mapping[str, Path] | None = None,
    watch: Watch | None = None,
) -> PushReport:
    """Make a data set's repository be what the folder is.

    Files that are equal are not uploaded. Shards and figures of an earlier push that are gone here are
    deleted; what other people put into the repository stays. Users see the old data set or the new one,
    never a mixture: one commit changes all of it, except that media go ahead in commits of their own.

    Args:
        folder: a finished data set.
        repo: `owner/name`; it is made if it does not exist.
        hub: where.
        private: make a new repository private.
        tag: name of the version, set after the last commit.
        dry_run: change nothing, only say what would change.
        media: source name -> media root: push the clips too, below `media/`.
        watch: is told of progress.

    Raises:
        HubError: the folder does not hold what its lock says, a source's licence does not let its media be
            passed on, the tag stands for something else, or the Hub refuses.
        HubAuthError: no token, or one that may not do this.
    """
    lock = check_folder(folder)
    local, left_out = dataset_files(folder, lock)
    if media is not None:
        local |= {path: LocalFile(file) for path, file in media_files(folder, lock, media).items()}

    def stale(remote: Remote) -> list[str]:
        _check_ours(repo, remote)
        prefix = (f"{MEDIA}/",) if media is not None else ()
        return [path for path in remote.files if _STALE.fullmatch(path) or path.startswith(prefix)]

    return push_files(
        local,
        repo,
        "dataset",
        hub=hub,
        private=private,
        tag=tag,
        dry_run=dry_run,
        stale=stale,
        left_out=left_out,
        notes=tuple(addresses_in(lock.recipe, f"{LOCK}, recipe")),
        watch=watch,
    )


def dataset_files(folder: Path, lock: BuildLock) -> tuple[dict[str, LocalFile], list[str]]:
    """Path in the repository -> file, and the files of the folder that are not pushed."""
    found = {name: LocalFile(folder / name, file.sha256) for name, file in lock.files.items()}
    left_out = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in found or name.startswith((".git/", ".cache/")):
            continue
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and (name in (CARD, LOCK) or _EXTRA.fullmatch(name)):
            found[name] = LocalFile(path)
        else:
            left_out.append(name)
    return found, left_out


def push_files(
    local: Mapping[str, LocalFile],
    repo: str,
    kind: Kind,
    *,
    hub: Hub,
    private: bool,
    tag: str | None,
    dry_run: bool,
    stale: Callable[[Remote], Sequence[str]],
    left_out: Sequence[str] = (),
    notes: tuple[str, ...] = (),
    watch: Watch | None = None,
) -> PushReport:
    """Plan, upload, commit, tag; see `push_dataset`.

    Args:
        local: path in the repository -> file.
        repo, kind, hub, private, tag, dry_run, watch: as there.
        stale: which files of the repository may go.
        left_out, notes: for the report.
    """
    check_repo_id(repo, owned=True)
    if not dry_run or hub.token is not None:
        hub.who()
    remote = look(hub, repo, kind)
    if remote.exists and private and not remote.private:
        raise HubError(
            "the repository exists and is public",
            where=repo,
            hint="make it private in its settings first, or leave out --private",
        )
    plan = make_plan(repo, kind, local, remote, stale=stale(remote), left_out=left_out)
    check_tag(tag, plan, remote)
    commit = remote.head
    if not dry_run:
        commit = _carry_out(plan, local, kind, hub, private=private, watch=watch)
        if not plan.is_noop:
            _check_arrived(plan, local, list_files(hub, repo, kind, commit))
        if tag is not None and remote.tags.get(tag) != commit:
            with hub.errors(repo):
                hub.api.create_tag(repo, tag=tag, revision=commit, repo_type=kind, exist_ok=True)
    base = hub.api.endpoint
    return PushReport(
        plan=plan,
        dry_run=dry_run,
        url=f"{base}/datasets/{repo}" if kind == "dataset" else f"{base}/{repo}",
        commit=commit,
        tag=tag,
        private=remote.private if remote.exists else private,
        notes=notes,
    )


def _check_ours(repo: str, remote: Remote) -> None:
    foreign = sorted(path for path in remote.files if SHARD.fullmatch(path))
    if foreign and LOCK not in remote.files:
        raise HubError(
            f"the repository holds {foreign[0]} but no {LOCK}: this tool did not write it",
            where=repo,
            hint="choose another name, or delete those files there first",
        )


def _check_arrived(plan: PushPlan, local: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile]) -> None:
    """What the Hub lists now is what was to be there: a `.gitignore` of the repository can drop files."""
    lost = [path for path, file in local.items() if path not in remote or not remote[path].is_same(file)]
    lost += [change.path for change in plan.of(Action.DELETED) if change.path in remote]
    if lost:
        raise HubError(
            f"after the push {len(lost)} files there are not as they are here, the first: {lost[0]}",
            where=plan.repo,
            hint="look for a .gitignore in the repository, or for somebody else who pushes there",
        )


def _carry_out(
    plan: PushPlan,
    local: Mapping[str, LocalFile],
    kind: Kind,
    hub: Hub,
    *,
    private: bool,
    watch: Watch | None,
) -> str:
    """Returns the commit that the main branch then stands at."""
    api, head = hub.api, plan.head
    with hub.errors(plan.repo):
        if plan.creates:
            api.create_repo(plan.repo, repo_type=kind, private=private, exist_ok=True)
            head = api.repo_info(plan.repo, repo_type=kind).sha or ""
        if not plan.of(Action.ADDED, Action.CHANGED, Action.DELETED):
            return head
        adds = _uploaded(plan, local, kind, api, watch)
        ahead = [op for op in adds if op.path_in_repo.startswith(f"{MEDIA}/")]
        ahead = ahead if len(ahead) > COMMIT_FILES else []
        for start in range(0, len(ahead), COMMIT_FILES):
            batch = ahead[start : start + COMMIT_FILES]
            head = _commit(api, plan, batch, head, f"Media {start + 1} to {start + len(batch)}")
        first = {id(op) for op in ahead}
        rest = [op for op in adds if id(op) not in first]
        return _commit(api, plan, rest, head, _summary(plan), last=True)


def _uploaded(
    plan: PushPlan, local: Mapping[str, LocalFile], kind: Kind, api: Any, watch: Watch | None
) -> list[CommitOperationAdd]:
    """Upload file by file (media: many at once), so that what has arrived stays when the rest does not."""
    from huggingface_hub import CommitOperationAdd

    wanted = plan.of(Action.ADDED, Action.CHANGED)
    total, done, out = plan.upload_bytes, 0, []
    batches = [[change] for change in wanted if not change.path.startswith(f"{MEDIA}/")]
    clips = [change for change in wanted if change.path.startswith(f"{MEDIA}/")]
    batches += [clips[i : i + UPLOAD_FILES] for i in range(0, len(clips), UPLOAD_FILES)]
    for batch in batches:
        if watch is not None:
            watch(batch[0].path, done, total)
        ops = [CommitOperationAdd(change.path, local[change.path].path) for change in batch]
        api.preupload_lfs_files(plan.repo, ops, repo_type=kind, revision="main", free_memory=False)
        for op in ops:
            _check_unchanged(op, local[op.path_in_repo])
        done += sum(change.bytes for change in batch)
        out += ops
    if watch is not None:
        watch("commit", done, total)
    return out


def _check_unchanged(op: CommitOperationAdd, file: LocalFile) -> None:
    """The client hashes what it sends: had somebody rebuilt the folder meanwhile, it would show here."""
    if op.upload_info.is_hashed and op.upload_info.sha256.hex() != file.sha256:
        raise HubError(
            "the file changed while it was pushed", where=str(file.path), hint="run the same command again"
        )


def _commit(
    api: Any,
    plan: PushPlan,
    adds: Sequence[CommitOperationAdd],
    head: str,
    summary: str,
    *,
    last: bool = False,
) -> str:
    from huggingface_hub import CommitOperationDelete

    gone = [CommitOperationDelete(c.path) for c in plan.of(Action.DELETED)] if last else []
    made = api.create_commit(
        plan.repo,
        [*gone, *adds],
        commit_message=summary,
        commit_description=f"Made with videop2r-data {__version__}",
        repo_type=plan.kind,
        revision="main",
        parent_commit=head or None,
    )
    return str(made.oid)


def _summary(plan: PushPlan) -> str:
    parts = [
        f"{len(found)} {action.value}"
        for action in (Action.ADDED, Action.CHANGED, Action.DELETED)
        if (found := plan.of(action))
    ]
    return "Files: " + ", ".join(parts)
