"""A byte-level BPE with Qwen's special tokens, learnt from what the demo world says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from videop2r_data.demo import COLOURS, NUMBER_WORDS, SHAPES, iter_scenes, write_trace
from videop2r_data.prompts import load_prompt, render_generate
from videop2r_data.schemas import DemoSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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
"""Those of Qwen2.5-VL, in its order."""

CHAT_TEMPLATE = (
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
"""Turns as Qwen2.5-VL writes them, without its default system turn: a tiny model's context is short."""

PROMPTS = ("tiny-v1",)
"""What a tiny model is asked with unless told otherwise."""
_TAG = r"</?(?:observation|think|answer)>"
_WORDS = (
    rf"'(?i:[sdmt]|ll|ve|re)|(?!{_TAG})[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    rf"| ?(?:(?!{_TAG})[^\s\p{{L}}\p{{N}}])+[\r\n]*|\s*[\r\n]+|\s+"
)
_FACTS = (
    *COLOURS,
    *SHAPES,
    *NUMBER_WORDS[:7],
    *("left", "right", "upwards?", "downwards?", "up", "down", "still", "small", "large", "slow", "fast"),
)


def _pieces(phrases: bool) -> str:
    """Where merges may not cross: a pattern of the pieces that stand alone."""
    if not phrases:
        return f"{_TAG}|{_WORDS}"
    facts = "|".join(sorted(_FACTS, key=len, reverse=True))
    return rf"{_TAG}| ?\b(?i:{facts})(?:e?s)?\b| ?\b[A-F]\b|\p{{N}}|\n"


def corpus(world: DemoSpec, chats: int, prompts: Sequence[str] = PROMPTS) -> Iterator[str]:
    """Chats about the demo world, as the merges shall know them: system, user and assistant turns.

    Args:
        world: whose questions and traces.
        chats: how many.
        prompts: packaged prompts or files, taken in turns: what they always say becomes few tokens.
    """
    loaded = [load_prompt(name) for name in prompts]
    quiet = world.model_copy(update={"defect_rate": 0.0})
    for i, sample in enumerate(islice(iter_scenes(quiet), chats)):
        prompt, question = loaded[i % len(loaded)], sample.question
        yield f"system\n{prompt.system}"
        text = render_generate(
            prompt, problem=question.problem, options=question.options, problem_type=question.problem_type
        )
        yield f"user\n{text}"
        yield f"assistant\n{write_trace(sample, None)}"


def build_tokenizer(
    texts: Iterable[str], *, vocab: int = 1024, phrases: bool = True
) -> PreTrainedTokenizerFast:
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
    split = pre_tokenizers.Split(Regex(_pieces(phrases)), behavior="isolated")
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
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in ("<|endoftext|>", "<|im_end|>")],
        model_max_length=32_768,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
