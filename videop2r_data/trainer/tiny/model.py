"""A Qwen2.5-VL of about a million random weights for the demo world, with its tokenizer and processor.

The architecture is the real one, loaded by `from_pretrained` like any checkpoint; only the sizes differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from videop2r_data.demo import COLOURS, EXACT_MEAN, NUMBER_WORDS, SHAPES, iter_scenes, write_trace
from videop2r_data.prompts import load_prompt, render_generate
from videop2r_data.schemas import DemoSpec
from videop2r_data.trainer.tiny.recipe import PROMPT, TinySpec

if TYPE_CHECKING:
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
    )


_NAMES = (
    "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end "
    "vision_start vision_end vision_pad image_pad video_pad"
)
SPECIAL_TOKENS = tuple(f"<|{name}|>" for name in _NAMES.split())
"""Those of Qwen2.5-VL, in its order."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if 'image' in part or 'image_url' in part or part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'video' in part or 'video_url' in part or part['type'] == 'video' %}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Turns as Qwen2.5-VL writes them, without its default system turn: a tiny model's context is short."""

_TAG = r"</?(?:observation|think|answer)>"
_WORDS = (
    rf"'(?i:[sdmt]|ll|ve|re)|(?!{_TAG})[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    rf"| ?(?:(?!{_TAG})[^\s\p{{L}}\p{{N}}])+[\r\n]*|\s*[\r\n]+|\s+"
)
_FACTS = [
    *(*COLOURS, *SHAPES, *NUMBER_WORDS[:7]),
    *("left", "right", "upwards?", "downwards?", "up", "down", "still", "small", "large", "slow", "fast"),
]
_PHRASES = rf" ?\b(?i:{'|'.join(sorted(_FACTS, key=len, reverse=True))})(?:e?s)?\b| ?\b[A-F]\b|\p{{N}}|\n"
"""Pieces that stand alone in either case: BPE merges never cross them."""


def corpus(world: DemoSpec, chats: int) -> Iterator[str]:
    """Turns of that many chats about the demo world; what the prompt says in each becomes few tokens."""
    prompt = load_prompt(PROMPT)
    for sample in islice(iter_scenes(world.model_copy(update={"defect_rate": 0.0})), chats):
        yield f"system\n{prompt.system}"
        q = sample.question
        text = render_generate(prompt, problem=q.problem, options=q.options, problem_type=q.problem_type)
        yield f"user\n{text}"
        yield f"assistant\n{write_trace(sample, None)}"


def build_tokenizer(texts: Iterable[str], *, vocab: int, phrases: bool = True) -> PreTrainedTokenizerFast:
    """Learn the merges. Every text round-trips byte for byte, no token is unknown.

    Args:
        texts: what to learn from; the same texts give the same tokenizer.
        vocab: entries at most, special tokens included; at least 256 + 14.
        phrases: let tokens span words, see `TinySpec.phrases`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(f"{_TAG}|{_PHRASES if phrases else _WORDS}"), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",  # noqa: S106 - a token of text
        eos_token="<|im_end|>",  # noqa: S106
        additional_special_tokens=[*SPECIAL_TOKENS[1:2], *SPECIAL_TOKENS[3:]],
        model_max_length=32_768,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(spec: TinySpec, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The model's configuration, its token ids taken from the tokenizer."""
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=spec.tied,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": spec.hidden,
            "intermediate_size": spec.intermediate,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "max_position_embeddings": 32_768,
            "initializer_range": spec.initializer_range,
            "tie_word_embeddings": spec.tied,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": spec.rope_theta,
                "mrope_section": list(spec.mrope_section),
            },
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": spec.vision_layers,
            "hidden_size": spec.vision_hidden,
            "intermediate_size": spec.vision_intermediate,
            "num_heads": spec.vision_heads,
            "out_hidden_size": spec.hidden,
            "patch_size": spec.patch,
            "spatial_merge_size": 2,
            "window_size": 16 * spec.patch,
            "fullatt_block_indexes": list(range(spec.vision_layers)),
            "initializer_range": spec.initializer_range,
        },
    )


def build_processor(spec: TinySpec, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """The processor over that tokenizer: size limits that never bind, no resampling, a background of zero."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    shared = {
        "size": {"shortest_edge": (2 * spec.patch) ** 2, "longest_edge": 2**24},
        "patch_size": spec.patch,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": list(EXACT_MEAN),
        "image_std": [0.25, 0.25, 0.25],  # colours come out about as far from 0 as Qwen's do
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**shared, do_sample_frames=False),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(spec: TinySpec, config: Qwen2_5_VLConfig) -> Qwen2_5_VLForConditionalGeneration:
    """Random float32 weights from the spec's seed; the global random state is left as it was."""
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
        # Constructors' initial weights are overwritten, in the order of their names: the order in which a
        # version of transformers makes its layers must not change the bytes.
        for name, weight in sorted(model.named_parameters()):
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=spec.initializer_range)
            elif "norm" not in name and "ln_q" not in name:
                torch.nn.init.zeros_(weight)
    text = config.text_config
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    return model


def make_tiny(folder: Path, spec: TinySpec | None = None, *, world: DemoSpec | None = None) -> Path:
    """Write a complete checkpoint into `folder`, which is returned: ready for `from_pretrained`.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        spec: sizes; the same spec and world give the same bytes.
        world: the demo world whose words the tokenizer learns; None: all that there is to see and to ask.
    """
    spec, world = spec or TinySpec(), world or DemoSpec(questions=2)
    tokenizer = build_tokenizer(corpus(world, spec.corpus), vocab=spec.vocab, phrases=spec.phrases)
    model = build_model(spec, build_config(spec, tokenizer))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_processor(spec, tokenizer).save_pretrained(folder)
    return folder


def count_weights_on_disk(folder: Path) -> int:
    """Parameters of what `make_tiny` wrote, read from the file's header."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
