"""Text embeddings by a transformers model in a local folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videop2r_data.errors import ConfigError, MissingExtraError

MAX_TOKENS = 512
"""Tokens of a text that are read."""
BATCH = 32


def embed(folder: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Mean of the last hidden states over the tokens of each text, at unit length, in float32 on the CPU.

    Args:
        folder: config, tokenizer and safetensors weights; nothing is fetched, and no code in it is run.
        texts: cut at 512 tokens, or at fewer if the model reads fewer.

    Returns:
        Shape [texts, hidden size].

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ConfigError: the folder holds no model that can be loaded.
    """
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError:
        raise MissingExtraError("transformers", "train") from None
    tokenizer, model = _load(folder)
    longest = _longest(model.config)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like lengths together: less padding
    out: npt.NDArray[np.float32] | None = None
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            tokens = tokenizer(
                [texts[i] for i in some],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            tokens = {k: v for k, v in tokens.items() if k in ("input_ids", "attention_mask")}
            hidden = model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            mean = torch.nn.functional.normalize(mean, dim=-1)
            if out is None:
                out = np.zeros((len(texts), mean.shape[1]), np.float32)
            out[some] = mean.numpy()
    assert out is not None
    if not np.isfinite(out).all():
        raise ConfigError("the model gives vectors that are not finite", where=str(folder))
    return out


def _longest(config: Any) -> int:
    known = getattr(config, "max_position_embeddings", None)
    return min(MAX_TOKENS, known) if isinstance(known, int) and known > 2 else MAX_TOKENS


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar of the weights; a program that wants it has it back afterwards."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    if not folder.is_dir():
        raise ConfigError(
            "no such folder", where=str(folder), hint="name the folder of a downloaded transformers model"
        )
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="float32"
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"no model that can be loaded: {str(error).strip().splitlines()[0][:300]}",
            where=str(folder),
            hint="it has to hold config.json, a tokenizer and model.safetensors",
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer, model.eval()
