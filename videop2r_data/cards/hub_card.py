"""The card, the Croissant file and the preview of a data set, made for the repository they are pushed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from videop2r_data.cards.card_facts import Facts
from videop2r_data.cards.card_marks import has_marks, prose_of, split_card
from videop2r_data.cards.card_state import Published
from videop2r_data.cards.croissant import CROISSANT
from videop2r_data.cards.dataset_card import CARD, card_text, croissant_bytes, old_card
from videop2r_data.cards.hub_client import Hub
from videop2r_data.cards.hub_names import PREVIEW_NAME
from videop2r_data.cards.hub_plan import Remote
from videop2r_data.cards.preview import write_preview
from videop2r_data.schemas import FIGURES_NAME

_MAX_REMOTE_CARD = 4 * 2**20


@dataclass(frozen=True)
class Remake:
    """What a push wants of the card.

    Attributes:
        folder: the data set.
        facts: of it.
        repo: where it goes.
        media: its clips lie there, or will.
        preview: rows of the preview; 0: none.
        roots: source name -> media root, for the preview.
    """

    folder: Path
    facts: Facts
    repo: str
    media: bool
    preview: int
    roots: Mapping[str, Path]


def remake_card(wish: Remake, to: Path, hub: Hub, remote: Remote) -> tuple[dict[str, Path], list[str]]:
    """Write what a push makes anew; the folder itself is not touched.

    The date is that of the first push of this very lock, read off the card that is there, so that pushing the
    same thing again changes nothing.

    Args:
        wish: what is wanted.
        to: an empty folder.
        hub: where the repository is.
        remote: as it is now.

    Returns:
        Path in the repository -> file, and remarks for people.

    Raises:
        HubError: the card that is there cannot be read.
    """
    there = _remote_card(hub, wish.repo, remote)
    preview = to / PREVIEW_NAME
    rows = 0
    if wish.preview:
        rows = write_preview(wish.folder, preview, wish.preview, wish.roots, wish.facts.rows.sources)
    published = Published(
        repo=wish.repo,
        url=hub.page(wish.repo, "dataset"),
        date=_since(there, wish),
        lock=wish.facts.lock_sha256,
        media=wish.media,
        preview=rows,
    )
    facts = wish.facts.model_copy(update={"published": published})
    here = old_card(wish.folder)
    (to / CARD).write_text(card_text(facts, here), encoding="utf-8")
    (to / CROISSANT).write_bytes(croissant_bytes(facts))
    made = {name: to / name for name in (CARD, CROISSANT)} | ({PREVIEW_NAME: preview} if rows else {})
    remarks = _remarks(wish, here, there)
    if rows < wish.preview:
        remarks.append(
            f"the preview has {rows} of {wish.preview} rows: the others' clips are not here, too large, "
            "or their licence does not let them be passed on"
        )
    return made, remarks


def _since(there: str, wish: Remake) -> date:
    before = Published.read(there)
    if before is not None and before.lock == wish.facts.lock_sha256 and before.repo == wish.repo:
        return before.date
    return _today()


def _today() -> date:
    return datetime.now(UTC).date()


def _remote_card(hub: Hub, repo: str, remote: Remote) -> str:
    """The card of the repository; empty: it has none, or one that no push of ours wrote."""
    from huggingface_hub import get_session

    file = remote.files.get(CARD)
    if file is None or file.bytes > _MAX_REMOTE_CARD:
        return ""
    url = hub.url(repo, CARD, kind="dataset", revision=remote.head)
    headers = {"Authorization": f"Bearer {hub.token}"} if hub.token else {}

    def ask() -> bytes:
        # a redirect would lead to another host, which the token must not reach; a card is never that large
        answer = get_session().get(url, headers=headers, timeout=30.0, follow_redirects=False)
        if answer.status_code >= 400:
            answer.raise_for_status()
        return bytes(answer.content) if answer.status_code == 200 else b""

    return hub.call(ask, f"{repo}: {CARD}").decode("utf-8", "replace")


def _remarks(wish: Remake, here: str, there: str) -> list[str]:
    """Where the files of the folder did not say what its data say, and what of the repository goes."""
    facts = wish.facts
    local = facts.model_copy(update={"published": _same_lock(here, facts)})
    remarks = []
    if not has_marks(split_card(here)[1]):
        remarks.append(f"{CARD}: without marks of its generated parts, so made anew as a whole")
    elif card_text(local, here) != here:
        remarks.append(f"{CARD}: its generated parts were not those of the data, and were made anew")
    kept = wish.folder / CROISSANT
    if kept.is_file() and kept.read_bytes() != croissant_bytes(local):
        remarks.append(f"{CROISSANT}: not that of the data, made anew")
    if facts.figures is None and (wish.folder / FIGURES_NAME).is_dir():
        remarks.append(
            f"{FIGURES_NAME}/: not drawn of these rows, so left out; p2r-data card --figures draws them"
        )
    if set(prose_of(there)) - set(prose_of(here)):
        remarks.append(
            f"{CARD}: the one in the repository holds words of a person that the one here lacks; they go"
        )
    return remarks


def _same_lock(card: str, facts: Facts) -> Published | None:
    found = Published.read(card)
    return found if found is not None and found.lock == facts.lock_sha256 else None
