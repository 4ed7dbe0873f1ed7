"""vLLM in this process: one engine, fed with arrays, no server and no encoding of pictures.

The prompt is written by the model's own chat template and rendered by the engine's renderer, the path that
`vllm serve` takes too, and the sampling defaults of its `generation_config.json` apply here as they do there.
`extra` of the recipe goes to vLLM's engine arguments, e.g. `tensor_parallel_size: 8`, `max_model_len: 16384`.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from videop2r_data.backends.chat_input import chat_messages, vllm_prompt
from videop2r_data.errors import (
    AuthError,
    BackendError,
    ConfigError,
    MissingExtraError,
    RefusedError,
    TransientError,
)
from videop2r_data.files import find_model
from videop2r_data.schemas import BackendSpec, Completion, FinishReason, Frames, Request, Usage

_FINISH: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class VllmBackend:
    """One model in vLLM's asynchronous engine.

    Args:
        spec: `model` is a Hub id or a folder; `extra` holds engine arguments.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self.model = spec.model
        self._spec = spec
        self._engine: Any = None
        self._templater: Any = None
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"VllmBackend(model={self.model!r})"

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together; None before `start`."""
        return None if self._engine is None else int(self._engine.model_config.max_model_len)

    async def start(self) -> None:
        """Load the model; minutes for a large one, during which the loop stands still.

        Raises:
            MissingExtraError: vLLM is not installed.
            ConfigError: an engine argument that vLLM does not know, or a value that it refuses.
        """
        if self._engine is not None:
            return
        find_model(self.model, where="model of a backend", revision=self._spec.revision)
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError:
            raise MissingExtraError("vllm", "vllm") from None
        settings: dict[str, Any] = {"disable_log_stats": True, **self._spec.extra}
        if self._spec.revision is not None:
            settings.setdefault("revision", self._spec.revision)
            settings.setdefault("tokenizer_revision", self._spec.revision)
        try:
            arguments = AsyncEngineArgs(model=self.model, **settings)
            # vLLM starts its own processes here and hands them this loop: a thread would not save time.
            self._engine = AsyncLLM.from_engine_args(arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"vLLM cannot start {self.model!r}: {_short(error)}",
                hint="check model and extra of this backend against vLLM's engine arguments",
            ) from error
        self._templater = _load_templater(self._engine, self._spec)

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call, within `spec.timeout_s` seconds; cancelling it frees its place in the engine.

        Raises:
            TransientError: the deadline passed, or this generation failed and the engine lives on.
            RefusedError: the prompt is too long, or its media do not fit the model.
            AuthError: the engine died; no call can succeed.
        """
        if self._engine is None:
            raise BackendError(f"{self!r} is not started")
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            async with asyncio.timeout(self._spec.timeout_s):
                output = await self._generate(request, frames)
        except TimeoutError:
            raise TransientError(f"no answer from {self!r} within {self._spec.timeout_s:g} s") from None
        except EngineDeadError as error:
            failure = AuthError(f"the vLLM engine of {self.model!r} died: {_short(error)}")
            failure.hint = "look at vLLM's own log above, then run the same command again: it goes on"
            raise failure from error
        except EngineGenerateError as error:
            raise TransientError(f"vLLM failed on this request: {_short(error)}") from error
        except (VLLMClientError, ValueError) as error:
            raise RefusedError(f"vLLM refused this request: {_short(error)}") from error
        answer = output.outputs[0]
        return Completion(
            text=answer.text,
            finish_reason=_FINISH.get(answer.finish_reason, "other"),
            model=self.model,
            usage=Usage(input_tokens=len(output.prompt_token_ids or ()), output_tokens=len(answer.token_ids)),
        )

    async def close(self) -> None:
        """Stop the engine and its processes; safe to call twice."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

    async def _generate(self, request: Request, frames: Frames | None) -> Any:
        """The engine's final output for this request."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        engine = self._engine
        renderer = engine.renderer
        text = self._templater.apply_chat_template(
            chat_messages(request, frames), tokenize=False, add_generation_prompt=True
        )
        prompt = parse_model_prompt(engine.model_config, vllm_prompt(text, frames))
        (rendered,) = await renderer.render_cmpl_async([prompt], renderer.default_chat_tok_params)
        number = f"{request.key[:16]}-{next(self._numbers)}"
        final = None
        async for output in engine.generate(rendered, self._sampling(request), number):
            final = output
        if final is None or not final.finished:
            raise TransientError("vLLM ended the request without an answer")
        return final

    def _sampling(self, request: Request) -> Any:
        """Sampling parameters: the model's defaults below, the request's own above."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = request.params
        chosen: dict[str, Any] = {"temperature": params.temperature, "max_tokens": params.max_tokens}
        if params.top_p is not None:
            chosen["top_p"] = params.top_p
        if params.seed is not None:
            chosen["seed"] = params.seed
        defaults = self._engine.model_config.get_diff_sampling_param()
        return SamplingParams(**{**defaults, **chosen}, output_kind=RequestOutputKind.FINAL_ONLY)


def _load_templater(engine: Any, spec: BackendSpec) -> Any:
    """What knows the chat template: the processor of a multimodal model, else the tokenizer."""
    tokenizer = engine.get_tokenizer()
    if not engine.model_config.is_multimodal_model:
        return tokenizer
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(
        spec.model,
        revision=spec.revision,
        trust_remote_code=bool(spec.extra.get("trust_remote_code", False)),
    )
    return processor if getattr(processor, "chat_template", None) else tokenizer


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "…"
