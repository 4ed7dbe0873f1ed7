"""What is asked of vLLM, and what of its answers is refused."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainer.rollout.vllm_prompts import make_frames
from tests.trainer.rollout.vllm_serve import DEV_MODE, serve_command
from videop2r_data.backends import vllm_prompt
from videop2r_data.errors import BackendError, ConfigError
from videop2r_data.schemas.calls import Frames
from videop2r_data.trainer.rollout.base import RolledOut, Tokens
from videop2r_data.trainer.rollout.vllm_requests import (
    check_call,
    check_prompt,
    rolled_out,
    sampling_fields,
)
from videop2r_data.trainer.rollout.vllm_worker import PackingWorker
from videop2r_data.trainer.settings.rl import EXTENSION, SamplingSpec, VllmSpec

TOKENS = Tokens(end=7, never=frozenset({8, 9}))


def prompts(*ids: list[int]) -> Any:
    return SimpleNamespace(
        ids=list(ids), examples=[SimpleNamespace(sample_id=f"s{i}") for i in range(len(ids))]
    )


def test_every_sampling_setting_is_spelled_out() -> None:
    fields = sampling_fields(SamplingSpec(temperature=0.7, top_p=0.9, top_k=40), TOKENS, bias=-100.0)
    assert fields == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 768,
        "stop_token_ids": [7],
        "logit_bias": {8: -100.0, 9: -100.0},
        "skip_special_tokens": False,
    }


def test_greedy_decoding_filters_nothing() -> None:
    fields = sampling_fields(SamplingSpec(temperature=0.0, top_p=0.5, top_k=3), TOKENS, bias=-1.0)
    assert (fields["temperature"], fields["top_p"], fields["top_k"]) == (0.0, 1.0, 0)


def test_a_clip_goes_with_its_times_and_without_resizing() -> None:
    clip = make_frames("video", 0)
    prompt = vllm_prompt("look", clip)
    ((array, about),) = prompt["multi_modal_data"]["video"]
    assert array is clip.array
    assert about["frames_indices"] == [0, 20, 40, 60, 80, 100]
    assert about["fps"] == pytest.approx(5.0)
    assert about["total_num_frames"] == 120
    assert about["do_sample_frames"] is False
    assert prompt["mm_processor_kwargs"]["size"] == {"shortest_edge": 1, "longest_edge": 2**31 - 1}


def test_a_picture_is_a_picture_and_text_is_text() -> None:
    picture = make_frames("image", 1)
    (image,) = vllm_prompt("look", picture)["multi_modal_data"]["image"]
    assert image.size == (84, 56)
    assert vllm_prompt("read", None) == {"prompt": "read"}
    with pytest.raises(BackendError, match="as an array"):
        vllm_prompt("look", Frames(picture.record, None, (b"x",)))


def test_a_rollout_ends_with_the_end_token_or_at_full_length() -> None:
    assert rolled_out([1, 2, 7], "stop", TOKENS) == RolledOut([1, 2, 7], finished=True)
    assert rolled_out((1, 2), "length", TOKENS) == RolledOut([1, 2], finished=False)


@pytest.mark.parametrize(
    ("ids", "reason"), [([1, 2], "stop"), ([1, 7], "length"), ([1], "abort"), ([1], None), ([], "stop")]
)
def test_any_other_end_is_an_error(ids: list[int], reason: str | None) -> None:
    with pytest.raises(BackendError, match="ended a rollout"):
        rolled_out(ids, reason, TOKENS)


def test_a_suppressed_token_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"drew token\(s\) \[9\]"):
        rolled_out([1, 9, 7], "stop", TOKENS)


@pytest.mark.parametrize(
    ("got", "place"),
    [([1, 2, 4], "3 and 3 tokens, first difference at 2"), ([1, 2], "2 and 3 tokens, first difference at 2"),
     ([1, 2, 3, 3], "4 and 3 tokens, first difference at 3"), (None, "0 and 3 tokens")],
)  # fmt: skip
def test_another_prompt_is_an_error_that_names_the_place(got: list[int] | None, place: str) -> None:
    check_prompt(prompts([5], [1, 2, 3]), 1, [1, 2, 3])
    with pytest.raises(ConfigError, match=f"(?s)sample s1.*{place}"):
        check_prompt(prompts([5], [1, 2, 3]), 1, got)


def test_what_does_not_fit_is_found_before_anything_is_sent() -> None:
    spec = SamplingSpec(max_new_tokens=10)
    check_call(prompts([1] * 90), 2, [0, 1], spec, 100)
    with pytest.raises(ConfigError, match="a prompt of 91 tokens and 10 new ones do not fit vLLM's 100"):
        check_call(prompts([1] * 91), 2, [0, 1], spec, 100)
    with pytest.raises(ValueError, match="3 seeds for 1 prompts times 2"):
        check_call(prompts([1]), 2, [0, 1, 2], spec, 100)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": {"dtype": "float16"}}, "engine.dtype is set by the trainer"),
        ({"url": "localhost:8000"}, "give http://HOST:PORT"),
        ({"url": "http://h:1/v1/"}, "without /v1"),
        ({"folder": "weights"}, "absolute path"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        VllmSpec.model_validate(settings)


def test_the_server_command_is_the_one_of_the_docs() -> None:
    """The tests with a real server start it with this command."""
    page = Path(__file__).parents[3].joinpath("docs", "training.md").read_text().replace("\\\n", "")
    line = shlex.split(next(line for line in page.splitlines() if " vllm serve " in line))
    assert dict([line[0].split("=")]) == DEV_MODE
    assert line[2:] == serve_command("runs/paper-7b-sft/final", VllmSpec(transfer="nccl"))
    folder, cpu = (serve_command("m", VllmSpec(), cpu=cpu) for cpu in (False, True))
    assert "--weight-transfer-config" not in folder and cpu[: len(folder)] == folder
    assert " ".join(cpu[len(folder) :]) in " ".join(page.split())


def test_importing_the_engines_imports_no_vllm() -> None:
    names = ("engine", "server", "sync", "requests", "worker")
    lines = [f"import videop2r_data.trainer.rollout.vllm_{name}" for name in names]
    code = "; ".join(["import sys", *lines, "sys.exit('vllm' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    light = "import sys, videop2r_data.trainer.settings.rl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0


def test_the_worker_extension_is_where_the_command_says() -> None:
    module, _, name = EXTENSION.rpartition(".")
    assert getattr(importlib.import_module(module), name) is PackingWorker
