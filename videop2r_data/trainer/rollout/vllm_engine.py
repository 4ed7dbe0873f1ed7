"""Rollouts from a vLLM engine in the training process: one per process, on its own device.

A prompt is prepared once, by vLLM's own processor, and submitted G times, each with its own seed; vLLM keeps
the features of a clip by its content, so the vision tower runs once per group.

After an update the weights go to the engine through vLLM's `reload_weights`: it takes tensors under
checkpoint names, lays them out as the kernels of this device want them, and copies them into the memory
that captured graphs point to. (Calling the model's `load_weights` alone would be wrong wherever a kernel
wants another layout, and fails on CPUs for that reason.) Then the caches of keys, values and picture
features are emptied: they were computed with the old weights, and the scheduler must not believe that a
worker still has them.

The engine core runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), so that tensors are handed over as
they are. With several training processes each engine is launched as one rank of theirs; a model that needs
several GPUs for rollouts wants the server (`vllm_server`).
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from videop2r_data.backends import vllm_prompt
from videop2r_data.errors import BackendError, ConfigError, MissingExtraError
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.model.weights import bare, policy_weights
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.rollout.base import Ended, RolledOut, Tokens
from videop2r_data.trainer.rollout.vllm_requests import check_call, check_prompt, rolled_out, sampling_fields
from videop2r_data.trainer.rollout.vllm_worker import pack_head_again
from videop2r_data.trainer.settings.rl import SamplingSpec, VllmSpec


class VllmEngine:
    """vLLM in this process; see `RolloutEngine`.

    The weights of `net` are handed over at once; configuration and processor come from `model`, a folder or a
    Hub id.

    Raises:
        MissingExtraError: vLLM is not installed.
        ConfigError: an engine argument that vLLM does not know, or a value that it refuses.
    """

    def __init__(
        self,
        net: Any,
        tokenizer: Any,
        spec: SamplingSpec,
        settings: VllmSpec,
        *,
        model: str,
        revision: str | None = None,
    ) -> None:
        self._spec, self._settings, self.room = spec, settings, settings.max_model_len
        self._tokens = Tokens.of(bare(net).config, tokenizer)
        self._fields = sampling_fields(spec, self._tokens, bias=float("-inf"))
        self._records = spec.logprobs_mode is not None
        if self._records:
            self._fields["logprobs"] = 0  # of the drawn token alone
        self._numbers = itertools.count()
        self._asleep: set[str] = set()
        self._net: Any = None
        self._llm: Any = _start(net, settings, model, revision, spec.logprobs_mode)
        self.sync(net)

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Ended | None = None
    ) -> list[RolledOut]:
        """G completions of each prompt; see `RolloutEngine.generate`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        check_call(prompts, group_size, seeds, self._spec, self.room)
        fields = {**self._fields, "detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}
        if self._settings.sleep == 2 and "weights" in self._asleep:
            self.sync(self._net)  # no update since: the same weights once more
        self._wake("weights", "kv_cache")
        engine = self._open().llm_engine
        rows: dict[str, int] = {}
        done: dict[int, RolledOut] = {}
        try:
            for row, seed in enumerate(seeds):
                b, g = divmod(row, group_size)
                if g == 0:
                    ready = _prepared(engine, prompts, b)
                name = f"rollout-{next(self._numbers)}"
                engine.add_request(name, ready, SamplingParams(**fields, seed=seed))
                rows[name] = row
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        row, one = rows[output.request_id], output.outputs[0]
                        ids, logps = one.token_ids, None
                        if self._records:
                            logps = [step[i].logprob for i, step in zip(ids, one.logprobs, strict=True)]
                        done[row] = rolled_out(ids, one.finish_reason, self._tokens, logps)
                        if ended is not None:
                            ended(row, done[row])
        except BaseException:
            engine.abort_request(list(rows))
            raise
        finally:
            if self._settings.sleep:
                self._open().sleep(level=self._settings.sleep)
                self._asleep = {"weights", "kv_cache"}
        if len(done) != len(rows):
            raise BackendError(f"vLLM ended {len(done)} of {len(rows)} rollouts")
        return [done[row] for row in range(len(rows))]

    def sync(self, net: Any) -> None:
        """Hand the policy's weights over and forget what the old ones computed; with sharded weights every
        rank calls it."""
        from vllm.platforms import current_platform

        llm = self._open()
        self._net = net
        self._wake("weights")
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": policy_weights(net)})
        if current_platform.is_cpu():
            llm.apply_model(pack_head_again)
        if not llm.reset_prefix_cache():
            raise BackendError("vLLM did not empty its prefix cache: requests are still running")
        llm.llm_engine.reset_encoder_cache()
        llm.reset_mm_cache()

    def close(self) -> None:
        """Stop the engine and free its memory; safe to call twice."""
        llm, self._llm, self._net = self._llm, None, None
        if llm is None:
            return
        from accelerate.utils.memory import clear_device_cache

        with _own_groups_only():
            llm.llm_engine.engine_core.shutdown()
        del llm
        clear_device_cache(garbage_collection=True)

    def _open(self) -> Any:
        if self._llm is None:
            raise BackendError("this vLLM engine is closed")
        return self._llm

    def _wake(self, *parts: str) -> None:
        for part in parts:
            if part in self._asleep:
                self._open().wake_up([part])
                self._asleep.discard(part)


def _prepared(engine: Any, prompts: PromptBatch, b: int) -> Any:
    """Prompt b as vLLM's processor makes it."""
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    renderer = engine.renderer
    parsed = parse_model_prompt(engine.model_config, vllm_prompt(prompts.texts[b], prompts.frames[b]))
    (ready,) = renderer.render_cmpl([parsed], renderer.default_chat_tok_params)
    check_prompt(prompts, b, ready["prompt_token_ids"])
    return ready


def _start(net: Any, settings: VllmSpec, model: str, revision: str | None, logprobs_mode: str | None) -> Any:
    """The engine with the checkpoint's weights.

    Not `load_format: dummy`, although the policy's own follow at once: it would fill constants that no
    checkpoint holds (the normalisation of pixels) with noise.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError:
        raise MissingExtraError("vLLM", "vllm") from None
    dtype: str = settings.dtype
    if dtype == "policy":
        dtype = str(next(bare(net).parameters()).dtype).removeprefix("torch.")
    arguments: dict[str, Any] = {
        "gpu_memory_utilization": settings.memory,
        "max_model_len": settings.max_model_len,
        "limit_mm_per_prompt": {"image": 1, "video": 1},
        "mm_processor_cache_gb": 0,  # a clip is prepared once; it does not come back for an epoch
        "disable_log_stats": True,
        "seed": 0,
        "logprobs_mode": logprobs_mode or "raw_logprobs",
    }
    if current_platform.is_cpu():
        # A prompt in one piece: where one with a seed is computed in several, vLLM winds its random generator
        # back, which CPU generators cannot do, and the engine dies (seen with 0.32).
        arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": settings.max_model_len}
    if Ranks.here().world > 1:
        # Each engine is a rank of the training processes' group, and makes no group of its own.
        arguments["distributed_executor_backend"] = "external_launcher"
    arguments |= settings.engine
    if settings.sleep:
        arguments["enable_sleep_mode"] = True
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):  # a starting engine seeds all global generators
            return LLM(model=model, revision=revision, dtype=dtype, generation_config="vllm", **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"vLLM cannot start {model!r}: {' '.join(str(error).split())[:300]}",
            hint="check engine, memory and max_model_len of vllm against vLLM's engine arguments",
        ) from error
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


@contextmanager
def _own_groups_only() -> Iterator[None]:
    """Within the block an engine that stops leaves the trainer's process group standing; an engine assumes
    that it owns its process, and destroys the default group of torch.distributed."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        yield
        return
    from vllm.distributed.parallel_state import destroy_model_parallel
    from vllm.v1.engine import core

    original = core.cleanup_dist_env_and_memory
    core.cleanup_dist_env_and_memory = destroy_model_parallel
    try:
        yield
    finally:
        core.cleanup_dist_env_and_memory = original
