"""Gemini over its own protocol: frames, whole clips, refusals; and steps that are asked in batches."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fakes.anthropic_server import Cut, Status, ThirdsExpire
from tests.fakes.batch_servers import FakeBatches, FakeGemini, FakeOpenAIBatches
from tests.integration.test_build import Silent, question, rows_of, without_url, write_pool
from tests.integration.test_build_batches import write_pools
from tests.integration.test_file_batches import MODELS, SERVERS
from tests.media.clips import write_clip
from tests.pools import read_pool
from videop2r_data.backends import batches
from videop2r_data.backends.gemini import client as gemini
from videop2r_data.backends.gemini.client import GeminiBackend
from videop2r_data.backends.money import max_input_tokens
from videop2r_data.builders.checks.needs import look_at_servers
from videop2r_data.builders.checks.trial import TrialRows
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import AuthError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas.calls import ClipPart, Frames, MediaRecord, Message, Request, SamplingParams
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.recipe import Recipe
from videop2r_data.schemas.sample import Sample

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
TRACE = "<observation>A round shape.</observation><think>It is round.</think><answer>A</answer>"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret-key")
    known = batches.BatchCaller.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(
        batches.BatchCaller.__init__, "__kwdefaults__", {**known, "poll_s": 0.05, "max_poll_s": 0.1}
    )
    monkeypatch.setattr(gemini, "_LOOK_S", 0.01)


def spec_of(server: FakeBatches, **more: Any) -> BackendSpec:
    about = {"kind": "gemini", "model": "gemini-test", "base_url": server.url, "api_key_env": "A_KEY"}
    return BackendSpec.model_validate({**about, **more})


def clip_record(sha256: str = "0" * 64) -> MediaRecord:
    return MediaRecord(
        data_type="video", frames_sha256="1", count=2, width=56, height=28, indices=(0, 10),
        times_s=(0.0, 2.0), source_fps=5.0, source_frames=11, duration_s=2.2, source_width=56,
        source_height=28, file_sha256=sha256, file_bytes=1, sampler="test/1",
    )  # fmt: skip


def asked(**changes: Any) -> Request:
    params = SamplingParams(temperature=0.5, max_tokens=64, top_p=0.9, seed=7)
    messages = (Message("system", "be brief"), Message("user", "what?"))
    return Request("generate", "gemini-test", messages, params, **changes)


def run(work: Callable[[FakeGemini, GeminiBackend], Awaitable[None]], **extra: Any) -> None:
    async def main() -> None:
        async with FakeGemini() as server:
            backend = GeminiBackend(spec_of(server, extra=extra))
            await backend.start()
            try:
                await work(server, backend)
            finally:
                await backend.close()
                await backend.close()

    asyncio.run(main())


def test_what_is_sent_and_what_is_read() -> None:
    async def work(server: FakeGemini, backend: GeminiBackend) -> None:
        found = await backend.complete(asked())
        assert (found.text, found.finish_reason, found.model) == (
            "you said: what?",
            "stop",
            "gemini-test-001",
        )
        assert (found.usage.input_tokens, found.usage.output_tokens, found.reasoning_chars) == (10, 5, 2)
        (body,) = server.bodies
        assert body["systemInstruction"] == {"parts": [{"text": "be brief"}]}
        assert body["generationConfig"] == {
            "temperature": 0.5, "maxOutputTokens": 64, "topP": 0.9, "seed": 7, "thinkingConfig": {"x": 1},
        }  # fmt: skip
        listed = await backend.models()
        assert listed is not None and listed[0][:3] == ("gemini-test", None, 1_048_576)

    run(work, body={"generationConfig": {"thinkingConfig": {"x": 1}}})


def test_frames_go_with_their_times() -> None:
    async def work(server: FakeGemini, backend: GeminiBackend) -> None:
        frames = Frames(clip_record(), encoded=(b"one", b"two"))
        request = asked(media=frames.record, media_encoding="jpeg-95")
        await backend.complete(replace(request, messages=(Message("user", "what?", media=True),)), frames)
        times, first, *_ = parts = server.bodies[0]["contents"][0]["parts"]
        assert [part.get("text") for part in parts] == ["[0.00 s]", None, "[2.00 s]", None, "what?"]
        assert base64.b64decode(first["inlineData"]["data"]) == b"one" and times == {"text": "[0.00 s]"}

    run(work)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(400, "INVALID_ARGUMENT", "bad image"), RefusedError),
        (Status(400, "INVALID_ARGUMENT", "API key not valid"), AuthError),
        (Status(403, "PERMISSION_DENIED"), AuthError),
        (Status(429, "RESOURCE_EXHAUSTED"), TransientError),
        (Status(503, "UNAVAILABLE"), TransientError),
        (Cut(), TransientError),
    ],
    ids=str,
)
def test_errors(fault: Any, error: type[Exception]) -> None:
    async def work(server: FakeGemini, backend: GeminiBackend) -> None:
        server.fail("messages", fault)
        with pytest.raises(error) as caught:
            await backend.complete(asked())
        if isinstance(fault, Status) and fault.code == 429:
            assert isinstance(caught.value, TransientError)
            assert caught.value.retry_after_s == 40.0 and caught.value.rate_limited

    run(work)


def test_a_key_that_is_not_taken_is_no_list_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "another-key")

    async def main() -> None:
        async with FakeGemini() as server:
            backend = GeminiBackend(BackendSpec(kind="gemini", model="gemini-test", base_url=server.url))
            await backend.start()
            with pytest.raises(AuthError, match="API key not valid") as caught:
                await backend.models()
            await backend.close()
        assert caught.value.hint == "check the key in $GEMINI_API_KEY"
        assert "another-key" not in str(caught.value)

    asyncio.run(main())


def test_a_blocked_prompt_is_no_lost_answer() -> None:
    from videop2r_data.backends.gemini.wire import to_completion

    told = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    assert to_completion(told, asked="m").finish_reason == "content_filter"
    with pytest.raises(TransientError):
        to_completion({"error": "?"}, asked="m")


# ---- whole clips


def test_a_clip_is_uploaded_read_and_taken_away(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    from videop2r_data.files import file_digest

    async def work(server: FakeGemini, backend: GeminiBackend) -> None:
        record = clip_record(file_digest(clip))
        message = Message("user", "what?", media=True)
        ask = replace(asked(media=record, media_encoding="file"), messages=(message,))
        await backend.complete(ask, Frames(record, path=clip))
        assert server.calls["upload"] == 1 and server.files["files/f1"] == clip.read_bytes()
        part = server.bodies[0]["contents"][0]["parts"][0]
        assert part["fileData"]["mimeType"] == "video/mp4" and "videoMetadata" not in part
        assert server.deleted == ["files/f1"]
        part_of = record.model_copy(update={"part": ClipPart(start_s=0.5, end_s=1.5, first=3, frames=5)})
        server.fail("messages", Status(503))
        with pytest.raises(TransientError):
            await backend.complete(replace(ask, media=part_of), Frames(part_of, path=clip))
        assert server.deleted == ["files/f1", "files/f2"], "also after a call that failed"
        await backend.complete(replace(ask, media=part_of), Frames(part_of, path=clip))
        part = server.bodies[1]["contents"][0]["parts"][0]
        assert part["videoMetadata"] == {"startOffset": "0.5s", "endOffset": "1.5s"}

    run(work, video="file")


def test_a_clip_that_changed_or_cannot_be_read_is_not_asked_about(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    from videop2r_data.files import file_digest

    async def work(server: FakeGemini, backend: GeminiBackend) -> None:
        message = Message("user", "what?", media=True)
        record = clip_record(file_digest(clip))
        other = clip_record("f" * 64)
        ask = replace(asked(media=other, media_encoding="file"), messages=(message,))
        with pytest.raises(TransientError):
            await backend.complete(ask, Frames(other, path=clip))
        server.broken_clip = True
        with pytest.raises(RefusedError, match="cannot read this clip"):
            await backend.complete(replace(ask, media=record), Frames(record, path=clip))
        assert not server.bodies

    run(work, video="file")


def test_what_the_model_saw_is_in_the_key() -> None:
    """A file, not the frames that were sampled here; and no old key changes."""
    record = clip_record()
    sent = asked(media=record, media_encoding="file")
    keys = {
        sent.key,
        replace(sent, media_encoding="jpeg-95").key,
        replace(sent, media=clip_record("2" * 64)).key,
    }
    assert len(keys) == 3
    frames = replace(sent, media_encoding="jpeg-95")
    assert frames.key == replace(frames, media=clip_record("2" * 64)).key, "frames are frames"

    async def work(server: FakeGemini, _: GeminiBackend) -> None:
        spec = spec_of(server, extra={"video": "file"})
        assert spec.wire_of(record, "jpeg-95") == "file"
        image = record.model_copy(update={"data_type": "image"})
        assert spec.wire_of(image, "jpeg-95") == "jpeg-95"
        assert spec_of(server).wire_of(record, "jpeg-95") == "jpeg-95"
        bodies: list[Any] = [3, {"contents": []}, {"generationConfig": 3}]
        wrong: list[dict[str, Any]] = [{"video": "all"}, {"fps": 25}, *({"body": body} for body in bodies)]
        for extra in wrong:
            with pytest.raises(ConfigError, match="extra of kind gemini"):
                GeminiBackend(spec_of(server, extra=extra))
        price = {"input": 1.0, "output": 2.0}
        for name in ("maxOutputTokens", "candidateCount"):
            body = {"generationConfig": {name: 8}}
            GeminiBackend(spec_of(server, extra={"body": body}))
            with pytest.raises(ConfigError, match=f"{name} in extra.body"):
                GeminiBackend(spec_of(server, extra={"body": body}, price=price))
        with pytest.raises(ValidationError, match="may outlive"):
            spec_of(server, extra={"video": "file"}, batch=True)

    run(work)


def test_the_bound_of_what_a_call_costs_knows_small_frames_and_whole_clips() -> None:
    frames = asked(media=clip_record(), media_encoding="jpeg-95")
    text = max_input_tokens(asked())
    assert max_input_tokens(frames) == text + 2 * (1120 + 32)
    assert max_input_tokens(replace(frames, model="gpt")) == text + 2 * (3 + 32)
    whole = replace(frames, media_encoding="file")
    assert max_input_tokens(whole) == text + 4 * (1120 + 32 + 32)


# ---- builds


def recipe(generator: FakeBatches, kind: str, judges: FakeBatches, judge_kind: str, **more: Any) -> Recipe:
    def backend(server: FakeBatches, name: str) -> dict[str, Any]:
        price = {"input": 2.0, "output": 8.0}
        about = {"kind": name, "model": MODELS[name], "base_url": server.url, "api_key_env": "A_KEY"}
        frames = {"extra": {"video": "frames"}} if name == "openai" else {}
        return {**about, **frames, "batch": True, "price": price}

    return Recipe.model_validate(
        {
            "name": "set",
            "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
            "media": {"frames": 2, "workers": 1},
            "generate": {"backend": backend(generator, kind)},
            "judge": {"backend": backend(judges, judge_kind)},
            **more,
        }
    )


async def made(folder: Path, settings: Recipe, *, wait: bool = True) -> BuildReport:
    place = Workspace.at(folder / "set", base=folder)
    return await build(settings, place, observer=Silent(), card=write_dataset_card, wait=wait)


def verdict(text: str) -> str:
    return f"Because. <judgement>{'No' if 'shape 3?' in text else 'Yes'}</judgement>"


@pytest.mark.parametrize(("kind", "judge_kind"), [("openai", "gemini"), ("gemini", "openai")])
def test_both_steps_in_batches_of_two_providers_over_one_journal(
    kind: str, judge_kind: str, tmp_path: Path
) -> None:
    """With clips; killed twice on the way; the bytes of direct calls, and each request paid once."""
    clip = {"data_type": "video", "path": "a.mp4"}
    rows = [question(i, **(clip if i < 3 else {})) for i in range(6)]
    write_pools(tmp_path, rows)
    clip_file = write_clip(tmp_path / "a.mp4")
    for name in ("batched", "direct"):
        shutil.copy(clip_file, tmp_path / name / "a.mp4")
    outcome = ThirdsExpire()

    async def main() -> None:
        generates = SERVERS[kind](answer=lambda _: TRACE, polls=3, outcome=outcome)
        judges = SERVERS[judge_kind](answer=verdict, polls=3)
        async with generates as server, judges as judge:
            settings = recipe(server, kind, judge, judge_kind)
            judge.fail("create", Cut(after=True))
            states = [(await made(tmp_path / "batched", settings, wait=False)).state for _ in range(3)]
            assert states[0] == "waiting" and len(judge.batches) <= 1
            report = await made(tmp_path / "batched", settings)
            assert report.state == "complete" and report.ledger is not None
            assert (report.ledger.kept, report.ledger.rejected, report.spent.lost_usd) == (5, 1, 0)
            assert report.spent.finished_usd == pytest.approx(12 * (10 * 2.0 + 5 * 8.0) / 2e6)
            assert set(judge.accepted_ids.values()) == {1}
            assert {server.accepted_ids[key] for key in outcome.expired} == {2}
            assert set(server.accepted_ids.values()) == {1, 2}
            pictures = [body for body in server.bodies if "/9j/" in str(body)]
            assert len(pictures) >= 3, "the frames went with the batch"
            direct = settings.with_backends(lambda spec: spec.model_copy(update={"batch": False}))
            await made(tmp_path / "direct", direct)

    asyncio.run(main())
    batched, direct = (tmp_path / name / "set" for name in ("batched", "direct"))
    assert [r["problem_id"] for r in rows_of(batched, "rejected")] == ["3"]
    assert without_url(batched) == without_url(direct)


def test_a_clip_goes_as_its_own_file_through_a_whole_build(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i, data_type="video", path="a.mp4") for i in range(2)])
    write_clip(tmp_path / "a.mp4")

    async def main() -> None:
        async with FakeGemini(answer=lambda _: TRACE) as server:
            settings = recipe(server, "gemini", server, "gemini", judge=None)
            file = {"batch": False, "extra": {"video": "file"}}
            settings = settings.with_backends(lambda spec: spec.model_copy(update=file))
            report = await made(tmp_path, settings)
            assert report.state == "complete" and report.ledger is not None and report.ledger.kept == 2
            assert server.calls["upload"] == 2 == len(server.deleted)
            assert all("fileData" in body["contents"][0]["parts"][0] for body in server.bodies)
            again = await made(tmp_path, settings)
            assert again.calls_made == 0 and server.calls["upload"] == 2
            looked = settings.model_dump() | {"media": {"look": {"blur": 1.0}}}
            with pytest.raises(ValidationError, match="shown as it is"):
                Recipe.model_validate(looked)

    asyncio.run(main())


def test_no_room_at_the_server_is_waited_for_and_told(tmp_path: Path) -> None:
    """OpenAI takes a batch and then fails it whole: too many tokens are enqueued."""
    write_pool(tmp_path, [question(0)])

    async def main() -> None:
        async with FakeOpenAIBatches(answer=lambda _: TRACE) as server:
            accept = server.accept

            def crowded(*args: Any) -> Any:
                batch = accept(*args)
                batch.state = "failed"
                return batch

            server.accept = crowded  # type: ignore[method-assign, assignment]
            settings = recipe(server, "openai", server, "openai", judge=None)
            report = await made(tmp_path, settings)
            assert len(server.batches) == batches.MAX_ROUNDS and report.spent.lost_usd == 0
            assert "token_limit_exceeded" in (report.last_error or "")
            server.accept = accept  # type: ignore[method-assign]
            assert (await made(tmp_path, settings)).state == "complete"

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_check_says_whether_the_server_takes_batches(kind: str, tmp_path: Path) -> None:
    write_pool(tmp_path, [question(0, data_type="video", path="a.mp4")])
    write_clip(tmp_path / "a.mp4")

    async def findings(server: FakeBatches, **extra: Any) -> list[tuple[str, str]]:
        settings = recipe(server, kind, server, kind, judge=None)
        settings = settings.with_backends(lambda spec: spec.model_copy(update={"extra": extra}))
        place = Workspace.at(tmp_path / "set", base=tmp_path)
        rows = TrialRows()
        for row in read_pool(settings.sources, base=place.base, demo_root=place.demo):
            assert isinstance(row, Sample)
            rows.see(row, tmp_path)
        (look,) = await look_at_servers(settings, place, rows, calls="models", tell=lambda _: None)
        return [(f.state, f.message) for f in look.findings if f.about == "batches"]

    async def main() -> None:
        async with SERVERS[kind]() as server:
            frames = {"video": "frames"}
            assert await findings(server, **frames) == [("ok", "the server takes batches")]
            server.fail("list", Status(404, "not_found"))
            ((state, message),) = await findings(server, **frames)
            assert state == "error" and message.startswith("its batches cannot be listed: status 404")
            if kind == "openai":
                (first, *_) = await findings(server)
                assert first[0] == "error" and "vLLM" in first[1]

    asyncio.run(main())
