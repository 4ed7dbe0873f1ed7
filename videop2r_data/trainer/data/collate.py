"""Questions and frames to model inputs: one collator for SFT, RL and evaluation.

Frames reach the processor with their metadata, and it may neither sample nor resize them; afterwards sizes,
numbers of tokens and the pixel budget are checked. Nothing is truncated: a prompt that is too long is left
out and counted.
"""

from __future__ import annotations

import math
import threading
import unicodedata
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from videop2r_data.backends import chat_messages, frames_array, video_metadata
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.prompts import Prompt, render_generate
from videop2r_data.schemas import Frames, MediaRecord, MediaSpec, Message, Request
from videop2r_data.trainer.data.batch import IMAGE, PARTS, VIDEO, PromptBatch, select_media
from videop2r_data.trainer.data.examples import Example, Skip

PROMPT_TOO_LONG, SPECIAL_TOKEN = "prompt_too_long", "special_token_in_text"
"""Reasons of a `Skip`: the model or the engine has no room for so many tokens; the question's text holds a
control token of the model, e.g. `<|im_end|>`."""
_HINT = "sample the frames with the media settings that the collator has"
_MEDIA_TYPES = {
    "image_grid_thw": torch.long,
    "pixel_values": torch.float32,
    "pixel_values_videos": torch.float32,
    "second_per_grid_ts": torch.float32,
    "video_grid_thw": torch.long,
}
"""What a processor may give of the media, in the order of the batch."""


