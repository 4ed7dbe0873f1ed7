"""A real vLLM server with a tiny random Qwen2.5-VL: every row reaches the model as it was sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.fakes.openai_server import FakeServer
from tests.integration.test_build import rows_of
from tests.integration.test_judges import FALSE, SEES, TRUE, judged, world
from tests.integration.test_judges import pool as pool_of_shapes
from tests.vllm_rows import Call, calls_of, make_recipe, write_pool
from tests.vllm_server import MAX_LEN, Server, make_model, serve
from videop2r_data.backends.judge_requests import FaithfulnessRequests
from videop2r_data.backends.money import media_tokens
from videop2r_data.backends.openai.client import OpenAIBackend
from videop2r_data.builders.news import Observer
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.replay import reproduce
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.errors import AuthError, RefusedError
from videop2r_data.schemas.calls import Completion, Frames, MediaRecord, Message, SamplingParams
from videop2r_data.schemas.judges import BackendSpec, NamedJudge
from videop2r_data.schemas.recipe import Recipe
from videop2r_data.validators import parse_claims, parse_faithfulness

pytestmark = [pytest.mark.integration, pytest.mark.vllm]
T = TypeVar("T")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = make_model(tmp_path_factory.mktemp("model"))
    with serve(model, tmp_path_factory.mktemp("log") / "server.txt") as running:
        yield running


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"))


def settings(server: Server) -> dict[str, Any]:
    return {"kind": "openai", "model": server.model, "base_url": server.base_url, "timeout_s": 120.0}


@pytest.fixture(scope="module")
def calls(server: Server, pool: Path) -> list[Call]:
    return calls_of(make_recipe(pool, settings(server)), pool)


def with_backend(server: Server, work: Callable[[OpenAIBackend], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        backend = OpenAIBackend(BackendSpec.model_validate(settings(server)))
        await backend.start()
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(run())


def ask(server: Server, calls: Sequence[Call]) -> list[Completion]:
    """All at once, as a build does."""

    async def work(backend: OpenAIBackend) -> list[Completion]:
        return await asyncio.gather(*(backend.complete(c.request, c.frames) for c in calls))

    return with_backend(server, work)


def without_media(call: Call) -> Call:
    messages = tuple(replace(m, media=False) for m in call.request.messages)
    return Call(call.sample, replace(call.request, messages=messages, media=None), None)


def grid_tokens(record: MediaRecord) -> int:
    """Qwen2.5-VL: two frames share a token per 28 x 28 pixels, with a start and an end around them."""
    return ceil(record.count / 2) * (record.height // 28) * (record.width // 28) + 2


def changed(call: Call, **record: Any) -> Call:
    """The same pixels under another record."""
    assert call.frames is not None
    new = call.frames.record.model_copy(update=record)
    return Call(call.sample, replace(call.request, media=new), replace(call.frames, record=new))


def reversed_frames(call: Call) -> Call:
    """The same frames in the opposite order, at the same times."""
    assert call.frames is not None and call.frames.array is not None
    turned = changed(call, frames_sha256=call.frames.record.frames_sha256[::-1])
    assert turned.frames is not None
    pixels = call.frames.array[::-1].copy()
    frames = Frames(turned.frames.record, pixels, call.frames.encoded[::-1], call.frames.mime)
    return replace(turned, frames=frames)


def first(calls: Sequence[Call], data_type: str) -> Call:
    return next(c for c in calls if c.sample.data_type.value == data_type)


def test_text_image_and_video_rows_are_answered(server: Server, calls: list[Call]) -> None:
    assert {c.sample.data_type.value for c in calls} == {"text", "image", "video"}
    answers = ask(server, calls)
    for answer in answers:
        assert answer.text.strip()
        assert answer.model == server.model
        assert answer.usage.output_tokens == 24 and answer.finish_reason == "length"
    assert ask(server, calls) == answers, "greedy answers repeat, in whatever order the server batches them"


def test_every_vision_token_arrives(server: Server, calls: list[Call]) -> None:
    answers, plain = ask(server, calls), ask(server, [without_media(c) for c in calls])
    sizes = set()
    for call, answer, bare in zip(calls, answers, plain, strict=True):
        more = answer.usage.input_tokens - bare.usage.input_tokens
        expected = grid_tokens(call.frames.record) if call.frames else 0
        assert more == expected, call.sample.path or "text"
        assert not call.frames or expected == media_tokens(call.frames.record) + 2, "what an estimate counts"
        sizes.add(expected)
    assert len(sizes) > 3, "rows of several sizes"


def test_pixels_order_and_times_of_a_clip_count(server: Server, calls: list[Call]) -> None:
    clip = first(calls, "video")
    assert clip.frames is not None
    record = clip.frames.record
    slower = changed(clip, times_s=tuple(8 * t for t in record.times_s), duration_s=None)
    variants = [clip, reversed_frames(clip), slower, without_media(clip)]
    answers = ask(server, variants)
    assert len({a.text for a in answers}) == len(variants), [a.text for a in answers]
    assert len({a.usage.input_tokens for a in answers[:3]}) == 1


def test_sampling_follows_its_seed(server: Server, calls: list[Call]) -> None:
    text = first(calls, "text")

    def seeded(seed: int) -> Call:
        params = SamplingParams(temperature=1.0, max_tokens=24, seed=seed, top_p=0.95)
        return Call(text.sample, replace(text.request, params=params), None)

    one, again, other = ask(server, [seeded(1), seeded(1), seeded(2)])
    assert one.text == again.text != other.text


def test_requests_that_cannot_be_served_are_refused(server: Server, calls: list[Call]) -> None:
    text = first(calls, "text").request
    too_long = replace(text, messages=(Message("user", "word " * MAX_LEN),))
    too_much = replace(text, params=SamplingParams(max_tokens=MAX_LEN * 2))

    async def work(backend: OpenAIBackend) -> None:
        with pytest.raises(RefusedError, match=str(MAX_LEN)):
            await backend.complete(too_long)
        with pytest.raises(RefusedError, match="max_tokens"):
            await backend.complete(too_much)
        with pytest.raises(AuthError, match="does not exist"):
            await backend.complete(replace(text, model="another/model"))
        assert (await backend.complete(text)).text, "and it goes on answering"

    with_backend(server, work)


def test_a_whole_build(server: Server, pool: Path, tmp_path: Path) -> None:
    recipe = make_recipe(pool, settings(server), attempts=2)
    place = Workspace.at(tmp_path / "tiny", base=pool.parent)

    def run() -> BuildReport:
        return asyncio.run(build(recipe, place, observer=Observer(), card=write_dataset_card))

    report = run()
    assert report.state == "complete" and report.ledger is not None
    rows = len(calls_of(recipe, pool))
    # Random weights write no trace, so every row is rejected, after both of its tries.
    assert (report.ledger.rows_in, report.ledger.rejected, report.ledger.kept) == (rows, rows, 0)
    assert report.calls_made == 2 * rows and report.unanswered == 0
    again = run()
    assert again.calls_made == 0 and again.calls_found == 2 * rows and again.media_decoded == 0
    rebuilt = asyncio.run(reproduce(place, card=write_dataset_card, observer=Observer()))
    assert rebuilt.same, rebuilt.causes


CLAIMS = (TRUE, FALSE)
GUIDED = {
    "body": {
        "structured_outputs": {
            "regex": "\n".join(
                f'<claim n="{n}" at="0.5">(supported|contradicted|unseen)</claim>' for n in (1, 2)
            )
        }
    }
}
"""What a backend's `extra` holds so that vLLM writes verdicts by number, and nothing else."""


