"""The part of a push that changes the Hub: uploads that can be gone on with, then commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from videop2r_data import __version__
from videop2r_data.cards.hub_client import PAUSES_S, Hub, Kind, status_of, stumbled
from videop2r_data.cards.hub_names import MEDIA
from videop2r_data.cards.hub_plan import Action, Change, LocalFile, PushPlan, RemoteFile, list_files
from videop2r_data.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

Watch = Callable[[str, int, int], None]
"""Told of progress: what is done now, bytes done, bytes in all."""
UPLOAD_FILES = 256
"""Files of one upload: each one that ends is kept, whatever happens after it."""
_MOVED = 412
"""The branch does not stand at the commit that was named as parent."""
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
    """The commit that the main branch stands at now; empty: it has none."""
    info = hub.call(lambda: hub.api.repo_info(plan.repo, repo_type=plan.kind), plan.repo)
    return str(info.sha or "")


def _uploaded(
    plan: PushPlan, local: Mapping[str, LocalFile], hub: Hub, watch: Watch | None
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
    """The client hashes what it sends: had somebody rebuilt the folder meanwhile, it would show here."""
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
    """One commit, made once: after an answer that did not come, the branch is looked at before another try.

    The parent is named, so that a first try that is carried out late makes the second one fail, not double.
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
    """The branch moved although no answer came: it must be our own commit that moved it.

    Raises:
        HubError: it holds something else.
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
