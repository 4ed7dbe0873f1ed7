"""Settings of rollouts and of the judge: sampling, vLLM, and who decides whether an observation suffices.
Loads neither torch nor vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas import BackendSpec, Model

# How rollouts are drawn. Reading this needs no torch.


class SamplingSpec(Model):
    """From which distribution tokens are drawn, for how long, and by what."""

    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it; 0: always the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens whose probabilities add up to this; 1: all."""
    top_k: int = Field(default=0, ge=0)
    """Only this many of the likeliest tokens; 0: all."""
    max_new_tokens: int = Field(default=768, ge=1)
    """Longest completion, the closing token included. [recipes the paper follows]"""
    backend: Literal["hf", "vllm", "vllm-server"] = "hf"
    """`hf`: the policy itself; `vllm`: an engine in this process; `vllm-server`: one on other GPUs."""
    rows: int = Field(default=0, ge=0)
    """hf: rollouts drawn at a time, to bound memory; whole groups, at least one; 0: all at once."""


# Settings of the vLLM rollout engines, and the command that starts the server. Needs no vLLM.


PASS_THROUGH = "{{ messages[0].content }}"  # noqa: S105 - a template
"""Chat template of the server: the prompt comes rendered by the trainer, nothing is added to it."""
EXTENSION = "videop2r_data.trainer.rollout.vllm_worker.PackingWorker"
"""For vLLM's `--worker-extension-cls`; by its path, because vLLM imports it in its own workers."""
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


# Settings of the perception judge in training.


class JudgingSpec(Model):
    """Who says whether an observation is sufficient, and how long the training waits for it."""

    kind: Literal["backend", "demo", "none"] = "none"
    """`backend`: a model; `demo`: the exact checker of the synthetic world; `none`: nobody is asked."""
    backend: BackendSpec | None = None
    """Of `kind: backend`: Anthropic, any OpenAI-compatible server, or a local model."""
    prompt: str = "judge-v1"
    """Name of a packaged prompt, or path of a text file."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of the verdict."""
    max_tokens: int = Field(default=512, ge=16)
    """Tokens of a reply at most."""
    concurrency: int | None = Field(default=None, ge=1, le=4096)
    """Calls in flight at most, per process; None: `backend.concurrency`."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Seconds from handing in the observations of a step; what is not judged by then is unscored."""
    cache: Path | None = None
    """Folder of the journal of answers, which several runs may share; None: one in the run folder."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars that the journal may hold in all, over all runs and processes; None: no limit."""
    on_max_cost: Literal["stop", "unscored"] = "stop"
    """At the limit: `stop` ends the run with an error, `unscored` trains on without the missing verdicts.

    Without verdicts perception gets no gradient, and the objective is another one: that is why it stops."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "backend") != (self.backend is not None):
            raise ValueError(
                f"kind: {self.kind} {'needs a' if self.kind == 'backend' else 'has no'} judging.backend"
            )
        if self.backend is None:
            if self.max_cost is not None:
                raise ValueError(f"max_cost limits nothing with kind: {self.kind}")
            return self
        if self.backend.kind == "demo":
            raise ValueError("for the demo world set judging.kind: demo, without a backend")
        if self.backend.batch:
            raise ValueError("backend.batch: a batch takes hours, a training step waits for its verdicts")
        if self.max_cost is not None and self.backend.price is None:
            raise ValueError("max_cost needs backend.price: without prices no limit holds")
        return self
