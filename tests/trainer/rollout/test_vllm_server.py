"""The client of a vLLM server: what it sends, what it makes of answers, when it tries again."""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.trainer.rollout.vllm_fake import Answer, FakeVllm, fake_vllm
from tests.trainer.rollout.vllm_prompts import World, make_batch, make_world, move
from videop2r_data.errors import AuthError, BackendError, ConfigError, RefusedError, TransientError
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.rollout import vllm_sync
from videop2r_data.trainer.rollout.vllm_server import VllmServerEngine
from videop2r_data.trainer.rollout.vllm_sync import Http
from videop2r_data.trainer.settings.rl import SamplingSpec, VllmSpec

KINDS = ("video", "image", "text")
WARM = SamplingSpec(temperature=1.0, max_new_tokens=8, backend="vllm-server")
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return make_world(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def batch(world: World) -> PromptBatch:
    return make_batch(world.policy, KINDS)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_sync, "backoff_s", lambda attempt, rng: 0.0)


def ok(told: Any = None) -> Callable[[Any], Answer]:
    return lambda body: (200, told)


def routes(batch: PromptBatch) -> dict[str, Callable[[Any], Answer]]:
    """A server in good order, which answers prompt b with tokens that tell b and g."""

    def chat(body: Any) -> Answer:
        b = batch.texts.index(body["messages"][0]["content"][-1]["text"])
        choices = [
            {"index": g, "token_ids": [40 + b, 50 + g, 426], "finish_reason": "stop"}
            for g in range(body["n"])
        ]
        return 200, {"prompt_token_ids": batch.ids[b], "choices": choices[::-1]}

    return {
        "/v1/models": ok({"data": [{"id": "tiny", "max_model_len": 1000}]}),
        "/get_world_size": ok({"world_size": 1}),
        "/collective_rpc": ok({"results": [None]}),
        "/reset_prefix_cache": ok({"success": True}),
        "/reset_encoder_cache": ok(),
        "/reset_mm_cache": ok(),
        CHAT: chat,
    }


@contextmanager
def running(
    world: World,
    batch: PromptBatch,
    folder: Path,
    spec: SamplingSpec = WARM,
    others: dict[str, Callable[[Any], Answer]] | None = None,
) -> Iterator[tuple[VllmServerEngine, FakeVllm]]:
    with fake_vllm({**routes(batch), **(others or {})}) as fake:
        settings = VllmSpec(url=fake.url + "/", folder=str(folder), retries=2)
        engine = VllmServerEngine(world.net, world.policy.tokenizer, spec, settings)
        try:
            yield engine, fake
        finally:
            engine.close()


def test_rollouts_come_in_row_order_from_one_request_per_group(
    world: World, batch: PromptBatch, tmp_path: Path
) -> None:
    with running(world, batch, tmp_path) as (engine, fake):
        rows = engine.generate(batch, group_size=2, seeds=[10, 11, 20, 21, 30, 31])
        assert [row.ids for row in rows] == [[40 + b, 50 + g, 426] for b in range(3) for g in range(2)]
        assert all(row.finished for row in rows)
        asked = sorted(fake.asked(CHAT), key=lambda body: body["seed"])
        assert [(body["seed"], body["n"]) for body in asked] == [(10, 2), (20, 2), (30, 2)]
        assert engine.generate(batch, group_size=0 + 1, seeds=[1, 2, 3])[2].ids == [42, 50, 426]


def test_what_is_sent_decides_every_draw_and_every_pixel(
    world: World, batch: PromptBatch, tmp_path: Path
) -> None:
    with running(world, batch, tmp_path) as (engine, fake):
        engine.generate(batch, group_size=1, seeds=[1, 2, 3])
        video, image, text = sorted(fake.asked(CHAT), key=lambda body: body["seed"])
    for body in (video, image, text):
        assert body["return_token_ids"] is True
        assert body["stop_token_ids"] == [426]
        assert body["repetition_penalty"] == 1.0
        assert {"424", "436", "437"} <= set(body["logit_bias"])
        assert "426" not in body["logit_bias"]
    url = video["messages"][0]["content"][0]["video_url"]["url"]
    pictures = url.removeprefix("data:video/jpeg;base64,").split(",")
    frames = batch.frames[0]
    assert frames is not None
    assert frames.array is not None
    sent = np.stack([np.asarray(Image.open(io.BytesIO(b64decode(p)))) for p in pictures])
    assert np.array_equal(sent, frames.array)
    times = video["media_io_kwargs"]["video"]
    assert times["frames_indices"] == [0, 20, 40, 60, 80, 100]
    assert times["num_frames"] == -1
    assert video["mm_processor_kwargs"] == image["mm_processor_kwargs"]
    assert "media_io_kwargs" not in image
    assert [part["type"] for part in text["messages"][0]["content"]] == ["text"]


