from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import clip_frames, image_frames, request
from videop2r_data.backends.local.transformers import TransformersBackend
from videop2r_data.backends.money import media_tokens
from videop2r_data.errors import BackendError, ConfigError, TransientError
from videop2r_data.schemas.calls import Completion, Frames, Request, SamplingParams
from videop2r_data.schemas.judges import BackendSpec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from tests.tiny_model import make_tiny_model

    yield make_tiny_model(tmp_path_factory.mktemp("tiny"))


def spec(model: Path, **changes: Any) -> BackendSpec:
    return BackendSpec(kind="transformers", model=str(model), extra={"dtype": "float32"}, **changes)


def ask(settings: BackendSpec, *calls: tuple[Request, Frames | None]) -> list[Completion]:
    async def run() -> list[Completion]:
        backend = TransformersBackend(settings)
        await backend.start()
        try:
            return [await backend.complete(*call) for call in calls]
        finally:
            await backend.close()
            await backend.close()

    return asyncio.run(run())


def test_text_image_and_video_are_answered_greedily_and_repeatably(model: Path) -> None:
    calls: list[tuple[Request, Frames | None]] = [(request("How many?", max_tokens=8), None)]
    for frames in (image_frames(seed=1), clip_frames(4, seed=1)):
        calls.append((request("How many?", frames=frames, max_tokens=8), frames))
    first = ask(spec(model), *calls)
    assert [a.text for a in first] == [a.text for a in ask(spec(model), *calls)]
    assert all(a.usage.output_tokens <= 8 and a.finish_reason in ("stop", "length") for a in first)


def test_every_frame_counts_once_and_is_not_resized(model: Path) -> None:
    plain = ask(spec(model), (request("Look.", max_tokens=2), None))[0].usage.input_tokens
    for frames in (clip_frames(16, height=56, width=84), image_frames(height=84, width=56)):
        got = ask(spec(model), (request("Look.", frames=frames, max_tokens=2), frames))[0].usage.input_tokens
        assert got == plain + media_tokens(frames.record) + 2  # vision start and end


def test_pixels_and_times_reach_the_model(model: Path) -> None:
    backend = TransformersBackend(spec(model))
    asyncio.run(backend.start())
    frames = clip_frames(16, fps=8.0, every=4)
    inputs = backend._inputs(request("When?", frames=frames), frames)
    # One frame each half second: a pair of frames lasts one second.
    assert inputs["second_per_grid_ts"][0] == pytest.approx(2 / (16 / 61 * 8))
    other = clip_frames(16, fps=8.0, every=4, seed=9)
    changed = backend._inputs(request("When?", frames=other), other)
    assert not torch.equal(inputs["pixel_values_videos"], changed["pixel_values_videos"])
    asyncio.run(backend.close())


def test_sampling_repeats_with_a_seed_and_differs_without(model: Path) -> None:
    hot = SamplingParams(temperature=1.5, max_tokens=12, seed=3)
    asked = request("Tell me", params=hot)
    one, two = ask(spec(model), (asked, None), (asked, None))
    assert one.text == two.text
    other = request("Tell me", params=SamplingParams(temperature=1.5, max_tokens=12, seed=4))
    assert ask(spec(model), (other, None))[0].text != one.text


def test_a_deadline_and_a_cancellation_stop_the_generation(model: Path) -> None:
    async def run() -> None:
        backend = TransformersBackend(spec(model, timeout_s=0.05))
        await backend.start()
        long = request("Go on", max_tokens=20_000)
        with pytest.raises(TransientError, match=r"within 0\.05 s"):
            await backend.complete(long)
        await backend.close()
        backend = TransformersBackend(
            spec(model, timeout_s=300)
        )  # the cancellation comes first, on any machine
        await backend.start()
        task = asyncio.create_task(backend.complete(long))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await backend.close()

    asyncio.run(run())


def test_what_cannot_work_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        ask(spec(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot load"):
        ask(spec(tmp_path))
    frames = clip_frames(2)
    encoded_only = Frames(frames.record, encoded=(b"x", b"y"))
    with pytest.raises(BackendError, match="as an array"):
        ask(spec(model), (request("q", frames=frames), encoded_only))
    with pytest.raises(BackendError, match="not started"):
        asyncio.run(TransformersBackend(spec(model)).complete(request("q")))


def test_adapters_are_merged_into_their_model(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from transformers import AutoModelForImageTextToText

    from videop2r_data.trainer.model.load import add_adapters
    from videop2r_data.trainer.settings.parts import LoraSpec

    net = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    net = add_adapters(net, LoraSpec(rank=2, alpha=64))
    torch.manual_seed(0)
    for name, weight in net.named_parameters():
        if "lora_B" in name:  # zero at first: adapters that were never trained change nothing
            torch.nn.init.normal_(weight)
    net.save_pretrained(tmp_path / "adapters")
    call = (request("How many?", max_tokens=8), None)
    told = [ask(spec(folder), call)[0].text for folder in (model, tmp_path / "adapters")]
    assert told[0] != told[1]
    net.merge_and_unload().save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json",
                 "chat_template.jinja", "video_preprocessor_config.json"):  # fmt: skip
        if (model / name).is_file():
            (tmp_path / "merged" / name).write_bytes((model / name).read_bytes())
    assert ask(spec(tmp_path / "merged"), call)[0].text == told[1]
    (tmp_path / "adapters" / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="do not name their model"):
        ask(spec(tmp_path / "adapters"), call)
