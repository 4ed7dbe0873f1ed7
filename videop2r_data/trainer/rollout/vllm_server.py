"""Rollouts from a vLLM server on GPUs of its own: token ids out, weights in after every update.

docs/training.md has the command that starts it. Its developer mode opens the routes for weights and caches:
whoever reaches them owns the model, so keep the port on a private network. Its chat template passes the
prompt through, which the trainer has rendered; the answer holds its token ids, which must be the trainer's.
Clips travel as lossless PNG frames with their times (`--trust-request-mm-kwargs`): both sides see the same
pixels. Chat completions with `return_token_ids` is the only route for this: `/v1/completions` takes no
media, and `/inference/v1/generate` takes media but not the times of their frames (vLLM 0.32).

One request asks for a whole group: the clip travels, is decoded and is encoded once. vLLM seeds rollout g
with the group's first seed plus g: a rollout is still a pure function of the seeds, but draws other
tokens than the engine in process, which takes a seed for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
import torch

from videop2r_data.backends import FIXED_SIZE, content_parts, frames_array, vllm_fields
from videop2r_data.errors import BackendError, ConfigError
from videop2r_data.media import encode_frames
from videop2r_data.schemas import Frames, MediaSpec
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.model.weights import bare
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.rollout.base import Ended, RolledOut, Tokens
from videop2r_data.trainer.rollout.vllm_requests import check_call, check_prompt, rolled_out, sampling_fields
from videop2r_data.trainer.rollout.vllm_sync import RPC, EngineTransfer, FolderTransfer, Http
from videop2r_data.trainer.settings.rl import EXTENSION, SamplingSpec, VllmSpec

CHAT = "/v1/chat/completions"
WORLD = "/get_world_size"
"""A route that only the developer mode has."""
INFO = "/server_info?config_format=json"
LOWEST_BIAS = -100.0
"""The API clips logit biases to it: e^-100 of a token's chance is left, and what is drawn is checked."""
_LOSSLESS = MediaSpec(encoding="png")
_CACHES = ("/reset_prefix_cache", "/reset_encoder_cache", "/reset_mm_cache")


