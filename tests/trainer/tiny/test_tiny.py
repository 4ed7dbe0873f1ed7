"""The tiny model: real architecture, a tokenizer that loses nothing, clips that reach it as they were drawn."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from videop2r_data.demo import iter_scenes, write_trace
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import DemoStream, draw
from videop2r_data.trainer.settings.parts import DataSpec
from videop2r_data.trainer.tiny.model import (
    SPECIAL_TOKENS,
    build_model,
    build_tokenizer,
    corpus,
    count_weights_on_disk,
    make_tiny,
)
from videop2r_data.trainer.tiny.recipe import PROMPT, TinySpec, TinyWorld, media_of, scratch_recipe

SPEC = TinySpec(corpus=200, vocab=700)
WORLD = TinyWorld()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", SPEC, world=WORLD)


def test_the_checkpoint_is_complete_and_of_the_size_that_was_promised(folder: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    net = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(net).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert net.num_parameters() == count_weights_on_disk(folder)
    assert len(processor.tokenizer) == net.config.text_config.vocab_size <= SPEC.vocab
    assert net.get_input_embeddings().weight is net.get_output_embeddings().weight


@pytest.mark.parametrize("hidden", [128, 256])
def test_the_defaults_lie_between_one_and_five_million_weights(hidden: int) -> None:
    from videop2r_data.trainer.tiny.model import build_config

    spec = TinySpec(hidden=hidden, intermediate=hidden * 5 // 2)
    tokenizer = build_tokenizer(corpus(DemoSpec(), 200), vocab=spec.vocab)
    with torch.device("meta"):
        from transformers import Qwen2_5_VLForConditionalGeneration

        net = Qwen2_5_VLForConditionalGeneration(build_config(spec, tokenizer))
    assert 0.9e6 < net.num_parameters() < 5e6


def test_equal_arguments_give_equal_bytes_and_another_seed_other_weights(
    folder: Path, tmp_path: Path
) -> None:
    again = make_tiny(tmp_path / "again", SPEC, world=WORLD)
    other = make_tiny(tmp_path / "other", SPEC.model_copy(update={"seed": 1}), world=WORLD)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert (other / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()
    assert (other / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_random_weights_leave_the_global_random_state_alone(folder: Path) -> None:
    from transformers import AutoConfig

    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_model(SPEC, AutoConfig.from_pretrained(folder))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("phrases", [True, False])
def test_every_text_comes_back_byte_for_byte(phrases: bool) -> None:
    tokenizer = build_tokenizer(corpus(WORLD, 200), vocab=900, phrases=phrases)
    strange = "<answer>B</answer> ünknown 北京 \x00 🦊  two  blanks\n\ttab [1.5, 4.0]"
    for text in (strange, *(write_trace(s, None) for s in islice(iter_scenes(WORLD), 50))):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert all(tokenizer.convert_tokens_to_ids(t) is not None for t in SPECIAL_TOKENS)


@pytest.mark.parametrize("phrases", [True, False])
def test_a_tag_is_one_token_and_no_token_crosses_it(phrases: bool) -> None:
    tokenizer = build_tokenizer(corpus(WORLD, 200), vocab=900, phrases=phrases)
    sample = next(iter_scenes(WORLD))
    pieces = [tokenizer.decode([i]) for i in tokenizer(write_trace(sample, None)).input_ids]
    for tag in ("observation", "think", "answer"):
        assert pieces.count(f"<{tag}>") == 1 and pieces.count(f"</{tag}>") == 1
    assert not [p for p in pieces if "<" in p and not (p.startswith("<") and p.endswith(">"))]


def test_phrases_are_one_token_and_facts_are_tokens_of_their_own() -> None:
    tokenizer = build_tokenizer(corpus(WORLD, 600), vocab=900, phrases=True)
    text = "<observation>Based on the question, I need to notice what has to be counted. The red circle drifts left."
    pieces = [tokenizer.decode([i]) for i in tokenizer(text).input_ids]
    assert pieces == [
        "<observation>",
        "Based on the question, I need to notice what has to be counted. The",
        " red",
        " circle",
        " drifts",
        " left",
        ".",
    ]


def test_a_clip_reaches_the_model_as_it_was_drawn(folder: Path) -> None:
    """4 frames of 24 pixels in patches of 4, 2 x 2 x 2 of them a token: 2 * 3 * 3 = 18 tokens."""
    from transformers import AutoProcessor

    media = media_of(WORLD, SPEC)
    stream = DemoStream(DataSpec(source="demo", demo=WORLD, media=media, prompt=PROMPT))
    example = stream[0]
    assert example.scene is not None
    frames = draw(example.scene, media)
    batch = Collator(AutoProcessor.from_pretrained(folder), load_prompt(PROMPT), media)([example], [frames])
    assert batch.types[0].count(2) == 18
    pixels = batch.media["pixel_values_videos"]
    assert pixels.shape == (2 * 6 * 6, 3 * 2 * 4 * 4)
    assert frames.array is not None
    paint = np.array(example.scene.scene.background, dtype=np.uint8)
    empty = np.equal(frames.array, paint).all(-1).mean()
    assert 0.2 < empty < 1.0
    assert abs(float((pixels.abs() < 1e-6).double().mean()) - empty) < 1e-9, "the background is exactly zero"


def test_the_recipe_from_nothing_is_valid_and_follows_the_sizes(tmp_path: Path) -> None:
    spec, world = TinySpec(patch=8), TinyWorld(side=32, frames=6)
    recipe = scratch_recipe(tmp_path / "m", tmp_path / "r", spec=spec, world=world, steps=3, batch=4)
    assert recipe.stage == "sft" and recipe.data.is_demo and recipe.optim.warmup == 0
    assert (recipe.data.media.factor, recipe.data.media.frames, recipe.data.media.max_pixels) == (16, 6, 1024)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": 100, "heads": 3}, "hidden 100 is not a multiple of heads 3"),
        ({"heads": 4, "kv_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
        ({"vision_hidden": 62, "vision_heads": 2}, "a vision head of 4, 8, 12"),
    ],
)
def test_sizes_that_do_not_fit_are_told(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TinySpec(**wrong)


def test_the_frequencies_of_a_head_are_shared_out_completely() -> None:
    for hidden, heads in ((96, 4), (128, 4), (256, 4)):
        spec = TinySpec(hidden=hidden, heads=heads)
        assert sum(spec.mrope_section) == spec.head_dim // 2 and min(spec.mrope_section) > 0