def test_greedy_rollouts_of_a_group_are_one_answer_repeated(
    world: World, batch: PromptBatch, tmp_path: Path
) -> None:
    greedy = SamplingSpec(temperature=0.0, max_new_tokens=8, backend="vllm-server")
    with running(world, batch, tmp_path, greedy) as (engine, fake):
        rows = engine.generate(batch, group_size=3, seeds=list(range(9)))
        assert [row.ids for row in rows] == [[40 + b, 50, 426] for b in range(3) for _ in range(3)]
        assert {body["n"] for body in fake.asked(CHAT)} == {1}


def test_weights_are_files_that_the_server_is_told_to_read_then_caches_are_emptied(
    world: World, batch: PromptBatch, tmp_path: Path
) -> None:
    held: list[dict[str, torch.Tensor]] = []

    def reload(body: Any) -> Answer:
        assert body["method"] == "reload_weights"
        folder = Path(body["kwargs"]["weights_path"])
        held.append({k: v for path in folder.iterdir() for k, v in load_file(path).items()})
        return 200, {"results": [None]}

    own = make_world(world.folder)
    with running(own, batch, tmp_path, others={"/collective_rpc": reload}) as (engine, fake):
        move(own.net, batch)
        engine.sync(own.net)
        paths = [route for route, _, _ in fake.seen][3:]  # behind what is asked of a server at first
        once = ["/collective_rpc", "/reset_prefix_cache", "/reset_encoder_cache", "/reset_mm_cache"]
        assert paths == [*once, *once]
        assert len(list(tmp_path.iterdir())) == 1
    for name, weight in own.net.named_parameters():
        assert torch.equal(held[1][name], weight)
        assert not torch.equal(held[0][name], weight)
    assert not list(tmp_path.iterdir())
    with pytest.raises(BackendError, match="closed"):
        engine.sync(own.net)


def test_caches_that_stay_full_are_an_error(world: World, batch: PromptBatch, tmp_path: Path) -> None:
    busy = {"/reset_prefix_cache": ok({"success": False})}
    with (
        pytest.raises(BackendError, match="still running"),
        running(world, batch, tmp_path, others=busy),
    ):
        pass


def test_a_server_without_developer_mode_or_folder_is_an_error_that_says_so(
    world: World, batch: PromptBatch, tmp_path: Path
) -> None:
    bare = routes(batch)
    del bare["/get_world_size"]
    with fake_vllm(bare) as fake:
        settings = VllmSpec(url=fake.url, folder=str(tmp_path))
        with pytest.raises(ConfigError, match="VLLM_SERVER_DEV_MODE=1"):
            VllmServerEngine(world.net, world.policy.tokenizer, WARM, settings)
    with fake_vllm(routes(batch)) as fake, pytest.raises(ConfigError, match=r"vllm\.folder"):
        VllmServerEngine(world.net, world.policy.tokenizer, WARM, VllmSpec(url=fake.url))
    with pytest.raises(ConfigError, match="has no address"):
        VllmServerEngine(world.net, world.policy.tokenizer, WARM, VllmSpec())


def test_another_prompt_and_a_missing_rollout_are_errors(
    world: World, batch: PromptBatch, tmp_path: Path
) -> None:
    one = {"index": 0, "token_ids": [1, 426], "finish_reason": "stop"}
    told = {"prompt_token_ids": [1, 2, 3], "choices": [one]}
    with running(world, batch, tmp_path, others={CHAT: ok(told)}) as (engine, fake):
        with pytest.raises(
            ConfigError, match=r"-[012]: vLLM and the trainer prepare this prompt differently"
        ):
            engine.generate(batch, group_size=1, seeds=[1, 2, 3])
        fake.answers[CHAT] = lambda body: (200, {**routes(batch)[CHAT](body)[1], "choices": [one]})
        with pytest.raises(BackendError, match="1 rollouts instead of 2"):
            engine.generate(batch, group_size=2, seeds=range(6))
        with pytest.raises(ConfigError, match="do not fit vLLM's 700"):
            engine.room = 700
            engine.generate(batch, group_size=1, seeds=[1, 2, 3])