class Collator:
    """Makes batches for one model.

    Args:
        processor: of a Qwen2.5-VL or Qwen3-VL model; its patch sizes, token ids and chat template are used.
        prompt: the generating prompt.
        media: how the frames were sampled; `max_pixels` bounds the tokens of a frame.

    Raises:
        ConfigError: `media.factor` is not the processor's, or the template does not end turns with its
            end-of-sequence token.
    """

    def __init__(self, processor: Any, prompt: Prompt, media: MediaSpec) -> None:
        self._lock = threading.Lock()
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.prompt, self.media = prompt, media
        self._most, self._why = math.inf, ""
        self._parts = {IMAGE: processor.image_processor, VIDEO: processor.video_processor}
        self._tokens = frozenset({int(processor.image_token_id), int(processor.video_token_id)})
        special = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        # The tokenizer would recognise these inside a question's text.
        self._control = sorted(special | set(self.tokenizer.all_special_tokens))
        self.end_id = self._end_of_turn()
        """The token that ends the assistant's turn."""
        self._bare: tuple[str, str] | None = None
        if hasattr(processor, "_calculate_timestamps"):
            # Qwen3-VL's frames come as `<0.3 seconds><|vision_start|>...<|vision_end|>`, in the place of the
            # whole placeholder: so the model was trained, and so vLLM does. transformers from 5.12 on
            # replaces the inner token alone, and a second pair of vision tokens stays around all frames;
            # without that pair every version gives what the model knows.
            video = processor.video_token
            self._bare = (f"{processor.vision_start_token}{video}{processor.vision_end_token}", video)
        wanted = {part.patch_size * part.merge_size for part in self._parts.values()}
        if any(media.factor % factor for factor in wanted):
            raise ConfigError(
                f"frames are sampled in multiples of {media.factor} px, the model sees multiples of "
                f"{' and '.join(map(str, sorted(wanted)))} px",
                where="data.media.factor",
                hint=f"set factor: {max(wanted)}",
            )

    def __call__(self, examples: Sequence[Example], frames: Sequence[Frames | None]) -> PromptBatch:
        """Prompts of a batch; `frames`: what was sampled for each, as arrays, and None for text.

        Raises:
            ConfigError: the prompt has no hint for a type, or what the processor gives does not fit the
                frames (tokens per frame, number of tokens, temporal size).
        """
        texts: dict[int, str] = {}
        skipped: list[Skip] = []
        for i, (asked, seen) in enumerate(zip(examples, frames, strict=True)):
            text = render_generate(
                self.prompt, problem=asked.problem, options=asked.options, problem_type=asked.problem_type
            )
            if stray := [token for token in self._control if token in text]:
                detail = f"the question holds the token {stray[0]!r}"
                skipped.append(Skip(asked.sample_id, SPECIAL_TOKEN, detail))
            else:
                texts[i] = self._render(text, seen)
        with self._lock:  # a tokenizer that two threads use at once raises
            ids, types, media = self._process(list(texts.values()), [frames[i] for i in texts])
        fitting: list[int] = []
        for at, (i, row) in enumerate(zip(texts, ids, strict=True)):
            if len(row) <= self._most:
                fitting.append(at)
            else:
                detail = f"{len(row)} tokens, at most {self._most} fit: {self._why}"
                skipped.append(Skip(examples[i].sample_id, PROMPT_TOO_LONG, detail))
        if len(fitting) < len(ids):
            media = select_media(media, {k: [t.count(k) for t in types] for k in PARTS}, fitting)
        kept = tuple(list(texts)[at] for at in fitting)
        pad = self.tokenizer.pad_token_id
        return PromptBatch(
            examples=tuple(examples[i] for i in kept),
            frames=tuple(frames[i] for i in kept),
            texts=tuple(texts[i] for i in kept),
            ids=[ids[at] for at in fitting],
            types=[types[at] for at in fitting],
            media=media,
            skipped=tuple(skipped),
            kept=kept,
            pad_id=self.end_id if pad is None else int(pad),
            media_ids=self._tokens,
        )

    def allow(self, tokens: int | None, why: str) -> None:
        """Leave out prompts of more tokens than this too; None: no further limit. `why` is told with each.

        Raises:
            ConfigError: no prompt could be shorter.
        """
        if tokens is not None and tokens < 1:
            raise ConfigError(f"no prompt fits: {why}")
        if tokens is not None and tokens < self._most:
            self._most, self._why = tokens, why

    def _render(self, user: str, frames: Frames | None) -> str:
        """The chat up to and with the assistant header; one placeholder stands for the media."""
        system = [Message("system", self.prompt.system)] if self.prompt.system else []
        request = Request("generate", "", (*system, Message("user", user, media=True)))
        chat = chat_messages(request, frames)
        return str(self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def target_ids(self, example: Example) -> list[int]:
        """The completion to learn as tokens, with the one that ends the turn.

        No part of the text becomes a control token, and decoding gives the target back (in Unicode's composed
        form, which Qwen's tokenizers read every text in).

        Raises:
            SourceError: the example has no target, or the tokenizer does not keep it.
        """
        if example.target is None:
            raise SourceError("no target: read it with config: sft", where=example.sample_id)
        told = self.tokenizer(example.target, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = told.input_ids
        back = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if back != example.target and back != unicodedata.normalize("NFC", example.target):
            raise SourceError(
                "the tokenizer changes the target: it would learn another text",
                where=example.sample_id,
                hint="use the tokenizer of the model, or leave the row out",
            )
        return [*ids, self.end_id]

    def _end_of_turn(self) -> int:
        """The tokenizer's end token, if the chat template ends the assistant's turn with it."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a turn"}]
        text: str = self.processor.apply_chat_template(turns, tokenize=False)
        end = self.tokenizer.eos_token
        if not text.partition("a turn")[2].startswith(end):
            raise ConfigError(
                f"the chat template does not close the assistant's turn with the end token {end!r}",
                where="chat template",
                hint="use the instruct model: its generation stops at the token that ends a turn",
            )
        return int(self.tokenizer.eos_token_id)

    def _process(
        self, texts: list[str], frames: list[Frames | None]
    ) -> tuple[list[list[int]], list[list[int]], dict[str, Tensor]]:
        """Tokens, their types and the media of a batch: one call of the processor, checked."""
        if not texts:
            return [], [], {}
        seen: dict[int, list[Frames]] = {IMAGE: [], VIDEO: []}
        for one in filter(None, frames):
            kind = IMAGE if one.record.data_type == "image" else VIDEO
            _check_size(self._parts[kind], one.record)
            seen[kind].append(one)
        wanted: dict[str, Any] = {}
        if seen[IMAGE]:
            wanted["images"] = [frames_array(f)[0] for f in seen[IMAGE]]
            wanted["images_kwargs"] = {"do_resize": False}
        if seen[VIDEO]:
            wanted["videos"] = [frames_array(f) for f in seen[VIDEO]]
            wanted["videos_kwargs"] = {
                "do_resize": False,
                "do_sample_frames": False,
                # The processor writes into the metadata it is given: copy it for every call.
                "video_metadata": [dict(video_metadata(f.record)) for f in seen[VIDEO]],
            }
            if hasattr(self._parts[VIDEO], "cap_pixels_per_frame"):
                wanted["videos_kwargs"]["cap_pixels_per_frame"] = False
        texts = [text.replace(*self._bare) for text in texts] if self._bare else texts
        out = self.processor(text=texts, return_mm_token_type_ids=True, add_special_tokens=False, **wanted)
        if strange := set(out) - set(_MEDIA_TYPES) - {"input_ids", "attention_mask", "mm_token_type_ids"}:
            names = ", ".join(sorted(strange))
            wrong = f"the processor gives {names}: only Qwen2.5-VL and Qwen3-VL can be trained"
            raise ConfigError(wrong, where="processor")
        ids, types = (
            [row if isinstance(row, list) else row.tolist() for row in out[name]]
            for name in ("input_ids", "mm_token_type_ids")
        )
        media = {k: torch.as_tensor(out[k], dtype=dtype) for k, dtype in _MEDIA_TYPES.items() if k in out}
        for kind, shown in seen.items():
            grids = media[PARTS[kind][0]].tolist() if shown else []
            tokens = filter(None, (row.count(kind) for row in types))
            for one, grid, count in zip(shown, grids, tokens, strict=True):
                _check_result(self._parts[kind], one.record, grid, count, self.media)
        return ids, types, media


def _check_size(part: Any, record: MediaRecord) -> None:
    """Refuse frames that the image or video processor would have to resize."""
    factor, height, width = part.patch_size * part.merge_size, record.height, record.width
    if height % factor or width % factor:
        seen = f"a model that sees multiples of {factor} px"
        raise ConfigError(f"{record.data_type} frames of {width}x{height} pixels for {seen}", hint=_HINT)


def _check_result(part: Any, record: MediaRecord, grid: Sequence[int], tokens: int, media: MediaSpec) -> None:
    """Refuse an output in which frames were resized, left out or repeated, or have too many tokens.

    `grid` is time, height and width of the picture or clip in patches, `tokens` how many stand for it; the
    pixel budget of `media` bounds the tokens of a frame.
    """
    (t, h, w), patch, merge = grid, part.patch_size, part.merge_size
    size, steps, limit = (record.height, record.width), 1, media.image_max_pixels or media.max_pixels
    if record.data_type == "video":
        steps, limit = -(-record.count // part.temporal_patch_size), media.max_pixels
    each, budget = h * w // merge**2, limit // (patch * merge) ** 2
    hint = None
    if (h * patch, w * patch) != size or t != steps:
        fault = f"{record.count} frames of {size} px became a grid of {(t, h, w)} patches of {patch} px"
    elif tokens != t * h * w // merge**2:
        fault = f"{tokens} tokens for {t * h * w} patches, {merge}x{merge} to a token"
    elif each > budget:
        fault, hint = f"{each} tokens a frame, the budget is {budget}", _HINT
    else:
        return
    raise ConfigError(f"{record.data_type}: {fault}", hint=hint)