class VllmServerEngine:
    """A running vLLM server; see `RolloutEngine`. The weights of `net` are handed over at once.

    Raises:
        ConfigError: no address, no developer mode, nowhere to put weights.
        MissingExtraError: the transfer needs vLLM beside the trainer.
        TransientError: the server does not answer.
    """

    def __init__(self, net: Any, tokenizer: Any, spec: SamplingSpec, settings: VllmSpec) -> None:
        self._spec = spec
        self._http = Http(settings)
        config = bare(net).config
        self._tokens = Tokens.of(config, tokenizer)
        tied = getattr(config, "tie_word_embeddings", False)
        self._model, served, mode, self._packs = _told(self._http, tied=tied)
        self._records = mode is not None and mode == spec.logprobs_mode
        self.room = min(settings.max_model_len, served)
        self._fields = sampling_fields(spec, self._tokens, bias=LOWEST_BIAS)
        if self._records:
            self._fields["logprobs"] = True
        dtype = None if settings.dtype == "policy" else getattr(torch, settings.dtype)
        made = FolderTransfer if settings.transfer == "folder" else EngineTransfer
        self._transfer: FolderTransfer | EngineTransfer | None = made(self._http, settings, dtype)
        self.sync(net)

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Ended | None = None
    ) -> list[RolledOut]:
        """G completions of each prompt; see `RolloutEngine.generate` and this module on seeds."""
        check_call(prompts, group_size, seeds, self._spec, self.room)
        # Greedy decoding gives one answer; vLLM refuses to give it twice.
        count = group_size if self._spec.temperature > 0 else 1
        bodies = [
            partial(self._body, text, frames, count, seed)
            for text, frames, seed in zip(prompts.texts, prompts.frames, seeds[::group_size], strict=True)
        ]
        rows: dict[int, RolledOut] = {}

        def keep(b: int, answer: Any) -> None:
            """Take over the rollouts of one prompt."""
            check_prompt(prompts, b, answer.get("prompt_token_ids"))
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if len(choices) != count:
                raise BackendError(f"the server gave {len(choices)} rollouts instead of {count}")
            for g in range(group_size):
                row, one = b * group_size + g, choices[g % count]
                logps = [step["logprob"] for step in one["logprobs"]["content"]] if self._records else None
                rows[row] = rolled_out(one["token_ids"], one["finish_reason"], self._tokens, logps)
                if ended is not None:
                    ended(row, rows[row])

        self._http.post_all(CHAT, bodies, keep)
        return [rows[row] for row in range(len(seeds))]

    def sync(self, net: Any) -> None:
        """Send the policy's weights and forget what the old ones computed; every training process calls it.

        Raises:
            BackendError: the engine is closed, the transfer failed, or requests are still running.
        """
        if self._transfer is None:
            raise BackendError("this connection to a vLLM server is closed")
        self._transfer.send(net)
        Ranks.here().first_then_all(self._forget)

    def close(self) -> None:
        """Leave the server alone; it keeps the last weights. Safe to call twice."""
        if self._transfer is not None:
            self._transfer.close()
        self._transfer = None

    def _forget(self) -> None:
        """Empty the caches of keys and values, and of picture features."""
        if self._packs:
            self._http.post(RPC, {"method": "pack_head_again"})
        for path in _CACHES:
            told = self._http.post(path)
            if isinstance(told, dict) and told.get("success") is False:
                raise BackendError("the server did not empty its caches: requests are still running")

    def _body(self, text: str, frames: Frames | None, count: int, seed: int) -> bytes:
        words = orjson.dumps({"type": "text", "text": text})
        media: dict[str, Any] = {}
        if frames is not None:
            pictures = encode_frames(frames_array(frames), _LOSSLESS)
            sent = Frames(frames.record, encoded=pictures, mime="image/png")
            words = content_parts(sent, "vllm") + b"," + words
            # A picture has no times to trust, but must not be resized either.
            is_video = frames.record.data_type == "video"
            media = vllm_fields(frames.record) if is_video else {"mm_processor_kwargs": {"size": FIXED_SIZE}}
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": orjson.Fragment(b"[" + words + b"]")}],
            "n": count,
            "seed": seed,
            "return_token_ids": True,
            **self._fields,
            **media,
        }
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)  # tokens are keys of `logit_bias`


def _told(http: Http, *, tied: bool) -> tuple[str, int, str | None, bool]:
    """The name of the server's model, how many tokens it takes, which log-probabilities it tells (None: not
    said), and whether its packed copy of the output layer has to be renewed after an update: on a CPU,
    where that layer is `tied` to the embedding.

    Raises:
        ConfigError: the server has no routes for weights, or workers that cannot renew that copy.
    """
    card = http.get("/v1/models")["data"][0]
    name, room = str(card["id"]), int(card["max_model_len"])
    try:
        http.get(WORLD)
    except ConfigError:
        raise ConfigError(
            f"the vLLM server at {http.url} takes no weights: it runs without developer mode",
            hint="start it with VLLM_SERVER_DEV_MODE=1 in its environment, on a private network",
        ) from None
    try:
        runs = http.get(INFO)["vllm_config"]
    except ConfigError:
        if tied:
            raise
        return name, room, None, False
    packs = tied and str(runs["device_config"].get("device")).startswith("cpu")
    if packs and runs["parallel_config"]["worker_extension_cls"] != EXTENSION:
        raise ConfigError(
            "a vLLM server on a CPU keeps an old copy of an output layer that shares the embedding's weight",
            hint=f"start it with --worker-extension-cls {EXTENSION}, this package in its environment",
        )
    return name, room, (runs.get("model_config") or {}).get("logprobs_mode"), packs
