"""Fetch a released data set from the Hub at one pinned commit."""

from __future__ import annotations

from pathlib import Path

from videop2r_data.errors import SourceError

PATTERNS = ["README.md", "build.lock.json"] + [
    f"{folder}*.{ext}"
    for folder in ("", "data/")
    for ext in ("parquet", "jsonl", "json", "jsonl.gz", "json.gz")
]


def fetch(repo_id: str, revision: str | None) -> tuple[Path, str]:
    """Download text, rows and lock of a data set; files that are in the cache are not fetched again.

    Returns:
        The local folder and the commit.

    Raises:
        SourceError: no such data set or revision, no access, no connection.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        commit = HfApi().dataset_info(repo_id, revision=revision).sha
        folder = snapshot_download(repo_id, repo_type="dataset", revision=commit, allow_patterns=PATTERNS)
    except Exception as error:  # noqa: BLE001 - the client lets errors of its HTTP library through, whichever it is
        raise SourceError(
            f"cannot get the data set from the Hub: {_first_line(error)}",
            where=repo_id,
            hint="check the id, the revision and HF_TOKEN, or give a local folder that exists",
        ) from None
    return Path(folder), commit or ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
