"""Push a folder to the Hub: upload what differs, then change everything in one last commit, then tag it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from videop2r_data.cards.hub_check import CARD, LOCK, SHARD, check_folder
from videop2r_data.cards.hub_client import Hub, Kind, check_repo_id
from videop2r_data.cards.hub_media import MEDIA, media_files
from videop2r_data.cards.hub_plan import LocalFile, PushPlan, Remote, check_tag, list_files, look, make_plan
from videop2r_data.cards.hub_private import addresses_in
from videop2r_data.cards.hub_upload import Watch, carry_out, check_arrived
from videop2r_data.errors import HubError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.lock import BuildLock

_EXTRA = re.compile(
    r"(?:LICENSE|NOTICE|CITATION)(?:\.[a-z]+)?|CHANGELOG\.md|(?:croissant|judge-agreement|stats)\.json"
    r"|(?:figures|assets)/[\w.-]+\.(?:png|svg|webp|json)"
)
"""What else belongs to a data set's folder, as a full path in it."""
_STALE = re.compile(
    rf"{SHARD.pattern}|(?:figures|assets)/[\w.-]+\.(?:png|svg|webp|json)|(?:croissant|judge-agreement|stats)\.json"
)
"""What an earlier push wrote and a later one may delete."""


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
        commit = carry_out(plan, local, kind, hub, private=private, watch=watch)
        if not plan.is_noop:
            check_arrived(plan, local, list_files(hub, repo, kind, commit))
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
