"""Does the longest request of a pool fit the model's context? Measured on one call, extended from it."""

from __future__ import annotations

from math import ceil

from videop2r_data.builders.findings import Finding, State
from videop2r_data.builders.trial_rows import question_bytes
from videop2r_data.schemas import Sample
from videop2r_data.schemas.calls import MediaRecord, Request
from videop2r_data.schemas.recipe import BackendSpec, MediaSpec, Recipe

BYTES_PER_TOKEN = 3.0
"""Of a question's text: fewer than the four of plain English, so that numbers and other scripts fit too."""
ANTHROPIC_PIXELS = 750


def frame_tokens(pixels: int, spec: BackendSpec, media: MediaSpec) -> int:
    """Tokens of one picture of so many pixels."""
    return ceil(pixels / (ANTHROPIC_PIXELS if spec.kind == "anthropic" else media.factor**2))


def groups(frames: int, data_type: str, spec: BackendSpec) -> int:
    """Pictures' worth of tokens: Qwen-VL merges two frames of a clip, where it is sent as a clip."""
    paired = spec.kind != "anthropic" and spec.extra.get("video", "vllm") == "vllm"
    return ceil(frames / 2) if paired and data_type == "video" else frames


def needed_tokens(
    recipe: Recipe,
    spec: BackendSpec,
    *,
    input_tokens: int,
    sample: Sample,
    media: MediaRecord | None,
    longest: int,
) -> tuple[int, int]:
    """Prompt tokens of a build's requests, told from one whose tokens its server counted.

    Args:
        recipe: how many frames, and how large.
        spec: whom they go to.
        input_tokens: of the request that was made.
        sample: what it was about.
        media: what was sent with it; None for a text.
        longest: `question_bytes` of the longest question of the pool.

    Returns:
        The same request with every frame that the recipe asks for; the longest question, with frames of the
        largest size.
    """
    usual = longest_media = input_tokens
    if media is not None:
        most, count = recipe.media.max_pixels, recipe.media.frames
        if media.data_type == "image":
            most, count = recipe.media.image_max_pixels or most, 1
        one = frame_tokens(media.width * media.height, spec, recipe.media)
        rest = input_tokens - groups(media.count, media.data_type, spec) * one
        pictures = groups(max(count, media.count), media.data_type, spec)
        usual = rest + pictures * one
        longest_media = rest + pictures * max(one, frame_tokens(most, spec, recipe.media))
    more = max(0, longest - question_bytes(sample))
    return usual, longest_media + ceil(more / BYTES_PER_TOKEN)


def look_at_room(
    recipe: Recipe,
    spec: BackendSpec,
    request: Request,
    sample: Sample,
    *,
    counted: int,
    longest: int,
    context: int,
) -> tuple[int, Finding]:
    """Hold the tokens of the longest request against the context.

    Args:
        recipe: how many frames, and how large.
        spec: whom they go to.
        request: the one that was made.
        sample: what it was about.
        counted: its prompt tokens, as the server counted them.
        longest: `question_bytes` of the longest question of the pool.
        context: tokens of prompt and answer together; of the prompt alone for `anthropic`.

    Returns:
        Tokens that the longest request needs, and the finding.
    """
    usual, most = needed_tokens(
        recipe, spec, input_tokens=counted, sample=sample, media=request.media, longest=longest
    )
    answer = 0 if spec.kind == "anthropic" else request.params.max_tokens
    told = f"the longest request takes about {most + answer:,} of {context:,} tokens"
    if answer:
        told += f", {answer:,} of them for the answer"
    hint = (
        "start the server with a larger --max-model-len, or lower media.frames, media.max_pixels, max_tokens"
    )
    if usual + answer > context:
        told = f"a request takes about {usual + answer:,} tokens, the model has {context:,}"
        return most + answer, Finding(about="context", state="error", message=told, hint=hint)
    state: State = "warning" if most + answer > context else "ok"
    return most + answer, Finding(
        about="context", state=state, message=told, hint=hint if state != "ok" else ""
    )