def test_a_tied_policy_on_a_cpu_server_needs_the_worker_extension(batch: PromptBatch, tmp_path: Path) -> None:
    tied = make_world(tmp_path / "tied", tied=True)
    info: dict[str, Any] = {
        "device_config": {"device": "cpu"},
        "parallel_config": {"worker_extension_cls": ""},
    }
    with fake_vllm({**routes(batch), "/server_info": ok({"vllm_config": info})}) as fake:
        settings = VllmSpec(url=fake.url, folder=str(tmp_path / "weights"))
        with pytest.raises(ConfigError, match="worker-extension-cls"):
            VllmServerEngine(tied.net, tied.policy.tokenizer, WARM, settings)
        info["parallel_config"]["worker_extension_cls"] = (
            "videop2r_data.trainer.rollout.vllm_worker.PackingWorker"
        )
        VllmServerEngine(tied.net, tied.policy.tokenizer, WARM, settings)
        assert [b["method"] for b in fake.asked("/collective_rpc")] == ["reload_weights", "pack_head_again"]
        info["device_config"]["device"] = "cuda"
        VllmServerEngine(tied.net, tied.policy.tokenizer, WARM, settings)
        assert len(fake.asked("/collective_rpc")) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RefusedError), (401, AuthError), (404, ConfigError), (429, TransientError), (500, TransientError)],
)
def test_a_status_decides_whether_to_try_again(status: int, error: type[Exception]) -> None:
    tries = count()

    def fail(body: Any) -> Answer:
        next(tries)
        return status, {"error": {"message": "no such luck"}}

    with fake_vllm({"/x": fail}) as fake, pytest.raises(error):
        Http(VllmSpec(url=fake.url, retries=3)).post("/x", {})
    assert next(tries) == (4 if error is TransientError else 1)


def test_a_passing_failure_is_survived_and_the_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOUT_KEY", "k-1")
    answers = iter([(503, b"busy"), (200, b"{no json"), (200, {"fine": 1})])
    with fake_vllm({"/x": lambda body: next(answers)}) as fake:
        http = Http(VllmSpec(url=fake.url, api_key_env="ROLLOUT_KEY", retries=2))
        assert http.get("/x") == {"fine": 1}
        assert {headers["Authorization"] for _, _, headers in fake.seen} == {"Bearer k-1"}
    monkeypatch.delenv("ROLLOUT_KEY")
    with pytest.raises(ConfigError, match="ROLLOUT_KEY is not set"):
        Http(VllmSpec(url="http://h:1", api_key_env="ROLLOUT_KEY"))


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(TransientError, match=r"no answer from http://127\.0\.0\.1:9/x.*try 2, the last"):
        Http(VllmSpec(url="http://127.0.0.1:9", retries=1)).get("/x")


def telling(mode: str, batch: PromptBatch) -> dict[str, Callable[[Any], Answer]]:
    """A server that tells log-probabilities of this mode."""

    def chat(body: Any) -> Answer:
        status, told = routes(batch)[CHAT](body)
        for choice in told["choices"]:
            content = [{"token": "?", "logprob": -0.5 * t} for t in range(len(choice["token_ids"]))]
            choice["logprobs"] = {"content": content} if body.get("logprobs") else None
        return status, told

    info = {"model_config": {"logprobs_mode": mode}, "device_config": {}, "parallel_config": {}}
    return {CHAT: chat, "/server_info": ok({"vllm_config": info})}


@pytest.mark.parametrize(
    ("mode", "spec", "told"),
    [
        ("raw_logprobs", {}, True),
        ("processed_logprobs", {}, False),
        ("processed_logprobs", {"temperature": 0.7}, True),
        ("raw_logprobs", {"temperature": 0.7}, False),
        ("processed_logprobs", {"temperature": 0.7, "top_p": 0.9}, False),
    ],
)
def test_log_probabilities_are_recorded_where_they_are_the_trainers(
    world: World, batch: PromptBatch, tmp_path: Path, mode: str, spec: dict[str, Any], told: bool
) -> None:
    settings = SamplingSpec(**{"max_new_tokens": 8, "backend": "vllm-server", **spec})
    ended: dict[int, Any] = {}
    with running(world, batch, tmp_path, settings, telling(mode, batch)) as (engine, _):
        rows = engine.generate(batch, group_size=2, seeds=range(6), ended=ended.__setitem__)
    assert ended == dict(enumerate(rows))
    assert [row.logps for row in rows] == [[0.0, -0.5, -1.0] if told else None] * 6
