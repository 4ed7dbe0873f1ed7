"""What a push makes for the repository: card with address, preview, clips that may be passed on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from videop2r_data.cards.card.dataset import (
    card_text,
    croissant_bytes,
    has_marks,
    old_card,
    prose_of,
)
from videop2r_data.cards.card.facts import Facts, Published
from videop2r_data.cards.card.metadata import PREVIEW_NAME, TEXT_COLUMNS
from videop2r_data.cards.card.rows import SourceFacts, batches, media_held_back, passes_on
from videop2r_data.cards.hub.client import Hub
from videop2r_data.cards.hub.plan import Remote
from videop2r_data.errors import HubError, MediaError
from videop2r_data.files import (
    CARD_NAME,
    CROISSANT_NAME,
    FIGURES_NAME,
    MEDIA_FOLDER,
    resolve_media,
    split_card,
)
from videop2r_data.schemas import safe_relative_path

# Clips as files of the repository: all of them or none, and only if every source's licence allows it.

_SHOWN = 5
"""Missing clips named in one message."""


def media_files(folder: Path, roots: Mapping[str, Path], sources: Iterable[SourceFacts]) -> dict[str, Path]:
    """Path in the repository -> clip, for every row of `sft` and `rl`.

    Args:
        folder: a checked data set.
        roots: source name -> media root on this machine.
        sources: of its rows, with the licences of their media.

    Raises:
        HubError: a source's licence does not let its media be passed on, a root is not known, or a clip is
            missing or lies outside of its root.
    """
    if refused := media_held_back(sources):
        listed = ", ".join(f"{source.label} (media licence: {source.media.licence})" for source in refused)
        raise HubError(
            f"these sources' licences do not say that their media may be passed on: {listed}",
            where=str(folder),
            hint="leave out --embed-media; or, if you may pass them on, name the licence of each under "
            "`licenses` of the source in the recipe and build again (the journal makes that free)",
        )
    found: dict[str, Path] = {}
    missing: list[str] = []
    for source, path in sorted(set(_media_rows(folder))):
        if source not in roots:
            raise HubError(
                f"no media root is known for source {source!r}",
                where=str(folder),
                hint="add --base or --work",
            )
        try:
            file, inside = resolve_media(roots[source], path), safe_relative_path(path)
        except MediaError as error:
            raise HubError(error.message, where=f"{source}: {path}") from None
        if file.is_file():
            found[f"{MEDIA_FOLDER}/{source}/{inside}"] = file
        else:
            missing.append(f"{source}: {path}")
    if missing:
        raise HubError(
            f"{len(missing):,} clips are missing, the first: " + "; ".join(missing[:_SHOWN]),
            where=str(folder),
        )
    return found


def _media_rows(folder: Path) -> Iterator[tuple[str, str]]:
    """(source, path) of every row with media, of `sft` and `rl`; sources as `sample_id` names them."""
    for config in ("sft", "rl"):
        for batch in batches(folder, config, ["sample_id", "path"]):
            samples, paths = batch["sample_id"].to_pylist(), batch["path"].to_pylist()
            for sample, path in zip(samples, paths, strict=True):
                if path:
                    yield sample.partition("/")[0], path


# The config `preview`: a few accepted rows with their clips inside, for the viewer of the Hub.

MAX_CLIP = 8 * 2**20
"""Bytes of one clip: the viewer loads them all with the page."""
MAX_TOTAL = 64 * 2**20
"""Bytes of all clips."""
_READ = 5_000
"""Accepted rows that are searched for clips."""


def write_preview(
    folder: Path, to: Path, rows: int, roots: Mapping[str, Path], sources: Iterable[SourceFacts]
) -> int:
    """Write the preview's Parquet file; the same rows and clips give the same bytes.

    Rows are taken in turn from each data type and source, each clip once, if the source's licence lets media
    be passed on and the file is here and at most `MAX_CLIP` bytes large.

    Args:
        folder: the data set.
        to: the file to write.
        rows: at most so many.
        roots: source name -> media root on this machine.
        sources: of its rows, with the licences of their media.

    Returns:
        Rows written; with 0 there is no file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    free = {(source.pool, source.data_source) for source in sources if passes_on(source)}
    held = {(source.pool, source.data_source) for source in sources if not passes_on(source)}
    taken: list[dict[str, Any]] = []
    total = 0
    for row in _in_turn(_rows(folder)):
        if len(taken) == rows:
            break
        key = (row["sample_id"].partition("/")[0], row["data_source"])
        file = _file(row, roots) if key in free - held else None
        if file is None or total + file.stat().st_size > MAX_TOTAL:
            continue
        total += file.stat().st_size
        cell = {"bytes": file.read_bytes(), "path": Path(row["path"]).name}
        media = {kind: cell if row["data_type"] == kind else None for kind in ("image", "video")}
        taken.append(media | {name: row[name] for name in TEXT_COLUMNS})
    if taken:
        blob = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        kinds = [("image", blob), ("video", blob), *((name, pa.string()) for name in TEXT_COLUMNS)]
        to.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(taken, schema=pa.schema(kinds)), to, compression="zstd")
    return len(taken)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The first accepted rows with media, each file once."""
    columns = [*TEXT_COLUMNS, "path", "data_type", "data_source"]
    seen: set[tuple[str, str]] = set()
    for read, batch in enumerate(batches(folder, "sft", columns, size=500)):
        if read * 500 >= _READ:
            return
        for row in batch.to_pylist():
            key = (row["sample_id"].partition("/")[0], row["path"])
            if row["path"] and key not in seen:
                seen.add(key)
                yield row


def _in_turn(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows in turn: one of each data type and source, then the next of each."""
    queues: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        queues.setdefault((row["data_type"], row["data_source"]), []).append(row)
    for group in zip_longest(*queues.values()):
        yield from (row for row in group if row is not None)