def test_claims_and_frames_reach_the_judge_that_sees(server: Server, calls: list[Call]) -> None:
    """Its two requests, on an image and on a video row: accepted, with every vision token and the times."""
    judge = NamedJudge(name="sees", decides="faithfulness", backend=settings(server), max_tokens=24)
    requests = FaithfulnessRequests(judge)

    def check(call: Call) -> Call:
        assert call.request.media is not None
        return replace(call, request=requests.check(CLAIMS, call.request.media, call.request.media_encoding))

    clip, still = (check(first(calls, kind)) for kind in ("video", "image"))
    assert clip.frames is not None
    slower = changed(clip, times_s=tuple(8 * t for t in clip.frames.record.times_s), duration_s=None)
    listing = Call(clip.sample, requests.claims("A ball rolls in."), None)
    shown, seen, later, bare, listed = ask(server, [clip, still, slower, without_media(clip), listing])
    assert shown.usage.input_tokens - bare.usage.input_tokens == grid_tokens(clip.frames.record)
    assert shown.text != later.text, "the times of the frames count"
    for answer in (shown, seen):  # random weights: nothing that could be taken for a verdict
        found = parse_faithfulness(answer.text, CLAIMS, finish_reason=answer.finish_reason)
        assert [claim.text for claim in found.claims] == list(CLAIMS) and found.score is None
    assert listed.text.strip() and parse_claims(listed.text) is None


def test_a_build_with_a_judge_that_sees(server: Server, tmp_path: Path) -> None:
    """Guided, it gives each claim a verdict by its number; unguided, its words are read safely: unscored."""
    pool_of_shapes(tmp_path, 2)
    eye = settings(server)
    answer = world(claims={1: [TRUE, FALSE], 2: [TRUE, FALSE]})

    def recipe_of(fake: FakeServer) -> Recipe:
        alone = {"does": "record", "max_tokens": 16, "backend": eye}
        made = judged(fake, SEES, SEES | alone | {"name": "unguided"}, alone | {"name": "suffices"})
        data = made.model_dump(mode="json")
        # the other model lists the claims, as random weights cannot
        data["judges"][0] |= {"panel": [eye | {"extra": GUIDED}], "does": "record", "max_tokens": 256}
        return Recipe.model_validate(data)

    async def run() -> tuple[BuildReport, Recipe]:
        async with FakeServer(answer=answer) as fake:
            recipe = recipe_of(fake)
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            return await build(recipe, place, observer=Observer(), card=write_dataset_card), recipe

    report, _ = asyncio.run(run())
    assert report.state == "complete" and report.ledger is not None and report.ledger.kept == 3
    rows = {row["problem_id"]: row for row in rows_of(tmp_path / "set", "sft")}
    for number in ("1", "2"):  # of a video and of an image
        said = {one["judge"]: one for one in rows[number]["judgements"]}
        sees = said["sees"]
        assert sees["verdict"] in ("faithful", "contradicted") and sees["score"] is not None
        assert sees["votes"][0] == "contradicted" and sees["votes"][1] in ("faithful", "contradicted")
        assert len(sees["keys"]) == 3  # the claims, and a reply of either model
        assert [claim["text"] for claim in rows[number]["claims"]] == list(CLAIMS)
        assert {claim["verdict"] for claim in rows[number]["claims"]} <= {
            "supported",
            "contradicted",
            "unseen",
        }
        for name in ("unguided", "suffices"):
            assert (said[name]["verdict"], said[name]["score"]) == ("", None)
    assert [one["judge"] for one in rows["90"]["judgements"]] == ["suffices"]  # text alone
    found = verify_release(tmp_path / "set")
    assert found.ok, found.findings
