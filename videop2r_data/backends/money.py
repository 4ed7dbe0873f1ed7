"""What a call can cost and did cost, and the budget of a build, checked before a call goes out."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import ROUND_UP, Decimal
from math import ceil

from videop2r_data.backends.journal import Journal
from videop2r_data.backends.spending import NANO
from videop2r_data.errors import BudgetError, StoppedError
from videop2r_data.schemas import MediaRecord, Price, Request, Usage

# Money is summed in exact decimals and turned into a float once, so that equal usage gives equal dollars.
#
# Upper bounds, none of which needs the model's tokenizer:
#
# - text: a byte-level tokenizer never makes more tokens than the text has UTF-8 bytes;
# - media: a model of the Qwen-VL family makes one token of 28 x 28 pixels and of two frames of a video
#   (`w/28 * h/28 * frames/2`), Anthropic one of 750 pixels and of each single frame. The bound takes the
#   dearer one (750 pixels, no pairing) plus 32 tokens a frame for the markers and times around it. Gemini
#   makes up to 1,120 of a frame, however small; for OpenAI's models see `_gpt_tokens`;
# - the answer: `max_tokens`.
#
# A try that is cut off may be charged although no answer arrived: hence one reserve per try.


MILLION = Decimal(1_000_000)
_QUANTUM = Decimal("0.000000001")
_GPT = re.compile(r"\bgpt-|\bo\d\b|\bchatgpt")
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
    least = 1120 if "gemini" in request.model else _gpt_tokens(request.model, media.width, media.height)
    each = max(ceil(media.width * media.height / 750), least) + MARKER_TOKENS
    if request.sends_file:  # the server takes a frame a second, and the sound
        duration_s = media.seen.duration_s or media.seen.source_frames
        return text + ceil(duration_s + 1) * (each + MARKER_TOKENS)
    return text + media.count * each


def _gpt_tokens(model: str, width: int, height: int) -> int:
    """The most that a model of OpenAI makes of a picture, which none of them enlarges; 0 for other models.

    By its guide to images and vision: up to 85 and 170 for each begun square of 512 pixels (`gpt-4o-mini`:
    2,833 and 5,667), or up to 2.46 for each begun square of 32 pixels (`gpt-4.1-nano`).

    >>> _gpt_tokens("gpt-4o", 448, 224), _gpt_tokens("gpt-4o-mini", 448, 224), _gpt_tokens("qwen", 448, 224)
    (255, 8500, 0)
    """
    if not _GPT.search(model):
        return 0
    base, tile = (2833, 5667) if "gpt-4o-mini" in model else (85, 170)
    tiles, patches = (ceil(width / side) * ceil(height / side) for side in (512, 32))
    return max(base + tile * tiles, ceil(2.46 * patches))


def cost_usd(usage: Usage, price: Price | None, *, batched: bool) -> float:
    """US dollars of one finished call; 0.0 without a price.

    >>> cost_usd(Usage(input_tokens=1000, output_tokens=100), Price(input=3, output=15), batched=True)
    0.00225
    """
    if price is None:
        return 0.0
    entry = _decimal(price.input)
    read = entry if price.cache_read is None else _decimal(price.cache_read)
    total = (
        usage.input_tokens * entry
        + usage.cache_read_tokens * read
        + usage.cache_write_tokens * _cache_write(price)
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
    entry = max(_decimal(price.input), _decimal(price.cache_read or 0.0), _cache_write(price))
    total = max_input_tokens(request) * entry + request.params.max_tokens * _decimal(price.output)
    if batched:
        total *= _decimal(price.batch_factor)
    return float((total / MILLION).quantize(_QUANTUM, rounding=ROUND_UP))


def _cache_write(price: Price) -> Decimal:
    """Anthropic, the one that reports such tokens, charges a quarter on top of its price of input."""
    told = price.cache_write
    return _decimal(price.input) * Decimal("1.25") if told is None else _decimal(told)


def _decimal(value: float) -> Decimal:
    """The number as written in the recipe: 0.1 is one tenth."""
    return Decimal(repr(value))


# The budget of a build: money is written ahead, and the limit is checked before a call goes out.


LOOK_AGAIN_S = 0.5
"""Seconds between two looks at what other processes have given back."""
PATIENCE_S = 60.0
"""Seconds to wait for money that other processes hold and may not need."""


class Money:
    """The budget of a build over all its runs and processes, on top of what its journal says was spent.

    Args:
        journal: knows what finished calls cost and what lost ones may have cost.
        max_cost: US dollars for the whole build; None: no limit.
    """

    def __init__(self, journal: Journal, max_cost: float | None) -> None:
        self.journal = journal
        self.max_nusd = None if max_cost is None else round(max_cost * NANO)
        self._under_way = 0
        self._looking = False
        self._held_elsewhere = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._stopped = False
        journal.allowance.begin()

    def send(self, key: str, nusd: int) -> None:
        """Write ahead that a call of at most `nusd` goes out.

        Raises:
            BudgetError: it could pass the limit; nothing was written.
            JournalError: the journal cannot be written, or other processes cannot be agreed with.
        """
        if nusd == 0:
            return
        refused = self.journal.allowance.take(nusd, self.max_nusd)
        if refused is not None:
            assert self.max_nusd is not None  # without a limit nothing is refused
            self._held_elsewhere = refused.elsewhere_nusd
            elsewhere = refused.elsewhere_nusd / NANO
            others = f", {elsewhere:.4f} of them held by other processes" if elsewhere else ""
            raise BudgetError(
                f"the next call may cost {nusd / NANO:.4f} USD; {refused.taken_nusd / NANO:.4f} of "
                f"{self.max_nusd / NANO:.4f} USD are spent or committed{others}",
                hint="raise --max-cost (or max_cost in the recipe) and run the same command: nothing is lost",
            )
        self.journal.put_sent(key, nusd=nusd)

    @asynccontextmanager
    async def call(self, key: str, nusd: int) -> AsyncIterator[None]:
        """Around one call of at most `nusd`, as `send`; waits while calls under way may leave room for it.

        Calls hold far more than they cost in the end. Without the wait, a limit that is small against what
        the calls under way hold together would end the run with most of the money unspent. Calls of other
        processes are waited for too, for `PATIENCE_S` at most.

        Raises:
            BudgetError: it could pass the limit, and nothing is under way.
            StoppedError: the run was asked to stop.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if self._stopped:
                raise StoppedError("asked to stop while a call waited for money")
            try:
                self.send(key, nusd)
                break
            except BudgetError:
                if self._under_way or self._looking:
                    await self._next_end()
                elif self._held_elsewhere and time.monotonic() < deadline:
                    await self._look_again()
                else:
                    raise
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            # waiting calls run in a later turn of the loop, when the answer of this call is in the journal
            self._wake()

    async def _next_end(self) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(ended)
        await ended

    async def _look_again(self) -> None:
        """Wait once for other processes to give money back; every waiting call then tries again."""
        self._looking = True
        try:
            await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            self._looking = False
            self._wake()

    def stop(self) -> None:
        """Let no further call go out; those under way go on."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def rest(self) -> None:
        """Return the unused allowance to other processes while no call is under way."""
        if not self._under_way:
            self.journal.allowance.give_back()

    def void(self, key: str, nusd: int) -> None:
        """The call that was sent was certainly not billed."""
        if nusd:
            self.journal.put_void(key, nusd=nusd)
