"""Push a data set or a trained model to the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from videop2r_data.cards.card.dataset import card_head
from videop2r_data.cards.card.facts import Facts, read_facts
from videop2r_data.cards.card.metadata import PREVIEW_NAME
from videop2r_data.cards.card.model import METRICS, read_json
from videop2r_data.cards.card.rows import unstated
from videop2r_data.cards.hub.check import (
    PICTURE,
    RECORD,
    addresses_in,
    addresses_in_file,
    check_folder,
    secrets_in,
)
from videop2r_data.cards.hub.client import Hub, Kind, Watch, check_repo_id, no_watch
from videop2r_data.cards.hub.plan import (
    LocalFile,
    PushPlan,
    Remote,
    carry_out,
    check_arrived,
    check_tag,
    list_files,
    look,
    make_plan,
)
from videop2r_data.cards.hub.prepare import media_files, remake_card
from videop2r_data.errors import HubError
from videop2r_data.files import CARD_NAME, FIGURES_NAME, LOCK_NAME, MEDIA_FOLDER, SHARD
from videop2r_data.schemas import BuildLock, Model

_EXTRA = re.compile(rf"(?:LICENSE|NOTICE|CITATION)(?:\.[a-z]+)?|CHANGELOG\.md|{RECORD}|{PICTURE}")
"""Further files of a data set's folder that are pushed. A list of what may go, not of what may not."""
_SHOWN = 8
"""Sources named in one message."""
_STALE = re.compile(rf"{SHARD.pattern}|{re.escape(PREVIEW_NAME)}|{PICTURE}|{RECORD}")
"""Files of an earlier push that a later one may delete."""


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
    """Local folders and addresses of servers that the pushed files name."""
    remarks: tuple[str, ...] = ()
    """What was made anew, left out, or pushed without a known licence."""


def push_dataset(
    folder: Path,
    repo: str,
    *,
    hub: Hub,
    private: bool = False,
    tag: str | None = None,
    dry_run: bool = False,
    roots: Mapping[str, Path] | None = None,
    embed_media: bool = False,
    preview: int = 0,
    allow_unstated: bool = False,
    watch: Watch = no_watch,
) -> PushReport:
    """Bring a data set's repository to the state of the folder.

    Equal files are not uploaded. Shards and figures of an earlier push that are gone here are deleted; files
    of other people in the repository stay. One commit changes everything, so users load the old data set or
    the new one, never a mixture; only media are committed ahead of it.

    Card and Croissant file are made anew for the repository; those in the folder stay unchanged.

    Args:
        folder: a finished data set.
        repo: `owner/name`; it is made if it does not exist.
        hub: where.
        private: make a new repository private.
        tag: name of the version, set after the last commit.
        dry_run: change nothing, only say what would change.
        roots: source name -> media root; needed for `embed_media` and `preview`.
        embed_media: push the clips too, below `media/`.
        preview: rows of a config with their clips inside, for the Hub's viewer; 0: none.
        allow_unstated: push although some licence is not known.
        watch: called with progress.

    Raises:
        HubError: the folder disagrees with its lock, its recipe holds a password, a licence is not known, a
            source's licence does not let its media be passed on, the tag names another commit, or the Hub
            refuses.
        HubAuthError: no token, or one without the right to write.
        ExportError: a file beside the rows is not valid.
    """
    lock = check_folder(folder)
    _check_secrets(folder, lock)
    facts = read_facts(folder)
    silent = check_licences(folder, facts, allow=allow_unstated)
    local, left_out = dataset_files(folder, lock)
    if facts.figures is None:
        left_out += [name for name in local if name.startswith(f"{FIGURES_NAME}/")]
        local = {name: file for name, file in local.items() if name not in left_out}
    clips = media_files(folder, roots or {}, facts.rows.sources) if embed_media else {}
    local |= {path: LocalFile(file) for path, file in clips.items()}
    remote = _open_repo(repo, "dataset", hub, private=private, dry_run=dry_run)
    _check_ours(repo, remote)
    notes = tuple(addresses_in(lock.recipe, f"{LOCK_NAME}, recipe"))
    with TemporaryDirectory(prefix="p2r-push-") as made:
        fresh, remarks = remake_card(
            folder,
            facts,
            Path(made),
            repo=repo,
            hub=hub,
            remote=remote,
            media=embed_media or any(path.startswith(f"{MEDIA_FOLDER}/") for path in remote.files),
            preview=preview,
            roots=roots or {},
        )
        local |= {name: LocalFile(file) for name, file in fresh.items()}
        prefix = (f"{MEDIA_FOLDER}/",) if embed_media else ()
        stale = [path for path in remote.files if _STALE.fullmatch(path) or path.startswith(prefix)]
        plan = make_plan(repo, "dataset", local, remote, stale=stale, left_out=left_out)
        report = _push(plan, local, remote, hub=hub, private=private, tag=tag, dry_run=dry_run, watch=watch)
    return report.model_copy(update={"notes": notes, "remarks": (*silent, *remarks)})


