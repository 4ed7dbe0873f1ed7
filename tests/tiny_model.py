"""A Qwen2.5-VL of under a million random weights, complete on disk: a server and a trainer can load it.

    .venv-vllm/bin/python -m tests.tiny_model OUT_DIR

It needs torch, transformers and tokenizers, all imported late, so that any environment can import this
module. Same arguments, same bytes: the weights come from a seed, the tokenizer from a fixed corpus.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2.5-VL's, in its order."""

CORPUS = (
    "<observation>Two red squares move to the left while a blue circle stays at rest.</observation>",
    "<think>The question asks how many shapes there are. I count one, two, three.</think>",
    "<answer>B</answer> <answer>3</answer> <answer>[1.5, 4.0]</answer>",
    "Watch the video frame by frame, describe what you see, reason step by step, then answer the question.",
    "Options: A. the green triangle B. the yellow circle C. neither of them D. both at the same time",
)
"""Enough text for a few hundred merges; nothing depends on which."""

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if 'image' in part or 'image_url' in part or part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'video' in part or 'video_url' in part or part['type'] == 'video' %}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}"
    "{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The turns as Qwen2.5-VL writes them: a default system turn, media in place, one line per header."""

_WORDS = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
"""Where merges may not cross; digits stay single, as in Qwen2."""


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """Sizes of the model. The defaults are the smallest that vLLM's CPU attention takes (head size 64).

    Attributes:
        hidden: width of the text model; `heads * 64`, and twice `sum(mrope_section)` per head.
        vision_hidden: width of the vision tower.
        min_pixels, max_pixels: bounds of one frame after the processor's own resize; the lower bound is one
            patch group, so that frames that were sized before come through untouched.
        initializer_range: standard deviation of the weights; large, so that greedy choices are no near ties.
        printable_only: never choose a special token or a lone byte: a random model then writes plain ASCII.
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    intermediate: int = 256
    mrope_section: tuple[int, int, int] = (8, 12, 12)
    rope_theta: float = 1_000_000.0
    max_positions: int = 32_768
    vision_hidden: int = 64
    vision_heads: int = 2
    vision_depth: int = 2
    vision_intermediate: int = 128
    patch: int = 14
    window: int = 112
    merge: int = 2
    min_pixels: int = 28 * 28
    max_pixels: int = 768 * 28 * 28
    vocab: int = 640
    initializer_range: float = 0.2
    seed: int = 0
    printable_only: bool = True


def build_tokenizer(vocab: int, corpus: Iterable[str] = CORPUS) -> Any:
    """A byte-level BPE with Qwen's special tokens: every text round-trips, no token is unknown.

    Args:
        vocab: entries at most, special tokens included; at least 256 + 14.
        corpus: texts that the merges are learnt from.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(corpus, trainer)
    core.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in ("<|endoftext|>", "<|im_end|>")],
        model_max_length=32_768,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tiny: TinyConfig, tokenizer: Any) -> Any:
    """The model's configuration, its token ids taken from the tokenizer."""
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    rope = {
        "rope_type": "default",
        "rope_theta": tiny.rope_theta,
        "mrope_section": list(tiny.mrope_section),
    }
    return Qwen2_5_VLConfig(
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": tiny.hidden,
            "intermediate_size": tiny.intermediate,
            "num_hidden_layers": tiny.layers,
            "num_attention_heads": tiny.heads,
            "num_key_value_heads": tiny.kv_heads,
            "max_position_embeddings": tiny.max_positions,
            "initializer_range": tiny.initializer_range,
            "rope_parameters": rope,
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": tiny.vision_depth,
            "hidden_size": tiny.vision_hidden,
            "intermediate_size": tiny.vision_intermediate,
            "num_heads": tiny.vision_heads,
            "out_hidden_size": tiny.hidden,
            "patch_size": tiny.patch,
            "spatial_merge_size": tiny.merge,
            "window_size": tiny.window,
            "fullatt_block_indexes": [tiny.vision_depth - 1],
            "initializer_range": tiny.initializer_range,
        },
    )


def build_processor(tiny: TinyConfig, tokenizer: Any) -> Any:
    """The processor over that tokenizer: one pair of pixel bounds for images and videos, no resampling."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    shared = {
        "size": {"shortest_edge": tiny.min_pixels, "longest_edge": tiny.max_pixels},
        "patch_size": tiny.patch,
        "merge_size": tiny.merge,
        "temporal_patch_size": 2,
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**shared, do_sample_frames=False, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )


def unprintable_ids(tokenizer: Any) -> list[int]:
    """Ids of special tokens and of tokens that are not printable ASCII on their own."""
    special = set(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    texts = ((i, tokenizer.decode([i])) for i in range(len(tokenizer)))
    return [i for i, text in texts if i in special or not (text.isascii() and text.isprintable())]


def build_model(tiny: TinyConfig, config: Any, never: Sequence[int] = ()) -> Any:
    """Random float32 weights from the seed.

    Args:
        never: token ids whose output row is zero: their logit is 0, and among hundreds of random ones a
            greedy choice never falls on them.
    """
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng():
        torch.manual_seed(tiny.seed)
        model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
        # Weights are drawn here, in the order of their names: what a constructor draws is its own affair.
        for name, weight in sorted(model.named_parameters()):
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=tiny.initializer_range)
            elif "norm" not in name and "ln_q" not in name:
                torch.nn.init.zeros_(weight)
    with torch.no_grad():
        model.lm_head.weight[list(never)] = 0.0
    text = config.text_config
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    return model


def make_tiny_model(folder: Path, tiny: TinyConfig | None = None, *, corpus: Iterable[str] = CORPUS) -> Path:
    """Write config, weights, tokenizer and processor into `folder`; returns it.

    A folder that was made with the same arguments before is left as it is.
    """
    tiny = tiny or TinyConfig()
    corpus = tuple(corpus)
    mark = folder / "tiny.json"
    made_of = json.dumps({"config": repr(tiny), "corpus": corpus})
    if mark.is_file() and mark.read_text() == made_of:
        return folder
    tokenizer = build_tokenizer(tiny.vocab, corpus)
    config = build_config(tiny, tokenizer)
    model = build_model(tiny, config, unprintable_ids(tokenizer) if tiny.printable_only else ())
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_processor(tiny, tokenizer).save_pretrained(folder)
    mark.write_text(made_of)
    return folder


def main() -> None:
    """Command line: where to write, and with which seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(make_tiny_model(args.folder, TinyConfig(seed=args.seed)))


if __name__ == "__main__":
    main()
