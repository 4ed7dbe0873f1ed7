"""Push a trained model: weights and card of a run, never its optimizer, never a pickle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.cards.hub_check import CARD, card_head
from videop2r_data.cards.hub_client import Hub
from videop2r_data.cards.hub_plan import LocalFile, Remote
from videop2r_data.cards.hub_private import addresses_in_file
from videop2r_data.cards.hub_push import Content, PushReport, push_files
from videop2r_data.cards.hub_upload import Watch
from videop2r_data.errors import HubError

FINAL = "final"
"""Folder of a run that holds the finished weights."""
RECORDS = ("metrics.jsonl",)
"""Files of a run that go along, into `training/`; its recipe names folders and servers and stays here."""
_MODEL = re.compile(
    r"[\w.-]+\.safetensors|[\w.-]+\.json|[\w.-]+\.jinja|[\w.-]+\.model|(?:merges|vocab)\.txt"
    r"|additional_chat_templates/[\w.-]+"
    r"|LICENSE(?:\.[a-z]+)?|NOTICE(?:\.[a-z]+)?|figures/[\w.-]+\.(?:png|svg|json)"
)
_STALE = re.compile(
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
    watch: Watch | None = None,
) -> PushReport:
    """Make a model repository be what a run, or a folder of weights, is.

    Of a run go: what is in `final/`, to the root; the card `README.md` and its figures; and the metrics, to
    `training/`. Of a folder of weights goes what `from_pretrained` reads, and the card.
    Weights are safetensors only; files of other kinds are named in the report and stay here.

    Args:
        folder: a run, or a folder that `from_pretrained` can read.
        repo: `owner/name`; it is made if it does not exist.
        hub, private, tag, dry_run, watch: as for `push_dataset`.
        card: another `README.md` than the one that lies there.

    Raises:
        HubError: no weights, damaged ones, no card, or the Hub refuses.
        HubAuthError: no token, or one that may not do this.
    """
    local, left_out = model_files(folder, card=card)
    check_weights(local)
    notes = tuple(note for name, file in local.items() for note in addresses_in_file(file.path, name))
    return push_files(
        lambda remote: Content(local, _stale(remote), left_out, notes),
        repo,
        "model",
        hub=hub,
        private=private,
        tag=tag,
        dry_run=dry_run,
        watch=watch,
    )


def model_files(folder: Path, *, card: Path | None = None) -> tuple[dict[str, LocalFile], list[str]]:
    """Path in the repository -> file, and the files beside them that are not pushed."""
    run = folder if (folder / FINAL).is_dir() else None
    weights = folder / FINAL if run else folder
    if not weights.is_dir():
        raise HubError("no such folder", where=str(folder), hint="name a run of p2r-train, or a model folder")
    found: dict[str, LocalFile] = {}
    left_out: list[str] = []
    for path in sorted(p for p in weights.rglob("*") if p.is_file()):
        name = path.relative_to(weights).as_posix()
        if name == CARD or _MODEL.fullmatch(name):
            found[name] = LocalFile(path)
        else:
            left_out.append(path.relative_to(folder).as_posix())
    if run is not None:
        found |= {f"training/{name}": LocalFile(run / name) for name in RECORDS if (run / name).is_file()}
        pictures = sorted((run / "figures").glob("*"))
        found |= {
            f"figures/{p.name}": LocalFile(p) for p in pictures if _MODEL.fullmatch(f"figures/{p.name}")
        }
        if (run / CARD).is_file():
            found[CARD] = LocalFile(run / CARD)
    if card is not None:
        found[CARD] = LocalFile(card)
    if CARD not in found or card_head(found[CARD].path.read_text(encoding="utf-8")) is None:
        raise HubError(
            f"no model card ({CARD} with YAML front matter)",
            where=str(folder),
            hint="finish the run: it writes one",
        )
    return found, left_out


def check_weights(local: dict[str, LocalFile]) -> None:
    """Every weight file is whole, and all that the index names are there.

    Raises:
        HubError: not so.
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
        wanted = set(_json(local[name].path).get("weight_map", {}).values())
        if lost := sorted(wanted - set(local)):
            raise HubError(
                f"the index names {lost[0]}, which is not there", where=name, hint="save the model again"
            )


def safetensors_fault(path: Path) -> str:
    """What is wrong with the layout of a safetensors file, empty: nothing. Tensors are not read."""
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


def _json(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise HubError("not a JSON object", where=str(path))
    return found


def _stale(remote: Remote) -> list[str]:
    return [path for path in remote.files if _STALE.fullmatch(path)]
