"""Rows of a data set on the Hub, at one pinned commit, so that another day reads the same; models by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from videop2r_data.errors import ConfigError, SourceError, first_line
from videop2r_data.files.names import CARD_NAME, HUB_ID, LOCK_NAME
from videop2r_data.schemas import expanded, is_folder

_FILES = [CARD_NAME, LOCK_NAME] + [
    f"{folder}*.{ext}"
    for folder in ("", "data/")
    for ext in ("parquet", "jsonl", "json", "jsonl.gz", "json.gz")
]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")


def find_model(name: str, *, where: str = "model", revision: str | None = None) -> bool:
    """Whether a model is on this machine; False: the Hub has to be asked.

    The one place that decides which names are meant to be folders: one that is a folder, one that is written
    as a path (`./tiny`, `runs/sft/final`), one without an owner (`tiny`), and one whose owner is a folder
    here or `runs` (`runs/sft`). A Hub id that the cache holds is that model, whatever lies beside it.

    Args:
        name: a folder or a Hub id.
        where: the setting or argument that names it.
        revision: of a Hub id; None: its main branch.

    Raises:
        ConfigError: no such folder, a folder without a model, or neither a folder nor a Hub id; nobody is
            asked for what cannot be there.
    """
    folder = expanded(name)
    if is_folder(folder):
        if name.startswith("~"):  # whoever loads the model would take the name for a Hub id
            raise ConfigError(f"`~` is not expanded in {name!r}", where=where, hint=f"write {folder}")
        if any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            return True
        inner = folder / "final"
        hint = f"name {inner}" if inner.is_dir() else "name the folder of a model as from_pretrained loads it"
        raise ConfigError(f"no model in this folder: {folder} holds no config.json", where=where, hint=hint)
    if ":" in name:  # vLLM's own ways to name weights: `s3://...`, `owner/name:quantisation`
        return False
    owner, slash, _ = name.partition("/")
    if HUB_ID.fullmatch(name):
        from huggingface_hub import try_to_load_from_cache

        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return True
        if slash and owner != "runs" and not is_folder(Path(owner)):
            return False
    here = folder.parent if is_folder(folder.parent) else None
    near = get_close_matches(folder.name, [path.name for path in here.iterdir()] if here else [], n=3)
    if name.startswith(("/", "./", "../", "~")) or is_folder(Path(owner)) or owner == "runs":
        said = f"no such folder: {folder}"
    else:
        said = f"{name!r} is neither a folder nor a Hub id (owner/name)"
    hint = f"in {here} there is {', '.join(near)}" if near else "name a folder that is there, or owner/name"
    raise ConfigError(said, where=where, hint=f"{hint}; hf download OWNER/NAME fetches a model of the Hub")


def fetch(repo_id: str, revision: str | None) -> tuple[Path, str]:
    """Download text, rows and lock of a data set; files that are in the cache are not fetched again.

    Returns:
        The local folder and the commit.

    Raises:
        SourceError: no such data set or revision, no access, no connection.
    """
    commit = hub_commit(repo_id, revision)
    return fetch_files(repo_id, _FILES, commit), commit


def hub_commit(repo_id: str, revision: str | None, *, branch: str = "main", where: str = "") -> str:
    """The full name of a commit of a data set; one that is given in full needs no look-up.

    Args:
        repo_id: `owner/name`.
        revision: tag, or commit in full or its first digits; None: the newest commit of `branch`.
        branch: that a commit of which only the first digits are known lies on.
        where: what to name in errors; empty: the data set.

    Raises:
        SourceError: no such data set or revision, no access, no connection.
    """
    from huggingface_hub import HfApi

    wanted = revision or branch
    with _told(where or f"{repo_id}@{wanted[:12]}"):
        if _SHORT.fullmatch(wanted):  # the Hub itself knows commits by their full names alone
            commits = HfApi().list_repo_commits(repo_id, repo_type="dataset", revision=branch)
            wanted = next((c.commit_id for c in commits if c.commit_id.startswith(wanted)), wanted)
        if _COMMIT.fullmatch(wanted):
            return wanted
        return str(HfApi().dataset_info(repo_id, revision=wanted).sha or wanted)


def fetch_files(repo_id: str, patterns: Sequence[str], commit: str) -> Path:
    """Download some files of a data set; those that are in the cache are not fetched again.

    Args:
        repo_id: `owner/name`.
        patterns: names or globs of the files.
        commit: in full.

    Returns:
        the local folder.

    Raises:
        SourceError: no access, no connection.
    """
    from huggingface_hub import snapshot_download

    with _told(f"{repo_id}@{commit[:12]}"):
        kept = list(patterns)
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=commit, allow_patterns=kept))


def hub_rows(
    repo_id: str, *, config: str, split: str, revision: str | None, columns: Sequence[str] | None
) -> tuple[Iterator[tuple[str, dict[str, Any]]], str]:
    """Rows of one split through the `datasets` library, which knows every layout that the Hub does.

    Args:
        repo_id: `owner/name`.
        config: name of the config.
        split: `train`, `validation`, ...
        revision: commit, tag or branch; None: the newest commit.
        columns: names to read; those that are not there are left out. None: all.

    Returns:
        (place, row) one by one, and the commit.

    Raises:
        SourceError: no such data set, config, split or revision, no access, no connection.
    """
    from datasets import load_dataset

    commit = hub_commit(repo_id, revision)
    with _told(f"{repo_id}@{commit[:12]}, config {config!r}, split {split!r}"):
        rows = load_dataset(repo_id, name=config, split=split, revision=commit)
    if columns is not None:
        rows = rows.select_columns([name for name in rows.column_names if name in columns])
    return ((f"{repo_id}, row {at}", row) for at, row in enumerate(rows)), commit


@contextmanager
def _told(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the clients let errors of their libraries through, of any kind
        status = getattr(getattr(error, "response", None), "status_code", 0)
        known = {401: "no such one, or it is private", 403: "no right to read it", 404: "no such one"}
        raise SourceError(
            f"cannot get the data set from the Hub: {known.get(status) or first_line(error)}",
            where=where,
            hint="check its id, config, split and revision, and your access: HF_TOKEN, the terms of a gated "
            "set on its page; or give local files. A revision that is a full commit is found in the cache",
        ) from None
