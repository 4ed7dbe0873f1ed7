"""What a call cost, and the most that it can cost.

Money is summed in exact decimals and turned into a float once, so that equal usage gives equal dollars.

Upper bounds, none of which needs the model's tokenizer:

- text: a byte-level tokenizer never makes more tokens than the text has UTF-8 bytes;
- media: a model of the Qwen-VL family makes one token of 28 x 28 pixels and of two frames of a video
  (`w/28 * h/28 * frames/2`), Anthropic one of 750 pixels and of each single frame. The bound takes the
  dearer one (750 pixels, no pairing) plus 32 tokens a frame for the markers and times around it;
- the answer: `max_tokens`.

A try that is cut off may be charged although its answer never came: that is why a reserve is held per try.
"""

from __future__ import annotations

from decimal import ROUND_UP, Decimal
from math import ceil

from videop2r_data.schemas.calls import MediaRecord, Request, Usage
from videop2r_data.schemas.recipe import Price

MILLION = Decimal(1_000_000)
NANO = Decimal("0.000000001")
TEMPLATE_TOKENS = 64
"""Chat template around one message, generously."""
MARKER_TOKENS = 32
"""Markers and timestamp around one frame, generously."""


def media_tokens(media: MediaRecord, *, paired: bool = True, patch: int = 28) -> int:
    """Tokens of sampled frames for a model of the Qwen-VL family.

    Args:
        media: what was sampled; sides in pixels.
        paired: two frames of a video share their tokens; False: each frame is sent as an image.
        patch: side of the square of pixels that makes one token.

    >>> clip = MediaRecord(data_type="video", frames_sha256="0", count=16, width=448, height=224,
    ...     indices=tuple(range(16)), times_s=tuple(map(float, range(16))), source_frames=16,
    ...     source_width=448, source_height=224, file_sha256="0", file_bytes=1, sampler="doc/1")
    >>> media_tokens(clip)
    1024
    """
    per_frame = ceil(media.width / patch) * ceil(media.height / patch)
    groups = ceil(media.count / 2) if paired and media.data_type == "video" else media.count
    return per_frame * groups


def likely_tokens(request: Request) -> int:
    """Input and output tokens that a call likely uses: four characters a token, the answer in full.

    A guess for token budgets per minute, not a bound.
    """
    text = sum(len(message.text) for message in request.messages) // 4
    media = media_tokens(request.media) if request.media is not None else 0
    return text + media + request.params.max_tokens


def max_input_tokens(request: Request) -> int:
    """Prompt tokens that no known tokenizer exceeds (see the module)."""
    text = sum(len(message.text.encode()) + TEMPLATE_TOKENS for message in request.messages)
    media = request.media
    if media is None:
        return text
    return text + media.count * (ceil(media.width * media.height / 750) + MARKER_TOKENS)


def cost_usd(usage: Usage, price: Price | None, *, batched: bool) -> float:
    """US dollars of one finished call; 0.0 without a price.

    >>> cost_usd(Usage(input_tokens=1000, output_tokens=100), Price(input=3, output=15), batched=True)
    0.00225
    """
    if price is None:
        return 0.0
    entry = _decimal(price.input)
    read = entry if price.cache_read is None else _decimal(price.cache_read)
    write = entry if price.cache_write is None else _decimal(price.cache_write)
    total = (
        usage.input_tokens * entry
        + usage.cache_read_tokens * read
        + usage.cache_write_tokens * write
        + usage.output_tokens * _decimal(price.output)
    )
    if batched:
        total *= _decimal(price.batch_factor)
    return float(total / MILLION)


def reserve_usd(request: Request, price: Price | None, *, batched: bool = False) -> float:
    """The most that one try of this request can cost, in US dollars, rounded up; 0.0 without a price.

    Every prompt token counts at the dearest of the input and cache prices.
    """
    if price is None:
        return 0.0
    entry = max(_decimal(p) for p in (price.input, price.cache_read, price.cache_write) if p is not None)
    total = max_input_tokens(request) * entry + request.params.max_tokens * _decimal(price.output)
    if batched:
        total *= _decimal(price.batch_factor)
    return float((total / MILLION).quantize(NANO, rounding=ROUND_UP))


def _decimal(value: float) -> Decimal:
    """The number as written in the recipe: 0.1 is one tenth."""
    return Decimal(repr(value))
