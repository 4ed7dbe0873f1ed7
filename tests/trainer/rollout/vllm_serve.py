"""The command of docs/training.md that starts the server of rollouts, with other values."""

from __future__ import annotations

import json

from videop2r_data.trainer.settings.rl import EXTENSION, VllmSpec

DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}
"""Environment of the server: without it vLLM has no routes for weights and caches."""


def serve_command(
    model: str, spec: VllmSpec, *, dtype: str = "bfloat16", port: int = 8000, cpu: bool = False
) -> list[str]:
    command = ["vllm", "serve", model, "--port", str(port), "--dtype", dtype]
    command += ["--max-model-len", str(spec.max_model_len)]
    command += ["--chat-template", "{{ messages[0].content }}", "--chat-template-content-format", "string"]
    command += ["--trust-request-mm-kwargs", "--generation-config", "vllm"]
    command += ["--limit-mm-per-prompt", json.dumps({"image": 1, "video": 1}, separators=(",", ":"))]
    if cpu:
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(spec.max_model_len)]
        command += ["--worker-extension-cls", EXTENSION]
    if spec.transfer != "folder":
        command += ["--weight-transfer-config", json.dumps({"backend": spec.transfer}, separators=(",", ":"))]
    return command