def _check_secrets(folder: Path, lock: BuildLock) -> None:
    """Refuse a lock whose recipe holds a password or a key in an address: a push makes it public."""
    if found := list(secrets_in(lock.recipe)):
        raise HubError(
            f"the recipe in {LOCK_NAME} holds an address with a password or key in it: {', '.join(found)}",
            where=str(folder),
            hint="take it out of the address (a key belongs into api_key_env) and build again, which the "
            "journal makes free",
        )


def check_licences(folder: Path, facts: Facts, *, allow: bool) -> tuple[str, ...]:
    """Remarks on what is pushed without a known licence.

    Raises:
        HubError: a licence is not known and `allow` is not set.
    """
    silent = unstated(facts.rows.sources)
    told = [
        f"{source.label} ({source.annotations.licence}; {source.accepted + source.others:,} rows)"
        for source in silent
    ]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    found = [f"no licence is known for the questions of {', '.join(told[:_SHOWN])}{more}"] if told else []
    if not facts.licence.declared:
        found.append("the recipe states no licence for the traces")
    if found and not allow:
        raise HubError(
            "; ".join(found),
            where=str(folder),
            hint="name it in the recipe (`licenses` of the source: data_source -> licence; `license` of the "
            "recipe) and build again, which the journal makes free; or take it on yourself with "
            "--allow-unstated-licenses: the card then says which licences are not known",
        )
    return tuple(f"pushed nevertheless: {what}" for what in found)


def dataset_files(folder: Path, lock: BuildLock) -> tuple[dict[str, LocalFile], list[str]]:
    """(path in the repository -> file, files of the folder that are not pushed)."""
    found = {name: LocalFile(folder / name, file.sha256) for name, file in lock.files.items()}
    left_out = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in found or name.startswith((".git/", ".cache/")):
            continue
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and (name in (CARD_NAME, LOCK_NAME) or _EXTRA.fullmatch(name)):
            found[name] = LocalFile(path)
        else:
            left_out.append(name)
    return found, left_out


