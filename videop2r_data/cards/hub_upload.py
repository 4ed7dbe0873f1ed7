"""The part of a push that changes the Hub: uploads that can be gone on with, then commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from videop2r_data import __version__
from videop2r_data.cards.hub_client import Hub, Kind
from videop2r_data.cards.hub_media import MEDIA
from videop2r_data.cards.hub_plan import Action, LocalFile, PushPlan, RemoteFile
from videop2r_data.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

Watch = Callable[[str, int, int], None]
"""Told of progress: what is done now, bytes done, bytes in all."""
UPLOAD_FILES = 256
"""Files of one upload: each one that ends is kept, whatever happens after it."""
COMMIT_FILES = 1000
"""Media files of one commit; the Hub takes more, but slowly."""


def check_arrived(plan: PushPlan, local: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile]) -> None:
    """What the Hub lists now is what was to be there: a `.gitignore` of the repository can drop files."""
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
    """Make the repository if it is new, upload what differs, commit.

    Returns:
        The commit that the main branch then stands at.
    """
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