def _file(row: dict[str, Any], roots: Mapping[str, Path]) -> Path | None:
    root = roots.get(row["sample_id"].partition("/")[0])
    if root is None or row["data_type"] not in ("image", "video"):
        return None
    try:
        file = resolve_media(root, row["path"])
    except MediaError:
        return None
    return file if file.is_file() and file.stat().st_size <= MAX_CLIP else None


# The card and the Croissant file name the repository, so they are made anew for it, in a folder of their own.

_MAX_REMOTE_CARD = 4 * 2**20


def remake_card(
    folder: Path,
    facts: Facts,
    to: Path,
    *,
    repo: str,
    hub: Hub,
    remote: Remote,
    media: bool,
    preview: int,
    roots: Mapping[str, Path],
) -> tuple[dict[str, Path], list[str]]:
    """Write card, Croissant file and preview for a repository; the data set's folder is not changed.

    The date is that of the first push of this lock, taken from the repository's card: pushing the same data
    set again changes nothing.

    Args:
        folder: the data set.
        facts: of the data set.
        to: an empty folder.
        repo, hub: `owner/name` that it is pushed to, and where that is.
        remote: its state.
        media: whether the repository holds the clips, or will.
        preview: rows of the preview; 0: none.
        roots: source name -> media root, for the preview.

    Returns:
        Path in the repository -> file, and remarks for people.

    Raises:
        HubError: the repository's card cannot be read.
    """
    here, there = old_card(folder), _remote_card(hub, repo, remote)
    rows = write_preview(folder, to / PREVIEW_NAME, preview, roots, facts.rows.sources) if preview else 0
    before = Published.read(there)
    again = before is not None and before.lock == facts.lock_sha256 and before.repo == repo
    published = Published(
        repo=repo,
        url=hub.page(repo, "dataset"),
        date=before.date if before is not None and again else _today(),
        lock=facts.lock_sha256,
        media=media,
        preview=rows,
    )
    made = facts.model_copy(update={"published": published})
    (to / CARD_NAME).write_text(card_text(made, here), encoding="utf-8")
    (to / CROISSANT_NAME).write_bytes(croissant_bytes(made))
    names = [CARD_NAME, CROISSANT_NAME, *([PREVIEW_NAME] if rows else [])]
    remarks = _remarks(folder, facts, here, there)
    if rows < preview:
        remarks.append(
            f"the preview has {rows} of {preview} rows: the others' clips are not here, too large, "
            "or their licence does not let them be passed on"
        )
    return {name: to / name for name in names}, remarks


def _today() -> date:
    return datetime.now(UTC).date()


def _remote_card(hub: Hub, repo: str, remote: Remote) -> str:
    """The card of the repository; empty if it has none or one larger than any that a push writes."""
    from huggingface_hub import get_session

    file = remote.files.get(CARD_NAME)
    if file is None or file.bytes > _MAX_REMOTE_CARD:
        return ""
    url = hub.url(repo, CARD_NAME, kind="dataset", revision=remote.head)
    headers = {"Authorization": f"Bearer {hub.token}"} if hub.token else {}

    def ask() -> bytes:
        # a redirect would lead to another host, which the token must not reach; a card is never that large
        answer = get_session().get(url, headers=headers, timeout=30.0, follow_redirects=False)
        if answer.status_code >= 400:
            answer.raise_for_status()
        return bytes(answer.content) if answer.status_code == 200 else b""

    return hub.call(ask, f"{repo}: {CARD_NAME}").decode("utf-8", "replace")


def _remarks(folder: Path, facts: Facts, here: str, there: str) -> list[str]:
    """Sentences for people: files that were out of date, text in the repository that is lost."""
    before = Published.read(here)
    same = before is not None and before.lock == facts.lock_sha256
    local = facts.model_copy(update={"published": before if same else None})
    remarks = []
    if not has_marks(split_card(here)[1]):
        remarks.append(f"{CARD_NAME}: without marks of its generated parts, so made anew as a whole")
    elif card_text(local, here) != here:
        remarks.append(f"{CARD_NAME}: its generated parts were not those of the data, and were made anew")
    kept = folder / CROISSANT_NAME
    if kept.is_file() and kept.read_bytes() != croissant_bytes(local):
        remarks.append(f"{CROISSANT_NAME}: not that of the data, made anew")
    if facts.figures is None and (folder / FIGURES_NAME).is_dir():
        remarks.append(
            f"{FIGURES_NAME}/: not drawn of these rows, so left out; p2r-data card --figures draws them"
        )
    if set(prose_of(there)) - set(prose_of(here)):
        remarks.append(
            f"{CARD_NAME}: the one in the repository holds words of a person that the one here lacks; they go"
        )
    return remarks