def _open_repo(repo: str, kind: Kind, hub: Hub, *, private: bool, dry_run: bool) -> Remote:
    """The repository as it is, if this account may be asked to push there.

    Raises:
        HubError: no valid name, or a public repository that was to be private.
        HubAuthError: no token, or one that the Hub does not take.
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
    return remote


def _push(
    plan: PushPlan,
    local: Mapping[str, LocalFile],
    remote: Remote,
    *,
    hub: Hub,
    private: bool,
    tag: str | None,
    dry_run: bool,
    watch: Watch,
) -> PushReport:
    """Upload, commit, tag: the common part of `push_dataset` and `push_model`."""
    check_tag(tag, plan, remote)
    repo, kind, commit = plan.repo, plan.kind, remote.head
    if not dry_run:
        commit = carry_out(plan, local, hub, private=private, watch=watch)
        if not plan.is_noop:
            check_arrived(plan, local, list_files(hub, repo, kind, commit))
        if tag is not None and remote.tags.get(tag) != commit:
            name = tag
            hub.call(
                lambda: hub.api.create_tag(repo, tag=name, revision=commit, repo_type=kind, exist_ok=True),
                repo,
            )
    return PushReport(
        plan=plan,
        dry_run=dry_run,
        url=hub.page(repo, kind),
        commit=commit,
        tag=tag,
        private=remote.private if remote.exists else private,
    )


def _check_ours(repo: str, remote: Remote) -> None:
    """Refuse a repository whose shards another tool wrote: a push would delete them as stale."""
    foreign = sorted(path for path in remote.files if SHARD.fullmatch(path))
    if foreign and LOCK_NAME not in remote.files:
        raise HubError(
            f"the repository holds {foreign[0]} but no {LOCK_NAME}: this tool did not write it",
            where=repo,
            hint="choose another name, or delete those files there first",
        )


# A model: weights and card of a run. Its optimizer stays here, and every pickle, since a pickle runs code.

FINAL = "final"
"""Folder of a run with the finished weights."""
_MODEL = re.compile(
    r"[\w.-]+\.safetensors|[\w.-]+\.json|[\w.-]+\.jinja|[\w.-]+\.model|(?:merges|vocab)\.txt"
    r"|additional_chat_templates/[\w.-]+"
    r"|LICENSE(?:\.[a-z]+)?|NOTICE(?:\.[a-z]+)?|figures/[\w.-]+\.(?:png|svg|json)"
)
_STALE_WEIGHTS = re.compile(
    r"(?:model|adapter_model)(?:-\d{5}-of-\d{5})?\.safetensors|(?:model|adapter_model)\.safetensors\.index\.json"
    r"|adapter_config\.json|training/[\w.-]+|figures/[\w.-]+\.(?:png|svg|json)"
)
_MAX_HEADER = 100 * 2**20


def push_model(
    folder: Path,
    repo: str,
    *,
    hub: Hub,
    private: bool = False,
    tag: str | None = None,
    dry_run: bool = False,
    card: Path | None = None,
    watch: Watch = no_watch,
) -> PushReport:
    """Bring a model repository to the state of a run or of a folder of weights.

    Of a run: `final/` to the root, the card `README.md` with its figures, the metrics to `training/`. Of a
    folder of weights: what `from_pretrained` reads, and the card. Weights are safetensors only; other files
    are named in the report and stay here.

    Args:
        folder: a run, or a folder that `from_pretrained` can read.
        repo: `owner/name`; it is made if it does not exist.
        hub, private, tag, dry_run, watch: as for `push_dataset`.
        card: a `README.md` to use instead of the folder's own.

    Raises:
        HubError: no weights, damaged weights, no card, or the Hub refuses.
        HubAuthError: no token, or one without the right to write.
    """
    local, left_out = model_files(folder, card=card)
    check_weights(local)
    notes = tuple(note for name, file in local.items() for note in addresses_in_file(file.path, name))
    remote = _open_repo(repo, "model", hub, private=private, dry_run=dry_run)
    stale = [path for path in remote.files if _STALE_WEIGHTS.fullmatch(path)]
    plan = make_plan(repo, "model", local, remote, stale=stale, left_out=left_out)
    report = _push(plan, local, remote, hub=hub, private=private, tag=tag, dry_run=dry_run, watch=watch)
    return report.model_copy(update={"notes": notes})


def model_files(folder: Path, *, card: Path | None = None) -> tuple[dict[str, LocalFile], list[str]]:
    """(path in the repository -> file, files of the folder that are not pushed).

    Raises:
        HubError: no such folder, or no card with front matter.
    """
    run = folder if (folder / FINAL).is_dir() else None
    weights = folder / FINAL if run else folder
    if not weights.is_dir():
        raise HubError("no such folder", where=str(folder), hint="name a run of p2r-train, or a model folder")
    found: dict[str, LocalFile] = {}
    left_out: list[str] = []
    for path in sorted(p for p in weights.rglob("*") if p.is_file()):
        name = path.relative_to(weights).as_posix()
        if name == CARD_NAME or _MODEL.fullmatch(name):
            found[name] = LocalFile(path)
        else:
            left_out.append(path.relative_to(folder).as_posix())
    if run is not None:
        pictures = {f"figures/{path.name}": path for path in sorted((run / "figures").glob("*"))}
        beside = {name: path for name, path in pictures.items() if _MODEL.fullmatch(name)}
        # not the run's recipe, which names local folders and servers
        beside |= {f"training/{METRICS}": run / METRICS, CARD_NAME: run / CARD_NAME}
        found |= {name: LocalFile(path) for name, path in beside.items() if path.is_file()}
    if card is not None:
        found[CARD_NAME] = LocalFile(card)
    if CARD_NAME not in found or card_head(found[CARD_NAME].path.read_text(encoding="utf-8")) is None:
        raise HubError(
            f"no model card ({CARD_NAME} with YAML front matter)",
            where=str(folder),
            hint="finish the run: it writes one",
        )
    return found, left_out


def check_weights(local: dict[str, LocalFile]) -> None:
    """Check that every weight file is whole and that all files of the index are there.

    Raises:
        HubError: a file is missing or damaged.
    """
    names = [name for name in local if name.endswith(".safetensors")]
    configs = {"config.json", "adapter_config.json"} & set(local)
    if not names or not configs:
        lacks = "safetensors" if configs else "config.json or adapter_config.json"
        raise HubError(f"no model here: no {lacks}", hint="name a run of p2r-train, or a model folder")
    for name in names:
        if fault := safetensors_fault(local[name].path):
            raise HubError(f"damaged weights: {fault}", where=name, hint="save the model again")
    for name in (n for n in local if n.endswith(".safetensors.index.json")):
        wanted = set(read_json(local[name].path).get("weight_map", {}).values())
        if lost := sorted(wanted - set(local)):
            raise HubError(
                f"the index names {lost[0]}, which is not there", where=name, hint="save the model again"
            )


def safetensors_fault(path: Path) -> str:
    """What is wrong with the layout of a safetensors file; empty if nothing. Tensors are not read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            return f"{size:,} bytes cannot hold its header"
        try:
            header = orjson.loads(file.read(length))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return "its header is not valid"
    end = 8 + length + max(ends, default=0)
    return "" if end == size else f"{size:,} bytes where its header announces {end:,}"
