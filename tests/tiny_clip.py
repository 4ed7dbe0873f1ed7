"""A CLIP of some thousand weights that knows three colours: complete on disk, loaded as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
_WORDS = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    *COLOURS,
    "what",
    "is",
    "the",
    "colour",
    "of",
    "square",
    "where",
    "when",
)
_SIDE = 32


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: at for at, word in enumerate(_WORDS)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=16,
    )  # fmt: skip


def write_tiny_clip(folder: Path, *, updates: int = 60) -> Path:
    """Write model and processor; with 0 updates its weights are random."""
    import numpy as np
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(_WORDS), "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 2,
        "eos_token_id": 3,  # with 2, transformers takes the model for one of its old ones and reads another token
    }  # fmt: skip
    vision = small | {"image_size": _SIDE, "patch_size": 8}
    torch.manual_seed(0)
    net = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    images = CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE})
    processor = CLIPProcessor(image_processor=images, tokenizer=_tokenizer())
    steps, rng = torch.optim.Adam(net.parameters(), lr=3e-3), np.random.default_rng(0)
    for _ in range(updates):
        pictures = []
        for colour in COLOURS.values():
            grey = rng.integers(60, 200)
            picture = np.full((_SIDE, _SIDE, 3), grey, np.uint8) + rng.integers(
                0, 20, (_SIDE, _SIDE, 3), np.uint8
            )
            top, left = rng.integers(0, _SIDE // 2, 2)
            picture[top : top + _SIDE // 2, left : left + _SIDE // 2] = colour
            pictures.append(picture)
        words = [f"{rng.choice(['what is', 'where is', 'when'])} the {name} square" for name in COLOURS]
        inputs = processor(text=words, images=pictures, return_tensors="pt", padding="max_length")
        loss = net(**inputs, return_loss=True).loss
        steps.zero_grad()
        loss.backward()
        steps.step()
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
