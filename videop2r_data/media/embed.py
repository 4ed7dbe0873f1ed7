"""How close frames come to a question: cosines of a local model's image and text features.

On one core of the CPU, so that equal frames get equal scores, and in builds in a process of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.files import file_digest, find_model
from videop2r_data.schemas import LookSpec, digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECIMALS = 5
"""Scores that differ by less are equal: the earlier frame then counts as closer."""
_BATCH = 16
_TOLD = "no such model, or not one with image and text features"


def embedder_key(look: LookSpec) -> str:
    """What the embedder is: the digest of its files, or the commit of a Hub id.

    Raises:
        ConfigError: neither a folder nor a Hub id with a commit.
    """
    folder = Path(look.embedder)
    if folder.is_dir():
        return _folder_digest(folder)
    if look.revision is None:
        raise ConfigError(
            f"{look.embedder!r} is no folder, and a model of the Hub needs its commit",
            where="media.look",
            hint="set media.look.revision to a commit: another one selects other frames",
        )
    return look.revision


@cache
def _folder_digest(folder: Path) -> str:
    return digest({path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file()})


def embedder_process(look: LookSpec) -> ProcessPoolExecutor:
    """A process for `relevance_in`; it starts with the first question.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ConfigError: as `embedder_key`; no such folder, or none of a model.
    """
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise MissingExtraError("torch and transformers", "train")
    _find(look)
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _find(look: LookSpec) -> None:
    find_model(look.embedder, where="media.look.embedder", revision=look.revision)
    embedder_key(look)


@cache
def _loaded(name: str, revision: str | None) -> tuple[Any, Any]:
    try:
        from transformers import AutoModel, AutoProcessor
    except ImportError:
        raise MissingExtraError("torch and transformers", "train") from None
    try:
        safe = {"revision": revision, "trust_remote_code": False}  # unset, a person at a terminal is asked
        net = AutoModel.from_pretrained(name, **safe).eval()
        processor = AutoProcessor.from_pretrained(name, **safe)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_TOLD}: {str(error)[:300]}", where=f"media.look.embedder {name!r}") from None
    if not hasattr(net, "get_image_features") or not hasattr(net, "get_text_features"):
        raise ConfigError(_TOLD, where=f"media.look.embedder {name!r}")
    return net, processor


def relevance(array: NDArray[np.uint8], question: str, look: LookSpec) -> list[float]:
    """Cosine of each frame's features with those of the question, in this process, to 5 decimals.

    Args:
        array: uint8 [T, H, W, 3], RGB.
        question: cut where the model's text ends.
        look: names the embedder.

    Raises:
        MissingExtraError, ConfigError: as `embedder_process`; no such model.
    """
    _find(look)
    net, processor = _loaded(look.embedder, look.revision)
    import torch
    from PIL import Image

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order are other scores
    try:
        with torch.inference_mode():
            # SigLIP was trained with texts of full length; CLIP does not mind.
            words = processor(text=[question], padding="max_length", truncation=True, return_tensors="pt")
            text = _unit(net.get_text_features(**words))
            found: list[float] = []
            for at in range(0, len(array), _BATCH):
                pictures = [Image.fromarray(frame) for frame in array[at : at + _BATCH]]
                seen = _unit(net.get_image_features(**processor(images=pictures, return_tensors="pt")))
                found += (seen @ text[0]).tolist()
    finally:
        torch.set_num_threads(threads)
    return [round(score, DECIMALS) for score in found]


def _unit(features: Any) -> Any:
    tensor = getattr(features, "pooler_output", features)  # a tensor alone in older versions
    return tensor / tensor.norm(dim=-1, keepdim=True)


async def relevance_in(
    pool: ProcessPoolExecutor, array: NDArray[np.uint8], question: str, look: LookSpec
) -> list[float]:
    """The same in the one process of a pool; ConfigError: as there, or the process ended."""
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, relevance, array, question, look)
    except BrokenProcessPool:
        raise ConfigError(
            "the process of the embedder ended",
            where="media.look",
            hint="memory may have run out: take a smaller embedder, or fewer candidates",
        ) from None
