"""Settings of the vLLM rollout engines, and the command that starts the server. Needs no vLLM."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas import Model
from videop2r_data.trainer.rollout.vllm_worker import EXTENSION

PASS_THROUGH = "{{ messages[0].content }}"  # noqa: S105 - a template
"""Chat template of the server: the prompt comes rendered by the trainer, nothing is added to it."""
DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}
"""Environment of the server: without it vLLM has no routes for weights and caches."""
CPU_ARGUMENTS = {"enable_chunked_prefill": False}
"""What the engine needs on a CPU: a prompt in one piece. When a prompt with a seed is computed in several,
vLLM winds its random generator back, which CPU generators cannot do: the engine dies (seen with 0.32)."""
_OURS = frozenset(
    {"model", "revision", "dtype", "generation_config", "chat_template", "weight_transfer_config"}
)


class VllmSpec(Model):
    """How vLLM runs beside the trainer.

    *In process* (`backend: vllm`) each training process has an engine of its own on its own GPU and draws the
    rollouts of its own prompts. *As a server* (`backend: vllm-server`) every training process sends its
    prompts to the one server, and the first process sends the weights.
    """

    engine: dict[str, Any] = Field(default_factory=dict)
    """In process: further engine arguments of vLLM, e.g. `max_num_seqs: 64`. A server has them as flags."""
    dtype: Literal["policy", "float32", "bfloat16", "float16"] = "policy"
    """Type of the engine's weights; `policy`: that of the policy's own. float32 master weights that train in
    mixed precision want `bfloat16` here."""
    memory: float = Field(default=0.3, gt=0, le=1)
    """In process: share of the device's memory for the engine's weights and cache."""
    max_model_len: int = Field(default=16_384, ge=1)
    """Tokens of the longest prompt and its completion together; what does not fit is an error, never cut."""
    sleep: Literal[0, 1, 2] = 0
    """In process, on GPUs: what the engine gives up between rollouts, so that the update has the memory.
    0: nothing; 1: the cache is dropped and the weights move to the host; 2: both are dropped, the weights are
    sent again before the next rollout."""
    url: str = ""
    """Server: its root, e.g. `http://10.0.0.2:8000` (no `/v1`)."""
    api_key_env: str = ""
    """Server: environment variable with its key; empty: it asks for none."""
    transfer: Literal["folder", "nccl", "ipc"] = "folder"
    """Server: how weights travel. `folder`: safetensors in `folder`, which both sides see (any device, no
    vLLM on the trainer's side); `nccl`: GPU to GPU, server on other GPUs; `ipc`: server on the trainer's GPU.
    `nccl` and `ipc` are vLLM's own weight transfer and need vLLM installed on the trainer's side too."""
    folder: str = ""
    """Server, transfer `folder`: absolute path for the weights; `/dev/shm/...` when both share a host."""
    master_address: str = "127.0.0.1"
    """Server, transfer `nccl`: address of the first training process, as the server's hosts reach it."""
    master_port: int = Field(default=29_600, ge=1, le=65_535)
    """Server, transfer `nccl`: a free port there."""
    packed: bool = True
    """Server, transfer `nccl` or `ipc`: weights travel in large buffers instead of one by one."""
    concurrency: int = Field(default=64, ge=1)
    """Server: requests (one per prompt) that one training process keeps open."""
    timeout_s: float = Field(default=1800.0, gt=0)
    """Server: for the rollouts of one prompt, and for one weight update."""
    retries: int = Field(default=4, ge=0)
    """Server: further tries after a lost connection, a timeout or status 408, 425, 429 or 5xx."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        taken = sorted(_OURS & set(self.engine))
        if taken:
            raise ValueError(f"engine.{taken[0]} is set by the trainer itself: leave it out")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url is {self.url!r}: give http://HOST:PORT")
        if self.url and self.url.rstrip("/").endswith("/v1"):
            raise ValueError(f"url is {self.url!r}: give the root of the server, without /v1")
        if self.folder and not self.folder.startswith("/"):
            raise ValueError(
                f"folder is {self.folder!r}: the server has another working directory, give an absolute path"
            )
        return self


def serve_command(
    model: str, spec: VllmSpec, *, dtype: str = "bfloat16", port: int = 8000, cpu: bool = False
) -> list[str]:
    """The command that starts the server which `backend: vllm-server` expects (with `DEV_MODE` set).

    >>> " ".join(serve_command("Qwen/Qwen2.5-VL-3B-Instruct", VllmSpec(transfer="nccl"))[:5])
    'vllm serve Qwen/Qwen2.5-VL-3B-Instruct --port 8000'

    Args:
        model: the policy's checkpoint.
        spec: `max_model_len` and `transfer` count.
        dtype: type of the weights there.
        port: where it listens.
        cpu: the server has no GPU; see `CPU_ARGUMENTS` and `vllm_worker`.
    """
    command = ["vllm", "serve", model, "--port", str(port), "--dtype", dtype]
    command += ["--max-model-len", str(spec.max_model_len)]
    command += ["--chat-template", PASS_THROUGH, "--chat-template-content-format", "string"]
    command += ["--trust-request-mm-kwargs", "--generation-config", "vllm"]
    command += ["--limit-mm-per-prompt", json.dumps({"image": 1, "video": 1}, separators=(",", ":"))]
    if cpu:
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(spec.max_model_len)]
        command += ["--worker-extension-cls", EXTENSION]
    if spec.transfer != "folder":
        command += ["--weight-transfer-config", json.dumps({"backend": spec.transfer}, separators=(",", ":"))]
    return command
