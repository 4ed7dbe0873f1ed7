"""A local model through transformers: the slowest backend, and the one that needs nothing else.

One generation at a time, in a thread of its own, so that the loop goes on. Frames reach the processor with
their metadata and with size limits that never bind: it neither picks frames again nor resizes them.
`extra` of the recipe goes to `from_pretrained`, e.g. `dtype: bfloat16`, `device_map: auto`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from videop2r_data.backends.chat_input import (
    FIXED_SIZE,
    chat_messages,
    frames_array,
    number_behind_clips,
    video_metadata,
)
from videop2r_data.errors import BackendError, ConfigError, MissingExtraError, RefusedError, TransientError
from videop2r_data.files import find_model
from videop2r_data.schemas import BackendSpec, Completion, FinishReason, Frames, Request, Usage


class TransformersBackend:
    """One model in this process: image-text-to-text, or a text-only judge.

    At temperature 0 the choice is greedy. Above, the random numbers come from the request's seed, or from its
    content when it has none, so that a run on the same machine and versions repeats itself.

    Args:
        spec: `model` is a Hub id or a folder, of a whole model or of adapters (peft); `extra` holds arguments
            of `from_pretrained`.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self.model = spec.model
        self._spec = spec
        self._net: Any = None
        self._processor: Any = None
        self._thread: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"TransformersBackend(model={self.model!r})"

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together; None before `start`, or if the model does not say."""
        if self._net is None:
            return None
        length = getattr(self._net.config.get_text_config(), "max_position_embeddings", None)
        return length if isinstance(length, int) else None

    async def start(self) -> None:
        """Load processor and weights.

        Raises:
            MissingExtraError: torch or transformers is not installed.
            ConfigError: no such model, or arguments that do not fit.
        """
        if self._net is not None:
            return
        find_model(self.model, where="model of a backend", revision=self._spec.revision)
        try:
            import torch  # noqa: F401
            import transformers  # noqa: F401
        except ImportError:
            raise MissingExtraError("torch and transformers", "train") from None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers")
        loop = asyncio.get_running_loop()
        self._net, self._processor = await loop.run_in_executor(self._thread, _load, self._spec)

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call; it waits for the ones before it, and `spec.timeout_s` counts from its own start.

        Raises:
            TransientError: the deadline passed.
            RefusedError: the model cannot take this prompt, or memory does not hold it.
        """
        if self._net is None or self._thread is None:
            raise BackendError(f"{self!r} is not started")
        cancelled = threading.Event()
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._complete, request, frames, cancelled
        )
        try:
            return await work
        finally:
            cancelled.set()  # a cancelled call stops at its next token instead of holding the thread

    async def close(self) -> None:
        """Drop the weights; safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True, cancel_futures=True)
        self._net = self._processor = None

    def _complete(self, request: Request, frames: Frames | None, cancelled: threading.Event) -> Completion:
        """The call, in the worker thread."""
        import torch

        started = time.monotonic()

        def stop(ids: Any, scores: Any, **_: Any) -> Any:
            late = cancelled.is_set() or time.monotonic() - started > self._spec.timeout_s
            return torch.full((ids.shape[0],), late, dtype=torch.bool, device=ids.device)

        if cancelled.is_set():
            raise TransientError("cancelled")
        try:
            inputs = self._inputs(request, frames).to(self._net.device)
            with torch.inference_mode():
                ids = self._net.generate(**inputs, **self._decoding(request), stopping_criteria=[stop])
        except torch.OutOfMemoryError:
            raise RefusedError("memory does not hold this prompt") from None
        except ValueError as error:
            raise RefusedError(f"the model refused this prompt: {str(error)[:300]}") from error
        if cancelled.is_set() or time.monotonic() - started > self._spec.timeout_s:
            raise TransientError(f"no answer from {self!r} within {self._spec.timeout_s:g} s")
        prompt_length = inputs["input_ids"].shape[1]
        answer = ids[0, prompt_length:].tolist()
        finish = self._finish(answer, request.params.max_tokens)
        tokenizer = getattr(self._processor, "tokenizer", self._processor)
        return Completion(
            text=tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            finish_reason=finish,
            model=self.model,
            usage=Usage(input_tokens=prompt_length, output_tokens=len(answer)),
        )

    def _inputs(self, request: Request, frames: Frames | None) -> Any:
        """Prompt and pixels as tensors, batch size 1."""
        text = self._processor.apply_chat_template(
            chat_messages(request, frames), tokenize=False, add_generation_prompt=True
        )
        if frames is None:
            # The template has written every special token, so the tokenizer must add none.
            return self._processor(text=[text], return_tensors="pt", add_special_tokens=False)
        array = frames_array(frames)
        part = "video_processor" if frames.record.data_type == "video" else "image_processor"
        media: dict[str, Any] = {}
        size = getattr(getattr(self._processor, part, None), "size", None)
        if size is not None and "longest_edge" in dict(size):
            media["size"] = FIXED_SIZE
        if frames.record.data_type == "video":
            media |= {"do_sample_frames": False, "video_metadata": [dict(video_metadata(frames.record))]}
            return self._processor(text=[text], videos=[array], videos_kwargs=media, return_tensors="pt")
        return self._processor(text=[text], images=[array[0]], images_kwargs=media, return_tensors="pt")

    def _decoding(self, request: Request) -> dict[str, Any]:
        """Arguments of `generate`; the model's other defaults (e.g. repetition penalty) stay."""
        import torch

        params = request.params
        chosen: dict[str, Any] = {"max_new_tokens": params.max_tokens}
        if params.temperature <= 0.0:
            return chosen | {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        torch.manual_seed(int(request.key[:8], 16) if params.seed is None else params.seed)
        chosen |= {"do_sample": True, "temperature": params.temperature}
        if params.top_p is not None:
            chosen["top_p"] = params.top_p
        return chosen

    def _finish(self, answer: list[int], max_tokens: int) -> FinishReason:
        """`stop` if the last token ends a turn."""
        ends = self._net.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        if answer and answer[-1] in ends:
            return "stop"
        return "length" if len(answer) >= max_tokens else "other"


def _load(spec: BackendSpec) -> tuple[Any, Any]:
    """Model and processor, in the worker thread."""
    import torch
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    extra = {"dtype": "auto", **spec.extra}
    remote = {"trust_remote_code": bool(extra.pop("trust_remote_code", False)), "revision": spec.revision}
    if "device_map" not in extra and torch.cuda.is_available():
        extra["device_map"] = "auto"
    base = adapted(spec.model)
    if base:
        find_model(base, where=f"the model of the adapters in {spec.model}")
        remote["revision"] = None  # the one that is named is of the adapters
    try:
        config = AutoConfig.from_pretrained(base or spec.model, **remote)
        sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        net = auto.from_pretrained(base or spec.model, **remote, **extra)
        if base:
            net = with_adapters(net, spec.model)
        net = net.eval()
        processor = AutoProcessor.from_pretrained(base or spec.model, **remote)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"transformers cannot load {spec.model!r}: {' '.join(str(error).split())[:300]}",
            hint="check model, revision and extra of this backend",
        ) from error
    number_behind_clips(net)
    return net, processor


def adapted(model: str) -> str:
    """The model that adapters in a folder belong to; empty: the folder holds none.

    Raises:
        ConfigError: the folder does not say.
    """
    path = Path(model).expanduser() / "adapter_config.json"
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_bytes())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"adapters that do not name their model: {error}", where=str(path), hint="merge them into it"
        ) from None


def with_adapters(net: Any, folder: str) -> Any:
    """The model with adapters merged into its weights."""
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingExtraError("peft", "train") from None
    with warnings.catch_warnings():
        # peft 0.21 asks for an attribute that transformers 5.23 has renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return PeftModel.from_pretrained(net, folder).merge_and_unload()
